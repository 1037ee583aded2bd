"""Sections 4.2 to 4.4 on the tiny model: evaluated by vLLM, analysed, on one page."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rsp_rl.evaluation.metrics import pass_at_k
from rsp_rl.evaluation.samples import read_samples
from tests.integration.harness import Task

PROBLEMS, SAMPLES, TRAJECTORIES, LENGTH, OTHER_LENGTH = 12, 4, 6, 8, 4


def reproduce(model: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """As a user does it; one engine answers all conditions of all sections."""
    command = [sys.executable, "-m", "rsp_rl.cli", "reproduce", f"rsp.length={LENGTH}"]
    command += [f"benchmarks.arithmetic.limit={PROBLEMS}", "--section", "4.2,4.3,4.4"]
    command += ["--model", model, "--protocol", "tiny", "--lengths", f"{OTHER_LENGTH},{LENGTH}"]
    command += ["--samples", SAMPLES, "--trajectories", TRAJECTORIES, "--embedder", "ngrams"]
    command += ["--dtype", "float32", "--output", output]
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, timeout=900
    )


@pytest.fixture(scope="module")
def made(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished reproduction."""
    output = tmp_path_factory.mktemp("reproduced")
    done = reproduce(task.model, output)
    assert done.returncode == 0, done.stderr[-4000:]
    return output


@pytest.fixture(scope="module")
def page(made: Path) -> str:
    return (made / "report.md").read_text()


def rows(file: Path) -> list[dict[str, str]]:
    with file.open() as stream:
        return list(csv.DictReader(stream))


def right(made: Path, label: str) -> np.ndarray:
    """Right answers of each problem under a condition, from what was stored."""
    (file,) = made.glob(f"evaluations/{label}_arithmetic-*/step_0/arithmetic.samples.jsonl")
    counts: dict[str, int] = {}
    for sample in read_samples(file):
        counts[sample["problem"]] = counts.get(sample["problem"], 0) + sample["correct"]
    assert len(counts) == PROBLEMS
    return np.array(list(counts.values()))


def test_the_page_holds_every_table_and_figure(made: Path, page: str) -> None:
    titles = re.findall(r"^### (.*)$", page, re.MULTILINE)
    assert titles == [
        "Tables 2 and 6: accuracy by position",
        "Table 7: length of the soft prompt",
        "Figures 3 and 6, Table 9: distributions along the answer",
        "Figures 2 and 7, Theorem 1: attention on soft prompt and question",
        "Table 3: the first token",
        "Table 4: semantic diversity",
        "Figure 4: pass@N",
        "Table 10: problems solved with and without soft prompts",
    ]
    assert "Failed" not in page
    assert "nan" not in page
    figures = re.findall(r"!\[.*\]\((.*)\)", page)
    assert len(figures) == len(titles)
    assert all((made / figure).read_bytes().startswith(b"\x89PNG") for figure in figures)
    html = (made / "report.html").read_text()
    assert html.count("<svg") == len(titles)
    assert html.count("<h3>") == len(titles)
    assert "**Another model than the paper's.**" in page
    assert "| suffix | entropy, first 5% | 0.1941 | – | not in this run |" in page


def test_section_4_2(made: Path, page: str) -> None:
    baseline = right(made, "baseline").mean()
    for name in ("prefix", "infix", "suffix"):
        accuracy = right(made, f"{name}_L{LENGTH}").mean()
        assert re.search(rf"^\| {name} \| {100 * accuracy:.2f} \[", page, re.MULTILINE)
        difference = f"{100 * (accuracy - baseline):+.2f}"
        assert re.search(
            rf"^\| {name} − baseline \| {re.escape(difference)} \[", page, re.MULTILINE
        )
    table = rows(made / "analysis" / "lengths" / "lengths.csv")
    for row in table:
        halves = (float(row["choosing"]) + float(row["held_out"])) / 2  # of equal size
        assert halves == pytest.approx(right(made, f"suffix_L{row['length']}").mean())
    (chosen,) = [row for row in table if row["chosen"] == "1"]
    assert float(chosen["choosing"]) == max(float(row["choosing"]) for row in table)
    assert f" | {chosen['length']} | {100 * float(chosen['held_out']):.2f} [" in page


def test_section_4_3(made: Path, page: str) -> None:
    found = json.loads((made / "analysis" / "distributions" / "distributions.json").read_text())
    conditions = found["arithmetic"]
    assert list(conditions) == ["baseline", "prefix", "infix", "suffix"]
    for name, values in conditions.items():
        label = name if name == "baseline" else f"{name}_L{LENGTH}"
        (file,) = made.glob(f"evaluations/{label}_arithmetic-*/step_0/arithmetic.samples.jsonl")
        tokens = np.mean([sample["tokens"] for sample in read_samples(file)])
        assert values["tokens"] == pytest.approx(tokens, abs=1)  # encoded anew
        entropy, top1 = values["entropy_overall"]["mean"], values["top1_overall"]["mean"]
        assert 0 < entropy < np.log(512)
        assert 0 < top1 <= 1
        assert f"| {name} | {values['entropy_first_5_percent']['mean']:.4f} ± " in page
    attention = json.loads((made / "analysis" / "attention" / "attention.json").read_text())
    theorem = attention["arithmetic"]["theorem_1"]
    assert theorem["violations"] == 0
    # Two layers, four heads, and at the least the five tokens that follow a suffix.
    assert theorem["checked"] > 2 * 4 * 5 * PROBLEMS
    assert theorem["worst_slack"] > 0
    mass = attention["arithmetic"]["per_token_mass"]["soft_prompt"]
    assert f"| arithmetic | {100 * mass:.4f} |" in page


def test_section_4_4(made: Path, page: str) -> None:
    labels = {
        "baseline, sampled": f"baseline_sampled_x{SAMPLES}",
        "shared RSP, sampled": f"shared_sampled_x{SAMPLES}_L{LENGTH}",
        "independent RSP, greedy": f"independent_greedy_x{SAMPLES}_L{LENGTH}",
        "independent RSP, sampled": f"independent_sampled_x{SAMPLES}_L{LENGTH}",
    }
    counts = {name: right(made, label) for name, label in labels.items()}
    for row in rows(made / "analysis" / "pass_at_n" / "pass_at_n.csv"):
        expected = pass_at_k(SAMPLES, counts[row["condition"]], int(row["n"]))
        assert float(row["pass"]) == pytest.approx(expected)
    for name, correct in counts.items():
        assert f"| {name} | {100 * pass_at_k(SAMPLES, correct, 1):.2f} [" in page
    baseline, rsp = counts["baseline, sampled"] > 0, counts["independent RSP, sampled"] > 0
    cells = [baseline & rsp, baseline & ~rsp, ~baseline & rsp, ~baseline & ~rsp]
    assert f"| arithmetic | {' | '.join(str(c.sum()) for c in cells)} | {PROBLEMS} |" in page
    first = {
        (row["row"], row["metric"]): float(row["value"])
        for row in rows(made / "analysis" / "first_token" / "first_token.csv")
    }
    assert first["τ = 2", "spearman"] == pytest.approx(1)
    assert -1 <= first["suffix", "spearman"] < 1
    assert 0 < first["τ = 2", "js_divergence"] < first["τ = 3", "js_divergence"] < 1
    assert f"| suffix | {first['suffix', 'spearman']:.3f} [" in page
    for row in rows(made / "analysis" / "diversity" / "diversity.csv"):
        if row["measure"] == "pairwise":
            assert 0 < float(row["mean"]) < 1
            assert f"| {row['condition']} | {float(row['mean']):.4f} [" in page


def test_again_it_has_nothing_to_do(made: Path, task: Task) -> None:
    before = (made / "report.html").read_bytes()
    again = reproduce(task.model, made)
    assert again.returncode == 0, again.stderr[-4000:]
    assert again.stderr.count("done before") == 11 + 8
    assert (made / "report.html").read_bytes() == before
