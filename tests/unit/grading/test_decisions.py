"""Each row of the evaluation's table of decisions holds, in the reward as in the evaluation."""

import re
from pathlib import Path

import pytest

from rsp_rl.grading import grade
from rsp_rl.grading.reward import compute_score

TABLE = Path(__file__).resolve().parents[3] / "docs" / "grading.md"


def _decisions():
    for line in TABLE.read_text().splitlines():
        cells = re.split(r"(?<!\\)\s*\|\s*", line.strip("| "))
        if len(cells) == 4 and cells[3] in ("right", "wrong"):
            yield pytest.param(*(_code(cell) for cell in cells[1:3]), cells[3], id=line)


def _code(cell):
    """What stands between a cell's marks of code, which may hold single ones between double."""
    marks = "``" if cell.startswith("``") else "`"
    assert cell.startswith(marks), cell
    assert cell.endswith(marks), cell
    return cell.removeprefix(marks).removesuffix(marks)


DECISIONS = list(_decisions())


def test_the_table_is_read():
    assert len(DECISIONS) > 20


@pytest.mark.parametrize(("output", "gold", "verdict"), DECISIONS)
def test_decision(output, gold, verdict):
    assert bool(grade(output, gold)) is (verdict == "right")
    assert compute_score("any", output, gold)["acc"] == float(verdict == "right")
