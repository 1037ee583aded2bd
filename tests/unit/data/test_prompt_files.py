"""Rows and files as others write them: read, or refused with their place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data.prompt_files import RESERVED, Reading, checked_rows
from rsp_rl.data.row_files import data_files, write_rows

PROMPT = [{"role": "user", "content": "1 + 1?"}]
ROW = {"data_source": "sums", "prompt": PROMPT, "reward_model": {"ground_truth": "2"}}


def _parquet(file: Path, row: dict[str, Any]) -> str:
    pq.write_table(pa.Table.from_pylist([row] * 3), file)
    return str(file)


def _read(files: str | list[str]) -> tuple[list[dict], Reading]:
    reading = Reading()
    return [row for *_, row in checked_rows(data_files(files), reading)], reading


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_column_under_a_name_of_verls_own(tmp_path: Path, name: str) -> None:
    """`responses` would be trained on in the place of what was generated."""
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({**ROW, name: "x"}))
    with pytest.raises(ConfigError, match=rf"a\.jsonl, row 0: column '{name}' has a name under"):
        _read(str(file))


def test_verls_own_names_are_known() -> None:
    from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput

    made = AgentLoopOutput(
        prompt_ids=[1],
        response_ids=[1],
        response_mask=[1],
        response_logprobs=[0.0],
        reward_score=1.0,
        num_turns=1,
        metrics=AgentLoopMetrics(),
        routed_experts=None,
        multi_modal_data={},
    )
    assert made.as_dict().keys() <= RESERVED


@pytest.mark.parametrize("name", ["images", "videos", "audios"])
def test_what_is_no_text(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"row 0: '{name}' is not empty; prompts are text"):
        _read(_parquet(tmp_path / "a.parquet", {**ROW, name: ["a.png"]}))
    for nothing in ([], None):
        assert _read(_parquet(tmp_path / "a.parquet", {**ROW, name: nothing}))[1].as_is


def test_messages_as_a_list_a_field(tmp_path: Path) -> None:
    """What `datasets` makes of a sequence of mappings."""
    split = {"role": ["system", "user"], "content": ["Add.", "1 + 1?"], "name": None}
    rows, reading = _read(_parquet(tmp_path / "a.parquet", {**ROW, "prompt": split}))
    assert rows[0]["prompt"] == [{"role": "system", "content": "Add."}, *PROMPT]
    assert reading.changed == {"prompt made of a list a field": 3}
    uneven = {"role": ["system", "user"], "content": ["1 + 1?"]}
    with pytest.raises(ConfigError, match=r"row 0: 'prompt' is .*not a list of chat messages"):
        _read(_parquet(tmp_path / "a.parquet", {**ROW, "prompt": uneven}))


def test_a_call_of_a_tool_has_no_text(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({**ROW, "prompt": [*PROMPT, call, *PROMPT]}))
    assert len(_read(str(file))[0]) == 1
    file.write_text(json.dumps({**ROW, "prompt": [*PROMPT, {**call, "tool_calls": []}]}))
    with pytest.raises(ConfigError, match="not a message with 'role' and 'content'"):
        _read(str(file))


def test_a_field_twice(tmp_path: Path) -> None:
    """A parser takes the last one, in silence."""
    table = pa.Table.from_pylist([ROW])
    pq.write_table(table.append_column("prompt", table["prompt"]), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"a\.parquet names a column twice"):
        _read(str(tmp_path / "a.parquet"))
    text = json.dumps(ROW)
    for twice in (text[:-1] + ', "prompt": []}', text.replace('"2"', '"2", "ground_truth": "3"')):
        (tmp_path / "a.jsonl").write_text(f"{text}\n{twice}\n")
        with pytest.raises(ConfigError, match="line 2 is damaged: an object names a field twice"):
            _read(str(tmp_path / "a.jsonl"))


def test_a_name_that_is_a_pattern(tmp_path: Path) -> None:
    """verl's library would read what fits it: no file, or others too."""
    for name in ("a[1].parquet", "a*.parquet"):
        assert not _read(_parquet(tmp_path / name, ROW))[1].as_is
    with pytest.raises(ConfigError, match="takes the name for a pattern; name a run_dir without"):
        write_rows(tmp_path / "[run]" / "train.parquet", [ROW], [""])


@pytest.mark.parametrize("named", [None, "", [], [""], ["a.parquet", None]])
def test_no_name(named: Any) -> None:
    with pytest.raises(ConfigError, match=r"data\.val_files names no file"):
        data_files(named, "data.val_files")


def test_a_pointer_in_a_files_place(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ConfigError, match=r"a\.parquet is Git LFS's pointer"):
        data_files(str(file))


def test_one_type_under_two_names(tmp_path: Path) -> None:
    """A class's number beside a number: stored alike, and yet verl does not join them."""
    files = [str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")]
    named = datasets.Dataset.from_list([{**ROW, "level": "hard"}] * 3)
    named.class_encode_column("level").to_parquet(files[0])
    datasets.Dataset.from_list([{**ROW, "level": 3}] * 3).to_parquet(files[1])
    assert not _read(files)[1].as_is
    assert _read(files[0])[1].as_is
