"""Pieces of the runner that thinks, without an engine."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from vllm import SamplingParams
from vllm.v1.outputs import LogprobsTensors, SamplerOutput

from rsp_rl.injection import thinking_runner, thinking_runner_v2, vllm_worker
from rsp_rl.injection.added_rows import AddedRows
from rsp_rl.injection.thinking_engine import V1_TAKES, V2_TAKES
from rsp_rl.injection.thinking_runner import ThinkingRunner, _overwrite
from rsp_rl.injection.thinking_runner_v1 import ThinkingRunnerV1, _empty_output
from rsp_rl.injection.thinking_runner_v2 import LawSampler, ThinkingRunnerV2, _scheduled
from rsp_rl.injection.vllm_worker import runner_of_platform
from rsp_rl.thoughts.laws.multiplex import Multiplex
from rsp_rl.thoughts.phases import Phase, Phases
from rsp_rl.thoughts.settings import EXTRA_ARG
from rsp_rl.thoughts.stepping import Thinker
from rsp_rl.thoughts.table import Entry, ThoughtTable


def runner() -> ThinkingRunnerV1:
    made = object.__new__(ThinkingRunnerV1)
    made.device, made._masks = torch.device("cpu"), {}
    return made


def entry(masked: torch.Tensor | None) -> Entry:
    return Entry(1, Thinker(Multiplex(), Phase(Phases(), ()), 1), 0, masked)


@pytest.mark.parametrize(
    ("v2", "kind", "takes"),
    [(False, ThinkingRunnerV1, V1_TAKES), (True, ThinkingRunnerV2, V2_TAKES)],
    ids=["V1", "V2"],
)
def test_vllms_worker_makes_a_runner_that_thinks_and_others_do_not(
    v2: bool, kind: type, takes: dict[str, dict[str, object]]
) -> None:
    """Fails when upstream names its runner otherwise."""
    module, name = runner_of_platform(v2)
    stock = getattr(module, name)
    with vllm_worker.thinking_runner(v2):
        made = getattr(module, name)
        assert issubclass(made, ThinkingRunner)
        assert issubclass(made, stock)
        for method in next(iter(takes.values())):
            assert getattr(made, method) is getattr(kind, method)
    assert getattr(module, name) is stock
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


def v2_batch() -> SimpleNamespace:
    """A prompt's middle, a prompt's last piece behind two others' tokens, and a running request."""
    return SimpleNamespace(
        req_ids=["running", "middle", "last"],
        num_computed_tokens_np=np.array([9, 4, 6], dtype=np.int32),
        num_scheduled_tokens=np.array([1, 3, 2], dtype=np.int32),
        prefill_len_np=np.array([7, 12, 8], dtype=np.int32),
        query_start_loc_np=np.array([0, 1, 4, 6, 6], dtype=np.int32),
    )


def test_v2_tells_where_positions_are_and_whose_tokens_count() -> None:
    batch = v2_batch()
    assert list(_scheduled(batch)) == [
        ("running", 9, 10, -9),
        ("middle", 4, 7, -3),
        ("last", 6, 8, -2),
    ]
    made = object.__new__(ThinkingRunnerV2)
    starts = {"running": 10, "middle": 12, "last": 8}
    made.thoughts = SimpleNamespace(
        requests={
            name: Entry(at, Thinker(Multiplex(), Phase(Phases(), ()), 1), start)
            for at, (name, start) in enumerate(starts.items())
        }
    )
    assert [row for row, _ in made._rows(batch)] == [0, 2]
    made.thoughts.requests["last"].start = 7
    with pytest.raises(RuntimeError, match=r"samples position 8 of a request .* at 7"):
        made._rows(batch)


def test_a_preempted_request_that_v2_gets_anew_has_its_thoughts() -> None:
    """V2 hears of it as of a new one; of another request's name that ended it does begin."""
    made = object.__new__(ThinkingRunnerV2)
    made.thoughts = ThoughtTable("cpu")
    made.added_rows = AddedRows()
    begun = []
    made._before = lambda _: None
    made._entry = lambda new, _: (
        begun.append(new.sampling_params.extra_args[EXTRA_ARG]["key"])
        or Entry(begun[-1], Thinker(Multiplex(), Phase(Phases(), ()), 1), 0)
    )

    def step(key: int, finished: set[str] = frozenset()) -> Entry:
        params = SamplingParams(extra_args={EXTRA_ARG: {"key": key}})
        new = SimpleNamespace(req_id="a", sampling_params=params)
        made._come_and_go(SimpleNamespace(finished_req_ids=finished, scheduled_new_reqs=[new]))
        return made.thoughts.requests["a"]

    first = step(5)
    assert step(5) is first
    assert step(6, {"a"}) is not first
    assert begun == [5, 6]


def test_vllms_sampler_is_there_behind_the_laws() -> None:
    """What vLLM asks of its sampler beside tokens is its own."""
    stock, asked = SimpleNamespace(sampling_states="theirs"), []
    sampler = LawSampler(stock, SimpleNamespace(sampled=lambda *a: asked.append(a) or "ours"))
    assert sampler.sampling_states == "theirs"
    assert sampler("logits", "batch") == "ours"
    assert asked == [("logits", "batch")]


class State:
    """What vLLM's model state is asked for."""

    def prepare_inputs_embeds(self, *_: object) -> torch.Tensor:
        return torch.ones(2, 3)


@pytest.mark.parametrize(
    ("sampler", "fault", "kept"),
    [("theirs", None, False), ("theirs", "it has watermarks", True), (None, None, True)],
    ids=["thinks", "cannot think", "pools"],
)
def test_an_engine_that_cannot_think_keeps_its_sampler(
    sampler: str | None, fault: str | None, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = object.__new__(ThinkingRunnerV2)
    made.vllm_config = None
    made.thoughts, made.added_rows = SimpleNamespace(requests={}), AddedRows()

    def load_model(self: ThinkingRunnerV2) -> None:
        self.sampler = sampler
        self.model_state = State()

    monkeypatch.setattr(ThinkingRunnerV2.__mro__[2], "load_model", load_model)
    monkeypatch.setattr(thinking_runner_v2, "engine_fault", lambda _: fault)
    made.load_model()
    assert (made.sampler == sampler) == kept
    # Rows of a soft prompt that is added need no sampler of ours.
    assert made.model_state.prepare_inputs_embeds == made._prepare_inputs_embeds
    assert made.model_state.prepare_inputs_embeds({}, v2_batch(), None).sum() == 6


def test_a_runner_that_vllm_has_shut_down_keeps_no_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """vLLM drops the model and what embeds; an engine of the next checkpoint needs the memory."""
    made = object.__new__(ThinkingRunnerV2)
    made.vllm_config = None
    made.thoughts, made.added_rows = SimpleNamespace(requests={}), AddedRows()
    kind = type("Table", (torch.nn.Embedding,), {})
    monkeypatch.setattr(thinking_runner, "VocabParallelEmbedding", kind)
    monkeypatch.setattr(thinking_runner_v2, "engine_fault", lambda _: None)

    def load_model(self: ThinkingRunnerV2) -> None:
        self.sampler, self.model_state, self.model = "theirs", State(), torch.nn.Module()
        self.model.table = self.model_state.table = kind(4, 2)
        self.model.embed_input_ids = self.model.table.forward

    monkeypatch.setattr(ThinkingRunnerV2.__mro__[2], "load_model", load_model)
    made.load_model()
    assert made._prepare_inputs_embeds({}, v2_batch(), None).sum() == 6
    assert made._embedding.rows(torch.tensor([1])).shape == (1, 2)
    assert made._embedding.mixture(torch.eye(4)).shape == (4, 2)
    table = weakref.ref(made.model.table)
    del made.model_state, made.model  # as `GPUModelRunner.shutdown`
    gc.collect()
    assert table() is None


@pytest.mark.parametrize("encoder_alone", [True, False])
def test_an_engine_of_an_encoder_alone_has_vllms_runner(
    encoder_alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is neither of those that think."""
    module, name = runner_of_platform(False)
    stock, made = getattr(module, name), []
    worker = object.__new__(vllm_worker.SoftPromptWorker)
    worker.vllm_config = SimpleNamespace(is_mm_encoder_only=encoder_alone)

    def init_device(self: vllm_worker.SoftPromptWorker) -> None:
        made.append(getattr(module, name))
        self.model_runner = object.__new__(ThinkingRunnerV1)

    monkeypatch.setattr(vllm_worker.PlatformWorker, "init_device", init_device)
    worker.init_device()
    assert (made == [stock]) == encoder_alone
