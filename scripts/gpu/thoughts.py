"""Input laws in vLLM on this device: against Hugging Face, replayed, beside others; their speed.

    python -m gpu.thoughts --device cuda --model FOLDER --dtype bfloat16 --output thoughts.json

Every law thinks in vLLM as `rsp-rl generate --law` has it. Its tokens and kinds are those of the
reference engine on the same device; one parallel forward of Hugging Face's over the recorded
inputs gives vLLM's log-probs, and one over the emitted tokens does not; twice the same request is
the same record; blocks of thoughts are nobody else's; requests without a law are bit for bit what
they are without thoughts beside them. With `--throughput` also tokens a second, each law beside
ordinary sampling in turn. The engine runs in this process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from results import Results

from gpu.engine import LARGEST_GAP, what_runs
from rsp_rl.thoughts.names import law_from_settings
from rsp_rl.thoughts.phases import Phases
from rsp_rl.thoughts.record import ThoughtRecord
from rsp_rl.thoughts.replay import replay_inputs, replay_scores
from rsp_rl.thoughts.rows import Kind
from rsp_rl.thoughts.settings import Thinking

if TYPE_CHECKING:
    from rsp_rl.inference.requests import Completion, Request
    from rsp_rl.inference.vllm_engine import LocalEngine

LAWS: dict[str, dict[str, Any]] = {
    "token": {},
    "soft_thinking": {},
    "dirichlet": {},
    "gumbel": {"k": 5},
    "multiplex": {},
    "soft": {"rms": 0.05},
    "fuzzy": {"rms": 0.05},
    "moi": {"k": 8},
    "hidden": {"latent_id": 5},
    "neighbours": {"rate": 0.5},
    "neftune": {},
}
#: Of laws that have one for what stands at a position, in nats or near it.
SCORED = ("token", "gumbel", "multiplex", "neighbours", "neftune")
#: Of these alone a replay of tokens is the same.
NO_MIXTURE = ("token",)
EACH, THOUGHTS, ANSWER, SEQUENCES, BLOCK = 4, 24, 8, 64, 16

#: Share of requests that may think other tokens than the reference: a near tie is decided by
#: rounding, and all that follows is another output. In bfloat16 many are; nothing is asked there.
OTHERS = {"float32": 0.1, "bfloat16": 1.0}
#: How much larger the gap must be when tokens are replayed in the place of mixtures.
FORGOTTEN = 3


def main() -> None:
    """Check, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder")
    parser.add_argument("--dtype", choices=tuple(LARGEST_GAP), default="bfloat16")
    parser.add_argument("--eager", action="store_true", help="no torch.compile, no CUDA graphs")
    parser.add_argument("--throughput", type=int, default=0, metavar="ROUNDS")
    parser.add_argument("--tokens", type=int, default=128, help="of each output, for throughput")
    parser.add_argument("--gpu-share", type=float, default=0.1, help="of its memory, for vLLM")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    results = Results(args.output, settings=vars(args) | {"torch": torch.__version__})

    # Read when vLLM is first imported.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
    os.environ["TRITON_F32_DEFAULT"] = "ieee"  # else fp32 attention is TF32's
    os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"
    torch.set_float32_matmul_precision("highest")

    from rsp_rl.inference.huggingface import HuggingFaceEngine

    begun = time.monotonic()
    engine = start(args)
    results.figure(
        "start of the engine", seconds=time.monotonic() - begun, **what_runs(llm(engine))
    )
    asked = requests(args.model)
    found = by_number(engine, asked)
    check_repeated(results, engine, asked, found)
    check_alone(results, engine, asked)
    check_private(results, engine, asked)
    if args.throughput:
        measure_throughput(results, engine, args.throughput, args.tokens)
    scored = {name: log_probs_of(engine, asked_of(asked, name)) for name in SCORED}
    check_nothing_left(results, engine)
    engine.close()

    reference = HuggingFaceEngine(args.model, options(args, "huggingface"), None)
    check_reference(results, found, by_number(reference, asked), OTHERS[args.dtype])
    check_replay(results, reference.host.network, scored, LARGEST_GAP[args.dtype])
    sys.exit(results.finish())


def options(args: argparse.Namespace, kind: str = "vllm") -> Any:
    """How both engines run."""
    from rsp_rl.inference.requests import EngineOptions

    return EngineOptions(
        kind=kind,
        dtype=args.dtype,
        max_num_seqs=SEQUENCES,
        max_model_len=512,
        gpu_memory_utilization=args.gpu_share,
    )


def start(args: argparse.Namespace) -> LocalEngine:
    """vLLM as a command starts it, eager if asked."""
    from rsp_rl.inference.vllm_engine import LocalEngine

    changes: dict[str, Any] = {"block_size": BLOCK, "max_num_batched_tokens": 2048}
    if args.device == "cuda":
        changes["enforce_eager"] = args.eager
    with arguments(changes):
        return LocalEngine(str(args.model), options(args), soft_prompts=True, thoughts=True)


@contextmanager
def arguments(changes: dict[str, Any]) -> Iterator[None]:
    """Arguments of `vllm.LLM` beside those that the engine gives."""
    import vllm

    stock = vllm.LLM
    vllm.LLM = lambda *args, **kwargs: stock(*args, **{**kwargs, **changes})
    try:
        yield
    finally:
        vllm.LLM = stock


def llm(engine: LocalEngine) -> Any:
    """Something whose `llm_engine` is vLLM's."""
    return argparse.Namespace(llm_engine=engine._engine._engine)


def table(engine: LocalEngine) -> Any:
    """The records in the worker."""
    core = engine._engine._engine.engine_core.engine_core
    return core.model_executor.driver_worker.worker.model_runner.thoughts


def reset_cache(engine: LocalEngine) -> None:
    """Forget the prefix cache, so that prompts are computed whole."""
    engine._engine._engine.reset_prefix_cache()


def requests(model: Path) -> list[Request]:
    """Of every law, `EACH`; numbered by thousands."""
    from rsp_rl.inference.requests import Request
    from rsp_rl.models.folder import load_tokenizer

    tokenizer = load_tokenizer(model)
    phases = Phases(max_thoughts=THOUGHTS, on_cut=(7,))
    return [
        Request(
            1000 * place + number,
            tokenizer.encode(f"Question {place}: what is {7 * number + place} + 5? Think."),
            sampling(THOUGHTS + ANSWER),
            thinking=Thinking(law_from_settings(name, settings), phases, seed=100 + number),
        )
        for place, (name, settings) in enumerate(LAWS.items())
        for number in range(EACH)
    ]


def asked_of(asked: Sequence[Request], name: str) -> list[Request]:
    """Of one law."""
    return [request for request in asked if request.thinking.law.name == name]


def sampling(tokens: int, **changes: Any) -> dict[str, Any]:
    """Greedy answers of a length."""
    return {
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "max_tokens": tokens,
        "stop": [],
        "stop_token_ids": [],
    } | changes


def by_number(engine: Any, asked: Sequence[Request]) -> dict[int, Completion]:
    """All outputs."""
    return {done.number: done for batch in engine.generate(asked) for done in batch}


def raw(engine: LocalEngine, prompts: Sequence[tuple[Any, Any]]) -> list[Any]:
    """vLLM's own outputs of prompts and sampling parameters, in their order."""
    inner = engine._engine._engine
    for number, (prompt, params) in enumerate(prompts):
        inner.add_request(str(number), prompt, params)
    found: dict[int, Any] = {}
    while inner.has_unfinished_requests():
        found |= {int(done.request_id): done for done in inner.step() if done.finished}
    return [found[number] for number in range(len(prompts))]


def with_log_probs(request: Request) -> tuple[Any, Any, int]:
    """What vLLM is sent, and the key of its record."""
    from rsp_rl.injection.thinking_prompt import extra_args, new_key, private_prompt

    key = new_key()
    params = plain_params(request.sampling["max_tokens"])
    params.extra_args = extra_args(request.thinking, key)
    return private_prompt(request.token_ids, None, key), params, key


def plain_params(tokens: int, **changes: Any) -> Any:
    """Greedy, with the log-probs of what is emitted."""
    from vllm import SamplingParams

    return SamplingParams(
        **{"temperature": 0.0, "max_tokens": tokens, "logprobs": 0, "ignore_eos": True, **changes}
    )


def log_probs(output: Any) -> list[float]:
    """Of an output's tokens."""
    (sample,) = output.outputs
    pairs = zip(sample.token_ids, sample.logprobs, strict=True)
    return [numbers[token].logprob for token, numbers in pairs]


Scored = list[tuple["Request", ThoughtRecord, torch.Tensor]]


def log_probs_of(engine: LocalEngine, asked: Sequence[Request]) -> Scored:
    """Records of requests with vLLM's log-probs."""
    reset_cache(engine)
    sent = [with_log_probs(request) for request in asked]
    outputs = raw(engine, [(prompt, params) for prompt, params, _ in sent])
    found = []
    for request, (_, _, key), output in zip(asked, sent, outputs, strict=True):
        record = table(engine).take(key)
        record.check(list(output.outputs[0].token_ids))
        found.append((request, record, torch.tensor(log_probs(output))))
    return found


def check_repeated(
    results: Results,
    engine: LocalEngine,
    asked: Sequence[Request],
    first: dict[int, Completion],
) -> None:
    """The same batch again is the same, to the bit."""
    reset_cache(engine)
    again = by_number(engine, asked)
    same = [first[n].thoughts.to_bytes() == again[n].thoughts.to_bytes() for n in first]
    thoughts = sum(int(done.thoughts.rows.thought_N.sum()) for done in first.values())
    results.check(
        "the same requests again are the same records",
        all(same) and thoughts > 0,
        same_records=f"{sum(same)} of {len(same)}",
        thoughts=thoughts,
    )


def check_alone(results: Results, engine: LocalEngine, asked: Sequence[Request]) -> None:
    """Requests without a law, beside thoughts and beside as many requests without."""
    from vllm.inputs import TokensPrompt

    thinking = asked[::2]
    plain = [
        (TokensPrompt(prompt_token_ids=request.token_ids), plain_params(THOUGHTS))
        for request in asked[1::2]
    ]
    found = []
    for beside in (
        [with_log_probs(request)[:2] for request in thinking],
        [
            (TokensPrompt(prompt_token_ids=request.token_ids), plain_params(THOUGHTS + ANSWER))
            for request in thinking
        ],
    ):
        reset_cache(engine)
        outputs = raw(engine, [*beside, *plain])[len(beside) :]
        found.append([(list(o.outputs[0].token_ids), log_probs(o)) for o in outputs])
    results.check(
        "requests without a law are what they are without thoughts beside them, bit for bit",
        found[0] == found[1],
        same=f"{sum(a == b for a, b in zip(*found, strict=True))} of {len(plain)}",
    )


def check_private(results: Results, engine: LocalEngine, asked: Sequence[Request]) -> None:
    """A plain request of the question and of what thoughts emitted finds no block of theirs."""
    from vllm.inputs import TokensPrompt

    request = asked_of(asked, "multiplex")[0]
    long = replace(request.thinking, phases=Phases(max_thoughts=4 * BLOCK))
    request = replace(request, thinking=long, sampling=sampling(4 * BLOCK))
    reset_cache(engine)
    (first,) = raw(engine, [with_log_probs(request)[:2]])
    hard = TokensPrompt(prompt_token_ids=request.token_ids + list(first.outputs[0].token_ids))
    (after,) = raw(engine, [(hard, plain_params(ANSWER))])
    reset_cache(engine)
    (clean,) = raw(engine, [(hard, plain_params(ANSWER))])
    (again,) = raw(engine, [(hard, plain_params(ANSWER))])
    results.check(
        "blocks of thoughts are nobody else's",
        not after.num_cached_tokens
        and log_probs(after) == log_probs(clean)
        and again.num_cached_tokens > len(request.token_ids),
        cached_of_thoughts=after.num_cached_tokens,
        cached_of_its_own=again.num_cached_tokens,
    )


def check_nothing_left(results: Results, engine: LocalEngine) -> None:
    """Records that nobody claimed are the only ones there."""
    kept = table(engine)
    results.check("no request with a law is left behind", not kept.requests, unclaimed=len(kept))


def check_reference(
    results: Results,
    found: dict[int, Completion],
    wanted: dict[int, Completion],
    others: float,
) -> None:
    """vLLM's thoughts against those of the reference engine, each running freely."""
    same: dict[str, int] = {}
    for number, done in found.items():
        own, theirs = done.thoughts.rows, wanted[number].thoughts.rows
        equal = (own.emitted_N.tolist(), own.kind_N.tolist()) == (
            theirs.emitted_N.tolist(),
            theirs.kind_N.tolist(),
        )
        name = done.thoughts.law.name
        same[name] = same.get(name, 0) + equal
    results.check(
        "tokens and kinds are the reference engine's, ties aside",
        sum(same.values()) >= (1 - others) * len(found),
        same=f"{sum(same.values())} of {len(found)}",
        **{name: f"{count} of {EACH}" for name, count in same.items()},
    )


def check_replay(results: Results, network: Any, scored: dict[str, Scored], largest: float) -> None:
    """One parallel forward over the recorded inputs, and one over the tokens alone."""
    from rsp_rl.thoughts.embedding import TableEmbedding

    embedding = TableEmbedding.of(network.get_input_embeddings())
    for name, rows in scored.items():
        gaps: dict[bool, list[torch.Tensor]] = {False: [], True: []}
        for request, record, engines_T in rows:
            for forgotten in gaps:
                logits_TV = forward(network, embedding, request, record, forgotten)
                found = replay_scores(
                    on(record, logits_TV.device), logits_TV, embedding, record.law.temperature
                )
                thought_T = (record.rows.kind_N != Kind.TOKEN) | (name in NO_MIXTURE)
                counted_T = thought_T & found.scored_T.cpu()
                own_T = found.log_probs_T.cpu()
                # A density of many numbers is not of a nat's size.
                gap_T = (own_T - engines_T).abs() / own_T.abs().clamp_min(1)
                gaps[forgotten].append(gap_T[counted_T])
        mean, missed = (float(torch.cat(gaps[way]).mean()) for way in (False, True))
        results.check(
            f"{name}: replayed log-probs are the engine's",
            mean <= largest and (name in NO_MIXTURE or missed >= FORGOTTEN * mean),
            mean_gap=mean,
            largest_gap=float(torch.cat(gaps[False]).max()),
            mean_gap_if_tokens_are_replayed=missed,
            positions=sum(len(gap) for gap in gaps[False]),
        )


def on(record: ThoughtRecord, device: torch.device) -> ThoughtRecord:
    """A record whose rows lie on a device."""
    return replace(record, rows=record.rows.to(device))


@torch.no_grad()
def forward(
    network: Any, embedding: Any, request: Request, record: ThoughtRecord, tokens_alone: bool
) -> torch.Tensor:
    """Logits of the positions before the output's."""
    ids = record.rows.emitted_N.tolist()
    device = network.device
    if tokens_alone:
        inputs_D = embedding.rows(torch.tensor([*request.token_ids, *ids], device=device))
    else:
        inputs_D = replay_inputs(request.token_ids, ids, on(record, device), embedding)
    made = network(inputs_embeds=inputs_D[None])
    return made.logits[0, record.start - 1 : -1].float()


def measure_throughput(results: Results, engine: LocalEngine, rounds: int, tokens: int) -> None:
    """Tokens a second of a full batch by the clock, each law beside ordinary sampling in turn."""
    from rsp_rl.inference.requests import Request

    plain = [
        Request(
            number,
            [10 + (number + 7 * place) % 90 for place in range(8)],
            sampling(tokens, temperature=1.0, ignore_eos=True),
        )
        for number in range(SEQUENCES)
    ]
    ways = {"ordinary": plain}
    for name, settings in LAWS.items():
        law, phases = law_from_settings(name, settings), Phases(max_thoughts=tokens)
        ways[name] = [replace(r, thinking=Thinking(law, phases, r.number)) for r in plain]

    def once(asked: list[Request]) -> float:
        begun = time.perf_counter()
        made = sum(done.tokens for done in by_number(engine, asked).values())
        return made / (time.perf_counter() - begun)

    timed = {name: partial(once, asked) for name, asked in ways.items()}
    for work in timed.values():
        work()
    rates: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds):
        for name, work in timed.items():
            rates[name].append(work())
    base = rates["ordinary"]
    for name, found in rates.items():
        ratios = [own / other for own, other in zip(found, base, strict=True)]
        results.figure(
            f"{name}: {SEQUENCES} requests of {tokens} tokens",
            tokens_per_second=statistics.median(found),
            over_ordinary=statistics.median(ratios),
            least=min(ratios),
            most=max(ratios),
        )


if __name__ == "__main__":
    main()
