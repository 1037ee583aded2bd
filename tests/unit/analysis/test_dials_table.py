"""Dials and templates side by side: names, references, numbers by hand, the first token's shift."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rsp_rl.analysis.conditions import open_conditions
from rsp_rl.analysis.dials_table import (
    DISTINCT,
    GREEDY,
    SAMPLED,
    SHIFT,
    TOKENS,
    analyse,
    dial_name,
    dials,
    references_of,
)
from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.cli import main
from rsp_rl.dials.options import RspOptions
from rsp_rl.evaluation.comparison import Estimate
from rsp_rl.evaluation.protocol import load_protocol
from tests.unit.analysis.made_conditions import make_condition


@pytest.mark.parametrize(
    ("rsp", "name"),
    [
        ({"length": 0, "law": "fixed"}, "baseline"),
        ({"length": 5}, "L = 5"),
        ({"length": 20, "scale": 0.25}, "L = 20, scale 0.25"),
        ({"length": 20, "law": "vocab", "position": "prefix"}, "L = 20, vocab, prefix"),
        ({"length": 1, "mode": "shared"}, "L = 1, shared"),
    ],
)
def test_names(rsp: dict[str, object], name: str) -> None:
    protocol = replace(load_protocol("rsp_inference"), rsp=RspOptions(**rsp))
    assert dial_name(protocol) == name
    assert dial_name(protocol, template=True) == f"{protocol.template}, {name}"


def test_by_hand(tmp_path: Path) -> None:
    def made(name: str, marks: list[str], temperature: float = 1.0, **rsp: object) -> str:
        asked = {"gsm8k": marks}
        return make_condition(
            tmp_path / name, asked, rsp=rsp or None, temperature=temperature, tokens=len(marks[0])
        )

    texts = [
        made("b", ["++", "--"]),
        made("bg", ["+", "-"], 0.0),
        made("d", ["+-", "+-"], length=5),
        made("dg", ["+", "+"], 0.0, length=5),
    ]
    analyse(texts, tmp_path / "out", first_tokens=None)
    conditions = [
        replace(condition, name=dial_name(condition.protocol))
        for condition in open_conditions(texts, lambda protocol: "")
    ]
    rows = dials(conditions)["gsm8k"]
    assert list(rows) == ["baseline", "L = 5"]
    assert rows["baseline"][SAMPLED].accuracy == Estimate(0.5, 0, 1)
    assert rows["baseline"][SAMPLED].difference is None
    drawn = rows["L = 5"]
    assert (drawn[SAMPLED].accuracy.value, drawn[SAMPLED].difference.value) == (0.5, 0)
    assert drawn[GREEDY].difference == Estimate(0.5, 0, 1)
    assert drawn[TOKENS].accuracy.value == 2
    # Right answers are one text, wrong ones another.
    assert rows["baseline"][DISTINCT].accuracy.value == 0.5
    assert drawn[DISTINCT].accuracy.value == 1
    assert "L = 5" in (tmp_path / "out" / "dials.md").read_text()
    with pytest.raises(RunFolderError, match="without any first"):
        dials(conditions[::-1])
    with pytest.raises(ConfigError, match="both called"):
        dials([*conditions, replace(conditions[2])])


def test_what_a_condition_is_compared_with(tmp_path: Path) -> None:
    names = ["own", "own, L", "other", "other, L", "third, L"]
    conditions = []
    for number, name in enumerate(names):
        rsp = {"length": 4} if name.endswith("L") else None
        text = make_condition(tmp_path / str(number), {"gsm8k": ["+"]}, rsp=rsp)
        (made,) = open_conditions([text], lambda protocol: "")
        protocol = replace(
            made.protocol, template={"own": "chat", "oth": "raw"}.get(name[:3], "abel")
        )
        conditions.append(replace(made, name=name, protocol=protocol))
    assert references_of(conditions) == dict(
        zip(names, ["own", "own", "own", "other", "own"], strict=True)
    )


def test_first_tokens_shift_and_laws_at_inference(model: Path, tmp_path: Path) -> None:
    """Nothing moves with a scale of 0 around a mean of 0; rows of the table do."""
    folders = []
    for name, *rsp in (
        ("none", "rsp.length=0"),
        ("drawn", "rsp.length=4"),
        ("vocab", "rsp.length=4", "rsp.law=vocab"),
        ("fixed", "rsp.length=4", "rsp.law=fixed"),
    ):
        folders.append(str(tmp_path / name))
        command = ["eval", str(model), *rsp, "benchmarks.arithmetic.limit=4", "--protocol", "tiny"]
        command += ["--engine", "huggingface", "--dtype", "float32", "--output", folders[-1]]
        assert main(command) == 0
    conditions = [
        replace(condition, name=dial_name(condition.protocol))
        for condition in open_conditions(folders, lambda protocol: "")
    ]
    rows = dials(conditions, first_tokens=4)["arithmetic"]
    assert list(rows) == ["baseline", "L = 4", "L = 4, vocab", "L = 4, fixed"]
    assert SHIFT not in rows["baseline"]
    shifts = [row[SHIFT].accuracy.value for row in list(rows.values())[1:]]
    assert all(0 < shift <= 1 for shift in shifts)
    assert len(set(shifts)) == 3
