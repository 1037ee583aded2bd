"""Made-up finished evaluations of one condition each, from right (`+`) and wrong (`-`) marks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsp_rl.basics.files import write_json
from rsp_rl.evaluation.folder import EvaluationFolder
from rsp_rl.evaluation.protocol import Protocol
from tests.unit.evaluation.made_runs import sample, write_lines, write_samples


def make_condition(
    root: Path,
    marks: Mapping[str, list[str]],
    *,
    rsp: Mapping[str, Any] | None = None,
    temperature: float = 1.0,
    model: str = "models/tiny",
    question: str = "{}?",
    **fields: object,
) -> str:
    """Write an evaluation with one step.

    Args:
        root: Its folder.
        marks: By benchmark, a string a problem with a mark a sample.
        rsp: The protocol's soft prompts; none by default.
        temperature: Of the sampling.
        model: Path of the model; its weights' hash is made of it.
        question: Text of a problem by its number.
        **fields: Of every sample.

    Returns:
        The folder, as a command line has it.
    """
    folder = EvaluationFolder(root)
    step = folder.step(0)
    step.root.mkdir(parents=True)
    protocol = Protocol.from_dict(
        {
            "name": "made_up",
            "template": "qwen-boxed",
            "max_tokens": 100,
            "rsp": rsp,
            "benchmarks": {
                name: {"samples": len(rows[0]), "temperature": temperature}
                for name, rows in marks.items()
            },
            "headline": list(marks),
        }
    )
    manifest = {
        "protocol": protocol.to_dict(),
        "fingerprint": protocol.fingerprint(),
        "model": model,
        "weights": f"weights of {model}",
    }
    write_json(step.manifest, manifest)
    for name, rows in marks.items():
        problems = [
            {"id": str(i), "question": question.format(i), "gold": "4"} for i in range(len(rows))
        ]
        write_lines(folder.problems(name), problems)
        samples = [
            sample(str(i), number, mark == "+", **fields)
            for i, row in enumerate(rows)
            for number, mark in enumerate(row)
        ]
        write_samples(folder, 0, name, samples)
    return str(root)
