"""What Coconut's paper reports (arXiv 2412.06769, table 1), which ours stands beside.

Percent of right answers and tokens an answer, means over three trainings of GPT-2, with the
paper's own spread behind the ±. Thoughts count as tokens, pauses do not. iCoT's number on GSM8K is
cited there from its own paper (arXiv 2405.14838) and has none.

A row of ours has no number there where it was trained with SIM-CoT's decoder. Its authors
(arXiv 2509.20317) report GPT-2 on GSM8K-Aug, 8.2 points above a Coconut of their own training,
which does not stand beside this paper's, and nothing of ProntoQA or ProsQA.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rsp_rl.latent.methods import METHODS, THOUGHTS


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

STEP_DECODER = "+step_decoder"
"""What the key of a row has behind its method's name, trained with SIM-CoT's decoder."""


@dataclass(frozen=True)
class TableRow:
    """One row of ours: a method, with SIM-CoT's decoder or without.

    Attributes:
        key: Its name in files.
        label: What stands in the table.
        name: What it is called in a sentence.
        reported: The paper's cells by task; none where the paper has no such row.
    """

    key: str
    label: str
    name: str
    reported: Mapping[str, Reported]


def _rows() -> Iterator[TableRow]:
    for method, cells in TABLE_1.items():
        label = METHODS[method].row
        name = label.removeprefix("- ")
        yield TableRow(method, label, name, cells)
        if METHODS[method].filler == THOUGHTS:
            with_decoder = f"{name} with SIM-CoT's decoder"
            below = "- with SIM-CoT's decoder" if label == name else f"- {with_decoder}"
            yield TableRow(method + STEP_DECODER, below, with_decoder, MappingProxyType({}))


ROWS = {row.key: row for row in _rows()}
"""By key, in the order of the paper's rows, each with the decoder right after the one without."""
