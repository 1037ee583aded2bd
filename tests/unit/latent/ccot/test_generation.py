"""Answers in batches are those of single problems computed anew for each token; thoughts end."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rsp_rl.basics.errors import ConfigError
from rsp_rl.latent.ccot.adapters import Adapters
from rsp_rl.latent.ccot.answers import opening_of
from rsp_rl.latent.ccot.ending import Ending
from rsp_rl.latent.ccot.generation import Answer, answer_all
from rsp_rl.latent.ccot.settings import CcotSettings
from rsp_rl.latent.ccot.thoughts import Thoughts
from tests.tolerances import rounding
from tests.unit.latent.ccot import naive
from tests.unit.latent.ccot.made import END, OPENING, VOCABULARY, make_adapters, make_problems

LAYER, MAX_NEW = 2, 4
SETTINGS = CcotSettings(ratio=0.05, layer=LAYER, longest_chain=120, max_new_tokens=MAX_NEW)
QUESTIONS = [problem.question for problem in make_problems(6)]


class Tokenizer:
    """Writes ids as they are."""

    eos_token_id = END

    def __call__(self, text: str, add_special_tokens: bool) -> Tokenizer:
        assert text == "###"
        return self

    input_ids = (OPENING,)

    def decode(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))


def make_ending(adapters: Adapters, bias: float = -3.0) -> Ending:
    """Ends thoughts after numbers of its own."""
    ending = Ending(adapters.width).double()
    noise = torch.randn(adapters.width, generator=torch.Generator().manual_seed(3))
    ending.weight.data[0] = noise.double()
    ending.bias.data[:] = bias
    return ending


def answers(
    adapters: Adapters, ending: Ending, settings: CcotSettings = SETTINGS, batch_size: int = 32
) -> list[Answer]:
    found = answer_all(adapters, ending, QUESTIONS, Tokenizer(), settings, batch_size=batch_size)
    return list(found)


@torch.no_grad()
def end_half_at_once(adapters: Adapters, ending: Ending) -> None:
    """Half of the questions' thoughts end with the first, whatever the model's weights."""
    scores = []
    for question in QUESTIONS:
        inputs_1Kd = naive.think(adapters, question, 1, LAYER)
        last_d = naive.with_thoughts(adapters, question, inputs_1Kd)[-1][-1]
        scores.append(float(ending.weight[0] @ last_d))
    middle = len(scores) // 2
    ending.bias.data[:] = -sum(sorted(scores)[middle - 1 : middle + 1]) / 2


@torch.no_grad()
def reference(
    adapters: Adapters, ending: Ending, question: tuple[int, ...]
) -> tuple[int, str, bool]:
    """Thoughts, answer of one question, and whether it ended; all columns anew each time."""
    count = 0
    while True:
        count += 1
        inputs_1Kd = naive.think(adapters, question, count, LAYER)
        last_d = naive.with_thoughts(adapters, question, inputs_1Kd)[-1][-1]
        if count == SETTINGS.cap or float(ending.weight[0] @ last_d + ending.bias) > 0:
            break
    ids = [OPENING]
    while len(ids) <= MAX_NEW:
        token = int(naive.answer_logits(adapters, question, inputs_1Kd, ids)[-1].argmax())
        if token == END:
            break
        ids.append(token)
    return count, " ".join(map(str, ids)), token == END


@pytest.mark.parametrize("batch_size", [1, 4, 6])
def test_as_computed_anew(adapters: Adapters, batch_size: int) -> None:
    """Rows of a batch have unequal questions and end their thoughts at unequal places."""
    ending = make_ending(adapters)
    end_half_at_once(adapters, ending)
    wanted = [reference(adapters, ending, question) for question in QUESTIONS]
    assert len({count for count, _, _ in wanted}) > 1
    found = answers(adapters, ending, batch_size=batch_size)
    assert [(answer.thoughts, answer.text, answer.ended) for answer in found] == wanted
    assert all(answer.tokens == len(answer.text.split()) for answer in found)
    assert all(answer.seconds > 0 for answer in found)


@pytest.mark.parametrize(
    ("bias", "counts", "cut_off"), [(1e6, {1}, False), (-1e6, {6}, True)], ids=["ends", "never"]
)
def test_when_thoughts_end(
    adapters: Adapters, bias: float, counts: set[int], cut_off: bool
) -> None:
    """At the first one, or at the cap: 120 x 0.05."""
    found = answers(adapters, make_ending(adapters, bias))
    assert {answer.thoughts for answer in found} == counts
    assert {answer.cut_off for answer in found} == {cut_off}


def test_an_end_at_the_cap_is_no_cut() -> None:
    adapters = make_adapters()
    settings = replace(SETTINGS, longest_chain=20)
    assert settings.cap == 1
    assert not any(
        answer.cut_off for answer in answers(adapters, make_ending(adapters, 1e6), settings)
    )


def test_how_sure_the_classifier_must_be() -> None:
    adapters = make_adapters()
    ending = make_ending(adapters)
    mean = {
        at: sum(
            a.thoughts for a in answers(adapters, ending, replace(SETTINGS, end_probability=at))
        )
        for at in (1e-9, 0.5, 1 - 1e-9)
    }
    assert mean[1e-9] < mean[0.5] < mean[1 - 1e-9]


def test_without_thoughts(adapters: Adapters) -> None:
    found = answers(adapters, make_ending(adapters), replace(SETTINGS, ratio=0))
    assert {(answer.thoughts, answer.cut_off) for answer in found} == {(0, False)}
    nothing = torch.zeros(1, 0, adapters.width, dtype=torch.float64)
    for question, answer in zip(QUESTIONS, found, strict=True):
        ids = [int(token) for token in answer.text.split()]
        with torch.no_grad():
            logits = naive.answer_logits(adapters, question, nothing, ids[:-1] or ids)
        assert ids[1:] == logits.argmax(dim=-1).tolist()[: len(ids) - 1]


def test_an_answer_is_bounded() -> None:
    found = answers(
        make_adapters(), make_ending(make_adapters()), replace(SETTINGS, max_new_tokens=2)
    )
    assert max(answer.tokens for answer in found) <= 3


def test_more_thoughts_than_the_context_holds() -> None:
    adapters = make_adapters()
    settings = replace(SETTINGS, ratio=0.5)
    with pytest.raises(ConfigError, match=r"60 thoughts and an answer of 4 tokens need 7\d pos"):
        answers(adapters, make_ending(adapters), settings)


def test_the_classifiers_loss_by_hand() -> None:
    """Log-odds of 0: a loss of ln 2 each; learns that the last of each row is the end."""
    ending = Ending(2).double()
    states = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [9.0, 9.0]]]).double()
    real = torch.tensor([[True, True], [True, False]])
    thoughts = Thoughts(states, states.requires_grad_(), real)
    loss = ending.loss(thoughts)
    ln2 = float(torch.tensor(2.0).double().log())
    assert float(loss.detach()) == pytest.approx(ln2, abs=rounding(8, dtype=torch.float64))
    loss.backward()
    # Sigmoid 1/2 minus the label, times the state, over three thoughts.
    wanted = torch.tensor([[0.5 / 3, -0.5 * 2 / 3]], dtype=torch.float64)
    torch.testing.assert_close(
        ending.weight.grad, wanted, rtol=0, atol=rounding(8, dtype=torch.float64)
    )
    assert states.grad is None


def test_the_opening_is_the_marks_first_token() -> None:
    assert opening_of(Tokenizer()) == OPENING
    empty = Tokenizer()
    empty.input_ids = ()
    with pytest.raises(ConfigError, match="no tokens for ###"):
        opening_of(empty)


def test_the_vocabulary_has_room_for_the_marks() -> None:
    assert max(OPENING, END) < VOCABULARY
