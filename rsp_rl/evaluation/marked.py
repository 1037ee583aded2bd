"""The verdict on answers with a mark of their own, as models that think are trained to write them.

What they write is `### ANSWER`, a line, and the gold is such a text: sentences as well as numbers,
which the mathematics of `rsp_rl.grading` has nothing to say of.
"""

from __future__ import annotations

from rsp_rl.grading.verdict import Verdict
from rsp_rl.latent.problem_tokens import answer_of, is_right

MARKED = "marked"
"""`extraction_step` of all such samples, those without an answer too: they are graded by it."""


def grade_marked(output: str, gold: str) -> Verdict:
    """Whether an output states the gold on the line of its mark, commas aside."""
    found = answer_of(output)
    stage = "none" if found is None else "string"
    return Verdict(is_right(output, gold), stage, found or "", MARKED)
