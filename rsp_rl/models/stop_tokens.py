"""Where rollouts stop: at the token that closes a turn too, mostly even where no model says so.

Qwen2.5's base models name `<|endoftext|>` alone as their end; under a chat template they close
their turn with `<|im_end|>`, and would then go on with turns of their own until the response is
full. verl 0.9.1 passes no stop tokens to vLLM, training or validating. vLLM takes them from the
`eos_token_id` list of the generation config, which may come from a folder of ours.

The rule, for training, evaluation and inference alike: a generation config that names several
stop tokens does so on purpose and is left as it is (gpt-oss closes each part of an answer with
`<|end|>`, which is not in its list: to stop there would cut its answers off); to one that names one
or none, the token is added with which the chat template closes the assistant's turn.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data.templates import ChatTemplate, Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Folder of the run that holds the generation config for vLLM.
FOLDER = "generation_config"


def stop_token_of(
    template: Template, tokenizer: PreTrainedTokenizerBase, model: Path | None
) -> int | None:
    """The token to stop at beside the model's own: the rule above.

    Args:
        template: How prompts are made.
        tokenizer: The model's.
        model: Its folder; None for one that names nothing.
    """
    several = model is not None and len(_named_stop_tokens(model)) > 1
    return None if several else template.end_of_turn(tokenizer)


def missing_stop_token(
    model: Path, tokenizer: PreTrainedTokenizerBase, **template_kwargs: Any
) -> int | None:
    """The stop token that training's rollouts lack, the prompts being the chat template's."""
    token = stop_token_of(ChatTemplate(options=template_kwargs), tokenizer, model)
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
    eos = tokenizer.eos_token_id
    return _named_stop_tokens(model) | (set() if eos is None else {int(eos)})


def _named_stop_tokens(model: Path) -> set[int]:
    """Those of the model's generation config; without one vLLM makes it from the model's config."""
    for name in ("generation_config.json", "config.json"):
        file = model / name
        if file.is_file():
            try:
                named = json.loads(file.read_text()).get("eos_token_id")
            except (ValueError, AttributeError) as error:
                raise ConfigError(f"{file} is no readable config: {error}; get it anew") from error
            tokens = [] if named is None else named if isinstance(named, list) else [named]
            if not all(type(token) is int for token in tokens):
                raise ConfigError(
                    f"{file}: eos_token_id={named!r} must be the number of a token, or a list of "
                    "such; engines would not stop there"
                )
            return set(tokens)
    return set()
