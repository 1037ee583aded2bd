"""The GPU recipes: each script's own overrides, composed, against the paper's Table 12."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from packaging.requirements import Requirement

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data.templates import ChatTemplate, get_template
from rsp_rl.dials.options import RspOptions
from rsp_rl.training import dry_run
from rsp_rl.training.configs import compose_config
from rsp_rl.training.preflight import check_optimizer

RECIPES = Path(__file__).resolve().parents[3] / "recipes"
NAMES = (
    "dapo_qwen7b", "dapo_rsp_qwen7b", "dapo_rsp_qwen1.5b", "dapo_rsp_llama8b", "grpo_rsp_qwen7b",
)  # fmt: skip

#: Table 12 and the loss of section 4.5, value by value.
TABLE_12 = {
    "actor_rollout_ref.model.path": "Qwen/Qwen2.5-Math-7B",
    "algorithm.adv_estimator": "grpo",
    "algorithm.norm_adv_by_std_in_grpo": True,
    "algorithm.use_kl_in_reward": False,
    "algorithm.filter_groups.enable": False,
    "data.train_batch_size": 1024,
    "data.max_prompt_length": 2028,
    "data.max_response_length": 2048,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 256,
    "actor_rollout_ref.actor.ppo_epochs": 1,
    "actor_rollout_ref.actor.loss_agg_mode": "token-mean",
    "actor_rollout_ref.actor.clip_ratio_low": 0.2,
    "actor_rollout_ref.actor.clip_ratio_high": 0.28,
    "actor_rollout_ref.actor.clip_ratio_c": 10.0,
    "actor_rollout_ref.actor.use_kl_loss": False,
    "actor_rollout_ref.actor.entropy_coeff": 0,
    "actor_rollout_ref.actor.optim.optimizer": "AdamW",
    "actor_rollout_ref.actor.optim.optimizer_impl": "torch.optim",
    "actor_rollout_ref.actor.optim.lr": 5e-7,
    "actor_rollout_ref.actor.optim.lr_scheduler_type": "constant",
    "actor_rollout_ref.actor.optim.lr_warmup_steps": 0,
    "actor_rollout_ref.rollout.n": 8,
    "actor_rollout_ref.rollout.temperature": 1.0,
    "actor_rollout_ref.rollout.top_p": 1.0,
    "actor_rollout_ref.rollout.top_k": 50,
    "trainer.total_training_steps": 100,
    "trainer.save_freq": 10,
    "trainer.test_freq": 10,
    "trainer.n_gpus_per_node": 4,
}

#: What a GPU run of this size needs: packed sequences, dynamic batches, checkpointing, FSDP2.
MACHINE = {
    "trainer.device": "cuda",
    "actor_rollout_ref.model.use_remove_padding": True,
    "actor_rollout_ref.model.enable_gradient_checkpointing": True,
    "actor_rollout_ref.actor.strategy": "fsdp2",
    "actor_rollout_ref.actor.use_dynamic_bsz": True,
    "actor_rollout_ref.rollout.dtype": "bfloat16",
    "actor_rollout_ref.rollout.calculate_log_probs": True,
}


#: Stands for the interpreter: prints its arguments, so that a recipe shows what it would start.
SHOW_ARGUMENTS = "#!/usr/bin/env bash\nprintf '%s\\0' \"$@\"\n"


def _run(name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    known = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return subprocess.run(
        ["bash", str(RECIPES / f"{name}.sh"), *arguments],
        env={**known, "DRY_RUN": "1", **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _dry_run_arguments(name: str, *arguments: str, **variables: str) -> list[str]:
    """What a recipe gives `rsp_rl.training.dry_run`, from the real script."""
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "bin" / "python"
        python.parent.mkdir()
        python.write_text(SHOW_ARGUMENTS)
        python.chmod(0o755)
        done = _run(name, *arguments, VENV=folder, **variables)
    assert done.returncode == 0, done.stderr
    module, entry, *words = done.stdout.split("\0")[:-1]
    assert (module, entry) == ("-m", "rsp_rl.training.dry_run")
    return words


def _compose(name: str, *arguments: str, **variables: str) -> DictConfig:
    words = _dry_run_arguments(name, *arguments, **variables)
    assert words[0] == "--config-name"
    assert words[2] == "--gpu-memory-gb"
    return compose_config(words[1], words[4:])


@cache
def _composed(name: str) -> DictConfig:
    """What a recipe trains with, no variable set; not to be changed."""
    return _compose(name)


def _flat(node: object, path: str = "") -> dict[str, object]:
    if not isinstance(node, dict) or not node:
        return {path: node}
    leaves: dict[str, object] = {}
    for name, child in node.items():
        leaves |= _flat(child, f"{path}.{name}" if path else str(name))
    return leaves


def _leaves(name: str) -> dict[str, object]:
    return _flat(OmegaConf.to_container(_composed(name), resolve=False))


@pytest.mark.parametrize("name", ["dapo_qwen7b", "dapo_rsp_qwen7b"])
@pytest.mark.parametrize(("option", "value"), [*TABLE_12.items(), *MACHINE.items()])
def test_the_papers_recipes_are_table_12(name: str, option: str, value: object) -> None:
    found = OmegaConf.select(_composed(name), option, throw_on_missing=True)
    assert found == value
    assert isinstance(found, bool) == isinstance(value, bool)


def test_the_papers_recipes_differ_in_rsp_alone() -> None:
    """And in their names, so that neither continues the other's run folder."""
    dapo, dapo_rsp = _leaves("dapo_qwen7b"), _leaves("dapo_rsp_qwen7b")
    assert dapo.keys() == dapo_rsp.keys()
    different = {
        name: (dapo[name], dapo_rsp[name]) for name in dapo if dapo[name] != dapo_rsp[name]
    }
    assert different == {
        "rsp.length": (0, 20),
        "trainer.experiment_name": ("dapo_qwen7b", "dapo_rsp_qwen7b"),
        "run_dir": ("runs/dapo_qwen7b", "runs/dapo_rsp_qwen7b"),
    }


def test_rsp_of_the_papers_recipe() -> None:
    options = RspOptions.from_config(_composed("dapo_rsp_qwen7b").rsp)
    assert (options.length, options.position, options.mode) == (20, "suffix", "independent")
    assert options.scale == 1.0
    assert not options.validation


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "dapo_rsp_qwen1.5b",
            {
                "actor_rollout_ref.model.path": "Qwen/Qwen2.5-Math-1.5B",
                "trainer.n_gpus_per_node": 1,
            },
        ),
        (
            "dapo_rsp_llama8b",
            {
                "actor_rollout_ref.model.path": "meta-llama/Llama-3.1-8B-Instruct",
                "actor_rollout_ref.rollout.max_model_len": 4096,
                "data.train_files": "runs/math35_llama/train.parquet",
                "data.val_files": "runs/math35_llama/validation.parquet",
                "data.apply_chat_template_kwargs.date_string": "26 Jul 2024",
            },
        ),
        (
            "grpo_rsp_qwen7b",
            {
                "actor_rollout_ref.actor.loss_agg_mode": "seq-mean-token-mean",
                "actor_rollout_ref.actor.clip_ratio_high": 0.2,
                "actor_rollout_ref.actor.clip_ratio_c": 3.0,
            },
        ),
    ],
)
def test_the_other_recipes_change_only_what_they_say(name: str, expected: dict) -> None:
    base, other = _leaves("dapo_rsp_qwen7b"), _leaves(name)
    base.pop("data.apply_chat_template_kwargs", None)
    other.pop("data.apply_chat_template_kwargs", None)
    changed = {key: value for key, value in other.items() if base.get(key) != value}
    assert changed.pop("run_dir") == f"runs/{name}"
    assert changed.pop("trainer.experiment_name") == name
    assert changed == expected


def test_llamas_prompts_pin_the_date_of_the_evaluation_template() -> None:
    template = get_template("llama-chat")
    assert isinstance(template, ChatTemplate)
    kwargs = _composed("dapo_rsp_llama8b").data.apply_chat_template_kwargs
    assert dict(kwargs) == dict(template.options)


@pytest.mark.parametrize("name", NAMES)
def test_verl_accepts_the_recipe(name: str) -> None:
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    config = OmegaConf.create(OmegaConf.to_container(_composed(name)))
    config.actor_rollout_ref.rollout.prompt_length = 2048
    assert not need_reference_policy(config)
    assert not need_critic(config)
    validate_config(config, use_reference_policy=False, use_critic=False)
    rollout = omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    assert rollout.logprobs_mode == "raw_logprobs"


def test_variables_and_arguments_reach_the_config() -> None:
    variables = {
        "NNODES": "2",
        "GPUS_PER_NODE": "8",
        "ROLLOUT_TP": "2",
        "ULYSSES": "2",
        "OFFLOAD": "true",
        "STEPS": "30",
        "KEEP_CHECKPOINTS": "2",
        "RUN_DIR": "/tmp/a run",
    }
    arguments = ("rsp.length=8", "trainer.total_training_steps=7")
    config = _compose("dapo_rsp_qwen7b", *arguments, **variables)
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (config.trainer.nnodes, config.trainer.n_gpus_per_node) == (2, 8)
    assert (rollout.tensor_model_parallel_size, actor.ulysses_sequence_parallel_size) == (2, 2)
    assert actor.fsdp_config.param_offload
    assert actor.fsdp_config.optimizer_offload
    assert config.trainer.max_actor_ckpt_to_keep == 2
    assert config.run_dir == "/tmp/a run"
    assert (config.rsp.length, config.trainer.total_training_steps) == (8, 7)  # arguments win


@pytest.mark.parametrize("name", NAMES)
def test_recipes_fit_the_machine_that_they_ask_for(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dry_run.main(_dry_run_arguments(name)) == 0
    printed = capsys.readouterr().out
    assert printed.count(" of 80: fits") == 2
    assert "DOES NOT FIT" not in printed


def test_low_memory_variant_fits_two_small_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    variables = {"LOW_MEMORY": "1", "GPUS_PER_NODE": "2", "GPU_MEMORY_GB": "40"}
    actor = _compose("dapo_rsp_qwen7b", **variables).actor_rollout_ref.actor
    assert actor.fsdp_config.offload_policy
    assert actor.optim.optimizer_impl == "rsp_rl.training.verl_plugin.cpu_adam"
    assert actor.optim.optimizer == "ShardedCPUAdam"
    assert dry_run.main(_dry_run_arguments("dapo_rsp_qwen7b", **variables)) == 0
    assert capsys.readouterr().out.count(" of 40: fits") == 2


def test_cpu_adam_without_offload_is_refused() -> None:
    config = compose_config(
        "dapo_rsp", ["+memory=low", "actor_rollout_ref.actor.fsdp_config.offload_policy=false"]
    )
    with pytest.raises(ConfigError, match=r"offload_policy=False; choose it with \+memory=low"):
        check_optimizer(config)
    check_optimizer(compose_config("dapo_rsp", []))


def test_a_dry_run_from_script_to_verdict() -> None:
    """The whole way once, on the real interpreter; the command that it prints is the run's."""
    done = _run("dapo_rsp_qwen7b")
    assert done.returncode == 0, done.stderr
    words = shlex.split(done.stdout.splitlines()[0])
    assert words[:5] == ["python", "-m", "rsp_rl.training.train", "--config-name", "dapo_rsp"]
    assert compose_config(words[4], words[5:]) == _composed("dapo_rsp_qwen7b")
    assert "rollout, total: 67.3 of 80: fits" in done.stdout


def test_a_bad_setting_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert dry_run.main(_dry_run_arguments("dapo_rsp_qwen7b", GPUS_PER_NODE="3")) == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: a mini-batch of 256 prompts x rollout.n=8 rollouts does not divide over 3 "
        "data-parallel ranks"
    ]


@pytest.mark.parametrize(
    ("package", "extra"),
    [("torch", "vllm"), ("vllm", "vllm"), ("transformers", "vllm"), ("flash-attn", "fsdp")],
)
def test_the_dockerfile_pins_what_verl_pins(package: str, extra: str) -> None:
    """By verl's own metadata; `fsdp` names flash-attn through another of its extras."""
    pins = {}
    for line in metadata.requires("verl") or ():
        found = Requirement(line)
        extras = (extra, "flash-attn-cu130torch211")
        if any(found.marker and found.marker.evaluate({"extra": name}) for name in extras):
            pins[found.name] = str(found.specifier)
    text = (RECIPES.parent / "scripts" / "docker" / "Dockerfile").read_text()
    argument = f"{package.upper().replace('-', '_')}_VERSION"
    [version] = re.findall(rf"^ARG {argument}=(.+)$", text, flags=re.MULTILINE)
    assert pins[package] == f"=={version}"


def test_the_dockerfile_has_the_installed_verl() -> None:
    text = (RECIPES.parent / "scripts" / "docker" / "Dockerfile").read_text()
    assert f"ARG VERL_VERSION={metadata.version('verl')}\n" in text
