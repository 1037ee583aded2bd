"""A model that was trained on text, SmolLM2-135M-Instruct, through the whole stack.

Made once a machine, in the cache that `rsp-rl model` uses. Its weights are not ours to ship: where
neither hub nor package index can be reached, these tests are skipped and say NO REAL MODEL. Any
other trouble in making it is a failure.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from rsp_rl.basics import exit_status
from rsp_rl.cli import main
from rsp_rl.data.sums import main as write_sums
from rsp_rl.models.small import CACHE_VARIABLE, UnreachableError, make_small_model, weights_of
from rsp_rl.placement.chat import place_in_chat
from tests.integration.harness import REPOSITORY, SMALL, Run, launch

#: Four rollouts of two problems, in one update.
FEW = (
    *SMALL,
    "data.train_batch_size=2",
    "actor_rollout_ref.rollout.n=2",
    "trainer.total_training_steps=1",
)


@pytest.fixture(scope="session")
def model() -> Path:
    """The model's folder."""
    cache = Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "rsp_rl")
    folder = cache / "smollm2-135m"
    try:
        make_small_model("smollm2-135m", folder)
    except UnreachableError as error:
        pytest.skip(f"NO REAL MODEL: {error}")
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few sums."""
    folder = tmp_path_factory.mktemp("sums")
    write_sums(["--output", str(folder), "--train-size", "8", "--heldout-size", "4"])
    return folder


def train(folder: Path, model: Path, data: Path, *overrides: str, **how: dict[str, str]) -> Run:
    """One step with the config for real models on a CPU, in fp32."""
    command = [
        *("--config-name", "real_cpu", f"actor_rollout_ref.model.path={model}"),
        f"data.train_files={data / 'train.parquet'}",
        f"data.val_files={data / 'heldout.parquet'}",
        *FEW,
        *overrides,
    ]
    return launch(folder, command, **how)


def test_its_turns_end_as_the_originals(model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"
    placed = place_in_chat(tokenizer, [{"role": "user", "content": "What is 3 + 4?"}], 20, "suffix")
    after = placed.token_ids[placed.start + 20 :]
    assert tokenizer.decode(after) == "<|im_end|>\n<|im_start|>assistant\n"
    assert weights_of(model) in ("the original's", "rounded to 4 bits (GGUF, Q4_1), as bfloat16")


def test_rollout_and_actor_agree(model: Path, data: Path, tmp_path: Path) -> None:
    run = train(tmp_path / "run", model, data)
    assert run.returncode == 0, run.output[-3000:]
    (gap,) = run.column("rsp/logprob_gap_mean")
    assert gap < 1e-4
    assert run.column("rsp/length_mean") == [20]


def test_a_forgotten_soft_prompt_is_caught(model: Path, data: Path, tmp_path: Path) -> None:
    run = train(
        tmp_path / "run",
        model,
        data,
        "actor_rollout_ref.model.external_lib=tests.integration.forgetful_actor",
        "rsp.guard.max_mean_gap=0.05",  # that of bf16 runs
        env={"PYTHONPATH": str(REPOSITORY)},
    )
    assert run.returncode == exit_status.WOULD_COME_AGAIN
    (message,) = (line for line in run.output.splitlines() if line.startswith("error: "))
    assert float(re.search(r"is ([0-9.e+-]+) nats", message)[1]) > 0.05
    assert "the actor does not inject the soft prompt" in message


def test_a_few_problems_are_evaluated(model: Path, tmp_path: Path) -> None:
    """Two conditions of four sums, and how sure the model was of its tokens."""
    for name, rsp in {"baseline": [], "suffix": ["rsp.length=20"]}.items():
        few = ["benchmarks.sums.limit=4", "benchmarks.sums.samples=1", "max_tokens=16", *rsp]
        how = ["--protocol", "sums", "--engine", "huggingface", "--output", str(tmp_path / name)]
        assert main(["eval", str(model), *few, *how]) == 0
    folders = [str(tmp_path / name) for name in ("baseline", "suffix")]
    assert main(["analyze", "distributions", *folders, "--output", str(tmp_path / "out")]) == 0
    assert "entropy" in (tmp_path / "out" / "distributions.md").read_text()
