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
        start: Index of the first placeholder; or of the user's message where that is looked for.
        length: L; or tokens of the user's message.
    """

    token_ids: list[int]
    start: int
    length: int = 0

    @property
    def span(self) -> list[int]:
        """Tokens from `start` on, as many as `length` says."""
        return self.token_ids[self.start : self.start + self.length]


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


def added_tokens(tokenizer: PreTrainedTokenizerBase, *, special: bool = False) -> tuple[str, ...]:
    """Texts that are a token each wherever they stand; `special` leaves out the ordinary ones."""
    added = tokenizer.added_tokens_decoder.values()
    named = {token.content for token in added if token.special or not special}
    return tuple(sorted(named | {*tokenizer.all_special_tokens}))


def cut(tokenizer: PreTrainedTokenizerBase, text: str, at: int) -> tuple[list[int], list[int]]:
    """Tokens of a text on either side of a character, those that the text has in one piece.

    Args:
        tokenizer: Any tokenizer.
        text: The prompt.
        at: Place of the character, no blank, that the second part is to begin with.

    Returns:
        Both parts. Blanks before the character are in the second one where its first token holds
        them: some added tokens swallow the blanks beside them (Phi-4's), most words the one
        before them.

    Raises:
        PlacementError: If a token holds text of both sides.
    """
    if tokenizer.is_fast:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = encoded["input_ids"]
        for number, (start, end) in enumerate(encoded["offset_mapping"]):
            if end > at:
                if text[start:at].strip():
                    break
                return ids[:number], ids[number:]
    else:  # knows no places of tokens
        before, after = encode(tokenizer, text[:at]), encode(tokenizer, text[at:])
        if before + after == encode(tokenizer, text):
            return before, after
    raise PlacementError(
        f"the tokenizer fuses the end of the user's turn with what is before it, "
        f"{text[max(at - 12, 0) : at]!r} with {text[at : at + 12]!r}: no soft prompt can stand "
        "between them without changing the prompt; use rsp.position=prefix, or end the user's "
        "message in a line break"
    )


def message_tokens(
    tokenizer: PreTrainedTokenizerBase, text: str, begin: int, end: int
) -> PlacedPrompt:
    """Where the tokens of a message are among those of a prompt's text, which stay as they are.

    Args:
        tokenizer: Any tokenizer.
        text: The prompt.
        begin: Place of the message's first character, blanks around the message left out.
        end: Place behind its last one.

    Returns:
        The prompt with the tokens that have a character of the message in them.

    Raises:
        PlacementError: If there is no message, or a token holds text of it and of what is around.
    """
    if begin >= end:
        raise PlacementError("the user's message is empty: it has no tokens that noise is added to")
    if tokenizer.is_fast:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, places = encoded["input_ids"], encoded["offset_mapping"]
        own = [n for n, (first, last) in enumerate(places) if first < end and last > begin]
        fused = not own or text[places[own[0]][0] : begin].strip()
        if not fused and not text[end : places[own[-1]][1]].strip():
            return PlacedPrompt(ids, own[0], own[-1] + 1 - own[0])
    else:  # knows no places of tokens
        pieces = [encode(tokenizer, part) for part in (text[:begin], text[begin:end], text[end:])]
        ids = encode(tokenizer, text)
        if [token for piece in pieces for token in piece] == ids:
            return PlacedPrompt(ids, len(pieces[0]), len(pieces[1]))
    raise PlacementError(
        f"the tokenizer fuses the user's message {text[begin:end]!r:.60} with what is around it: "
        "its tokens cannot be told from others; begin or end the message in a line break"
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
    return PlacedPrompt(before + soft_prompt + after, len(before), length)
