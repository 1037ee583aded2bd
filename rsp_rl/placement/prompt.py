"""A prompt with L placeholders in it: where they may stand, and what all kinds of prompt share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from rsp_rl.basics.errors import PlacementError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Position = Literal["prefix", "infix", "suffix"]
POSITIONS: tuple[str, ...] = get_args(Position)

#: The instruction of the paper's prompts; an infix soft prompt goes between question and it.
INSTRUCTION = r"Please reason step by step, and put your final answer within \boxed{}."

#: The infix description (paper, section 3.1 and appendix A), to be followed by the L positions.
INFIX_DESCRIPTION = (
    "There are {length} special tokens that contain compressed latent reasoning information that "
    "might be useful for your reasoning. If these tokens are useful for your case, you can use "
    "them as reference. If these tokens are not useful for your case, you can ignore them and "
    "focus back to solving the problem.\nHere are the {length} special tokens: "
)


@dataclass(frozen=True)
class PlacedPrompt:
    """A tokenised prompt with its soft prompt positions.

    Attributes:
        token_ids: Prompt tokens, placeholders included, [T].
        start: Index of the first placeholder.
    """

    token_ids: list[int]
    start: int


def placeholder_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Token that stands at the soft prompt positions: the padding token, else end-of-sequence.

    Its embedding is never used. A special token, so that decoding for logs leaves it out.

    Raises:
        PlacementError: If the tokenizer has neither.
    """
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if candidate is not None:
            return int(candidate)
    raise PlacementError(
        "the tokenizer has neither a padding nor an end-of-sequence token to stand at the soft "
        "prompt positions; set tokenizer.pad_token"
    )


def extra_tokens(tokenizer: PreTrainedTokenizerBase, length: int, position: Position) -> int:
    """Tokens that a soft prompt adds to a prompt at most: L, and for infix its description.

    Raises:
        PlacementError: See `check_request`.
    """
    check_request(length, position)
    if length == 0 or position != "infix":
        return length
    description = f"\n{INFIX_DESCRIPTION.format(length=length)}"
    # A few to spare: text on either side of a seam may need more tokens than in one piece.
    return length + len(tokenizer.encode(description, add_special_tokens=False)) + 8


def check_request(length: int, position: str) -> None:
    """Refuse what is no place.

    Raises:
        PlacementError: If the position is unknown or the length negative.
    """
    if position not in POSITIONS:
        raise PlacementError(f"unknown soft prompt position {position!r}; use one of {POSITIONS}")
    if length < 0:
        raise PlacementError(f"soft prompt length {length} is negative; 0 turns RSP off")


def split_instruction(text: str) -> tuple[str, str]:
    """A prompt's question, and what follows it: blanks, and the instruction if there is one."""
    question, _, rest = text.rpartition(INSTRUCTION)
    if rest.strip():
        question = text
    question = question.rstrip() or question  # blanks alone stay in front, where they were
    return question, text[len(question) :]


def split_at_end_of_turn(tokenizer: PreTrainedTokenizerBase, after: str) -> tuple[str, str]:
    """Split what follows the user's message in front of its first special token: end-of-turn.

    No list of names: end-of-turn is whatever special token the template puts first after the
    message (`<|im_end|>`, `<|eot_id|>`, `<end_of_turn>`, `[/INST]`), blanks aside.

    Raises:
        PlacementError: If no special token follows.
    """
    added = tokenizer.added_tokens_decoder.values()
    special = {token.content for token in added if token.special} | {*tokenizer.all_special_tokens}
    stripped = after.lstrip()
    if stripped.startswith(tuple(special)):
        return after[: len(after) - len(stripped)], stripped
    raise PlacementError(
        "no end-of-turn token found: the template closes the user's turn with "
        f"{after[:40]!r}, which does not start with a special token of the tokenizer; use a "
        "template that has one, or rsp.position=prefix"
    )


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a piece of text, without those that the tokenizer adds by itself."""
    return tokenizer.encode(text, add_special_tokens=False) if text else []


def around(
    tokenizer: PreTrainedTokenizerBase, before: list[int], after: list[int], length: int
) -> PlacedPrompt:
    """Two runs of token ids with L placeholders between them.

    Raises:
        PlacementError: See `placeholder_id`.
    """
    soft_prompt = [placeholder_id(tokenizer)] * length if length else []
    return PlacedPrompt(before + soft_prompt + after, len(before))
