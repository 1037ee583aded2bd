"""`rsp-rl analyze training`: training runs of several seeds, paired seed by seed.

Each RUN is NAME=DIR,DIR,...: one way of training, a folder a seed, in the same order of seeds for
all. What is compared with the first RUN:

- held out: accuracy of the training's own validation at the last step that all have validated;
- pass@1 and pass@k of the last checkpoint that all have evaluated (`rsp-rl eval`), k answers a
  problem, where there is one;
- entropy: of the policy on its own rollouts, by halves of the steps. Rollouts with a soft prompt
  have one in their context: part of a difference is the soft prompt's own;
- reward: of the rollouts, by halves of the steps.

verl averages entropies as a run averages its loss: sums over responses (`seq-mean-token-sum`) are
divided by the responses' mean length, and the entropy of runs that average in other ways, as the
reward of runs that reward differently, is left out and said.

A run's value is the mean over its seeds; intervals are Student's t over seeds, 95%, and of
differences over the seeds' differences, so that what a seed's data order does to both runs alike
takes no part. With three seeds they are wide, and say what three seeds can say.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from rsp_rl.analysis.options import add_analysis
from rsp_rl.analysis.outputs import write_analysis
from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.basics.files import write_whole
from rsp_rl.display import figures
from rsp_rl.display.tables import csv_text, markdown_head, markdown_row
from rsp_rl.evaluation.compare import run_folders
from rsp_rl.evaluation.comparison import Cell, Estimate
from rsp_rl.evaluation.folder import EvaluationFolder, is_of_modes
from rsp_rl.evaluation.metrics import pass_at_k
from rsp_rl.evaluation.reading import read_groups
from rsp_rl.evaluation.summary import read_summary
from rsp_rl.runs.folder import RunFolder
from rsp_rl.runs.metrics import RESPONSE_LENGTH, REWARD, held_out_accuracy

HELD_OUT = "held out"
FIRST_HALF, SECOND_HALF = ", first half", ", second half"
_ENTROPY, _REWARD = "entropy", "reward"
_PLAIN = {"right_reward": 1, "format_reward": 0}
_BY_TOKEN, _BY_RESPONSE = "token-mean", "seq-mean-token-sum"
_LOGGED = {_ENTROPY: "actor/entropy", _REWARD: REWARD}

Curves = dict[str, dict[str, dict[int, np.ndarray]]]
"""By measure, run and step, a value a seed."""


@dataclass(frozen=True)
class Arm:
    """One way of training.

    Attributes:
        name: As shown.
        roots: A run's folder a seed.
        logged: Metrics by step, a mapping a seed.
        units: What a measure is of, a mapping a seed; equal ones can be compared.
    """

    name: str
    roots: tuple[Path, ...]
    logged: tuple[dict[int, dict[str, float]], ...]
    units: tuple[dict[str, str], ...]


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register `analyze training`."""
    parser = add_analysis(
        commands,
        "training",
        run,
        help="training runs of several seeds: held out, pass@k, entropy, paired by seed",
        description=__doc__,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="NAME=DIR,DIR,...")
    parser.add_argument("--output", type=Path, default=Path("analysis/training"))


def run(args: argparse.Namespace) -> int:
    """Write `training.csv`, `.md` and `.png`, and `curves.csv`; print the table."""
    analyse(args.runs, args.output)
    return 0


def analyse(runs: Sequence[str], output: Path) -> None:
    """Write the files of `run`.

    Args:
        runs: `NAME=DIR,DIR,...` each.
        output: Where to.

    Raises:
        ConfigError: If two runs have the same name, or not equally many seeds.
        RunFolderError: If a run's metrics are damaged, or hold nothing that all have.
    """
    arms = [_open(text) for text in runs]
    if len({arm.name for arm in arms}) < len(arms):
        raise ConfigError("two runs have the same name; name them: NAME=DIR,DIR")
    if len(seeds := {len(arm.roots) for arm in arms}) > 1:
        counts = " and ".join(map(str, sorted(seeds)))
        raise ConfigError(
            f"runs are paired seed by seed, but have {counts} folders; give equally many of each, "
            "in the same order"
        )
    curves = curves_of(arms)
    left_out = _left_out(arms)
    curves |= {measure: {} for measure in left_out}
    measured = {
        **{name: _last(curves[name]) for name in (HELD_OUT,) if curves[name]},
        **passes(arms),
        **{
            name + half: _half(curves[name], second)
            for name in _LOGGED
            if curves[name]
            for half, second in ((FIRST_HALF, False), (SECOND_HALF, True))
        },
    }
    if not measured:
        raise RunFolderError(
            "the runs have no step in common, logged or evaluated; are these their folders?"
        )
    table = {measure: compare_by_seed(values, arms[0].name) for measure, values in measured.items()}
    steps = {name: max(steps) for name in (HELD_OUT,) for steps in curves[name].values()}
    page = to_markdown(table, arms, steps.get(HELD_OUT))
    page += "".join(f"\n{sentence}\n" for sentence in left_out.values())
    output.mkdir(parents=True, exist_ok=True)
    write_whole(output / "curves.csv", curves_csv(curves))
    write_analysis(
        output,
        "training",
        markdown=page,
        csv=to_csv(table, arms),
        figure=draw(curves, table, [arm.name for arm in arms]),
    )


def _left_out(arms: Sequence[Arm]) -> dict[str, str]:
    """Measures that are not the same thing in all runs, and a sentence of each."""
    sentences = {}
    for measure in _LOGGED:
        found = {arm.name: dict.fromkeys(units[measure] for units in arm.units) for arm in arms}
        if len({unit for units in found.values() for unit in units}) > 1:
            shown = "; ".join(f"{name}: {' / '.join(units)}" for name, units in found.items())
            sentences[measure] = f"The {measure} is left out, for it is not alike ({shown})."
    return sentences


def _open(text: str) -> Arm:
    name, roots = run_folders(text)
    logged, units = zip(*map(_read, roots), strict=True)
    return Arm(name, roots, logged, units)


def _read(root: Path) -> tuple[dict[int, dict[str, float]], dict[str, str]]:
    """A run's metrics, and what they are of."""
    logged = RunFolder(root).read_metrics()
    file = root / "config" / "config.yaml"
    config = OmegaConf.load(file) if file.is_file() else OmegaConf.create()
    average = OmegaConf.select(config, "actor_rollout_ref.actor.loss_agg_mode") or _BY_TOKEN
    if average == _BY_RESPONSE:
        average = _BY_TOKEN
        for data in logged.values():
            if (entropy := data.pop(_LOGGED[_ENTROPY], None)) and data.get(RESPONSE_LENGTH):
                data[_LOGGED[_ENTROPY]] = entropy / data[RESPONSE_LENGTH]
    given = OmegaConf.select(config, "reward.custom_reward_function.reward_kwargs") or {}
    given = {key: value for key, value in sorted(given.items()) if value != _PLAIN.get(key)}
    reward = ", ".join(f"{key}={value}" for key, value in given.items()) or "1 and 0"
    return logged, {_ENTROPY: average, _REWARD: reward}


def curves_of(arms: Sequence[Arm]) -> Curves:
    """What was logged at the steps that all seeds of all runs have."""

    def at(data: Mapping[str, float], measure: str) -> float | None:
        if measure == HELD_OUT:
            return held_out_accuracy(data)
        return data.get(_LOGGED[measure])

    curves: Curves = {}
    for measure in (HELD_OUT, *_LOGGED):
        everywhere = [
            {step for step, data in steps.items() if at(data, measure) is not None}
            for arm in arms
            for steps in arm.logged
        ]
        shared = sorted(set.intersection(*everywhere))
        curves[measure] = {
            arm.name: {
                step: np.array([at(steps[step], measure) for steps in arm.logged])
                for step in shared
            }
            for arm in arms
            if shared
        }
    return curves


def _last(by_run: Mapping[str, Mapping[int, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: steps[max(steps)] for name, steps in by_run.items()}


def _half(by_run: Mapping[str, Mapping[int, np.ndarray]], second: bool) -> dict[str, np.ndarray]:
    means = {}
    for name, steps in by_run.items():
        values = list(steps.values())
        middle = len(values) // 2
        means[name] = np.mean(values[middle:] if second else values[: middle or 1], axis=0)
    return means


def passes(arms: Sequence[Arm]) -> dict[str, dict[str, np.ndarray]]:
    """pass@1 and pass@k by run, a value a seed, of the last step that all have evaluated.

    Empty where a run has no evaluation, or the evaluations have different samples a problem.
    """
    folders = [[_evaluation(root) for root in arm.roots] for arm in arms]
    if any(folder is None for row in folders for folder in row):
        return {}
    summaries = {folder.root: read_summary(folder) for row in folders for folder in row}
    steps = set.intersection(*(set(summary.headline) for summary in summaries.values()))
    if not steps:
        return {}
    (benchmark, *_) = next(iter(summaries.values())).headline_benchmarks
    by_arm: dict[str, list[tuple[int, np.ndarray]]] = {}
    for arm, row in zip(arms, folders, strict=True):
        for folder in row:
            groups = list(read_groups(folder, folder.step(max(steps)), benchmark).values())
            right = np.array([sum(sample["correct"] for sample in group) for group in groups])
            by_arm.setdefault(arm.name, []).append((len(groups[0]), right))
    (k, *others) = {n for row in by_arm.values() for n, _ in row}
    if others:
        return {}
    return {
        f"pass@{number}": {
            name: np.array([pass_at_k(n, right, number) for n, right in row])
            for name, row in by_arm.items()
        }
        for number in dict.fromkeys((1, k))
    }


def _evaluation(root: Path) -> EvaluationFolder | None:
    found = sorted(
        folder
        for folder in (root / "evaluation").glob("*")
        if folder.is_dir() and not is_of_modes(folder)  # which `analyze modes` is for
    )
    return EvaluationFolder(found[0]) if len(found) == 1 else None


def compare_by_seed(values_S: Mapping[str, np.ndarray], first: str) -> dict[str, Cell]:
    """Means over seeds with Student's t intervals, and paired differences to the first run."""
    return {
        name: Cell(
            t_interval(values), None if name == first else t_interval(values - values_S[first])
        )
        for name, values in values_S.items()
    }


def t_interval(values_S: np.ndarray) -> Estimate:
    """Mean and 95% interval of Student's t; without bounds (NaN) for a single value."""
    mean, n = float(values_S.mean()), len(values_S)
    if n < 2:
        return Estimate(mean, math.nan, math.nan)
    half = _t_975(n - 1) * float(values_S.std(ddof=1)) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half)


def _t_975(freedom: int) -> float:
    """Student's quantile: exact for one and two degrees of freedom, then Hill's series (1970).

    The series is off by 1e-2 at three degrees and by 1e-4 at six.
    """
    if freedom == 1:
        return math.tan(math.pi * 0.475)
    if freedom == 2:
        return math.sqrt(2 * 0.95**2 / (1 - 0.95**2))
    z = NormalDist().inv_cdf(0.975)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))


def to_markdown(
    table: Mapping[str, Mapping[str, Cell]], arms: Sequence[Arm], step: int | None
) -> str:
    """A row a measure: each run's value, and its difference to the first's."""
    first, *others = [arm.name for arm in arms]
    seeds = len(arms[0].roots)
    lines = ["# Training, paired by seed", ""]
    lines += markdown_head(["measure", first, *others, *(f"{name} − {first}" for name in others)])
    for measure, row in table.items():
        values = [_shown(row[name].accuracy) for name in (first, *others)]
        differences = [_shown(row[name].difference, "+") for name in others]
        lines.append(markdown_row([measure, *values, *differences]))
    lines += ["", f"{seeds} seed{'s' if seeds > 1 else ''} each; held out at step {step}; 95% "]
    lines[-1] += "intervals are Student's t over seeds, of differences over paired seeds."
    return "\n".join(lines) + "\n"


def _shown(estimate: Estimate | None, sign: str = "") -> str:
    if estimate is None:
        return "–"
    value, low, high = (f"{x:{sign}.3f}" for x in astuple(estimate))
    return value if math.isnan(estimate.low) else f"{value} [{low}, {high}]"


def to_csv(table: Mapping[str, Mapping[str, Cell]], arms: Sequence[Arm]) -> str:
    """One row a measure and run; fractions, entropies in nats."""
    seeds = {arm.name: len(arm.roots) for arm in arms}
    return csv_text(
        "measure,run,seeds,value,low,high,difference,difference_low,difference_high",
        [
            [
                *(measure, name, seeds[name]),
                *astuple(cell.accuracy),
                *(astuple(cell.difference) if cell.difference else ("", "", "")),
            ]
            for measure, row in table.items()
            for name, cell in row.items()
        ],
    )


def curves_csv(curves: Curves) -> str:
    """One row a measure, run, step and seed (from 1, in the order given)."""
    return csv_text(
        "measure,run,step,seed,value",
        [
            [measure, name, step, number, value]
            for measure, by_run in curves.items()
            for name, steps in by_run.items()
            for step, values in steps.items()
            for number, value in enumerate(values, 1)
        ],
    )


def draw(curves: Curves, table: Mapping[str, Mapping[str, Cell]], names: Sequence[str]) -> Figure:
    """A panel a curve, a line a run with its seeds' range; then pass@1 and pass@k at the end."""
    shown = [measure for measure, by_run in curves.items() if by_run]
    ends = [measure for measure in table if measure.startswith("pass@")]
    panels = len(shown) + bool(ends)
    figure, axes = figures.panels(1, panels, (3.9 * panels + 0.6, 3.9))
    for axis, measure in zip(axes, shown, strict=False):
        for number, name in enumerate(names):
            steps = curves[measure][name]
            values = np.array(list(steps.values()))
            colour = figures.colour(number)
            axis.plot(
                list(steps),
                values.mean(axis=1),
                color=colour,
                marker=figures.marker(number) if measure == HELD_OUT else "",
                markersize=4,
                label=name,
            )
            axis.fill_between(
                list(steps),
                values.min(axis=1),
                values.max(axis=1),
                color=colour,
                alpha=0.15,
                linewidth=0,
            )
        axis.set_title(f"{measure}: mean and range of seeds", fontsize=9)
        axis.set_xlabel("step")
    if ends:
        axis = axes[len(shown)]
        for number, name in enumerate(names):
            for place, measure in enumerate(ends):
                cell = table[measure][name].accuracy
                at = place + (number - (len(names) - 1) / 2) * 0.2
                colour = figures.colour(number)
                if not math.isnan(cell.low):
                    axis.plot([at, at], [cell.low, cell.high], color=colour, linewidth=1.5)
                axis.plot([at], [cell.value], color=colour, marker=figures.marker(number))
        axis.set_xticks(range(len(ends)), ends)
        axis.set_xlim(-0.5, len(ends) - 0.5)
        axis.set_title("held out, sampled: last step, t interval", fontsize=9)
    figures.legend_below(figure, axes[0], len(names))
    return figure
