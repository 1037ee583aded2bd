"""Evaluations and the Python API with a law, on the reference engine; cut off and taken up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rsp_rl.basics.errors import ConfigError
from rsp_rl.basics.files import read_json
from rsp_rl.evaluation.folder import EvaluationFolder, StepFolder
from rsp_rl.evaluation.samples import read_samples
from rsp_rl.inference.generator import Generator
from rsp_rl.inference.requests import EngineOptions
from rsp_rl.thoughts.rows import Kind
from tests.digit_model import make_digit_model
from tests.waiting import until

LAW = ("--law", "gumbel", "--law.k", "4", "--law.temperature", "2", "--law.end", "[]",
       "--law.max_thoughts", "6", "--law.on_cut", " = ")  # fmt: skip
SAMPLES = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digit_model(tmp_path_factory.mktemp("model"))


def command(model: Path, output: Path, *more: str) -> list[str]:
    # One at a time: in a batch of another size weights may round otherwise.
    return [
        *(sys.executable, "-m", "rsp_rl.cli", "generate", "--model", str(model)),
        *("--benchmark", "arithmetic", "--template", "plain-chat", "--limit", "4"),
        *("--samples", "3", "--temperature", "1", "--max-tokens", "24", "--dtype", "float32"),
        *("--engine", "huggingface", "--max-num-seqs", "1", "--output", str(output), *LAW, *more),
    ]


def run(model: Path, output: Path, *more: str) -> StepFolder:
    done = subprocess.run(
        command(model, output, *more), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (folder,) = (path for path in output.iterdir() if path.is_dir())
    return EvaluationFolder(folder).step(0)


def lines(output: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in output.rglob("*.samples.jsonl"))


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> StepFolder:
    return run(model, tmp_path_factory.mktemp("whole"), "--rsp.length", "4")


def test_samples_metrics_and_page(whole: StepFolder) -> None:
    """With a soft prompt in the prompt, too."""
    samples = read_samples(whole.samples("arithmetic"))
    assert len(samples) == SAMPLES
    for sample in samples:
        thoughts = sample["thoughts"]
        assert sample["law"] == "gumbel"
        assert thoughts["at"] == list(range(len(thoughts["at"])))
        assert set(thoughts["kind"]) <= {"mix", "forced"}
        assert thoughts["kind"].count("mix") <= 6
    assert any(max(map(len, sample["thoughts"]["weights"])) == 4 for sample in samples)
    found = read_json(whole.metrics("arithmetic"))["thoughts"]
    assert found["all"]["samples"] == SAMPLES
    assert found["all"]["thinking_tokens"] + found["all"]["answer_tokens"] == pytest.approx(
        found["all"]["tokens"]
    )
    evaluation = EvaluationFolder(whole.root.parent)
    assert "law gumbel: " in evaluation.summary_markdown.read_text()
    assert "law gumbel: " in evaluation.report.read_text()


def test_killed_and_taken_up_again(model: Path, whole: StepFolder, tmp_path: Path) -> None:
    """kill -9 in the middle."""
    arguments = command(model, tmp_path / "out", "--rsp.length", "4")
    with (tmp_path / "log").open("w") as log:
        first = subprocess.Popen(arguments, stdout=log, stderr=log, start_new_session=True)
        until(lambda: lines(tmp_path / "out") >= 2 or first.poll() is not None)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    kept = lines(tmp_path / "out")
    assert 2 <= kept < SAMPLES
    again = run(model, tmp_path / "out", "--rsp.length", "4")
    for name in ("samples", "metrics"):
        file = getattr(again, name)("arithmetic")
        assert file.read_bytes() == getattr(whole, name)("arithmetic").read_bytes()


def test_the_python_api(model: Path) -> None:
    options = EngineOptions("huggingface", "float32", max_num_seqs=4)
    settings = {"k": 3, "end": [], "max_thoughts": 5, "temperature": 2.0}
    given = {"template": "plain-chat", "options": options}
    with (
        Generator(str(model), **given) as generator,
        pytest.raises(ConfigError, match=r"Generator\(thoughts=True\)"),
    ):
        generator.generate("3+4-2", law="gumbel")
    with Generator(str(model), **given, thoughts=True) as generator:

        def generate(**changes: object) -> list:
            given = {"law": "gumbel", "law_settings": settings, "samples": 3, "max_tokens": 12}
            return generator.generate("3+4-2", **(given | changes))

        made = generate()
        for sample in made:
            kinds = sample.thoughts.rows.kind_N.tolist()
            assert len(kinds) == sample.tokens
            assert 1 <= kinds.count(Kind.MIX) <= 5
        assert len({sample.text for sample in made}) > 1  # greedy answers to thoughts that differ
        assert [s.text for s in generate()] == [s.text for s in made]
        assert [s.text for s in generate(seed=1)] != [s.text for s in made]
        assert generate(law=None, law_settings=None)[0].thoughts is None
        for wrong, said in (
            ({"law": None}, "law_settings without a law"),
            ({"law": "gumble"}, "law='gumble' is unknown"),
            ({"law_settings": {}}, "law.end='</think>' is no single token"),
            ({"law_settings": {**settings, "max_thoughts": 10**6}}, "leaves no room"),
        ):
            with pytest.raises(ConfigError, match=said):
                generate(**wrong)
