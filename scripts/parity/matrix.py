"""Measures the cells of the matrix that are not measured yet; everything lies in one folder."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Set
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil

from parity import stand_ins
from parity.actor import Sample
from parity.layouts import CHUNK, ActorLayout, RolloutLayout
from parity.measure import Gap, Measurement, forgotten_gap, measure, reference_gradient
from parity.models import Policy
from parity.report import Cell
from parity.rollouts import Rollouts, run_layout

ENGINE_TIMEOUT_S = 240


class OutOfTimeError(Exception):
    """The time limit has come; what is left waits for the next run."""


class Matrix:
    """Rollout and actor layouts on both policies, measured or read from the folder.

    Args:
        folder: Where everything is kept.
        policies: By whether they have LoRA adapters.
        rollout_layouts: vLLM's.
        deadline: Nothing new is begun after it, as `time.monotonic` counts.
    """

    def __init__(
        self,
        folder: Path,
        policies: dict[bool, Policy],
        rollout_layouts: list[RolloutLayout],
        deadline: float,
    ) -> None:
        self._folder, self._policies, self._deadline = folder, policies, deadline
        self._rollout_layouts = rollout_layouts
        for part in ("rollouts", "actors"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        self._sets: dict[bool, dict[str, list[Sample]]] = {}
        self._references: dict[bool, dict] = {}

    def sample(self, layout: RolloutLayout, lora: bool) -> Rollouts | str:
        """One vLLM layout's rollouts, or why it cannot run.

        Raises:
            OutOfTimeError: At the deadline, if it is not there yet.
        """
        file = self._rollout_file(layout, lora)
        if not file.is_file() and not file.with_suffix(".refused").is_file():
            self._check_time()
            self._sample_missing(layout)
        refusal = file.with_suffix(".refused")
        return refusal.read_text() if refusal.is_file() else Rollouts.load(file)

    def measure(self, layout: ActorLayout) -> Measurement | str:
        """One actor layout on all rollouts of its policy, or why it cannot run.

        Raises:
            OutOfTimeError: At the deadline, if it is not there yet.
        """
        if not self._rollout_sets(layout.lora):
            return "no rollouts to score"
        content = self._stored(layout)
        lacks = self._rollout_sets(layout.lora).keys() - content.get("gaps", {}).keys()
        if lacks and "refused" not in content:
            self._check_time()
            self._measure_missing(layout)
            content = self._stored(layout)
        if "refused" in content:
            return content["refused"]
        gaps = {name: Gap(**gap) for name, gap in content.pop("gaps").items()}
        return Measurement(gaps, **content)

    def cells(self, layout: ActorLayout) -> Iterator[Cell]:
        """One actor layout's cells.

        Raises:
            OutOfTimeError: At the deadline.
        """
        measurement = self.measure(layout)
        for rollout in self._rollout_layouts:
            cell, sampled = Cell(rollout, layout), self.sample(rollout, layout.lora)
            if isinstance(sampled, str):
                yield replace(cell, refused=f"vLLM: {sampled}")
            elif isinstance(measurement, str):
                yield replace(cell, refused=f"verl: {measurement}")
            else:
                yield replace(
                    cell,
                    with_rsp=measurement.gaps[f"{rollout.name} with"],
                    without=measurement.gaps[f"{rollout.name} without"],
                    gradient_error=measurement.gradient_error,
                    stand_ins=tuple(measurement.stand_ins),
                )

    def stand_ins_needed(self) -> dict[str, str]:
        """What verl says on this machine without each stand-in."""
        file = self._folder / "stand_ins.json"
        if not file.is_file():
            self._check_time()
            plain = ActorLayout("fsdp2", True, 1, 1, False, False, False)
            reasons = {}
            for name, layout in (
                (stand_ins.FSDP1, replace(plain, strategy="fsdp")),
                (stand_ins.FLASH, replace(plain, ranks=2, ulysses=2)),
            ):
                try:
                    self._measure([layout], as_it_is=True)
                    reasons[name] = "runs without"
                except RuntimeError as error:
                    reasons[name] = last_error(str(error))
            file.write_text(json.dumps(reasons))
        return json.loads(file.read_text())

    def evidence(self) -> dict[str, float | int | str]:
        """What shows that the factors were at work, and that a forgotten soft prompt would show."""
        evidence: dict[str, float | int | str] = {}
        for lora, policy in self._policies.items():
            with_rsp = next(iter(self._rollout_sets(lora).values()), [])
            gap = forgotten_gap(policy, with_rsp) if with_rsp else None
            if gap:
                name = f"mean gap if the actor forgot RSP, {'LoRA' if lora else 'no LoRA'}"
                evidence[name] = round(gap.mean, 3)
        for layout in self._rollout_layouts:
            if isinstance(sampled := self.sample(layout, lora=False), Rollouts):
                evidence[f"prompt tokens from the cache, {layout.name}"] = sampled.cached_tokens
                evidence["shortest prompt"] = f"{sampled.shortest_prompt}, prefilled by {CHUNK}"
        return evidence

    def _rollout_file(self, layout: RolloutLayout, lora: bool) -> Path:
        return self._folder / "rollouts" / f"{layout.name}-lora{lora:d}.json"

    def _sample_missing(self, layout: RolloutLayout) -> None:
        """Sample what a layout lacks, for all policies in one process: vLLM is slow to import."""
        missing = {self._rollout_file(layout, lora): p for lora, p in self._policies.items()}
        missing = {file: policy for file, policy in missing.items() if not file.is_file()}
        log = self._folder / "rollouts" / f"{layout.name}.log"
        reason = run_apart(_sample_all, layout, missing, log=log)
        for file in missing:
            if not file.is_file():
                reason = reason or last_error(log.read_text(errors="replace"))
                file.with_suffix(".refused").write_text(reason)

    def _actor_file(self, layout: ActorLayout) -> Path:
        return self._folder / "actors" / f"{layout.name}.json"

    def _stored(self, layout: ActorLayout) -> dict:
        """What is known of a layout: `refused`, or a measurement of all rollouts or some."""
        file = self._actor_file(layout)
        return json.loads(file.read_text()) if file.is_file() else {"gaps": {}}

    def _measure_missing(self, layout: ActorLayout) -> None:
        """Measure what a layout lacks, and the one that shares its engine."""
        layouts = [replace(layout, dynamic=dynamic) for dynamic in (False, True)]
        known = [self._stored(layout).get("gaps", {}) for layout in layouts]
        try:
            contents = [
                asdict(m) for m in self._measure(layouts, known[0].keys() & known[1].keys())
            ]
        except RuntimeError as error:
            contents = [{"refused": last_error(str(error))}] * len(layouts)
        for layout, gaps, content in zip(layouts, known, contents, strict=True):
            if "gaps" in content:
                content["gaps"] = {**gaps, **content["gaps"]}
            partial = self._actor_file(layout).with_suffix(".partial")
            partial.write_text(json.dumps(content))
            partial.rename(self._actor_file(layout))

    def _measure(
        self, layouts: list[ActorLayout], known: Set[str] = frozenset(), as_it_is: bool = False
    ) -> list[Measurement]:
        """Measure layouts that share an engine, on the rollouts that are not known yet."""
        lora = layouts[0].lora
        policy, sets = self._policies[lora], self._rollout_sets(lora)
        trained = next(iter(sets.values()))
        if lora not in self._references:
            self._references[lora] = reference_gradient(policy, trained)
        missing = {name: samples for name, samples in sets.items() if name not in known}
        return measure(layouts, policy, missing, trained, self._references[lora], as_it_is=as_it_is)

    def _rollout_sets(self, lora: bool) -> dict[str, list[Sample]]:
        """A policy's rollouts by layout and kind; the first set has soft prompts."""
        if lora not in self._sets:
            sets = self._sets[lora] = {}
            for layout in self._rollout_layouts:
                if isinstance(sampled := self.sample(layout, lora), Rollouts):
                    sets[f"{layout.name} with"] = sampled.with_rsp
                    sets[f"{layout.name} without"] = sampled.without
        return self._sets[lora]

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise OutOfTimeError


def _sample_all(layout: RolloutLayout, policies: dict[Path, Policy]) -> None:
    for file, policy in policies.items():
        run_layout(layout, policy).save(file)


def run_apart(function: Callable[..., None], *args: Any, log: Path) -> str | None:
    """Call a function in a process of its own, which an engine needs; why it was ended, if it was.

    Args:
        function: Picklable by name, as are its arguments.
        *args: Passed on.
        log: Gets all that is printed.
    """
    process = get_context("spawn").Process(target=_run_with_log, args=(function, args, log))
    process.start()
    process.join(ENGINE_TIMEOUT_S)
    if not process.is_alive():
        return None
    for child in psutil.Process(process.pid).children(recursive=True):
        child.kill()
    process.kill()
    return f"no end within {ENGINE_TIMEOUT_S} s"


def _run_with_log(function: Callable[..., None], args: tuple[Any, ...], log: Path) -> None:
    with log.open("w") as stream:
        for descriptor in (1, 2):  # vLLM's own processes inherit them
            os.dup2(stream.fileno(), descriptor)
    function(*args)


def last_error(text: str) -> str:
    """The line of a log that names the exception; not vLLM's, which points at the one before.

    One without a message gets the innermost function of verl or vLLM that it came through.
    """
    errors = re.findall(r"\b((?:\w+\.)*\w*(?:Error|Exception)(?:: .+)?)$", text, re.MULTILINE)
    errors = [error for error in errors if "See root cause above" not in error]
    if not errors:
        return " ".join(text.split())[-300:] or "no message"
    if ": " in errors[-1]:
        return errors[-1].strip()
    places = re.findall(r'/((?:verl|vllm)/[^"]+)", line \d+, in (\w+)', text)
    return f"{errors[-1]} in {places[-1][1]} of {places[-1][0]}" if places else errors[-1]
