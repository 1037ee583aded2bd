r"""The reward for verl: a custom reward function around `rsp_rl.grading.grade`.

In verl 0.9.1::

    reward.custom_reward_function.path=pkg://rsp_rl.grading.reward
    reward.custom_reward_function.name=compute_score

verl's reward loop calls it in a thread of a Ray actor, which is why nothing here depends on
signals or on the main thread.
"""

from __future__ import annotations

from typing import Any

from rsp_rl.grading.gold import gold_text
from rsp_rl.grading.grader import grade
from rsp_rl.grading.verdict import STEPS


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,
    *,
    format_reward: float = 0.0,
    right_reward: float = 1.0,
    **_: Any,
) -> dict[str, float | str]:
    r"""Score one response.

    Args:
        data_source: Name of the benchmark or task.
        solution_str: The model's response.
        ground_truth: The gold answer; a number, or a list of one, stands for its text.
        extra_info: Not used; verl always passes it.
        format_reward: Added to the score of a wrong answer that stands in a ``\boxed{}``; off by
            default. It never touches ``acc``, on which dynamic sampling filters.
        right_reward: The score of a right answer.

    Returns:
        ``score`` (of a right answer, of the format, or 0.0), ``acc`` (1.0 or 0.0), ``pred`` (the
        extracted answer), ``extraction_step`` (its name), ``stage``, and as numbers, hence as
        metrics: ``timeouts``, ``crashes``, ``unparsable``, ``no_answer`` and ``boxed``.

    Raises:
        ValueError: If the gold has no one text (`gold_text`); training looks at all golds first.
    """
    verdict = grade(solution_str, gold_text(ground_truth), data_source)
    accuracy = 1.0 if verdict else 0.0
    score = float(right_reward) if verdict else 0.0
    if format_reward and not verdict and verdict.extraction_step == "boxed":
        score = format_reward
    return {
        "score": score,
        "acc": accuracy,
        "pred": verdict.extracted,
        "extraction_step": verdict.extraction_step,
        "stage": verdict.stage,
        "timeouts": float(verdict.timed_out),
        "crashes": float(verdict.crashed),
        "unparsable": float(verdict.unparsable),
        "no_answer": float(verdict.extraction_step == STEPS[-1]),
        "boxed": float(verdict.extraction_step == "boxed"),
    }
