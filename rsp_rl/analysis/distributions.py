"""`rsp-rl analyze distributions`: how sure the model is of each token (Figures 3 and 6, Table 9).

Entropy, probability of the likeliest token and varentropy of every distribution that a generated
token was chosen from: the model's own at temperature 1 over the whole vocabulary, whatever
truncation the sampling had. In nats.

Positions are normalised: of an answer of N tokens, token t (from 0) is in bin floor(t * bins / N).
An answer shorter than the bins leaves some of them empty, and does not count there. Every number
is the mean over problems of the mean over their samples, +- 1 standard error over problems.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure

from rsp_rl.analysis.averages import mean_and_sem, plain
from rsp_rl.analysis.conditions import Condition, check_names, open_conditions, position_name
from rsp_rl.analysis.distribution_changes import Changes, Means, changes, early_and_late
from rsp_rl.analysis.distribution_changes import to_csv as to_csv_of_changes
from rsp_rl.analysis.options import (
    ModelOptions,
    add_analysis,
    add_folders,
    add_model_options,
    model_options,
)
from rsp_rl.analysis.outputs import write_analysis
from rsp_rl.basics.arguments import count
from rsp_rl.basics.errors import RunFolderError
from rsp_rl.basics.files import write_json, write_whole
from rsp_rl.console.screen import bar
from rsp_rl.display import figures
from rsp_rl.display.tables import csv_text, markdown_head, markdown_row

if TYPE_CHECKING:
    from rsp_rl.analysis.teacher_forcing import ForcedModel

METRICS = ("entropy", "top1", "varentropy")
_TITLES = ("entropy (nats)", "top-1 probability", "varentropy (nats²)")

BINS = 50
"""Positions of an answer, by default."""

_FIRST = 0.05
"""The share of an answer that the scalars call its beginning (paper, Table 9)."""

_BLOCK = 256
"""Distributions in one piece: with 152,000 tokens, 156 MB in float32."""


@dataclass(frozen=True)
class Profile:
    """One condition on one benchmark.

    Attributes:
        curves: Mean and standard error by metric and bin, [2, M, B]; NaN where no answer has a
            token.
        first: Mean and standard error by metric over the first 5% of each answer, [2, M].
        overall: The same over the whole answers.
        tokens: Mean generated tokens.
        answers: How many.
        inexact: Of these, how many were encoded to another number of tokens than was generated.
        by_problem: Means early and late in the answers to each problem.
    """

    curves: np.ndarray
    first: np.ndarray
    overall: np.ndarray
    tokens: float
    answers: int
    inexact: int
    by_problem: Means


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register `analyze distributions`."""
    parser = add_analysis(
        commands,
        "distributions",
        run,
        help="entropy, top-1, varentropy along the answer (Figures 3 and 6, Table 9)",
        description=__doc__,
    )
    add_folders(parser)
    parser.add_argument("--bins", type=count, default=BINS, help="positions shown (%(default)s)")
    add_model_options(parser, Path("analysis/distributions"))


def run(args: argparse.Namespace) -> int:
    """Write `distributions.csv`, `.json`, `.md`, `.png`, `changes.csv`; print the table."""
    analyse(args.folders, args.output, bins=args.bins, options=model_options(args))
    return 0


def analyse(
    folders: Sequence[str], output: Path, *, bins: int = BINS, options: ModelOptions | None = None
) -> None:
    """Write the files of `run`.

    Args:
        folders: `[NAME=]DIR` each.
        output: Where to.
        bins: Positions shown.
        options: Model and answers.

    Raises:
        ConfigError: If the model cannot be used.
        RunFolderError: If the folders cannot be compared or hold other answers than the model's.
    """
    options = options or ModelOptions()
    conditions = open_conditions(folders, position_name)
    check_names(conditions)
    sampling = ("samples", "temperature", "top_p", "top_k")
    benchmarks = options.chosen(conditions, may_differ=sampling)
    profiles: dict[str, dict[str, Profile]] = {name: {} for name in benchmarks}
    for condition in conditions:
        model = options.load(condition)
        for benchmark in benchmarks:
            profiles[benchmark][condition.name] = profile(
                model, condition, benchmark, bins, options.problems, options.samples
            )
        del model
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "distributions.json", to_json(profiles))
    write_whole(output / "changes.csv", to_csv_of_changes(_changes(profiles, conditions), METRICS))
    write_analysis(
        output,
        "distributions",
        markdown=to_markdown(profiles),
        csv=to_csv(profiles),
        figure=draw(profiles),
    )


def _changes(
    profiles: Mapping[str, Mapping[str, Profile]], conditions: Sequence[Condition]
) -> dict[str, dict[str, Changes]]:
    """Of each condition with soft prompts against the first without, where there is one."""
    plain = [c.name for c in conditions if not c.protocol.rsp.enabled]
    drawn = [c.name for c in conditions if c.protocol.rsp.enabled]
    return {
        benchmark: {
            name: changes(by_condition[name].by_problem, by_condition[plain[0]].by_problem)
            for name in drawn
        }
        for benchmark, by_condition in profiles.items()
        if plain
    }


def token_metrics(logits_NV: torch.Tensor) -> np.ndarray:
    """Entropy, top-1 probability and varentropy of each distribution.

    Entropy H = -sum p ln p; varentropy, the variance of the surprisal, sum p (ln p + H)^2.

    Args:
        logits_NV: [N, V], any float dtype; computed in float32.

    Returns:
        float64 [3, N], in `METRICS`' order.
    """
    return np.concatenate([_block_metrics(block) for block in logits_NV.split(_BLOCK)], axis=1)


def _block_metrics(logits_NV: torch.Tensor) -> np.ndarray:
    log_p = torch.log_softmax(logits_NV.float(), dim=-1)
    p = log_p.exp()
    # An impossible token (logit -inf) has p = 0 and takes no part: 0 ln 0 = 0.
    surprisal = -log_p.masked_fill(p == 0, 0)
    entropy = (p * surprisal).sum(-1)
    varentropy = (p * (surprisal - entropy[:, None]).square()).sum(-1)
    return torch.stack([entropy, p.amax(-1), varentropy]).double().cpu().numpy()


def profile(
    model: ForcedModel,
    condition: Condition,
    benchmark: str,
    bins: int,
    problems: int | None = None,
    samples: int | None = None,
) -> Profile:
    """Run the model over a condition's answers to a benchmark.

    Args:
        model: The condition's.
        condition: Whose answers.
        benchmark: Which.
        bins: B.
        problems: Only the first so many.
        samples: Only the first so many of each.

    Raises:
        RunFolderError: If no answer has any text.
    """
    answers: dict[str, list[np.ndarray]] = {}
    inexact = 0
    trajectories = model.trajectories(benchmark, problems=problems, samples=samples)
    for trajectory in bar(trajectories, f"{condition.name}, {benchmark}", unit="answer"):
        inexact += not trajectory.is_exact
        if trajectory.generated:
            metrics = token_metrics(model.generated_logits(trajectory))
            answers.setdefault(trajectory.problem.id, []).append(metrics)
    if not answers:
        raise RunFolderError(f"{condition.root} holds no answer with text to {benchmark}")
    return summarise(answers, bins, inexact)


def summarise(
    of_problems: Mapping[str, Sequence[np.ndarray]], bins: int, inexact: int = 0
) -> Profile:
    """Curves and scalars of answers.

    Args:
        of_problems: By problem, metrics [M, N] of each sample's tokens, N at least 1.
        bins: B.
        inexact: See `Profile`.
    """
    answers = list(of_problems.values())
    first = [[a[:, : first_tokens(a.shape[1])].mean(1) for a in samples] for samples in answers]
    lengths = [[np.array(a.shape[1]) for a in samples] for samples in answers]
    return Profile(
        curves=mean_and_sem([[bin_means(a, bins) for a in samples] for samples in answers]),
        first=mean_and_sem(first),
        overall=mean_and_sem([[a.mean(1) for a in samples] for samples in answers]),
        tokens=float(mean_and_sem(lengths)[0]),
        answers=sum(map(len, answers)),
        inexact=inexact,
        by_problem={
            name: early_and_late(samples, [first_tokens(a.shape[1]) for a in samples])
            for name, samples in of_problems.items()
        },
    )


def first_tokens(n: int) -> int:
    """How many tokens the first 5% of N are, one at least."""
    return math.ceil(_FIRST * n)


def bin_means(metrics_MN: np.ndarray, bins: int) -> np.ndarray:
    """Means by bin of normalised position, [M, B]; NaN where N < B leaves a bin empty."""
    n = metrics_MN.shape[1]
    of_token = np.arange(n) * bins // n
    counts = np.bincount(of_token, minlength=bins)
    sums = np.stack([np.bincount(of_token, row, bins) for row in metrics_MN])
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


def to_json(profiles: dict[str, dict[str, Profile]]) -> dict:
    """The scalars of Table 9 by benchmark and condition."""
    return {
        benchmark: {
            name: {
                "tokens": p.tokens,
                "answers": p.answers,
                "encoded_to_another_length": p.inexact,
                **{
                    f"{metric}_{part}": {"mean": plain(values[0, i]), "sem": plain(values[1, i])}
                    for part, values in (("first_5_percent", p.first), ("overall", p.overall))
                    for i, metric in enumerate(METRICS)
                },
            }
            for name, p in by_condition.items()
        }
        for benchmark, by_condition in profiles.items()
    }


def to_csv(profiles: dict[str, dict[str, Profile]]) -> str:
    """The curves: one row a benchmark, condition, metric and bin; position is the bin's middle."""
    return csv_text(
        "benchmark,condition,metric,position,mean,sem",
        [
            [benchmark, name, metric, (b + 0.5) / p.curves.shape[2], *p.curves[:, i, b]]
            for benchmark, by_condition in profiles.items()
            for name, p in by_condition.items()
            for i, metric in enumerate(METRICS)
            for b in range(p.curves.shape[2])
        ],
    )


def to_markdown(profiles: dict[str, dict[str, Profile]]) -> str:
    """The paper's Table 9 for these folders."""
    head = ["condition", *(f"{m}, first 5%" for m in METRICS), *(f"{m}, overall" for m in METRICS)]
    lines = ["# Distributions along the answer (mean ± 1 standard error over problems)"]
    for benchmark, by_condition in profiles.items():
        lines += ["", f"## {benchmark}", "", *markdown_head([*head, "tokens"])]
        for name, p in by_condition.items():
            values = np.concatenate([p.first, p.overall], axis=1).T
            cells = [f"{mean:.4f} ± {sem:.4f}" for mean, sem in values]
            lines.append(markdown_row([name, *cells, f"{p.tokens:.1f}"]))
        inexact = sum(p.inexact for p in by_condition.values())
        answers = sum(p.answers for p in by_condition.values())
        lines += ["", f"{inexact} of {answers} answers were encoded to another number of tokens."]
    return "\n".join(lines) + "\n"


def draw(profiles: dict[str, dict[str, Profile]]) -> Figure:
    """A row a benchmark, a panel a metric, a curve with its standard error a condition."""
    rows = len(profiles)
    figure, axes = figures.panels(rows, len(METRICS), (4.2 * len(METRICS), 3.3 * rows + 0.5))
    for row, (benchmark, by_condition) in enumerate(profiles.items()):
        for i, title in enumerate(_TITLES):
            axis = axes[row * len(METRICS) + i]
            for number, (name, p) in enumerate(by_condition.items()):
                colour = figures.colour(number)
                mean, sem = p.curves[:, i]
                there = ~np.isnan(mean)
                positions = (100 * (np.arange(mean.size) + 0.5) / mean.size)[there]
                mean, sem = mean[there], np.nan_to_num(sem[there])
                axis.plot(positions, mean, color=colour, label=name)
                axis.fill_between(
                    positions, mean - sem, mean + sem, color=colour, alpha=0.2, linewidth=0
                )
            axis.set_title(f"{benchmark}: {title}", fontsize=10)
            axis.set_xlim(0, 100)
            axis.set_xlabel("position in the answer (%)")
    figures.legend_below(figure, axes[0], 4)
    return figure
