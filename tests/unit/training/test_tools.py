"""What rows' prompts show of a run's tools, before Ray starts."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig, OmegaConf

from rsp_rl.basics.errors import ConfigError, PlacementError
from rsp_rl.dials.options import RspOptions
from rsp_rl.placement.chat import place_in_chat
from rsp_rl.training.prompts import check_prompts
from rsp_rl.training.tools import run_tools
from rsp_rl.training.train_data import check_data
from tests.unit import templates

FUNCTIONS = """
from verl.tools.function_tool import function_tool

@function_tool("{name}")
def compute(expression: str) -> str:
    \"\"\"Compute.

    Args:
        expression: What to compute.
    \"\"\"
    return expression
"""
NATIVE = """
tools:
  - class_name: nowhere.Search
    config: {type: native}
    tool_schema:
      type: function
      function:
        name: search
        description: Search.
        parameters: {type: object, properties: {what: {type: string}}, required: [what]}
"""
#: Hermes': a description of each tool, in front of everything; another one for none of them.
TEMPLATE = "{% if tools is not none %}T{{ tools | tojson }}{% endif %}" + templates.CHATML


@pytest.fixture
def files(tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, str]:
    """Settings that name a tool of either kind; verl knows a function's name once a process."""
    functions, native = tmp_path / "functions.py", tmp_path / "native.yaml"
    functions.write_text(FUNCTIONS.format(name=f"compute_{abs(hash(request.node.name))}"))
    native.write_text(NATIVE)
    return {"function_tool_path": str(functions), "tool_config_path": str(native)}


def _config(
    folder: Path, multi_turn: dict[str, str], row: dict[str, Any], loop: str = "tool_agent"
) -> DictConfig:
    whole = {
        "prompt": [{"role": "user", "content": "2+2?"}],
        "reward_model": {"ground_truth": "4"},
        "data_source": "sums",
        **row,
    }
    file = folder / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([whole]), file)
    data = {
        **{"train_files": str(file), "val_files": str(file), "prompt_key": "prompt"},
        **{"max_prompt_length": 1000, "filter_overlong_prompts": True, "max_lost_share": 0.0},
        **{"train_batch_size": 1, "shuffle": True},
        **multi_turn,
    }
    agent = {"default_agent_loop": loop}
    rollout = {"prompt_length": 1004, "multi_turn": multi_turn, "agent": agent}
    return OmegaConf.create({"data": data, "actor_rollout_ref": {"rollout": rollout}})


def _check(config: DictConfig, template: str = TEMPLATE, length: int = 4) -> None:
    tokenizer, rsp = templates.chatml(template), RspOptions(length=length)
    check_prompts(config, tokenizer, rsp, None, check_data(config, None), run_tools(config))


def test_descriptions_are_verls(files: dict[str, str], tmp_path: Path) -> None:
    from verl.tools.function_tool import load_function_tools_from_path
    from verl.tools.schemas import OpenAIFunctionToolSchema

    tools = run_tools(_config(tmp_path, files, {}))
    schemas = [
        tool.tool_schema for tool in load_function_tools_from_path(str(tmp_path / "functions.py"))
    ]
    native = OmegaConf.to_container(OmegaConf.create(NATIVE)).get("tools")[0]["tool_schema"]
    schemas.insert(0, OpenAIFunctionToolSchema.model_validate(native))
    expected = [schema.model_dump(exclude_unset=True, exclude_none=True) for schema in schemas]
    assert tools.counted == expected == list(tools.known.values())
    assert tools.shown({}) == expected
    assert tools.shown({"agent_name": "single_turn_agent"}) is None
    assert tools.shown({"extra_info": {"tool_selection": ["search"]}}) == expected[:1]


def test_a_prompt_is_counted_with_its_tools(files: dict[str, str], tmp_path: Path) -> None:
    """As verl's dataset does, whatever the row's loop shows."""
    for loop in ("tool_agent", "single_turn_agent"):
        config = _config(tmp_path, files, {}, loop)
        _check(config)
        config.data.max_prompt_length = 100
        with pytest.raises(ConfigError, match=r"1 longer than data\.max_prompt_length=100"):
            _check(config)


def test_a_template_that_refuses_tools_loses_rows(files: dict[str, str], tmp_path: Path) -> None:
    refuses = "{% if tools %}{{ raise_exception('no tools!') }}{% endif %}" + templates.CHATML
    with pytest.raises(ConfigError, match=r"1 of 1 rows are lost.*no tools!"):
        _check(_config(tmp_path, files, {}), refuses)


def test_soft_prompts_are_placed_among_the_tools(files: dict[str, str], tmp_path: Path) -> None:
    """A template that has no end of turn where there are tools."""
    bare = "{% if tools %}{{ messages[-1].content }}{% else %}" + templates.CHATML + "{% endif %}"
    with pytest.raises(PlacementError, match=r"row 0: no end-of-turn token found"):
        _check(_config(tmp_path, files, {}), bare)
    selected = {"extra_info": {"tool_selection": ["search"]}}
    with pytest.raises(PlacementError, match=r"row 0: no end-of-turn token found"):
        _check(_config(tmp_path, files, selected), bare)
    _check(_config(tmp_path, files, {}, "single_turn_agent"), bare)


def test_prompts_that_show_more_than_verl_counts(files: dict[str, str], tmp_path: Path) -> None:
    """verl cuts them off at the left."""
    config = _config(tmp_path, files, {})
    for name in files:
        config.data[name] = None
    config.data.max_prompt_length = 60
    config.actor_rollout_ref.rollout.prompt_length = 64
    with pytest.raises(PlacementError, match=r"row 0: its prompt has \d+ tokens with the tools"):
        _check(config, length=0)


@pytest.mark.parametrize("selection", [["find"], ["search", "find"], "search", [{"a": 1}]])
def test_a_selection_of_tools_that_are_not_there(
    selection: Any, files: dict[str, str], tmp_path: Path
) -> None:
    row = {"extra_info": {"tool_selection": selection}}
    with pytest.raises(ConfigError, match=r"row 0: extra_info\.tool_selection=.*search"):
        _check(_config(tmp_path, files, row))


def test_what_no_prompt_shows_is_said(
    files: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        _check(_config(tmp_path, files, {}))
        assert "tool" not in caplog.text.replace("test_what_no_prompt", "")
        _check(_config(tmp_path, files, {"tools": [json.dumps({"name": "f"})]}))
        assert "2 rows have a column 'tools', which verl does not read" in caplog.text
        _check(_config(tmp_path, files, {}, "single_turn_agent"))
    assert "for single_turn_agent shows none" in caplog.text


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("tools: [", "cannot be read"),
        ("tools: 1", "cannot be read"),
        (NATIVE + NATIVE.removeprefix("\ntools:\n"), "two tools 'search'"),
        ("tools: [{class_name: a.B, tool_schema: {type: function}}]", "cannot be read: Validation"),
    ],
)
def test_files_of_tools_that_cannot_be_used(text: str, cause: str, tmp_path: Path) -> None:
    file = tmp_path / "tools.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=rf"{file}.*{cause}"):
        run_tools(_config(tmp_path, {"tool_config_path": str(file)}, {}))
    missing = {"function_tool_path": str(tmp_path / "none.py")}
    with pytest.raises(ConfigError, match=r"none\.py cannot be read: FileNotFoundError"):
        run_tools(_config(tmp_path, missing, {}))


def test_a_tool_that_describes_itself_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """To make one may start services, which is for the run alone."""
    file = tmp_path / "tools.yaml"
    file.write_text("tools: [{class_name: a.B, config: {type: native}}]")
    assert run_tools(_config(tmp_path, {"tool_config_path": str(file)}, {})).known == {}
    assert "a.B describes itself when it is made" in caplog.text


def test_an_empty_list_of_tools_is_shown_as_one(tmp_path: Path) -> None:
    """As verl does; to Llama-3.1's template it is another thing than none."""
    tools = run_tools(_config(tmp_path, {}, {}))
    assert (tools.shown({}), tools.counted) == ([], None)
    tokenizer, asked = templates.chatml(TEMPLATE), [{"role": "user", "content": "2+2?"}]
    some, none = (place_in_chat(tokenizer, asked, 4, tools=given) for given in ([], None))
    assert tokenizer.decode(some.token_ids).startswith("T[]")
    assert not tokenizer.decode(none.token_ids).startswith("T")
