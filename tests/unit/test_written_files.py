"""What lies in the files that others read, as tables of keys: a change shows in review.

Keys are compared as sets where the order is JSON's own business. No engine is started.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from rsp_rl.analysis.mode_table import analyse as tabulate
from rsp_rl.cli import main
from rsp_rl.data import arithmetic_steps, prosqa
from rsp_rl.data.arithmetic import write_dataset
from rsp_rl.data.step_problems import write_step_problems
from rsp_rl.dials.options import RspOptions
from rsp_rl.draws.record import RECORD_FIELD, SoftPromptRecord
from rsp_rl.evaluation.compare import analyse
from rsp_rl.evaluation.folder import EvaluationFolder
from rsp_rl.evaluation.outputs import write_outputs
from rsp_rl.evaluation.protocol import load_protocol
from rsp_rl.evaluation.runner import evaluate
from rsp_rl.grading.reward import compute_score
from rsp_rl.inference.requests import Completion, Request
from rsp_rl.latent.folder import Thinking, load_thinker, save_thinker
from rsp_rl.latent.scratch import make_model
from rsp_rl.latent.settings import Settings
from rsp_rl.runs.checkpoints import save_law
from rsp_rl.runs.data_order import save_order
from rsp_rl.runs.folder import RunFolder
from rsp_rl.runs.report import summarize
from rsp_rl.thoughts.laws.multiplex import Multiplex
from rsp_rl.thoughts.record import KIND_FIELD, THOUGHT_FIELD, ThoughtRecord
from rsp_rl.thoughts.rows import Kind, Rows, concatenate
from rsp_rl.thoughts.settings import ThoughtSettings
from rsp_rl.tiny import make_tiny_model
from rsp_rl.training.configs import compose_config
from rsp_rl.training.guard import StepSamples
from rsp_rl.training.preparation import prepare
from rsp_rl.training.thought_options import ThoughtOptions
from tests.unit.analysis.made_conditions import make_condition
from tests.unit.evaluation.made_runs import make_evaluation

VERDICT = {"extracted", "extraction_step", "correct", "stage", "timed_out", "crashed", "unparsable"}

RECORD = {
    *("seed", "start", "length", "mean", "std", "dtype", "placeholder_id", "law", "table"),
    "added_to",
}

#: `samples/train/STEP.soft_prompts.jsonl` of a run.
SOFT_PROMPT = {"uid", "prompt_index", "rollout"} | RECORD

#: `samples/train/STEP.rollouts.jsonl` of a run.
ROLLOUT = {"uid", "tokens", "gap_mean", "gap_max", "reward_info", "before"}

#: `samples/train/STEP.thoughts.jsonl` of a run with a law; and what of it the last rollouts lack.
THOUGHTS_OF_ROLLOUT = {"uid", "prompt_index", "rollout", "thoughts"}
IN_FULL = {"law", "seed", "start", "at", "kind", "ids", "weights"}

#: `summary.json` of a run.
RUN_SUMMARY = {
    *("steps", "accuracy_before", "accuracy_after", "logprob_gap_mean", "logprob_gap_max"),
    *("seconds_per_step", "wall_seconds", "rsp_length"),
}

#: What it has besides, of a run with noise on the question.
RUN_SUMMARY_OF_NOISE = {"rsp_law", "rsp_scale"}

#: `rsp.json` of a checkpoint: what a run that resumes from it must agree with.
LAW = {
    *("length", "position", "scale", "mode", "law", "length_schedule", "scale_schedule"),
    *("probability", "mixing", "seed", "mean", "std", "table", "table_digest"),
}

#: `data_order.json` of a checkpoint: what a run that resumes from it must have in common with it.
DATA_ORDER = {
    *("data.train_batch_size", "data.gen_batch_size", "data.seed", "data.shuffle"),
    *("data.train_max_samples", "data.dataloader_num_workers", "algorithm.filter_groups.enable"),
    *("trainer.v1.sampler.sync_refill_failed_groups", "trainer.v1.trainer_mode"),
    *("data.train_files", "data.val_files"),
}

#: `<benchmark>.samples.jsonl` of an evaluation.
SAMPLE = {
    *("problem", "sample", "seed", "prompt_hash", "gold", "output", "finish_reason", "tokens"),
} | VERDICT

#: What it has besides in an evaluation with a law.
SAMPLE_OF_LAW = {"law", "thoughts"}
THOUGHTS = {"at", "kind", "ids", "weights", "texts"}

#: `<benchmark>.metrics.json`.
METRICS = {
    *("benchmark", "problems", "samples_per_problem"),
    *("accuracy", "accuracy_low", "accuracy_high", "accuracy_standard_error"),
    *("pass_at_k", "majority_accuracy", "tokens_mean", "tokens_p95"),
    *("truncation_rate", "extraction_failure_rate", "timeouts", "crashes", "unparsable"),
}

#: Its `thoughts`, in an evaluation with a law.
THOUGHT_METRICS = {"law", "all", "right", "without_answer_rate", "forced_rate"}
LENGTHS = {"samples", "tokens", "thoughts", "thinking_tokens", "answer_tokens"}

#: `how.json` of an evaluated model, and of its parts the ones that others look into.
MANIFEST = {
    *("protocol", "fingerprint", "weights", "sampler", "trained", "law", "model", "engine"),
    *("context", "made_with", "values", "stored", "unlike_training", "preset"),
}
MANIFEST_PARTS = {
    "protocol": {
        *("name", "template", "max_tokens", "seed", "stop", "rsp", "comparator", "benchmarks"),
        "headline",
    },
    "law": {"mean", "std"},
    "stored": {"dtype", "made_of"},
    "engine": {
        *("kind", "dtype", "tensor_parallel", "data_parallel", "max_num_seqs", "max_model_len"),
        *("gpu_memory_utilization", "ray_address"),
    },
}
MADE_WITH = {"versions", "commit", "hardware"}

#: A line of `metrics.jsonl` of a training of CCOT, without its losses.
CCOT_STEP = {"step", "phase", "layer", "epoch", "seconds"}

#: Its `ccot.json`, and `summary.json` of its evaluation.
CCOT_OF = {"model", "weights", "train", "problems", "problems_digest", "dtype"}
CCOT_MANIFEST = {"thinks", "batch_size", "training"}
CCOT_SUMMARY = {
    *("method", "accuracy", "accuracy_low", "accuracy_high", "tokens", "seconds_per_problem"),
    *("thoughts", "thoughts_cut_off", "problems", "unfinished", "without_answer", "batch_size"),
    *("data", "ratio", "cap"),
}

#: `train.jsonl` of a set with steps.
STEP_PROBLEM = ["question", "steps", "answer"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny", steps=0, threads=1)


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("task", [arithmetic_steps, prosqa])
def test_sets_with_steps(task: Any, tmp_path: Path) -> None:
    sizes = [f"--{split}-size=2" for split in ("train", "validation", "heldout")]
    task.main(["--output", str(tmp_path), *sizes])
    for split in ("train", "validation", "heldout"):
        written = rows(tmp_path / f"{split}.jsonl")
        assert [list(row) for row in written] == [STEP_PROBLEM] * 2
        assert all(isinstance(step, str) for row in written for step in row["steps"])


# A training run.


def test_where_a_runs_files_lie(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    files = (
        *(run.settings, run.law, run.metrics, run.summary, run.plot),
        *(run.checkpoints, run.tensorboard, run.train_samples, run.rollouts_page),
    )
    assert [str(file.relative_to(tmp_path)) for file in files] == [
        *("rsp.json", "law.json", "metrics.jsonl", "summary.json", "training.png"),
        *("checkpoints", "tensorboard", "samples/train", "rollouts.html"),
    ]


def test_metrics_starts_and_summary_of_a_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    logged = {"rsp/logprob_gap_mean": 1e-7, "rsp/logprob_gap_max": 1e-6, "timing_s/step": 2.0}
    lines = [{"step": 0, "data": {"val-core/a/acc/mean@1": 0.5}}, {"step": 1, "data": logged}]
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with run.record_start():
        pass
    steps = run.merge_metrics()
    assert rows(run.metrics) == lines
    assert [set(start) for start in rows(tmp_path / "starts.jsonl")] == [
        {"begun", "ended", "versions", "commit"}
    ]
    assert summarize(steps, {"length": 8}, run.wall_seconds()).keys() == RUN_SUMMARY
    noise = {"length": 0, "law": "question_noise", "scale": 5.0}
    summary = summarize(steps, noise, run.wall_seconds())
    assert summary.keys() == RUN_SUMMARY | RUN_SUMMARY_OF_NOISE
    assert [summary[f"rsp_{name}"] for name in noise] == [*noise.values()]
    assert summarize(steps, noise | {"scale": 0.0}, run.wall_seconds()).keys() == RUN_SUMMARY


def test_settings_of_a_run_and_of_a_checkpoint(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run's are the whole config group, mu_E and sigma_E filled in."""
    monkeypatch.setattr(
        os, "environ", os.environ.copy()
    )  # where `prepare` puts the run's variables
    data = write_dataset(tmp_path, train_size=16, heldout_size=4)
    files = [f"data.train_files={data['train']}", f"data.val_files={data['heldout']}"]
    paths = [f"actor_rollout_ref.model.path={model}", f"run_dir={tmp_path / 'run'}", *files]
    config = compose_config("tiny_cpu", paths)
    run = prepare(config)
    save_order(tmp_path, OmegaConf.to_container(config.trainer.v1.rsp_sync.data_order))
    assert json.loads((tmp_path / "data_order.json").read_text()).keys() == DATA_ORDER
    settings = json.loads(run.settings.read_text())
    assert settings.keys() == LAW | {"seeded_sampling", "validation", "guard"}
    assert settings["guard"].keys() == {"max_mean_gap", "steps"}
    assert settings["scale_schedule"].keys() == {"shape", "end", "steps"}
    save_law(tmp_path, RspOptions.from_config(settings))
    assert json.loads((tmp_path / "rsp.json").read_text()).keys() == LAW


@pytest.mark.parametrize("added_to", [0, 5], ids=["soft prompts", "noise on the question"])
def test_soft_prompts_of_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, added_to: int
) -> None:
    """A row a rollout, by prompt and rollout; verl's padding is none. Noise stands nowhere."""
    from rsp_rl.training.verl_plugin import trainer
    from rsp_rl.training.verl_plugin.rollout_dump import rollout_facts

    law = {"law": "question_noise" if added_to else "gaussian", "added_to": added_to}
    records = [SoftPromptRecord(seed, 3, 8, 0.0, 0.5, "float32", 1, **law) for seed in (7, 9)]
    columns = {
        RECORD_FIELD: torch.stack([record.to_tensor() for record in records]),
        "rsp_prompt_index": [5, 2],
        "session_id": [0, 1],
        "prompts": torch.tensor([[4, 5, 6, 1, 7], [4, 5, 8, 1, 9]]),
    }
    asked: list[list[str]] = []

    def kv_batch_get(keys: list[str], **_: object) -> dict[str, Any]:
        asked.append(keys)
        return columns

    def decode(ids: torch.Tensor, *, skip_special_tokens: bool) -> str:
        return "".join("abcdefghij"[number] for number in ids if number != 1)

    monkeypatch.setattr(trainer.tq, "kv_batch_get", kv_batch_get)
    monkeypatch.setattr(trainer.PPOTrainerSync, "_log_rollout_data", lambda *_: None)
    made = trainer.SoftPromptTrainer.__new__(trainer.SoftPromptTrainer)
    made._options, made.global_steps = RspOptions(mean=0.0, std=0.5), 4
    made._law = ThoughtOptions()
    made.tokenizer = SimpleNamespace(decode=decode)
    samples = StepSamples(
        rollout_log_probs=torch.zeros(2, 3),
        actor_log_probs=torch.tensor([[0.5, 0.0, 0.0], [0.25, 0.75, 9.0]]),
        response_mask=torch.tensor([[1, 0, 0], [1, 1, 0]]),
        rewards=torch.zeros(2),
        soft_prompt_lengths=torch.tensor([8, 8]),
    )
    keys = ["a_0_0", "b_1_0", "c_0_0"]
    made._facts = rollout_facts(keys[:2], samples, [{"acc": torch.tensor(1.0)}, {"pred": "4"}])
    batch = SimpleNamespace(keys=keys, tags=[{}, {}, {"is_padding": True}], partition_id="train")
    made._log_rollout_data(batch, {}, str(tmp_path))
    assert asked == [keys[:2], ["b_1_0", "a_0_0"]][: 1 if added_to else 2]
    told = rows(tmp_path / "4.rollouts.jsonl")
    assert [row.keys() for row in told] == [ROLLOUT] * 2
    assert [row["uid"] for row in told] == keys[:2]
    assert [(row["tokens"], row["gap_mean"], row["gap_max"]) for row in told] == [
        (1, 0.5, 0.5),
        (2, 0.5, 0.75),
    ]
    assert [row["reward_info"] for row in told] == [{"acc": 1.0}, {"pred": "4"}]
    assert [row["before"] for row in told] == [None if added_to else 3] * 2
    written = rows(tmp_path / "4.soft_prompts.jsonl")
    assert [row.keys() for row in written] == [SOFT_PROMPT] * 2
    assert [(row["uid"], row["prompt_index"], row["rollout"]) for row in written] == [
        ("b_1_0", 2, 1),
        ("a_0_0", 5, 0),
    ]
    names = {name: written[0][name] for name in RECORD}
    assert SoftPromptRecord(**names) == records[1]


def test_thoughts_of_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row a rollout, by prompt and rollout; in full as far as a file's bound goes."""
    from rsp_rl.training.verl_plugin import thought_dump, trainer

    law = Multiplex(k=2)
    mixed = Rows.of_kind(Kind.MIX, torch.tensor([[5, 6], [7, 7]]), torch.full((2, 2), 0.5))
    rest = [Rows.tokens(kind, [8], mixed) for kind in (Kind.FORCED, Kind.TOKEN)]
    record = ThoughtRecord(law, 7, 3, concatenate([mixed, *rest]))
    places = {"a": (5, 0), "b": (2, 1), "c": (2, 0)}
    asked: list[list[str]] = []

    def kv_batch_get(keys: list[str], select_fields: list[str], **_: object) -> dict[str, Any]:
        if THOUGHT_FIELD in select_fields:
            asked.append(keys)
        return {
            THOUGHT_FIELD: torch.stack([record.to_tensor() for _ in keys]),
            KIND_FIELD: torch.stack([record.rows.kind_N for _ in keys]),
            "rsp_prompt_index": [places[key][0] for key in keys],
            "session_id": [places[key][1] for key in keys],
        }

    monkeypatch.setattr(trainer.tq, "kv_batch_get", kv_batch_get)
    monkeypatch.setattr(trainer.PPOTrainerSync, "_log_rollout_data", lambda *_: None)
    few = partial(thought_dump.thought_rows, most=7)
    monkeypatch.setattr(trainer, "thought_rows", few)
    made = trainer.SoftPromptTrainer.__new__(trainer.SoftPromptTrainer)
    made._options, made.global_steps = RspOptions(length=0), 4
    made._law, made._facts = ThoughtOptions(ThoughtSettings(law)), {}
    keys, tags = [*places, "d"], [{}, {}, {}, {"is_padding": True}]
    batch = SimpleNamespace(keys=keys, tags=tags, partition_id="train")
    made._log_rollout_data(batch, {}, str(tmp_path / "train"))
    assert [file.name for file in (tmp_path / "train").iterdir()] == ["4.thoughts.jsonl"]
    written = rows(tmp_path / "train" / "4.thoughts.jsonl")
    assert [row["uid"] for row in written] == ["c", "b", "a"]
    assert asked == [["c", "b"]]
    full = THOUGHTS_OF_ROLLOUT | IN_FULL
    assert [row.keys() for row in written] == [full, full, THOUGHTS_OF_ROLLOUT]
    assert [row["thoughts"] for row in written] == [3] * 3
    assert {name: written[0][name] for name in IN_FULL} == {
        **{"law": "multiplex", "seed": 7, "start": 3, "at": [0, 1, 2]},
        **{"kind": ["mix", "mix", "forced"], "ids": [[5, 6], [7], [8]]},
        "weights": [[0.5, 0.5], [1.0], []],
    }


def test_files_of_a_training_of_ccot(model: Path, tmp_path: Path) -> None:
    arithmetic_steps.main(["--output", str(tmp_path), "--train-size=2"])
    run, data = tmp_path / "run", str(tmp_path / "train.jsonl")
    ranks = ["--generator-rank", "1", "--decoder-rank", "1"]
    asked = ["--model", str(model), "--train", data, "--output", str(run), *ranks]
    assert main(["latent", "ccot", "train", *asked]) == 0
    assert main(["latent", "ccot", "eval", str(run), "--data", data]) == 0
    steps = rows(run / "metrics.jsonl")
    generator, answers = {"state_error"}, {"answer_loss", "end_loss"}
    assert [step.keys() - CCOT_STEP for step in steps] == [generator] * 2 + [answers] * 4
    assert all(step.keys() >= CCOT_STEP for step in steps)
    for file in (run / "run.json", run / "model" / "ccot.json"):
        said = json.loads(file.read_text())
        assert said.keys() == {"settings", "of"}
        assert said["of"].keys() == CCOT_OF
    assert {file.name for file in (run / "model").iterdir()} == {"ccot.json", "ccot.safetensors"}
    evaluation = EvaluationFolder(run / "evaluation" / "train")
    own = {"law", "thoughts", "thoughts_cut_off", "seconds"}
    samples = rows(evaluation.step(0).samples("train"))
    assert [sample.keys() for sample in samples] == [SAMPLE | own] * 2
    assert json.loads(evaluation.summary_json.read_text()).keys() == CCOT_SUMMARY
    manifest = json.loads(evaluation.step(0).manifest.read_text())
    assert manifest.keys() == MANIFEST - {"preset", "law", "unlike_training"} | CCOT_MANIFEST


def test_what_the_reward_gives_verl() -> None:
    numbers = {"score", "acc", "timeouts", "crashes", "unparsable", "no_answer", "boxed"}
    score = compute_score("arithmetic", r"\boxed{4}", "4")
    assert score.keys() == numbers | {"pred", "extraction_step", "stage"}
    assert {name for name, value in score.items() if isinstance(value, float)} == numbers


# An evaluation.


class Parrot:
    """Engines that answer everything at once, the same."""

    def generate(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        yield [Completion(request.number, r"\boxed{4}", 4, "stop") for request in requests]

    def close(self) -> None:
        """Nothing to free."""


def test_files_of_an_evaluated_model(model: Path, tmp_path: Path) -> None:
    protocol = load_protocol(
        "tiny", ["benchmarks.arithmetic.limit=2", "sampling.samples=2", "rsp.length=4"]
    )
    evaluation = EvaluationFolder(tmp_path / "evaluation")
    step = evaluation.step(0)
    outcome = evaluate(model, protocol, step, engines=Parrot(), progress=False)
    assert outcome.generated == 4
    write_outputs(evaluation)
    assert {str(file.relative_to(evaluation.root)) for file in evaluation.root.rglob("[!.]*")} == {
        *("logs", "logs/engine.log"),
        *("step_0", "step_0/how.json"),
        *("step_0/arithmetic.samples.jsonl", "step_0/arithmetic.metrics.json"),
        *("arithmetic.problems.jsonl", "summary.csv", "summary.md", "report.html"),
        *("headline.png", "benchmarks.png", "response_length.png"),
    }
    assert [set(row) for row in rows(step.samples("arithmetic"))] == [SAMPLE] * 4
    assert [set(row) for row in rows(evaluation.problems("arithmetic"))] == [
        {"id", "question", "gold"}
    ] * 2
    metrics = json.loads(step.metrics("arithmetic").read_text())
    assert metrics.keys() == METRICS
    assert list(metrics["pass_at_k"]) == ["1", "2"]
    manifest = json.loads(step.manifest.read_text())
    assert manifest.keys() == MANIFEST
    assert {name: set(manifest[name]) for name in MANIFEST_PARTS} == MANIFEST_PARTS
    assert [set(one) for one in manifest["made_with"]] == [MADE_WITH]


class Thinker(Parrot):
    """The same, after a thought."""

    def generate(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        for request in requests:
            thinking = request.thinking
            ids = torch.arange(5, 5 + thinking.law.slots)[None]
            mixed = Rows.of_kind(Kind.MIX, ids, torch.zeros(ids.shape))
            rows = concatenate([mixed, Rows.tokens(Kind.TOKEN, [7], mixed)])
            record = ThoughtRecord(thinking.law, thinking.seed, len(request.token_ids), rows)
            yield [Completion(request.number, r"\boxed{4}", 2, "stop", record)]


def test_what_a_law_adds_to_an_evaluation(model: Path, tmp_path: Path) -> None:
    """And nothing else: whoever reads the others reads these."""
    protocol = load_protocol(
        "tiny",
        ["benchmarks.arithmetic.limit=2", "law.name=gumbel", "law.end=[]", "law.max_thoughts=3"],
    )
    evaluation = EvaluationFolder(tmp_path / "evaluation")
    step = evaluation.step(0)
    evaluate(model, protocol, step, engines=Thinker(), progress=False)
    write_outputs(evaluation)
    samples = rows(step.samples("arithmetic"))
    assert [set(row) for row in samples] == [SAMPLE | SAMPLE_OF_LAW] * 2
    assert [set(row["thoughts"]) for row in samples] == [THOUGHTS] * 2
    metrics = json.loads(step.metrics("arithmetic").read_text())
    assert metrics.keys() == METRICS | {"thoughts"}
    assert metrics["thoughts"].keys() == THOUGHT_METRICS
    assert metrics["thoughts"]["all"].keys() == metrics["thoughts"]["right"].keys() == LENGTHS
    manifest = json.loads(step.manifest.read_text())
    assert manifest.keys() == MANIFEST | {"thinking"}
    assert manifest["protocol"].keys() == MANIFEST_PARTS["protocol"] | {"law"}
    assert head(evaluation.summary_csv) == f"{SUMMARY_CSV},{SUMMARY_CSV_OF_LAW}"


#: `summary.json` of an evaluation by `rsp-rl latent eval`, and what its other files have besides.
LATENT_SUMMARY = {
    *("method", "seed", "accuracy", "accuracy_low", "accuracy_high", "tokens", "thoughts"),
    *("seconds_per_problem", "problems", "unfinished", "without_answer", "batch_size", "device"),
    *("engine", "data", "model", "epochs", "epochs_done", "step_decoder"),
}
LATENT_MANIFEST = {
    *(
        "protocol",
        "fingerprint",
        "weights",
        "sampler",
        "thinks",
        "batch_size",
        "model",
        "training",
        "trained_on",
    ),
    *("values", "stored", "engine", "context", "made_with"),
}
TREE_CSV = "k,measure,value,low,high"
KINDS_CSV = "problem,k,kind,probability,share,distance,right,answer"


def test_evaluation_of_a_model_that_thinks(tmp_path: Path) -> None:
    """Files of the usual kind, and a summary."""
    settings = Settings(max_stage=2, max_new_tokens=4)
    problems = prosqa.generate("heldout", 3)
    sizes = {"layers": 1, "hidden_size": 16, "heads": 2, "context": 512}
    thinker = load_thinker(make_model(tmp_path / "base", problems, **sizes))
    thinker.thinking = Thinking.of(settings)
    save_thinker(tmp_path / "model", thinker)
    write_step_problems(tmp_path / "heldout.jsonl", problems)
    data = ["--data", str(tmp_path / "heldout.jsonl")]
    root, command = tmp_path / "out", ["latent", "eval", str(tmp_path / "model"), *data]
    assert main([*command, "--output", str(root)]) == 0
    evaluation = EvaluationFolder(root)
    step = evaluation.step(0)
    assert {str(file.relative_to(root)) for file in root.rglob("[!.]*")} == {
        *("step_0", "step_0/how.json"),
        *("step_0/heldout.samples.jsonl", "step_0/heldout.metrics.json"),
        *("heldout.problems.jsonl", "summary.csv", "summary.md", "report.html", "summary.json"),
        *("headline.png", "benchmarks.png", "response_length.png"),
    }
    samples = rows(step.samples("heldout"))
    assert [set(row) for row in samples] == [SAMPLE | SAMPLE_OF_LAW | {"seconds"}] * 3
    assert [set(row["thoughts"]) for row in samples] == [THOUGHTS] * 3
    asked = {"id", "question", "gold", "steps"}
    assert [set(row) for row in rows(evaluation.problems("heldout"))] == [asked] * 3
    metrics = json.loads(step.metrics("heldout").read_text())
    assert metrics.keys() == METRICS | {"thoughts", "seconds_mean"}
    assert json.loads(evaluation.summary_json.read_text()).keys() == LATENT_SUMMARY
    assert json.loads(step.manifest.read_text()).keys() == LATENT_MANIFEST
    tree = tmp_path / "tree"
    command = ["analyze", "latent-tree", str(tmp_path / "model"), *data]
    assert main([*command, "--output", str(tree)]) == 0
    assert {file.name for file in tree.iterdir()} == {
        *(f"latent_tree.{kind}" for kind in ("md", "csv", "kinds.csv", "png", "svg"))
    }
    assert head(tree / "latent_tree.csv") == TREE_CSV
    assert head(tree / "latent_tree.kinds.csv") == KINDS_CSV


CELLS_CSV = "benchmark,condition,measure,value,low,high,difference,difference_low,difference_high"
SCORE = {"question", "hash", "right", "log_probs", "tokens", "characters", "truncated"}
MODELS_HOW = {"model", "weights", "dtype", "batch_tokens", "longest"}


def test_what_modes_add_to_an_evaluation(tmp_path: Path) -> None:
    """A folder a mode, of the usual kind, and their table."""
    root = tmp_path / "mine"
    for mode in ("greedy", "sampled"):
        make_condition(root / mode, {"gsm8k": ["+-", "--"]})
    before = {*root.iterdir()}
    tabulate([str(root)], root)
    assert {file.name for file in {*root.iterdir()} - before} == {
        *("modes.md", "modes.csv", "modes.png", "modes.svg")
    }
    assert head(root / "modes.csv") == CELLS_CSV


def test_scores_of_choices(model: Path, tmp_path: Path) -> None:
    file, output = tmp_path / "sums.jsonl", tmp_path / "out"
    file.write_text(json.dumps({"question": "1+1", "choices": ["2", "3"], "answer": 0}) + "\n")
    command = ["analyze", "likelihoods", f"base={model}", "--questions", f"sums={file}"]
    assert main([*command, "--output", str(output)]) == 0
    assert {str(one.relative_to(output)) for one in output.rglob("[!.]*")} == {
        *("likelihoods.md", "likelihoods.csv", "likelihoods.png", "likelihoods.svg"),
        *("base", "base/how.json", "base/sums.scores.jsonl"),
    }
    assert [set(row) for row in rows(output / "base" / "sums.scores.jsonl")] == [SCORE]
    assert json.loads((output / "base" / "how.json").read_text()).keys() == MODELS_HOW
    assert head(output / "likelihoods.csv") == CELLS_CSV


#: Of a comma-separated file, its first line.
SUMMARY_CSV = (
    "step,benchmark,problems,samples_per_problem,accuracy,accuracy_low,accuracy_high,"
    "accuracy_standard_error,majority_accuracy,tokens_mean,tokens_p95,truncation_rate,"
    "extraction_failure_rate,timeouts,crashes,unparsable,pass_at_n"
)
SUMMARY_CSV_OF_LAW = (
    "law,tokens_all,thoughts_all,thinking_tokens_all,answer_tokens_all,tokens_right,"
    "thoughts_right,thinking_tokens_right,answer_tokens_right,without_answer_rate,forced_rate"
)
COMPARISON_CSV = (
    "choice,run,step,benchmark,accuracy,low,high,difference,difference_low,difference_high"
)
CURVES_CSV = "run,step,seeds,headline,accuracy,low,high"


def head(file: Path) -> str:
    with file.open() as stream:
        return ",".join(next(csv.reader(stream)))


def test_tables_of_runs(tmp_path: Path) -> None:
    made = [make_evaluation(tmp_path / name, {0: 0.3, 10: 0.6}) for name in ("a", "b")]
    write_outputs(made[0])
    assert head(made[0].summary_csv) == SUMMARY_CSV
    output = tmp_path / "comparison"
    analyse([str(tmp_path / name) for name in ("a", "b")], output)
    assert {file.name for file in output.iterdir()} == {
        *("comparison.md", "comparison.csv", "curves.csv", "curves.png", "curves.svg"),
    }
    assert head(output / "comparison.csv") == COMPARISON_CSV
    assert head(output / "curves.csv") == CURVES_CSV


def test_verdicts_of_graded_outputs(tmp_path: Path) -> None:
    file = tmp_path / "outputs.jsonl"
    file.write_text(json.dumps({"output": r"\boxed{4}", "gold": "4"}) + "\n")
    assert main(["grade", str(file), "--quiet", "--processes", "1"]) == 0
    assert [set(row) for row in rows(tmp_path / "outputs.verdicts.jsonl")] == [
        {"index", "gold"} | VERDICT
    ]
