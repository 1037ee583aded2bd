"""SIM-CoT's decoder: whose thoughts it reads, what it writes, and that it is gone afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rsp_rl.basics.errors import ConfigError
from rsp_rl.latent.epochs import epoch_rows
from rsp_rl.latent.layout import collate
from rsp_rl.latent.problem_tokens import tokenize
from rsp_rl.latent.settings import Settings
from rsp_rl.latent.step_decoder import StepDecoder, tokens_of
from rsp_rl.latent.thinking import hidden_states
from rsp_rl.latent.training import MODEL, train

from .conftest import thinker_of
from .test_training import SETTINGS, metrics, weights

TWO = Settings(max_stage=3, thoughts_per_step=2, epochs=6, epochs_per_stage=1)


def test_each_steps_thoughts_and_tokens_one_by_one(any_model, step_problems):
    thinker = thinker_of(any_model, TWO)
    tokens = tokenize(step_problems[:6], thinker.tokenizer)
    rows = epoch_rows(tokens, TWO, thinker.markers, 3)
    assert {len(row.stood_for) for row in rows} == {2, 3}  # some problems have but two steps
    model = thinker.model.eval()
    batch = collate(rows, thinker.pad)
    states_BTd = hidden_states(model, batch)
    eos = thinker.tokenizer.eos_token_id
    decoder = StepDecoder(model, 2, eos)
    stood_for = [row.stood_for for row in rows]
    found = decoder.losses(states_BTd, batch, stood_for)
    assert len(found) == tokens_of(stood_for)

    expected = []
    for row, steps in enumerate(stood_for):
        for number, step in enumerate(steps):
            start = batch.first - 1 + 2 * number
            written = decoder.model.get_input_embeddings()(torch.tensor(step))
            inputs = torch.cat([states_BTd[row, start : start + 2], written])
            logits = decoder.model(inputs_embeds=inputs[None], use_cache=False).logits[0, 1:]
            wanted = torch.tensor([*step, eos])
            expected.append(torch.nn.functional.cross_entropy(logits, wanted, reduction="none"))
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-5, atol=1e-6)

    found.sum().backward()
    first = model.get_input_embeddings().weight.grad
    assert first is not None
    assert first.abs().sum() > 0  # it flows back through the thoughts


def test_it_trains_and_leaves_a_model_like_any_other(gpt2, step_problems, tmp_path):
    settings = replace(SETTINGS, step_decoder=1.0)
    for name, own in {"with": settings, "without": SETTINGS}.items():
        train(gpt2, step_problems, step_problems[:8], own, tmp_path / name, {})
    figures = [line for line in metrics(tmp_path / "with") if "step_loss" in line]
    assert figures[-1]["step_loss"] < figures[0]["step_loss"]
    found, plain = weights(tmp_path / "with" / MODEL), weights(tmp_path / "without" / MODEL)
    assert found.keys() == plain.keys()
    assert not torch.equal(found["transformer.wte.weight"], plain["transformer.wte.weight"])


def test_it_drops_out_as_the_model_does(gpt2, step_problems, tmp_path, monkeypatch):
    losses, modes = StepDecoder.losses, set()

    def noted(self, *args):
        modes.add(self.model.training)
        return losses(self, *args)

    monkeypatch.setattr(StepDecoder, "losses", noted)
    settings = replace(SETTINGS, step_decoder=1.0, epochs=2)
    train(gpt2, step_problems, step_problems[:8], settings, tmp_path, {})
    assert modes == {True}


def test_what_has_no_thoughts_is_refused():
    with pytest.raises(ConfigError, match="step_decoder reads thoughts, and method cot"):
        Settings(method="cot", step_decoder=1.0)
