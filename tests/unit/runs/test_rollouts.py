"""Samples of training, read back: numbers of all, texts of some, and what is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsp_rl.basics.errors import RunFolderError
from rsp_rl.runs.folder import RunFolder
from rsp_rl.runs.rollouts import read_step, step_files
from tests.unit.runs.made_rollouts import sample, told, uid, write_step


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_a_rollout_is_what_all_files_of_its_step_say(folder: RunFolder) -> None:
    file = write_step(
        folder,
        3,
        samples=[sample(uid(1, 0)), sample(uid(1, 1), reward=1.0, text="é two")],
        rollouts=[told(uid(1, 1), right=True, tokens=7, gap=0.5) | {"before": 2}],
        soft_prompts=[{"uid": uid(1, 1), "start": 5, "length": 8, "seed": 3}],
        thoughts=[{"uid": uid(1, 1), "thoughts": 3}],
    )
    step = read_step(3, file)
    first, second = step.rollouts
    assert (first.tokens, first.gap_max, first.length, first.reward_info) == (None, None, None, {})
    assert (second.number, second.output, second.reward, second.characters) == (1, 0, 1.0, 5)
    assert (second.tokens, second.gap_mean, second.gap_max) == (7, 0.25, 0.5)
    assert (second.before, second.start, second.length) == (2, 5, 8)
    assert [len(group) for group in step.groups.values()] == [2]
    assert step.texts([second]) == {uid(1, 1): sample(uid(1, 1), reward=1.0, text="é two")}
    assert step.thoughts(step.rollouts) == {uid(1, 1): {"uid": uid(1, 1), "thoughts": 3}}


def test_steps_are_verls_files_alone_in_order(folder: RunFolder) -> None:
    for step in (10, 9):
        write_step(folder, step, samples=[], soft_prompts=[], rollouts=[])
    (folder.train_samples / "notes.jsonl").touch()
    assert list(step_files(folder.train_samples)) == [9, 10]
    assert step_files(folder.train_samples / "none") == {}


@pytest.mark.parametrize(
    ("info", "reward", "best", "right"),
    [
        ({"acc": 1.0}, 0.0, None, True),
        ({"acc": False}, 1.0, 1.0, False),
        ({"acc": 0.37}, 1.0, 1.0, True),  # verl's word for a reward that is a mere number
        ({"acc": 0.37}, 0.37, 1.0, False),
        ({}, 1.0, None, None),
        ({"acc": "yes"}, 1.0, None, None),
    ],
)
def test_what_is_right(
    folder: RunFolder, info: dict, reward: float, best: float | None, right: bool | None
) -> None:
    rows = {"samples": [sample("a_0_0", reward=reward)]}
    rows["rollouts"] = [told("a_0_0") | {"reward_info": info}]
    (rollout,) = read_step(1, write_step(folder, 1, **rows)).rollouts
    assert rollout.right(best) is right


def test_verls_padding_is_no_rollout(folder: RunFolder) -> None:
    padding = f"pad{'0a' * 16}_0_0"
    step = read_step(1, write_step(folder, 1, samples=[sample(uid(1)), sample(padding)]))
    assert ([one.uid for one in step.rollouts], step.padding) == ([uid(1)], 1)


def test_a_last_line_that_was_cut_short_is_left_out_and_said(folder: RunFolder) -> None:
    file = write_step(folder, 1, samples=[sample(uid(1)), sample(uid(2))])
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    step = read_step(1, file)
    assert ([one.uid for one in step.rollouts], step.cut_short) == ([uid(1)], True)
    file.write_bytes(whole[:-1])  # all but the line break is there
    assert (len(read_step(1, file).rollouts), read_step(1, file).cut_short) == (2, False)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2 is no sample"),
        ("[]", "line 2 is no sample (no JSON object)"),
        ("[" * 100_000, "line 2 is no sample (nested too deeply)"),
        ('{"uid": "b_0_0"}', "line 2 is no sample (it has no 'input')"),
        (
            '{"uid": "b_0_0", "input": "", "output": null, "score": 1}',
            "line 2 has an output that is no text",
        ),
        (
            '{"uid": "b_0_0", "input": "", "output": "", "score": "1"}',
            "a score that is no number",
        ),
        ('{"uid": "a_0_0", "input": "", "output": "", "score": 1}', "another line is of, too"),
    ],
)
def test_a_damaged_line_is_named(folder: RunFolder, line: str, said: str) -> None:
    file = write_step(folder, 1, samples=[sample("a_0_0")])
    with file.open("a") as stream:
        stream.write(f"{line}\n")
    with pytest.raises(RunFolderError) as raised:
        read_step(1, file)
    assert str(file) in str(raised.value)
    assert said in str(raised.value)


def test_a_damaged_file_beside_is_named(folder: RunFolder) -> None:
    file = write_step(folder, 1, samples=[sample("a_0_0")], rollouts=[{"uid": "a_0_0"}])
    with pytest.raises(RunFolderError, match=r"1\.rollouts\.jsonl, line 1 .* no 'tokens'"):
        read_step(1, file)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("rollouts", {"tokens": "4"}),
        ("rollouts", {"gap_max": "nan"}),
        ("rollouts", {"reward_info": None}),
        ("soft_prompts", {"length": None}),
    ],
)
def test_a_row_beside_that_cannot_be_is_named(folder: RunFolder, kind: str, wrong: dict) -> None:
    good = {"rollouts": told(uid(1)), "soft_prompts": {"uid": uid(1), "start": 3, "length": 8}}
    file = write_step(
        folder, 1, samples=[sample(uid(1))], **{kind: [good[kind], good[kind] | wrong]}
    )
    (name,) = wrong
    with pytest.raises(RunFolderError, match=rf"1\.{kind}\.jsonl, line 2 has a '{name}'"):
        read_step(1, file)


def test_a_uid_is_text_whatever_it_is(folder: RunFolder) -> None:
    row = told(uid(1)) | {"uid": [1]}
    (rollout,) = read_step(
        1, write_step(folder, 1, samples=[sample(uid(1))], rollouts=[row])
    ).rollouts
    assert rollout.tokens is None


def test_half_characters_and_unicodes_line_breaks_are_read(folder: RunFolder) -> None:
    text = "a\u2028b\x85c"
    file = write_step(folder, 1, samples=[sample("a_0_0", text=text)])
    raw = file.read_bytes().replace(b"1+1", "\ud800".encode("utf-8", "surrogatepass"))
    file.write_bytes(raw)
    step = read_step(1, file)
    (row,) = step.texts(step.rollouts).values()
    assert (row["output"], row["input"]) == (text, "\ud800")
