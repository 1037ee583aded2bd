"""From a placed prompt to requests: one a sample, each with its own seed and its own draw."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsp_rl.basics.errors import ConfigError
from rsp_rl.dials.options import RspOptions
from rsp_rl.draws.laws import LAWS
from rsp_rl.draws.record import SoftPromptRecord, tokens_digest
from rsp_rl.inference.requests import Request
from rsp_rl.placement.prompt import PlacedPrompt, placeholder_id

if TYPE_CHECKING:  # torch is imported where a request thinks
    from transformers import PreTrainedTokenizerBase

    from rsp_rl.inference.thinking import ModelThinking


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen, for all samples of a prompt.

    Attributes:
        temperature: 0 is greedy.
        top_p: Nucleus; 1 for all.
        top_k: 0 for the whole vocabulary, as vLLM has it.
        max_tokens: Most generated tokens.
        stop: Strings at which an output is cut off.
        stop_token_ids: Tokens that end an output, beside the model's own.
    """

    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    stop: tuple[str, ...]
    stop_token_ids: tuple[int, ...]


@dataclass(frozen=True)
class Seeds:
    """The seeds of a sample; none follows from another.

    Attributes:
        sampling: Of its tokens, in [0, 2^63).
        draw: Of its soft prompt.
        noise: Of its thoughts, in [0, 2^63).
    """

    sampling: int
    draw: int
    noise: int = 0


def sample_requests(
    placed: PlacedPrompt,
    tokenizer: PreTrainedTokenizerBase,
    rsp: RspOptions,
    sampling: Sampling,
    seeds: Iterable[Seeds],
    dtype: str,
    thinking: ModelThinking | None = None,
) -> Iterator[Request]:
    """Requests for the samples of one prompt, numbered from 0.

    Args:
        placed: The prompt, L placeholders in it, or its question found.
        tokenizer: The model's.
        rsp: Soft prompts; mu_E, sigma_E and what else the law needs set if there are any.
        sampling: How tokens are chosen.
        seeds: Of each sample.
        dtype: What soft prompts are rounded to.
        thinking: The law of their thoughts; tokens are then chosen so in the answer alone.
    """
    for number, seed in enumerate(seeds):
        record = None
        if rsp.enabled:
            mean, std = rsp.moments(rsp.scale)
            record = SoftPromptRecord(
                seed=seed.draw,
                start=placed.start,
                length=placed.length if rsp.adds else rsp.length,
                mean=mean,
                std=std,
                dtype=dtype,
                placeholder_id=placeholder_id(tokenizer),
                law=rsp.law,
                table=int(rsp.table_digest, 16) if LAWS[rsp.law].from_table else 0,
                added_to=tokens_digest(placed.span) if rsp.adds else 0,
            )
        arguments = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "max_tokens": sampling.max_tokens,
            "stop": list(sampling.stop),
            "stop_token_ids": list(sampling.stop_token_ids),
            "seed": seed.sampling,
        }
        own = None
        if thinking is not None:
            arguments, own = thinking.answer_sampling(arguments), thinking.of(seed.noise)
        yield Request(number, placed.token_ids, arguments, record, thinking=own)


def sample_seeds(
    sampling_seed: int, rsp: RspOptions, group: str, prompt: str, samples: int
) -> Iterator[Seeds]:
    """Seeds of a prompt's samples, a pure function of their place.

    Args:
        sampling_seed: Of the tokens' sampling and the thoughts' noise; the draws' is `rsp.seed`.
        rsp: `shared` draws are one for all samples of a prompt, the law `fixed` has one for all.
        group: Name of the prompt's benchmark.
        prompt: Id of the prompt within it.
        samples: How many.
    """
    for number in range(samples):
        drawn = 0 if rsp.mode == "shared" else number
        place = ("rsp", "", 0) if LAWS[rsp.law].one_draw else (f"rsp/{group}", prompt, drawn)
        yield Seeds(
            sampling=sample_seed(sampling_seed, group, prompt, number),
            # A name of its own: a draw must not follow from the seed of the sampling.
            draw=sample_seed(rsp.seed, *place),
            noise=sample_seed(sampling_seed, f"law/{group}", prompt, number),
        )


def check_room(placed: PlacedPrompt, length: int, context: int | None, prompt: str) -> None:
    """Make sure that a prompt, its soft prompt included, leaves room for an output.

    Args:
        placed: The prompt.
        length: L of the tokens in it.
        context: Longest prompt with output that the model takes, in tokens, if there is a limit.
        prompt: What the error calls it.

    Raises:
        ConfigError: If it does not.
    """
    if context is not None and len(placed.token_ids) >= context:
        raise ConfigError(
            f"{prompt} has {len(placed.token_ids)} tokens, {length} of them RSP, and leaves no "
            f"room for an output in a context of {context}; use a model with a longer one, or a "
            "smaller L"
        )


def stable_hash(content: object, size: int) -> bytes:
    """BLAKE2b of plain types; JSON keeps `["1", 2]` and `[1, "2"]` apart."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=size).digest()


def sample_seed(seed: int, group: str, prompt: str, sample: int) -> int:
    """Seed of one sample, in [0, 2^63): a pure function of its place."""
    return int.from_bytes(stable_hash([seed, group, prompt, sample], 8), "big") >> 1
