"""`rsp-rl analyze thoughts` on a random model that thought of a few problems."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from rsp_rl.analysis import thoughts
from rsp_rl.analysis.conditions import open_conditions
from rsp_rl.basics.errors import ConfigError
from rsp_rl.cli import main
from rsp_rl.evaluation.folder import EvaluationFolder
from rsp_rl.evaluation.reading import read_finished_samples

PROBLEMS, THOUGHTS = 3, 6


@pytest.fixture(scope="module")
def folders(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same problems with soft thinking, with Gumbel noise, greedily, and sampled."""
    root = tmp_path_factory.mktemp("thoughts")
    common = ["generate", "--model", str(model), "--benchmark", "arithmetic", "--template", "chat"]
    common += ["--limit", str(PROBLEMS), "--max-tokens", "12", "--rsp.length", "3"]
    common += ["--engine", "huggingface", "--dtype", "float32"]
    law = ["--law.max_thoughts", str(THOUGHTS), "--law.end", "[]", "--law.k", "4"]
    runs = {
        "soft": ["--law", "soft_thinking", *law],
        "gumbel": ["--law", "gumbel", "--samples", "2", "--temperature", "1", *law],
        "greedy": ["--rsp.length", "0"],
        "sampled": ["--rsp.length", "0", "--samples", "2", "--temperature", "1"],
    }
    made = {}
    for name, arguments in runs.items():
        assert main([*common, *arguments, "--output", str(root / name)]) == 0
        (made[name],) = (str(folder) for folder in (root / name).iterdir() if folder.is_dir())
    return made


def read_table(file: Path) -> dict[tuple[str, str], tuple[float, float, float]]:
    with file.open(newline="") as stream:
        return {
            (row["condition"], row["metric"]): tuple(
                float(row[name]) for name in ("value", "low", "high")
            )
            for row in csv.DictReader(stream)
        }


def test_conditions_beside_each_other(folders: dict[str, str], tmp_path: Path) -> None:
    assert main(["analyze", "thoughts", *folders.values(), "--output", str(tmp_path)]) == 0

    table = read_table(tmp_path / "thoughts.csv")
    assert {name for name, _ in table} == {"soft_thinking", "gumbel", "sampled"}
    for (name, metric), (value, low, high) in table.items():
        assert low <= value <= high
        assert value >= 0
        if "Jensen" in metric or "overlap" in metric or metric == thoughts.ROUGE:
            assert value <= 1, (name, metric)
    # Every thought of every sample is probed: there are fewer than the probes wanted.
    text = (tmp_path / "thoughts.md").read_text()
    for name, law in (("soft", "soft_thinking"), ("gumbel", "gumbel")):
        step = EvaluationFolder(Path(folders[name])).step(0)
        traces = [thoughts.mixtures(s) for s in read_finished_samples(step, "arithmetic")]
        assert f"{law}: {sum(map(len, traces))} thoughts probed." in text
    assert (tmp_path / "thoughts.png").stat().st_size > 10_000


def test_probes_are_spread_over_the_trace(folders: dict[str, str], tmp_path: Path) -> None:
    thoughts.analyse([folders["soft"]], tmp_path, probes=2)

    assert f"{2 * PROBLEMS} thoughts probed" in (tmp_path / "thoughts.md").read_text()
    assert thoughts.ROUGE not in (tmp_path / "thoughts.md").read_text()  # nothing greedy


def test_a_trace_is_what_is_mixed_from_the_first_token_on(folders: dict[str, str]) -> None:
    sample = read_finished_samples(EvaluationFolder(Path(folders["soft"])).step(0), "arithmetic")[0]
    assert len(thoughts.mixtures(sample)) == THOUGHTS

    later = {name: list(sample["thoughts"][name]) for name in ("at", "kind", "ids", "weights")}
    later["at"] = [at + 1 for at in later["at"]]
    assert thoughts.mixtures({**sample, "thoughts": later}) == []

    cut = {name: list(values) for name, values in sample["thoughts"].items() if name != "texts"}
    cut["kind"][2] = "forced"
    assert len(thoughts.mixtures({**sample, "thoughts": cut})) == 2


def test_answers_without_a_law_have_nothing_to_probe(
    folders: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no folder has a law"):
        thoughts.analyse([folders["greedy"]], tmp_path)


def test_other_analyses_do_not_read_thoughts_as_text(folders: dict[str, str]) -> None:
    from rsp_rl.analysis.teacher_forcing import ForcedModel

    (condition,) = open_conditions([folders["soft"]], thoughts.law_name)
    with pytest.raises(ConfigError, match="texts are not"):
        ForcedModel(condition)


def test_laws_beside_each_other(folders: dict[str, str], tmp_path: Path) -> None:
    names = ("sampled", "greedy", "soft", "gumbel")
    assert main(["analyze", "laws", *(folders[n] for n in names), "--output", str(tmp_path)]) == 0

    with (tmp_path / "laws.csv").open(newline="") as stream:
        rows = {(row["condition"], row["measure"]): row for row in csv.DictReader(stream)}
    samples = read_finished_samples(EvaluationFolder(Path(folders["gumbel"])).step(0), "arithmetic")
    tokens = float(rows["gumbel", "tokens"]["value"])
    assert tokens == pytest.approx(sum(s["tokens"] for s in samples) / len(samples))
    sampled = float(rows["sampled", "tokens"]["value"])
    assert float(rows["gumbel", "tokens"]["difference"]) == pytest.approx(tokens - sampled)
    thought = [sum(kind != "forced" for kind in s["thoughts"]["kind"]) for s in samples]
    assert float(rows["gumbel", "thoughts"]["value"]) == pytest.approx(sum(thought) / len(thought))
    assert rows["sampled", "tokens"]["difference"] == ""  # the reference
    assert ("greedy", "thoughts") not in rows
    # A random model has no right answer, whose length would be one.
    assert ("gumbel", "tokens of right answers") not in rows
