"""The GPU kit's runner: order, limits, what is kept when it is cut off, what is run again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from results import Results

from gpu import prove
from gpu.prove import Check, Proof, plan, run_all

REPOSITORY = Path(__file__).resolve().parents[3]
#: A check that writes when it began and ended, sleeps in between, and ends with a status.
PROGRAM = """
import sys, time
from pathlib import Path
seconds, status, output = float(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[-1])
output.write_text(str(time.monotonic()))
time.sleep(seconds)
output.write_text(output.read_text() + ' ' + str(time.monotonic()))
print('ok   a check of its own')
sys.exit(status)
"""


def check(name: str, seconds: float = 0.0, status: int = 0, **about) -> Check:
    return Check(
        name, ("-c", PROGRAM, str(seconds), str(status)), about.pop("limit_s", 60), **about
    )


def times(folder: Path, name: str) -> list[float]:
    return [float(value) for value in (folder / f"{name}.json").read_text().split()]


def statuses(folder: Path) -> dict[str, str]:
    content = json.loads((folder / "proof.json").read_text())
    return {name: found["status"] for name, found in content["checks"].items()}


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_plan_names_each_check_once_and_has_what_it_runs(device: str, tmp_path: Path) -> None:
    checks = plan(device, tmp_path)
    assert len({c.name for c in checks}) == len(checks)
    for found in checks:
        if found.command[0] == "-m":
            file = REPOSITORY / "scripts" / Path(*found.command[1].split(".")).with_suffix(".py")
        else:
            file = REPOSITORY / found.command[0]
        assert file.is_file()


def test_checks_share_the_machine_but_a_timed_one_has_it_alone(tmp_path: Path) -> None:
    checks = [check("a", 1), check("b", 1), check("timed", 0.5, alone=True), check("c")]
    run_all(checks, Proof(tmp_path, "cpu"), 2, time.monotonic() + 60)
    assert set(statuses(tmp_path).values()) == {"passed"}
    a, b, timed, c = (times(tmp_path, name) for name in ("a", "b", "timed", "c"))
    assert max(a[0], b[0]) < min(a[1], b[1])
    assert max(a[1], b[1]) < timed[0]
    assert timed[1] < c[0]


def test_failed_too_slow_and_cut_off_are_told_apart(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(prove, "_WORTH_BEGINNING_S", 1)
    checks = [
        check("bad", 0, 1),
        check("slow", 60, limit_s=1),
        check("cut", 60),
        check("never", 60),
    ]
    # A slow machine takes a while to start a process; `cut` must have begun by then.
    run_all(checks, Proof(tmp_path, "cpu"), 3, time.monotonic() + 5)
    found = statuses(tmp_path)
    assert found.pop("never", "cut off") == "cut off"
    assert found == {"bad": "failed", "slow": "too slow", "cut": "cut off"}
    assert len(times(tmp_path, "cut")) == 1  # what it wrote is there


def test_what_ended_is_not_run_again_and_what_was_cut_is(tmp_path: Path) -> None:
    proof = Proof(tmp_path, "cpu")
    for status, ended in [
        ("passed", True),
        ("failed", True),
        ("too slow", True),
        ("cut off", False),
        ("left out", False),
    ]:
        proof.note(check(status), status)
        assert Proof(tmp_path, "cpu").ended(check(status)) is ended
    assert not proof.ended(check("another"))


def test_the_exit_status_says_failed_or_left(tmp_path: Path, capsys) -> None:
    proof = Proof(tmp_path, "cpu")
    assert proof.conclude([check("a")]) == 2
    proof.note(check("a"), "passed", seconds=1.0)
    assert proof.conclude([check("a")]) == 0
    proof.note(check("b"), "failed", seconds=1.0)
    assert proof.conclude([check("a"), check("b")]) == 1
    assert "failed" in capsys.readouterr().out


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    run = subprocess.run(
        [
            *(sys.executable, str(REPOSITORY / "scripts" / "gpu" / "prove.py"), "--device", "cpu"),
            *("--kit", str(tmp_path), "--output", str(tmp_path), "--only", "plian"),
        ],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2
    assert "no such check: plian" in run.stderr


def test_results_are_on_disk_as_they_come(tmp_path: Path, capsys) -> None:
    file = tmp_path / "results.json"
    results = Results(file, device="a card")
    results.check("the first", True, gap=1.23456e-7)
    found = json.loads(file.read_text())
    assert found["checks"]["the first"] == {"passed": True, "gap": 1.23456e-7}
    assert (found["device"], found["finished"]) == ("a card", False)
    results.figure("a time", tokens_per_second=12345.6, kind="sdpa")
    results.check("the second", False)
    assert results.finish() == 1
    assert json.loads(file.read_text())["finished"]
    out = capsys.readouterr().out
    assert "ok   the first: gap 1.23e-07" in out
    assert "tokens per second 12,346, kind sdpa" in out
    assert "FAIL the second" in out


def test_nothing_checked_is_not_a_pass(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.json")
    results.figure("a time", seconds=1.0)
    assert results.finish() == 1
