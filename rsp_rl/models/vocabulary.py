"""Whether the tokens that the tokenizer fills gaps with are tokens of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsp_rl.basics.errors import ConfigError
from rsp_rl.placement.prompt import placeholder_id

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


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
