"""What Coconut's paper reports (arXiv 2412.06769, table 1), which ours stands beside.

Percent of right answers and tokens an answer, means over three trainings of GPT-2, with the
paper's own spread behind the ±. Thoughts count as tokens, pauses do not. iCoT's number on GSM8K is
cited there from its own paper (arXiv 2405.14838) and has none.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reported:
    """One cell.

    Attributes:
        accuracy: Percent.
        spread: Behind its ±; None where the paper has none.
        tokens: Of an answer, thoughts included.
    """

    accuracy: float
    spread: float | None
    tokens: float


TASKS = ("gsm8k", "prontoqa", "prosqa")

#: By method (`rsp_rl.latent.methods.METHODS`), in the order of the paper's rows, and task.
TABLE_1: dict[str, dict[str, Reported]] = {
    method: dict(zip(TASKS, cells, strict=True))
    for method, cells in {
        "cot": (Reported(42.9, 0.2, 25.0), Reported(98.8, 0.8, 92.5), Reported(77.5, 1.9, 49.4)),
        "no_cot": (Reported(16.5, 0.5, 2.2), Reported(93.8, 0.7, 3.0), Reported(76.7, 1.0, 8.2)),
        "icot": (Reported(30.0, None, 2.2), Reported(99.8, 0.3, 3.0), Reported(98.2, 0.3, 8.2)),
        "pause": (Reported(16.4, 1.8, 2.2), Reported(77.7, 21.0, 3.0), Reported(75.9, 0.7, 8.2)),
        "coconut": (Reported(34.1, 1.5, 8.2), Reported(99.8, 0.2, 9.0), Reported(97.0, 0.3, 14.2)),
        "no_curriculum": (
            *(Reported(14.4, 0.8, 8.2), Reported(52.4, 0.4, 9.0), Reported(76.1, 0.2, 14.2)),
        ),
        "no_thought": (
            *(Reported(21.6, 0.5, 2.3), Reported(99.9, 0.1, 3.0), Reported(95.5, 1.1, 8.2)),
        ),
        "pause_as_thought": (
            *(Reported(24.1, 0.7, 2.2), Reported(100.0, 0.1, 3.0), Reported(96.6, 0.8, 8.2)),
        ),
    }.items()
}
