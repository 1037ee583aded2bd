"""The hook that puts thoughts into a torch model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from rsp_rl.injection.hook import SoftPromptInjector
from rsp_rl.injection.thought_hook import ThoughtInjector
from rsp_rl.thoughts.laws.multiplex import Multiplex
from rsp_rl.thoughts.laws.noisy import Soft
from rsp_rl.thoughts.samples import SampleThoughts
from tests.unit.thoughts.test_samples import VOCABULARY, make_record

WIDTH = 6
TOKENS = torch.arange(12).reshape(2, 6)
MULTIPLEX = Multiplex(k=3)


@pytest.fixture
def table() -> nn.Embedding:
    torch.manual_seed(0)
    return nn.Embedding(VOCABULARY, WIDTH)


def thoughts_of(law=MULTIPLEX) -> SampleThoughts:
    return SampleThoughts.of([make_record(law, 1, 0, "tt")])


def dense_thoughts() -> SampleThoughts:
    """Of a law that mixes the whole table."""
    law = Soft(rms=1.0)
    record = make_record(law, 1, 0, "tt")
    narrow = replace(record.rows, dense_ND=torch.randn(2, WIDTH))
    return SampleThoughts.of([replace(record, rows=narrow)])


@pytest.mark.parametrize("detached", [False, True])
def test_mixtures_of_the_modules_own_table(table: nn.Embedding, detached: bool) -> None:
    injector, thoughts = ThoughtInjector(table), thoughts_of()
    plain = table(TOKENS).detach()
    with injector.inject(thoughts, torch.tensor([1, 9]), detached=detached):
        made = table(TOKENS)
    wanted = plain.clone().flatten(0, 1)
    wanted[[1, 9]] = table.weight[thoughts.rows.ids_NK.long()].mean(1).detach()
    torch.testing.assert_close(made.detach().flatten(0, 1), wanted)
    made.sum().backward()
    counts = torch.bincount(TOKENS.flatten(), minlength=VOCABULARY).float()
    counts[[1, 9]] -= 1  # whose embeddings were overwritten
    if not detached:
        drawn = torch.bincount(thoughts.rows.ids_NK.flatten().long(), minlength=VOCABULARY)
        counts += drawn / 3
    torch.testing.assert_close(table.weight.grad, counts[:, None].expand(-1, WIDTH))
    assert torch.equal(table(TOKENS), plain)  # nothing stays


def test_both_hooks_at_once(table: nn.Embedding) -> None:
    soft_prompts, injector = SoftPromptInjector(table), ThoughtInjector(table)
    rows = torch.full((2, WIDTH), 9.0)
    thoughts = thoughts_of()
    with (
        soft_prompts.inject(torch.tensor([0, 3]), rows),
        injector.inject(thoughts, torch.tensor([4, 5]), detached=True),
    ):
        made = table(TOKENS).flatten(0, 1)
    assert (made[[0, 3]] == 9).all()
    drawn = table.weight[thoughts.rows.ids_NK.long()].mean(1)
    torch.testing.assert_close(made[[4, 5]], drawn)
    assert torch.equal(made[6:], table(TOKENS).flatten(0, 1)[6:])


def test_a_forgetful_model_has_its_tokens(table: nn.Embedding) -> None:
    """And the table, with which a law scores."""
    injector, thoughts = ThoughtInjector(table), dense_thoughts()
    with injector.inject(thoughts, torch.tensor([1, 9]), detached=False, forgotten=True):
        assert torch.equal(table(TOKENS), table.weight[TOKENS])
        assert injector.embedding.mixture(torch.eye(VOCABULARY)).equal(table.weight)


def test_a_leaf_is_not_written_to(table: nn.Embedding) -> None:
    """peft's `enable_input_require_grads` makes one of the output, where the table is frozen."""
    table.weight.requires_grad_(False)
    table.register_forward_hook(lambda module, args, output: output.requires_grad_())
    injector = ThoughtInjector(table)
    with injector.inject(thoughts_of(), torch.tensor([1, 9]), detached=False):
        made = table(TOKENS)
    assert not torch.equal(made, table.weight[TOKENS])


def test_laws_that_score_with_the_table_have_it_as_it_was(table: nn.Embedding) -> None:
    injector, thoughts = ThoughtInjector(table), dense_thoughts()
    before = table.weight.detach().clone()
    with injector.inject(thoughts, torch.tensor([1, 9]), detached=False):
        made = table(TOKENS)
        embedding = injector.embedding
    assert torch.equal(made.flatten(0, 1)[[1, 9]], thoughts.rows.dense_ND)
    p_NV = torch.softmax(torch.randn(2, VOCABULARY), dim=1)
    with torch.no_grad():
        table.weight.zero_()  # as where FSDP takes its parts away
    mixed = embedding.mixture(p_NV)
    torch.testing.assert_close(mixed.detach(), p_NV @ before)
    mixed.sum().backward()
    torch.testing.assert_close(table.weight.grad, p_NV.sum(0)[:, None].expand(-1, WIDTH))


def test_positions_behind_the_batch_and_failures(table: nn.Embedding) -> None:
    injector = ThoughtInjector(table)
    with (
        pytest.raises(IndexError, match="position 12 in a batch of 12 tokens"),
        injector.inject(thoughts_of(), torch.tensor([1, 12]), detached=True),
    ):
        table(TOKENS)
    assert torch.equal(table(TOKENS), table.weight[TOKENS])
    injector.remove()
    with injector.inject(thoughts_of(), torch.tensor([1, 2]), detached=True):
        assert torch.equal(table(TOKENS), table.weight[TOKENS])
