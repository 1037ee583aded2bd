"""Whether a tokenizer keeps the text: what it encodes must come back.

transformers 5 makes of some byte-level tokenizers that are declared as Llama's ones that drop every
blank (DeepSeek-R1-Distill-Llama, deepseek-math); a model then reads words without gaps, answers
worse, and nothing says why.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rsp_rl.basics.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Blanks, one and more of them, digits, line breaks, LaTeX, code.
SAMPLE = (
    "Let $x_1 = \\frac{3}{4}$ and y = 1024,  so that x + y is a number.\n\n"
    "If 10 of 27 are left, find \\boxed{a^2}.\n    return 0\n"
)

# What byte fallback leaves where a tokenizer has no decoder for it.
_BYTE = re.compile("<0x([0-9A-F]{2})>")


def check_text_is_kept(tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    """Make sure that a mathematical text comes back from its tokens.

    Args:
        tokenizer: The model's.
        where: What the error calls it: the model's folder.

    Raises:
        ConfigError: Showing the first words that do not come back.
    """
    ids = tokenizer.encode(SAMPLE, add_special_tokens=False)
    decoded = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    # SentencePiece puts a blank of its own before a text's first word.
    kept = _BYTE.sub(lambda byte: chr(int(byte[1], 16)), decoded).removeprefix(" ")
    if kept == SAMPLE:
        return
    at = next((i for i, pair in enumerate(zip(kept, SAMPLE, strict=False)) if len({*pair}) > 1), 0)
    at = max(at - 8, 0)
    raise ConfigError(
        f"the tokenizer of {where}, {type(tokenizer).__name__}, loses text: "
        f"{SAMPLE[at : at + 24]!r} comes back as {kept[at : at + 24]!r}, and the model would read "
        "that; its tokenizer_config.json mostly names another kind than tokenizer.json is of: set "
        '"tokenizer_class": "PreTrainedTokenizerFast" there, which takes the latter as it is'
    )
