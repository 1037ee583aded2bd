"""What a reproduction found, kept for the page: files, how made, claims in their place."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import real_model_results as script

from rsp_rl.basics.files import write_json
from tests.digit_model import make_digit_model

HOW = {
    "engine": {"dtype": "bfloat16", "kind": "vllm"},
    "made_with": [{"versions": {"torch": "2"}}],
    "protocol": {
        "rsp": {"seed": 42},
        "seed": 0,
        "template": "plain-chat",
        "max_tokens": 24,
        "benchmarks": {"sums": {"samples": 4}},
    },
    "weights": "digest",
}


def make_reproduction(root: Path) -> None:
    analysis = root / "analysis" / "pass_at_n"
    analysis.mkdir(parents=True)
    (analysis / "pass_at_n.csv").write_text(
        "benchmark,condition,n,pass,low,high,difference,difference_low,difference_high\n"
        '"sums","independent RSP, sampled",4,0.5,0.4,0.6,0.1,0.05,0.2\n'
    )
    (analysis / "pass_at_n.svg").write_text("<svg/>")
    write_json(analysis / "made_from.json", {"evaluations": {"baseline-1": ""}, "runs": []})
    step = root / "evaluations" / "baseline-1" / "step_0"
    step.mkdir(parents=True)
    write_json(step / "how.json", HOW)


def test_a_reproduction_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_reproduction(tmp_path / "made")
    results, page = tmp_path / "results", tmp_path / "page.md"
    page.write_text(f"before\n{script.BEGIN}\nold\n{script.END}\nafter\n")
    model = str(make_digit_model(tmp_path / "model"))
    arguments = [
        str(tmp_path / "made"),
        "--model",
        model,
        "--analyses",
        "pass_at_n",
        "--command",
        "rsp-rl x",
    ]
    arguments += ["--minutes", "3", "--results", str(results), "--page", str(page)]
    for _ in range(2):  # again changes nothing
        monkeypatch.setattr(sys, "argv", ["script", *arguments])
        script.main()
        text = page.read_text()
        assert text.startswith(f"before\n{script.BEGIN}\n\n1 yes, 0 no, 0 undecided")
        assert text.endswith(f"{script.END}\nafter\n")
        assert "old" not in text
    assert [file.name for file in (results / "pass_at_n").iterdir()] == ["pass_at_n.csv"]
    how = json.loads((results / "how.json").read_text())["analyses"]["pass_at_n"]
    assert (how["command"], how["minutes"], how["dtype"]) == ("rsp-rl x", 3, "bfloat16")
    assert how["versions"] == {"torch": "2"}
