"""A run's folder across restarts and crashes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from rsp_rl.basics.errors import RunFolderError
from rsp_rl.basics.files import locked, write_json, write_whole
from rsp_rl.runs.folder import RunFolder
from rsp_rl.runs.metrics import GAP_MEAN


def _lines(*steps: tuple[int, dict]) -> str:
    return "".join(json.dumps({"step": step, "data": data}) + "\n" for step, data in steps)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


# Metrics.


def test_one_start(run: RunFolder) -> None:
    run.metrics.write_text(_lines((0, {"val": 0.3}), (1, {"reward": 0.5}), (2, {"reward": 0.75})))
    merged = run.merge_metrics()
    assert merged == {0: {"val": 0.3}, 1: {"reward": 0.5}, 2: {"reward": 0.75}}
    assert list(merged) == [0, 1, 2]
    assert run.metrics.read_text() == _lines(*merged.items())


def test_several_starts_of_which_the_later_count(run: RunFolder) -> None:
    run.keep_earlier_metrics()  # nothing there yet
    run.metrics.write_text(_lines((0, {"val": 0.1}), (1, {"r": 1.0}), (2, {"r": 2.0, "old": 1})))
    run.keep_earlier_metrics()
    assert not run.metrics.exists()
    run.metrics.write_text(_lines((2, {"r": 20.0}), (3, {"r": 30.0})))
    run.keep_earlier_metrics()
    run.metrics.write_text(_lines((3, {"val": 0.9}), (3, {"r": 300.0}), (4, {"r": 400.0})))
    expected = {
        0: {"val": 0.1},
        1: {"r": 1.0},
        2: {"r": 20.0, "old": 1},
        3: {"r": 300.0, "val": 0.9},
        4: {"r": 400.0},
    }
    assert run.merge_metrics() == expected
    assert run.merge_metrics() == expected  # once merged, nothing is counted twice or lost
    # The merged file becomes an earlier start's when the run goes on.
    run.keep_earlier_metrics()
    run.metrics.write_text(_lines((5, {"r": 500.0})))
    assert run.merge_metrics() == {**expected, 5: {"r": 500.0}}


def test_more_than_ten_starts_keep_their_order(run: RunFolder) -> None:
    for start in range(13):
        run.keep_earlier_metrics()
        run.metrics.write_text(_lines((start, {"start": start}), (start + 1, {"start": start})))
    expected = {step: {"start": min(step, 12)} for step in range(14)}
    assert run.merge_metrics() == expected


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        ([(0, {"val": 0.2}), (1, {"r": 10.0})], {0: {"val": 0.2}, 1: {"r": 10.0}}),
        (
            [(2, {"val": 0.5}), (3, {"r": 30.0})],
            {0: {"val": 0.1}, 1: {"r": 1.0}, 2: {"r": 2.0, "val": 0.5}, 3: {"r": 30.0}},
        ),
        ([], {0: {"val": 0.1}, **{step: {"r": float(step)} for step in (1, 2, 3, 4)}}),
    ],
    ids=["anew", "back to step 2", "ended before a step"],
)
def test_another_future_is_left_out(run: RunFolder, later: list, expected: dict) -> None:
    """Steps 3 and 4 of a run that began anew were never its own."""
    run.metrics.write_text(_lines((0, {"val": 0.1}), *((n, {"r": float(n)}) for n in (1, 2, 3, 4))))
    run.keep_earlier_metrics()
    run.metrics.write_text(_lines(*later))
    assert run.merge_metrics() == expected


def test_a_run_that_goes_on_keeps_the_file_that_it_writes(run: RunFolder) -> None:
    with run.metrics.open("w") as file, locked(run.root):
        file.write(_lines((1, {"r": 1.0})))
        file.flush()
        assert run.merge_metrics() == {1: {"r": 1.0}}  # a look at it
        file.write(_lines((2, {"r": 2.0})))
        file.flush()
        assert run.merge_metrics() == {1: {"r": 1.0}, 2: {"r": 2.0}}


def test_metrics_that_a_job_had_written_elsewhere_are_kept_too(
    run: RunFolder, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere.jsonl"
    run.keep_earlier_metrics(elsewhere)
    elsewhere.write_text(_lines((1, {"r": 1.0})))
    run.keep_earlier_metrics(elsewhere)
    assert not elsewhere.exists()
    elsewhere.write_text(_lines((2, {"r": 2.0, GAP_MEAN: 0.0})))  # the last start's
    assert run.has_stepped()
    both = {1: {"r": 1.0}, 2: {"r": 2.0, GAP_MEAN: 0.0}}
    assert run.read_metrics() == both
    run.keep_earlier_metrics()  # a start outside of the job
    run.metrics.write_text(_lines((3, {"r": 3.0})))
    assert not elsewhere.exists()
    assert run.merge_metrics() == {**both, 3: {"r": 3.0}}


def test_checkpoints_on_another_disk_are_found(run: RunFolder, tmp_path: Path) -> None:
    run.keep_checkpoints_at(run.checkpoints)
    assert run.checkpoints.is_dir()
    assert not run.checkpoints.is_symlink()
    run.checkpoints.rmdir()
    for elsewhere in (tmp_path / "a", tmp_path / "b"):
        run.keep_checkpoints_at(elsewhere)
        (elsewhere / "global_step_3").mkdir()
        assert [folder.name for folder in run.checkpoints.iterdir()] == ["global_step_3"]
    run.keep_checkpoints_at(run.checkpoints)  # a link that somebody made
    assert run.checkpoints.resolve() == tmp_path / "b"


def test_steps_are_sorted_by_number(run: RunFolder) -> None:
    run.metrics.write_text(_lines((10, {}), (9, {}), (100, {})))
    assert list(run.merge_metrics()) == [9, 10, 100]


def test_numbers_that_are_none_survive(run: RunFolder) -> None:
    run.metrics.write_text('{"step": 1, "data": {"a": NaN, "b": null, "c": 1e-7}}\n')
    for _ in range(2):
        data = run.merge_metrics()[1]
        assert math.isnan(data["a"])
        assert (data["b"], data["c"]) == (None, 1e-7)


@pytest.mark.parametrize(
    "half",
    [
        b"",
        b"{",
        b'{"step": 3, "da',
        b'{"step": 3, "data": {"r": 1.0}',
        '{"step": 3, "data": {"é'.encode()[:-1],
        b"\x00\x00",
    ],
)
@pytest.mark.parametrize("restarted", [False, True])
def test_half_written_last_line(run: RunFolder, half: bytes, restarted: bool) -> None:
    run.metrics.write_bytes(_lines((1, {"r": 1.0}), (2, {"r": 2.0})).encode() + half)
    expected = {1: {"r": 1.0}, 2: {"r": 2.0}}
    if restarted:
        run.keep_earlier_metrics()
        run.metrics.write_text(_lines((2, {"r": 20.0})))
        expected[2] = {"r": 20.0}
    assert run.merge_metrics() == expected


def test_whole_last_line_without_its_line_break_counts(run: RunFolder) -> None:
    run.metrics.write_text(_lines((1, {"r": 1.0}), (2, {"r": 2.0})).rstrip("\n"))
    assert list(run.merge_metrics()) == [1, 2]


def test_names_may_hold_any_character(run: RunFolder) -> None:
    """orjson, which verl writes with, leaves Unicode's own line breaks as they are."""
    name = "val/a\u2028b\u0085c é"
    run.metrics.write_bytes(f'{{"step": 1, "data": {{"{name}": 1.0}}}}\n'.encode())
    assert run.merge_metrics() == {1: {name: 1.0}}
    assert run.merge_metrics() == {1: {name: 1.0}}


@pytest.mark.parametrize(
    "middle",
    [
        *('{"step": 2, "da', "", "[]", "7", '{"step": 2}', '{"data": {}}'),
        *('{"step": "x", "data": {}}', '{"step": 2, "data": null}', '{"step": 2, "data": [1]}'),
    ],
)
def test_corrupted_middle_line_is_named(run: RunFolder, middle: str) -> None:
    text = f"{_lines((1, {}))}{middle}\n{_lines((3, {}))}"
    run.metrics.write_text(text)
    with pytest.raises(RunFolderError, match=r"metrics\.jsonl, line 2 is no metrics record"):
        run.merge_metrics()
    assert run.metrics.read_text() == text  # left for the user to mend


@pytest.mark.parametrize("content", [None, "", '{"step": 1, "da'])
def test_no_metrics_at_all(run: RunFolder, content: str | None) -> None:
    if content is not None:
        run.metrics.write_text(content)
    with pytest.raises(RunFolderError, match="no metrics"):
        run.merge_metrics()


# Settings and times.


def test_settings(run: RunFolder) -> None:
    write_json(run.settings, {"length": 20, "mean": 1e-5})
    assert run.read_settings() == {"length": 20, "mean": 1e-5}


def test_folder_without_settings(run: RunFolder) -> None:
    with pytest.raises(RunFolderError, match=r"holds no rsp\.json; is it a run folder"):
        run.read_settings()


@pytest.mark.parametrize("content", ["", '{"length": 2', "[1]"])
def test_damaged_settings(run: RunFolder, content: str) -> None:
    run.settings.write_text(content)
    with pytest.raises(RunFolderError, match=r"rsp\.json is damaged"):
        run.read_settings()


def test_wall_seconds_adds_all_starts(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run.wall_seconds() == 0.0
    times = iter([100.0, 130.0, 1000.0, 1012.5])
    monkeypatch.setattr("rsp_rl.runs.folder.time.time", lambda: next(times))
    with run.record_start():
        pass
    with pytest.raises(KeyError), run.record_start():
        raise KeyError
    assert run.wall_seconds() == 42.5
    with (run.root / "starts.jsonl").open("a") as file:
        file.write('{"begun": 1.0, "en')
    assert run.wall_seconds() == 42.5


def test_paths_lie_in_the_root(run: RunFolder) -> None:
    names = ("settings", "checkpoints", "metrics", "tensorboard", "summary", "plot")
    paths = [getattr(run, name) for name in names]
    assert {path.parent for path in paths} == {run.root}
    assert [path.name for path in paths] == [
        *("rsp.json", "checkpoints", "metrics.jsonl", "tensorboard"),
        *("summary.json", "training.png"),
    ]


# Whole or not at all.


def test_write_whole_replaces(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    for text in ("first", "", "third\n"):
        write_whole(file, text)
        assert file.read_text() == text
        assert list(tmp_path.iterdir()) == [file]


def test_write_json_is_readable_and_ends_its_line(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1, "b": None})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": 1,\n  "b": null\n}\n'


def test_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_whole(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(file, "new " * 10_000 + "\ud800")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_crash_before_the_replacement_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.txt"
    write_whole(file, "old")
    seen = []

    def crash(source: Path, target: Path) -> None:
        seen.append((Path(source).read_text(), Path(target).read_text(), Path(source).parent))
        raise OSError("power")

    monkeypatch.setattr("rsp_rl.basics.files.os.replace", crash)
    with pytest.raises(OSError, match="power"):
        write_whole(file, "new")
    # All of the new text was on the same file system, and nothing of it in the file.
    assert seen == [("new", "old", tmp_path)]
    assert file.read_text() == "old"


def test_whether_the_latest_start_made_a_step(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert not run.has_stepped()
    run.metrics.write_text('{"step":0,"data":{"val-core/arithmetic/acc/mean@1":0.4}}\n')
    assert not run.has_stepped()
    with run.metrics.open("a") as file:
        file.write('{"step":1,"data":{"rsp/logprob_gap_mean":1e-7}}\n')
    assert run.has_stepped()
    run.keep_earlier_metrics()  # as the next start does
    assert not run.has_stepped()
