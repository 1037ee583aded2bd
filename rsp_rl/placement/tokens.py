"""Soft prompts in prompts that are tokenised already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsp_rl.basics.errors import PlacementError
from rsp_rl.placement.chat import STARTS, place_in_chat
from rsp_rl.placement.prompt import (
    INFIX_DESCRIPTION,
    PlacedPrompt,
    Position,
    around,
    check_request,
    encode,
    split_instruction,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def place_in_tokens(
    tokenizer: PreTrainedTokenizerBase,
    token_ids: list[int],
    length: int,
    position: Position = "suffix",
) -> PlacedPrompt:
    """Put L placeholders into a prompt that is tokenised already, as a server may get it.

    Tokens do not say who wrote them. Without any turn in them they are raw text; a prompt that
    ends as the tokenizer's chat template ends one, the last turn in it being plainly a user's, is
    a chat; whatever else has turns in it is refused rather than guessed at.

    Args:
        tokenizer: The prompt's tokenizer.
        token_ids: Tokens of the prompt, [T].
        length: L.
        position: See `rsp_rl.placement.text.place_in_turn`.

    Raises:
        PlacementError: If it cannot be told where the user's turn ends, or if an infix has no
            place because the tokens' text would be tokenised otherwise.
    """
    check_request(length, position)
    if position == "prefix":
        return around(tokenizer, [], token_ids, length)
    closing = _user_turn_closing(tokenizer, token_ids)
    before = token_ids[: len(token_ids) - len(closing)]
    if position == "suffix" or length == 0:
        return around(tokenizer, before, closing, length)
    text = tokenizer.decode(before)
    if encode(tokenizer, text) != before:
        raise PlacementError(
            "an infix has no place in this prompt: its tokens are not those that the tokenizer "
            "makes of their text; use position suffix or prefix"
        )
    question, instruction = split_instruction(text)
    described = f"{question}\n{INFIX_DESCRIPTION.format(length=length)}"
    after = encode(tokenizer, instruction) + closing
    return around(tokenizer, encode(tokenizer, described), after, length)


#: The message of prompts that are made to see what a template puts around it.
_WORD = "Question"


@dataclass(frozen=True)
class _UserTurn:
    """How a chat template writes a user's turn.

    Attributes:
        opening: Added tokens, and what is between them, with which it opens a user's turn.
        header: Text between these and the message.
        closing: Tokens behind the message, the assistant's turn opened.
        words: What opens and closes turns, where that is text.
    """

    opening: list[int]
    header: str
    closing: list[int]
    words: tuple[str, ...]


def _user_turn_closing(tokenizer: PreTrainedTokenizerBase, token_ids: list[int]) -> list[int]:
    """Tokens behind the last user's message; none in raw text.

    Raises:
        PlacementError: If it cannot be told.
    """
    added = _added(tokenizer)
    turn = _user_turn(tokenizer) if tokenizer.chat_template else None
    if turn is not None and token_ids[-len(turn.closing) :] == turn.closing:
        before = token_ids[: -len(turn.closing)]
        last = _last(before, added)
        text = tokenizer.decode(before[last + 1 :]).lstrip()
        opened = before[: last + 1]
        if (
            opened[len(opened) - len(turn.opening) :] == turn.opening
            and text.startswith(turn.header)
            and not any(word in text[len(turn.header) :] for word in turn.words)
        ):
            return turn.closing
    bos = tokenizer.bos_token_id
    text = token_ids[1:] if bos is not None and token_ids[:1] == [bos] else token_ids
    words = turn.words if turn is not None else ()
    if _last(text, added) < 0 and not any(word in tokenizer.decode(text) for word in words):
        return []
    raise PlacementError(
        "it cannot be told where the user's turn ends in a prompt of tokens that has turns in it "
        "and does not end as the chat template ends one after a user's message; send the messages "
        "to /v1/chat/completions, or use position prefix"
    )


def _added(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Added tokens that may open or close a turn: Gemma has line breaks and blanks among them."""
    added = tokenizer.added_tokens_decoder.items()
    return {number for number, token in added if token.content.strip("▁ \n\r\t")}


def _last(token_ids: list[int], wanted: set[int]) -> int:
    """Index of the last of these tokens; -1 if there is none."""
    places = (place for place in range(len(token_ids) - 1, -1, -1) if token_ids[place] in wanted)
    return next(places, -1)


def _user_turn(tokenizer: PreTrainedTokenizerBase) -> _UserTurn | None:
    """What `_UserTurn` says, from prompts of one turn and of three; None if it cannot be told."""
    asked = {"role": "user", "content": _WORD}
    for start in STARTS:
        try:
            closing = place_in_chat(tokenizer, [*start, asked], 1)
            break
        except PlacementError:
            continue
    else:
        return None
    answered = [
        *start,
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
    ]
    heads = [head for turns in (start, answered) if (head := _head(tokenizer, turns, "user"))]
    opening, header = heads[0]
    for other_opening, other_header in heads[1:]:
        opening = _common_end(opening, other_opening)
        header = "".join(_common_end(list(header), list(other_header)))
    if not opening and not header:
        return None
    in_text = all(token == tokenizer.bos_token_id for token in opening)
    words = [header] if in_text else []
    for role in ("tool", "system", "assistant"):
        other = _head(tokenizer, answered, role)
        if other is None or (other[0][len(other[0]) - len(opening) :] != opening and not in_text):
            continue
        if other[1].startswith(header):  # a turn like a user's, but for what follows the header
            words.append(other[1].removeprefix(header).strip())
            if not words[-1]:
                return None
        elif in_text:
            words.append(other[1])
    after = closing.token_ids[closing.start + 1 :]
    if after[0] not in _added(tokenizer):
        words.append(tokenizer.decode(after).split()[0])
    return _UserTurn(opening, header, after, tuple(word for word in words if word))


def _head(
    tokenizer: PreTrainedTokenizerBase, earlier: list[dict[str, str]], role: str
) -> tuple[list[int], str] | None:
    """What stands before the message of a last turn; None if the template takes no such one.

    Returns:
        Tokens up to the last added one, and the text behind it.
    """
    messages = [*earlier, {"role": role, "content": _WORD}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception:  # a template may raise as it likes
        return None
    head, found, _ = text.rpartition(_WORD)
    if not found:
        return None
    added, ids = _added(tokenizer), encode(tokenizer, head)
    texts = (tokenizer.added_tokens_decoder[token].content for token in added)
    ends = [head.rfind(text) + len(text) for text in texts if text in head]
    return ids[: _last(ids, added) + 1], head[max(ends, default=0) :].strip()


def _common_end(first: list, second: list) -> list:
    """What both end with."""
    size = 0
    while size < min(len(first), len(second)) and first[-size - 1] == second[-size - 1]:
        size += 1
    return first[len(first) - size :]
