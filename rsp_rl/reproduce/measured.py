"""The run's numbers, read back from the files of its analyses, by the paper's quantities."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rsp_rl.analysis import first_token
from rsp_rl.basics.files import read_json
from rsp_rl.reproduce import paper
from rsp_rl.reproduce.paper import Quantity

_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Measured:
    """A number with its 95% interval, where it has one."""

    value: float
    low: float | None = None
    high: float | None = None


Numbers = dict[Quantity, Measured]


def read_numbers(analysis: str, folder: Path, prompt_kind: str) -> Numbers:
    """Those of an analysis' numbers that the paper has too, or could have.

    Args:
        analysis: Its name.
        folder: Where its files are.
        prompt_kind: `paper.RAW` or `paper.CHAT`.
    """
    reader = _READERS.get(analysis)
    found = dict(reader(folder)) if reader else {}
    if analysis == "lengths":  # Table 7 tells a model's prompts apart
        found = {
            Quantity(q.analysis, q.metric, prompt_kind, q.benchmark): m for q, m in found.items()
        }
    return found


def _rows(file: Path) -> Iterator[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(stream)


def _interval(row: dict[str, str], value: str) -> Measured:
    return Measured(float(row[value]), float(row["low"]), float(row["high"]))


def _positions(folder: Path) -> Iterator[tuple[Quantity, Measured]]:
    for row in _rows(folder / "positions.csv"):
        quantity = Quantity("positions", "accuracy", row["position"], row["benchmark"])
        yield quantity, _interval(row, "accuracy")


def _lengths(folder: Path) -> Iterator[tuple[Quantity, Measured]]:
    for row in _rows(folder / "lengths.csv"):
        if row["chosen"] == "1":
            yield Quantity("lengths", "L", "", row["benchmark"]), Measured(int(row["length"]))


def _distributions(folder: Path) -> Iterator[tuple[Quantity, Measured]]:
    parts = {"first_5_percent": "first 5%", "overall": "overall"}
    for benchmark, conditions in read_json(folder / "distributions.json").items():
        for condition, values in conditions.items():
            for key, part in parts.items():
                mean, sem = values[f"entropy_{key}"]["mean"], values[f"entropy_{key}"]["sem"]
                quantity = Quantity("distributions", f"entropy, {part}", condition, benchmark)
                spread = () if sem is None else (mean - _NORMAL_95 * sem, mean + _NORMAL_95 * sem)
                yield quantity, Measured(mean, *spread)


def _first_token(folder: Path) -> Iterator[tuple[Quantity, Measured]]:
    names = dict(zip(first_token.METRICS, paper.FIRST_TOKEN_METRICS, strict=True))
    for row in _rows(folder / "first_token.csv"):
        quantity = Quantity("first_token", names[row["metric"]], row["row"], row["benchmark"])
        yield quantity, _interval(row, "value")


def _diversity(folder: Path) -> Iterator[tuple[Quantity, Measured]]:
    for row in _rows(folder / "diversity.csv"):
        quantity = Quantity("diversity", row["measure"], row["condition"], row["benchmark"])
        yield quantity, _interval(row, "mean")


def _pass_at_n(folder: Path) -> Iterator[tuple[Quantity, Measured]]:
    for row in _rows(folder / "pass_at_n.csv"):
        quantity = Quantity("pass_at_n", f"pass@{row['n']}", row["condition"], row["benchmark"])
        yield quantity, _interval(row, "pass")


def _comparison(folder: Path) -> Iterator[tuple[Quantity, Measured]]:
    for row in _rows(folder / "comparison.csv"):
        if row["choice"] == "peak":
            quantity = Quantity("comparison", "accuracy at the peak", row["run"], row["benchmark"])
            yield quantity, _interval(row, "accuracy")
    for row in _rows(folder / "curves.csv"):
        mean = paper.mean_of(row["headline"].split())
        quantity = Quantity("comparison", f"headline at step {row['step']}", row["run"], mean)
        yield quantity, _interval(row, "accuracy")


_READERS: dict[str, Callable[[Path], Iterator[tuple[Quantity, Measured]]]] = {
    "positions": _positions,
    "lengths": _lengths,
    "distributions": _distributions,
    "first_token": _first_token,
    "diversity": _diversity,
    "pass_at_n": _pass_at_n,
    "comparison": _comparison,
}
