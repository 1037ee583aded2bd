"""Prompts that hold the day on which they are made."""

from __future__ import annotations

import pytest

from rsp_rl.data.templates import get_template
from rsp_rl.placement.dates import DATE, date_argument, depends_on_the_day
from tests.unit import templates

# Llama-3.2's: an argument, else today, else a date of its own.
ARGUMENT = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}"
    "{%- set date_string = '26 Jul 2024' %}{%- endif %}{%- endif %}"
    "{{ 'Today: ' + date_string }}"
)
OTHER_NAME = ARGUMENT.replace("date_string", "today_is")
# gpt-oss's: no way round.
CLOCK = "{{ 'Current date: ' + strftime_now('%Y-%m-%d') }}"
WITH_SYSTEM = "{% if messages[0].role == 'system' %}" + CLOCK + "{% endif %}"
NEEDS_SYSTEM = (
    "{% if messages[0].role != 'system' %}{{ raise_exception('S!') }}{% endif %}" + ARGUMENT
)
UNUSED = "{%- macro today() %}{{ strftime_now('%Y') }}{%- endmacro %}"


@pytest.mark.parametrize(
    ("start", "depends", "argument"),
    [
        ("", False, {}),
        (UNUSED, False, {}),
        (ARGUMENT, True, {"date_string": DATE}),
        (OTHER_NAME, True, {"today_is": DATE}),
        (CLOCK, True, {}),
        (WITH_SYSTEM, True, {}),
        (NEEDS_SYSTEM, True, {"date_string": DATE}),
        (ARGUMENT + CLOCK, True, {}),
    ],
)
def test_a_date_is_pinned_where_the_template_takes_one(
    start: str, depends: bool, argument: dict[str, str]
) -> None:
    tokenizer = templates.chatml(start + templates.CHATML)
    assert depends_on_the_day(tokenizer) == depends
    assert date_argument(tokenizer) == argument
    if argument:
        assert not depends_on_the_day(tokenizer, **argument)
        (name,) = argument
        assert date_argument(tokenizer, **{name: "1 May 2025"}) == {}  # the user's own


def test_an_evaluations_prompts_are_the_same_every_day() -> None:
    tokenizer = templates.chatml(ARGUMENT + templates.CHATML)
    for name in ("chat", "plain-chat", "llama-chat"):
        for length in (0, 3):
            ids = get_template(name).place(tokenizer, "Hi", length).token_ids
            assert tokenizer.decode(ids).startswith(f"Today: {DATE}<|im_start|>")
