"""vLLM with soft prompts on this device, held against Hugging Face with the same H.

    python -m gpu.engine --device cuda --model FOLDER --dtype bfloat16 --output engine.json

Records and rows are the same request; prefix-cache hits are those of token prompts; two draws of
one question are two policies; vLLM's tokens and log-probs are Hugging Face's, to rounding. With
`--throughput` also tokens a second, to hold the variants (`--eager`, `--invariant`, `--fp32-head`)
against each other. The engine runs in this process.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from results import Results
from rollout_prompts import make_prompt

from parity.actor import Sample, plain_torch_log_probs
from parity.measure import Gap
from parity.rollouts import GROUP, prompts
from rsp_rl.draws.record import SoftPromptRecord

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from vllm import LLM

RESPONSE = 24
_SEQUENCES, _THROUGHPUT_TOKENS = 64, 128

#: Nats, mean over tokens: the guard's bounds for fp32 and bf16 (`configs/machine`).
LARGEST_GAP = {"float32": 1e-4, "bfloat16": 0.05}
#: The same for fp32 in which attention multiplies in TF32, 10 bits of mantissa.
LARGEST_GAP_TF32 = 5e-3
#: How much larger the gap must be without the soft prompts: else nothing was shown.
FORGOTTEN = 3
#: Nats that Hugging Face's own best token may be above vLLM's choice.
TIE = {"float32": 1e-2, "bfloat16": 0.3}

Rollout = tuple[list[int], SoftPromptRecord | None]


def main() -> None:
    """Check, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder")
    parser.add_argument("--dtype", choices=tuple(LARGEST_GAP), default="bfloat16")
    parser.add_argument("--eager", action="store_true", help="no torch.compile, no CUDA graphs")
    parser.add_argument(
        "--tf32", action="store_true", help="fp32 as Triton multiplies it by default, in TF32"
    )
    parser.add_argument("--runner", choices=("v1", "v2"), help="vLLM's; default: its own choice")
    parser.add_argument("--invariant", action="store_true", help="batch-invariant kernels")
    parser.add_argument("--fp32-head", action="store_true", help="logits in fp32, on both sides")
    parser.add_argument("--throughput", type=int, default=0, metavar="ROUNDS")
    parser.add_argument("--gpu-share", type=float, default=0.1, help="of its memory, for vLLM")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    results = Results(args.output, settings=vars(args) | {"torch": torch.__version__})

    # Read when vLLM is first imported.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
    if not args.tf32:
        os.environ["TRITON_F32_DEFAULT"] = "ieee"
    if args.invariant:
        os.environ["VLLM_BATCH_INVARIANT"] = "1"
    if args.runner:
        os.environ["VLLM_USE_V2_MODEL_RUNNER"] = str(int(args.runner == "v2"))
    torch.set_float32_matmul_precision("highest")  # no TF32

    begun = time.monotonic()
    try:
        llm = start_engine(args)
    except ValueError as error:  # vLLM's refusal of the settings
        refused = args.runner == "v2" and "prompt embeds" in str(error)
        lines = str(error).splitlines()
        told = next((line.strip() for line in lines if "not yet support" in line), lines[-1])
        told = told.partition(" [type=")[0]  # pydantic's account of the value
        results.check("vLLM's V2 runner takes or refuses prompt embeddings", refused, told=told)
        sys.exit(results.finish())
    results.figure("start of the engine", seconds=time.monotonic() - begun, **what_runs(llm))
    if args.fp32_head:
        llm.apply_model(fp32_head)

    rollouts = [row for row in prompts(args.model, args.dtype) if row[1] is not None]
    check_hits(results, llm)
    samples = check_ways(results, llm, rollouts)
    check_draws_differ(results, llm, rollouts, samples)
    if args.throughput:
        measure_throughput(results, llm, rollouts, args.throughput)
    llm.llm_engine.engine_core.shutdown()

    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        args.model, dtype=getattr(torch, args.dtype), attn_implementation="sdpa"
    )
    model = model.to(args.device).eval()
    if args.fp32_head:
        head = model.lm_head
        model.lm_head = torch.nn.Linear(head.in_features, head.out_features, bias=False)
        model.lm_head.weight = torch.nn.Parameter(head.weight.detach().float())
        model.lm_head.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
    with torch.no_grad():
        bound = LARGEST_GAP_TF32 if args.tf32 else LARGEST_GAP[args.dtype]
        check_log_probs(results, model, samples, bound, TIE[args.dtype])
    sys.exit(results.finish())


def start_engine(args: argparse.Namespace) -> LLM:
    """vLLM as a training starts it, but for sizes; on a CPU eager."""
    from vllm import LLM

    from rsp_rl.injection.vllm_prompt import WORKER

    settings: dict[str, Any] = {"enforce_eager": True} if args.device == "cpu" else {}
    if args.device == "cuda":
        settings = {"enforce_eager": args.eager, "gpu_memory_utilization": args.gpu_share}
    return LLM(
        str(args.model),
        dtype=args.dtype,
        enable_prompt_embeds=True,
        worker_cls=WORKER,
        enable_prefix_caching=True,
        max_model_len=512,
        max_num_seqs=_SEQUENCES,
        max_num_batched_tokens=2048,
        block_size=16,
        disable_log_stats=False,
        **settings,
    )


def what_runs(llm: LLM) -> dict[str, Any]:
    """The choices that vLLM made by itself."""
    config = llm.llm_engine.vllm_config
    return {
        "v2_runner": config.use_v2_model_runner,
        "cuda_graphs": str(config.compilation_config.cudagraph_mode),
        "kv_tokens": config.cache_config.num_gpu_blocks * config.cache_config.block_size,
    }


def fp32_head(model: torch.nn.Module) -> None:
    """Have a vLLM model compute its logits in fp32, from its head's own weights.

    vLLM has no option for it (`head_dtype` is for pooling models). For models without a soft cap
    or scale of logits.
    """
    weight = model.lm_head.weight.detach().float()
    vocabulary = model.config.vocab_size
    model.compute_logits = lambda hidden: (hidden.float() @ weight.T)[..., :vocabulary]


def generate(
    llm: LLM, requests: list[Any], tokens: int, **sampling: Any
) -> list[tuple[list[int], np.ndarray, int]]:
    """By request: response, its tokens' log-probs, and the prompt tokens that were cached."""
    from vllm import SamplingParams

    parameters = SamplingParams(
        **{"temperature": 0.0, **sampling}, max_tokens=tokens, logprobs=0, ignore_eos=True
    )
    found = []
    for output in llm.generate(requests, parameters, use_tqdm=False):
        response = list(output.outputs[0].token_ids)
        places = output.outputs[0].logprobs
        log_probs = [at[token].logprob for token, at in zip(response, places, strict=True)]
        found.append((response, np.array(log_probs), output.num_cached_tokens or 0))
    return found


def check_hits(results: Results, llm: LLM) -> None:
    """A group's later rollouts find as many blocks in the prefix cache as token prompts do."""
    config = llm.llm_engine.model_config
    dtype = str(config.dtype).removeprefix("torch.")
    hits: dict[str, list[int]] = {}
    for way in ("tokens", "rows", "record"):
        llm.reset_prefix_cache()
        group = [
            make_prompt(way, 0, rollout, 150, config.get_hidden_size(), dtype)
            for rollout in range(GROUP)
        ]
        hits[way] = [generate(llm, [prompt], 1)[0][2] for prompt in group]
    results.check(
        "prefix-cache hits are those of token prompts",
        hits["tokens"] == hits["rows"] == hits["record"] and hits["record"][1] > 0,
        **hits,
    )


def check_ways(results: Results, llm: LLM, rollouts: list[Rollout]) -> list[Sample]:
    """The same greedy tokens and log-probs from records and from rows; the records' samples."""
    from rsp_rl.injection.vllm_prompt import mixed_prompt, record_prompt

    width = llm.llm_engine.model_config.get_hidden_size()
    makers: dict[str, Callable] = {
        "record": record_prompt,
        "rows": lambda tokens, record: mixed_prompt(tokens, record, width),
    }
    found = {}
    for way, make in makers.items():
        llm.reset_prefix_cache()
        found[way] = generate(llm, [make(*row) for row in rollouts], RESPONSE)
    same = [a[0] == b[0] for a, b in zip(found["record"], found["rows"], strict=True)]
    apart = max(
        float(np.abs(a[1] - b[1]).max())
        for a, b in zip(found["record"], found["rows"], strict=True)
    )
    results.check(
        "records and rows give the same tokens and log-probs",
        all(same) and apart == 0,
        same_responses=f"{sum(same)} of {len(same)}",
        largest_difference=apart,
    )
    return [
        Sample(tokens, response, log_probs, 0.0, record)
        for (tokens, record), (response, log_probs, _) in zip(
            rollouts, found["record"], strict=True
        )
    ]


def check_draws_differ(
    results: Results, llm: LLM, rollouts: list[Rollout], samples: list[Sample]
) -> None:
    """One question's draws move the first token's log-prob by more than a repetition does."""
    from rsp_rl.injection.vllm_prompt import record_prompt

    llm.reset_prefix_cache()
    again = generate(llm, [record_prompt(*row) for row in rollouts], 1)
    first = np.array([sample.old_log_probs[0] for sample in samples]).reshape(-1, GROUP)
    repeated = np.abs(np.array([row[1][0] for row in again]).reshape(-1, GROUP) - first).max()
    moved = np.abs(first[:, 1:] - first[:, :1]).mean()
    results.check(
        "two draws of one question are two policies",
        bool(moved > 3 * repeated),
        mean_move=float(moved),
        largest_of_a_repetition=float(repeated),
    )


def check_log_probs(
    results: Results, model: PreTrainedModel, samples: list[Sample], bound: float, tie: float
) -> None:
    """vLLM's tokens and log-probs against Hugging Face's, H put in by hand."""
    best: list[float] = []

    def log_probs(soft_prompts: bool) -> list[np.ndarray]:
        rows = plain_torch_log_probs(model, samples, soft_prompts, best if soft_prompts else None)
        return [row.float().cpu().numpy() for row in rows]

    ours, forgotten = log_probs(True), log_probs(False)
    gap, missed = Gap.between(samples, ours), Gap.between(samples, forgotten)
    results.check(
        "log-probs equal Hugging Face's with the same H",
        gap.mean <= bound and missed.mean >= FORGOTTEN * gap.mean,
        mean_gap=gap.mean,
        largest_gap=gap.max,
        mean_gap_if_forgotten=missed.mean,
        tokens=sum(len(sample.response) for sample in samples),
    )
    short = np.array(best) - np.concatenate(ours)
    results.check(
        "greedy tokens are Hugging Face's, ties aside",
        float(short.max()) <= tie,
        other_tokens=f"{int((short > 0).sum())} of {len(short)}",
        most_nats_below_the_best=float(short.max()),
    )


def measure_throughput(results: Results, llm: LLM, rollouts: list[Rollout], rounds: int) -> None:
    """Tokens a second of a full batch, sampled."""
    from rsp_rl.injection.vllm_prompt import record_prompt

    requests = [record_prompt(*rollouts[n % len(rollouts)]) for n in range(_SEQUENCES)]

    def once() -> float:
        llm.reset_prefix_cache()
        begun = time.perf_counter()
        generate(llm, requests, _THROUGHPUT_TOKENS, temperature=1.0)
        return _SEQUENCES * _THROUGHPUT_TOKENS / (time.perf_counter() - begun)

    once()
    rates = [once() for _ in range(rounds)]
    results.figure(
        f"{_SEQUENCES} sequences of {_THROUGHPUT_TOKENS} tokens",
        tokens_per_second=float(np.median(rates)),
        slowest=min(rates),
        fastest=max(rates),
    )


if __name__ == "__main__":
    main()
