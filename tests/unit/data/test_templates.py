"""Prompt templates: SimpleRL-Zoo's to the character, and the soft prompt's place in each."""

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from rsp_rl.basics.errors import ConfigError, PlacementError
from rsp_rl.data import arithmetic, made
from rsp_rl.data.templates import TEMPLATES, TextTemplate, get_template
from rsp_rl.placement.prompt import POSITIONS, placeholder_id
from rsp_rl.tiny.decoding import prompt_ids
from rsp_rl.tiny.tokenizer import build_tokenizer
from tests.properties import examples
from tests.unit import templates
from tests.unit.benchmark_files import EIGHT, GOLD_RULES, KINDS, question_of, rows_and_problems
from tests.unit.templates import END_OF_TURN, FAMILIES, tokenizer_of

QUESTION = "How many clips did Natalia sell altogether?"
INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."

#: SimpleRL-Zoo's templates and the raw prompt, written out once more.
TEXTS = {
    "qwen-boxed": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n@\n" + INSTRUCTION + "<|im_end|>\n<|im_start|>assistant\n",
    "qwen25-math-cot": "<|im_start|>system\n" + INSTRUCTION + "<|im_end|>\n"
    "<|im_start|>user\n@<|im_end|>\n<|im_start|>assistant\n",
    "abel": "Question:\n@\nAnswer:\nLet's think step by step.\n",
    "soft-tokens": "The following is a conversation between a user and an assistant in this "
    "format:\n"
    "User: [question] Assistant: [reasoning] The final answer is: \\boxed{[answer]}.\n"
    "User: @ Assistant:",
    "raw": "@\n" + INSTRUCTION,
}
CHATS = ("llama-chat", "chat", "plain-chat")


@cache
def _tiny() -> PreTrainedTokenizerBase:
    return build_tokenizer(1024)


def _digest(prompts: Iterable[str]) -> list[str]:
    return [hashlib.sha256(prompt.encode()).hexdigest() for prompt in prompts]


def _rendered(template: str, row: dict, gold: str) -> str:
    """A row's prompt by plain concatenation; SimpleRL-Zoo strips blanks off both ends."""
    before, after = TEXTS[template].split("@")
    return (before + question_of(row, gold) + after).strip(" ")


def test_every_template_is_tested() -> None:
    assert {*TEXTS, *CHATS} == set(TEMPLATES)
    assert {name for name in TEMPLATES if isinstance(get_template(name), TextTemplate)} == {*TEXTS}


@pytest.mark.parametrize("template", TEXTS)
@pytest.mark.parametrize("name", EIGHT)
@pytest.mark.parametrize("kind", KINDS)
def test_prompts_are_simplerl_zoos_to_the_character(
    kind: str, name: str, template: str, tmp_path: Path
) -> None:
    rows, problems = rows_and_problems(kind, name, tmp_path)
    expected = (_rendered(template, row, GOLD_RULES[name](row)) for row in rows)
    ours = (get_template(template).text(problem.question) for problem in problems)
    assert _digest(ours) == _digest(expected)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("family", [*FAMILIES, "tiny"])
@pytest.mark.parametrize("template", TEXTS)
def test_plain_tokens_of_a_text_are_the_tokenizers(
    template: str, family: str, position: str
) -> None:
    tokenizer = _tiny() if family == "tiny" else tokenizer_of(family)
    text = TEXTS[template].replace("@", QUESTION)
    placed = get_template(template).place(tokenizer, QUESTION, 0, position)
    assert placed.token_ids == tokenizer(text).input_ids


@pytest.mark.parametrize("template", TEXTS)
@given(
    question=st.text(max_size=20).map(str.strip)
    | st.sampled_from(["x<|im_end|>", "<|im_start|>user\nHi", "\ue0f00\ue0f1", "{question} {}"]),
    length=st.sampled_from([1, 20]),
)
@examples(40)
def test_suffix_and_prefix_add_placeholders_alone(
    template: str, question: str, length: int
) -> None:
    tokenizer = _tiny()
    plain = tokenizer(TEXTS[template].replace("@", question)).input_ids
    closing = "<|im_end|>\n<|im_start|>assistant\n" if "qwen" in template else ""
    tail = len(tokenizer(closing).input_ids)
    soft_prompt = [placeholder_id(tokenizer)] * length
    suffix = get_template(template).place(tokenizer, question, length)
    assert suffix.start == len(plain) - tail
    assert suffix.token_ids == plain[: suffix.start] + soft_prompt + plain[suffix.start :]
    prefix = get_template(template).place(tokenizer, question, length, "prefix")
    assert (prefix.start, prefix.token_ids) == (0, soft_prompt + plain)


@pytest.mark.parametrize("template", TEXTS)
def test_infix_stands_between_question_and_instruction(template: str) -> None:
    tokenizer = tokenizer_of("chatml")
    placed = get_template(template).place(tokenizer, QUESTION, 20, "infix")
    before, after = TEXTS[template].split("@")
    end = placed.start + 20
    shown = tokenizer.decode(placed.token_ids[: placed.start], skip_special_tokens=False)
    assert shown.startswith(f"{before}{QUESTION}\nThere are 20 special tokens")
    assert tokenizer.decode(placed.token_ids[end:], skip_special_tokens=False) == after


def test_qwen_template_on_a_tokenizer_without_its_end_of_turn() -> None:
    with pytest.raises(PlacementError, match="no end-of-turn token"):
        get_template("qwen-boxed").place(tokenizer_of("llama_3"), QUESTION, 20)


# The tokenizer's own chat template.


@pytest.mark.parametrize(
    ("template", "family"),
    [
        (template, family)
        for template in CHATS
        for family in FAMILIES
        if (template, family) != ("llama-chat", "gemma")  # gemma's refuses a system turn
    ],
)
def test_chats_are_the_tokenizers_own(template: str, family: str) -> None:
    tokenizer = tokenizer_of(family)
    content = f"{QUESTION}\n{INSTRUCTION}" if template == "chat" else QUESTION
    messages = [{"role": "user", "content": content}]
    if template == "llama-chat":
        messages.insert(0, {"role": "system", "content": INSTRUCTION})
    plain = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert get_template(template).place(tokenizer, QUESTION).token_ids == plain
    placed = get_template(template).place(tokenizer, QUESTION, 4)
    assert placed.token_ids[: placed.start] + placed.token_ids[placed.start + 4 :] == plain
    end_of_turn = tokenizer.convert_tokens_to_ids(END_OF_TURN[family])
    assert placed.token_ids[placed.start + 4] == end_of_turn


def test_plain_chat_is_what_the_tiny_model_is_trained_on() -> None:
    problems = arithmetic.generate("heldout", 30)
    template = get_template("plain-chat")
    ours = [template.place(_tiny(), problem.question).token_ids for problem in problems]
    assert ours == prompt_ids(_tiny(), problems)
    for row, ids in zip(made.verl_rows(problems, arithmetic.DATA_SOURCE), ours, strict=True):
        chat = _tiny().apply_chat_template(
            row["prompt"], add_generation_prompt=True, return_dict=False
        )
        assert ids == chat


def test_llama_chat_pins_the_date() -> None:
    dated = "{{ 'Today Date: ' + date_string + '<|eot_id|>' }}" + templates.LLAMA_3
    tokenizer = templates.llama_3(dated)
    ids = get_template("llama-chat").place(tokenizer, QUESTION).token_ids
    assert tokenizer.decode(ids).startswith("Today Date: 26 Jul 2024<|eot_id|>")


def test_a_chat_template_whose_turns_are_closed_by_text() -> None:
    tokenizer = templates.chatml(templates.NO_END_OF_TURN)
    ids = get_template("plain-chat").place(tokenizer, "Hi").token_ids
    assert tokenizer.decode(ids) == "### user:\nHi\n\n### assistant:\n"
    placed = get_template("plain-chat").place(tokenizer, "Hi", 3)
    assert tokenizer.decode(placed.token_ids[: placed.start]) == "### user:\nHi\n\n"
    assert placed.token_ids[: placed.start] + placed.token_ids[placed.start + 3 :] == ids


# Where generation must stop.


@pytest.mark.parametrize(
    ("template", "family", "token"),
    [
        ("qwen-boxed", "chatml", "<|im_end|>"),
        ("qwen25-math-cot", "chatml", "<|im_end|>"),
        ("plain-chat", "llama_3", "<|eot_id|>"),
        ("chat", "gemma", "<end_of_turn>"),
        ("qwen-boxed", "llama_3", None),  # there `<|im_end|>` is ordinary text
        ("abel", "chatml", None),
        ("raw", "chatml", None),
    ],
)
def test_end_of_turn(template: str, family: str, token: str | None) -> None:
    tokenizer = tokenizer_of(family)
    expected = None if token is None else tokenizer.convert_tokens_to_ids(token)
    assert get_template(template).end_of_turn(tokenizer) == expected


def test_end_of_turn_where_the_chat_template_has_none() -> None:
    tokenizer = templates.chatml(templates.NO_END_OF_TURN)
    assert get_template("plain-chat").end_of_turn(tokenizer) is None


def test_unknown_template() -> None:
    with pytest.raises(ConfigError, match=r"unknown template 'qwen'; use one of qwen-boxed, "):
        get_template("qwen")
