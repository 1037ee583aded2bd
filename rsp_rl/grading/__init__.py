"""The math grader: training reward and judge of the evaluation in one.

`grade` judges a model's output, `extract_answer` finds the answer in it, `is_correct` compares an
answer with a gold. All three are total: they never raise, hang or execute what they are given.
Importing this package is cheap; SymPy lives in worker processes that are started when needed.
"""

from rsp_rl.grading.extraction import extract_answer
from rsp_rl.grading.grader import grade, is_correct
from rsp_rl.grading.verdict import Extraction, Verdict

__all__ = ["Extraction", "Verdict", "extract_answer", "grade", "is_correct"]
