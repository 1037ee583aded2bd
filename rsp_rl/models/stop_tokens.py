"""Where rollouts stop: at the token that closes a turn too, even where the model does not say so.

Qwen2.5's base models name `<|endoftext|>` alone as their end; under a chat template they close
their turn with `<|im_end|>`, and would then go on with turns of their own until the response is
full. verl 0.9.1 passes no stop tokens to vLLM, training or validating. vLLM takes them from the
`eos_token_id` list of the generation config, which may come from a folder of ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rsp_rl.data.templates import ChatTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Folder of the run that holds the generation config for vLLM.
FOLDER = "generation_config"


def missing_stop_token(model: Path, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The chat template's end-of-turn token, if neither model nor tokenizer stops at it."""
    token = ChatTemplate().end_of_turn(tokenizer)
    return None if token is None or token in known_stop_tokens(model, tokenizer) else token


def write_generation_config(
    folder: Path, model: Path, tokenizer: PreTrainedTokenizerBase, token: int
) -> None:
    """Write a generation config with the model's stop tokens and one more.

    Nothing else in it: the sampling parameters of verl's requests are all explicit.

    Args:
        folder: Where `generation_config.json` goes.
        model: The model's folder.
        tokenizer: Its tokenizer.
        token: The additional stop token.
    """
    from transformers import GenerationConfig

    stop_tokens = sorted({*known_stop_tokens(model, tokenizer), token})
    GenerationConfig(eos_token_id=stop_tokens).save_pretrained(folder)


def known_stop_tokens(model: Path, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Tokens that vLLM, and `transformers`, stop at by themselves."""
    from transformers import GenerationConfig

    named = None
    if (model / "generation_config.json").is_file():
        named = GenerationConfig.from_pretrained(model).eos_token_id
    known = named if isinstance(named, list) else [named]
    return {int(token) for token in (*known, tokenizer.eos_token_id) if token is not None}
