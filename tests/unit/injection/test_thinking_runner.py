"""Pieces of the runner that thinks, without an engine."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from vllm import SamplingParams
from vllm.v1.outputs import LogprobsTensors, SamplerOutput

from rsp_rl.injection import vllm_worker
from rsp_rl.injection.thinking_runner import ThinkingRunner, _empty_output, _overwrite
from rsp_rl.injection.vllm_worker import RUNNER, runner_module, thinking_runner
from rsp_rl.thoughts.laws.multiplex import Multiplex
from rsp_rl.thoughts.phases import Phase, Phases
from rsp_rl.thoughts.stepping import Thinker
from rsp_rl.thoughts.table import Entry


def runner() -> ThinkingRunner:
    made = object.__new__(ThinkingRunner)
    made.device, made._masks = torch.device("cpu"), {}
    return made


def entry(masked: torch.Tensor | None) -> Entry:
    return Entry(1, Thinker(Multiplex(), Phase(Phases(), ()), 1), 0, masked)


def test_vllms_worker_makes_a_runner_that_thinks_and_others_do_not() -> None:
    """Fails when upstream names its runner otherwise."""
    stock = getattr(runner_module, RUNNER)
    with thinking_runner():
        made = getattr(runner_module, RUNNER)
        assert issubclass(made, ThinkingRunner)
        assert issubclass(made, stock)
        for name in ("_preprocess", "_sample", "_update_states", "sample_tokens"):
            assert getattr(made, name) is getattr(ThinkingRunner, name)
    assert getattr(runner_module, RUNNER) is stock
    assert not issubclass(stock, ThinkingRunner)
    assert vllm_worker.SoftPromptWorker.__mro__[1] is vllm_worker.PlatformWorker


@pytest.mark.parametrize("kinds", ["aa", "ab", "a-", "--"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_laws_do_not_see_what_is_kept_out_of_an_output(kinds: str, dtype: torch.dtype) -> None:
    made = runner()
    biases = {"a": {3: -100.0, 1: -100.0}, "b": {0: -100.0}, "-": None}
    masks = [made._masked(SamplingParams(logit_bias=biases[kind])) for kind in kinds]
    assert (masks[0] is masks[1]) == (kinds in ("aa", "--"))
    logits = torch.arange(15.0).reshape(3, 5).to(dtype)
    before = logits.clone()
    rows = [(at, entry(masked)) for at, masked in zip((0, 2), masks, strict=True)]
    seen = made._logits(rows, logits, copied=True)
    assert torch.equal(logits, before)
    assert seen.dtype == torch.float32
    for place, kind, row in zip((0, 2), kinds, seen, strict=True):
        hidden = list(biases[kind] or ())
        assert row.isinf().nonzero()[:, 0].tolist() == sorted(hidden)
        kept = [token for token in range(5) if token not in hidden]
        assert row[kept].tolist() == before[place, kept].tolist()


def test_nothing_is_copied_where_the_sampler_is_not_asked() -> None:
    made = runner()
    logits = torch.arange(10.0).reshape(2, 5)
    rows = [(at, entry(None)) for at in (0, 1)]
    assert made._logits(rows, logits, copied=False) is logits
    assert made._logits(rows, logits, copied=True) is not logits


def test_draws_that_do_not_count_leave_generators_alone() -> None:
    made = runner()
    generators = {row: torch.Generator().manual_seed(row) for row in range(3)}
    states = {row: generator.get_state() for row, generator in generators.items()}
    made.input_batch = SimpleNamespace(sampling_metadata=SimpleNamespace(generators=generators))
    with made._undisturbed([0, 2, 5]):
        assert set(generators) == {0, 1, 2}
        for generator in generators.values():
            torch.rand(4, generator=generator)
    same = [torch.equal(generators[row].get_state(), states[row]) for row in range(3)]
    assert same == [True, False, True]


@pytest.mark.parametrize("own", [True, False], ids=["our own output", "the sampler's"])
def test_a_laws_token_takes_the_place_of_the_samplers(own: bool) -> None:
    if own:
        output = _empty_output(3, True, torch.device("cpu"))
    else:
        theirs = LogprobsTensors(
            torch.tensor([[9, 1], [9, 1], [9, 1]], dtype=torch.int32),
            torch.full((3, 2), -5.0),
            torch.full((3,), 7, dtype=torch.int32),
        )
        ids = torch.full((3, 1), 9, dtype=torch.int32)
        output = SamplerOutput(sampled_token_ids=ids, logprobs_tensors=theirs)
    logits = torch.tensor([[0.0, 3.0, 2.0], [5.0, 1.0, 2.0]])
    _overwrite(output, [2, 0], [2, 0], torch.tensor([-0.5, -0.25]), logits)
    rest = 0 if own else 9
    assert output.sampled_token_ids[:, 0].tolist() == [0, rest, 2]
    numbers = output.logprobs_tensors
    assert numbers.logprob_token_ids[:, 0].tolist() == [0, rest, 2]
    assert numbers.logprobs[:, 0].tolist() == [-0.25, 0.0 if own else -5.0, -0.5]
    assert numbers.selected_token_ranks.tolist() == [1, 0 if own else 7, 2]
    if not own:
        assert numbers.logprobs[:, 1].tolist() == [-5.0] * 3
