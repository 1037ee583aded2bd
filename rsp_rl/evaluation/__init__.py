"""Evaluation of models and checkpoints, after SimpleRL-Zoo (arXiv 2503.18892, section 2).

The data's way: `protocol` says what is asked and how; `questions` makes prompts of it; `asking`
has an engine of `rsp_rl.inference` answer them and grades; `samples` keeps every answer as it
comes, `manifest` how they were made; `metrics` counts; `runner` does this for one model and `sweep`
for all checkpoints of a run; `summary`, `compare` and `html_report` show it.
"""
