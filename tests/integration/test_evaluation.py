"""Evaluation on the real stack: a real run's checkpoints, merged, vLLM, the grader.

Everything goes through `rsp-rl eval`, in processes of its own, as a user does it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rsp_rl.evaluation.folder import EvaluationFolder, StepFolder
from rsp_rl.evaluation.samples import read_samples
from tests.integration.harness import REPOSITORY, Run, Task
from tests.unit.benchmark_files import REAL_FILES

#: Problems and samples a problem. The tiny model's own task is there for right answers.
SHAPES = {"math500": (4, 3), "gsm8k": (4, 1), "aime24": (3, 3), "arithmetic": (16, 1)}
SAMPLES = sum(problems * each for problems, each in SHAPES.values())

#: Benchmarks that are read from files.
FROM_FILES = ("math500", "gsm8k", "aime24")

PROTOCOL = """\
template: plain-chat
max_tokens: 48
sampling: {temperature: 1.0, samples: 3}
benchmarks:
  math500: {limit: 4}
  gsm8k: {limit: 4, temperature: 0.0, samples: 1}
  aime24: {limit: 3}
  arithmetic: {limit: 16, temperature: 0.0, samples: 1}
headline: [math500, gsm8k, aime24]
"""


def made_files(folder: Path) -> Path:
    """Files of the three benchmarks, as many problems as they have, for where there are no real."""
    rows = {
        "math500": [
            {"problem": f"Compute {i}+1.", "solution": f"$\\boxed{{{i + 1}}}$", "unique_id": str(i)}
            for i in range(500)
        ],
        "gsm8k": [{"question": f"Compute {i}+2.", "answer": f"#### {i + 2}"} for i in range(1319)],
        "aime24": [
            {"problem": f"Compute {i}+3.", "answer": f"{i + 3:03}", "id": i} for i in range(30)
        ],
    }
    for name, content in rows.items():
        (folder / name).mkdir(parents=True)
        text = "".join(json.dumps(row) + "\n" for row in content)
        (folder / name / "test.jsonl").write_text(text)
    return folder


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("protocol") / "three.yaml"
    file.write_text(PROTOCOL)
    return file


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real files where there are any."""
    real = all((REAL_FILES / name / "test.jsonl").is_file() for name in FROM_FILES)
    return REAL_FILES if real else made_files(tmp_path_factory.mktemp("data"))


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "rsp_rl.cli", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, timeout=900
    )


def contents(folder: StepFolder) -> dict[str, bytes]:
    """Samples and metrics of a step, byte for byte."""
    files = [file(name) for name in SHAPES for file in (folder.samples, folder.metrics)]
    return {file.name: file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def swept(uninterrupted: Run, protocol: Path, data: Path) -> EvaluationFolder:
    """Two checkpoints of a real training run, four benchmarks."""
    done = run("eval", uninterrupted.folder, "--protocol", protocol, "--data-dir", data,
               "--steps", "2,4", "--keep-merged", "no")  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return EvaluationFolder(uninterrupted.folder / "evaluation" / "three")


def test_every_sample_is_there_once_and_graded(swept: EvaluationFolder) -> None:
    assert list(swept.steps()) == [2, 4]
    for step in swept.steps().values():
        for name, (problems, each) in SHAPES.items():
            samples = read_samples(step.samples(name))
            assert len(samples) == problems * each
            assert len({sample["seed"] for sample in samples}) == problems * each
            metrics = json.loads(step.metrics(name).read_text())
            right = [sample["correct"] for sample in samples]
            assert metrics["accuracy"] == pytest.approx(sum(right) / len(right))
        manifest = json.loads(step.manifest.read_text())
        assert manifest["made_with"][0]["versions"]["vllm"]
        assert manifest["protocol"]["template"] == "plain-chat"
    weights = [json.loads(step.manifest.read_text())["weights"] for step in swept.steps().values()]
    assert weights[0] != weights[1]


def test_tables_pictures_and_page(swept: EvaluationFolder) -> None:
    assert "step 4" in swept.summary_markdown.read_text()
    assert len(swept.summary_csv.read_text().splitlines()) == 1 + 2 * (len(SHAPES) + 1)
    for name in ("headline", "benchmarks", "response_length"):
        assert swept.plot(name).stat().st_size > 5_000
    assert "<html" in swept.report.read_text()


def test_converted_checkpoints_are_removed_again(
    swept: EvaluationFolder, uninterrupted: Run
) -> None:
    for step in swept.steps():
        checkpoint = uninterrupted.folder / "checkpoints" / f"global_step_{step}"
        assert (checkpoint / "actor").is_dir()
        assert not (checkpoint / "merged").exists()


def test_each_step_is_in_the_runs_tensorboard(swept: EvaluationFolder, uninterrupted: Run) -> None:
    steps = []
    for file in (uninterrupted.folder / "tensorboard").rglob("events*"):
        events = EventAccumulator(str(file)).Reload()
        if "eval/three/headline" in events.Tags()["scalars"]:
            steps += [event.step for event in events.Scalars("eval/three/headline")]
    assert sorted(steps) == list(swept.steps())


def test_what_is_done_is_not_done_again(
    swept: EvaluationFolder, uninterrupted: Run, protocol: Path
) -> None:
    """Not even the benchmarks' files are needed."""
    before = {step: contents(folder) for step, folder in swept.steps().items()}
    again = run("eval", uninterrupted.folder, "--protocol", protocol, "--steps", "2,4",
                "--data-dir", "/nowhere")  # fmt: skip
    assert again.returncode == 0, again.stderr[-4000:]
    assert again.stderr.count("done before") == 2
    assert {step: contents(folder) for step, folder in swept.steps().items()} == before


#: Thoughts that the tiny model's answers leave room for.
SIX = (
    *("--protocol", "soft_tokens", "template=plain-chat", "benchmarks=[arithmetic]"),
    *("headline=[arithmetic]", "benchmarks.arithmetic.limit=4", "sampling.samples=4"),
    *("law.max_thoughts=6", "law.end_text='\\boxed{'", "law.on_end=''", "law.on_cut='\\boxed{'"),
    "max_tokens=24",
)


def test_a_checkpoint_in_six_modes_and_out_of_domain(uninterrupted: Run, tmp_path: Path) -> None:
    """One start of vLLM for hard, soft and fuzzy thoughts; then likelihoods, base beside it."""
    root = tmp_path / "six"
    done = run("eval", uninterrupted.folder, *SIX, "--steps", "4", "--output", root)
    assert done.returncode == 0, done.stderr[-4000:]
    modes = [f"{kind}_{how}" for kind in ("fuzzy", "hard", "soft") for how in ("greedy", "sampled")]
    outputs = {}
    for mode in modes:
        samples = read_samples(EvaluationFolder(root / mode).step(4).samples("arithmetic"))
        assert len(samples) == (16 if mode.endswith("sampled") else 4)
        assert f"| {mode}, step 4 |" in done.stdout
        outputs[mode] = [sample["output"] for sample in samples]
    # Without noise fuzzy thoughts are the likeliest tokens.
    assert outputs["fuzzy_greedy"] == outputs["hard_greedy"]
    starts = (root / "hard_greedy" / "logs" / "engine.log").read_text()
    assert "Initializing a V1 LLM engine" in starts
    for mode in {*modes} - {"hard_greedy"}:
        log = root / mode / "logs" / "engine.log"
        assert not log.is_file() or "Initializing a V1 LLM engine" not in log.read_text()
    questions = tmp_path / "sums.jsonl"
    rows = [
        {"question": f"{i}+1-0", "choices": [str(i + 1), str(i + 3)], "answer": 0} for i in range(6)
    ]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    checkpoint = uninterrupted.folder / "checkpoints" / "global_step_4"
    done = run("analyze", "likelihoods", checkpoint, "--questions", f"sums={questions}",
               "--output", tmp_path / "out")  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert "| step_4 |" in done.stdout
    shutil.rmtree(checkpoint / "merged")  # as the others' evaluations leave it


def test_killed_and_taken_up_again(
    swept: EvaluationFolder, uninterrupted: Run, protocol: Path, data: Path, tmp_path: Path
) -> None:
    """kill -9 in the middle; meanwhile a second evaluation of the folder is turned away."""
    output = EvaluationFolder(tmp_path / "killed")
    arguments = ("eval", uninterrupted.folder / "checkpoints" / "global_step_4", "--output",
                 output.root, "--protocol", protocol, "--data-dir", data)  # fmt: skip
    with (tmp_path / "log").open("w") as log:
        # Few at a time, so that there is a middle.
        first = subprocess.Popen(
            command(*arguments, "--max-num-seqs", 1),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        wait_for(lambda: written(output.step(4)) >= 3, first)
        os.killpg(first.pid, signal.SIGSTOP)  # else it would end before the second has begun
        second = run(*arguments)
        assert second.returncode == 1
        assert f"another process (host {os.uname().nodename}, pid {first.pid})" in second.stderr
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    kept = written(output.step(4))
    assert 3 <= kept < SAMPLES

    resumed = run(*arguments)
    assert resumed.returncode == 0, resumed.stderr[-4000:]
    assert f"{SAMPLES - kept} samples to generate, {kept} are there" in resumed.stderr
    assert contents(output.step(4)) == contents(swept.step(4))


def written(folder: StepFolder) -> int:
    files = folder.root.glob("*.samples.jsonl")
    return sum(file.read_bytes().count(b"\n") for file in files)


def wait_for(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, "the evaluation ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_one_broken_benchmark_leaves_the_others(
    task: Task, protocol: Path, data: Path, tmp_path: Path
) -> None:
    """A wrong row in one file, and soft prompts at inference on two engines."""
    for name in FROM_FILES:
        (tmp_path / "data" / name).mkdir(parents=True)
        content = (data / name / "test.jsonl").read_text()
        if name == "gsm8k":
            content = content.replace("####", "", 1)
        (tmp_path / "data" / name / "test.jsonl").write_text(content)
    output = EvaluationFolder(tmp_path / "output")
    done = run("eval", task.model, "rsp.length=8", "--output", output.root, "--protocol", protocol,
               "--data-dir", tmp_path / "data", "--data-parallel", 2)  # fmt: skip
    assert done.returncode == 1
    assert "error: gsm8k" in done.stderr
    assert "test.jsonl, line 1" in done.stderr
    assert sorted(file.name for file in output.step(0).root.glob("*.metrics.json")) == [
        "aime24.metrics.json",
        "arithmetic.metrics.json",
        "math500.metrics.json",
    ]
    # The draws are functions of the sample: one engine gives the same outputs as two.
    alone = EvaluationFolder(tmp_path / "alone")
    chosen = "benchmarks=[math500,aime24]"
    done = run("eval", task.model, "rsp.length=8", chosen, "--output", alone.root,
               "--protocol", protocol, "--data-dir", data)  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    for name in ("math500", "aime24"):
        assert read_samples(alone.step(0).samples(name)) == read_samples(
            output.step(0).samples(name)
        )


def test_stored_outputs_are_graded_anew_without_a_model(swept: EvaluationFolder) -> None:
    file = swept.step(4).samples("gsm8k")
    before = contents(swept.step(4))
    samples = read_samples(file)
    samples[0]["correct"] = not samples[0]["correct"]
    file.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    done = run("eval", "--rescore", file)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "1 verdicts changed" in done.stdout
    assert contents(swept.step(4)) == before


def test_two_runs_compared(swept: EvaluationFolder, uninterrupted: Run, tmp_path: Path) -> None:
    root = uninterrupted.folder
    done = run("compare", f"a={root}", f"b={root}", "--output", tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    assert (tmp_path / "curves.png").stat().st_size > 5_000
    assert "| b" in (tmp_path / "comparison.md").read_text()


def test_scripts_of_a_user(task: Task) -> None:
    """They pass options and bad input on; what they start is tested above."""
    for script, arguments, cause in (
        ("eval_model.sh", (), "Evaluate one model"),
        ("eval_checkpoints.sh", ("/nowhere",), "no such run folder"),
        ("eval_checkpoints.sh", (task.model, "--watch"), "holds no checkpoints"),
        ("eval_model.sh", ("/nowhere/model",), "no such folder"),
        ("eval_model.sh", (task.model, "--protocol", "nosuch"), "unknown protocol 'nosuch'"),
        ("eval_model.sh", (task.model, "rsp.size=1"), "unknown key rsp.size"),
    ):
        done = subprocess.run(
            ["bash", REPOSITORY / "eval" / script, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (1, 2)
        assert cause in done.stderr
        assert "Traceback" not in done.stderr
