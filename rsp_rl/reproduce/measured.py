"""The run's numbers, read back from the files of its analyses, by the paper's quantities."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rsp_rl.analysis import first_token
from rsp_rl.basics.files import read_json
from rsp_rl.evaluation.compare import open_run
from rsp_rl.evaluation.comparison import HEADLINE
from rsp_rl.reproduce import paper
from rsp_rl.reproduce.paper import Quantity
from rsp_rl.reproduce.plan import Analysis

_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Measured:
    """A number with its 95% interval, where it has one."""

    value: float
    low: float | None = None
    high: float | None = None


Numbers = dict[Quantity, Measured]


def read_numbers(analysis: Analysis, folder: Path) -> Numbers:
    """Those of an analysis' numbers that the paper has too, or could have.

    Args:
        analysis: The analysis.
        folder: Where its files are.
    """
    reader = _READERS.get(analysis.name)
    found = dict(reader(folder)) if reader else {}
    return found | dict(_base_models(analysis.runs))


def _rows(file: Path) -> Iterator[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(stream)


def _interval(row: dict[str, str], value: str, prefix: str = "") -> Measured:
    return Measured(float(row[value]), float(row[f"{prefix}low"]), float(row[f"{prefix}high"]))


def _positions(folder: Path) -> Iterator[tuple[Quantity, Measured]]:
    return _accuracies("positions", "position", folder)


def _methods(folder: Path) -> Iterator[tuple[Quantity, Measured]]:
    return _accuracies("trained_or_random", "method", folder)


def _accuracies(analysis: str, row_name: str, folder: Path) -> Iterator[tuple[Quantity, Measured]]:
    for row in _rows(folder / f"{analysis}.csv"):
        what = row[row_name], row["benchmark"]
        yield Quantity(analysis, paper.ACCURACY, *what), _interval(row, "accuracy")
        if row["difference"]:
            difference = _interval(row, "difference", "difference_")
            yield Quantity(analysis, paper.DIFFERENCE, *what), difference


def _lengths(folder: Path) -> Iterator[tuple[Quantity, Measured]]:
    for row in _rows(folder / "lengths.csv"):
        if row["chosen"] == "1":
            yield Quantity("lengths", "L", "chosen", row["benchmark"]), Measured(int(row["length"]))


def _distributions(folder: Path) -> Iterator[tuple[Quantity, Measured]]:
    parts = {"first_5_percent": "first 5%", "overall": "overall"}
    metrics = {"entropy": "entropy", "top1": "top-1 probability", "varentropy": "varentropy"}
    for benchmark, conditions in read_json(folder / "distributions.json").items():
        for condition, values in conditions.items():
            tokens = Quantity("distributions", "tokens", condition, benchmark)
            yield tokens, Measured(values["tokens"])
            for metric, name in metrics.items():
                for key, part in parts.items():
                    mean, sem = (values[f"{metric}_{key}"][which] for which in ("mean", "sem"))
                    quantity = Quantity("distributions", f"{name}, {part}", condition, benchmark)
                    half = _NORMAL_95 * sem if sem is not None else None
                    spread = () if half is None else (mean - half, mean + half)
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
    spreads = folder / "single_samples.csv"  # not there in analyses of before
    for row in _rows(spreads) if spreads.is_file() else ():
        quantity = Quantity("pass_at_n", paper.SPREAD, row["condition"], row["benchmark"])
        yield quantity, Measured(float(row["standard_deviation"]))


def _coverage(folder: Path) -> Iterator[tuple[Quantity, Measured]]:
    # The plan's first condition is the baseline, its second has soft prompts.
    names = {"both": "both", "only first": "only baseline", "only second": "only RSP"}
    names["neither"] = "neither"
    by_benchmark: dict[str, dict[str, str]] = {}
    for row in _rows(folder / "coverage.csv"):
        by_benchmark.setdefault(row["benchmark"], {})[row["problem"]] = names[row["outcome"]]
    for benchmark, outcomes in by_benchmark.items():
        for name in names.values():
            count = sum(outcome == name for outcome in outcomes.values())
            found = {"problems": count, "asked": len(outcomes)}
            found["share of problems"] = count / len(outcomes)
            if benchmark == "aime24":
                for problem, outcome in outcomes.items():
                    found[paper.aime24_problem(problem)] = int(outcome == name)
            for metric, value in found.items():
                yield Quantity("coverage", metric, name, benchmark), Measured(value)


def _comparison(folder: Path) -> Iterator[tuple[Quantity, Measured]]:
    curves = list(_rows(folder / "curves.csv"))
    means = {row["run"]: paper.mean_of(row["headline"].split()) for row in curves}
    for row in _rows(folder / "comparison.csv"):
        if row["choice"] == "peak":
            benchmark = means[row["run"]] if row["benchmark"] == HEADLINE else row["benchmark"]
            quantity = Quantity("comparison", "accuracy at the peak", row["run"], benchmark)
            yield quantity, _interval(row, "accuracy")
    for row in curves:
        metric = f"headline at step {row['step']}"
        quantity = Quantity("comparison", metric, row["run"], means[row["run"]])
        yield quantity, _interval(row, "accuracy")


def _base_models(runs: Iterable[str]) -> Iterator[tuple[Quantity, Measured]]:
    """Of step 0 of the first run that has one evaluated."""
    for summary in (summary for text in runs for summary in open_run(text).summaries):
        if 0 in summary.metrics:
            for name, m in summary.metrics[0].items():
                quantity = Quantity("comparison", paper.ACCURACY, paper.BASE, name)
                yield quantity, Measured(m["accuracy"], m["accuracy_low"], m["accuracy_high"])
            if 0 in summary.headline:
                mean, at_0 = paper.mean_of(summary.headline_benchmarks), summary.headline[0]
                quantity = Quantity("comparison", paper.ACCURACY, paper.BASE, mean)
                yield quantity, Measured(at_0.accuracy, at_0.low, at_0.high)
            return


def _laws(folder: Path) -> Iterator[tuple[Quantity, Measured]]:
    for row in _rows(folder / "laws.csv"):
        quantity = Quantity("laws", row["measure"], row["condition"], row["benchmark"])
        yield quantity, _interval(row, "value")


_READERS: dict[str, Callable[[Path], Iterator[tuple[Quantity, Measured]]]] = {
    "positions": _positions,
    "trained_or_random": _methods,
    "lengths": _lengths,
    "distributions": _distributions,
    "first_token": _first_token,
    "diversity": _diversity,
    "pass_at_n": _pass_at_n,
    "coverage": _coverage,
    "comparison": _comparison,
    "laws": _laws,
}
