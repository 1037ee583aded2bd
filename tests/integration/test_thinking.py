"""Laws in unforked vLLM: against the reference engine, under hardship, beside others, replayed."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from parity.actor import Sample
from parity.laws import LAWS as TRAINED
from parity.laws import LawCell, measure_laws, reference_gradient, sample_thoughts
from parity.layouts import ActorLayout, RolloutLayout, block_size
from parity.models import Policy
from rsp_rl.basics.errors import ConfigError
from rsp_rl.dials.options import RspOptions
from rsp_rl.inference.huggingface import HuggingFaceEngine
from rsp_rl.inference.requests import Completion, EngineOptions, Request
from rsp_rl.inference.vllm_engine import LocalEngine, RayEngines
from rsp_rl.injection.model_runner import VARIABLE
from rsp_rl.injection.thinking_runner_v1 import ThinkingRunnerV1
from rsp_rl.injection.thinking_runner_v2 import ThinkingRunnerV2
from rsp_rl.models.folder import load_tokenizer
from rsp_rl.placement.prompt import placeholder_id
from rsp_rl.thoughts.embedding import TableEmbedding
from rsp_rl.thoughts.law import Moment
from rsp_rl.thoughts.names import LAWS, law_from_settings
from rsp_rl.thoughts.noise import Noise
from rsp_rl.thoughts.phases import Phases
from rsp_rl.thoughts.record import ThoughtRecord
from rsp_rl.thoughts.replay import replay_inputs, replay_scores
from rsp_rl.thoughts.rows import Kind
from rsp_rl.thoughts.settings import EXTRA_ARG, SO_FAR, Thinking
from rsp_rl.tiny import make_tiny_model
from tests.tolerances import FORWARD

BLOCK = block_size()
THOUGHTS, ANSWER, OPTIONS = 12, 4, EngineOptions(dtype="float32", max_num_seqs=16)

#: A case each: a law, or a way to begin and end.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "token": ("token", {}, {}),
    "soft_thinking": ("soft_thinking", {}, {}),
    "dirichlet": ("dirichlet", {}, {}),
    "gumbel": ("gumbel", {"k": 5}, {}),
    "multiplex": ("multiplex", {}, {}),
    "multiplex by probability": ("multiplex", {"weighting": "probability"}, {}),
    "soft": ("soft", {"rms": 0.05}, {}),
    "fuzzy": ("fuzzy", {"rms": 0.05}, {}),
    "moi": ("moi", {"k": 8}, {}),
    "hidden": ("hidden", {"latent_id": 5}, {}),
    "neighbours": ("neighbours", {"rate": 0.5}, {}),
    "neighbours of the likeliest": ("neighbours", {"rate": 0.5, "anchor": "likeliest"}, {}),
    "neftune": ("neftune", {"length": 16}, {}),
    "cold stop": ("gumbel", {}, {"cold_entropy": 9.0, "cold_steps": 3}),
    "cold abort": (
        "multiplex",
        {},
        {"max_thoughts": 3, "cold_entropy": 9.0, "cold_steps": 4, "cold_abort": True},
    ),
    "marker": ("multiplex", {}, {"max_thoughts": 3}),
    "phrase": ("multiplex", {}, {"on_end": (7, 8)}),
}
#: Requests of a case.
EACH = 2

#: Records of the same positions, computed in other batches.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny", seed=1, steps=40, threads=1)


def requests(model: Path, count: int = EACH, cases: Sequence[str] = tuple(CASES)) -> list[Request]:
    """Of every case; the first token of the output of the marker's is the marker."""
    tokenizer = load_tokenizer(model)
    made = []
    for name in cases:
        law, settings, phases = CASES[name]
        for number in range(count):
            place = list(CASES).index(name)
            text = f"Question {place}: what is {7 * number + place} + 5?" + " Think." * number
            found = Phases(**{"max_thoughts": THOUGHTS, "on_cut": (7,)} | phases)
            thinking = Thinking(law_from_settings(law, settings), found, seed=100 + number)
            made.append(
                Request(
                    1000 * place + number,
                    tokenizer.encode(text),
                    sampling(),
                    thinking=thinking,
                )
            )
    return made


def sampling(**changes: Any) -> dict[str, Any]:
    return {
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "max_tokens": THOUGHTS + ANSWER,
        "stop": [],
        "stop_token_ids": [],
    } | changes


def by_number(engine: Any, asked: Sequence[Request]) -> dict[int, Completion]:
    return {done.number: done for batch in engine.generate(asked) for done in batch}


def case_of(request: Request) -> str:
    return list(CASES)[request.number // 1000]


def tokens_of(done: Completion) -> list[int]:
    return done.thoughts.rows.emitted_N.tolist()


@pytest.fixture(scope="module")
def network(model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).requires_grad_(False)


@pytest.fixture(scope="module")
def reference(model: Path) -> Iterator[HuggingFaceEngine]:
    engine = HuggingFaceEngine(model, replace(OPTIONS, kind="huggingface"), None)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def asked(model: Path, reference: HuggingFaceEngine) -> list[Request]:
    """All cases; where a marker or a phrase is needed, one that comes."""
    made, decode = requests(model), load_tokenizer(model).decode
    for at, request in enumerate(made):
        name, phases = case_of(request), request.thinking.phases
        if name == "marker":
            never = replace(request.thinking, phases=replace(phases, begin=(0,) * 5))
            first = by_number(reference, [replace(request, thinking=never)])[request.number]
            phases = replace(phases, begin=tuple(tokens_of(first)[:2]))
        elif name == "phrase":
            first = by_number(reference, [request])[request.number]
            phases = replace(phases, end_text=decode(tokens_of(first)[2:4]))
        made[at] = replace(request, thinking=replace(request.thinking, phases=phases))
    return made


@pytest.fixture(scope="module")
def wanted(reference: HuggingFaceEngine, asked: list[Request]) -> dict[int, Completion]:
    return by_number(reference, asked)


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[LocalEngine]:
    """As a command starts it, with small blocks."""
    with arguments(block_size=BLOCK):
        made = LocalEngine(str(model), OPTIONS, soft_prompts=True, thoughts=True)
    yield made
    made.close()


@pytest.fixture(scope="module")
def got(engine: LocalEngine, asked: list[Request]) -> dict[int, Completion]:
    """All at once: laws of every kind in a batch of 16."""
    return by_number(engine, asked)


@pytest.fixture(scope="module")
def crowded(model: Path) -> Iterator[LocalEngine]:
    """Too little memory for a batch, and prompts that come in pieces."""
    with arguments(
        block_size=BLOCK,
        num_gpu_blocks_override=288 // BLOCK,
        enable_chunked_prefill=True,
        max_num_batched_tokens=48,
        max_model_len=256,
    ):
        made = LocalEngine(str(model), OPTIONS, soft_prompts=True, thoughts=True)
    yield made
    made.close()


@contextmanager
def arguments(**changes: Any) -> Iterator[None]:
    """Arguments of `vllm.LLM` beside those that the engine gives."""
    import vllm

    stock = vllm.LLM
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vllm, "LLM", lambda *args, **kwargs: stock(*args, **{**kwargs, **changes}))
        yield


def inside(engine: LocalEngine) -> Any:
    """vLLM's own engine core, in this process."""
    return engine._engine._engine.engine_core.engine_core


def table(engine: LocalEngine) -> Any:
    return inside(engine).model_executor.driver_worker.worker.model_runner.thoughts


def assert_same(one: Completion, other: Completion) -> None:
    """Bit for bit."""
    assert (one.text, one.tokens, one.finish_reason) == (
        other.text,
        other.tokens,
        other.finish_reason,
    )
    assert one.thoughts.to_bytes() == other.thoughts.to_bytes()


def test_the_model_runner_is_the_one_that_was_asked_for(engine: LocalEngine) -> None:
    """scripts/canary.sh runs these tests on both, of a vLLM whose V2 takes prompt embeddings."""
    asked = os.environ.get(VARIABLE) == "1"
    runner = inside(engine).model_executor.driver_worker.worker.model_runner
    assert isinstance(runner, ThinkingRunnerV2 if asked else ThinkingRunnerV1)


@pytest.mark.parametrize("case", CASES)
def test_vllm_equals_the_reference(
    case: str, asked: list[Request], wanted: dict[int, Completion], got: dict[int, Completion]
) -> None:
    place = 1000 * list(CASES).index(case)
    for number in range(place, place + EACH):
        one, other = wanted[number], got[number]
        assert tokens_of(one) == tokens_of(other)
        assert (one.tokens, one.finish_reason) == (other.tokens, other.finish_reason)
        own, theirs = one.thoughts, other.thoughts
        assert (own.law, own.seed, own.start) == (theirs.law, theirs.seed, theirs.start)
        assert own.rows.kind_N.tolist() == theirs.rows.kind_N.tolist()
        weights = [record.law.weights(record.rows[:4]) for record in (own, theirs)]
        torch.testing.assert_close(*weights, rtol=0, atol=1e-5)


def test_cases_are_what_they_are_called(got: dict[int, Completion]) -> None:
    def kinds(case: str) -> list[list[int]]:
        place = 1000 * list(CASES).index(case)
        return [got[place + n].thoughts.rows.kind_N.tolist() for n in range(EACH)]

    for name, (law, _, phases) in CASES.items():
        if not phases and law != "token":
            assert LAWS[law].kind in kinds(name)[0], name
    assert [found.index(Kind.FORCED) for found in kinds("cold stop")] == [2] * EACH
    assert all(found[4:6] == [Kind.FORCED] * 2 for found in kinds("phrase"))
    assert all(found[:2] == [Kind.TOKEN] * 2 for found in kinds("marker"))
    assert any(Kind.MIX in found for found in kinds("marker"))
    aborted = [got[1000 * list(CASES).index("cold abort") + n] for n in range(EACH)]
    assert {(done.tokens, done.finish_reason) for done in aborted} == {(8, "stop")}


def test_a_request_alone_is_what_it_is_in_a_batch(
    engine: LocalEngine, asked: list[Request], got: dict[int, Completion]
) -> None:
    for request in asked[::EACH]:
        assert_same(by_number(engine, [request])[request.number], got[request.number])


def test_nothing_is_left_behind(engine: LocalEngine, got: dict[int, Completion]) -> None:
    assert got
    assert (len(table(engine)), table(engine).requests, table(engine).free_share) == (0, {}, 1.0)


def preempted(engine: LocalEngine, asked: list[Request]) -> tuple[dict[int, Completion], int]:
    """With how often a request lost its memory."""
    scheduler = inside(engine).scheduler
    times = 0
    stock = scheduler._preempt_request

    def count(*args: Any, **kwargs: Any) -> Any:
        nonlocal times
        times += 1
        return stock(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler, "_preempt_request", count)
        return by_number(engine, asked), times


def test_preemption_and_prompts_in_pieces_change_nothing(
    crowded: LocalEngine, asked: list[Request], got: dict[int, Completion]
) -> None:
    plain = [replace(r, number=10**6 + r.number, thinking=None) for r in asked[::3]]
    mixed = [*asked, *plain]
    random.Random(1).shuffle(mixed)
    found, times = preempted(crowded, mixed)
    assert times > 4
    for request in asked:
        assert_same(found[request.number], got[request.number])
    assert len(table(crowded)) == 0


@pytest.mark.parametrize("case", CASES)
def test_the_laws_make_of_replayed_logits_what_was_recorded(
    case: str, network: Any, asked: list[Request], got: dict[int, Completion]
) -> None:
    """One parallel forward over the recorded inputs: nothing is fed back, nothing grows."""
    embedding = TableEmbedding.of(network.get_input_embeddings())
    for request in asked:
        if case_of(request) != case:
            continue
        record = got[request.number].thoughts
        logits_TV, hidden_TD = forward(network, request, record)
        kinds = record.rows.kind_N
        thoughts = (kinds == record.law.kind).nonzero()[:, 0] if case != "marker" else None
        if thoughts is None:
            thoughts = (kinds == Kind.MIX).nonzero()[:, 0]
        noise = Noise(torch.full_like(thoughts, record.seed), record.start + thoughts)
        moment = Moment(logits_TV[thoughts], noise, embedding, hidden_TD[thoughts])
        own, made = record.rows[thoughts], record.law.step(moment)
        assert made.emitted_N.tolist() == own.emitted_N.tolist() or case == "token"
        weights = [record.law.weights(rows).sort(1).values for rows in (own, made)]
        torch.testing.assert_close(*weights, rtol=0, atol=1e-5)
        if own.dense_ND is not None:
            gap = (own.dense_ND - made.dense_ND).norm(dim=1) / own.dense_ND.norm(dim=1)
            assert float(gap.max()) < 1e-5


def forward(
    network: Any, request: Request, record: ThoughtRecord, tokens_alone: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and hidden states of the positions before the output's."""
    embedding = TableEmbedding.of(network.get_input_embeddings())
    ids = record.rows.emitted_N.tolist()
    if tokens_alone:
        inputs_D = embedding.rows(torch.tensor([*request.token_ids, *ids]))
    else:
        inputs_D = replay_inputs(request.token_ids, ids, record, embedding)
    with torch.no_grad():
        made = network(inputs_embeds=inputs_D[None], output_hidden_states=True)
    first = record.start - 1
    return made.logits[0, first:-1].float(), made.hidden_states[-1][0, first:-1]


def raw(engine: LocalEngine, prompts: Sequence[tuple[Any, Any]]) -> list[Any]:
    """vLLM's own outputs of prompts and sampling parameters, in their order."""
    llm = engine._engine._engine if isinstance(engine, LocalEngine) else engine.llm_engine
    for number, (prompt, params) in enumerate(prompts):
        llm.add_request(str(number), prompt, params)
    found: dict[int, Any] = {}
    while llm.has_unfinished_requests():
        found |= {int(done.request_id): done for done in llm.step() if done.finished}
    return [found[number] for number in range(len(prompts))]


def log_probs(output: Any) -> list[float]:
    (sample,) = output.outputs
    pairs = zip(sample.token_ids, sample.logprobs, strict=True)
    return [numbers[token].logprob for token, numbers in pairs]


def params(tokens: int = THOUGHTS + ANSWER, **changes: Any) -> Any:
    from vllm import SamplingParams

    return SamplingParams(
        temperature=0.0, max_tokens=tokens, logprobs=0, ignore_eos=True, **changes
    )


def thinking_prompt(request: Request, private: bool = True) -> tuple[Any, Any, int]:
    """What vLLM is sent, with log-probs asked for; and the key of its record."""
    from vllm.inputs import TokensPrompt

    from rsp_rl.injection.thinking_prompt import extra_args, new_key, private_prompt

    key = new_key()
    prompt = private_prompt(request.token_ids, None, key)
    if not private:
        prompt = TokensPrompt(prompt_token_ids=request.token_ids)
    return prompt, params(extra_args=extra_args(request.thinking, key)), key


def thought_of(request: Request) -> tuple[Any, Any]:
    """Its prompt and parameters, when nobody wants its record."""
    return thinking_prompt(request)[:2]


@pytest.mark.parametrize("case", ["token", "gumbel", "multiplex", "moi", "soft"])
def test_replayed_log_probs_are_the_engines(
    case: str, engine: LocalEngine, network: Any, asked: list[Request]
) -> None:
    """And those of the tokens that were emitted for the thoughts are not."""
    embedding = TableEmbedding.of(network.get_input_embeddings())
    gaps, hard = [], []
    for request in [r for r in asked if case_of(r) == case]:
        prompt, asked_for, key = thinking_prompt(request)
        (output,) = raw(engine, [(prompt, asked_for)])
        record = table(engine).take(key)
        record.check(list(output.outputs[0].token_ids))
        temperature = getattr(record.law, "temperature", 1.0)
        for found, alone in ((gaps, False), (hard, True)):
            logits_TV, _ = forward(network, request, record, tokens_alone=alone)
            scores = replay_scores(record, logits_TV, embedding, temperature)
            engines = torch.tensor(log_probs(output))
            # Of laws the log-probs are those of the law, of the answer the engine's own.
            thought = (record.rows.kind_N != Kind.TOKEN) & scores.scored_T
            if case == "token":
                thought[:THOUGHTS] = scores.scored_T[:THOUGHTS]
            own = scores.log_probs_T[thought]
            found.append(((own - engines[thought]) / own.abs().clamp_min(1)).abs())
    assert float(torch.cat(gaps).mean()) < 1e-5
    if case != "token":
        assert float(torch.cat(hard).mean()) > 1e-3


@pytest.mark.parametrize(
    ("law", "settings", "bits"),
    [
        ("token", {"top_k": 1}, True),
        ("soft_thinking", {"k": 1}, True),
        ("multiplex", {"k": 1, "top_k": 1}, True),
        # At near ties its mixture is none of one token.
        ("fuzzy", {"sigma": 0.0}, False),
    ],
)
def test_laws_of_one_likeliest_token_are_greedy(
    law: str, settings: dict[str, Any], bits: bool, engine: LocalEngine, asked: list[Request]
) -> None:
    """What the engine makes without a law, log-probs of the answer included."""
    thinking = Thinking(law_from_settings(law, settings), Phases(max_thoughts=THOUGHTS), seed=3)
    for request in [replace(r, thinking=thinking) for r in asked if case_of(r) == "token"]:
        found = []
        for prompt in (({"prompt_token_ids": request.token_ids}, params()), thought_of(request)):
            inside(engine).scheduler.reset_prefix_cache()  # or a prompt is in two pieces
            found += raw(engine, [prompt])
        one, other = found
        assert one.outputs[0].token_ids == other.outputs[0].token_ids
        answers = [torch.tensor(log_probs(output)[THOUGHTS:]) for output in found]
        torch.testing.assert_close(*answers, rtol=0, atol=0 if bits else FORWARD)


@pytest.fixture(scope="module")
def stock(model: Path) -> Any:
    """vLLM with its own worker, which the first engine of this process must have left alone."""
    from vllm import LLM

    return LLM(
        str(model),
        dtype="float32",
        enforce_eager=True,
        max_num_seqs=16,
        block_size=BLOCK,
        enable_chunked_prefill=False,
        enable_prompt_embeds=True,
        enable_prefix_caching=True,
        disable_log_stats=True,
    )


def test_others_are_bit_for_bit_what_stock_vllm_makes_of_them(
    engine: LocalEngine, stock: Any, asked: list[Request]
) -> None:
    """The same batch there, of plain requests alone: as many rows in every step."""
    from vllm.inputs import TokensPrompt

    runner = stock.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker
    assert type(runner.model_runner).__name__ == "CPUModelRunner"
    soft = [r for r in asked if case_of(r) in ("gumbel", "multiplex", "soft", "hidden")]
    hard = [TokensPrompt(prompt_token_ids=r.token_ids) for r in asked[-8:]]
    seeded = {"temperature": 1.0, "max_tokens": 16, "logprobs": 3, "ignore_eos": True}
    from vllm import SamplingParams

    for made in (
        [params() for _ in hard],
        [SamplingParams(seed=n, **seeded) for n in range(len(hard))],
    ):
        plain = list(zip(hard, made, strict=True))
        seeds = [one.seed for one in made]
        with_soft, without = [], []
        for request, seed in zip(soft, [*seeds, *seeds], strict=False):
            prompt, asked_for, _ = thinking_prompt(request)
            asked_for.temperature, asked_for.seed = made[0].temperature, seed
            with_soft.append((prompt, asked_for))
            other = asked_for.clone()
            other.extra_args = None
            without.append((TokensPrompt(prompt_token_ids=request.token_ids), other))
        found = raw(engine, [*with_soft, *plain])[len(soft) :]
        wanted = raw(stock, [*without, *plain])[len(soft) :]
        for one, other in zip(found, wanted, strict=True):
            assert one.outputs[0].token_ids == other.outputs[0].token_ids
            assert log_probs(one) == log_probs(other)


def test_an_answers_seed_does_not_depend_on_who_else_is_there(
    engine: LocalEngine, asked: list[Request]
) -> None:
    """Beside others thoughts are drawn by vLLM too, and thrown away; alone they are not."""
    warm = sampling(temperature=1.0, seed=5)
    thinking = [replace(r, sampling=warm) for r in asked if case_of(r) == "multiplex"]
    plain = [
        replace(r, number=r.number + 1, thinking=None, sampling=sampling(temperature=1.0, seed=n))
        for n, r in enumerate(asked[:4])
    ]
    alone = by_number(engine, thinking)
    beside = by_number(engine, [*plain, *thinking])
    for request in thinking:
        assert_same(alone[request.number], beside[request.number])


@pytest.mark.parametrize("private", [True, False], ids=["private", "without the number"])
def test_thoughts_are_nobody_elses(
    private: bool, engine: LocalEngine, asked: list[Request]
) -> None:
    """A plain request of the question and the tokens that were emitted for thoughts."""
    from vllm.inputs import TokensPrompt

    (request, *_) = [r for r in asked if case_of(r) == "multiplex"]
    long = replace(request.thinking, phases=Phases(max_thoughts=48))
    inside(engine).scheduler.reset_prefix_cache()
    prompt, asked_for, _ = thinking_prompt(replace(request, thinking=long), private)
    asked_for.max_tokens = 48
    (first,) = raw(engine, [(prompt, asked_for)])
    hard = TokensPrompt(prompt_token_ids=request.token_ids + list(first.outputs[0].token_ids))
    (after,) = raw(engine, [(hard, params())])
    inside(engine).scheduler.reset_prefix_cache()
    (clean,) = raw(engine, [(hard, params())])
    # Of the second soft request the question's blocks are the first one's.
    raw(engine, [thought_of(request)])
    (again,) = raw(engine, [thought_of(request)])
    assert again.num_cached_tokens == (len(request.token_ids) - 1) // BLOCK * BLOCK
    assert clean.num_cached_tokens == 0
    if private:
        assert after.num_cached_tokens == 0
        assert log_probs(after) == log_probs(clean)
    else:
        assert after.num_cached_tokens > len(request.token_ids)
        assert abs(log_probs(after)[0] - log_probs(clean)[0]) > 1e-3


def test_an_output_goes_on_as_if_it_had_not_been_interrupted(
    engine: LocalEngine, asked: list[Request]
) -> None:
    """From its record, wherever it was cut: in thoughts, in a phrase, in the answer."""
    from rsp_rl.injection.thinking_prompt import extra_args, new_key, private_prompt

    chosen = [request for request in asked if not request.thinking.phases.cold_entropy]
    first = [thinking_prompt(request) for request in chosen]
    whole = raw(engine, [(prompt, asked_for) for prompt, asked_for, _ in first])
    records = [
        table(engine).take(key).cut(len(output.outputs[0].token_ids))
        for output, (*_, key) in zip(whole, first, strict=True)
    ]
    generator, again = random.Random(0), []
    for request, record in zip(chosen, records, strict=True):
        so_far = record.cut(generator.randrange(1, len(record)))
        key, tokens = new_key(), [*request.token_ids, *so_far.emitted]
        sent = extra_args(request.thinking, key)
        sent[EXTRA_ARG][SO_FAR] = so_far.to_bytes()
        prompt = private_prompt(tokens, None, key, len(so_far))
        again.append((so_far, key, prompt, params(len(record) - len(so_far), extra_args=sent)))
    rest = raw(engine, [(prompt, asked_for) for *_, prompt, asked_for in again])
    for record, before, after, (so_far, key, *_) in zip(records, whole, rest, again, strict=True):
        at, found = len(so_far), table(engine).take(key)
        assert list(after.outputs[0].token_ids) == record.emitted[at:]
        assert log_probs(after) == pytest.approx(log_probs(before)[at:], abs=1e-4)
        found = found.cut(len(record))
        assert torch.equal(found.rows.kind_N, record.rows.kind_N)
        assert torch.equal(found.rows.ids_NK, record.rows.ids_NK)
        torch.testing.assert_close(found.rows.values_NK, record.rows.values_NK, **CLOSE)
        assert (found.start, found.seed) == (record.start, record.seed)


def test_a_law_and_a_soft_prompt_together(
    engine: LocalEngine, reference: HuggingFaceEngine, model: Path, asked: list[Request]
) -> None:
    """The soft prompt at the end, where the number that makes blocks private is too."""
    placeholder = placeholder_id(load_tokenizer(model))
    made = []
    for request in [r for r in asked if case_of(r) in ("gumbel", "multiplex")]:
        options = RspOptions(length=3, position="suffix", mean=0.0, std=0.05)
        record = options.record(
            step=1,
            prompt_index=0,
            rollout=request.number,
            group_start=0,
            start=len(request.token_ids),
            dtype="float32",
            placeholder_id=placeholder,
        )
        made.append(
            replace(request, token_ids=request.token_ids + [placeholder] * 3, record=record)
        )
    wanted, found = by_number(reference, made), by_number(engine, made)
    without = by_number(engine, [replace(r, record=None) for r in made])
    for number, one in wanted.items():
        assert tokens_of(found[number]) == tokens_of(one)
        assert tokens_of(without[number]) != tokens_of(one)


@pytest.mark.parametrize("control", ["nothing", "newest"])
def test_what_must_fail_does(
    control: str, crowded: LocalEngine, asked: list[Request], got: dict[int, Completion]
) -> None:
    """Without thoughts among the inputs; and with those of each step's newest position alone."""
    from rsp_rl.thoughts.table import Entry

    stock = Entry.places

    def places(entry: Entry, first: int, end: int) -> list[tuple[int, int]]:
        newest = entry.position - 1
        return (
            [] if control == "nothing" else [p for p in stock(entry, first, end) if p[0] == newest]
        )

    soft = [r for r in asked if case_of(r) in ("gumbel", "multiplex", "soft", "dirichlet")]
    soft += [replace(r, number=10**6 + r.number) for r in soft]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Entry, "places", places)
        found, times = preempted(crowded, soft)
    assert times > 2
    same = sum(tokens_of(found[r.number]) == tokens_of(got[r.number % 10**6]) for r in soft)
    assert same <= (len(soft) // 4 if control == "nothing" else len(soft) - 1)


def test_what_an_engine_cannot_do_is_refused_with_a_reason(
    engine: LocalEngine, asked: list[Request]
) -> None:
    before = len(table(engine))
    request = replace(asked[0], sampling=sampling(min_tokens=3))
    with pytest.raises(ConfigError, match="min_tokens=3 acts in the sampler"):
        by_number(engine, [request])
    assert by_number(engine, asked[:1]).keys() == {asked[0].number}
    assert (len(table(engine)), table(engine).requests) == (before, {})


def test_an_engine_of_several_processes(
    model: Path, asked: list[Request], got: dict[int, Completion], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensor parallelism; records cross from the first worker, by way of the engine's process."""
    # By itself vLLM's CPU target gives each rank a NUMA node.
    cores = sorted(os.sched_getaffinity(0))
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", f"{cores[0]}|{cores[-1]}")
    # In an actor: vLLM has read the variables of this process.
    engine = RayEngines(str(model), replace(OPTIONS, tensor_parallel=2), True, thoughts=True)
    try:
        few = [r for r in asked if case_of(r) in ("gumbel", "hidden")]
        found = by_number(engine, few)
        soft = [r for r in asked if case_of(r) == "soft"]
        with pytest.raises(Exception, match="law=soft mixes the whole vocabulary"):
            by_number(engine, soft)
    finally:
        engine.close()
    assert len(found) == len(few)
    # Sums of two processes are in another order, which may turn a draw in time.
    for number, one in found.items():
        assert tokens_of(one)[:4] == tokens_of(got[number])[:4]
        weights = [done.thoughts.law.weights(done.thoughts.rows[:2]) for done in (one, got[number])]
        torch.testing.assert_close(*weights, rtol=0, atol=1e-4)


def test_two_engines_on_ray(model: Path, asked: list[Request], got: dict[int, Completion]) -> None:
    engines = RayEngines(
        str(model), replace(OPTIONS, data_parallel=2, max_num_seqs=4), True, thoughts=True
    )
    try:
        found = by_number(engines, asked)
    finally:
        engines.close()
    assert found.keys() == got.keys()
    for number, one in got.items():
        assert tokens_of(found[number]) == tokens_of(one)


# ---- a slice of the parity matrix of laws (scripts/parity_of_laws.py) ----------------------------

ACTOR_LAYOUTS = [
    ActorLayout(
        "fsdp2", packed=True, ranks=2, ulysses=1, checkpointing=True, lora=False, dynamic=True
    ),
    ActorLayout(
        "fsdp2", packed=False, ranks=1, ulysses=1, checkpointing=False, lora=False, dynamic=False
    ),
]


@pytest.fixture(scope="module")
def sampled(engine: LocalEngine, model: Path) -> tuple[dict[str, list[Sample]], dict[str, Any]]:
    """Rollouts of every law, and the gradient of each."""
    rollouts = sample_thoughts(engine._engine._engine, model, each=8)
    assert list(rollouts) == list(TRAINED)
    policy = Policy(model, model)
    return rollouts, {law: reference_gradient(policy, rows) for law, rows in rollouts.items()}


@pytest.mark.parametrize("layout", ACTOR_LAYOUTS, ids=lambda layout: layout.name)
def test_rollout_and_actor_agree_with_every_law(
    model: Path, sampled: tuple[dict[str, list[Sample]], dict[str, Any]], layout: ActorLayout
) -> None:
    rollouts, references = sampled
    ((gaps, errors),) = measure_laws([layout], Policy(model, model), rollouts, rollouts, references)
    for law, gap in gaps.items():
        cell = LawCell(law, RolloutLayout(1, True, False), layout, gap, errors[law])
        assert not cell.faults, cell.line()
        # A forgotten mixture would show.
        assert law == "token" or gap.forgotten > 1000 * gap.mean, cell.line()
