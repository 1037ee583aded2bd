"""The paper's tables and figures of RSP at inference, one small module each.

`position_table`, `pass_at_n` and `coverage` count finished evaluations; `distributions`,
`first_token` and `attention_mass` run the model over what it was asked and answered there.
`condition_protocols` makes the evaluations that a figure needs, `conditions` reads them back.
"""
