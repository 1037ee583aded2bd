"""`rsp-rl reproduce`: what a section of the paper needs, on any model, as one page.

`tables` holds the paper's tables, and `paper` what their numbers are numbers of; `plan` says what a
section evaluates and analyses; `steps` does it; `measured` reads the numbers back;
`comparator_settings` says how a comparator's differ from the paper's; `page` puts all side by side.
"""
