"""Tokens that the model knows and the tokenizer does not, and the other way round."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from rsp_rl.basics.errors import ConfigError
from rsp_rl.placement.prompt import placeholder_id

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

#: vLLM takes a bias for no more tokens (`vllm.v1.worker.gpu.sample.logit_bias`).
MOST = 1024


def unknown_tokens(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that the model has an output for and the tokenizer no token.

    verl's rollouts never sample them (`monkey_patch_compute_logits`), so no other engine may.

    Args:
        config: The model's.
        tokenizer: As its folder has it: vLLM adds a token of its own to the one that it serves
            with, and would let the first of these be sampled.

    Returns:
        The ids; none, with a warning, where they are more than vLLM can keep out of an output:
        a trained model gives them next to no probability, and the evaluation should say so rather
        than not be made.
    """
    rows = config.get_text_config().vocab_size
    unknown = sorted({*range(rows)} - {*tokenizer.get_vocab().values()})
    if len(unknown) > MOST:
        logger.warning(
            "the model has %d tokens and its tokenizer %d: %d without a text, more than the %d "
            "that vLLM keeps out of an output; they stay possible here, and are not in training's "
            "rollouts",
            *(rows, len(tokenizer), len(unknown), MOST),
        )
        return []
    return unknown


def suppression(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> dict[int, float]:
    """vLLM's `logit_bias` that keeps `unknown_tokens` out of an output; -100 is its least."""
    return dict.fromkeys(unknown_tokens(config, tokenizer), -100.0)


def check_numbering(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make sure that verl lets rollouts sample every token.

    It masks whatever lies beyond as many ids as there are tokens; in a tokenizer that leaves ids
    out these are tokens, and mostly the end of a turn among them.

    Args:
        tokenizer: The model's.

    Raises:
        ConfigError: Naming one.
    """
    token, number = max(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    if number >= len(tokenizer):
        raise ConfigError(
            f"the tokenizer leaves ids out: it has {len(tokenizer)} tokens, {token!r} is number "
            f"{number}, and verl never lets rollouts sample what lies beyond as many ids as there "
            "are tokens; give the ids between names in tokenizer.json"
        )


def vocabulary_size(config: PretrainedConfig) -> int | None:
    """V, rows of the model's embedding table; None where its config does not say."""
    return getattr(config.get_text_config(), "vocab_size", None)


def check_placeholder(tokenizer: PreTrainedTokenizerBase, vocabulary: int | None) -> None:
    """Make sure that padding and soft prompt positions hold a token of the model.

    A padding token that was added to the tokenizer alone has no row in the embedding table; to look
    it up kills a worker, on a GPU with an assertion that names nothing.

    Args:
        tokenizer: The model's.
        vocabulary: V, if known.

    Raises:
        ConfigError: If there is no such row.
        PlacementError: See `placeholder_id`.
    """
    token = placeholder_id(tokenizer)
    if vocabulary is not None and token >= vocabulary:
        raise ConfigError(
            f"the tokenizer's padding token {tokenizer.convert_ids_to_tokens(token)!r} is number "
            f"{token}, and the model's embedding table has {vocabulary} rows; set pad_token in "
            "tokenizer_config.json to a token of the model's, for example its eos_token, or resize "
            "the table"
        )


def check_tokens(
    tokenizer: PreTrainedTokenizerBase,
    token_ids: list[int],
    vocabulary: int | None,
    where: str,
) -> None:
    """Make sure that a prompt holds tokens of the model alone, and begins once.

    Args:
        tokenizer: The model's.
        token_ids: The prompt's, [T].
        vocabulary: V, if known.
        where: What the error calls the prompt.

    Raises:
        ConfigError: Naming the token.
    """
    if (smallest := min(token_ids, default=0)) < 0:
        raise ConfigError(f"{where} holds {smallest}, which is no token's number")
    largest = max(token_ids, default=0)
    if vocabulary is not None and largest >= vocabulary:
        raise ConfigError(
            f"{where} holds {tokenizer.convert_ids_to_tokens(largest)!r}, token {largest}, and the "
            f"model's embedding table has {vocabulary} rows; leave it out, or use the tokenizer "
            "that the model was trained with"
        )
    bos = tokenizer.bos_token_id
    if bos is not None and token_ids[:2] == [bos, bos]:
        raise ConfigError(
            f"{where} begins with {tokenizer.bos_token!r} twice; leave one out of the text, or of "
            "the chat template"
        )
