"""Samples of training as a run writes them, made up."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rsp_rl.runs.folder import RunFolder

Row = dict[str, Any]


def uid(group: int, rollout: int = 0) -> str:
    """verl's, of a made-up group."""
    return f"00000000-0000-0000-0000-{group:012d}_{rollout}_0"


def sample(name: str, *, reward: float = 0.0, text: str = r"\boxed{3}", prompt: str = "1+1") -> Row:
    """A line of `N.jsonl`, as verl's dump has it."""
    return {"input": prompt, "output": text, "gts": "2", "score": reward, "step": 1, "uid": name}


def told(name: str, *, right: bool | None = False, tokens: int = 4, gap: float = 1e-6) -> Row:
    """A line of `N.rollouts.jsonl`."""
    info = {} if right is None else {"acc": float(right), "pred": "3", "extraction_step": "boxed"}
    return {
        **{"uid": name, "tokens": tokens, "gap_mean": gap / 2, "gap_max": gap},
        **{"reward_info": info, "before": None},
    }


def write_step(folder: RunFolder, step: int, **files: Iterable[Mapping[str, Any]]) -> Path:
    """Files of a step: `samples` of verl, and those beside them by their kind."""
    folder.train_samples.mkdir(parents=True, exist_ok=True)
    for kind, rows in files.items():
        name = f"{step}.jsonl" if kind == "samples" else f"{step}.{kind}.jsonl"
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder.train_samples / name).write_text(text)
    return folder.train_samples / f"{step}.jsonl"


def write_groups(folder: RunFolder, step: int, marks: Sequence[str]) -> Path:
    """A step whose groups are these: a rollout a character, `+` right, `-` wrong."""
    names = [(uid(g, r), mark) for g, group in enumerate(marks) for r, mark in enumerate(group)]
    return write_step(
        folder,
        step,
        samples=[sample(name, reward=float(mark == "+")) for name, mark in names],
        rollouts=[told(name, right=mark == "+") for name, mark in names],
    )
