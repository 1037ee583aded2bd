"""Losses and gradients of each phase, held against all columns anew without a cache."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from rsp_rl.latent.ccot.adapters import Adapters
from rsp_rl.latent.ccot.batches import chain_of, collate
from rsp_rl.latent.ccot.ending import Ending
from rsp_rl.latent.ccot.phases import (
    DECODER,
    GENERATOR,
    JOINT,
    Phase,
    losses_of,
    phases_of,
    trained_in,
)
from rsp_rl.latent.ccot.positions import evenly_spaced
from rsp_rl.latent.ccot.settings import CcotSettings
from rsp_rl.latent.ccot.thoughts import scaled_error
from rsp_rl.latent.problem_tokens import ProblemTokens
from tests.tolerances import FORWARD, rounding
from tests.unit.latent.ccot import naive
from tests.unit.latent.ccot.made import CONFIGS, make_adapters, make_problems

RATIO, LAYER = 0.4, 2
SETTINGS = CcotSettings(ratio=RATIO, layer=LAYER)
PROBLEMS = make_problems()

#: Losses of up to 32, through some thousand roundings of float64.
EXACT = rounding(4096, size=32, dtype=torch.float64)


def gradients(
    loss: torch.Tensor, adapters: Adapters, parameters: Sequence[nn.Parameter]
) -> list[torch.Tensor]:
    """Zeros where a parameter has no part; whatever else has a gradient is an error."""
    loss.backward()
    wanted = {id(parameter) for parameter in parameters}
    strays = [
        name
        for name, parameter in adapters.model.named_parameters()
        if parameter.grad is not None and id(parameter) not in wanted
    ]
    assert strays == []
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    return found


def compare(phase: Phase, adapters: Adapters, loss: torch.Tensor, reference: torch.Tensor) -> None:
    learning = trained_in(phase, adapters, Ending(adapters.width).double(), SETTINGS)[0]
    torch.testing.assert_close(loss, reference, rtol=0, atol=EXACT)
    found = gradients(loss, adapters, learning)
    wanted = gradients(reference, adapters, learning)
    assert max(float(gradient.abs().max()) for gradient in wanted) > 1e-3
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=EXACT)


def begin(phase: Phase, adapters: Adapters) -> torch.Tensor:
    """The loss that trains the adapters."""
    ending = Ending(adapters.width).double()
    adapters.train_only(trained_in(phase, adapters, ending, SETTINGS)[0])
    losses = losses_of(phase, adapters, ending, collate(PROBLEMS, RATIO), SETTINGS)
    return next(iter(losses.values()))


def naive_state_error(adapters: Adapters, trained: int) -> torch.Tensor:
    found, gold = [], []
    for problem in PROBLEMS:
        chain, question = chain_of(problem), problem.question
        chosen = [len(question) + place for place in evenly_spaced(len(chain), RATIO)]
        with torch.no_grad():
            columns = naive.embed(adapters, (*question, *chain, *problem.answer))
            all_states = naive.states(adapters, columns, ["theta"] * columns.shape[1])
        fed = [len(question) - 1, *chosen[:-1]]
        states = naive.with_thoughts(adapters, question, all_states[LAYER][fed][None])
        found.append(states[trained][len(question) :])
        gold.append(all_states[trained][chosen])
    errors = [(one - other).square().mean() for one, other in zip(found, gold, strict=True)]
    return torch.stack(errors).mean() / torch.cat(gold).var(correction=0)


def naive_answer_loss(adapters: Adapters) -> torch.Tensor:
    losses = []
    for problem in PROBLEMS:
        count = len(evenly_spaced(len(chain_of(problem)), RATIO))
        inputs_1Kd = naive.think(adapters, problem.question, count, LAYER)
        answer = problem.answer
        logits = naive.answer_logits(adapters, problem.question, inputs_1Kd, answer[:-1])
        targets = torch.tensor(answer[1:])
        losses.append(nn.functional.cross_entropy(logits, targets, reduction="none"))
    return torch.cat(losses).mean()


@pytest.mark.parametrize("trained", [1, 2, 3, 4])
def test_the_generators_layer(adapters: Adapters, trained: int) -> None:
    """Layer by layer: below l, l itself, above it, and the last one with the final norm."""
    phase = Phase(GENERATOR, 1, trained)
    loss = begin(phase, adapters)
    compare(phase, adapters, loss, naive_state_error(adapters, trained))


@pytest.mark.parametrize("phase", [Phase(DECODER, 1), Phase(JOINT, 1)], ids=str)
def test_the_answer(adapters: Adapters, phase: Phase) -> None:
    """In the joint phase the reference goes back through every thought that phi had by itself."""
    loss = begin(phase, adapters)
    compare(phase, adapters, loss, naive_answer_loss(adapters))


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_answer_in_float32(kind: str) -> None:
    adapters = make_adapters(kind, torch.float32)
    adapters.train_only([])
    batch, ending = collate(PROBLEMS, RATIO), Ending(adapters.width)
    for phase in (Phase(DECODER, 1), Phase(JOINT, 1)):
        loss = losses_of(phase, adapters, ending, batch, SETTINGS)["answer_loss"]
        torch.testing.assert_close(loss, naive_answer_loss(adapters), rtol=0, atol=FORWARD)


def layers_with_gradients(phase: Phase, adapters: Adapters) -> set[tuple[str, int]]:
    """By adapter and layer from 1."""
    begin(phase, adapters).backward()
    found = set()
    for name, parameter in adapters.state_dict().items():
        if parameter.grad is not None:
            parts = name.split(".")
            block = next(int(part) for part in parts if part.isdigit())
            found.add(("phi" if "phi" in parts else "psi", block + 1))
            parameter.grad = None
    return found


@pytest.mark.parametrize(
    ("phase", "learning"),
    [
        (Phase(GENERATOR, 1, 1), {("phi", 1)}),
        (Phase(GENERATOR, 1, 3), {("phi", 3)}),
        (Phase(GENERATOR, 1, 4), {("phi", 4)}),
        (Phase(DECODER, 1), {("psi", 1), ("psi", 2), ("psi", 3), ("psi", 4)}),
        (
            Phase(JOINT, 1),
            {("psi", 1), ("psi", 2), ("psi", 3), ("psi", 4), ("phi", 3), ("phi", 4)},
        ),
    ],
    ids=lambda one: str(one) if isinstance(one, Phase) else "",  # a set has no order of its own
)
def test_who_learns(adapters: Adapters, phase: Phase, learning: set[tuple[str, int]]) -> None:
    assert layers_with_gradients(phase, adapters) == learning


def test_all_of_a_layer_learns() -> None:
    adapters = make_adapters()
    begin(Phase(GENERATOR, 1, 2), adapters).backward()
    assert all(p.grad is not None for p in adapters.parameters("phi", [2]))


def test_without_thoughts_psi_answers_the_question(adapters: Adapters) -> None:
    settings = CcotSettings(ratio=0, layer=LAYER)
    ending = Ending(adapters.width).double()
    phase = Phase(DECODER, 1)
    [learning] = trained_in(phase, adapters, ending, settings)
    adapters.train_only(learning)
    losses = losses_of(phase, adapters, ending, collate(PROBLEMS, 0), settings)
    assert losses.keys() == {"answer_loss"}
    nothing = torch.zeros(1, 0, adapters.width, dtype=torch.float64)
    wanted = []
    for problem in PROBLEMS:
        logits = naive.answer_logits(adapters, problem.question, nothing, problem.answer[:-1])
        targets = torch.tensor(problem.answer[1:])
        wanted.append(nn.functional.cross_entropy(logits, targets, reduction="none"))
    reference = torch.cat(wanted).mean()
    torch.testing.assert_close(losses["answer_loss"], reference, rtol=0, atol=EXACT)


@pytest.mark.parametrize("phase", [Phase(GENERATOR, 1, 2), Phase(JOINT, 1)], ids=str)
def test_a_bf16_model_has_float32_losses_and_gradients(phase: Phase) -> None:
    adapters = make_adapters(dtype=torch.bfloat16)
    ending = Ending(adapters.width)
    adapters.train_only(trained_in(phase, adapters, ending, SETTINGS)[0])
    losses = losses_of(phase, adapters, ending, collate(PROBLEMS, RATIO), SETTINGS)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    sum(losses.values()).backward()
    learnt = adapters.parameters("phi", [2] if phase.layer else [3])
    for parameter in learnt:
        assert parameter.grad.dtype == torch.float32
        assert torch.isfinite(parameter.grad).all()


def test_the_error_by_hand() -> None:
    """Gold 1, 3 | 5, 7 | 2, 6 in rows of two thoughts and one; the padding counts nowhere."""
    gold = torch.tensor([[[1.0, 3.0], [5.0, 7.0]], [[2.0, 6.0], [100.0, 100.0]]])
    found = torch.tensor([[[2.0, 3.0], [5.0, 4.0]], [[2.0, 4.0], [0.0, 0.0]]])
    real = torch.tensor([[True, True], [True, False]])
    variance = (9 + 1 + 1 + 9 + 4 + 4) / 6  # about the mean of 4
    # Errors 0.5 and 4.5 of the first problem, 2 of the second.
    wanted = ((0.5 + 4.5) / 2 + 2) / 2 / variance
    found_error = float(scaled_error(found, gold, real))
    assert found_error == pytest.approx(wanted, abs=rounding(16, size=32))


def test_the_mean_state_has_an_error_of_one() -> None:
    generator = torch.Generator().manual_seed(0)
    gold = torch.randn(3, 4, 5, generator=generator)
    real = torch.ones(3, 4, dtype=torch.bool)
    error = float(scaled_error(gold.mean().expand(gold.shape), gold, real))
    assert error == pytest.approx(1, abs=rounding(64, size=8))


def test_order_of_phases() -> None:
    settings = CcotSettings(ratio=0.1, layer=2, epochs_per_layer=2, decoder_epochs=3)
    assert phases_of(settings, 3) == [
        *(Phase(GENERATOR, 2, 1), Phase(GENERATOR, 2, 2), Phase(GENERATOR, 2, 3)),
        *(Phase(DECODER, 3), Phase(JOINT, 1)),
    ]


def test_without_thoughts_psi_has_all_epochs_of_answers() -> None:
    settings = CcotSettings(ratio=0, decoder_epochs=3, joint_epochs=2)
    assert phases_of(settings, 3) == [Phase(DECODER, 5)]


def test_a_phase_without_epochs_is_none() -> None:
    assert {phase.name for phase in phases_of(CcotSettings(joint_epochs=0), 2)} == {
        *(GENERATOR, DECODER)
    }


def problem_of(chain: int) -> ProblemTokens:
    return ProblemTokens((6, 7), (tuple(range(8, 8 + chain)),), (5, 9, 1))


def test_a_problems_number_of_thoughts_is_its_own() -> None:
    """Of chains of 10 and 3 tokens at 0.4, 4 and 2."""
    batch = collate([problem_of(10), problem_of(3)], 0.4)
    assert batch.real_BK.tolist() == [[True] * 4, [True, True, False, False]]
    assert batch.thoughts_BK.tolist() == [[2, 4, 7, 9], [1, 2, 0, 0]]
