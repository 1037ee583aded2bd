"""Inputs and scores made from a record, position by position."""

from __future__ import annotations

import pytest
import torch

from rsp_rl.thoughts.laws.gumbel import Gumbel
from rsp_rl.thoughts.laws.multiplex import Multiplex
from rsp_rl.thoughts.laws.soft_thinking import SoftThinking
from rsp_rl.thoughts.record import ThoughtRecord
from rsp_rl.thoughts.replay import replay_inputs, replay_scores
from rsp_rl.thoughts.rows import Kind, Rows, concatenate
from tests.unit.thoughts.made import made_embedding, made_logits, made_moment

VOCABULARY = 30
PROMPT = [3, 1, 4, 1, 5]


def made_record(law: Gumbel | Multiplex | SoftThinking) -> ThoughtRecord:
    """Three thoughts, two forced tokens, two samples."""
    rows = law.step(made_moment(made_logits(1, 3, VOCABULARY)))
    forced = Rows.tokens(Kind.FORCED, [7, 8], like=rows)
    samples = Rows.tokens(Kind.TOKEN, [9, 2], like=rows)
    return ThoughtRecord(law, 5, len(PROMPT), concatenate([rows, forced, samples]))


@pytest.mark.parametrize("law", [Gumbel(k=4), Multiplex(k=3)], ids=str)
def test_inputs(law: Gumbel | Multiplex) -> None:
    record, embedding = made_record(law), made_embedding(VOCABULARY)
    tokens = record.rows.emitted_N.tolist()
    soft_LD = torch.randn(2, 6)
    inputs_D = replay_inputs(PROMPT, tokens, record, embedding, (1, soft_LD))
    expected_D = embedding.rows(torch.tensor(PROMPT + tokens)).detach().clone()
    expected_D[1:3] = soft_LD
    expected_D[5:8] = law.embed(record.rows[:3], embedding).detach()
    assert torch.equal(inputs_D, expected_D)
    assert not torch.equal(inputs_D[5], embedding.rows(torch.tensor(tokens[0])))


def test_scores_of_every_kind() -> None:
    law, embedding = Multiplex(k=3), made_embedding(VOCABULARY)
    record = made_record(law)
    logits_TV = made_logits(2, 7, VOCABULARY).requires_grad_()
    found = replay_scores(record, logits_TV, embedding, temperature=0.5)
    draws_NK = torch.log_softmax(logits_TV[:3], 1).gather(1, record.rows.ids_NK[:3].long())
    tokens_N = torch.log_softmax(logits_TV[5:] / 0.5, 1)[[0, 1], [9, 2]]
    assert found.forced_T.tolist() == [False] * 3 + [True] * 2 + [False] * 2
    assert found.scored_T.tolist() == [True] * 3 + [False] * 2 + [True] * 2
    torch.testing.assert_close(found.draws_TK[:3], draws_NK)
    torch.testing.assert_close(found.draws_TK[5:, 0], tokens_N)
    assert not found.draws_TK[3:, 1:].any()
    torch.testing.assert_close(found.log_probs_T, found.draws_TK.sum(1))
    found.log_probs_T.sum().backward()
    moved = logits_TV.grad.abs().sum(1) > 0
    assert moved.tolist() == found.scored_T.tolist()


def test_scores_of_a_law_without_any() -> None:
    record = made_record(SoftThinking(k=3))
    found = replay_scores(record, made_logits(2, 7, VOCABULARY), made_embedding(VOCABULARY))
    assert found.scored_T.tolist() == [False] * 5 + [True] * 2
    assert found.log_probs_T[:5].tolist() == [0] * 5


def test_of_one_number_a_position() -> None:
    law = Gumbel(k=4)
    record, logits_TV = made_record(law), made_logits(2, 7, VOCABULARY)
    embedding = made_embedding(VOCABULARY)
    found = replay_scores(record, logits_TV, embedding)
    expected_N = law.log_prob(record.rows[:3], logits_TV[:3], embedding)
    assert torch.equal(found.log_probs_T[:3], expected_N)


def test_what_does_not_fit() -> None:
    record, embedding = made_record(Gumbel(k=4)), made_embedding(VOCABULARY)
    tokens = record.rows.emitted_N.tolist()
    with pytest.raises(ValueError, match="differ at position 6"):
        replay_inputs(PROMPT, tokens[:-1], record, embedding)
    with pytest.raises(ValueError, match="begins at position 5"):
        replay_inputs(PROMPT[:-1], tokens, record, embedding)
    with pytest.raises(ValueError, match="outside a prompt of 5"):
        replay_inputs(PROMPT, tokens, record, embedding, (4, torch.zeros(2, 6)))
    with pytest.raises(ValueError, match="6 rows of logits for 7"):
        replay_scores(record, made_logits(2, 6, VOCABULARY), embedding)
