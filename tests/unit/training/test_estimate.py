"""The arithmetic of a run, worked by hand, and the parameter counts of transformers itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from transformers import AutoConfig, AutoModelForCausalLM

from rsp_rl.basics.errors import ConfigError
from rsp_rl.dials.options import RspOptions
from rsp_rl.dials.schedule import Schedule
from rsp_rl.injection import model_runner
from rsp_rl.models.shape import KNOWN_SHAPES, ModelShape, model_shape
from rsp_rl.training import dry_run
from rsp_rl.training.configs import compose_config
from rsp_rl.training.estimate import (
    GIB,
    OVERHEAD,
    checkpoint_bytes,
    gpu_memory,
    soft_prompt_costs,
    step_arithmetic,
)

QWEN_7B = "Qwen/Qwen2.5-Math-7B"

# V = 100, d = 8, f = 32, 2 layers, 4 query heads and 2 key/value heads of 2: kv = 4.
SMALL = {
    "model_type": "qwen2",
    "vocab_size": 100,
    "hidden_size": 8,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}


@pytest.fixture(autouse=True)
def _old_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that holds no prompts, whichever is installed; of others `test_model_runner`."""
    monkeypatch.setattr(model_runner, "v2_takes_prompt_embeds", lambda: False)


def _config(*overrides: str) -> DictConfig:
    return compose_config("dapo_rsp", ["+machine=gpu", *overrides])


def test_parameters_by_hand() -> None:
    shape = ModelShape.from_config(SMALL, "small")
    # q and o 2 x 64, k and v 2 x 32, biases 8 + 2 x 4, feed-forward 3 x 256, norms 16.
    assert shape.layer_parameters == 128 + 64 + 16 + 768 + 16 == 992
    assert shape.root_parameters == 2 * 800 + 8
    assert shape.parameters == 2 * 992 + 1608 == 3592
    assert shape.kv_bytes_per_token == 2 * 2 * 4 * 2  # k and v, 2 layers, 4 wide, 2 bytes


@pytest.mark.parametrize("name", KNOWN_SHAPES)
def test_parameters_are_those_of_transformers(name: str) -> None:
    fields = dict(KNOWN_SHAPES[name])
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shape = model_shape(name)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    layer = model.model.layers[0]
    assert shape.layer_parameters == sum(parameter.numel() for parameter in layer.parameters())


def test_shape_comes_from_a_folders_own_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    assert model_shape(str(tmp_path)).parameters == 3592


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("{", "is no readable model config"),
        ("3", "is no readable model config"),
        (json.dumps({**SMALL, "model_type": "mamba"}), "model type 'mamba' cannot be estimated"),
        (json.dumps({"model_type": "llama"}), "has no 'num_attention_heads'"),
    ],
)
def test_bad_model_config_is_one_clear_error(tmp_path: Path, content: str, cause: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=cause):
        model_shape(str(tmp_path))


def test_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json is no readable model config"):
        model_shape(str(tmp_path))


def test_the_papers_step() -> None:
    """Table 12: 1,024 prompts x 8 rollouts, mini-batches of 256 prompts."""
    config = _config(
        "actor_rollout_ref.rollout.prompt_length=2048",
        "trainer.n_gpus_per_node=4",
        "actor_rollout_ref.actor.ulysses_sequence_parallel_size=2",
        "actor_rollout_ref.rollout.tensor_model_parallel_size=2",
    )
    step = step_arithmetic(config)
    assert (step.prompts, step.rollouts, step.mini_batch, step.updates) == (1024, 8192, 2048, 4)
    assert (step.data_parallel, step.rollout_engines, step.rollouts_per_rank) == (2, 2, 1024)
    assert step.max_sequence == 4096
    assert step.max_tokens == 8192 * 2048
    assert step.steps == 100


def test_memory_by_hand() -> None:
    """P = 3,592 on two ranks, 10 tokens a micro-batch."""
    config = _config(
        "trainer.n_gpus_per_node=2",
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=10",
        "actor_rollout_ref.rollout.gpu_memory_utilization=0.5",
    )
    memory = gpu_memory(config, ModelShape.from_config(SMALL, "small"), gpu_bytes=1_000_000)
    assert (memory.parameters, memory.gradients, memory.optimizer) == (7184, 7184, 14368)
    # The largest moment is the logits': two layers, output projection and its gradient in bf16.
    assert memory.gathered == 2 * (2 * 992 + 800 + 800)
    # Two borders of 8 numbers, 2 bytes each.
    assert memory.activations == 10 * 2 * 16
    assert memory.logits == 10 * 100 * 8
    assert memory.vllm_weights == 7184
    assert memory.kv_cache == 500_000 - 7184
    assert memory.resident_at_rollout == 7184 + 14368
    assert (memory.held_prompts, memory.host) == (0, 0)
    shards = 7184 + 7184 + 14368
    assert memory.update == shards + 7168 + 320 + 8000 + OVERHEAD
    assert memory.rollout == 500_000 + 7184 + 14368 + OVERHEAD


def _update(*overrides: str, **changes: object) -> tuple[int, int, int]:
    """Gathered, activations and logits of `SMALL` with changes, 10 tokens a micro-batch."""
    tokens = "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=10"
    shape = ModelShape.from_config({**SMALL, **changes}, "small")
    memory = gpu_memory(_config(tokens, *overrides), shape, gpu_bytes=1_000_000)
    return memory.gathered, memory.activations, memory.logits


def test_with_few_words_a_layers_backward_is_the_largest_moment() -> None:
    # One layer of 8 x 8 + 2 x 4 + 4 x 32 = 200 numbers at work.
    at_work = 10 * (2 * 16 + 400)
    assert _update(vocab_size=1) == (2 * 2 * 992 + 6 * 992, at_work, 0)
    # Tied, the table is in the root: gathered to the end, and its gradient waits.
    tied = _update(vocab_size=1, tie_word_embeddings=True)
    assert tied == (2 * 2 * 992 + 6 * 992 + 2 * 2 * (8 + 8), at_work, 0)


def test_with_few_tokens_the_heads_reduction_is_the_largest_moment() -> None:
    one = "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=1"
    assert _update(one, vocab_size=1000) == (2 * 2 * 992 + 6 * 8000, 2 * 16, 0)


def test_fsdp1_has_embedding_and_head_in_its_root() -> None:
    """Both stay gathered, and their gradient waits, while layers are at work."""
    gathered, *_ = _update("actor_rollout_ref.actor.strategy=fsdp")
    assert gathered == 2 * 2 * 992 + 6 * 992 + 2 * 2 * 1608


def test_weights_that_stay_gathered() -> None:
    gathered, *_ = _update("actor_rollout_ref.actor.fsdp_config.reshard_after_forward=false")
    assert gathered == 2 * 3592 + 6 * 992


def test_without_gradient_checkpointing_every_layer_is_kept() -> None:
    _, activations, _ = _update("actor_rollout_ref.model.enable_gradient_checkpointing=false")
    assert activations == 10 * 2 * 400


def test_groups_of_ranks_shard_among_themselves() -> None:
    shape = ModelShape.from_config(SMALL, "small")
    group = "actor_rollout_ref.actor.fsdp_config.fsdp_size=2"
    four = gpu_memory(_config("trainer.n_gpus_per_node=4", group), shape, 1_000_000)
    assert (four.parameters, four.gradients, four.optimizer) == (7184, 7184, 14368)
    two = gpu_memory(_config("trainer.n_gpus_per_node=2", group), shape, 1_000_000)
    assert two.parameters == 7184


def test_deferred_reduction_keeps_every_gradient_whole() -> None:
    """On the GPU even where the shards are in host memory."""
    shape = ModelShape.from_config(SMALL, "small")
    deferred = "actor_rollout_ref.actor.fsdp_config.use_no_sync_for_gradient_accumulation=true"
    for groups in ([], ["+memory=low"]):
        config = _config("trainer.n_gpus_per_node=2", deferred, *groups)
        assert gpu_memory(config, shape, 1_000_000).gradients == 4 * 3592


@dataclass(frozen=True)
class Published:
    """A peak of a verl run that others have published, and its settings in ours.

    Attributes:
        shape: The model's.
        overrides: Of `dapo` with `+machine=gpu`.
        gib: `actor/perf/max_memory_allocated_gb`, which is in GiB: torch's allocations of the
            actor's process, that is, `GpuMemory.update` without `OVERHEAD`.
        ratio: Ours over theirs.
    """

    shape: ModelShape
    overrides: tuple[str, ...]
    gib: float
    ratio: float


QWEN3_8B = ModelShape(151936, 4096, 12288, 36, 32, 8, 128, 40960, False, False)
GSPO_NIGHTLY = (
    "trainer.n_gpus_per_node=8",
    "actor_rollout_ref.actor.ulysses_sequence_parallel_size=2",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=2048",
    "actor_rollout_ref.actor.fsdp_config.param_offload=true",
    "actor_rollout_ref.actor.fsdp_config.optimizer_offload=true",
    "actor_rollout_ref.rollout.tensor_model_parallel_size=2",
)
DEFERRED = "actor_rollout_ref.actor.fsdp_config.use_no_sync_for_gradient_accumulation=true"
EIGHT = ("trainer.n_gpus_per_node=8", "actor_rollout_ref.actor.strategy=fsdp")

#: docs/memory.md has them with their sources. The last is a bound: its micro-batches were not full.
PUBLISHED = {
    "reduced each micro-batch": Published(QWEN3_8B, GSPO_NIGHTLY, 20.82, 1.02),
    "reduced at the last one": Published(QWEN3_8B, (*GSPO_NIGHTLY, DEFERRED), 47.87, 1.00),
    "7B, up to 16,384 tokens": Published(
        model_shape(QWEN_7B),
        (*EIGHT, "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384"),
        27.1,
        1.50,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_peaks(name: str) -> None:
    """Whoever changes the estimate sees what it does to them, here and in docs/memory.md."""
    run = PUBLISHED[name]
    memory = gpu_memory(_config(*run.overrides), run.shape, gpu_bytes=64 * GIB)
    ours = (memory.update - OVERHEAD) / GIB
    assert round(ours / run.gib, 2) == run.ratio
    rows = (Path(__file__).parents[3] / "docs" / "memory.md").read_text()
    assert f"| {run.gib:.1f} | {ours:.1f} | {run.ratio:.2f} |" in rows


def test_offload_moves_shards_to_the_host() -> None:
    """Between updates only (verl's flags), or always (FSDP2's policy, the low-memory variant)."""
    shape = ModelShape.from_config(SMALL, "small")
    sizes = ("trainer.n_gpus_per_node=2", "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=10")
    fsdp = "actor_rollout_ref.actor.fsdp_config"
    flags = (f"{fsdp}.param_offload=true", f"{fsdp}.optimizer_offload=true")
    between = gpu_memory(_config(*sizes, *flags), shape, 1_000_000)
    assert (between.parameters, between.gradients, between.optimizer) == (7184, 7184, 14368)
    assert (between.resident_at_rollout, between.host) == (0, 7184 + 14368)
    always = gpu_memory(_config(*sizes, "+memory=low"), shape, 1_000_000)
    assert (always.parameters, always.gradients, always.optimizer) == (0, 0, 0)
    assert (always.resident_at_rollout, always.host) == (0, 16 * 3592 // 2)


def test_tensor_parallel_halves_vllms_weights() -> None:
    config = _config("actor_rollout_ref.rollout.tensor_model_parallel_size=2")
    memory = gpu_memory(config, ModelShape.from_config(SMALL, "small"), gpu_bytes=1_000_000)
    assert memory.vllm_weights == 3592


def test_fp8_halves_the_layers_and_nothing_else() -> None:
    shape = ModelShape.from_config(SMALL, "small")
    assert gpu_memory(_config("+rollout=fp8"), shape, 1_000_000).vllm_weights == 2 * 992 + 2 * 1608


def test_weights_larger_than_vllms_share_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"gpu_memory_utilization=0\.6 of 16 GiB does not hold"):
        gpu_memory(_config(), model_shape(QWEN_7B), gpu_bytes=16 * GIB)


def test_a_checkpoint_is_weights_and_moments() -> None:
    assert checkpoint_bytes(ModelShape.from_config(SMALL, "small")) == 12 * 3592


def test_soft_prompt_costs_by_hand() -> None:
    step = step_arithmetic(_config("actor_rollout_ref.rollout.prompt_length=2048"))
    costs = soft_prompt_costs(RspOptions(), step, hidden_size=3584, extra=20)
    assert costs.draws_per_step == 8192
    assert costs.bytes_per_draw == 20 * 3584 * 2
    assert costs.record_bytes == 80
    assert costs.extra_tokens_per_step == 8192 * 20
    assert costs.share_of_longest == 20 / 4096
    half = soft_prompt_costs(RspOptions(mixing="half"), step, hidden_size=3584, extra=20)
    assert (half.draws_per_step, half.extra_tokens_per_step) == (4096, 4096 * 20)
    ramp = RspOptions(length=0, length_schedule=Schedule("linear", end=30, steps=50))
    assert soft_prompt_costs(ramp, step, hidden_size=10, extra=30).bytes_per_draw == 30 * 10 * 2
    off = soft_prompt_costs(RspOptions(length=0), step, hidden_size=3584, extra=0)
    assert (off.draws_per_step, off.bytes_per_draw, off.record_bytes) == (0, 0, 0)
    assert (off.extra_tokens_per_step, off.share_of_longest) == (0, 0)


# The dry run.

GPUS = ("+machine=gpu", f"actor_rollout_ref.model.path={QWEN_7B}", "trainer.n_gpus_per_node=4")


def test_dry_run_says_that_it_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert dry_run.main(["--config-name", "dapo_rsp", *GPUS]) == 0
    printed = capsys.readouterr().out
    assert "rollouts: 1024 prompts x 8 = 8192" in printed
    assert "update, total: 48.1 of 80: fits" in printed
    assert "DOES NOT FIT" not in printed
    assert "draws: 8192 a step, 819,200 a run" in printed


def test_dry_run_knows_no_longest_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    """`data.max_prompt_length=null` is the data's, which a dry run does not read."""
    assert dry_run.main([*GPUS, "data.max_prompt_length=null"]) == 1
    assert capsys.readouterr().err.startswith("error: data.max_prompt_length is not set")


def test_dry_run_says_that_it_does_not_fit_and_what_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert dry_run.main(["--gpu-memory-gb", "40", *GPUS]) == 0
    printed = capsys.readouterr().out
    assert "update, total: 48.1 of 40: DOES NOT FIT" in printed
    assert "LOW_MEMORY=1" in printed


@pytest.mark.parametrize("keep", ["null", "0", "-1"])
def test_dry_run_counts_all_checkpoints_where_none_go(
    keep: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dry_run.main([*GPUS, f"trainer.max_actor_ckpt_to_keep={keep}"]) == 0
    assert "checkpoints: 10 of " in capsys.readouterr().out


def test_dry_run_without_rsp(capsys: pytest.CaptureFixture[str]) -> None:
    assert dry_run.main(["--config-name", "dapo", *GPUS]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith("# random soft prompts\noff\n")
    assert "longest sequence: 4076 tokens" in printed


def test_dry_run_of_noise_on_the_question(capsys: pytest.CaptureFixture[str]) -> None:
    noise = ["rsp.law=question_noise", "rsp.length=0", "rsp.scale=5", "rsp.mixing=half"]
    assert dry_run.main([*GPUS, *noise]) == 0
    printed = capsys.readouterr().out
    assert (
        "law: question_noise, alpha at most 5, on the question's own tokens, 50% of the" in printed
    )
    assert "longest sequence: 4076 tokens" in printed
    assert dry_run.main([*GPUS, *noise[:1]]) == 1
    assert "rsp.length=20 and rsp.law=question_noise: it inserts" in capsys.readouterr().err


def test_dry_run_leaves_room_for_the_infix_description(capsys: pytest.CaptureFixture[str]) -> None:
    room = "data.max_prompt_length=1900"
    assert dry_run.main([*GPUS, room, "rsp.position=infix"]) == 0
    assert "extra prompt tokens: 130 a rollout" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["rsp.foo=1"], "the config does not compose: Could not override 'rsp.foo'"),
        (["+machine=tpu"], "the config does not compose"),
        (["rsp.length=-1"], "rsp.length=-1"),
        (["trainer.n_gpus_per_node=3"], "does not divide over 3 data-parallel ranks"),
        (["data.max_prompt_length=2029"], "max_position_embeddings=4096"),
        (["--gpu-memory-gb", "0"], "GPU memory of 0.0 GiB"),
        (["--gpu-memory-gb", "16"], "does not hold vLLM's weights"),
        (
            ["actor_rollout_ref.actor.ppo_max_token_len_per_gpu=4095"],
            "does not hold the longest sequence of 4096 tokens",
        ),
        (
            ["actor_rollout_ref.rollout.temperature=0.6"],
            "logprobs_mode=raw_logprobs: the rollout's log-probs are those at temperature 1",
        ),
    ],
)
def test_dry_run_refuses_with_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], cause: str
) -> None:
    assert dry_run.main([*GPUS, *arguments]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert cause in line
