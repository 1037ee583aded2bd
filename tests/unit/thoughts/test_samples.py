"""Thoughts of several outputs below each other, and how far two models are apart on them."""

from __future__ import annotations

import pytest
import torch

from rsp_rl.thoughts.law import InputLaw, Moment
from rsp_rl.thoughts.laws.gumbel import Gumbel
from rsp_rl.thoughts.laws.multiplex import Multiplex
from rsp_rl.thoughts.laws.neftune import Neftune
from rsp_rl.thoughts.laws.neighbours import Neighbours
from rsp_rl.thoughts.laws.noisy import Fuzzy, Soft
from rsp_rl.thoughts.laws.soft_thinking import SoftThinking
from rsp_rl.thoughts.noise import Noise
from rsp_rl.thoughts.phases import Phase, Phases
from rsp_rl.thoughts.record import ThoughtRecord
from rsp_rl.thoughts.rows import Kind, Rows, concatenate
from rsp_rl.thoughts.samples import SampleThoughts
from rsp_rl.thoughts.stepping import Thinker, step
from tests.unit.thoughts.made import made_embedding, made_logits, made_moment

VOCABULARY = 40
LAWS = (
    Multiplex(k=3),
    Gumbel(k=5, temperature=0.7),
    Gumbel(k=5, clamp=True, score="code"),
    Soft(rms=1.0),
    Fuzzy(rms=1.0),
    Neighbours(rate=1.0),
    Neftune(),
)

IDS = ("multiplex", "gumbel", "gumbel, clamped", "soft", "fuzzy", "neighbours", "neftune")


def make_record(law: InputLaw, seed: int, start: int, kinds: str) -> ThoughtRecord:
    """`t`houghts, `a`nswers and `f`orced tokens, from made logits."""
    logits_NV, embedding = made_logits(seed, len(kinds), VOCABULARY), made_embedding(VOCABULARY)
    noise = Noise.of([seed] * len(kinds), range(start, start + len(kinds)))
    made = law.step(Moment(logits_NV, noise, embedding))
    rows = []
    for at, kind in enumerate(kinds):
        row = made[at : at + 1]
        if kind != "t":
            single = Kind.FORCED if kind == "f" else Kind.TOKEN
            row = Rows.tokens(single, row.ids_NK[:, 0], like=row)
        rows.append(row)
    return ThoughtRecord(law, seed, start, concatenate(rows))


@pytest.mark.parametrize("law", LAWS, ids=IDS)
def test_they_know_where_they_stand_and_what_made_them(law: InputLaw) -> None:
    records = [make_record(law, 2**64 - 5, 7, "ttfa"), None, make_record(law, 3, 2, "aat")]
    thoughts = SampleThoughts.of(records)
    assert thoughts is not None
    assert len(thoughts) == 3
    assert thoughts.places([100, 200, 300]).tolist() == [100, 101, 302]
    assert thoughts.noise.positions_N.tolist() == [7, 8, 4]
    assert thoughts.noise.seeds_N.tolist() == [-5, -5, 3]
    embedding = made_embedding(VOCABULARY)
    logits_NV = torch.cat(
        [made_logits(2**64 - 5, 4, VOCABULARY)[:2], made_logits(3, 3, VOCABULARY)[2:]]
    )
    # What made them is not apart from them, another model is.
    right, wrong = (
        thoughts.gaps(logits, embedding) for logits in (logits_NV, logits_NV.roll(1, 0))
    )
    if type(law).gap is InputLaw.gap:  # its log-probs say it
        assert right is wrong is None
    else:
        assert right.max() < 1e-5
        assert wrong.mean() > 0.1
    if law.emits_likeliest:
        assert not thoughts.flips(logits_NV).any()
        assert thoughts.flips(-logits_NV).all()
    whole = law.log_prob(thoughts.rows, logits_NV, embedding)
    torch.testing.assert_close(thoughts.log_probs(logits_NV, embedding), whole)


def test_few_at_a_time_are_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from rsp_rl.thoughts import samples

    thoughts = SampleThoughts.of([make_record(Gumbel(k=5), 1, 0, "ttttt")])
    embedding = made_embedding(VOCABULARY)
    found = []
    for size in (2, 1024):
        monkeypatch.setattr(samples, "_CHUNK", size)
        logits_NV = made_logits(1, 5, VOCABULARY).requires_grad_()
        log_N = thoughts.log_probs(logits_NV, embedding)
        (slope_NV,) = torch.autograd.grad(log_N.sum(), logits_NV)
        found.append((log_N.detach(), slope_NV, thoughts.gaps(logits_NV, embedding)))
    for part, whole in zip(*found, strict=True):
        torch.testing.assert_close(part, whole)


def test_none_and_several_laws() -> None:
    law = Multiplex(k=2)
    assert SampleThoughts.of([]) is None
    assert SampleThoughts.of([None, make_record(law, 1, 0, "aaf")]) is None
    both = [make_record(law, 1, 0, "t"), make_record(Multiplex(k=2, top_p=0.9), 1, 0, "t")]
    with pytest.raises(ValueError, match="several laws"):
        SampleThoughts.of(both)
    thoughts = SampleThoughts.of([make_record(SoftThinking(k=2), 1, 0, "t")])
    with pytest.raises(ValueError, match="soft_thinking has no log-prob"):
        thoughts.log_probs(made_logits(1, 1, VOCABULARY), made_embedding(VOCABULARY))


@pytest.mark.parametrize("law", LAWS, ids=IDS)
def test_records_travel_as_tensors(law: InputLaw) -> None:
    record = make_record(law, 9, 4, "tfa")
    encoded = record.to_tensor()
    assert encoded.dtype == torch.uint8
    assert ThoughtRecord.from_tensor(encoded).to_bytes() == record.to_bytes()
    assert record.chosen.tolist() == [True, False, True]
    with pytest.raises(ValueError, match="cut at byte"):
        ThoughtRecord.from_tensor(encoded[:-1])
    with pytest.raises(ValueError, match=r"uint8 \[bytes\]"):
        ThoughtRecord.from_tensor(encoded.long())


@pytest.mark.parametrize(
    ("law", "kind"), [(Soft(rms=1.0), Kind.END), (Gumbel(k=3), Kind.TOKEN)], ids=["soft", "g"]
)
def test_an_end_that_no_draw_made_is_nobodys_choice(law: InputLaw, kind: Kind) -> None:
    """The likeliest token of a dense law ends the thoughts: no log-prob is its."""
    logits_NV, embedding = made_logits(0, 1, VOCABULARY), made_embedding(VOCABULARY)
    end = int(law.step(made_moment(logits_NV, [(0, 4)], embedding)).emitted_N)
    thinker = Thinker(law, Phase(Phases(end_ids=(end,)), []), 0)
    done = step([thinker], [4], logits_NV, embedding)
    assert done.emitted == [end]
    assert done.made[0].rows.kind_N.tolist() == [kind]
    assert not thinker.phase.thinking


def test_noise_of_seeds_and_positions() -> None:
    noise = Noise.of([2**64 - 1, 5], [3, 4])
    assert noise.seeds_N.tolist() == [-1, 5]
    assert noise.positions_N.tolist() == [3, 4]
