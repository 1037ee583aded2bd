"""Thoughts on vLLM's own server: what a request's extra arguments ask for, and what it gets back.

    extra_body={"vllm_xargs": {"law": "gumbel", "law_k": 5, "law_end": ["</think>"]}}

`law` names the law; `law_KEY` are its settings and its phases (`rsp_rl.thoughts.settings`), and of
the request's own:

- `law_seed`: of the noise; by default it follows from the request's `seed`, and is drawn without;
- `law_records`: 0 for an answer without records, as a streamed one must be.

The records come in the response's `kv_transfer_params`, the one field of it that vLLM lets an
engine fill, as `rsp_thoughts`: the law's name, the seed, `thoughts` as in the samples of an
evaluation, and `record`, base64 of what `ThoughtRecord.from_bytes` reads, from which every input
can be made again.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import functools
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsp_rl.basics.errors import ConfigError, GenerationError
from rsp_rl.inference.model_law import model_law
from rsp_rl.inference.prompts import sample_seed
from rsp_rl.inference.thinking import thinking_of_model
from rsp_rl.models.folder import load_tokenizer
from rsp_rl.thoughts.columns import thought_columns
from rsp_rl.thoughts.names import LAWS
from rsp_rl.thoughts.record import ThoughtRecord
from rsp_rl.thoughts.settings import Thinking, ThoughtSettings

#: Names of the extra arguments; those that start with `law_` beside these are settings.
LAW, SEED, RECORDS = "law", "law_seed", "law_records"

_PREFIX = "law_"

#: Where a response has its thoughts.
FIELD, KEY = "kv_transfer_params", "rsp_thoughts"

#: What vLLM calls the second and later prompts of a completion.
_LATER_PROMPT = re.compile(r"cmpl-.*-[1-9]\d*")


@dataclass(frozen=True)
class Asked:
    """What a request asks for.

    Attributes:
        settings: The user's.
        seed: Of its noise, None if it names none.
        records: Whether they are to be returned.
    """

    settings: ThoughtSettings
    seed: int | None = None
    records: bool = True


@dataclass(frozen=True)
class Pending:
    """A request that thinks.

    Attributes:
        thinking: What the worker was sent.
        key: What its record is claimed by.
        text: Of a token.
        records: Whether they are to be returned.
    """

    thinking: Thinking
    key: int
    text: Callable[[int], str]
    records: bool


def law_names(extra_args: Mapping[str, Any] | None) -> list[str]:
    """Names of the extra arguments that are a law's."""
    return [name for name in extra_args or {} if name == LAW or name.startswith(_PREFIX)]


def law_arguments(extra_args: Mapping[str, Any] | None) -> Asked | None:
    """What a request's extra arguments ask for; None without any of a law.

    Raises:
        ConfigError: If there are settings without a law, or one is unknown or bad.
    """
    given = {name: (extra_args or {})[name] for name in law_names(extra_args)}
    if not given:
        return None
    if LAW not in given:
        raise ConfigError(f"{', '.join(sorted(given))} without {LAW}; say whose settings they are")
    name, seed, records = given.pop(LAW), given.pop(SEED, None), given.pop(RECORDS, 1)
    if not isinstance(name, str):
        raise ConfigError(f"{LAW}={name!r} is unknown; use one of {', '.join(LAWS)}")
    if seed is not None and not (type(seed) is int and 0 <= seed < 1 << 64):
        raise ConfigError(f"{SEED}={seed!r} must be a whole number from 0 to 2^64 - 1")
    if records not in (0, 1):
        raise ConfigError(f"{RECORDS}={records!r} must be 0 or 1")
    settings = {key.removeprefix(_PREFIX): value for key, value in given.items()}
    # Of numbers and texts alone, a request's extra arguments have no words for yes and no.
    for field in dataclasses.fields(LAWS[name]) if name in LAWS else ():
        if field.type == "bool" and settings.get(field.name) in (0, 1):
            settings[field.name] = bool(settings[field.name])
    return Asked(ThoughtSettings.from_dict(name, settings), seed, bool(records))


def pending(config: Any, folder: Path, request_id: str, asked: Asked, params: Any) -> Pending:
    """Make a request ready to be sent.

    Args:
        config: vLLM's, of the engine.
        folder: The served model's.
        request_id: As the server calls it.
        asked: What it asks for.
        params: Its `SamplingParams`, as the answer is to be sampled.

    Raises:
        ConfigError: If the engine, the model or the request is none that can think so.
    """
    from vllm.sampling_params import RequestOutputKind

    from rsp_rl.injection.thinking_engine import check_engine, check_request
    from rsp_rl.injection.thinking_prompt import new_key

    check_engine(config)
    if asked.records and params.output_kind == RequestOutputKind.DELTA:
        raise ConfigError(
            f"a streamed answer has no field for the records of its thoughts; set {RECORDS}=0 to "
            "go without, or leave stream out"
        )
    if asked.records and _LATER_PROMPT.fullmatch(request_id):
        raise ConfigError(
            "a completion of several prompts has a field for the thoughts of one; send a request "
            f"for each, or set {RECORDS}=0"
        )
    tokenizer = _tokenizer(folder)
    needs_table = getattr(asked.settings.law, "rms", 0.0) is None
    table = _table(folder) if needs_table else None
    made = thinking_of_model(asked.settings, folder, tokenizer, table)
    most = made.phases.max_thoughts
    if most is not None and params.max_tokens is not None and most >= params.max_tokens:
        raise ConfigError(
            f"law_max_thoughts={most} leaves no room for an answer in max_tokens="
            f"{params.max_tokens}"
        )
    seed = asked.seed
    if seed is None:
        # Another stream than the tokens'.
        given = params.seed
        seed = secrets.randbits(63) if given is None else sample_seed(given, "law/server", "", 0)
    thinking = made.of(seed)
    check_request(config, thinking, params)
    return Pending(thinking, new_key(), lambda token: tokenizer.decode([token]), asked.records)


@functools.cache
def _tokenizer(folder: Path) -> Any:
    """As the folder has it: vLLM's own has a token more."""
    return load_tokenizer(folder)


@functools.cache
def _table(folder: Path) -> tuple[float, float]:
    stats = model_law(folder)
    return stats.mean, stats.std


async def with_thoughts(
    engine: Any, outputs: AsyncIterator[Any], waiting: dict[str, Pending], request_id: str
) -> AsyncIterator[Any]:
    """vLLM's outputs of one request, the last one with its thoughts.

    Args:
        engine: vLLM's asynchronous one.
        outputs: Of the request.
        waiting: Requests that were sent and whose records are not claimed; this one goes.
        request_id: Its name there, once it was sent.

    Raises:
        GenerationError: If the worker has no record of it, or another's.
    """
    try:
        async for output in outputs:
            if output.finished and (sent := waiting.get(request_id)) and sent.records:
                (encoded, *_) = await engine.collective_rpc("take_thoughts", args=([sent.key],))
                del waiting[request_id]
                made = await asyncio.to_thread(response_field, output, sent, encoded[0])
                others = getattr(output, FIELD) or {}
                setattr(output, FIELD, {**others, KEY: made})
            yield output
    finally:
        # Given up by the client, or not asked for: nobody will claim it.
        if sent := waiting.pop(request_id, None):
            _forget(engine, sent.key)


def response_field(output: Any, sent: Pending, encoded: bytes | None) -> dict[str, Any]:
    """What a response says of its thoughts.

    Args:
        output: vLLM's, finished.
        sent: Its request.
        encoded: Its record from the worker, maybe of more tokens.

    Raises:
        GenerationError: If there is none, or it is another output's.
    """
    if encoded is None:
        raise GenerationError("vLLM's worker has no record of the thoughts of this request")
    (sample,) = output.outputs
    record = ThoughtRecord.from_bytes(encoded)
    # Of an output that a law ended vLLM has one more token, the one that it was ended with.
    tokens = list(sample.token_ids)[: len(record)]
    record = record.cut(len(tokens))
    try:
        record.check(tokens)
    except ValueError as error:
        raise GenerationError(str(error)) from error
    return {
        "law": record.law.name,
        "seed": record.seed,
        "thoughts": thought_columns(record, sent.text),
        "record": base64.b64encode(record.to_bytes()).decode(),
    }


_forgetting: set[asyncio.Task[None]] = set()


def _forget(engine: Any, key: int) -> None:
    """Have a record dropped; a client that went away does not wait for it."""

    async def drop() -> None:
        # An engine that died has no records either.
        with contextlib.suppress(Exception):
            await engine.collective_rpc("drop_thoughts", args=([key],))

    task = asyncio.get_running_loop().create_task(drop())
    _forgetting.add(task)  # else it may be collected before it ran
    task.add_done_callback(_forgetting.discard)
