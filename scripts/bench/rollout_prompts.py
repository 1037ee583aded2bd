"""What a soft prompt costs on its way into vLLM, beside a prompt of tokens of the same length.

    python scripts/bench/rollout_prompts.py                      # the requests, then the engine
    python scripts/bench/rollout_prompts.py --requests-only      # no engine: a minute

Three ways to send a prompt: `tokens`, the floor; `rows`, vLLM's public way, a T x d tensor; and
`record`, which the engine's workers turn into rows (`rsp_rl.injection.vllm_prompt`).

Requests: a core's time to make and encode one (front end), to decode and hash it (engine core), to
draw and lay out its rows (worker), and the bytes that cross, all through vLLM's own classes.
Engine: output tokens a second of a group of G prompts with the same question, on a random model, in
turn, with its prefix-cache hits, which must be those of the floor. The floor is a second engine, as
vLLM starts it by itself, without prompt embeddings and with its own worker; `tokens` are the same
prompts sent to ours. On a CPU both engines run in this process, as training and evaluation have
them, and `--clock cores` counts its cores' seconds instead of the clock's, which what other jobs do
on the machine changes less.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from paired import compare, core_seconds, seconds, write_report
from random_model import save_random_model

from rsp_rl.draws.record import RECORD_SIZE, SoftPromptRecord
from rsp_rl.draws.seeds import rollout_seed

LENGTH, GROUP, BLOCK = 20, 8, 16
#: Tokens after the soft prompt: end of turn and the assistant's header.
TAIL = 5
PLACEHOLDER = 3
WAYS = ("tokens", "rows", "record")
#: Token prompts to an engine that cannot take embeddings.
PLAIN = "plain engine"

CLOCKS = {"wall": seconds, "cores": core_seconds}

#: Throughput over the floor's.
GOAL = 0.99


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("rollout_prompts.json"))
    parser.add_argument("--hidden-sizes", type=int, nargs="+", default=[128, 896, 3584])
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 512, 2048])
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--questions", type=int, nargs="+", default=[2], help="groups in a batch")
    parser.add_argument("--tokens", type=int, default=16, help="output tokens a rollout")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--gpu-share", type=float, default=0.4, help="of its memory, an engine")
    parser.add_argument("--requests-only", action="store_true")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="of the engine")
    args = parser.parse_args()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    if not torch.cuda.is_available():
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    torch.set_num_threads(1)

    cells = [(d, length) for d in args.hidden_sizes for length in args.lengths]
    results: dict[str, Any] = {"requests": [measure_requests(*cell, args) for cell in cells]}
    if not args.requests_only:
        results["engine"] = [
            cell for hidden_size in args.hidden_sizes for cell in measure_engine(hidden_size, args)
        ]
    write_report(args.output, "rollout_prompts", results)


def make_prompt(way: str, question: int, rollout: int, length: int, width: int, dtype: str) -> Any:
    """One rollout's prompt: a question, L positions of its own, and a tail."""
    from vllm.inputs import TokensPrompt

    from rsp_rl.injection.vllm_prompt import mixed_prompt, record_prompt

    start = length - LENGTH - TAIL
    seed = rollout_seed(0, 1, question, rollout % (1 << 16))
    before = [4 + (7 * question + n * n) % 200 for n in range(start)]
    after = [5 + n for n in range(TAIL)]
    if way == "tokens":  # as many tokens as differ between the rollouts, different in each
        own = [4 + (seed >> 2 * n) % 200 for n in range(LENGTH)]
        return TokensPrompt(prompt_token_ids=before + own + after)
    record = SoftPromptRecord(seed, start, LENGTH, 0.0, 0.02, dtype, PLACEHOLDER)
    tokens = before + [PLACEHOLDER] * LENGTH + after
    if way == "rows":
        return mixed_prompt(tokens, record, width)
    return record_prompt(tokens, record)


# ---- one request, without an engine -------------------------------------------------------------


def measure_requests(hidden_size: int, length: int, args: argparse.Namespace) -> dict[str, Any]:
    """Of each way: microseconds of a request in each process, and bytes between them."""
    ways = {way: Journey(way, length, hidden_size, args.dtype) for way in WAYS}
    result: dict[str, Any] = {"hidden_size": hidden_size, "length": length, "dtype": args.dtype}
    for stage in ("front_end", "engine_core", "worker"):
        runs = {way: getattr(journey, stage) for way, journey in ways.items()}
        timed = {way: _microseconds(run) for way, run in runs.items()}
        found = compare(timed.pop("tokens"), timed, 3 * args.rounds)
        result[f"{stage}_us"] = {
            "tokens": found["rows"].baseline,
            **{way: ratio.candidate for way, ratio in found.items()},
        }
    result["bytes"] = {way: journey.size for way, journey in ways.items()}
    print(
        f"request, d {hidden_size:<5} T {length:<5}"
        + "; ".join(
            f" {way}: "
            + " + ".join(
                f"{result[f'{stage}_us'][way]:.0f}"
                for stage in ("front_end", "engine_core", "worker")
            )
            + f" us, {result['bytes'][way]:,} bytes"
            for way in WAYS
        ),
        flush=True,
    )
    return result


def floor_bytes(tokens_size: int, length: int) -> int:
    """What a prompt with a record may take: its tokens, 80 bytes for each, a mask and a header."""
    return tokens_size + (8 * RECORD_SIZE + 1) * length + 64


def _microseconds(run: Callable[[], Any]) -> Callable[[], float]:
    return lambda: 1e6 * core_seconds(run, 5)


class Journey:
    """A request's stations, each of which can be gone through again and again.

    Args:
        way: One of `WAYS`.
        length: T.
        hidden_size: d.
        dtype: Rollout dtype.
    """

    def __init__(self, way: str, length: int, hidden_size: int, dtype: str) -> None:
        from vllm.utils.hashing import get_hash_fn_by_name
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
        from vllm.v1.core.sched.output import NewRequestData
        from vllm.v1.engine import EngineCoreRequest
        from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

        hash_function = get_hash_fn_by_name("sha256")  # vLLM's default
        init_none_hash(hash_function)
        self._hasher = get_request_block_hasher(BLOCK, hash_function)
        self._make = lambda: make_prompt(way, 0, 1, length, hidden_size, dtype)
        self._encoder, self._decoder = MsgpackEncoder(), MsgpackDecoder(EngineCoreRequest)
        self._hidden_size = hidden_size
        self._sent = [bytes(part) for part in self.front_end()]
        #: Bytes that cross to the engine.
        self.size = sum(map(len, self._sent))
        self._scheduled = NewRequestData.from_request(self.engine_core(), ([],))

    def front_end(self) -> Any:
        """Make the request and encode it."""
        from vllm import SamplingParams
        from vllm.v1.engine import EngineCoreRequest

        prompt = self._make()
        request = EngineCoreRequest(
            request_id="0",
            prompt_token_ids=prompt["prompt_token_ids"],
            prompt_embeds=prompt.get("prompt_embeds"),
            prompt_is_token_ids=prompt.get("prompt_is_token_ids"),
            mm_features=None,
            sampling_params=SamplingParams(max_tokens=1),
            pooling_params=None,
            arrival_time=0.0,
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
        )
        return self._encoder.encode(request)

    def engine_core(self) -> Any:
        """Decode the request and hash its blocks."""
        from vllm.v1.request import Request

        return Request.from_engine_core_request(self._decoder.decode(self._sent), self._hasher)

    def worker(self) -> torch.Tensor | None:
        """Get the rows ready."""
        from rsp_rl.injection.vllm_worker import drawn_prompt, has_record

        if not has_record(self._scheduled):
            return None
        return drawn_prompt(self._scheduled, self._hidden_size)


# ---- the engine ---------------------------------------------------------------------------------


def measure_engine(hidden_size: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Throughput and prefix-cache hits of each way, for each prompt length."""
    from vllm import LLM

    from rsp_rl.injection.vllm_prompt import WORKER

    on_gpu = torch.cuda.is_available()
    share = {"gpu_memory_utilization": args.gpu_share} if on_gpu else {}
    with tempfile.TemporaryDirectory() as folder:
        model = save_random_model(Path(folder), hidden_size, args.layers)

        def start(**settings: Any) -> Any:
            return LLM(
                str(model),
                dtype=args.dtype,
                enforce_eager=not on_gpu,
                distributed_executor_backend="uni",
                enable_prefix_caching=True,
                max_num_seqs=GROUP * max(args.questions),
                max_model_len=max(args.lengths) + args.tokens,
                max_num_batched_tokens=max(4096, max(args.lengths)),
                block_size=BLOCK,
                **share,
                **settings,
            )

        plain, ours = start(), start(enable_prompt_embeds=True, worker_cls=WORKER)
    engines = {PLAIN: plain, **dict.fromkeys(WAYS, ours)}
    try:
        return [
            measure_cell(engines, hidden_size, length, questions, args)
            for length in args.lengths
            for questions in args.questions
        ]
    finally:
        for engine in (plain, ours):
            engine.llm_engine.engine_core.shutdown()


def measure_cell(
    engines: dict[str, Any],
    hidden_size: int,
    length: int,
    questions: int,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """One width, prompt length and number of groups; `engines` by way, `PLAIN` first."""
    from vllm import SamplingParams

    parameters = SamplingParams(temperature=1.0, max_tokens=args.tokens, ignore_eos=True)
    hits: dict[str, set[int]] = {way: set() for way in engines}
    turns = {way: 0 for way in engines}

    def batch(way: str) -> None:
        turns[way] += 1  # fresh soft prompts each time
        form = "tokens" if way == PLAIN else way
        prompts = [
            make_prompt(form, question, GROUP * turns[way] + n, length, hidden_size, args.dtype)
            for question in range(questions)
            for n in range(GROUP)
        ]
        outputs = engines[way].generate(prompts, parameters, use_tqdm=False)
        hits[way].add(sum(output.num_cached_tokens for output in outputs))

    def timed(way: str) -> Callable[[], float]:
        def once() -> float:
            engines[way].reset_prefix_cache()
            return CLOCKS[args.clock](lambda: batch(way))

        return once

    found = compare(timed(PLAIN), {way: timed(way) for way in WAYS}, args.rounds)
    tokens = questions * GROUP * args.tokens
    result = {
        "hidden_size": hidden_size,
        "length": length,
        "sequences": questions * GROUP,
        "output_tokens_per_second": {
            PLAIN: tokens / found["rows"].baseline,
            **{way: tokens / ratio.candidate for way, ratio in found.items()},
        },
        "throughput_over_plain": {way: 1 / ratio.value for way, ratio in found.items()},
        "clock": args.clock,
        "noise": found["rows"].noise,
        "goal": GOAL,
        "hit_tokens": {way: sorted(counts) for way, counts in hits.items()},
    }
    print(
        f"engine,  d {hidden_size:<5} T {length:<5} {questions * GROUP:>4} sequences: "
        "throughput over a plain engine's: "
        + ", ".join(f"{w} {v:.3f}" for w, v in result["throughput_over_plain"].items())
        + f" (noise {result['noise']:.3f}); hits {result['hit_tokens']}",
        flush=True,
    )
    return result


if __name__ == "__main__":
    main()
