"""`rsp-rl reproduce`: what a section of the paper needs, on any model, as one page.

`paper` holds the paper's numbers; `plan` says what a section evaluates and analyses; `steps` does
it; `measured` reads the numbers back; `page` puts both side by side.
"""
