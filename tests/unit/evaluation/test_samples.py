"""Samples on disk: nothing lost, nothing twice, whatever moment a run is cut off at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.basics.errors import RunFolderError
from rsp_rl.basics.files import locked
from rsp_rl.evaluation.folder import Sample
from rsp_rl.evaluation.samples import SampleFile, key_of, read_samples, write_samples

NASTY = "\u2028 \x85 \n \r </script> \U0001f600 \u00e9 \x00 \\boxed{1}"


def make_sample(problem: str = "p", number: int = 0, output: str = "so \\boxed{4}") -> Sample:
    return {
        "problem": problem,
        "sample": number,
        "seed": 2**62 + number,
        "prompt_hash": "0123456789abcdef",
        "gold": "4",
        "output": output,
        "finish_reason": "stop",
        "tokens": 7,
        "extracted": "4",
        "extraction_step": "boxed",
        "correct": True,
        "stage": "string",
        "timed_out": False,
        "crashed": False,
        "unparsable": False,
    }


def test_what_is_appended_is_there_at_once_and_again(tmp_path: Path) -> None:
    file = tmp_path / "a.samples.jsonl"
    with SampleFile(file) as samples:
        samples.append(make_sample(output=NASTY))
        assert read_samples(file) == [make_sample(output=NASTY)]
    with SampleFile(file) as samples:
        assert samples.samples == [make_sample(output=NASTY)]
        samples.append(make_sample(number=1))
    assert [key_of(sample) for sample in read_samples(file)] == [("p", 0), ("p", 1)]


@given(cut=st.integers(0, 10_000), outputs=st.lists(st.text(max_size=30), min_size=1, max_size=5))
def test_a_file_cut_anywhere_keeps_its_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, cut: int, outputs: list[str]
) -> None:
    file = tmp_path_factory.mktemp("cut") / "a.samples.jsonl"
    written = [make_sample(number=number, output=text) for number, text in enumerate(outputs)]
    write_samples(file, written)
    content = file.read_bytes()
    os.truncate(file, cut % (len(content) + 1))
    whole = file.read_bytes().count(b"\n")
    with SampleFile(file) as samples:
        assert samples.samples == written[:whole]
        for sample in written[whole:]:
            samples.append(sample)
    assert file.read_bytes() == content


def test_a_finished_file_does_not_tell_the_order_of_its_making(tmp_path: Path) -> None:
    keys = [("b", 1), ("a", 0), ("b", 0), ("a", 1)]
    contents = []
    for number, order in enumerate((keys, keys[::-1])):
        file = tmp_path / f"{number}.samples.jsonl"
        with SampleFile(file) as samples:
            for problem, sample in order:
                samples.append(make_sample(problem, sample))
            finished = samples.finish(["b", "a"])
        assert [key_of(sample) for sample in finished] == [("b", 0), ("b", 1), ("a", 0), ("a", 1)]
        contents.append(file.read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("{", "line 2 is no sample"),
        ("[]", "line 2 is no sample .no JSON object"),
        ("", "line 2 is no sample"),
        (json.dumps({**make_sample(), "tokens": "7"}), r"line 2 .*'tokens' is '7', not int"),
        (json.dumps({**make_sample(), "correct": 1}), r"line 2 .*'correct' is 1, not bool"),
        (json.dumps({"problem": "p"}), r"line 2 .*'sample' is None, not int"),
        (json.dumps(make_sample()), r"line 2: problem 'p', sample 0 is there twice"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, cause: str) -> None:
    file = tmp_path / "a.samples.jsonl"
    lines = [json.dumps(make_sample()), line, json.dumps(make_sample(number=1))]
    file.write_text("\n".join(lines) + "\n")
    before = file.read_bytes()
    with pytest.raises(RunFolderError, match=r"a\.samples\.jsonl, " + cause):
        SampleFile(file)
    assert file.read_bytes() == before


def test_a_full_disk_is_one_clear_error_and_loses_nothing() -> None:
    with SampleFile(Path("/dev/full")) as samples, pytest.raises(RunFolderError, match="make room"):
        samples.append(make_sample())


def test_a_lock_keeps_others_out_and_ends_with_its_process(tmp_path: Path) -> None:
    hold = (
        "import sys; from pathlib import Path; from rsp_rl.basics.files import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(RunFolderError, match=f"another process .*pid {other.pid}"),
            locked(tmp_path),
        ):
            pass
    finally:
        other.kill()
        other.wait()
    with locked(tmp_path):
        pass
