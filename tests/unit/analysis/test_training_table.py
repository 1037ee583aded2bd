"""Training runs of several seeds: pairs by hand, against scipy, and what lacks a pair."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from rsp_rl.analysis.training_table import compare_by_seed, t_interval
from rsp_rl.cli import main
from tests.unit.evaluation.made_runs import make_evaluation


def make_run(root: Path, held_out: dict[int, float], entropy: list[float]) -> Path:
    root.mkdir(parents=True)
    lines = [{"step": 0, "data": {"val-core/sums/acc/mean@1": held_out[0]}}]
    for step, value in enumerate(entropy, 1):
        data = {"actor/entropy": value, "critic/score/mean": 0.1 * step}
        if step in held_out:
            data["val-core/sums/acc/mean@1"] = held_out[step]
        lines.append({"step": step, "data": data})
    (root / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def rows_of(file: Path) -> dict[tuple[str, str], dict[str, str]]:
    with file.open() as stream:
        return {(row["measure"], row["run"]): row for row in csv.DictReader(stream)}


def test_pairs_by_hand(tmp_path: Path) -> None:
    texts = []
    for name, gain in (("DAPO", 0.0), ("DAPO + RSP", 0.1)):
        roots = []
        for seed in range(3):
            root = make_run(
                tmp_path / name.replace(" ", "") / str(seed),
                # A seed's level is both runs' and drops out of the differences.
                {0: 0.5, 4: 0.2 * seed + gain},
                [3, 3, 2 - gain, 1],
            )
            make_evaluation(
                root,
                {4: 0.6 + gain},
                benchmarks={"gsm8k": (12, 4)},
                headline=["gsm8k"],
                seed=seed,
            )
            roots.append(str(root))
        texts.append(f"{name}={','.join(roots)}")
    out = tmp_path / "out"
    assert main(["analyze", "training", *texts, "--output", str(out)]) == 0
    rows = rows_of(out / "training.csv")
    held_out = rows["held out", "DAPO + RSP"]
    assert float(held_out["value"]) == pytest.approx(0.3)
    ends = [float(held_out[f"difference{end}"]) for end in ("", "_low", "_high")]
    assert ends == pytest.approx([0.1] * 3)
    assert float(rows["held out", "DAPO"]["high"]) > 0.6  # unpaired, seeds lie far apart
    assert float(rows["entropy, first half", "DAPO"]["value"]) == 3
    assert float(rows["entropy, second half", "DAPO"]["value"]) == 1.5
    second = rows["entropy, second half", "DAPO + RSP"]
    assert float(second["difference"]) == pytest.approx(-0.05)
    assert {"pass@1", "pass@4"} <= {measure for measure, _ in rows}
    assert "3 seeds each; held out at step 4" in (out / "training.md").read_text()
    with (out / "curves.csv").open() as stream:
        curves = list(csv.DictReader(stream))
    assert {row["step"] for row in curves if row["measure"] == "held out"} == {"0", "4"}


def test_intervals_are_students() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 3, 4, 5, 8, 20):
        values = rng.normal(size=n)
        found = t_interval(values)
        low, high = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
        tolerance = 5e-3 * (high - low)
        assert (found.low, found.high) == pytest.approx((low, high), abs=tolerance)
    values = np.array([0.1, 0.4, 0.3])
    assert math.isnan(t_interval(np.array([0.1])).low)
    cells = compare_by_seed({"a": values, "b": values + 0.2}, "a")
    assert cells["a"].difference is None
    assert cells["b"].difference.low == pytest.approx(0.2)


def test_rewards_of_other_sizes_are_not_compared(tmp_path: Path) -> None:
    """Soft tokens' paper counts a right answer 100: beside runs that count 1 it says nothing."""
    roots = [make_run(tmp_path / str(n), {0: 0.5, 2: 0.6 + n / 10}, [3, 2]) for n in range(3)]
    for root, kwargs in ((roots[0], "{format_reward: 0.0}"), (roots[1], "{right_reward: 100}")):
        (root / "config").mkdir()
        text = f"reward: {{custom_reward_function: {{name: f, reward_kwargs: {kwargs}}}}}"
        (root / "config" / "config.yaml").write_text(text)

    def measures(*names: str) -> tuple[set[str], str]:
        out = tmp_path / "out"
        assert main(["analyze", "training", *names, "--output", str(out)]) == 0
        return {key for key, _ in rows_of(out / "training.csv")}, (out / "training.md").read_text()

    found, page = measures(f"hard={roots[0]}", f"soft={roots[1]}")
    assert found == {"held out", "entropy, first half", "entropy, second half"}
    assert "The reward is left out, for it is not alike (hard: 1 and 0; soft: right_" in page
    assert "soft: right_reward=100" in page
    # What is left as it is, and what is not known, is no difference.
    found, page = measures(f"hard={roots[0]}", f"before={roots[2]}")
    assert "reward, first half" in found
    assert "left out" not in page


def test_entropies_are_of_a_token(tmp_path: Path) -> None:
    """verl averages them as the loss: with RLOO's summed log-probs, 25 nats a response."""
    roots = [make_run(tmp_path / str(n), {0: 0.5}, [2.5 * 10 ** (n == 1)] * 2) for n in range(3)]
    lines = (roots[1] / "metrics.jsonl").read_text()
    with_lengths = lines.replace('"actor/entropy"', '"response_length/mean": 10.0, "actor/entropy"')
    (roots[1] / "metrics.jsonl").write_text(with_lengths)
    for root, mode in ((roots[1], "seq-mean-token-sum"), (roots[2], "seq-mean-token-mean")):
        (root / "config").mkdir()
        text = f"actor_rollout_ref: {{actor: {{loss_agg_mode: {mode}}}}}"
        (root / "config" / "config.yaml").write_text(text)
    command = ["analyze", "training", "--output", str(tmp_path / "out")]
    assert main([*command, f"hard={roots[0]}", f"soft={roots[1]}"]) == 0
    rows = rows_of(tmp_path / "out" / "training.csv")
    assert float(rows["entropy, first half", "hard"]["value"]) == 2.5
    assert float(rows["entropy, first half", "soft"]["value"]) == 2.5
    assert main([*command, f"hard={roots[0]}", f"gumbel={roots[2]}"]) == 0
    assert ("entropy, first half", "hard") not in rows_of(tmp_path / "out" / "training.csv")
    page = (tmp_path / "out" / "training.md").read_text()
    assert "entropy is left out, for it is not alike (hard: token-mean; gumbel: seq-" in page


def test_runs_that_cannot_be_paired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [make_run(tmp_path / str(i), {0: 0.5}, [3, 2]) for i in range(3)]
    command = ["analyze", "training", "--output", str(tmp_path / "out")]
    assert main([*command, f"a={runs[0]},{runs[1]}", f"b={runs[2]}"]) == 1
    assert "1 and 2 folders" in capsys.readouterr().err
    assert main([*command, f"a={runs[0]}", f"a={runs[1]}"]) == 1
    assert "same name" in capsys.readouterr().err
    assert main([*command, f"a={tmp_path / 'gone'}"]) == 1
    assert "no step in common" in capsys.readouterr().err
