"""Small models from nothing: which matrices begin small, and whose generator is left alone."""

from __future__ import annotations

import pytest
import torch

from rsp_rl.latent import scratch
from rsp_rl.latent.scratch import ARCHITECTURES, build_model, build_tokenizer

SIZES = {"layers": 2, "hidden_size": 32, "heads": 2, "context": 64}

#: By architecture, what of a block is added to the residual stream.
INTO_STREAM = {
    "gpt2": {f"transformer.h.{n}.{part}.c_proj.weight" for n in (0, 1) for part in ("attn", "mlp")},
    "llama": {
        f"model.layers.{n}.{part}.weight"
        for n in (0, 1)
        for part in ("self_attn.o_proj", "mlp.down_proj")
    },
}
INTO_STREAM["qwen2"] = INTO_STREAM["llama"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_blocks_add_to_the_stream_begins_small_and_nothing_else(
    architecture, step_problems, monkeypatch
):
    tokenizer = build_tokenizer(step_problems)
    found = build_model(tokenizer, architecture=architecture, seed=3, **SIZES).state_dict()
    monkeypatch.setattr(scratch, "_BLOCKS_SCALE", 1.0)
    whole = build_model(tokenizer, architecture=architecture, seed=3, **SIZES).state_dict()
    changed = {name for name in whole if not torch.equal(found[name], whole[name])}
    assert changed == INTO_STREAM[architecture]
    for name in changed:
        torch.testing.assert_close(found[name], 0.1 * whole[name])


def test_weights_are_the_seeds_and_torchs_generator_is_left_as_it_was(step_problems):
    tokenizer = build_tokenizer(step_problems)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first, again, other = (
        build_model(tokenizer, seed=seed, **SIZES).state_dict() for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])
