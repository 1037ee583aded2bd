"""The composed Hydra configs, and the run that `rsp_rl.training.train` prepares from them."""

from __future__ import annotations

import copy
import json
import os
import shutil
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from safetensors.torch import save_file
from transformers import Qwen2Config

from rsp_rl.basics.errors import ConfigError, EmbeddingTableError, PlacementError, RunFolderError
from rsp_rl.dials.options import GuardOptions, RspOptions
from rsp_rl.draws.embedding_table import FOLDER_VARIABLE, open_embedding_table
from rsp_rl.injection import model_runner
from rsp_rl.placement.prompt import extra_tokens
from rsp_rl.runs.checkpoints import save_law
from rsp_rl.runs.data_order import save_order
from rsp_rl.runs.saving import staged
from rsp_rl.training.configs import compose_config
from rsp_rl.training.preflight import check_guard_support
from rsp_rl.training.preparation import prepare
from tests.tolerances import rounding
from tests.unit import templates

NAMES = ("dapo", "dapo_rsp", "tiny_cpu")


@cache
def _composed(name: str) -> DictConfig:
    return compose_config(name)


def _config(name: str, **changes: object) -> DictConfig:
    config = copy.deepcopy(_composed(name))
    for key, value in changes.items():
        OmegaConf.update(config, key, value, force_add=True)
    return config


# What the configs say.


def _flat(config: DictConfig) -> dict[str, object]:
    leaves: dict[str, object] = {}

    def walk(node: object, path: str) -> None:
        if isinstance(node, dict) and node:
            for name, child in node.items():
                walk(child, f"{path}.{name}" if path else str(name))
        else:
            leaves[path] = node

    walk(OmegaConf.to_container(config, resolve=False), "")
    return leaves


def test_dapo_and_dapo_rsp_differ_in_the_length_of_rsp_alone() -> None:
    """And in their names, so that neither continues the other's run folder."""
    dapo, dapo_rsp = _flat(_composed("dapo")), _flat(_composed("dapo_rsp"))
    assert dapo.keys() == dapo_rsp.keys()
    different = {
        name: (dapo[name], dapo_rsp[name]) for name in dapo if dapo[name] != dapo_rsp[name]
    }
    assert different.pop("trainer.experiment_name") == ("dapo", "dapo_rsp")
    assert different == {"rsp.length": (0, 20)}


# Table 12 and section 4.5, option by option.
PAPER = {
    "algorithm.adv_estimator": "grpo",
    "algorithm.norm_adv_by_std_in_grpo": True,
    "algorithm.use_kl_in_reward": False,
    "algorithm.filter_groups.enable": False,
    "data.train_batch_size": 1024,
    "data.max_prompt_length": 2028,
    "data.max_response_length": 2048,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 256,
    "actor_rollout_ref.actor.ppo_epochs": 1,
    "actor_rollout_ref.actor.clip_ratio_low": 0.2,
    "actor_rollout_ref.actor.clip_ratio_high": 0.28,
    "actor_rollout_ref.actor.clip_ratio_c": 10.0,
    "actor_rollout_ref.actor.use_kl_loss": False,
    "actor_rollout_ref.actor.entropy_coeff": 0,
    "actor_rollout_ref.actor.loss_agg_mode": "token-mean",
    "actor_rollout_ref.actor.policy_loss.loss_mode": "vanilla",
    "actor_rollout_ref.actor.optim.optimizer": "AdamW",
    "actor_rollout_ref.actor.optim.lr": 5e-7,
    "actor_rollout_ref.actor.optim.lr_scheduler_type": "constant",
    "actor_rollout_ref.actor.optim.lr_warmup_steps": 0,
    "actor_rollout_ref.rollout.n": 8,
    "actor_rollout_ref.rollout.temperature": 1.0,
    "actor_rollout_ref.rollout.top_p": 1.0,
    "actor_rollout_ref.rollout.top_k": 50,
    "actor_rollout_ref.rollout.response_length": 2048,
    "actor_rollout_ref.rollout.val_kwargs.n": 1,
    "trainer.save_freq": 10,
    "trainer.test_freq": 10,
    "trainer.total_training_steps": 100,
}


@pytest.mark.parametrize("name", ["dapo", "dapo_rsp"])
@pytest.mark.parametrize(("option", "value"), PAPER.items())
def test_objective_is_the_papers(name: str, option: str, value: object) -> None:
    found = OmegaConf.select(_composed(name), option, throw_on_missing=True)
    assert found == value
    assert isinstance(found, bool) == isinstance(value, bool)


def test_rsp_options_are_the_papers() -> None:
    on = RspOptions.from_config(_composed("dapo_rsp").rsp)
    assert on == RspOptions()  # the config file and the defaults in code agree
    assert (on.length, on.position, on.scale, on.mode) == (20, "suffix", 1.0, "independent")
    assert not on.validation
    assert not RspOptions.from_config(_composed("dapo").rsp).enabled


def test_every_option_is_in_the_config_file() -> None:
    """So that `rsp.x=...` on the command line needs no `+`."""
    config = _composed("dapo_rsp").rsp
    assert set(config) == set(RspOptions.__dataclass_fields__)
    assert set(config.guard) == set(GuardOptions.__dataclass_fields__)


def test_tiny_config_keeps_the_objective() -> None:
    """Sizes and rate differ; the loss does not."""
    sizes = ("length", "size", "batch", "steps", "optim.lr", "top_k")
    tiny = _composed("tiny_cpu")
    for option, value in PAPER.items():
        if not option.endswith(sizes):
            assert OmegaConf.select(tiny, option) == value, option
    assert tiny.rsp.guard.max_mean_gap == pytest.approx(1e-4)
    assert tiny.actor_rollout_ref.rollout.dtype == "float32"
    assert tiny.actor_rollout_ref.rollout.top_k == -1
    assert isinstance(tiny.actor_rollout_ref.actor.optim.lr, float)


@pytest.mark.parametrize("name", NAMES)
def test_configs_resolve_and_run_our_parts(name: str) -> None:
    config = _config(name, run_dir="/runs/x")
    resolved = OmegaConf.to_container(config, resolve=True)
    assert resolved["trainer"]["default_local_dir"] == "/runs/x/checkpoints"
    assert resolved["trainer"]["rollout_data_dir"] == "/runs/x/samples/train"
    model, rollout = config.actor_rollout_ref.model, config.actor_rollout_ref.rollout
    assert model.external_lib == "rsp_rl.training.verl_plugin.components"
    assert rollout.agent.agent_loop_manager_class.startswith("rsp_rl.")
    assert rollout.calculate_log_probs  # for the guard
    assert config.trainer.v1.trainer_mode == "rsp_sync"


def test_correction_turns_on_log_probs_of_what_was_sampled() -> None:
    """On GPUs too, whose config asks for raw ones."""
    config = compose_config("dapo_rsp", ["+machine=gpu", "+correction=tis"])
    assert config.algorithm.rollout_correction.rollout_is == "token"
    assert config.algorithm.rollout_correction.rollout_is_threshold == 2.0
    assert config.actor_rollout_ref.rollout.logprobs_mode == "processed_logprobs"
    assert config.actor_rollout_ref.rollout.top_k == 50
    check_guard_support(config)
    config.actor_rollout_ref.rollout.logprobs_mode = "raw_logprobs"
    with pytest.raises(ConfigError, match="logprobs_mode=processed_logprobs"):
        check_guard_support(config)
    config.actor_rollout_ref.rollout.top_k = -1
    check_guard_support(config)


def test_unknown_override_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"does not compose: .* 'rsp\.foo'"):
        compose_config("dapo_rsp", ["rsp.foo=1"])
    forced = compose_config("dapo_rsp", ["+rsp.foo=1"])
    with pytest.raises(ConfigError, match=r"unknown option rsp\.foo"):
        RspOptions.from_config(forced.rsp)


def test_overrides_reach_the_options() -> None:
    overrides = ["rsp.length=8", "rsp.position=infix", "rsp.guard.max_mean_gap=1e-4", "rsp.seed=7"]
    config = compose_config("tiny_cpu", [*overrides, "rsp.mode=shared", "rsp.scale=0.5"])
    options = RspOptions.from_config(config.rsp)
    assert (options.length, options.position, options.seed) == (8, "infix", 7)
    assert (options.mode, options.scale, options.guard.max_mean_gap) == ("shared", 0.5, 1e-4)


# verl's own validation.


@pytest.mark.parametrize("name", NAMES)
def test_verl_accepts_the_config(name: str) -> None:
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    config = _config(name)
    with open_dict(config):
        config.actor_rollout_ref.rollout.prompt_length = 2048
        config.actor_rollout_ref.rollout.engine_kwargs.vllm.enable_prompt_embeds = True
    assert not need_reference_policy(config)  # no KL anywhere
    assert not need_critic(config)
    validate_config(config, use_reference_policy=False, use_critic=False)
    rollout = omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    assert (rollout.n, rollout.prompt_length) == (8, 2048)


# `prepare`: everything before Ray starts.


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder and a dataset, as far as preparation looks at them."""
    folder = tmp_path_factory.mktemp("inputs")
    tokenizer = templates.chatml()
    model = Qwen2Config(hidden_size=16, num_attention_heads=2, max_position_embeddings=512)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    table = torch.randn(len(tokenizer), 16, generator=torch.Generator().manual_seed(0))
    save_file({"model.embed_tokens.weight": table}, folder / "model" / "model.safetensors")
    row = {
        "data_source": "arithmetic",
        "prompt": [{"role": "user", "content": "2+2?"}],
        "reward_model": {"style": "rule", "ground_truth": "4"},
    }
    for name in ("train", "val"):
        pq.write_table(pa.Table.from_pylist([row] * 16), folder / f"{name}.parquet")
    return folder


@pytest.fixture
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put back what `prepare` sets for the processes that it would start."""
    for name in (
        "VERL_FILE_LOGGER_PATH",
        "TENSORBOARD_DIR",
        "VERL_PLATFORM",
        "VLLM_ENABLE_V1_MULTIPROCESSING",
        FOLDER_VARIABLE,
    ):
        monkeypatch.setenv(name, os.environ.get(name, ""))


def _run_config(inputs: Path, run: Path, **changes: object) -> DictConfig:
    paths = {
        "run_dir": str(run),
        "actor_rollout_ref.model.path": str(inputs / "model"),
        "data.train_files": str(inputs / "train.parquet"),
        "data.val_files": [str(inputs / "val.parquet")],
    }
    return _config("tiny_cpu", **{**paths, **changes})


def _table(inputs: Path) -> torch.Tensor:
    from safetensors.torch import load_file

    return load_file(inputs / "model" / "model.safetensors")["model.embed_tokens.weight"].double()


#: A template whose refusal no lone question shows.
REFUSES_SUMS = (
    "{% if '+' in messages[-1].content %}{{ raise_exception('no sums') }}{% endif %}"
    + templates.CHATML
)

SCHEDULE = {"shape": "linear", "end": 12, "steps": 5}


@pytest.mark.usefixtures("_environment")
def test_prepare_asks_for_vllms_model_runner_where_there_are_gpus(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_runner, "v2_takes_prompt_embeds", lambda: False)  # as up to 0.28.0
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
    with pytest.raises(ConfigError, match=r"V2 model runner .* does not take"):
        prepare(_run_config(inputs, tmp_path / "run", **{"trainer.device": "cuda"}))
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("_environment")
def test_prepare_fills_in_law_and_lengths(inputs: Path, tmp_path: Path) -> None:
    config = _run_config(inputs, tmp_path / "run")
    run = prepare(config)
    table = _table(inputs)
    assert config.rsp.mean == pytest.approx(
        table.mean().item(), abs=rounding(1000, dtype=torch.float64)
    )
    assert config.rsp.std == pytest.approx(
        table.std(correction=0).item(), abs=rounding(1000, dtype=torch.float64)
    )
    rollout = config.actor_rollout_ref.rollout
    assert rollout.prompt_length == config.data.max_prompt_length + 8
    assert rollout.engine_kwargs.vllm.enable_prompt_embeds is True
    assert run.root == tmp_path / "run"
    settings = json.loads(run.settings.read_text())
    assert RspOptions.from_config(settings) == RspOptions.from_config(config.rsp)
    environment = config.ray_kwargs.ray_init.runtime_env.env_vars
    assert str(run.metrics) == environment.VERL_FILE_LOGGER_PATH
    assert environment.VERL_PLATFORM == "cpu"


@pytest.mark.usefixtures("_environment")
@pytest.mark.parametrize("takes_date", [True, False])
def test_prepare_keeps_the_day_out_of_the_prompts_where_it_can(
    inputs: Path, tmp_path: Path, takes_date: bool, caplog: pytest.LogCaptureFixture
) -> None:
    today = "strftime_now('%d %b %Y')"
    if takes_date:
        today = f"date_string if date_string is defined else {today}"
    template = "{{ " + today + " }}" + templates.CHATML
    changes = {
        "actor_rollout_ref.model.custom_chat_template": template,
        "data.max_prompt_length": 80,
    }
    config = _run_config(inputs, tmp_path / "run", **changes)
    prepare(config)
    given = OmegaConf.to_container(config.data.apply_chat_template_kwargs)
    assert given == ({"date_string": "26 Jul 2024"} if takes_date else {})
    assert ("writes today's date" in caplog.text) != takes_date


@pytest.mark.usefixtures("_environment")
@pytest.mark.parametrize(("ranks", "backend"), [(1, "uni"), (2, None)])
def test_on_a_cpu_vllms_model_runs_in_its_engines_process(
    inputs: Path, tmp_path: Path, ranks: int, backend: str | None
) -> None:
    """Unless it is split over several; to start another process takes as long as several steps."""
    parallel = {
        "actor_rollout_ref.rollout.tensor_model_parallel_size": ranks,
        "trainer.n_gpus_per_node": ranks,
        "ray_kwargs.ray_init.num_cpus": 16,
    }
    config = _run_config(inputs, tmp_path, **parallel)
    prepare(config)
    vllm = config.actor_rollout_ref.rollout.engine_kwargs.vllm
    assert vllm.get("distributed_executor_backend") == backend
    environment = config.ray_kwargs.ray_init.runtime_env.env_vars
    assert environment.get("VLLM_ENABLE_V1_MULTIPROCESSING") == ("0" if backend else None)


@pytest.mark.usefixtures("_environment")
def test_prepare_gives_verl_what_it_can_read(inputs: Path, tmp_path: Path) -> None:
    """Once all rows have passed; files that it reads stay where they are."""
    from rsp_rl.training.verl_plugin.nodes import check_data

    rows = pq.read_table(inputs / "train.parquet").to_pylist()
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = tmp_path / "run"
    config = _run_config(inputs, run, **{"data.train_files": str(file)})
    config.data.train_batch_size = 32
    with pytest.raises(ConfigError, match=r"16 rows are left .*train_batch_size=32"):
        prepare(config)
    assert not run.exists()
    config.data.train_batch_size = 16
    prepare(config)
    assert config.data.train_files == str(run / "data" / "train.parquet")
    assert pq.read_table(config.data.train_files).to_pylist() == rows
    assert config.data.val_files == [str(inputs / "val.parquet")]
    check_data(config, "here")  # the trainer's node finds what was compared


@pytest.mark.usefixtures("_environment")
def test_prepare_makes_room_for_an_infix_description(inputs: Path, tmp_path: Path) -> None:
    config = _run_config(inputs, tmp_path, **{"rsp.position": "infix"})
    prepare(config)
    extra = extra_tokens(templates.chatml(), 8, "infix")
    assert extra > 60
    assert config.actor_rollout_ref.rollout.prompt_length == config.data.max_prompt_length + extra


@pytest.mark.usefixtures("_environment")
def test_prepare_without_rsp_changes_nothing_of_verls(inputs: Path, tmp_path: Path) -> None:
    config = _run_config(inputs, tmp_path, **{"rsp.length": 0})
    prepare(config)
    rollout = config.actor_rollout_ref.rollout
    assert rollout.prompt_length == config.data.max_prompt_length
    assert rollout.engine_kwargs.vllm.enable_prompt_embeds is None
    assert config.rsp.mean is None


@pytest.mark.usefixtures("_environment")
def test_a_run_leaves_the_size_of_a_running_cluster_alone(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray refuses sizes for a cluster that is there already, as in every Ray job."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    alone = _run_config(inputs, tmp_path)
    prepare(alone)
    assert alone.ray_kwargs.ray_init.num_cpus == 8
    by_config = _run_config(inputs, tmp_path, **{"ray_kwargs.ray_init.address": "auto"})
    prepare(by_config)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    by_environment = _run_config(inputs, tmp_path)
    prepare(by_environment)
    for config in (by_config, by_environment):
        left = set(config.ray_kwargs.ray_init)
        assert left.isdisjoint({"num_cpus", "num_gpus", "object_store_memory"})
        assert "runtime_env" in left


@pytest.mark.usefixtures("_environment")
def test_a_damaged_checkpoint_is_refused(inputs: Path, tmp_path: Path) -> None:
    config = _run_config(inputs, tmp_path)
    checkpoints = Path(config.trainer.default_local_dir)
    with staged(checkpoints, 3) as staging:
        shards = staging / "global_step_3" / "actor"
        shards.mkdir(parents=True)
        (shards / "model_world_size_1_rank_0.pt").write_bytes(b"weights")
    shard = checkpoints / "global_step_3" / "actor" / "model_world_size_1_rank_0.pt"
    shard.write_bytes(b"weig")
    with pytest.raises(RunFolderError, match=f"{shard.name} has 4 bytes of 7"):
        prepare(config)


@pytest.mark.usefixtures("_environment")
def test_a_resumed_run_keeps_its_law(inputs: Path, tmp_path: Path) -> None:
    """`model.path` may be a trained checkpoint by then."""
    first = _run_config(inputs, tmp_path)
    prepare(first)
    checkpoint = tmp_path / "checkpoints" / "global_step_1"
    checkpoint.mkdir(parents=True)
    save_law(checkpoint, RspOptions.from_config(first.rsp))
    (checkpoint.parent / "latest_checkpointed_iteration.txt").write_text("1")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "data": {}}\n')
    other = tmp_path / "other"
    other.mkdir()
    for file in (inputs / "model").iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    save_file({"model.embed_tokens.weight": torch.ones(9, 16)}, other / "model.safetensors")
    second = _run_config(inputs, tmp_path, **{"actor_rollout_ref.model.path": str(other)})
    prepare(second)
    assert (second.rsp.mean, second.rsp.std) == (first.rsp.mean, first.rsp.std)
    assert (tmp_path / "metrics" / "start_000.jsonl").is_file()
    with pytest.raises(ConfigError, match=r"rsp\.mean=0\.5 but .*global_step_1 was trained with"):
        prepare(_run_config(inputs, tmp_path, **{"rsp.mean": 0.5, "rsp.std": 0.25}))
    with pytest.raises(ConfigError, match=r"rsp\.length=4 but .*resume with rsp\.length=8"):
        prepare(_run_config(inputs, tmp_path, **{"rsp.length": 4}))


@pytest.mark.usefixtures("_environment")
def test_a_resumed_run_keeps_the_order_of_its_data(
    inputs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = _run_config(inputs, tmp_path)
    prepare(first)
    checkpoint = tmp_path / "checkpoints" / "global_step_30"
    checkpoint.mkdir(parents=True)
    (checkpoint.parent / "latest_checkpointed_iteration.txt").write_text("30")
    order = OmegaConf.to_container(first.trainer.v1.rsp_sync.data_order)
    save_order(checkpoint, order)
    same = _run_config(inputs, tmp_path)
    prepare(same)
    assert same.trainer.v1.rsp_sync.data_order == order
    assert caplog.messages[-1].endswith(
        "has all of trainer.total_training_steps=30: nothing is left to train"
    )
    other = {"data.seed": 7, "data.train_batch_size": 8}
    with pytest.raises(ConfigError, match=r"train_batch_size=8, there 16; data\.seed=7, there 42"):
        prepare(_run_config(inputs, tmp_path, **other))
    other["trainer.v1.rsp_sync.forget_data_position"] = True
    prepare(_run_config(inputs, tmp_path, **other))
    assert any("begins the data anew after global_step_30" in said for said in caplog.messages)


@pytest.mark.usefixtures("_environment")
def test_prepare_makes_paths_absolute_and_settings_fit(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(inputs)
    relative = {
        "actor_rollout_ref.model.path": "model",
        "data.train_files": "train.parquet",
        "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes": 0,
    }
    config = _run_config(inputs, tmp_path, **relative)
    prepare(config)
    assert config.actor_rollout_ref.model.path == str(inputs / "model")
    assert config.data.train_files == str(inputs / "train.parquet")
    rollout = config.actor_rollout_ref.rollout
    assert rollout.checkpoint_engine.update_weights_bucket_megabytes == 1
    assert rollout.max_model_len == rollout.prompt_length + rollout.response_length


@pytest.mark.usefixtures("_environment")
def test_rows_of_the_table_are_the_pretrained_ones_for_the_whole_run(
    inputs: Path, tmp_path: Path
) -> None:
    """A checkpoint in `model.path` has trained rows: they must not become soft prompts."""
    pretrained = tmp_path / "pretrained"
    shutil.copytree(inputs / "model", pretrained)
    vocab = {"rsp.law": "vocab", "actor_rollout_ref.model.path": str(pretrained)}
    first = _run_config(inputs, tmp_path / "run", **vocab)
    prepare(first)
    assert first.rsp.table == str(pretrained)
    assert first.rsp.table_digest == open_embedding_table(pretrained).digest()
    assert first.ray_kwargs.ray_init.runtime_env.env_vars[FOLDER_VARIABLE] == str(pretrained)
    checkpoint = tmp_path / "run" / "checkpoints" / "global_step_1"
    checkpoint.mkdir(parents=True)
    save_law(checkpoint, RspOptions.from_config(first.rsp))
    (checkpoint.parent / "latest_checkpointed_iteration.txt").write_text("1")

    trained = tmp_path / "trained"
    shutil.copytree(pretrained, trained)
    save_file({"model.embed_tokens.weight": torch.ones(9, 16)}, trained / "model.safetensors")
    vocab["actor_rollout_ref.model.path"] = str(trained)
    second = _run_config(inputs, tmp_path / "run", **vocab)
    prepare(second)
    assert second.rsp == first.rsp

    shutil.rmtree(pretrained)
    with pytest.raises(EmbeddingTableError, match=r"is gone: .*rsp\.table=FOLDER"):
        prepare(_run_config(inputs, tmp_path / "run", **vocab))
    with pytest.raises(EmbeddingTableError, match="is not the pretrained one"):
        prepare(_run_config(inputs, tmp_path / "run", **vocab, **{"rsp.table": str(trained)}))
    vocab["rsp.table"] = str(inputs / "model")  # a copy of it
    prepare(_run_config(inputs, tmp_path / "run", **vocab))


@pytest.mark.usefixtures("_environment")
def test_room_is_made_for_the_longest_soft_prompt_of_a_schedule(
    inputs: Path, tmp_path: Path
) -> None:
    schedule = {f"rsp.length_schedule.{k}": v for k, v in SCHEDULE.items()}
    config = _run_config(inputs, tmp_path, **{"rsp.length": 0, **schedule})
    prepare(config)
    rollout = config.actor_rollout_ref.rollout
    assert rollout.prompt_length == config.data.max_prompt_length + 12
    assert rollout.engine_kwargs.vllm.enable_prompt_embeds is True
    assert config.rsp.mean is not None


@pytest.mark.usefixtures("_environment")
def test_a_run_that_starts_anew_has_its_own_models_law(inputs: Path, tmp_path: Path) -> None:
    """Whatever the folder's earlier run had."""
    prepare(_run_config(inputs, tmp_path, **{"rsp.mean": 0.5, "rsp.std": 0.25}))
    anew = _run_config(inputs, tmp_path)
    prepare(anew)
    assert anew.rsp.mean == pytest.approx(
        _table(inputs).mean().item(), abs=rounding(1000, dtype=torch.float64)
    )


@pytest.mark.usefixtures("_environment")
@pytest.mark.parametrize(
    ("change", "kind", "cause"),
    [
        ({"rsp.position": "middle"}, ConfigError, r"rsp\.position='middle'"),
        ({"rsp.length": -1}, ConfigError, r"rsp\.length=-1"),
        ({"rsp.foo": 1}, ConfigError, r"unknown option rsp\.foo"),
        ({"rsp.mixing": "half", "actor_rollout_ref.rollout.n": 7}, ConfigError, "have no half"),
        ({"rsp.law": "vocab", "rsp.table": "/nowhere"}, FileNotFoundError, "does not exist"),
        ({"actor_rollout_ref.model.path": "/nowhere"}, ConfigError, "no such folder"),
        ({"data.train_files": "/nowhere.parquet"}, ConfigError, "does not exist"),
        ({"data.max_prompt_length": 480}, ConfigError, "max_position_embeddings=512"),
        ({"data.train_batch_size": 33}, ConfigError, "train_batch_size=33"),
        ({"data.prompt_key": "question"}, ConfigError, "row 0: no 'question'"),
        (
            {"algorithm.filter_groups.enable": True, "actor_rollout_ref.rollout.n": 1},
            ConfigError,
            "a group of one is never",
        ),
        (
            {"reward.reward_kwargs.overlong_buffer_cfg.enable": True},
            ConfigError,
            r"len=512 must be above 0 and not above data\.max_response_length=40",
        ),
        ({"actor_rollout_ref.rollout.val_kwargs.n": 4}, ConfigError, "n=4 greedy answers"),
        ({"trainer.resume_mode": "always"}, ConfigError, "resume_mode=always"),
        ({"trainer.logger": ["console", "wandbb"]}, ConfigError, "'wandbb', which is no tracker"),
        ({"actor_rollout_ref.rollout.max_num_batched_tokens": 200}, ConfigError, "max_num_seqs"),
        (
            {"actor_rollout_ref.model.custom_chat_template": templates.BARE},
            PlacementError,
            "no end-of-turn token",
        ),
        (
            {"actor_rollout_ref.model.custom_chat_template": REFUSES_SUMS},
            ConfigError,
            r"train\.parquet: 16 of 16 rows are lost, 16 that the chat template refuses .*no sums",
        ),
        ({"data.max_lost_share": 3}, ConfigError, "max_lost_share=3 must be"),
    ],
)
def test_prepare_refuses_and_leaves_no_folder(
    inputs: Path, tmp_path: Path, change: dict, kind: type, cause: str
) -> None:
    run = tmp_path / "run"
    with pytest.raises(kind, match=cause):
        prepare(_run_config(inputs, run, **change))
    assert not run.exists()
