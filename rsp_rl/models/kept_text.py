"""Whether a tokenizer keeps the text: what it encodes must come back, as its file has it.

transformers 5 builds tokenizers anew by the name of their class, of which it takes vocabulary and
merges alone from `tokenizer.json`. Of some byte-level tokenizers that are declared as Llama's it
makes ones that drop every blank (DeepSeek-R1-Distill-Llama, deepseek-math); a model then reads
words without gaps, answers worse, and nothing says why. Of others it makes ones that cut texts into
other tokens than the model was trained with.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from rsp_rl.basics.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

#: Blanks, one and more of them, digits, line breaks, LaTeX, code.
SAMPLE = (
    "Let $x_1 = \\frac{3}{4}$ and y = 1024,  so that x + y is a number.\n\n"
    "If 10 of 27 are left, find \\boxed{a^2}.\n    return 0\n"
)

#: Classes that take `tokenizer.json` as it is.
_AS_ITS_FILE = ("TokenizersBackend", "PreTrainedTokenizerFast")

#: Tokens that do not count: settings may put a blank in front of a text's first word.
_FIRST = 2

# What byte fallback leaves where a tokenizer has no decoder for it.
_BYTES = re.compile("(?:<0x[0-9A-F]{2}>)+")


def check_text_is_kept(tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    """Make sure that a mathematical text comes back from its tokens.

    Args:
        tokenizer: The model's.
        where: What the error calls it: the model's folder.

    Raises:
        ConfigError: Showing the first words that do not come back.
    """
    # SentencePiece puts a blank of its own before a text's first word.
    kept = _there_and_back(tokenizer, SAMPLE).removeprefix(" ")
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


def warn_of_other_tokens(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Say that a tokenizer makes other tokens than its `tokenizer.json` does, a text's first aside.

    No error: every engine here makes the same, and for some kinds of model transformers takes the
    class from `config.json` whatever is declared.

    Args:
        tokenizer: As it was loaded.
        folder: From where.
    """
    file = folder / "tokenizer.json"
    if type(tokenizer).__name__ in _AS_ITS_FILE or not file.is_file():
        return
    from transformers import PreTrainedTokenizerFast

    as_filed = PreTrainedTokenizerFast(tokenizer_file=str(file))
    there = as_filed(SAMPLE, add_special_tokens=False, return_offsets_mapping=True)
    here = tokenizer.encode(SAMPLE, add_special_tokens=False)
    theirs, ours = reversed(there["input_ids"][_FIRST:]), reversed(here[_FIRST:])
    parted = next((n for n, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), None)
    if parted is None:
        return
    end = len(SAMPLE) if not parted else there["offset_mapping"][-parted][0]
    logger.warning(
        "%s makes other tokens of a text than %s says, here of %r: transformers builds it anew, "
        "and the model was trained with the latter; set 'PreTrainedTokenizerFast' as the "
        "tokenizer_class of tokenizer_config.json if that helps, or use a transformers that "
        "follows the file",
        type(tokenizer).__name__,
        file,
        SAMPLE[max(end - 16, 0) : end],
    )


class Characters:
    """Which characters of texts a tokenizer has no tokens for.

    Some have an unknown token for them; those without one, and without bytes to fall back on, drop
    them, and nothing in the tokens says so.

    Args:
        tokenizer: The model's.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._lost: dict[str, bool] = {}  # each is tried once

    def unknown(self, text: str) -> set[str]:
        """Those of a text; blanks and marks that are not seen do not count."""
        found = {*text}
        for character in found - self._lost.keys():
            self._lost[character] = self._is_lost(character)
        return {character for character in found if self._lost[character]}

    def _is_lost(self, character: str) -> bool:
        if character.isspace() or unicodedata.category(character) in ("Cc", "Cf"):
            return False
        wanted = {*unicodedata.normalize("NFKC", character)}
        kept = unicodedata.normalize("NFKC", _there_and_back(self._tokenizer, character))
        return not wanted <= {*kept}


def _there_and_back(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    ids = tokenizer.encode(text, add_special_tokens=False)
    decoded = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    return _BYTES.sub(lambda run: bytes.fromhex(_hex(run[0])).decode(errors="replace"), decoded)


def _hex(fallback: str) -> str:
    return fallback.replace("<0x", "").replace(">", "")
