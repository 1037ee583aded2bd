"""Packed sequences that attend one by one: what each gives alone, forward and backward."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from rsp_rl.training.verl_plugin.attention_by_sequence import AttentionBySequence

LENGTHS = [3, 1, 7]


def _model(kind: type, **changes: object) -> torch.nn.Module:
    sizes = {
        "vocab_size": 50,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    torch.manual_seed(0)
    config = kind(**sizes | changes)
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")


@pytest.mark.parametrize("kind", [LlamaConfig, Qwen2Config, Qwen3Config])
def test_a_pack_is_its_sequences(kind: type) -> None:
    model = _model(kind)
    ids = torch.randint(0, 50, (1, sum(LENGTHS)))
    positions = torch.cat([torch.arange(n) for n in LENGTHS])[None]
    alone = torch.cat([model(part).logits[0] for part in ids.split(LENGTHS, dim=1)])
    alone.square().sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()

    attention = AttentionBySequence()
    assert attention.attach(model)
    attention.lengths = LENGTHS
    packed = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0]
    packed.square().sum().backward()
    assert torch.allclose(packed, alone, atol=1e-5)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-3, atol=1e-4)


def test_lengths_of_another_pack_are_refused() -> None:
    model = _model(LlamaConfig)
    attention = AttentionBySequence()
    attention.attach(model)
    attention.lengths = [2, 2]
    with pytest.raises(ValueError, match="5 tokens came to sequences of 4"):
        model(torch.zeros(1, 5, dtype=torch.long), use_cache=False)


def test_two_models_of_a_process_have_packs_of_their_own() -> None:
    """An actor and its reference model; of equally many tokens, cut at other places."""
    models = [_model(LlamaConfig) for _ in range(2)]
    attentions = [AttentionBySequence() for _ in models]
    for model, attention in zip(models, attentions, strict=True):
        assert attention.attach(model)
    ids = torch.randint(0, 50, (1, 6))
    positions = torch.tensor([[0, 1, 0, 1, 2, 3]])
    attentions[0].lengths, attentions[1].lengths = [2, 4], [6]
    first = models[0](input_ids=ids, position_ids=positions, use_cache=False).logits[0]
    alone = torch.cat([models[1](part).logits[0] for part in ids.split([6], dim=1)])
    attentions[1].lengths = None
    expected = torch.cat([models[1](part).logits[0] for part in ids.split([2, 4], dim=1)])
    assert torch.allclose(first, expected, atol=1e-5)
    assert not torch.allclose(first, alone, atol=1e-3)


def test_padded_batches_go_transformers_way() -> None:
    model = _model(LlamaConfig)
    ids = torch.randint(0, 50, (2, 6))
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    expected = model(ids, attention_mask=mask).logits
    attention = AttentionBySequence()
    attention.attach(model)
    assert torch.equal(model(ids, attention_mask=mask).logits, expected)


def test_windows_and_other_implementations_stay() -> None:
    windows = _model(Qwen2Config, use_sliding_window=True, sliding_window=4, max_window_layers=1)
    assert not AttentionBySequence().attach(windows)
    assert windows.config._attn_implementation == "sdpa"
    eager = _model(LlamaConfig)
    eager.set_attn_implementation("eager")
    assert not AttentionBySequence().attach(eager)


def test_it_is_transformers_own_for_one_sequence() -> None:
    module = torch.nn.Module()
    module.num_key_value_groups, module.is_causal = 2, True
    q, k, v = torch.randn(1, 4, 6, 8), torch.randn(1, 2, 6, 8), torch.randn(1, 2, 6, 8)
    attention = AttentionBySequence()
    attention.lengths = [6]
    ours, _ = attention(module, q, k, v, None, scaling=0.3)
    theirs, _ = sdpa_attention_forward(module, q, k, v, None, scaling=0.3, is_causal=True)
    assert torch.equal(ours, theirs)
