"""Every row's prompt is tried before Ray starts, with the arguments of the run."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig, OmegaConf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from rsp_rl.basics.errors import ConfigError, PlacementError
from rsp_rl.dials.options import RspOptions
from rsp_rl.training.preflight import check_tokenizer
from rsp_rl.training.prompts import check_prompts, template_arguments
from rsp_rl.training.tools import run_tools
from rsp_rl.training.train_data import check_data
from tests.unit import templates
from tests.unit.templates import tokenizer_of

Turns = list[tuple[str, str]]
USER: Turns = [("user", "2+2?")]


def _file(folder: Path, prompts: list[Turns], name: str = "a.parquet") -> Path:
    rows = [
        {
            "prompt": [{"role": role, "content": text} for role, text in turns],
            "reward_model": {"ground_truth": "4"},
            "data_source": "sums",
        }
        for turns in prompts
    ]
    if name.endswith(".jsonl"):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), folder / name)
    return folder / name


def _config(train: Path, **data: Any) -> DictConfig:
    return OmegaConf.create(
        {
            "data": {
                "train_files": str(train),
                "val_files": str(train),
                "prompt_key": "prompt",
                "max_prompt_length": 60,
                "filter_overlong_prompts": True,
                "max_lost_share": 0.0,
                "train_batch_size": 1,
                "shuffle": True,
                **data,
            },
            "actor_rollout_ref": {"rollout": {"prompt_length": 80}},
        }
    )


def _check(
    config: DictConfig,
    tokenizer: PreTrainedTokenizerFast,
    vocabulary: int | None = None,
    **rsp: Any,
) -> None:
    options = RspOptions(**({"length": 4} | rsp))
    checked = check_data(config, None)
    check_prompts(config, tokenizer, options, vocabulary, checked, run_tools(config))


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
@pytest.mark.parametrize("family", templates.FAMILIES)
def test_good_rows_pass(tmp_path: Path, family: str, name: str) -> None:
    _check(_config(_file(tmp_path, [USER] * 3, name)), tokenizer_of(family))


@pytest.mark.parametrize(
    ("turns", "cause"),
    [
        ([("system", "S"), *USER], "System role not supported"),
        ([*USER, *USER], "roles must alternate"),
        ([("assistant", "Hi"), *USER], "roles must alternate"),
    ],
)
@pytest.mark.parametrize("length", [0, 4])
def test_rows_that_the_template_refuses_are_counted_and_named(
    tmp_path: Path, turns: Turns, cause: str, length: int
) -> None:
    """verl leaves them out without a word: a run on a third of its data."""
    file = _file(tmp_path, [USER, turns, turns])
    expected = rf"{file}: 2 of 3 rows are lost, 2 that the chat template refuses \(rows 1, 2; row 1"
    with pytest.raises(ConfigError, match=expected) as caught:
        _check(_config(file), tokenizer_of("gemma"), length=length)
    assert cause in str(caught.value)
    assert "data.max_lost_share=0.667" in str(caught.value)


NOISE = {"law": "question_noise", "length": 0}


@pytest.mark.parametrize("family", [*templates.FAMILIES, "no_end_of_turn"])
def test_rows_that_noise_has_a_question_in_pass(tmp_path: Path, family: str) -> None:
    """It needs no end of the turn, and no room; the longest prompt is the plain one."""
    if family == "no_end_of_turn":
        tokenizer = copy.deepcopy(tokenizer_of("chatml"))
        tokenizer.chat_template = templates.NO_END_OF_TURN
    else:
        tokenizer = tokenizer_of(family)
    check_tokenizer(tokenizer, RspOptions(**NOISE))
    plain = tokenizer.apply_chat_template(
        [{"role": "user", "content": "2+2?"}], add_generation_prompt=True, return_dict=False
    )
    config = _config(_file(tmp_path, [USER] * 3), max_prompt_length=len(plain))
    config.actor_rollout_ref.rollout.prompt_length = len(plain)
    _check(config, tokenizer, **NOISE)


def test_rows_whose_question_cannot_be_told_are_named(tmp_path: Path) -> None:
    tokenizer = copy.deepcopy(tokenizer_of("chatml"))
    tokenizer.chat_template = "{{ messages[-1].content | upper }}<|im_end|>"
    file = _file(tmp_path, [USER, [("user", "two and two?")]])
    expected = rf"dataset {file}, row 1: the chat template changes the user's message"
    with pytest.raises(PlacementError, match=expected):
        _check(_config(file), tokenizer, **NOISE)


def test_rows_that_are_too_long_are_counted_and_named(tmp_path: Path) -> None:
    file = _file(tmp_path, [USER, [("user", "2+2? " * 40)], USER])
    with pytest.raises(ConfigError, match=r"1 longer than data\.max_prompt_length=60 \(row 1; the"):
        _check(_config(file), tokenizer_of("chatml"))
    with pytest.raises(ConfigError, match=r"or have them left out with data\.filter_overlong"):
        _check(_config(file, filter_overlong_prompts=False), tokenizer_of("chatml"))


def test_a_chosen_share_is_said_and_kept_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long: Turns = [("user", "2+2? " * 40)]
    config = _config(_file(tmp_path, [USER, long, USER, USER]), max_lost_share=0.25)
    with caplog.at_level(logging.WARNING):
        _check(config, tokenizer_of("chatml"))
    assert "1 of 4 rows are lost" in caplog.text
    config.data.train_files = str(_file(tmp_path, [USER, long, long, USER]))
    with pytest.raises(ConfigError, match=r"data\.max_lost_share=0\.5"):
        _check(config, tokenizer_of("chatml"))
    for share in (-1, 2, "all"):
        config.data.max_lost_share = share
        with pytest.raises(ConfigError, match=r"must be a number from 0 to 1"):
            _check(config, tokenizer_of("chatml"))


def test_the_runs_own_template_arguments_are_tried(tmp_path: Path) -> None:
    template = (
        "{% if mode == 'odd' %}{{ raise_exception('no such mode') }}{% endif %}" + templates.CHATML
    )
    tokenizer = templates.chatml(template)
    file = _file(tmp_path, [USER])
    _check(_config(file), tokenizer)
    config = _config(file, apply_chat_template_kwargs={"mode": "odd"})
    assert template_arguments(config) == {"mode": "odd"}
    with pytest.raises(ConfigError, match="no such mode"):
        _check(config, tokenizer)


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        ({"add_generation_prompt": False}, "verl sets it by itself"),
        ({"tokenize": True}, "verl sets it by itself"),
        ({"return_dict": True}, "verl sets it by itself"),
        ({"mode": "odd", "truncation": True, "max_length": 3}, "max_length.*would cut"),
        ({"tools": []}, "tool_config_path"),
        ({"chat_template": "x"}, "custom_chat_template"),
        (["enable_thinking"], "must be a mapping"),
        ("enable_thinking", "must be a mapping"),
    ],
)
def test_what_is_no_argument_of_the_template_is_refused(arguments: Any, cause: str) -> None:
    """verl would leave out every row, fail in a worker, or cut its prompts and not ours."""
    with pytest.raises(ConfigError, match=rf"apply_chat_template_kwargs.*{cause}"):
        template_arguments(_config(Path("x"), apply_chat_template_kwargs=arguments))


def test_a_template_that_needs_a_system_turn(tmp_path: Path) -> None:
    """No lone user turn stands for the rows."""
    template = (
        "{{ messages[0].content if messages[0].role == 'system' else raise_exception('S!') }}"
    )
    tokenizer = templates.chatml(template + templates.CHATML)
    _check(_config(_file(tmp_path, [[("system", "S"), *USER]])), tokenizer)
    with pytest.raises(ConfigError, match="S!"):
        _check(_config(_file(tmp_path, [USER])), tokenizer)


def test_a_template_that_takes_neither_a_lone_question_nor_one_behind_a_system_turn(
    tmp_path: Path,
) -> None:
    template = "{% if messages | length < 3 %}{{ raise_exception('examples!') }}{% endif %}"
    tokenizer = templates.chatml(template + templates.CHATML)
    check_tokenizer(tokenizer, RspOptions())
    turns = [("user", "1+1?"), ("assistant", "2"), *USER]
    _check(_config(_file(tmp_path, [turns])), tokenizer)
    with pytest.raises(ConfigError, match="examples!"):
        _check(_config(_file(tmp_path, [turns, USER])), tokenizer)


def test_a_row_without_a_place_for_its_soft_prompt(tmp_path: Path) -> None:
    """Among others that have one; plain prompts need none."""
    template = templates.CHATML.replace(
        "message.content + '<|im_end|>'",
        "message.content + ('' if message.content == '?' else '<|im_end|>')",
    ).replace("'<|im_start|>assistant\\n'", "''")
    tokenizer = templates.chatml(template)
    file = _file(tmp_path, [USER, [("user", "?")]])
    with pytest.raises(PlacementError, match=rf"{file}, row 1: "):
        _check(_config(file), tokenizer)
    _check(_config(file), tokenizer, length=0)
    config = _config(_file(tmp_path, [USER], "b.parquet"), val_files=str(file))
    _check(config, tokenizer)
    with pytest.raises(PlacementError, match=r"a\.parquet, row 1: "):
        _check(config, tokenizer, validation=True)


def test_prompts_whose_soft_prompt_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(PlacementError, match=r"row 0: .* more than .*prompt_length=80"):
        _check(_config(_file(tmp_path, [USER])), tokenizer_of("chatml"), length=70)


def test_tokens_that_the_model_does_not_have(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("chatml")
    config = _config(_file(tmp_path, [USER]))
    _check(config, tokenizer, len(tokenizer))
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    with pytest.raises(ConfigError, match=rf"row 0: .*'<\|im_end\|>', token {end}, .* {end} rows"):
        _check(config, tokenizer, end)


def test_no_beginning_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Zephyr's template writes none; ChatML of a tokenizer without one needs none."""
    file = _file(tmp_path, [USER])
    _check(_config(file), tokenizer_of("chatml"))
    _check(_config(file), tokenizer_of("llama_3"))
    assert "begins prompts" not in caplog.text
    _check(_config(file), templates.llama_3(templates.GAP))
    assert "begins prompts without <|begin_of_text|>" in caplog.text


def test_two_beginnings(tmp_path: Path) -> None:
    tokenizer = templates.llama_3("{{ bos_token }}" + templates.LLAMA_3)
    with pytest.raises(ConfigError, match=r"row 0: .*begins with '<\|begin_of_text\|>' twice"):
        _check(_config(_file(tmp_path, [USER])), tokenizer)


def test_characters_that_the_tokenizer_does_not_know(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Here without an unknown token in their place: nothing in the tokens tells."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = BpeTrainer(special_tokens=["<eos>"], show_progress=False)
    tokenizer.train_from_iterator(["2+2? Area = system You are a helpful assistant."], trainer)
    known = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")
    known.chat_template = templates.BARE
    with caplog.at_level(logging.WARNING):
        _check(_config(_file(tmp_path, [USER, [("user", "Area = πr²?")]])), known, length=0)
    assert "know all characters of 1 of 2 rows (row 1), such as '²', 'π'" in caplog.text


def test_the_same_prompt_many_times_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DAPO-Math-17k as published has each row a hundred times."""
    tokenizer, made = templates.chatml(), []
    render = tokenizer.apply_chat_template
    monkeypatch.setattr(
        tokenizer, "apply_chat_template", lambda *a, **k: made.append(0) or render(*a, **k)
    )
    _check(_config(_file(tmp_path, [USER] * 50)), tokenizer, length=0)
    assert len(made) == 1


def test_arguments_that_templates_would_take_for_true(tmp_path: Path) -> None:
    arguments = {"enable_thinking": "no", "other": "low"}
    config = _config(_file(tmp_path, [USER]), apply_chat_template_kwargs=arguments)
    with pytest.raises(ConfigError, match=r"enable_thinking='no' is a text, .*True or False"):
        template_arguments(config)


def test_rows_that_end_with_an_answer_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As in files for supervised training: the model would see what it is to find."""
    file = _file(tmp_path, [USER, [*USER, ("assistant", "4")], USER])
    _check(_config(file), tokenizer_of("chatml"), length=0)
    assert "1 of 3 rows end with the assistant's own message (row 1)" in caplog.text
