"""Evaluation of models and checkpoints, after SimpleRL-Zoo (arXiv 2503.18892, section 2).

The data's way: `protocol` says what is asked and how; `rsp_rl.inference` answers it; `samples`
keeps every answer as it comes; `metrics` counts; `runner` does this for one model and `sweep` for
all checkpoints of a run; `summary`, `compare` and `html_report` show it.
"""
