"""A pass a thought over a cache, against forward passes from the start for one row at a time."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    ElectraConfig,
    ElectraForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
)

from rsp_rl.basics.errors import ConfigError
from rsp_rl.latent.epochs import epoch_rows
from rsp_rl.latent.layout import collate
from rsp_rl.latent.problem_tokens import tokenize
from rsp_rl.latent.settings import Settings
from rsp_rl.latent.thinking import check_thinks, hidden_states, token_losses

from .conftest import thinker_of

#: Stages mixed and thoughts not padded: rows of one batch have 0 to 6 thoughts.
MIXED = Settings(
    thoughts_per_step=2, max_stage=3, uniform_stages=1.0, pad_thoughts=False, ends="classifier"
)


def naive_loss(model, rows) -> torch.Tensor:
    """Mean loss, a row at a time without padding, each thought by whole forward passes."""
    table = model.get_input_embeddings()
    losses = []
    for row in rows:
        ids = torch.tensor(row.token_ids)
        inputs = table(ids)[None]
        for thought in range(row.first, row.first + row.thoughts):
            out = model(inputs_embeds=inputs, output_hidden_states=True, use_cache=False)
            before = out.hidden_states[-1][:, thought - 1 : thought]
            inputs = torch.cat([inputs[:, :thought], before, inputs[:, thought + 1 :]], dim=1)
        logits = model(inputs_embeds=inputs, use_cache=False).logits[0]
        wanted = ids[row.first_label :]
        chosen = logits[row.first_label - 1 : -1]
        losses.append(torch.nn.functional.cross_entropy(chosen, wanted, reduction="none"))
    return torch.cat(losses).mean()


def gradients(model) -> torch.Tensor:
    found = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    model.zero_grad()
    return found


def tolerance(model) -> float:
    """In float64, where Llama and Qwen2 still norm and rotate in float32."""
    return 1e-12 if model.config.model_type == "gpt2" else 1e-6


@pytest.fixture(params=[False, True], ids=["cached", "recomputed"])
def recompute(request):
    return request.param


def test_loss_and_gradient_equal_the_naive_reference(any_model, step_problems, recompute):
    thinker = thinker_of(any_model, MIXED)
    tokens = tokenize(step_problems[:12], thinker.tokenizer)
    rows = epoch_rows(tokens, MIXED, thinker.markers, 0)
    assert len({row.thoughts for row in rows}) > 2
    assert len({row.first for row in rows}) > 1
    model = thinker.model.eval()
    batch = collate(rows, thinker.pad)
    loss = token_losses(model, hidden_states(model, batch, recompute=recompute), batch).mean()
    loss.backward()
    found = gradients(model)
    expected_loss = naive_loss(model, rows)
    expected_loss.backward()
    expected = gradients(model)
    assert abs((loss - expected_loss).item()) < tolerance(model)
    assert float((found - expected).norm() / expected.norm()) < tolerance(model)


def test_the_loss_reaches_the_question_through_every_thought(gpt2, step_problems):
    """Cut one thought off, and the gradient is another: each carries some of it."""
    settings = Settings(max_stage=2, epochs=3, epochs_per_stage=1)
    thinker = thinker_of(gpt2, settings)
    tokens = tokenize(step_problems[:4], thinker.tokenizer)
    batch = collate(epoch_rows(tokens, settings, thinker.markers, 2), thinker.pad)
    model = thinker.model.eval()

    def gradient(cut: int | None) -> torch.Tensor:
        count = 0

        def detach(module, args, kwargs):
            nonlocal count
            count += 1
            if cut is not None and count == cut + 1:
                kwargs["inputs_embeds"] = kwargs["inputs_embeds"].detach()
            return args, kwargs

        hook = model.base_model.register_forward_pre_hook(detach, with_kwargs=True)
        token_losses(model, hidden_states(model, batch), batch).mean().backward()
        hook.remove()
        assert count == 3  # two thoughts and what comes before them
        return gradients(model)

    whole = gradient(None)
    for cut in (1, 2):
        assert float((gradient(cut) - whole).norm() / whole.norm()) > 1e-3


class TestModelsThatCannot:
    def test_a_width_of_its_own_for_embeddings(self):
        sizes = {"hidden_size": 32, "embedding_size": 16, "intermediate_size": 32}
        heads = {"num_hidden_layers": 1, "num_attention_heads": 2, "is_decoder": True}
        model = ElectraForCausalLM(ElectraConfig(vocab_size=50, **sizes, **heads))
        with pytest.raises(ConfigError, match="of width 32 and embeddings of width 16"):
            check_thinks(model)

    def test_logits_that_are_more_than_the_output_layers(self):
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
        heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
        config = GraniteConfig(vocab_size=50, logits_scaling=8.0, **sizes, **heads)
        with pytest.raises(ConfigError, match="GraniteForCausalLM scales or caps its logits"):
            check_thinks(GraniteForCausalLM(config))

    def test_a_cache_that_changes_what_is_computed(self, monkeypatch):
        model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2))
        check_thinks(model)
        forward = model.base_model.forward
        monkeypatch.setattr(
            model.base_model,
            "forward",
            lambda *_, past_key_values=None, **kw: forward(
                **(kw | {"attention_mask": None, "use_cache": False})
            ),
        )
        with pytest.raises(ConfigError, match="over a key-value cache"):
            check_thinks(model)
