"""Training data as it comes: what verl would drop, misread or die of, before Ray starts."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig, OmegaConf

from rsp_rl.basics.errors import ConfigError
from rsp_rl.dials.options import RspOptions
from rsp_rl.training.prompts import check_prompts
from rsp_rl.training.rows_left import kept_rows
from rsp_rl.training.tools import run_tools
from rsp_rl.training.train_data import check_data
from tests.unit import templates


def row(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A good row of verl's schema."""
    return {
        "data_source": "sums",
        "prompt": [{"role": "user", "content": f"What is {number} + 1?"}],
        "reward_model": {"style": "rule", "ground_truth": str(number + 1)},
        "extra_info": {"index": number},
        **changes,
    }


def rows(size: int, **changes: Any) -> list[dict[str, Any]]:
    return [row(number, **changes) for number in range(size)]


def parquet(file: Path, content: list[dict], schema: pa.Schema | None = None) -> str:
    pq.write_table(pa.Table.from_pylist(content, schema=schema), file)
    return str(file)


def json_lines(file: Path, content: list[dict]) -> str:
    file.write_text("".join(json.dumps(line) + "\n" for line in content))
    return str(file)


def config(train: Any, val: Any, **data: Any) -> DictConfig:
    return OmegaConf.create(
        {
            "data": {
                "train_files": train,
                "val_files": val,
                "prompt_key": "prompt",
                "max_prompt_length": 100,
                "train_batch_size": 4,
                "filter_overlong_prompts": True,
                "max_lost_share": 1.0,
                "shuffle": True,
                "seed": 1,
                "custom_cls": {"path": None},
                **data,
            },
            "actor_rollout_ref": {"rollout": {"prompt_length": 100}},
            "reward": {"custom_reward_function": {"path": "pkg://rsp_rl.grading.reward"}},
        }
    )


def prepare_data(made: DictConfig, folder: Path) -> None:
    data = check_data(made, None)
    check_prompts(made, templates.chatml(), RspOptions(length=0), None, data, run_tools(made))
    for files in data:
        files.write(made, folder)


@pytest.fixture
def prepared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Callable[..., DictConfig]:
    """Prepare training rows, or files, beside good ones for validation."""
    caplog.set_level(logging.INFO, "rsp_rl")

    def prepare(train: Any, val: Any = None, **data: Any) -> DictConfig:
        if isinstance(train, list) and isinstance(train[0], dict):
            train = json_lines(tmp_path / "train.jsonl", train)
        if val is None:
            val = parquet(tmp_path / "good.parquet", rows(2))
        made = config(train, val, **data)
        prepare_data(made, tmp_path / "run" / "data")
        return made

    return prepare


def verls(files: str | list[str]) -> list[dict[str, Any]]:
    """The rows that verl's dataset makes of files."""
    parts = []
    for file in [files] if isinstance(files, str) else files:
        assert file.endswith(".parquet")
        parts.append(datasets.load_dataset("parquet", data_files=file)["train"])
    return datasets.concatenate_datasets(parts).to_list()


# How many.


def test_enough_rows_are_left_as_they_are(tmp_path: Path, prepared: Callable) -> None:
    train = parquet(tmp_path / "train.parquet", rows(4))
    made = prepared(train)
    assert made.data.train_files == train
    assert not (tmp_path / "run").exists()


def test_fewer_rows_than_a_batch(tmp_path: Path, prepared: Callable) -> None:
    train = parquet(tmp_path / "train.parquet", rows(3))
    with pytest.raises(ConfigError, match=r"train_files: 3 rows are left .*train_batch_size=4"):
        prepared(train)
    with pytest.raises(ConfigError, match=r"fewer than data\.gen_batch_size=8"):
        prepared(rows(5), gen_batch_size=8)


def long(number: int) -> dict[str, Any]:
    return row(number, prompt=[{"role": "user", "content": "sum " * 200}])


def test_fewer_rows_than_a_batch_once_long_ones_are_left_out(prepared: Callable) -> None:
    with pytest.raises(ConfigError) as caught:
        prepared([*rows(3), long(3), long(4)])
    for part in ("3 rows are left", "5 in the files", "2 longer than", "rows 3, 4"):
        assert part in str(caught.value)


def test_rows_left_out_are_counted(prepared: Callable, caplog: pytest.LogCaptureFixture) -> None:
    prepared([*rows(6), long(6)])
    assert "1 of 7 rows are lost, 1 longer than data.max_prompt_length=100" in (caplog.text)
    assert "6 rows, 1 batches an epoch; other 2 rows are left over in each" in caplog.text


def test_all_too_long(prepared: Callable) -> None:
    with pytest.raises(ConfigError, match=r"train_files: no row is left .*4 longer than"):
        prepared([long(0)] * 4)


def test_validation_without_a_row(tmp_path: Path, prepared: Callable) -> None:
    val = json_lines(tmp_path / "val.jsonl", [long(0)])
    with pytest.raises(ConfigError, match=r"data\.val_files: no row is left"):
        prepared(rows(4), val)


def test_long_prompts_that_nobody_leaves_out(prepared: Callable) -> None:
    with pytest.raises(ConfigError, match=r"row 4.*filter_overlong_prompts=True"):
        prepared([*rows(4), long(4)], filter_overlong_prompts=False)


def test_a_part_of_the_rows(prepared: Callable) -> None:
    """verl draws first and leaves out then."""
    several = [*rows(4), long(4)]
    prepared(several, train_max_samples=4, shuffle=False)
    with pytest.raises(ConfigError, match=r"3 rows are left .*4 drawn by data\.train_max"):
        prepared([*several[1:], row(9)], train_max_samples=4, shuffle=False)
    kept = 0
    for seed in range(20):
        try:
            prepared(several, train_max_samples=4, seed=seed)
            kept += 1
        except ConfigError:
            pass
    assert 0 < kept < 20
    prepared(several, train_max_samples=4, seed=None)


def test_prompts_that_the_template_fails_on(
    prepared: Callable, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a template that wants a user's turn first does."""
    tool = row(4, prompt=[{"role": "user", "content": "x", "name": "n"}])
    template = (
        "{% for m in messages %}{% if m.name %}{{ raise_exception('no names here') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    tokenizer = templates.chatml(template)
    monkeypatch.setattr(templates, "chatml", lambda: tokenizer)
    prepared([*rows(4), tool])
    assert "1 that the chat template refuses (row 4; row 4: no names here)" in caplog.text


# Golds.


def with_gold(gold: Any) -> list[dict[str, Any]]:
    return [*rows(4), row(4, reward_model={"style": "rule", "ground_truth": gold})]


@pytest.mark.parametrize(
    ("gold", "cause"),
    [
        (["4", "5"], "a list of 2 answers"),
        ([], "a list of 0 answers"),
        ({"answer": "4"}, "of type dict"),
        (float("nan"), "a missing or infinite number"),
        (float("inf"), "a missing or infinite number"),
        (True, "a truth value"),
        ("", "empty"),
        (" \n", "empty"),
        ("nan", "a missing value written as text"),
        ("<NA>", "a missing value written as text"),
        ("N/A", "a missing value written as text"),
        *(
            (marks, "marks without an answer")
            for marks in ("$$", r"\boxed{}", r"\text{ }", "...", "-")
        ),
        (None, "missing"),
        ("2 + 2 makes 4.\n#### 4", "a whole solution, .*whose answer is '4'"),
        (r"We add and get $2+2=\boxed{4}$.", "a whole solution, .*whose answer is '4'"),
        ("Two and two. The answer is 4.", "a whole solution, .*whose answer is '4'"),
        ("We take the first one and " * 5, "a text of 30 words"),
        ("7" * 5000, "5000 characters long"),
        ("['4', '5']", "a list written as text"),
        ('["4", "5"]', "a list written as text"),
        ("{'answer': '4'}", "a mapping written as text"),
    ],
)
def test_gold_that_no_answer_can_match(prepared: Callable, gold: Any, cause: str) -> None:
    with pytest.raises(ConfigError, match=rf"train\.jsonl, row 4: .*ground_truth is .*{cause}"):
        prepared(with_gold(gold))


def test_golds_that_are_wrong_throughout_are_counted(prepared: Callable) -> None:
    with pytest.raises(ConfigError, match=r"row 0: .*\(6 rows have golds that no"):
        prepared(rows(6, reward_model={"ground_truth": {"answer": "4"}}))


@pytest.mark.parametrize(
    "gold",
    [
        r"\{1, 2\}",
        "[1, 2]",
        "(1, 2)",
        "{4}",
        "None",
        r"\boxed{4}",
        "yes",
        r"\boxed{2}, \boxed{3}",
        "<",
        r"\emptyset",
    ],
)
def test_golds_that_only_look_like_structures(prepared: Callable, gold: str) -> None:
    prepared(with_gold(gold))


def test_a_gold_as_long_as_it_likes(tmp_path: Path, prepared: Callable) -> None:
    with pytest.raises(ConfigError, match=r"t\.jsonl, row 0: column 'reward_model' cannot be"):
        prepared(json_lines(tmp_path / "t.jsonl", rows(4, reward_model={"ground_truth": 10**400})))


@pytest.mark.parametrize("gold", [4, 4.0, ["4"], [4], [[4.0]]])
def test_gold_with_one_meaning(tmp_path: Path, prepared: Callable, gold: Any) -> None:
    made = prepared(parquet(tmp_path / "t.parquet", rows(4, reward_model={"ground_truth": gold})))
    for line in verls(made.data.train_files):
        assert float(line["reward_model"]["ground_truth"]) == 4


def test_share_of_readable_golds(prepared: Callable, caplog: pytest.LogCaptureFixture) -> None:
    golds = (r"\frac{1}{2}", "x^2+1", r"\text{October 30}", "3")
    prepared([row(n, reward_model={"ground_truth": gold}) for n, gold in enumerate(golds)])
    assert (
        "data.train_files: the grader can read 75.0% of the golds (3 of 4 distinct ones); compared "
        r"as text alone, e.g. '\\text{October 30}'" in caplog.text
    )
    assert "data.val_files: the grader can read 100.0% of the golds" in caplog.text


def test_another_reward_takes_any_gold(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rsp_rl")
    file = parquet(tmp_path / "t.parquet", rows(4, reward_model={"ground_truth": ["4", "5"]}))
    made = config(file, file)
    made.reward.custom_reward_function.path = "my_reward.py"
    prepare_data(made, tmp_path / "data")
    assert made.data.train_files == file
    assert "golds are not checked" in caplog.text


# Formats.


def as_csv(file: Path, content: list[dict]) -> str:
    import csv

    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(content[0])
        for line in content:
            cells = [v if isinstance(v, str) else json.dumps(v) for v in line.values()]
            writer.writerow(cells)
    return str(file)


def as_list(file: Path, content: list[dict]) -> str:
    file.write_text("\ufeff" + json.dumps(content, indent=1))
    return str(file)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("t.parquet", parquet),
        ("t.PARQUET", parquet),
        ("t.jsonl", json_lines),
        ("t.json", json_lines),
        ("t.JSON", as_list),
        ("t.csv", as_csv),
    ],
)
def test_formats_give_the_same_rows(
    tmp_path: Path,
    prepared: Callable,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    write: Callable[[Path, list[dict]], str],
) -> None:
    content = rows(4)
    content[1]["prompt"][0]["content"] = 'A "quote", a\nline and \u2028 \u00e9'
    write(tmp_path / name, content)
    monkeypatch.setenv("HOME", str(tmp_path))
    made = prepared(f"~/{name}")
    assert verls(made.data.train_files) == content


@pytest.mark.parametrize("name", ["t.txt", "t.jsonl.gz", "t", "t.xlsx", "t.arrow"])
def test_other_formats_are_refused(tmp_path: Path, prepared: Callable, name: str) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(ConfigError, match=r"no format that can be read; write it as one of \.parq"):
        prepared(str(tmp_path / name))
    with pytest.raises(ConfigError, match="is a folder"):
        prepared(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("t.jsonl", json.dumps(row()) + '\n\n{"a": ', "line 3 is damaged"),
        ("t.jsonl", json.dumps(row()) + "\n[1]\n", "line 2: .*no JSON object"),
        ("t.jsonl", "[" * 100_000, "is damaged"),
        ("t.json", "[1, 2]", "row 0: 1 is no JSON object"),
        ("t.json", "", "has no rows"),
        ("t.csv", "", "has no rows"),
        ("t.csv", "prompt,prompt\n1,2\n", "names a column twice"),
        ("t.csv", "a,b\n1\n", "line 2: 1 cells, but 2 columns"),
        ("t.csv", 'a,b\n1,"2\n', "line 2 is damaged"),
        ("t.csv", "question,answer\n1,2\n", "row 0: no 'prompt'"),
    ],
)
def test_damaged_files_are_named_with_their_place(
    tmp_path: Path, prepared: Callable, name: str, content: str, cause: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=cause) as caught:
        prepared(str(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_named_twice(
    tmp_path: Path, prepared: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    train = parquet(tmp_path / "train.parquet", rows(4))
    prepared(train)
    assert "twice" not in caplog.text
    prepared([train, train], train)
    assert "data.train_files names a file twice: its rows count twice" in caplog.text
    assert f"{train} is trained on and validated on" in caplog.text


def test_bytes_that_are_no_text(tmp_path: Path, prepared: Callable) -> None:
    broken = pa.array([b"a", b"\xff\xfe"]).view(pa.string())
    pq.write_table(pa.table({"data_source": broken}), tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_bytes(b"a\n\xff\xfe\n")
    for name, cause in (("t.parquet", "is damaged after row 0"), ("t.csv", "is not UTF-8")):
        with pytest.raises(ConfigError, match=cause):
            prepared(str(tmp_path / name))


# Types.


def test_structures_as_json_text(
    tmp_path: Path, prepared: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [
        {name: v if isinstance(v, str) else json.dumps(v) for name, v in line.items()}
        for line in rows(4)
    ]
    made = prepared(parquet(tmp_path / "t.parquet", texts))
    assert verls(made.data.train_files) == rows(4)
    # A resumed run compares what is in the file.
    once = Path(made.data.train_files).read_bytes()
    made = prepared(str(tmp_path / "t.parquet"))
    assert Path(made.data.train_files).read_bytes() == once
    for name in ("prompt", "reward_model", "extra_info"):
        assert f"{name} read from JSON text in 4 rows" in caplog.text


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"prompt": "[{'role': 'user', 'content': '1?'}]"}, "no JSON .Python's notation"),
        ({"prompt": "What is 1 + 1?"}, "not a list of chat messages"),
        ({"prompt": [{"role": "user", "content": " "}]}, "an empty user message"),
        ({"prompt": [{"role": "system", "content": 3}]}, "a system message that is not text"),
        (
            {"prompt": [*row()["prompt"], {"role": "assistant", "content": math.nan}]},
            "an assistant message that is not text",
        ),
        ({"prompt": [{"role": 1, "content": "1?"}]}, "'prompt' holds .*not a message"),
        ({"extra_info": "{broken"}, "'extra_info' is text that is no JSON"),
        ({"extra_info": [1]}, "'extra_info' is .*not a mapping"),
        ({"extra_info": "index 5"}, "'extra_info' is .*not a mapping"),
        ({"reward_model": "{broken"}, "'reward_model' is text that is no JSON"),
        ({"data_source": 5}, "'data_source' is 5, not a name"),
        ({"data_source": float("nan")}, "'data_source' is nan, not a name"),
        ({"prompt": [{"role": "user", "content": "a\ud83d?"}]}, r"'prompt.content' holds half a"),
        ({"extra_info": {"index": 4, "note": "\udc00"}}, r"'extra_info.note' holds half a"),
        ({"reward_model": {"ground_truth": "\ud800"}}, r"ground_truth' holds half a character"),
    ],
)
def test_values_of_another_type(prepared: Callable, changes: dict, cause: str) -> None:
    with pytest.raises(ConfigError, match=rf"train\.jsonl, row 4: .*{cause}") as caught:
        prepared([*rows(4), row(4, **changes)])
    str(caught.value).encode()


def test_files_with_other_types(
    tmp_path: Path, prepared: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    """A long string beside a string, a number beside text, a field more, no field."""
    first = parquet(tmp_path / "a.parquet", rows(2))
    second = parquet(
        tmp_path / "b.parquet",
        [row(2, extra_info={"index": "2", "level": 3}, reward_model={"ground_truth": 3})],
        pa.schema(
            [
                ("data_source", pa.large_string()),
                ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
                ("reward_model", pa.struct([("ground_truth", pa.int64())])),
                ("extra_info", pa.struct([("index", pa.string()), ("level", pa.int64())])),
            ]
        ),
    )
    third = json_lines(tmp_path / "c.jsonl", [row(3, extra_info={}, note="n")])
    with pytest.raises(ValueError, match="align"):
        verls([first, second])
    made = prepared([first, second, third])
    found = verls(made.data.train_files)
    assert [line["extra_info"] for line in found] == [
        {"index": "0", "level": None},
        {"index": "1", "level": None},
        {"index": "2", "level": 3},
        None,
    ]
    assert [line["reward_model"]["ground_truth"] for line in found] == list("1234")
    assert [line["note"] for line in found] == [None, None, None, "n"]
    for name in ("reward_model.ground_truth", "extra_info.index"):
        assert f"numbers beside text became text in {name}" in caplog.text


def test_agent_loops_of_some_rows_alone(tmp_path: Path, prepared: Callable) -> None:
    """verl would look for a loop called None."""
    named = rows(4, agent_name="single_turn_agent")
    prepared(named)
    first, second = (
        json_lines(tmp_path / "a.jsonl", named),
        json_lines(tmp_path / "b.jsonl", rows(2)),
    )
    with pytest.raises(ConfigError, match=r"b\.jsonl, row 0: no 'agent_name', which other rows"):
        prepared([first, second])
    with pytest.raises(ConfigError, match=r"row 4: 'agent_name' is empty"):
        prepared([*named, row(4, agent_name=None)])


def test_types_that_nothing_joins(tmp_path: Path, prepared: Callable) -> None:
    first = json_lines(tmp_path / "a.jsonl", rows(2, note={"a": 1}))
    second = json_lines(tmp_path / "b.jsonl", rows(2, note=[1]))
    with pytest.raises(
        ConfigError,
        match=r"b\.jsonl, row 0: 'note' is a list, .*but a mapping in .*a\.jsonl, row 0",
    ):
        prepared([first, second])
    large = [*rows(4), row(4, note=2**80)]
    with pytest.raises(ConfigError, match=r"train\.jsonl, row 4: column 'note' cannot be written"):
        prepared(large)


def test_rows_of_a_class_of_the_users_own(
    prepared: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    made = prepared("my.bin", "my.bin", custom_cls={"path": "mine.py", "name": "Mine"})
    assert made.data.train_files == "my.bin"
    assert "its rows are not checked" in caplog.text


# verl's own reader.


@pytest.mark.parametrize("most", [-1, 4, 5])
@pytest.mark.parametrize("shuffle", [False, True])
def test_verl_keeps_the_rows_that_are_counted(prepared: Callable, most: int, shuffle: bool) -> None:
    """Of a file written anew, too, with a column of nothing and half of it text for a mapping."""
    from verl.utils.dataset.rl_dataset import RLHFDataset

    several = [row(n, note=None) for n in range(6)] + [long(6), row(7, extra_info='{"index": 7}')]
    draws = {"train_max_samples": most, "shuffle": shuffle, "train_batch_size": 3}
    made = prepared(several, **draws, filter_overlong_prompts_workers=1)
    dataset = RLHFDataset(made.data.train_files, templates.chatml(), made.data, max_samples=most)
    assert len(dataset) == kept_rows(made.data, "train", 8, [6])[1]
    assert {line["extra_info"]["index"] for line in dataset} <= set(range(8)) - {6}
