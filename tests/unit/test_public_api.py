"""What the docs promise to others' code and command lines, as tables: a change shows in review.

What a table states may grow; what it states now is in use. Written files: `test_written_files.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from docs.api import NAMES, public
from rsp_rl.basics import errors
from rsp_rl.basics.package_files import CONFIGS, PROTOCOLS
from rsp_rl.cli import COMMANDS
from rsp_rl.comparators.methods import METHODS
from rsp_rl.data.benchmarks import BENCHMARKS
from rsp_rl.data.prosqa import LEVELS
from rsp_rl.data.step_problems import StepProblem
from rsp_rl.data.templates import TEMPLATES
from rsp_rl.dials.mixing import MIXINGS
from rsp_rl.dials.options import MODES, GuardOptions, RspOptions
from rsp_rl.dials.schedule import SHAPES, Schedule
from rsp_rl.draws.law import Law
from rsp_rl.draws.laws import LAWS
from rsp_rl.draws.own_laws import GROUP
from rsp_rl.draws.record import DTYPES, EXTRA_ARG, RECORD_FIELD, RECORD_SIZE, SoftPromptRecord
from rsp_rl.grading import Verdict
from rsp_rl.inference import server
from rsp_rl.inference.requests import KINDS, Completion, EngineOptions
from rsp_rl.injection.thinking_engine import MEMORY
from rsp_rl.injection.vllm_prompt import WORKER
from rsp_rl.placement.prompt import POSITIONS, PlacedPrompt
from rsp_rl.thoughts.names import LAWS as INPUT_LAWS
from rsp_rl.thoughts.settings import COMPAT
from rsp_rl.thoughts.settings import EXTRA_ARG as THINKING_ARG
from rsp_rl.training.configs import compose_config

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"

# Python.

SIGNATURES = {
    "rsp_rl.grading:grade": "(output: str, gold: str, benchmark: str | None = None) -> Verdict",
    "rsp_rl.grading:is_correct": "(prediction: str, gold: str) -> Verdict",
    "rsp_rl.grading:extract_answer": "(text: str) -> Extraction",
    "rsp_rl.grading.reward:compute_score": (
        "(data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | "
        "None = None, *, format_reward: float = 0.0, right_reward: float = 1.0, **_: Any) -> "
        "dict[str, float | str]"
    ),
    "rsp_rl.inference.generator:Generator": (
        "(model: str, *, template: str = 'chat', options: EngineOptions | None = None, thoughts: "
        "bool = False) -> None"
    ),
    "rsp_rl.inference.generator:Generator.generate": (
        "(self, question: str, *, samples: int = 1, length: int = 0, position: Position = "
        "'suffix', mode: Mode = 'independent', scale: float = 1.0, draw: str = 'gaussian', "
        "temperature: float = 0.0, top_p: float = 1.0, top_k: int = 0, max_tokens: int = 2048, "
        "seed: int = 0, law: str | None = None, law_settings: Mapping[str, Any] | None = None) -> "
        "list[Completion]"
    ),
    "rsp_rl.inference.generator:Generator.close": "(self) -> None",
    "rsp_rl.data.step_problems:load_step_problems": (
        "(files: str | Sequence[str], setting: str = 'data files', *, needs_steps: bool = True) -> "
        "list[StepProblem]"
    ),
    "rsp_rl.draws.laws:draw_soft_prompt": (
        "(seed: int, length: int, hidden_size: int, mean: float, std: float) -> torch.Tensor"
    ),
    "rsp_rl.draws.record:SoftPromptRecord.to_tensor": "(self) -> torch.Tensor",
    "rsp_rl.draws.record:SoftPromptRecord.from_tensor": (
        "(encoded: torch.Tensor) -> SoftPromptRecord"
    ),
    "rsp_rl.draws.record:SoftPromptRecord.draw": "(self, hidden_size: int) -> torch.Tensor",
    "rsp_rl.draws.law:Law.draw": "(self, record: Draw, hidden_size: int) -> torch.Tensor",
    "rsp_rl.placement.chat:place_in_chat": (
        "(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], length: int, "
        "position: Position = 'suffix', **template_kwargs: Any) -> PlacedPrompt"
    ),
    "rsp_rl.tiny:make_tiny_model": (
        "(output: Path | str, *, seed: int = 0, steps: int = 600, hidden_size: int = 128, "
        "num_layers: int = 2, num_heads: int = 4, tie_word_embeddings: bool = False, threads: int "
        "| None = None) -> Path"
    ),
    "rsp_rl.dials.options:RspOptions.from_config": "(config: Mapping[str, Any]) -> RspOptions",
    "rsp_rl.training.verl_plugin.agent_loop:SoftPromptMixin.run": (
        "(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput"
    ),
}

REQUIRED = dataclasses.MISSING

#: Fields in their order, with their defaults.
FIELDS = {
    SoftPromptRecord: {
        **dict.fromkeys(
            ("seed", "start", "length", "mean", "std", "dtype", "placeholder_id"), REQUIRED
        ),
        "law": "gaussian",
        "table": 0,
        "added_to": 0,
    },
    RspOptions: {
        "length": 20,
        "position": "suffix",
        "scale": 1.0,
        "mode": "independent",
        "law": "gaussian",
        "length_schedule": Schedule("constant", None, None),
        "scale_schedule": Schedule("constant", None, None),
        "probability": 1.0,
        "mixing": "none",
        "seed": 42,
        "seeded_sampling": False,
        "validation": False,
        "mean": None,
        "std": None,
        "table": None,
        "table_digest": None,
        "guard": GuardOptions(0.1, 5),
    },
    PlacedPrompt: {**dict.fromkeys(("token_ids", "start"), REQUIRED), "length": 0},
    GuardOptions: {"max_mean_gap": 0.1, "steps": 5},
    Schedule: {"shape": "constant", "end": None, "steps": None},
    Verdict: {
        **dict.fromkeys(("correct", "stage"), REQUIRED),
        "extracted": "",
        "extraction_step": "none",
        "timed_out": False,
        "crashed": False,
        "unparsable": False,
    },
    EngineOptions: {
        "kind": "vllm",
        "dtype": "auto",
        "tensor_parallel": 1,
        "data_parallel": 1,
        "max_num_seqs": 256,
        "max_model_len": None,
        "gpu_memory_utilization": 0.9,
        "ray_address": None,
    },
    StepProblem: dict.fromkeys(("question", "steps", "answer"), REQUIRED),
    Completion: {
        **dict.fromkeys(("number", "text", "tokens", "finish_reason"), REQUIRED),
        "thoughts": None,
    },
}


class _Bare:
    """An annotation that is shown as it was written."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def signature(target: Any) -> str:
    """A signature as its source has it."""
    found = inspect.signature(target)
    parameters = [
        parameter
        if parameter.annotation is parameter.empty
        else parameter.replace(annotation=_Bare(parameter.annotation))
        for parameter in found.parameters.values()
    ]
    result = _Bare(found.return_annotation)
    return str(found.replace(parameters=parameters, return_annotation=result))


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name: str) -> None:
    module, _, path = name.partition(":")
    target = import_module(module)
    for part in path.split("."):
        target = getattr(target, part)
    assert signature(target) == SIGNATURES[name]


@pytest.mark.parametrize("kind", FIELDS, ids=lambda kind: kind.__name__)
def test_fields_and_defaults(kind: type) -> None:
    found = {
        field.name: field.default if field.default_factory is REQUIRED else field.default_factory()
        for field in dataclasses.fields(kind)
    }
    assert list(found.items()) == list(FIELDS[kind].items())


def test_the_page_of_the_api_has_them_all() -> None:
    """docs/api.md is made of these names."""
    named = [name for group in NAMES.values() for name in group.items()]
    shown = {name for name, _ in named} | {f"{n}.{part}" for n, parts in named for part in parts}
    assert shown >= SIGNATURES.keys()
    assert {public(name) for name, _ in named} >= FIELDS.keys()
    assert all(public(name).__doc__ for name in shown)


def test_what_grading_exports() -> None:
    grading = import_module("rsp_rl.grading")
    exported = ["Extraction", "Verdict", "extract_answer", "grade", "is_correct"]
    assert sorted(grading.__all__) == exported


def test_errors_by_which_callers_tell_causes_apart() -> None:
    """Each is also one of Python's own kinds, which callers may catch instead."""
    found = {
        name: kind.__bases__[-1]
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, Exception)
    }
    assert found == {
        "KnownError": Exception,
        "ConfigError": ValueError,
        "PlacementError": ValueError,
        "EmbeddingTableError": ValueError,
        "RunFolderError": RuntimeError,
        "GenerationError": RuntimeError,
        "PolicyMismatchError": RuntimeError,
        "RunBrokenError": RuntimeError,
    }


def test_attributes_of_a_law() -> None:
    """What a law of another package sets and implements, and the group that names it."""
    assert {name: getattr(Law, name) for name in ("one_draw", "from_table", "added")} == {
        "one_draw": False,
        "from_table": False,
        "added": False,
    }
    assert Law.__abstractmethods__ == {"draw"}
    assert Law.__annotations__.keys() == {"name", "one_draw", "from_table", "added"}
    assert GROUP == "rsp_rl.laws"


def test_entry_points() -> None:
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    assert project["scripts"] == {"rsp-rl": "rsp_rl.cli:main"}
    assert project["entry-points"] == {
        "verl.plugins": {"rsp_rl": "rsp_rl.training.verl_plugin"},
        "vllm.general_plugins": {"rsp_rl": "rsp_rl.inference.vllm_plugin:register"},
    }


# The record.


def test_encoding_of_a_record() -> None:
    """Nine numbers, int64: what samples carry, and what checkpoints' and servers' peers decode."""
    record = SoftPromptRecord(
        seed=2**64 - 2,
        start=3,
        length=20,
        mean=1.0,
        std=0.5,
        dtype="bfloat16",
        placeholder_id=151643,
        law="sphere",
        table=2**63,
    )
    encoded = record.to_tensor()
    assert encoded.dtype == torch.int64
    assert encoded.tolist() == [
        -2,  # unsigned, in two's complement
        3,
        20,
        0x3FF0000000000000,  # 1.0, IEEE 754 double
        0x3FE0000000000000,  # 0.5
        1,
        151643,
        3,
        -(2**63),
        0,
    ]
    assert SoftPromptRecord.from_tensor(encoded) == record
    assert SoftPromptRecord.from_tensor(encoded[:9]) == record  # as 0.1 encoded it
    assert len(encoded) == RECORD_SIZE == 10


def test_names_that_records_travel_under() -> None:
    assert (RECORD_FIELD, EXTRA_ARG) == ("rsp_record", "rsp_rl")
    assert WORKER == "rsp_rl.injection.vllm_worker.SoftPromptWorker"
    assert (THINKING_ARG, MEMORY) == ("rsp_rl_thoughts", "rsp_rl_thoughts_gib")


# Names that settings take; of the first two the position is a code in records.


@pytest.mark.parametrize(
    ("known", "names"),
    [
        (LAWS, ["gaussian", "vocab", "fixed", "sphere", "question_noise"]),
        (DTYPES, ["float32", "bfloat16", "float16"]),
        (POSITIONS, ["prefix", "infix", "suffix"]),
        (MODES, ["independent", "shared"]),
        (MIXINGS, ["none", "half"]),
        (SHAPES, ["constant", "linear", "cosine"]),
        (METHODS, ["ltpo", "ttsv", "softcot"]),
        (
            INPUT_LAWS,
            [
                *("token", "soft_thinking", "dirichlet", "gumbel", "multiplex", "soft", "fuzzy"),
                *("moi", "hidden", "neighbours", "neftune"),
            ],
        ),
        ([*LEVELS], ["paper", "balanced", "small", "bare"]),
        (COMPAT, ["same_temperature", "greedy_answer", "cold_abort"]),
        (KINDS, ["vllm", "huggingface"]),
        (
            TEMPLATES,
            [
                *("qwen-boxed", "qwen25-math-cot", "abel", "soft-tokens", "raw", "llama-chat"),
                *("chat", "plain-chat"),
            ],
        ),
        (
            BENCHMARKS,
            [
                *("gsm8k", "math500", "minerva_math", "gaokao2023en", "olympiadbench"),
                *("college_math", "aime24", "amc23", "arithmetic", "sums", "sums_digits"),
            ],
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_names(known: Any, names: list[str]) -> None:
    assert list(known) == names


def test_configs_and_protocols() -> None:
    def names(folder: Path) -> set[str]:
        return {str(file.relative_to(folder).with_suffix("")) for file in folder.rglob("*.yaml")}

    assert names(CONFIGS) >= {
        *("dapo", "dapo_rsp", "real_cpu", "tiny_cpu", "objective/dapo", "rsp/paper", "rsp/off"),
        *("machine/cpu", "machine/gpu", "memory/low", "correction/tis"),
        *("rollout/fp8", "objective/rloo"),
        *("law/off", "law/token", "law/multiplex", "law/gumbel", "law/soft", "law/fuzzy"),
        *("correction/seq_is", "correction/token_icepop", "correction/seq_is_rs"),
        *("correction/geo_rs", "correction/geo_rs_seq_tis", "correction/geo_rs_token_tis"),
        *("correction/k3_rs", "correction/k3_rs_seq_tis", "correction/k3_rs_token_tis"),
    }
    assert names(PROTOCOLS) >= {
        *("rsp_paper", "simplerl_zoo", "rsp_inference", "quick", "tiny"),
        *("soft_thinking", "soft_thinking_gumbel", "soft_thinking_dirichlet", "multiplex"),
        *("soft_tokens", "sums", "sums_digits"),
    }


SETTINGS = {"console": "progress", "data.max_lost_share": 0.0}


def test_config_group_rsp() -> None:
    """Its keys are the options, its values their defaults."""
    group = OmegaConf.to_container(OmegaConf.load(CONFIGS / "rsp" / "paper.yaml"))
    assert group == dataclasses.asdict(RspOptions())


LAW_GROUP = {
    **{"begin": "", "end": ["</think>"], "end_text": "", "max_thoughts": None},
    **{"cold_entropy": 0.0, "cold_steps": 256, "on_end": "", "on_cut": None, "validation": False},
}
FILTERS = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
NOISE = {
    **{"sigma": 0.33, "convention": "entry", "rms": None, "learn_embedding": True},
    "guard": {"max_relative_error": 0.1, "max_flips": 0.2},
}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("token", FILTERS),
        (
            "multiplex",
            {
                **FILTERS,
                **{"k": 3, "weighting": "mean", "duplicates": "each"},
                **{"detach_inputs": None, "clip_per_draw": False},
            },
        ),
        (
            "gumbel",
            {
                **{"k": 5, "tau": 0.1, "score": "paper", "clamp": False, "detach_inputs": None},
                **{"temperature": 1.0, "top_k": 5, "top_p": 0.95, "min_p": 0.0},
            },
        ),
        ("soft", {"tau": 0.5, **NOISE}),
        (
            "fuzzy",
            {"tau": 1e-4, **NOISE, "guard": {"max_relative_error": 0.15, "max_flips": 0.1}},
        ),
    ],
)
def test_config_groups_of_laws(name: str, settings: dict[str, Any]) -> None:
    group = OmegaConf.to_container(OmegaConf.load(CONFIGS / "law" / f"{name}.yaml"))
    assert group == {"name": name, **LAW_GROUP, **settings}


def test_no_law_is_the_default() -> None:
    assert OmegaConf.to_container(OmegaConf.load(CONFIGS / "law" / "off.yaml")) == {"name": None}
    assert compose_config("dapo").law == {"name": None}


def test_settings_of_ours_beside_verls() -> None:
    """In verl's own groups, with their defaults."""
    config = compose_config("dapo")
    found = {key: OmegaConf.select(config, key) for key in SETTINGS}
    assert found == SETTINGS


def test_extra_arguments_of_vllms_server() -> None:
    names = (server.LENGTH, server.POSITION, server.SEED, server.SCALE)
    assert names == ("rsp_length", "rsp_position", "rsp_seed", "rsp_scale")


# Command lines. A name in capitals is an argument without a flag.

ENGINE = (
    "--engine --dtype --tensor-parallel --data-parallel --ray-address --max-num-seqs "
    "--max-model-len --gpu-memory-utilization"
)
MODEL = "--model --dtype --benchmark --problems --samples"
TRAINED = (
    "--model --output --template --position --limit --dtype --preset --length --epochs "
    "--batch-size --accumulation --learning-rate --seed"
)

LATENT_SETTINGS = (
    "--method --thoughts-per-step --max-stage --epochs-per-stage --epochs --first-epoch "
    "--learning-rate --warmup-steps --weight-decay --optimizer --batch-size --micro-batch-size "
    "--reset-optimizer --uniform-stages --pad-thoughts --no-pad-thoughts --ends "
    "--classifier-learning-rate --step-decoder --icot-tokens-per-epoch --icot-smoothing "
    "--max-grad-norm --recompute --no-recompute --validation-limit --max-new-tokens --save-steps "
    "--seed"
)

FLAGS = {
    "report": "RUN_DIR --card",
    "push": "FOLDER --repo --private --dry-run",
    "eval": "PATH OVERRIDES --protocol --output --data-dir --steps --watch --base-model "
    f"--keep-merged --rescore {ENGINE}",
    "compare": "RUNS --protocol --output",
    "generate": "--model --benchmark --limit --template --samples --temperature --top-p --top-k "
    "--max-tokens --seed --rsp.length --rsp.position --rsp.mode --rsp.scale --rsp.law --rsp.seed "
    f"--law --law.KEY --data-dir --output {ENGINE}",
    "analyze evaluate": "FIGURE OVERRIDES --model --protocol --samples --comparator --output "
    f"--data-dir {ENGINE}",
    "analyze positions": "FOLDERS --output",
    "analyze lengths": "FOLDERS --output",
    "analyze trained-or-random": "FOLDERS --output",
    "analyze pass-at-n": "FOLDERS --held-out-half --output",
    "analyze coverage": "FIRST SECOND --output",
    "analyze distributions": f"FOLDERS --bins --tokens-per-bin --output {MODEL}",
    "analyze first-token": f"FOLDERS --output {MODEL}",
    "analyze diversity": "FOLDERS --embedder --eps --min-samples --benchmark --problems --output",
    "analyze attention": f"FOLDER --output {MODEL}",
    "analyze thoughts": f"FOLDERS --probes --output {MODEL}",
    "analyze laws": "FOLDERS --output",
    "analyze modes": "FOLDERS --output",
    "analyze likelihoods": "MODELS --questions --limit --max-length --dtype --batch-tokens "
    "--output",
    "analyze latent-tree": "PATH --data --problems --most --drawn --batch-size --output",
    "analyze dials": "FOLDERS --first-token --output",
    "analyze training": "RUNS --output",
    "reproduce": "OVERRIDES --section --only --model --output --protocol --data-dir --lengths "
    "--comparator --samples --held-out-half --trajectories --embedder --runs --other-templates "
    f"--thought-samples {ENGINE}",
    "train-comparator ttsv": "--final-share --weight-decay --epsilon --max-tokens --temperature "
    f"--top-p --repetition-penalty --benchmark --data-dir {TRAINED}",
    "train-comparator softcot": "--evaluation-length --max-grad-norm --assistant --solutions "
    f"{TRAINED}",
    "latent model": "--data --output --architecture --layers --hidden-size --heads --context "
    "--seed",
    "latent train": "--model --train --validation --output --limit --threads --preset --dry-run "
    f"--processes --memory-gb {LATENT_SETTINGS}",
    "latent eval": "PATH --data --output --thoughts --batch-size --limit --engine --threads",
    "latent table": "RUNS --task --output",
    "model": "NAME --output --source",
    "latent ccot train": "--model --train --output --limit --dtype --threads --dry-run "
    "--gpu-memory-gb --ratio --layer --selection --generator-rank --decoder-rank --lora-scale "
    "--learning-rate --weight-decay --max-grad-norm --batch-size --epochs-per-layer "
    "--decoder-epochs --joint-epochs --end-probability --longest-chain --max-new-tokens --seed",
    "latent ccot eval": "RUN --data --output --model --limit --batch-size --dtype --threads "
    "--engine",
    "recipe": "NAME --list --copy",
    "grade": "FILE --output-field --gold-field --benchmark-field --verdicts --processes --restart "
    "--show --quiet",
}


def flags(parser: argparse.ArgumentParser, name: str) -> dict[str, set[str]]:
    """By command, sub-commands with their parent's name, what it takes beside `--help`."""
    found: dict[str, set[str]] = {}
    own = set()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for part, inner in action.choices.items():
                found |= flags(inner, f"{name} {part}".strip())
        elif action.option_strings:
            own |= set(action.option_strings) - {"-h", "--help"}
        else:
            own.add(action.dest.upper())
    return {name: own, **found} if own else found


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"train"}))  # that one is Hydra's
def test_commands_and_flags(command: str) -> None:
    root = argparse.ArgumentParser()
    import_module(COMMANDS[command][0]).add_parser(root.add_subparsers())
    promised = {
        name: set(line.split()) for name, line in FLAGS.items() if name.split()[0] == command
    }
    assert flags(root, "") == promised


def test_flags_of_the_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    from rsp_rl.training.dry_run import main

    with pytest.raises(SystemExit):
        main(["--help"])
    flags_shown = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert flags_shown == {"--help", "--config-name", "--gpu-memory-gb"}
