"""What can be proven on a GPU in minutes, in order of worth; what is cut off keeps what it has.

    P="python scripts/gpu/prove.py --kit DIR --output DIR/proof"
    $P                  # 10 minutes at most
    $P                  # what was left
    $P --device cpu     # small, to try it

Each check is a process of its own with its own time limit, and writes its JSON as it goes. Checks
of correctness share the card, `--at-once` of them; what is timed has the machine to itself. A check
that ended, well or not, is not run again (`--again` does); one that was cut off is. The last lines
are a table, also in `proof.json`; exit status 1 if a check failed, 2 if one is left to run.

DIR is what `unpack.sh` made, or a folder with `models/tiny` and `data` (`python -m rsp_rl.tiny`,
`python -m rsp_rl.data.arithmetic`) and `models/real`, a chat model of some hundred million
parameters, without which its checks are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "vllm", "verl", "ray", "transformers", "tensordict", "flash-attn", "numpy")
TINY, REAL, DATA = "models/tiny", "models/real", "data"
#: A check that has less than this left of the whole time is not begun.
_WORTH_BEGINNING_S = 20


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: Of its files, and for `--only`.
        command: Behind `python`; `--output FILE` is added.
        limit_s: Seconds after which it is killed.
        alone: It is timed: nothing else may run.
        needs: Folder in the kit without which it cannot run.
    """

    name: str
    command: tuple[str, ...]
    limit_s: float
    alone: bool = False
    needs: str = TINY


@dataclass
class Running:
    """A check at work."""

    check: Check
    process: subprocess.Popen
    begun: float = field(default_factory=time.monotonic)


def plan(device: str, kit: Path) -> list[Check]:
    """All checks of a device, the most worth first."""
    tiny, real, data = (str(kit.resolve() / name) for name in (TINY, REAL, DATA))
    plain = ("scripts/bench/cuda_parity.py", "--device", device)

    def engine(*options: str) -> tuple[str, ...]:
        return ("-m", "gpu.engine", "--device", device, *options)

    def thinking(*options: str) -> tuple[str, ...]:
        return ("-m", "gpu.thoughts", "--device", device, *options)

    def training(kind: str, model: str) -> tuple[str, ...]:
        return ("-m", "gpu.training", kind, "--device", device, "--model", model, "--data", data)

    rollouts = ("scripts/bench/rollout_prompts.py", "--rounds", "3")
    if device == "cpu":
        sizes = ("--hidden-sizes", "64", "--lengths", "64", "--questions", "1", "--tokens", "4")
        return [
            Check("plain", (*plain, "--rounds", "1"), 120),
            Check("engine_fp32", engine("--dtype", "float32", "--model", tiny), 240),
            Check("thoughts_fp32", thinking("--dtype", "float32", "--model", tiny), 240),
            Check("training_tiny", training("tiny", tiny), 900),
            Check("training_thoughts", training("thoughts", tiny), 900),
            Check("training_real", training("real", tiny), 600),
            Check("training_forgotten", training("forgotten", tiny), 600),
            Check("training_thoughts_real", training("thoughts_real", tiny), 600),
            Check("rollouts", (*rollouts, *sizes), 300, alone=True),
            Check("training_cost", training("cost", tiny), 900, alone=True),
        ]
    bf16 = ("--dtype", "bfloat16", "--model", real)
    timed = (*bf16, "--throughput", "5", "--gpu-share", "0.5")
    sizes = (
        *("--hidden-sizes", "896", "--layers", "24", "--dtype", "bfloat16", "--tokens", "32"),
        *("--lengths", "64", "512", "2048", "--questions", "1", "8", "32"),
    )
    return [
        Check("plain", (*plain, "--rounds", "3"), 100, alone=True),
        Check("engine_bf16", engine(*bf16), 150, needs=REAL),
        Check("training_tiny", training("tiny", tiny), 600),
        Check("thoughts_fp32", thinking("--dtype", "float32", "--model", tiny, "--eager"), 150),
        Check("training_thoughts", training("thoughts", tiny), 500),
        Check("training_real", training("real", real), 450, needs=REAL),
        Check(
            "thoughts_fp32_real",
            thinking("--dtype", "float32", "--model", real, "--eager"),
            150,
            needs=REAL,
        ),
        Check("thoughts_bf16", thinking(*bf16), 200, needs=REAL),
        Check("training_thoughts_real", training("thoughts_real", real), 400, needs=REAL),
        Check("training_forgotten", training("forgotten", tiny), 300),
        Check("engine_fp32", engine("--dtype", "float32", "--model", tiny, "--eager"), 120),
        Check(
            "engine_fp32_real",
            engine("--dtype", "float32", "--model", real, "--eager"),
            120,
            needs=REAL,
        ),
        Check(
            "engine_tf32",
            engine("--dtype", "float32", "--model", real, "--eager", "--tf32"),
            120,
            needs=REAL,
        ),
        Check("engine_v2", engine(*bf16, "--eager", "--runner", "v2"), 120, needs=REAL),
        Check("engine_timed", engine(*timed), 150, alone=True, needs=REAL),
        Check("thoughts_timed", thinking(*timed), 240, alone=True, needs=REAL),
        Check("engine_invariant", engine(*timed, "--invariant"), 150, alone=True, needs=REAL),
        Check("engine_fp32_head", engine(*timed, "--fp32-head"), 150, alone=True, needs=REAL),
        Check(
            "engine_invariant_fp32_head",
            engine(*timed, "--invariant", "--fp32-head"),
            150,
            alone=True,
            needs=REAL,
        ),
        Check("rollouts", (*rollouts, *sizes), 240, alone=True),
        Check("engine_eager", engine(*timed, "--eager"), 120, alone=True, needs=REAL),
        Check("training_cost", training("cost", real), 400, alone=True, needs=REAL),
    ]


def main() -> int:
    """Run what is left, say what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kit", type=Path, required=True, help="folder of the models and data")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--limit", type=float, default=600, help="seconds in all; default: 600")
    parser.add_argument("--at-once", type=int, help="checks of correctness; default: 2, CPU 1")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--skip", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--again", action="store_true", help="also what ended before")
    args = parser.parse_args()
    checks = plan(args.device, args.kit)
    unknown = {*args.only, *args.skip} - {check.name for check in checks}
    if unknown:
        parser.error(
            f"no such check: {', '.join(sorted(unknown))}; there are "
            f"{', '.join(check.name for check in checks)}"
        )
    for name in (TINY, DATA):
        if not (args.kit / name).is_dir():
            parser.error(f"{args.kit / name} is not there; see --help")
    proof = Proof(args.output, args.device)
    chosen = []
    for check in checks:
        if (args.only and check.name not in args.only) or check.name in args.skip:
            continue
        if not (args.kit / check.needs).is_dir():
            proof.note(check, "left out", told=f"needs {args.kit / check.needs}")
        elif args.again or not proof.ended(check):
            chosen.append(check)
    at_once = args.at_once or (2 if args.device == "cuda" else 1)
    run_all(chosen, proof, at_once, time.monotonic() + args.limit)
    return proof.conclude(checks)


def run_all(checks: list[Check], proof: Proof, at_once: int, deadline: float) -> None:
    """Run checks in order; nothing is begun that the deadline would cut at once."""
    waiting, running = list(checks), list[Running]()
    while waiting or running:
        for job in list(running):
            spent = time.monotonic() - job.begun
            late = time.monotonic() > deadline
            if job.process.poll() is not None:
                status = "passed" if job.process.returncode == 0 else "failed"
            elif spent > job.check.limit_s or late:
                kill(job.process)
                status = "cut off" if late else "too slow"
            else:
                continue
            running.remove(job)
            proof.note(job.check, status, seconds=round(spent, 1))
        while waiting and len(running) < (1 if waiting[0].alone else at_once):
            if any(job.check.alone for job in running):
                break
            if time.monotonic() > deadline - _WORTH_BEGINNING_S:
                waiting.clear()
                break
            running.append(proof.begin(waiting.pop(0)))
        time.sleep(0.2)


def kill(process: subprocess.Popen) -> None:
    """SIGKILL a check and all that it started."""
    sys.path.insert(0, str(REPOSITORY))
    from tests.integration.harness import kill_tree

    kill_tree(process)


class Proof:
    """The folder of the results and its table.

    Args:
        folder: A folder that is made where it is not there.
        device: `cuda` or `cpu`.
    """

    def __init__(self, folder: Path, device: str) -> None:
        self._folder, self._file = folder, folder / "proof.json"
        folder.mkdir(parents=True, exist_ok=True)
        self._begun = time.monotonic()
        self._content: dict[str, Any] = {"checks": {}}
        if self._file.is_file():
            self._content = json.loads(self._file.read_text())
        self._content["machine"] = machine(device)
        for name, value in self._content["machine"].items():
            print(f"{name:<14} {value}")
        self._write()

    def begin(self, check: Check) -> Running:
        """Start a check; its output goes to a file of its own."""
        self._say(check, "begins")
        paths = [REPOSITORY, REPOSITORY / "scripts", REPOSITORY / "scripts" / "bench"]
        inherited = os.environ.get("PYTHONPATH")
        path = os.pathsep.join([*map(str, paths), *([inherited] if inherited else [])])
        output = (self._folder / f"{check.name}.json").resolve()
        output.unlink(missing_ok=True)
        with (self._folder / f"{check.name}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, *check.command, "--output", str(output)],
                cwd=REPOSITORY,
                env={**os.environ, "PYTHONPATH": path},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Running(check, process)

    def note(self, check: Check, status: str, **about: Any) -> None:
        """How a check ended; its own lines follow on the screen."""
        self._content["checks"][check.name] = {"status": status, **about}
        self._write()
        self._say(check, status, *(str(value) for value in about.values()))
        log = self._folder / f"{check.name}.log"
        if status == "left out" or not log.is_file():
            return
        lines = log.read_text(errors="replace").splitlines()
        told = [line for line in lines if line.startswith(("ok  ", "FAIL", "     ", "engine,"))]
        for line in told if status == "passed" else [*told, *lines[-15:]]:
            print(f"    {line[:400]}", flush=True)

    def ended(self, check: Check) -> bool:
        """Whether a check need not be run again."""
        status = self._content["checks"].get(check.name, {}).get("status")
        return status in ("passed", "failed", "too slow")

    def conclude(self, checks: list[Check]) -> int:
        """Print the table; the exit status."""
        found = self._content["checks"]
        statuses = {check.name: found.get(check.name, {}).get("status") for check in checks}
        print()
        for name, status in statuses.items():
            print(
                f"{name:<28} {status or 'not run yet':<12} {found.get(name, {}).get('seconds', '')}"
            )
        if any(status in ("failed", "too slow") for status in statuses.values()):
            return 1
        return (
            2 if any(status in (None, "cut off", "left out") for status in statuses.values()) else 0
        )

    def _say(self, check: Check, *what: str) -> None:
        print(
            f"[{time.monotonic() - self._begun:5.0f} s] {check.name}: {' '.join(what)}", flush=True
        )

    def _write(self) -> None:
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps(self._content, indent=1) + "\n")
        partial.rename(self._file)


def machine(device: str) -> dict[str, Any]:
    """Card, driver, versions."""
    found: dict[str, Any] = {"device": device, "python": platform.python_version()}
    if device == "cuda":
        query = [
            "nvidia-smi",
            "--query-gpu=name,driver_version,memory.total",
            "--format=csv,noheader",
        ]
        found["card"] = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    found["cores"] = os.cpu_count()
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


if __name__ == "__main__":
    sys.exit(main())
