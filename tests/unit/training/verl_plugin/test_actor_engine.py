"""The actor's side of the plug-in: records, placeholders, registration, and verl's real engine."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from parity.actor import Sample, make_engine, plain_torch_log_probs, training_batch
from parity.models import make_random_model
from parity.ranks import run_on_ranks
from rsp_rl.draws.record import RECORD_FIELD, SoftPromptRecord, tokens_digest
from rsp_rl.training.truncation import LOG_MASS_FIELD, TRUNCATION_KEY
from tests.tolerances import FORWARD, rounding

PLACEHOLDER = 3
EOS = 4


def make_record(**changes) -> SoftPromptRecord:
    record = SoftPromptRecord(
        seed=7,
        start=2,
        length=3,
        mean=0.01,
        std=0.3,
        dtype="float32",
        placeholder_id=PLACEHOLDER,
    )
    return replace(record, **changes)


def make_samples() -> list[Sample]:
    """Rollouts with suffix, prefix and no soft prompt, of unequal lengths."""
    generator = np.random.default_rng(5)
    samples = []
    for number, (prompt_length, start, length, response_length) in enumerate(
        [(9, 4, 4, 6), (7, 0, 3, 11), (8, 5, 0, 3), (12, 8, 4, 1)]
    ):
        prompt = generator.integers(5, 60, prompt_length)
        prompt[start : start + length] = PLACEHOLDER
        response = generator.integers(5, 60, response_length).tolist()
        record = make_record(seed=number, start=start, length=length)
        zeros = np.zeros(response_length)
        samples.append(Sample(prompt.tolist(), response, zeros, 1.0, record))
    return samples


def make_noisy_samples() -> list[Sample]:
    """The same rollouts with noise on so many tokens in place of a soft prompt at them."""
    generator = np.random.default_rng(6)
    samples = []
    for sample in make_samples():
        prompt = generator.integers(5, 60, len(sample.prompt)).tolist()
        start, length = sample.record.start, sample.record.length
        added_to = tokens_digest(prompt[start : start + length])
        noise = {"law": "question_noise", "mean": 0.0, "std": 10.0, "added_to": added_to}
        samples.append(replace(sample, prompt=prompt, record=replace(sample.record, **noise)))
    return samples


# ---- records and placeholders -------------------------------------------------------------------


def test_records_arrive_in_the_samples_order():
    from rsp_rl.training.verl_plugin.actor_engine import decode_records

    samples = make_samples()
    assert decode_records(training_batch(samples)) == [sample.record for sample in samples]


def test_verls_padding_samples_have_no_soft_prompt():
    """verl copies a real sample, record included, and replaces its tokens."""
    from verl.trainer.ppo.padding_utils import construct_minimal_padding_template
    from verl.utils.tensordict_utils import list_of_dict_to_tensordict

    from rsp_rl.training.verl_plugin.actor_engine import check_tokens, decode_records

    batch = training_batch(make_samples())
    fields = ["prompts", "responses", "input_ids", "position_ids", "loss_mask", RECORD_FIELD]
    reals = [{field: batch[field].unbind()[row] for field in fields} for row in range(4)]
    padding, _ = construct_minimal_padding_template(reals[1], {}, eos_token_id=EOS)
    padding = {field: padding[field] for field in fields}
    assert torch.equal(padding[RECORD_FIELD], reals[1][RECORD_FIELD])

    mixed = list_of_dict_to_tensordict([reals[0], padding, reals[3]])
    records = decode_records(mixed)
    assert [record.length for record in records] == [4, 0, 4]
    check_tokens(records, mixed["input_ids"])


@pytest.mark.parametrize(
    ("record", "tokens"),
    [
        (make_record(start=2), [5, 6, PLACEHOLDER, PLACEHOLDER, 7, 8]),  # too few
        (make_record(start=1), [5, 6, PLACEHOLDER, PLACEHOLDER, PLACEHOLDER, 8]),  # moved
        (make_record(start=2), [5, 6, PLACEHOLDER, PLACEHOLDER]),  # cut through
        (make_record(start=9), [5, 6, PLACEHOLDER, PLACEHOLDER, PLACEHOLDER]),  # cut off
        (make_record(placeholder_id=1), [5, 6, PLACEHOLDER, PLACEHOLDER, PLACEHOLDER]),  # other id
    ],
)
def test_a_record_that_is_not_its_samples_is_an_error(record, tokens):
    from rsp_rl.training.verl_plugin.actor_engine import check_tokens

    good = make_record(start=0, length=1)
    ids = torch.nested.as_nested_tensor(
        [torch.tensor([PLACEHOLDER, 5]), torch.tensor(tokens)], layout=torch.jagged
    )
    with pytest.raises(ValueError, match=r"sample 1 .*are not soft prompt placeholders"):
        check_tokens([good, record], ids)


def test_a_record_of_noise_that_is_not_its_samples_is_an_error():
    from rsp_rl.training.verl_plugin.actor_engine import check_tokens

    samples = make_noisy_samples()
    ids = [torch.tensor([*sample.prompt, *sample.response]) for sample in samples]
    records = [sample.record for sample in samples]
    check_tokens(records, torch.nested.as_nested_tensor(ids, layout=torch.jagged))
    for wrong in (ids[1][1:], ids[1][:2], torch.cat([ids[1][:1] + 1, ids[1][1:]])):
        tokens = torch.nested.as_nested_tensor([ids[0], wrong, *ids[2:]], layout=torch.jagged)
        with pytest.raises(ValueError, match=r"sample 1 .*are not those that noise was added to"):
            check_tokens(records, tokens)


def test_more_placeholders_than_the_record_has_are_ordinary_tokens():
    from rsp_rl.training.verl_plugin.actor_engine import check_tokens

    ids = torch.nested.as_nested_tensor([torch.full((9,), PLACEHOLDER)], layout=torch.jagged)
    check_tokens([make_record()], ids)


# ---- registration -------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["fsdp", "fsdp2"])
@pytest.mark.parametrize(
    ("device", "vendor", "ours"),
    [
        ("cpu", "cpu", True),
        ("cuda", "nvidia", True),
        ("cuda", "amd", False),
        ("npu", "huawei", False),
    ],
)
def test_verl_takes_our_engine_on_cpu_and_nvidia(monkeypatch, strategy, device, vendor, ours):
    from verl.workers.engine import EngineRegistry
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    from rsp_rl.training.verl_plugin.actor_engine import SoftPromptFSDPEngine
    from rsp_rl.training.verl_plugin.cpu_engine import CpuSoftPromptFSDPEngine

    # verl's own switches, in place of the hardware.
    monkeypatch.setenv("VERL_ENGINE_DEVICE", device)
    monkeypatch.setenv("VERL_ENGINE_VENDOR", vendor)
    engine = CpuSoftPromptFSDPEngine if device == "cpu" else SoftPromptFSDPEngine
    wanted = engine if ours else FSDPEngineWithLMHead
    assert EngineRegistry.get_engine_cls("language_model", strategy) is wanted


def test_critics_keep_verls_engine(monkeypatch):
    from verl.workers.engine import EngineRegistry

    from rsp_rl.training.verl_plugin.actor_engine import SoftPromptFSDPEngine

    monkeypatch.setenv("VERL_ENGINE_DEVICE", "cuda")
    monkeypatch.setenv("VERL_ENGINE_VENDOR", "nvidia")
    critic = EngineRegistry.get_engine_cls("value_model", "fsdp2")
    assert not issubclass(critic, SoftPromptFSDPEngine)


# ---- the engine ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    return make_random_model(tmp_path_factory.mktemp("model") / "tiny")


def log_probs_by_engine(engine, samples: list[Sample], packed: bool = True) -> list[np.ndarray]:
    from verl.workers.utils.padding import response_from_nested

    data = training_batch(
        samples, use_remove_padding=packed, use_dynamic_bsz=False, micro_batch_size_per_gpu=2
    )
    with engine.eval_mode():
        output = engine.infer_batch(data)["model_output"]
    return [
        row.float().numpy()
        for row in response_from_nested(output["log_probs"], data["response_mask"]).unbind()
    ]


def engine_cases(
    rank: int, model, overrides: list[str], samples: list[Sample]
) -> dict[str, list[np.ndarray] | str]:
    """One engine, one batch after the other: none may leave anything to the next."""
    engine, _ = make_engine(model, *overrides)
    results = {
        "packed": log_probs_by_engine(engine, samples),
        "padded": log_probs_by_engine(engine, samples, packed=False),
    }
    stranger = [samples[0], replace(samples[1], record=samples[0].record), *samples[2:]]
    try:
        log_probs_by_engine(engine, stranger)
    except ValueError as error:
        results["error"] = str(error)
    plain = [replace(sample, record=None) for sample in samples]
    results["without records"] = log_probs_by_engine(engine, plain)
    results["again"] = log_probs_by_engine(engine, samples)
    return results


#: Of log-probs by a forward pass whose layers round to bfloat16: logits, of size 1, a dozen times.
BF16 = rounding(12, dtype=torch.bfloat16)


@pytest.mark.parametrize("made", [make_samples, make_noisy_samples], ids=["drawn", "noise"])
@pytest.mark.parametrize(
    ("overrides", "tolerance"),
    [
        ([], FORWARD),
        # Adapters begin as zero: the same policy, through peft's wrappers.
        (
            [
                "actor_rollout_ref.model.lora_rank=4",
                "actor_rollout_ref.model.enable_gradient_checkpointing=true",
            ],
            FORWARD,
        ),
        (["actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=bf16"], BF16),
    ],
    ids=["full", "lora", "bf16"],
)
def test_the_engine_conditions_on_each_samples_own_soft_prompt(
    tiny_model, overrides, tolerance, made
):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64)
    samples = made()
    with torch.no_grad():
        wanted = plain_torch_log_probs(model, samples)
        plain = plain_torch_log_probs(model, samples, soft_prompts=False)
    (results,) = run_on_ranks(engine_cases, 1, tiny_model, overrides, samples)
    assert "sample 1 of a micro-batch" in results.pop("error")
    assert max((a - b).abs().max() for a, b in zip(wanted, plain, strict=True)) > 5 * tolerance
    for name, rows in results.items():
        right = plain if name == "without records" else wanted
        for number, row in enumerate(rows):
            np.testing.assert_allclose(
                row, right[number], atol=tolerance, rtol=0, err_msg=f"{name}, sample {number}"
            )


def log_masses_by_engine(rank: int, model, layouts: list[bool]) -> list[list[np.ndarray]]:
    """Of the responses' tokens, packed or padded, at a temperature of 0.7."""
    from verl.workers.utils.padding import response_from_nested

    engine, _ = make_engine(model)
    results = []
    for packed in layouts:
        data = training_batch(
            make_samples(),
            use_remove_padding=packed,
            use_dynamic_bsz=False,
            micro_batch_size_per_gpu=2,
            temperature=0.7,
            **{TRUNCATION_KEY: (3, 1.0)},
        )
        with engine.eval_mode():
            output = engine.infer_batch(data)["model_output"]
        rows = response_from_nested(output[LOG_MASS_FIELD], data["response_mask"]).unbind()
        results.append([row.numpy() for row in rows])
    return results


def test_the_engine_says_what_truncated_sampling_keeps(tiny_model):
    """Top-3 of each distribution that a response token was sampled from."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64)
    wanted = []
    with torch.no_grad():
        for sample in make_samples():
            embeds = embeds_with_soft_prompt(model, sample)
            logits = model(inputs_embeds=embeds, use_cache=False).logits[0] / 0.7
            kept = logits.log_softmax(-1).topk(3).values.logsumexp(-1)
            wanted.append(kept[len(sample.prompt) - 1 : -1].numpy())
    (results,) = run_on_ranks(log_masses_by_engine, 1, tiny_model, [True, False])
    for rows in results:
        for row, right in zip(rows, wanted, strict=True):
            np.testing.assert_allclose(row, right, atol=FORWARD, rtol=0)
    assert max(abs(row).max() for row in wanted) > 0.1


def embeds_with_soft_prompt(model, sample: Sample) -> torch.Tensor:
    """A sample's input embeddings with H put in by hand, [1, T, d]."""
    tokens, record = torch.tensor([*sample.prompt, *sample.response]), sample.record
    embeds = model.get_input_embeddings()(tokens)
    embeds[record.start : record.start + record.length] = record.draw(embeds.shape[1]).double()
    return embeds[None]


def ulysses_embeddings(rank: int, model, overrides: list[str]) -> np.ndarray:
    """What the engine's embedding puts out on this rank's slice of one packed micro-batch.

    The rest of the forward is not looked at: verl's sequence-parallel attention needs flash
    attention, without which each rank attends within its own slice.
    """
    engine, _ = make_engine(model, *overrides)
    outputs = []
    embedding = engine.module.get_input_embeddings()
    embedding.register_forward_hook(lambda module, args, output: outputs.append(output))
    data = training_batch(
        make_samples(),
        use_remove_padding=True,
        use_dynamic_bsz=False,
        micro_batch_size_per_gpu=4,
    )
    with engine.eval_mode():
        engine.infer_batch(data)
    (output,) = outputs
    return output[0].numpy()


@pytest.mark.parametrize("pad_to_length", [False, True])
def test_sequence_parallel_ranks_fill_their_own_slice(tiny_model, pad_to_length):
    from transformers import AutoModelForCausalLM

    overrides = [
        "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size=2",
        f"actor_rollout_ref.actor.fsdp_config.pad_to_length={pad_to_length}",
        "actor_rollout_ref.actor.fsdp_config.pad_to_length_bucket=50",
    ]
    parts = run_on_ranks(ulysses_embeddings, 2, tiny_model, overrides)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    rows = []
    for sample in make_samples():
        embeds = model.get_input_embeddings()(torch.tensor([*sample.prompt, *sample.response]))
        span = slice(sample.record.start, sample.record.start + sample.record.length)
        embeds[span] = sample.record.draw(embeds.shape[1])
        rows.append(embeds.detach())
    whole = torch.cat(rows).numpy()
    assert len(whole) % 2 == 1  # the ranks' slices do not fit it
    gathered = np.concatenate(parts)
    assert len(gathered) == (100 if pad_to_length else len(whole) + 1)
    np.testing.assert_array_equal(gathered[: len(whole)], whole)
    padding = model.get_input_embeddings().weight[0].detach().numpy()
    np.testing.assert_array_equal(
        gathered[len(whole) :], np.broadcast_to(padding, gathered[len(whole) :].shape)
    )


# ---- what our patches rely on: a failure here means that upstream changed, perhaps mended it -----


def test_gloo_patch_is_still_needed(monkeypatch, tmp_path):
    """`use_gloo_alone` may go when verl's own call works on CPU."""
    from verl.utils import distributed

    patched = distributed.initialize_global_process_group_ray
    original = patched.__wrapped__
    assert list(inspect.signature(original).parameters) == ["timeout_second", "backend"]
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("DIST_INIT_METHOD", f"file://{tmp_path}/original")
    with pytest.raises(ValueError, match="Duplicate device type cpu"):
        original(timeout_second=None)
    assert not torch.distributed.is_initialized()

    monkeypatch.setenv("DIST_INIT_METHOD", f"file://{tmp_path}/patched")
    patched(timeout_second=None)
    try:
        assert torch.distributed.get_backend() == "gloo"
    finally:
        torch.distributed.destroy_process_group()


def test_verls_workers_use_the_gloo_patch():
    from verl.utils import distributed
    from verl.workers import engine_workers

    assert (
        engine_workers.initialize_global_process_group_ray
        is distributed.initialize_global_process_group_ray
    )


VLLM_PROBE = """
import inspect, torch
from vllm.model_executor.layers import utils
from vllm.model_executor.layers.linear import UnquantizedLinearMethod

signature = inspect.signature(utils.dispatch_cpu_unquantized_gemm)
assert list(signature.parameters) == ["layer", "remove_weight"], signature

def processed():
    layer = torch.nn.Linear(64, 96, bias=False)
    layer.weight.requires_grad_(False)
    weight = layer.weight.clone()
    UnquantizedLinearMethod().process_weights_after_loading(layer)
    return layer, weight

layer, _ = processed()
assert layer.weight.numel() == 0, "vLLM keeps the weights by itself: drop the patch"

from rsp_rl.training.verl_plugin.cpu_rollout_worker import keep_unpacked_weights
keep_unpacked_weights()
keep_unpacked_weights()
layer, weight = processed()
assert torch.equal(layer.weight, weight)
x = torch.randn(3, 64)
for _ in range(2):
    # Sums of 64 products: their roundings add up as sqrt(64) of numbers of at most 32.
    torch.testing.assert_close(
        UnquantizedLinearMethod().apply(layer, x),
        x @ layer.weight.T,
        rtol=0,
        atol=8 * 32 * torch.finfo(torch.float32).eps,
    )
    # A weight sync: new values into the kept weight, packed anew.
    layer.weight.copy_(torch.randn(96, 64))
    UnquantizedLinearMethod().process_weights_after_loading(layer)
print("patched")
"""


def test_vllm_patch_is_still_needed_and_works():
    """`keep_unpacked_weights` may go when vLLM's CPU target keeps what a weight sync loads into."""
    if torch.version.cuda:
        pytest.skip("vLLM's CPU target is not what the GPU stack installs")
    probe = subprocess.run(
        [sys.executable, "-c", VLLM_PROBE],
        env={**os.environ, "VERL_PLATFORM": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert probe.returncode == 0, probe.stderr[-3000:]
    assert "patched" in probe.stdout
