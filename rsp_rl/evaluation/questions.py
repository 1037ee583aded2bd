"""A protocol's benchmarks as requests: every sample with its prompt, its seed and its draw."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rsp_rl.basics.errors import PlacementError
from rsp_rl.data.benchmarks import Problem
from rsp_rl.data.templates import get_template
from rsp_rl.evaluation.protocol import BenchmarkPlan, Protocol
from rsp_rl.inference.prompts import Sampling, check_room, sample_requests, sample_seeds
from rsp_rl.inference.requests import Request
from rsp_rl.inference.thinking import ModelThinking, check_thoughts
from rsp_rl.models.stop_tokens import stop_token_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Question:
    """One sample to be generated.

    Attributes:
        problem: Its problem.
        sample: Its number among those of the problem.
        prompt_hash: Of the prompt's token ids, 16 hexadecimal digits.
        request: What the engine is asked.
    """

    problem: Problem
    sample: int
    prompt_hash: str
    request: Request


def questions(
    plan: BenchmarkPlan,
    problems: list[Problem],
    protocol: Protocol,
    tokenizer: PreTrainedTokenizerBase,
    *,
    dtype: str,
    context: int | None,
    model: Path | None = None,
    thinking: ModelThinking | None = None,
) -> Iterator[Question]:
    """Every sample of a benchmark, a problem's next to each other: they share a prefix cache.

    Args:
        plan: The benchmark's part of the protocol.
        problems: Its problems.
        protocol: The protocol; mu_E and sigma_E set if it has soft prompts.
        tokenizer: The model's.
        dtype: What soft prompts are rounded to.
        context: Longest prompt with output that the model takes, in tokens, if there is a limit.
        model: Its folder, whose own stop tokens count (`rsp_rl.models.stop_tokens`).
        thinking: The protocol's law, made ready for the model.

    Raises:
        ConfigError: If a prompt, its soft prompt included, leaves no room for an output, or the
            most thoughts none for an answer.
        PlacementError: If a soft prompt has no place in a prompt.
        ValueError: If the protocol has a law and `thinking` is missing, or the other way round.
    """
    if (protocol.law is None) != (thinking is None):
        raise ValueError("a protocol's law and the model's go together")
    template, rsp = get_template(protocol.template), protocol.rsp
    end_of_turn = stop_token_of(template, tokenizer, model)
    sampling = Sampling(
        temperature=plan.temperature,
        top_p=plan.top_p,
        top_k=plan.top_k,
        max_tokens=plan.max_tokens or protocol.max_tokens,
        stop=protocol.stop,
        stop_token_ids=() if end_of_turn is None else (end_of_turn,),
    )
    for problem in problems:
        where = f"the prompt of {plan.benchmark}, problem {problem.id}"
        try:
            if rsp.has_added_rows:
                placed = template.find_question(tokenizer, problem.question)
            else:
                placed = template.place(tokenizer, problem.question, rsp.length, rsp.position)
        except PlacementError as error:
            raise PlacementError(f"{where}: {error}") from error
        check_room(placed, rsp.length, context, where)
        check_thoughts(
            placed.token_ids,
            thinking and thinking.phases,
            tokenizer,
            context=context,
            max_tokens=sampling.max_tokens,
            prompt=where,
        )
        token_bytes = np.asarray(placed.token_ids, dtype=np.int64).tobytes()
        prompt_hash = hashlib.blake2b(token_bytes, digest_size=8).hexdigest()
        requests = sample_requests(
            placed,
            tokenizer,
            rsp,
            sampling,
            sample_seeds(protocol.seed, rsp, plan.benchmark, problem.id, plan.samples),
            dtype,
            thinking,
        )
        for request in requests:
            asked = replace(request, question=problem.question)
            yield Question(problem, request.number, prompt_hash, asked)
