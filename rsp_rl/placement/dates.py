"""Chat templates that write today's date into the prompt (Llama-3.2's, gpt-oss's).

Prompts then differ from day to day: a resumed run trains on others, an evaluation asks others than
the training did. Where a template takes the date as an argument it is given one for good.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rsp_rl.placement.chat import STARTS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: The date that Llama-3.1's template writes by itself.
DATE = "26 Jul 2024"

_CLOCK = "strftime_now"
_NAMES = re.compile(r"\b\w*(?:date|today|time)\w*\b", re.IGNORECASE)


def date_argument(tokenizer: PreTrainedTokenizerBase, **template_kwargs: Any) -> dict[str, str]:
    """The chat template's argument that makes its prompts the same every day, with `DATE`.

    Args:
        tokenizer: The model's.
        **template_kwargs: The template's other arguments.

    Returns:
        Nothing where the prompts do not depend on the day, or cannot be kept from it
        (`depends_on_the_day` tells these).
    """
    if not depends_on_the_day(tokenizer, **template_kwargs):
        return {}
    for name in dict.fromkeys(_NAMES.findall(str(tokenizer.chat_template))):
        if name == _CLOCK or name in template_kwargs:
            continue
        if not depends_on_the_day(tokenizer, **template_kwargs, **{name: DATE}):
            return {name: DATE}
    return {}


def depends_on_the_day(tokenizer: PreTrainedTokenizerBase, **template_kwargs: Any) -> bool:
    """Whether the chat template's prompts hold the day on which they are made."""
    if _CLOCK not in str(tokenizer.chat_template):
        return False
    one, another = (_prompts(tokenizer, day, template_kwargs) for day in ("one day", "another"))
    return one != another


def _prompts(
    tokenizer: PreTrainedTokenizerBase, day: str, template_kwargs: dict[str, Any]
) -> list[str | None]:
    """Prompts made on a day, without a system turn and with one; None where the template raises."""
    arguments = {"add_generation_prompt": True, **template_kwargs, "tokenize": False}
    question = {"role": "user", "content": "Question"}
    prompts: list[str | None] = []
    for start in STARTS:
        try:
            prompts.append(
                tokenizer.apply_chat_template(
                    [*start, question], **{_CLOCK: lambda _: day}, **arguments
                )
            )
        except Exception:  # a template may raise as it likes
            prompts.append(None)
    return prompts
