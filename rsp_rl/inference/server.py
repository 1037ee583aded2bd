"""Soft prompts on vLLM's own server: `vllm serve MODEL --enable-prompt-embeds`.

With `--worker-cls rsp_rl.injection.vllm_worker.SoftPromptWorker` the workers draw the soft prompts,
which saves sending them (see `rsp_rl.injection.vllm_prompt`).

A plug-in that vLLM loads by itself (entry point group `vllm.general_plugins`). A request asks for
a soft prompt by vLLM's extra arguments, as the openai client sends them:

    client.chat.completions.create(
        model=..., messages=[...],
        extra_body={"vllm_xargs": {"rsp_length": 20, "rsp_position": "suffix", "rsp_seed": 7}},
    )

All others pass through untouched; of these, ids that the model has an output for and the
tokenizer no token are kept out of the answer, as in training and evaluation (also with
`rsp_length` 0). In a chat the soft prompt stands where training and evaluation
put it, whatever the template's arguments and the last turn are; in a prompt of text or tokens it
does, or the request is refused (`rsp_rl.placement.tokens`).

The n choices of one request share its draw; for independent ones send n requests with seeds of
their own.

A law for a request's thoughts is asked for in the same way, alone or beside a soft prompt, see
`rsp_rl.inference.served_thoughts`; it needs the worker and `--no-async-scheduling`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from rsp_rl.basics.errors import ConfigError, PlacementError
from rsp_rl.dials.options import RspOptions, rollout_dtype
from rsp_rl.draws.record import EXTRA_ARG, SoftPromptRecord
from rsp_rl.inference.model_law import model_law
from rsp_rl.inference.prompts import check_room
from rsp_rl.inference.served_thoughts import (
    Asked,
    Pending,
    law_arguments,
    law_names,
    pending,
    with_thoughts,
)
from rsp_rl.inference.thinking import check_thoughts
from rsp_rl.models.folder import check_model, load_tokenizer, resolve_model_folder
from rsp_rl.models.vocabulary import check_placeholder, check_tokens, suppression
from rsp_rl.placement.prompt import placeholder_id
from rsp_rl.placement.tokens import place_in_tokens
from rsp_rl.thoughts.settings import EXTRA_ARG as THOUGHTS_ARG
from rsp_rl.training.vllm_faults import lora_fault

#: Names of the extra arguments; all others starting with `rsp_` are refused.
LENGTH, POSITION, SEED, SCALE = "rsp_length", "rsp_position", "rsp_seed", "rsp_scale"


def register() -> None:
    """Let vLLM's asynchronous engine understand requests for soft prompts and thoughts.

    vLLM has no extension point between a request's extra arguments and its prompt, nor between a
    worker's records and an output, hence this patch of two methods; a third refuses what cannot be.
    It is safe to call twice.
    """
    from vllm.exceptions import VLLMValidationError
    from vllm.v1.engine.async_llm import AsyncLLM

    from rsp_rl.inference import vllm_renderer

    vllm_renderer.enter()

    add_request = AsyncLLM.add_request
    if getattr(add_request, "takes_soft_prompts", False):
        return

    @functools.wraps(add_request)
    async def with_soft_prompt(
        self: Any, request_id: str, prompt: Any, params: Any, *args: Any, **kwargs: Any
    ) -> Any:
        try:
            extra_args = getattr(params, "extra_args", None)
            asked, law = soft_prompt_arguments(extra_args), law_arguments(extra_args)
            if asked or law:
                # In a thread: drawing and placing must not hold up the other requests.
                ready = await asyncio.to_thread(
                    _ready, self, request_id, prompt, params, asked, law
                )
                prompt, params, thoughts = ready
                if thoughts is not None:
                    _waiting(self)[request_id] = thoughts
        except (ConfigError, PlacementError) as error:
            raise VLLMValidationError(str(error)) from error  # the server answers 400
        return await add_request(self, request_id, prompt, params, *args, **kwargs)

    generate = AsyncLLM.generate

    @functools.wraps(generate)
    def with_records(
        self: Any, prompt: Any, sampling_params: Any, request_id: str, *args: Any, **kwargs: Any
    ) -> Any:
        outputs = generate(self, prompt, sampling_params, request_id, *args, **kwargs)
        if not law_names(getattr(sampling_params, "extra_args", None)):
            return outputs
        return with_thoughts(self, outputs, _waiting(self), request_id)

    with_soft_prompt.takes_soft_prompts = True
    AsyncLLM.add_request = with_soft_prompt
    AsyncLLM.generate = with_records
    _refuse_beam_search()


def _refuse_beam_search() -> None:
    """vLLM's parameters of a beam search have no extra arguments, so that they would be dropped."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.exceptions import VLLMValidationError

    def refusing(stock: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(stock)
        def to_beam_search_params(self: Any, *args: Any, **kwargs: Any) -> Any:
            asked = self.vllm_xargs or {}
            if lost := [*law_names(asked), *(name for name in asked if name.startswith("rsp_"))]:
                raise VLLMValidationError(
                    f"a beam search has no {' or '.join(lost)}: soft prompts and laws are of "
                    "sampled and greedy answers; leave use_beam_search out"
                )
            return stock(self, *args, **kwargs)

        return to_beam_search_params

    for request in (CompletionRequest, ChatCompletionRequest):
        request.to_beam_search_params = refusing(request.to_beam_search_params)


def _waiting(engine: Any) -> dict[str, Pending]:
    """Requests of an engine whose records are not claimed yet, by their names."""
    return engine.__dict__.setdefault("rsp_thoughts", {})


def _ready(
    engine: Any,
    request_id: str,
    prompt: Any,
    params: Any,
    asked: Mapping[str, Any],
    law: Asked | None,
) -> tuple[Any, Any, Pending | None]:
    """Prompt and sampling parameters as vLLM takes them, and what is pending of a law."""
    config = engine.vllm_config
    if law is None:
        return _mixed(engine, prompt, asked), _sampling(engine, params, asked), None
    params = _sampling(engine, params, [*asked, *law_names(params.extra_args)])
    answer = law.settings.answer_sampling({"temperature": params.temperature})
    params.temperature = answer["temperature"]
    folder = resolve_model_folder(config.model_config.model)
    thoughts = pending(config, folder, request_id, law, params)
    from rsp_rl.injection.thinking_prompt import extra_args

    params.extra_args |= extra_args(thoughts.thinking, thoughts.key)
    return _mixed(engine, prompt, asked, thoughts), params, thoughts


def soft_prompt_arguments(extra_args: Mapping[str, Any] | None) -> dict[str, Any]:
    """The extra arguments that ask for a soft prompt; empty for a request without one.

    Raises:
        ConfigError: On an unknown one, or if there are some without a length.
    """
    asked = {name: value for name, value in (extra_args or {}).items() if name.startswith("rsp_")}
    # Training's requests carry a whole record and a law's settings, under names of their own.
    for own in (EXTRA_ARG, THOUGHTS_ARG):
        if not isinstance(asked.pop(own, {}), Mapping):
            raise ConfigError(f"{own} is no argument of a client's; known: {LENGTH}, law")
    known = (LENGTH, POSITION, SEED, SCALE)
    if unknown := sorted(set(asked) - set(known)):
        raise ConfigError(f"unknown extra argument {unknown[0]}; known: {', '.join(known)}")
    if asked and LENGTH not in asked:
        raise ConfigError(f"{', '.join(sorted(asked))} without {LENGTH}; say how long it is to be")
    return asked


def _sampling(engine: Any, params: Any, asked: Collection[str]) -> Any:
    """vLLM's sampling parameters without what it does not know, tokens without a text kept out."""
    params = params.clone()
    params.extra_args = {
        name: value for name, value in params.extra_args.items() if name not in asked
    }
    unknown = _suppressed(engine.vllm_config.model_config.model)
    params.logit_bias = {**(params.logit_bias or {}), **unknown} or None
    return params


def _mixed(
    engine: Any, prompt: Any, asked: Mapping[str, Any], thoughts: Pending | None = None
) -> Any:
    """A prompt of tokens as vLLM's mixed prompt; one with thoughts has blocks of its own."""
    from rsp_rl.injection.vllm_prompt import prompt_maker

    model = engine.vllm_config.model_config
    if not model.enable_prompt_embeds:
        raise ConfigError(
            "this server takes no soft prompts; start it as vllm serve MODEL --enable-prompt-embeds"
        )
    tokens = prompt.get("prompt_token_ids") if isinstance(prompt, Mapping) else None
    if not tokens or prompt.get("type", "token") != "token" or "multi_modal_data" in prompt:
        raise ConfigError(
            "soft prompts and thoughts need a prompt of text or tokens, without images or "
            "embeddings of its own"
        )
    token_ids, record = _placed(engine, prompt, asked)
    if record is None and thoughts is None:
        return prompt
    tokenizer = _tokenizer(engine)
    # vLLM looks no further at the tokens of prompts with embeddings in them.
    check_placeholder(tokenizer, model.get_vocab_size())
    check_tokens(tokenizer, token_ids, model.get_vocab_size(), "the prompt")
    if thoughts is None:
        made = prompt_maker(engine.vllm_config)(token_ids, record)
    else:
        from rsp_rl.injection.thinking_prompt import private_prompt

        check_thoughts(
            token_ids,
            thoughts.thinking.phases,
            tokenizer,
            context=model.max_model_len,
            max_tokens=thoughts.max_tokens,
            prompt="the prompt",
        )
        made = private_prompt(token_ids, record, thoughts.key)
    if salt := prompt.get("cache_salt"):  # keeps clients' prefix caches apart
        made["cache_salt"] = salt
    return made


def _tokenizer(engine: Any) -> PreTrainedTokenizerBase:
    tokenizer = engine.get_tokenizer()
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ConfigError(
            f"soft prompts and thoughts need a Hugging Face tokenizer, and this server has a "
            f"{type(tokenizer).__name__}; start it with --tokenizer-mode hf"
        )
    return tokenizer


def _placed(
    engine: Any, prompt: Mapping[str, Any], asked: Mapping[str, Any]
) -> tuple[list[int], SoftPromptRecord | None]:
    """A prompt's tokens, placeholders for its soft prompt among them, and its record if it has one.

    Raises:
        ConfigError: On a bad argument, or if the prompt leaves no room for an answer.
        PlacementError: If the soft prompt has no place in it.
    """
    from rsp_rl.inference.vllm_renderer import CHAT

    token_ids = list(prompt["prompt_token_ids"])
    if not asked:
        return token_ids, None
    model = engine.vllm_config.model_config
    mean, std = _law(model.model)
    options = RspOptions(
        length=asked[LENGTH],
        position=asked.get(POSITION, "suffix"),
        scale=asked.get(SCALE, 1.0),
        mean=mean,
        std=std,
    )
    if not options.enabled:
        return token_ids, None
    if engine.vllm_config.lora_config and (fault := lora_fault(model.hf_config)):
        raise ConfigError(
            f"{fault}; start the server without --enable-lora, the adapter merged into the model"
        )
    tokenizer = _tokenizer(engine)
    check_tokens(tokenizer, token_ids, model.get_vocab_size(), "the prompt")
    chat = prompt.get(CHAT)
    place = chat.place if chat is not None else place_in_tokens
    placed = place(tokenizer, token_ids, options.length, options.position)
    check_room(placed, options.length, model.max_model_len, "the prompt")
    seed = asked.get(SEED, 0)
    if not (type(seed) is int and 0 <= seed < 1 << 64):
        raise ConfigError(f"{SEED}={seed!r} must be a whole number from 0 to 2^64 - 1")
    record = SoftPromptRecord(
        seed=seed,
        start=placed.start,
        length=options.length,
        mean=mean,
        std=std * options.scale,
        dtype=rollout_dtype(str(model.dtype)),
        placeholder_id=placeholder_id(tokenizer),
    )
    return placed.token_ids, record


@functools.cache
def _suppressed(model: str) -> dict[int, float]:
    """See `suppression`."""
    folder = resolve_model_folder(model)
    return suppression(check_model(folder), load_tokenizer(folder))


@functools.cache
def _law(model: str) -> tuple[float, float]:
    """mu_E and sigma_E of the served model."""
    stats = model_law(resolve_model_folder(model))
    return stats.mean, stats.std
