"""Phases, against what they are meant to do, over made emissions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rsp_rl.basics.errors import ConfigError
from rsp_rl.thoughts.phases import Phase, Phases
from rsp_rl.thoughts.rows import Kind
from tests.properties import examples

STOP, END = 99, 50
LETTERS = "abcdefghij"


def decode(ids: list[int]) -> str:
    return "".join(LETTERS[token] if token < 10 else f"<{token}>" for token in ids)


@dataclass
class Trace:
    """What became of a request, a position each: `thought`, `token`, `forced` or `sample`."""

    kinds: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    ended: bool = False


def run(
    phases: Phases, emissions: list[tuple[int, float]], before: Sequence[int] = ()
) -> tuple[Trace, Phase]:
    """An engine in small: proposals with their entropies, until the output ends."""
    phase, trace = Phase(phases, [STOP], decode), Trace()
    if before:
        phase.took_before(before)
    for token, entropy in emissions:
        told = entropy if phase.watches_entropy else None
        if phase.forced is not None:
            token, kind = phase.forced, "forced"
            phase.took_forced()
        elif phase.thinking:
            instead, token = phase.took_thought(token, told)
            kind = {None: "thought", Kind.TOKEN: "token", Kind.FORCED: "forced"}[instead]
        else:
            kind = "sample"
            trace.ended = phase.took_sample(token, told)
        trace.kinds.append(kind)
        trace.tokens.append(token)
        if trace.ended or token == STOP:
            break
    return trace, phase


FORCED = st.lists(st.integers(60, 69), max_size=3).map(tuple)
SETTINGS = st.builds(
    Phases,
    begin=st.sampled_from([(), (3,), (3, 3, 4)]),
    begin_text=st.sampled_from(["", "", "dd"]),
    end_ids=st.sampled_from([(), (END,), (END, 7)]),
    end_text=st.sampled_from(["", "ab", "c"]),
    max_thoughts=st.one_of(st.none(), st.integers(1, 6)),
    cold_entropy=st.sampled_from([0.0, 1.0]),
    cold_steps=st.integers(1, 3),
    on_end=FORCED,
    on_cut=FORCED,
)
EMISSIONS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 9), st.sampled_from([3, 4, END, STOP])),
        st.sampled_from([0.5, 2.0]),
    ),
    max_size=30,
)


def cause(phases: Phases, thoughts: list[tuple[int, float]]) -> str | None:
    """Why thinking ends at the last of these proposals, if it does; by the settings alone."""
    token, _ = thoughts[-1]
    if token in phases.end_ids:
        return "end"
    if token == STOP:
        return "stop"
    cold = [entropy < phases.cold_entropy for _, entropy in thoughts]
    if phases.cold_entropy and len(cold) >= phases.cold_steps and all(cold[-phases.cold_steps :]):
        return "cold"
    return "full" if len(thoughts) == phases.max_thoughts else None


@examples(600)
@given(SETTINGS, EMISSIONS)
@example(Phases(max_thoughts=1, cold_entropy=1.0, cold_steps=1, on_cut=(60,)), [(1, 0.5)] * 5)
@example(Phases(begin=(3, 3, 4), end_ids=(END,)), [(3, 2), (3, 2), (3, 2), (4, 2), (5, 2)])
def test_every_position_is_what_it_should_be(
    phases: Phases, emissions: list[tuple[int, float]]
) -> None:
    """Before the marker samples; then thoughts, then what is forced, then samples again."""
    trace, phase = run(phases, emissions)
    kinds, tokens = trace.kinds, trace.tokens
    at, length = 0, len(kinds)

    def begun() -> bool:
        begin, text = phases.begin, phases.begin_text
        if begin and tuple(tokens[max(0, at - len(begin)) : at]) == begin:
            return True
        return not (begin or text) or (bool(text) and decode(tokens[:at]).endswith(text))

    while at < length and not begun():
        assert kinds[at] == "sample"
        at += 1
    first, forced = at, ()
    while at < length:
        why = cause(phases, emissions[first : at + 1])
        text_ended = False
        if why == "cold" and phases.on_cut:
            assert kinds[at] == "forced"
            assert tokens[at] == phases.on_cut[0]
            forced = phases.on_cut[1:]
        elif why in ("end", "stop"):
            assert kinds[at] == "token"
            forced = phases.on_end if why == "end" else ()
        else:
            assert kinds[at] == "thought"
            text_ended = bool(phases.end_text) and decode(tokens[: at + 1]).endswith(
                phases.end_text
            )
            if why is None and text_ended:
                forced = phases.on_end
            elif why == "full" and not text_ended:
                forced = phases.on_cut
            elif why == "full":
                forced = phases.on_end
        at += 1
        if why or text_ended:
            break
    assert phase.thoughts == kinds.count("thought")
    assert phases.max_thoughts is None or phase.thoughts <= phases.max_thoughts
    rest = kinds[at:]
    count = min(len(forced), len(rest))
    assert rest == ["forced"] * count + ["sample"] * (len(rest) - count)
    assert tokens[at : at + count] == list(forced[:count])
    assert "thought" not in rest  # never after the end, whatever marker comes


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_cold_stop_at_exactly_its_step(steps: int) -> None:
    """A warm step begins the count anew; the step that fills it is the forced token."""
    phases = Phases(cold_entropy=1.0, cold_steps=steps, on_cut=(60, 61))
    cold, warm = (1, 0.5), (2, 1.0)  # 1.0 is not below 1.0
    trace, phase = run(phases, [cold] * (steps - 1) + [warm] + [cold] * (steps + 4))
    before = 2 * steps - 1
    assert trace.kinds == ["thought"] * before + ["forced"] * 2 + ["sample"] * 3
    assert trace.tokens[before : before + 2] == [60, 61]
    assert phase.thoughts == before


def test_cold_stop_without_a_token_to_force() -> None:
    trace, _ = run(Phases(cold_entropy=1.0, cold_steps=2), [(1, 0.5)] * 4)
    assert trace.kinds == ["thought", "thought", "sample", "sample"]


@pytest.mark.parametrize("abort", [False, True])
def test_cold_steps_after_thinking(abort: bool) -> None:
    """They end the output where a fork's do, counted anew; and mean nothing else."""
    phases = Phases(end_ids=(END,), cold_entropy=1.0, cold_steps=2, on_cut=(60,), cold_abort=abort)
    trace, _ = run(phases, [(1, 0.5), (END, 0.5), (1, 0.5), (2, 2.0), (1, 0.5), (1, 0.5), (1, 2)])
    assert trace.ended is abort
    assert len(trace.kinds) == (6 if abort else 7)
    assert trace.kinds[:2] == ["thought", "token"]


def test_begin_marker_in_the_prompt_or_not() -> None:
    trace, _ = run(Phases(begin=(3, 4), max_thoughts=2), [(t, 2.0) for t in (3, 3, 4, 5, 6, 7, 3)])
    assert trace.kinds == ["sample"] * 3 + ["thought"] * 2 + ["sample"] * 2
    again = [(t, 2.0) for t in (3, 4, 5, 6, 3, 4, 8)]
    assert run(Phases(begin=(3, 4), max_thoughts=2), again)[0].kinds[-1] == "sample"


def test_end_text_across_tokens_of_many_letters() -> None:
    def decoded(ids: list[int]) -> str:
        return "".join({1: "The fi", 2: "nal answer ", 3: "is: ", 4: "no"}[token] for token in ids)

    phase = Phase(Phases(end_text="final answer is: ", on_end=(4,)), [], decoded)
    for token in (4, 1, 2):
        phase.took_thought(token, None)
        assert phase.thinking
    phase.took_thought(3, None)
    assert not phase.thinking
    assert phase.forced == 4


#: Texts of tokens that are cut elsewhere than the phrases.
PIECES = {1: "Think", 2: "ing: so", 3: "The answer", 4: " is: 5", 5: "no", 6: "ing", 7: ": so"}


@pytest.mark.parametrize("opening", [(1, 2), (1, 6, 7)])
def test_a_phrase_that_ends_within_a_token(opening: tuple[int, ...]) -> None:
    """Whatever tokens it comes in; one that would have to end at a token might never come."""
    phases = Phases(begin_text="Thinking: ", end_text="answer is: ", on_end=(60,))
    phase = Phase(phases, [], lambda ids: "".join(PIECES[token] for token in ids))
    for token in (5, *opening):
        assert not phase.thinking
        phase.took_sample(token, None)
    for token in (5, 3, 4):
        assert phase.thinking
        phase.took_thought(token, None)
    assert phase.forced == 60


def test_what_came_before_the_thoughts_ends_none() -> None:
    phase = Phase(Phases(begin=(4,), end_text="cd"), [], decode)
    for token in (2, 3, 4):
        phase.took_sample(token, None)
    phase.took_thought(5, None)
    assert phase.thinking
    for token in (2, 3):
        phase.took_thought(token, None)
    assert not phase.thinking


@examples(400)
@given(SETTINGS, EMISSIONS, st.data())
def test_an_output_goes_on_as_if_it_had_not_been_interrupted(
    phases: Phases, emissions: list[tuple[int, float]], data: st.DataObject
) -> None:
    phases = replace(phases, cold_entropy=0.0)
    whole, _ = run(phases, emissions)
    at = data.draw(st.integers(0, len(whole.tokens)), "interrupted at")
    if at and whole.tokens[at - 1] == STOP:
        return
    rest, _ = run(phases, emissions[at:], whole.tokens[:at])
    assert rest.kinds == whole.kinds[at:]
    assert rest.tokens == whole.tokens[at:]


def test_what_entropies_decide_cannot_be_told_from_tokens() -> None:
    phase = Phase(Phases(cold_entropy=1.0), [STOP])
    with pytest.raises(ConfigError, match="no record says"):
        phase.took_before([1])
