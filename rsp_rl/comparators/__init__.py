"""Soft prompts that are trained or optimised, to hold random ones against (paper, Table 1).

`rsp_rl.inference.soft_prompts` is what they and RSP's own draw have in common. One module a method:
`ltpo` optimises the vectors of each problem at test time, `ttsv` trains one prefix for all
problems, `softcot` trains a projection of an assistant model's hidden states. Evaluation is the
project's own, with `comparator.method=...` in the protocol. `presets` names the authors' settings
and the RSP paper's.
"""
