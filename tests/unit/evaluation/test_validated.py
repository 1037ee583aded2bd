"""An evaluation held against training's own validation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsp_rl.evaluation.trained_run import TrainedRun
from rsp_rl.evaluation.validated import unlike_validation
from tests.unit.evaluation.test_trained_run import make_run


def metrics(accuracy: float, problems: int = 200) -> dict:
    return {"accuracy": accuracy, "problems": problems}


@pytest.mark.parametrize(
    ("there", "here", "problems", "told"),
    [
        (0.945, 0.370, 200, True),  # an adapter that was left out
        (0.945, 0.945, 200, False),
        (0.50, 0.55, 500, False),
        (0.50, 0.65, 500, True),
        (1.0, 0.0, 6, True),
        (0.5, 0.25, 8, False),
        (0.0, 0.0, 30, False),
    ],
)
def test_what_chance_does_not_explain_is_said(
    there: float, here: float, problems: int, told: bool
) -> None:
    found = unlike_validation({"a": there, "b": 0.1}, {"a": metrics(here, problems)})
    assert bool(found) == told
    if told:
        assert f"{there:.1%} of a right, this evaluation {here:.1%}" in found[0]


def test_a_runs_own_validation_by_source_and_step(tmp_path: Path) -> None:
    """Of a run that goes on too: nothing of it is written."""
    root = make_run(tmp_path / "run", 10)
    run = TrainedRun.open(root)
    assert run.validated(10) == {}
    rows = [
        {"step": 10, "data": {"val-core/math500/acc/mean@1": 0.5, "critic/score/mean": 1.0}},
        {"step": 20, "data": {"val-core/hub/x/acc/mean@4": 0.25, "val-core/x/acc/best@4/mean": 1}},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 3'
    (root / "metrics.jsonl").write_text(text)
    assert (run.validated(10), run.validated(20)) == ({"math500": 0.5}, {"hub/x": 0.25})
    assert (root / "metrics.jsonl").read_text() == text
