"""A proof's results as one file, and as the tables of docs/gpu.md.

    python scripts/gpu/report.py PROOF docs/gpu/h100.json    # gather what prove.py left in PROOF
    python scripts/gpu/report.py docs/gpu/h100.json          # print its section of docs/gpu.md

Gathering again adds to the file: a check that ran later takes the place of an earlier one. A `note`
added to a check by hand is kept until then.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def gather(proof: Path, file: Path) -> dict[str, Any]:
    """One content of all checks of a proof folder and of what `file` has.

    Args:
        proof: Folder of `prove.py`.
        file: Where the content goes; read first where it is there.

    Returns:
        `machine`, and by check `status`, `seconds` and what its own file says.
    """
    table = json.loads((proof / "proof.json").read_text())
    content = json.loads(file.read_text()) if file.is_file() else {"checks": {}}
    content["machine"] = table["machine"]
    for name, ended in table["checks"].items():
        if ended["status"] == "left out":
            continue
        own = proof / f"{name}.json"
        found = json.loads(own.read_text()) if own.is_file() else {}
        found["settings"] = {
            # Where a machine has its files says nothing to others.
            key: Path(value).name if str(value).startswith("/") else value
            for key, value in found.get("settings", {}).items()
        }
        content["checks"][name] = ended | found
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1) + "\n")
    return content


def section(content: dict[str, Any]) -> str:
    """The Markdown of one card."""
    machine = content["machine"]
    card, driver, memory = (part.strip() for part in machine["card"].split(","))
    versions = ", ".join(
        f"{name} {machine[name]}"
        for name in ("torch", "vllm", "verl", "ray", "transformers", "flash-attn")
    )
    lines = [
        f"## {card}, {memory}, driver {driver}",
        "",
        f"{machine['cores']} cores, Python {machine['python']}, {versions}.",
        "",
        "| check | | figures |",
        "|---|---|---|",
    ]
    for name, check in content["checks"].items():
        ended = check["status"]
        if "seconds" in check:
            ended += f", {check['seconds']:.0f} s"
        lines.append(f"| **{name}** | {ended} | {check.get('note', '')} |")
        for what, found in check.get("checks", {}).items():
            passed = "ok" if found["passed"] else "**FAILED**"
            rest = {key: value for key, value in found.items() if key != "passed"}
            lines.append(f"| {_short(what)} | {passed} | {_told(rest)} |")
        for figure in check.get("figures", []):
            rest = {key: value for key, value in figure.items() if key != "what"}
            lines.append(f"| {_short(figure['what'])} | | {_told(rest)} |")
        for cell in check.get("engine", []):
            lines.append(_throughput(cell))
    return "\n".join(lines) + "\n"


def _throughput(cell: dict[str, Any]) -> str:
    """A row of `rollout_prompts.py`'s engine."""
    over = ", ".join(f"{way} {ratio:.3f}" for way, ratio in cell["throughput_over_plain"].items())
    plain = cell["output_tokens_per_second"]["plain engine"]
    what = f"d {cell['hidden_size']}, T {cell['length']}, {cell['sequences']} sequences"
    return (
        f"| {what} | | output tokens/s over a plain engine's {plain:,.0f}: {over} "
        f"(noise {cell['noise']:.3f}) |"
    )


def _told(figures: dict[str, Any]) -> str:
    """Figures in a cell of a table."""
    return ", ".join(f"{name.replace('_', ' ')} {_short(v)}" for name, v in figures.items())


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "\\|").replace("\n", " ")[:400]


def main() -> int:
    """Gather or print."""
    match sys.argv[1:]:
        case [proof, file]:
            gather(Path(proof), Path(file))
        case [file]:
            print(section(json.loads(Path(file).read_text())), end="")
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
