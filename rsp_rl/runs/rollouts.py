"""A training step's rollouts, read back from the samples that the run wrote.

A step of a large run has gigabytes of text over all files: a first pass keeps numbers and where
each line begins, and texts are read of those rollouts alone that are asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rsp_rl.basics.errors import RunFolderError

_STEP = re.compile(r"(\d+)\.jsonl")

#: What is taken of a row of the files beside verl's, and what it may be.
_BESIDE = {
    "rollouts": {
        "tokens": int,
        "gap_mean": int | float | None,
        "gap_max": int | float | None,
        "reward_info": dict,
        "before": int | None,
    },
    "soft_prompts": {"start": int, "length": int},
}

#: Groups that verl fills a batch up with, which are no rollouts (its `padding_utils`).
_PADDING = re.compile(r"pad[0-9a-f]{32}")


@dataclass
class Rollout:
    """One rollout in numbers.

    Attributes:
        uid: verl's: group, rollout and output.
        line: Where its line begins in the step's file, in bytes.
        reward: Its sequence reward.
        characters: Of its output.
        tokens: That the policy sampled; None where it is not on record, as all below.
        gap_mean: Mean |log p_rollout - log p_actor|, in nats.
        gap_max: The largest.
        reward_info: What the reward said of it.
        before: Characters of its prompt before the soft prompt.
        start: Place of the soft prompt among the prompt's tokens.
        length: L, 0 without a soft prompt.
        added: Whether it is no soft prompt but noise, on so many tokens of the question.
    """

    uid: str
    line: int
    reward: float
    characters: int
    tokens: int | None = None
    gap_mean: float | None = None
    gap_max: float | None = None
    reward_info: Mapping[str, Any] = field(default_factory=dict)
    before: int | None = None
    start: int | None = None
    length: int | None = None
    added: bool = False

    @property
    def group(self) -> str:
        """What it has in common with the other rollouts of its prompt."""
        return self._parts[0]

    @property
    def number(self) -> int:
        """Which of its group it is, from 0."""
        return int(self._parts[1])

    @property
    def output(self) -> int:
        """Which of its outputs this is, from 0; most agent loops make one."""
        return int(self._parts[2])

    @property
    def _parts(self) -> list[str]:
        parts = self.uid.rsplit("_", 2)
        whole = len(parts) == 3 and parts[1].isdecimal() and parts[2].isdecimal()
        return parts if whole else [self.uid, "0", "0"]

    def right(self, best: float | None) -> bool | None:
        """Whether its answer is right: by the reward's own word, else by its reward.

        Args:
            best: The run's largest reward; None if that tells nothing.

        Returns:
            None if neither says.
        """
        if self.told is not None:
            return self.told
        return None if best is None else self.reward >= best

    @property
    def told(self) -> bool | None:
        """What the reward itself said of the answer, None if nothing."""
        told = self.reward_info.get("acc")
        return bool(told) if isinstance(told, int | float) and told in (0, 1) else None


@dataclass(frozen=True)
class StepRollouts:
    """A step's rollouts.

    Attributes:
        step: Its number.
        file: verl's samples.
        rollouts: In the file's order.
        padding: Lines that verl filled the batch up with.
        cut_short: Whether the last line is not whole: the run was killed while it wrote.
    """

    step: int
    file: Path
    rollouts: list[Rollout]
    padding: int
    cut_short: bool

    @property
    def groups(self) -> dict[str, list[Rollout]]:
        """By their prompt, in the file's order."""
        found: dict[str, list[Rollout]] = {}
        for rollout in self.rollouts:
            found.setdefault(rollout.group, []).append(rollout)
        return found

    def texts(self, rollouts: Iterable[Rollout]) -> dict[str, dict[str, Any]]:
        """verl's lines of rollouts (`input`, `output`, `gts`), by uid."""
        return _read_lines(self.file, {rollout.uid: rollout.line for rollout in rollouts})

    def thoughts(self, rollouts: Iterable[Rollout]) -> dict[str, dict[str, Any]]:
        """Rows of rollouts' thoughts (`rsp_rl.training.verl_plugin.thought_dump`), by uid.

        Raises:
            RunFolderError: If a line of the file is damaged.
        """
        lines = self._thought_lines
        wanted = {rollout.uid: lines[rollout.uid] for rollout in rollouts if rollout.uid in lines}
        return _read_lines(_beside(self.file, "thoughts"), wanted)

    @cached_property
    def _thought_lines(self) -> dict[str, int]:
        rows = _rows(_beside(self.file, "thoughts"), ("uid", "thoughts"))
        return {row["uid"]: line for line, row in rows}


def step_files(folder: Path) -> dict[int, Path]:
    """verl's samples of training, by step, in order.

    Args:
        folder: `RunFolder.train_samples`.
    """
    found = {}
    for file in folder.glob("*.jsonl"):
        if match := _STEP.fullmatch(file.name):
            found[int(match[1])] = file
    return dict(sorted(found.items()))


def read_step(step: int, file: Path) -> StepRollouts:
    """A step's rollouts in numbers, with what lies beside verl's samples of them.

    Runs of before had no `N.rollouts.jsonl`, and runs without soft prompts no
    `N.soft_prompts.jsonl`: what these would say is None.

    Raises:
        RunFolderError: If a line is damaged, or two are of one rollout.
    """
    rollouts: dict[str, Rollout] = {}
    padding = 0
    read = _Lines(file)
    for number, line, row in read.rows(("uid", "input", "output", "score")):
        if not isinstance(row["output"], str) or not isinstance(row["score"], int | float):
            raise RunFolderError(
                f"{file}, line {number} has an output that is no text, or a score that is no "
                "number; remove the line"
            )
        made = Rollout(str(row["uid"]), line, row["score"], len(row["output"]))
        if _PADDING.fullmatch(made.group):
            padding += 1
        elif made.uid in rollouts:
            raise RunFolderError(
                f"{file}, line {number} is of rollout {made.uid!r}, which another line is of, too; "
                "remove one of them"
            )
        else:
            rollouts[made.uid] = made
    for kind, names in _BESIDE.items():
        beside = _beside(file, kind)
        for number, (_, row) in enumerate(_rows(beside, ("uid", *names)), start=1):
            if known := rollouts.get(str(row["uid"])):
                for name, kinds in names.items():
                    if not isinstance(row[name], kinds):
                        raise RunFolderError(
                            f"{beside}, line {number} has a {name!r} that cannot be "
                            f"({row[name]!r:.60}); remove the line"
                        )
                    setattr(known, name, row[name])
                known.added |= bool(row.get("added_to"))  # runs of before have none
    return StepRollouts(step, file, list(rollouts.values()), padding, read.cut_short)


def _beside(file: Path, kind: str) -> Path:
    return file.with_name(f"{file.stem}.{kind}.jsonl")


def _rows(file: Path, names: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
    """First byte and content of each row of a file that may not be there."""
    if file.is_file():
        yield from ((line, row) for _, line, row in _Lines(file).rows(names))


def _read_lines(file: Path, lines: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """What stands at these places of a file, which was read before."""
    found: dict[str, dict[str, Any]] = {}
    if lines:
        with file.open("rb") as stream:
            for name, line in sorted(lines.items(), key=lambda item: item[1]):
                stream.seek(line)
                found[name] = _parsed(stream.readline())
    return found


class _Lines:
    """Lines of a JSON lines file, and whether the last one was whole."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.cut_short = False

    def rows(self, names: tuple[str, ...]) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Number from 1, first byte and content of each line.

        Args:
            names: What a line must have.

        Raises:
            RunFolderError: If a line is damaged, but for a last one that a crash cut short.
        """
        begin = 0
        with self._file.open("rb") as stream:
            # Bytes: a cut may go through a character, and texts may hold Unicode's line breaks.
            for number, line in enumerate(stream, start=1):
                try:
                    row = _parsed(line)
                    if lacking := [name for name in names if name not in row]:
                        raise ValueError(f"it has no {lacking[0]!r}")
                except ValueError as error:
                    if not line.endswith(b"\n"):
                        self.cut_short = True
                        return
                    raise RunFolderError(
                        f"{self._file}, line {number} is no sample ({error}); remove the line"
                    ) from error
                yield number, begin, row
                begin += len(line)


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8", "surrogatepass"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(row, dict):
        raise ValueError("no JSON object")
    return row
