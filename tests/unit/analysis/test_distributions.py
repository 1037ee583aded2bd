"""Entropy, top-1 and varentropy: distributions, bins and averages by hand."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from rsp_rl.analysis import distributions
from rsp_rl.analysis.averages import mean_and_sem
from rsp_rl.analysis.conditions import Condition, open_conditions, position_name
from rsp_rl.analysis.distributions import (
    bin_means,
    first_tokens,
    profile,
    summarise,
    to_json,
    to_markdown,
    token_metrics,
)
from rsp_rl.analysis.profile_differences import band, compare_curves
from rsp_rl.analysis.teacher_forcing import ForcedModel, Trajectory, text_before_forced
from rsp_rl.cli import main
from rsp_rl.models.folder import load_tokenizer
from tests.tolerances import rounding


def test_metrics_by_hand() -> None:
    certain, uniform, uneven = [0.0, -math.inf, -math.inf, -math.inf], [2.0] * 4, [3 / 4, 1 / 4]
    uneven = [math.log(p) for p in uneven] + [-math.inf] * 2
    entropy, top1, varentropy = token_metrics(torch.tensor([certain, uniform, uneven]))
    h = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    v = 0.75 * (math.log(0.75) + h) ** 2 + 0.25 * (math.log(0.25) + h) ** 2
    few = rounding(8, size=2)
    assert entropy.tolist() == pytest.approx([0, math.log(4), h], abs=few)
    assert top1.tolist() == pytest.approx([1, 0.25, 0.75], abs=few)
    assert varentropy.tolist() == pytest.approx([0, 0, v], abs=few)


def test_metrics_in_blocks_are_those_of_each_row() -> None:
    logits = 5 * torch.randn(600, 50, generator=torch.Generator().manual_seed(0))
    p = torch.softmax(logits.double(), -1)
    entropy, top1, varentropy = token_metrics(logits)
    # Logits of up to 20; in the variance their squares, times p.
    assert entropy == pytest.approx((-p * p.log()).sum(-1).numpy(), abs=rounding(8, size=20))
    assert top1 == pytest.approx(p.max(-1).values.numpy(), abs=rounding(4, size=20))
    second = (p * p.log().square()).sum(-1).numpy()
    assert varentropy == pytest.approx(second - entropy**2, abs=rounding(4, size=20**2))


@given(st.integers(1, 200), st.integers(1, 60))
def test_bins_hold_every_token_once(n: int, bins: int) -> None:
    values = np.arange(n, dtype=float)[None]
    means = bin_means(values, bins)
    assert means.shape == (1, bins)
    counts = np.bincount(np.arange(n) * bins // n, minlength=bins)
    assert (np.isnan(means[0]) == (counts == 0)).all()
    assert np.nansum(means[0] * counts) == pytest.approx(values.sum())
    if n >= bins:
        assert counts.max() - counts.min() <= 1
        assert (np.diff(means[0]) > 0).all()


def test_bins_by_hand() -> None:
    assert bin_means(np.array([[1.0, 2, 3, 4, 5]]), 2).tolist() == [[2, 4.5]]
    short = bin_means(np.array([[1.0, 2]]), 4)[0]
    assert short[[0, 2]].tolist() == [1, 2]
    assert np.isnan(short[[1, 3]]).all()
    assert [first_tokens(n) for n in (1, 20, 21, 40, 100)] == [1, 1, 2, 2, 5]


def test_averages_are_over_problems() -> None:
    # A problem of two samples (means 1 and 3) and one of one (6); the second lacks the last bin.
    mean, sem = mean_and_sem(
        [[np.array([1.0, 4]), np.array([3.0, np.nan])], [np.array([6.0, np.nan])]]
    )
    assert mean.tolist() == [4, 4]
    assert sem[0] == pytest.approx(np.std([2, 6], ddof=1) / math.sqrt(2))
    assert np.isnan(sem[1])


def test_summary_by_hand() -> None:
    rising = np.stack([np.arange(40.0)] * 3)
    profile = summarise({"a": [rising], "b": [rising + 10]}, bins=4)
    assert profile.first[0].tolist() == [0.5 + 5] * 3  # tokens 0 and 1 of 40
    assert profile.overall[0].tolist() == [19.5 + 5] * 3
    assert profile.overall[1].tolist() == [5] * 3
    assert profile.curves[0, 0].tolist() == [9.5, 19.5, 29.5, 39.5]
    assert (profile.tokens, profile.answers) == (40, 2)


def test_command(answered: dict[str, Condition], tmp_path: Path) -> None:
    folders = [str(answered[name].root.parent) for name in ("baseline", "suffix")]
    command = ["analyze", "distributions", *folders, "--bins", "5", "--output", str(tmp_path)]
    assert main(command) == 0
    found = json.loads((tmp_path / "distributions.json").read_text())["arithmetic"]
    assert list(found) == ["baseline", "suffix"]
    assert found["suffix"]["answers"] == 8
    assert found["suffix"]["encoded_to_another_length"] == 0
    # Nearly all tokens of the model have equal logits, so its entropy is below ln 331 and near it.
    assert 0 < found["baseline"]["entropy_overall"]["mean"] < math.log(331)
    assert len((tmp_path / "distributions.csv").read_text().splitlines()) == 1 + 2 * 3 * 5
    assert "0 of 16 answers" in (tmp_path / "distributions.md").read_text()
    assert (tmp_path / "distributions.png").is_file()


def test_benchmarks_that_are_not_there(
    answered: dict[str, Condition], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(answered["suffix"].root)
    assert main(["analyze", "distributions", folder, "--benchmark", "gsm8k"]) == 1
    assert "--benchmark gsm8k: finished are arithmetic" in capsys.readouterr().err


def test_bins_by_tokens() -> None:
    assert bin_means(np.array([[1.0, 2, 3, 4, 5]]), 4, width=2)[0, :3].tolist() == [1.5, 3.5, 5]
    assert np.isnan(bin_means(np.array([[1.0, 2, 3, 4, 5]]), 4, width=2)[0, 3])
    # What is beyond the last is in it.
    assert bin_means(np.array([[1.0, 2, 3, 4, 5]]), 2, width=2).tolist() == [[1.5, 4]]


def test_a_band_by_hand() -> None:
    """Three problems, the last without a token in the second bin."""
    values = np.array([[[1.0, 5]], [[2, 7]], [[6, np.nan]]])
    found = band(values)
    assert found.value.tolist() == [[3, 6]]
    assert found.problems.tolist() == [3, 2]
    # Of 27 draws of three problems one has the smallest alone, which is more than 2.5%.
    assert (found.low[0, 0], found.high[0, 0]) == (1, 6)
    assert (found.low[0, 1], found.high[0, 1]) == (5, 7)
    alone = band(np.array([[[np.nan, 4.0]]]))
    assert alone.problems.tolist() == [0, 1]
    assert np.isnan(alone.value[0, 0])
    # One problem says nothing of others.
    assert alone.value[0, 1] == 4
    assert np.isnan([alone.low[0], alone.high[0]]).all()


def test_differences_are_of_the_problems_that_both_have_a_token_of() -> None:
    def curve(*values: float) -> np.ndarray:
        return np.array([values])

    nan = np.nan
    base = {"a": curve(1, 2), "b": curve(3, nan), "c": curve(5, 9)}
    soft = {"a": curve(2, 4), "b": curve(5, 6), "d": curve(7, 7)}
    found = compare_curves({"base": base, "soft": soft})
    assert found["base"].difference is None
    difference = found["soft"].difference
    assert difference.problems.tolist() == [2, 1]
    assert difference.value.tolist() == [[1.5, 2]]
    assert np.isnan(difference.low[0, 1])
    assert (difference.low[0, 0], difference.high[0, 0]) == (1, 2)
    assert found["soft"].own.problems.tolist() == [3, 3]
    assert compare_curves({"base": base, "other": {"z": curve(1, 1)}})["other"].difference is None


def evaluated(model: Path, output: Path) -> str:
    """Sampled thoughts of ordinary tokens with a forced text after them, and greedy answers."""
    command = ["eval", str(model), "--protocol", "soft_tokens", "--output", str(output)]
    command += ["modes=[hard_sampled,soft_greedy]", "template=plain-chat"]
    command += ["benchmarks=[arithmetic]", "headline=[arithmetic]", "law.end_text='99'"]
    command += ["benchmarks.arithmetic.limit=4", "sampling.samples=3", "max_tokens=24"]
    command += ["law.max_thoughts=9", "law.on_cut=' = 7'", "law.on_end='4'"]
    # Digits, which encode as they were written.
    command += ["modes.hard_sampled.law.top_k=3"]
    assert main([*command, "--engine", "huggingface", "--dtype", "float32"]) == 0
    return str(output / "hard_sampled")


def test_before_and_after_training_by_thoughts(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The trained model is sharper, and its thoughts are read as far as the forced text."""
    trained = tmp_path / "trained"
    shutil.copytree(model, trained)
    weights = load_file(trained / "model.safetensors")
    weights["model.norm.weight"] = 3 * weights["model.norm.weight"]
    save_file(weights, trained / "model.safetensors", metadata={"format": "pt"})
    folders = [evaluated(model, tmp_path / "a"), evaluated(trained, tmp_path / "b")]
    # Steps of a run, as `rsp-rl eval RUN` leaves them.
    Path(folders[1], "step_0").rename(Path(folders[1], "step_10"))
    output = tmp_path / "out"
    command = ["analyze", "distributions", *folders, "--output", str(output)]
    assert main([*command, "--tokens-per-bin", "2"]) == 0
    page = (output / "distributions.md").read_text()
    assert "left out" not in page
    with (output / "differences.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["metric"] == "entropy"]
    of_base = [row for row in rows if row["condition"] == "baseline, step_0"]
    after = [row for row in rows if row["condition"] == "baseline, step_10"]
    # Nine thoughts at most, whatever the answers have.
    assert [float(row["position"]) for row in of_base] == [1, 3, 5, 7, 9]
    assert {row["difference"] for row in of_base} == {""}
    for row in after:
        assert float(row["difference_low"]) <= float(row["difference"]) < 0
        assert int(row["difference_problems"]) <= 4
    assert "| baseline, step_10 | -" in page.split("Changes, with 95% intervals")[1]
    # By hand: the sampled thoughts alone, each under what stood before it.
    (condition, _) = open_conditions(folders, position_name)
    forced = ForcedModel(condition)
    sums: dict[str, list[float]] = {}
    for trajectory in forced.trajectories("arithmetic"):
        sample = trajectory.sample
        assert trajectory.is_exact
        kept = trajectory.forced if trajectory.forced is not None else sample["tokens"]
        assert len(trajectory.output_ids) in (kept, kept - 1)
        text = forced.tokenizer.decode(trajectory.output_ids)
        assert set(text) <= {*"0123456789"}
        if trajectory.forced is not None:
            assert sample["output"].startswith((f"{text} = 7", f"{text}4"))
        ids = [*trajectory.request.token_ids, *trajectory.output_ids]
        with torch.inference_mode():
            p_TV = torch.softmax(forced.network(torch.tensor([ids])).logits[0].double(), -1)
        start = len(trajectory.request.token_ids) - 1
        entropy = [float(-(p * p.log()).nansum()) for p in p_TV[start : start + min(2, kept)]]
        sums.setdefault(trajectory.problem.id, []).append(float(np.mean(entropy)))
    wanted = np.mean([np.mean(values) for values in sums.values()])
    assert float(of_base[0]["value"]) == pytest.approx(wanted, abs=1e-4)
    capsys.readouterr()
    soft = str(tmp_path / "a" / "soft_greedy")
    assert main(["analyze", "distributions", soft, "--output", str(output)]) == 1
    assert "thoughts of law.name=soft, which its texts are not" in capsys.readouterr().err


def test_forced_text_that_came_before_or_is_nowhere(model: Path) -> None:
    tokenizer = load_tokenizer(model)
    ids = tokenizer(" = 7", add_special_tokens=False).input_ids
    texts = {str(token): tokenizer.decode([token]) for token in ids}

    def text(output: str, before: str) -> str | None:
        at = len(tokenizer(before, add_special_tokens=False).input_ids)
        thoughts = {"at": [at + i for i in range(len(ids))], "ids": [[i] for i in ids]}
        return text_before_forced(
            {"output": output, "thoughts": {**thoughts, "texts": texts}}, tokenizer
        )

    assert text("12 = 7 34 = 7 8", "12 = 7 34") == "12 = 7 34"
    assert text("12 = 7 34 = 7 8", "12") == "12"
    assert text("12 = 7", "12 and") == "12"  # another number of tokens: the nearest
    assert text("1234", "12") is None


class _Answered:
    """A model of two logits, and one answer of text beside one of special tokens alone."""

    def trajectories(self, benchmark: str, **_: object) -> Iterator[Trajectory]:
        for name, ids in (("a", [1, 2]), ("b", [])):
            sample = {"finish_reason": "length", "tokens": 2}
            yield Trajectory(SimpleNamespace(id=name), sample, None, ids, [])

    def generated_logits(self, trajectory: Trajectory) -> torch.Tensor:
        return torch.zeros(trajectory.generated, 2)


def test_answers_without_text_are_left_out_of_all_counts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = profile(_Answered(), SimpleNamespace(name="x"), "arithmetic", 2)
    assert (found.answers, found.inexact, found.empty) == (1, 0, 1)
    page = to_markdown({"arithmetic": {"x": found}})
    assert "0 of 1 answers were encoded to another number of tokens. 1 more have no text" in page
    left_out = to_json({"arithmetic": {"x": found}})["arithmetic"]["x"]["left_out"]
    assert left_out == {"forced_tokens_unknown": 0, "no_text": 1}
    both = summarise({"a": [np.zeros((3, 4))], "b": [np.zeros((3, 4))]}, 2)
    conditions = [
        SimpleNamespace(
            name=name,
            protocol=SimpleNamespace(rsp=SimpleNamespace(enabled=enabled)),
            manifest={"weights": "w"},
        )
        for name, enabled in (("plain", False), ("soft", True))
    ]
    capsys.readouterr()
    distributions._changes({"arithmetic": {"plain": both, "soft": found}}, conditions)
    assert "arithmetic, soft: changes are of the 1 of 2 problems" in capsys.readouterr().err
