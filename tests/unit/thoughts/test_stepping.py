"""One step of a batch: requests of many laws, in many phases."""

from __future__ import annotations

import pytest
import torch

from rsp_rl.thoughts.host import tokens_and_kinds
from rsp_rl.thoughts.laws.gumbel import Gumbel
from rsp_rl.thoughts.laws.hidden import Hidden
from rsp_rl.thoughts.laws.multiplex import Multiplex
from rsp_rl.thoughts.laws.noisy import Soft
from rsp_rl.thoughts.laws.soft_thinking import SoftThinking
from rsp_rl.thoughts.phases import Phase, Phases
from rsp_rl.thoughts.rows import Kind
from rsp_rl.thoughts.stepping import Thinker, heard, step
from tests.unit.thoughts.made import made_embedding, made_logits, made_moment

VOCABULARY = 40
LAWS = (Gumbel(k=3), Multiplex(k=2), Gumbel(k=3), Soft(rms=1.0), SoftThinking(k=4), Gumbel(k=4))


def thinker(law: Gumbel | Multiplex | Soft, seed: int, **phases: object) -> Thinker:
    return Thinker(law, Phase(Phases(**phases), []), seed)


def test_each_law_makes_its_own() -> None:
    """As each alone would; equal laws at once, those that do not think left out."""
    thinkers = [thinker(law, seed) for seed, law in enumerate(LAWS)]
    thinkers[1] = thinker(LAWS[1], 1, begin=(5,))
    logits_NV, embedding = made_logits(0, 6, VOCABULARY), made_embedding(VOCABULARY)
    done = step(thinkers, [4] * 6, logits_NV, embedding)
    assert [made.members for made in done.made] == [[0, 2], [3], [4], [5]]
    for made in done.made:
        assert (made.tokens, made.kinds) == tokens_and_kinds(made.rows)
        for number, member in enumerate(made.members):
            moment = made_moment(logits_NV[member : member + 1], [(member, 4)], embedding)
            alone = LAWS[member].step(moment)
            assert torch.equal(made.rows.ids_NK[number], alone.ids_NK[0])
            torch.testing.assert_close(made.rows.values_NK[number], alone.values_NK[0])
            assert done.emitted[member] == int(alone.emitted_N)
    assert done.emitted[1] is None
    assert heard(thinkers, [None, 5, None, None, None, None], logits_NV) == []
    assert thinkers[1].phase.thinking


def test_forced_tokens_and_ends_are_rows_too() -> None:
    """Of the law's width; what is not a thought weighs all on its token."""
    logits_NV, embedding = made_logits(0, 3, VOCABULARY), made_embedding(VOCABULARY)
    first = int(SoftThinking(k=3).step(made_moment(logits_NV[2:])).emitted_N)
    thinkers = [
        thinker(SoftThinking(k=3), 0, max_thoughts=1, on_cut=(7, 8)),
        thinker(Soft(rms=1.0), 1, max_thoughts=1, on_cut=(9,)),
        thinker(SoftThinking(k=3), 2, end_ids=(first,)),
    ]
    done = step(thinkers, [4] * 3, logits_NV, embedding)
    rows, noisy = (made.rows for made in done.made)
    assert rows.kind_N.tolist() == [Kind.MIX, Kind.TOKEN]
    assert rows.ids_NK[1].tolist() == [first] * 3
    assert rows.values_NK[1].tolist() == [1, 0, 0]
    assert noisy.kind_N.tolist() == [Kind.MIX_NOISE]
    done = step(thinkers, [5] * 3, logits_NV, embedding)
    assert done.emitted == [7, 9, None]
    rows, noisy = (made.rows for made in done.made)
    assert (rows.kind_N.tolist(), noisy.kind_N.tolist()) == ([Kind.FORCED], [Kind.FORCED])
    assert not noisy.dense_ND.any()
    assert step(thinkers, [6] * 3, logits_NV, embedding).emitted == [8, None, None]
    assert step(thinkers, [7] * 3, logits_NV, embedding).made == []


def test_entropies_are_those_before_filters_at_the_laws_temperature() -> None:
    """Two nats below the threshold by one temperature, above it by the other."""
    logits_NV = torch.zeros(2, VOCABULARY)
    logits_NV[:, 3] = 6.0
    p = [torch.softmax(logits_NV[0] / t, 0) for t in (1.0, 3.0)]
    cold, warm = (float(-(part * part.log()).sum()) for part in p)
    middle = (cold + warm) / 2
    assert cold < middle < warm
    thinkers = [
        thinker(SoftThinking(k=1, temperature=t), 0, cold_entropy=middle, cold_steps=1, on_cut=(9,))
        for t in (1.0, 3.0)
    ]
    assert step(thinkers, [4, 4], logits_NV, made_embedding(VOCABULARY)).emitted == [9, 3]


def test_seeds_are_unsigned() -> None:
    """The largest is another than 0 and than what a signed integer holds."""
    logits_NV, embedding = torch.zeros(3, VOCABULARY), made_embedding(VOCABULARY)
    thinkers = [thinker(Multiplex(k=8), seed) for seed in (0, 2**63, 2**64 - 1)]
    (made,) = step(thinkers, [4] * 3, logits_NV, embedding).made
    rows = made.rows
    assert len({tuple(ids) for ids in rows.ids_NK.tolist()}) == 3


def test_nobody() -> None:
    done = step([], [], torch.empty(0, VOCABULARY), made_embedding(VOCABULARY))
    assert (done.emitted, done.made) == ([], [])
    assert heard([], [], torch.empty(0, VOCABULARY)) == []


def test_hidden_states_are_those_of_the_members() -> None:
    thinkers = [thinker(Multiplex(k=1), 0), thinker(Hidden(), 1)]
    hidden_ND = torch.arange(12.0).reshape(2, 6)
    logits_NV, embedding = made_logits(0, 2, VOCABULARY), made_embedding(VOCABULARY)
    done = step(thinkers, [4, 4], logits_NV, embedding, hidden_ND)
    assert torch.equal(done.made[1].rows.dense_ND, hidden_ND[1:])
    with pytest.raises(ValueError, match="hidden states"):
        step(thinkers, [4, 4], logits_NV, embedding)
