"""The canary's report says what broke, and its requirements leave the pins out."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import canary_report
from canary_report import MOVING, Part, main, of_junit, of_tests, of_training, report, requirements
from rsp_rl.runs.metrics import GAP_MEAN

REPOSITORY = Path(__file__).resolve().parents[3]

JUNIT = """<?xml version="1.0"?><testsuites><testsuite>
<testcase classname="tests.unit.a" name="passes" time="1.5"/>
<testcase classname="tests.unit.a" name="skips" time="0"><skipped message="no"/></testcase>
<testcase classname="tests.unit.a" name="fails[x]" time="2">
<failure message="AssertionError: 1 != 2&#10;more">E   AssertionError: 1 != 2</failure></testcase>
<testcase classname="tests.unit.b" name="cannot" time="0.5">
<error message="failed on setup with &quot;...&quot;">def made():
&gt;   start()
E   ValueError: No common block size | for 16
E   more</error></testcase>
</testsuite></testsuites>"""

ON_VLLM = "tests/integration/test_vllm.py tests/integration/test_thinking.py"

_DIED = "it ended before its tests had"

#: A Python that writes what each of its calls would leave behind.
STUB = """#!/usr/bin/env bash
echo "$@" >> "$(dirname "$0")/asked.txt"
echo "$VLLM_USE_V2_MODEL_RUNNER $TRITON_INTERPRET $PYTHONPATH" >> "$(dirname "$0")/told.txt"
case $2 in
  pytest) exit 2 ;;
  report) echo "the report"; exit 1 ;;
esac
"""

#: A Python whose environments have a Python that writes where it would look for packages.
MAKER = """#!/usr/bin/env bash
mkdir -p "$3/bin"
cat > "$3/bin/python" <<'END'
#!/usr/bin/env bash
[[ $2 != requirements ]] || { echo "$PYTHONPATH" > "$(dirname "$0")/paths.txt"; exit 1; }
END
chmod +x "$3/bin/python"
"""


def results(folder: Path, status: int, gaps: list[float]) -> Path:
    (folder / "run").mkdir(parents=True)
    (folder / "training.txt").write_text(f"{status}\n")
    (folder / "training.log").write_text("stage\nerror: no such option\ncanary: bye\n")
    rows = [{"step": 0, "data": {"val-core/arithmetic/acc/mean@1": 0.4}}]
    rows += [{"step": n, "data": {GAP_MEAN: gap}} for n, gap in enumerate(gaps, 1)]
    metrics = folder / "run" / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_tests_are_counted_and_errors_told_by_their_first_line(tmp_path: Path) -> None:
    file = tmp_path / "unit.xml"
    file.write_text(JUNIT)
    assert of_junit("unit tests", file) == Part(
        "unit tests",
        passed=1,
        failed={
            "tests.unit.a::fails[x]": "AssertionError: 1 != 2",
            "tests.unit.b::cannot": "ValueError: No common block size | for 16",
        },
        seconds=4.0,
    )


@pytest.mark.parametrize(
    ("status", "gaps", "part"),
    [
        (0, [2e-7, 3e-7], Part("training, 2 steps (gap 3.0e-07)", 2, {}, None)),
        (
            1,
            [2e-7],
            Part(
                "training, 2 steps (gap 2.0e-07)",
                1,
                {"training, exit status 1": "error: no such option"},
                None,
            ),
        ),
        (  # it ended well, and did nothing
            0,
            [],
            Part(
                "training, 2 steps",
                0,
                {"training, exit status 0": "error: no such option"},
                None,
            ),
        ),
    ],
)
def test_training_counts_if_both_steps_are_there(
    tmp_path: Path, status: int, gaps: list[float], part: Part
) -> None:
    assert of_training(results(tmp_path, status, gaps)) == part


@pytest.mark.parametrize(("status", "said"), [(139, _DIED), (4, _DIED), (5, "no test ran")])
def test_a_pytest_that_dies_or_tries_nothing_has_failed(
    tmp_path: Path, status: int, said: str
) -> None:
    """It leaves no file, or one without tests."""
    (tmp_path / "vllm.txt").write_text(f"{status}\n")
    if status == 5:
        (tmp_path / "vllm.xml").write_text("<testsuites><testsuite/></testsuites>")
    part = of_tests("tests on vLLM", tmp_path, "vllm")
    wanted = {f"pytest, exit status {status}": said}
    assert (part.passed, part.failed) == (0, wanted)
    assert main(["report", str(tmp_path)]) == 1


@pytest.mark.parametrize("status", [1, 2])
def test_what_failed_is_told_by_its_own_errors(tmp_path: Path, status: int) -> None:
    (tmp_path / "unit.txt").write_text(f"{status}\n")
    (tmp_path / "unit.xml").write_text(JUNIT)
    assert of_tests("t", tmp_path, "unit") == of_junit("t", tmp_path / "unit.xml")


def test_a_report_of_nothing_is_no_success(tmp_path: Path) -> None:
    assert main(["report", str(tmp_path)]) == 1


def test_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary_report, "version", lambda name: f"{len(name)}.0")
    parts = [
        Part("unit tests", 3, {}, 12.4),
        Part("tests on vLLM", 0, {"tests.b::one": "ValueError: 16 | 32"}, 1.0),
    ]
    lines = report(parts, datetime.date(2030, 1, 2)).splitlines()
    assert lines[0] == "## 2030-01-02"
    assert "| verl | 4.0 | ==0.9.1 |" in lines
    assert {line.split(" | ")[0][2:] for line in lines[4 : 4 + len(MOVING)]} == set(MOVING)
    assert "| unit tests | 3 | 0 | 12 |" in lines
    assert "| tests on vLLM | 0 | 1 | 1 |" in lines
    assert lines[-1] == r"| `tests.b::one` | ValueError: 16 \| 32 |"


def test_requirements_have_no_pin_of_what_moves() -> None:
    """verl's own bound on transformers would hold it back."""
    names = {Requirement(line).name.lower() for line in requirements()}
    assert names.isdisjoint({*MOVING, "torch", "rsp-rl"})
    assert {"hydra-core", "pytest", "accelerate", "transferqueue"} <= names


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STUB)
    python.chmod(0o755)
    return tmp_path / "venv"


def canary(environment: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    output = environment.parent / "out"
    return subprocess.run(
        ["bash", "scripts/canary.sh", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "VENV": str(environment), "OUTPUT": str(output), **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_part_that_fails_leaves_the_others_and_the_report(environment: Path) -> None:
    done = canary(environment, "-k", "some", PARTS="unit vllm")
    assert done.returncode == 1, done.stderr
    asked = (environment / "bin" / "asked.txt").read_text().splitlines()
    first, second, last = asked
    assert first.endswith("-m not slow tests/unit -k some")
    assert second.endswith(f"{ON_VLLM} -k some")
    assert last.startswith("scripts/canary_report.py report ")
    assert (environment.parent / "out" / "report.md").read_text() == "the report\n"
    statuses = [
        (environment.parent / "out" / f"{part}.txt").read_text() for part in ("unit", "vllm")
    ]
    assert statuses == ["2\n", "2\n"]


def test_v2_has_tritons_interpreter_and_the_other_parts_have_not(environment: Path) -> None:
    done = canary(environment, PARTS="v2 vllm")
    assert done.returncode == 1, done.stderr
    asked = (environment / "bin" / "asked.txt").read_text().splitlines()
    told = (environment / "bin" / "told.txt").read_text().splitlines()
    path = environment.parent / "out" / "triton_interpreter"
    assert f" --no-build-isolation --target {path} /" in asked[0]
    assert [line.split()[-1] for line in asked[1:3]] == [ON_VLLM.split()[-1]] * 2
    assert told[1].startswith("1 1 ")
    assert told[1].endswith(f":{path}")
    assert told[2].startswith("0  ")
    assert str(path) not in told[2]


def test_v2_without_tritons_interpreter_has_failed_and_the_rest_goes_on(environment: Path) -> None:
    python = environment / "bin" / "python"
    python.write_text(STUB.replace("case $2 in", "case $2 in\n  pip) exit 1 ;;"))
    done = canary(environment, PARTS="v2 vllm")
    assert "v2: pip cannot install Triton's interpreter" in done.stdout
    assert (environment.parent / "out" / "report.md").read_text() == "the report\n"
    assert of_tests("on V2", environment.parent / "out", "v2").failed
    assert (environment.parent / "out" / "vllm.txt").read_text() == "2\n"


def test_tritons_interpreter_is_a_backend_of_triton(tmp_path: Path) -> None:
    """Where Triton is: vLLM asks it for a backend named `cpu`."""
    pytest.importorskip("triton.backends", reason="Triton is not installed")
    code = "from triton.backends import backends; print(backends['cpu'].driver.is_active())"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    source = tmp_path / "source"  # what a build leaves behind is left there
    shutil.copytree(REPOSITORY / "scripts" / "triton_interpreter", source)
    target = tmp_path / "target"
    subprocess.run([*install, "--target", target, source], check=True, timeout=300)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "False\n", done.stderr


def test_an_environment_that_is_half_made_is_made_again(environment: Path) -> None:
    (environment / ".half_made").touch()
    done = canary(environment, PARTS="unit", PYTHON="false")
    assert done.returncode == 1
    assert f"canary: making {environment}" in done.stdout
    assert not (environment / "bin" / "asked.txt").exists()


def test_requirements_are_asked_for_before_the_checkout_is_installed(tmp_path: Path) -> None:
    """By the new environment's Python, which finds the package by its path alone."""
    python = tmp_path / "python"
    python.write_text(MAKER)
    python.chmod(0o755)
    done = canary(tmp_path / "venv", PARTS="unit", PYTHON=str(python), PYTHONPATH="")
    asked = (tmp_path / "venv" / "bin" / "paths.txt").read_text()
    assert asked.strip().split(":")[0] == str(REPOSITORY), done.stderr


def test_an_unknown_part_is_refused(environment: Path) -> None:
    done = canary(environment, PARTS="unit trainig")
    assert done.returncode == 1
    assert "'trainig' is none of unit, vllm, v2, training" in done.stderr
    assert not (environment / "bin" / "asked.txt").exists()
