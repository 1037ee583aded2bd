"""`rsp-rl analyze distributions`: how sure the model is of each token (Figures 3 and 6, Table 9).

Entropy, probability of the likeliest token and varentropy of every distribution that a generated
token was chosen from: the model's own at temperature 1 over the whole vocabulary, whatever
truncation the sampling had. In nats.

Positions are normalised: of an answer of N tokens, token t (from 0) is in bin floor(t * bins / N).
An answer shorter than the bins leaves some of them empty, and does not count there. Every number
is the mean over problems of the mean over their samples, +- 1 standard error over problems. With
--tokens-per-bin W bins are W tokens wide, from the answer's first; later ones are of longer answers
alone.

Beside it `differences` compares the conditions position by position, with 95% bootstrap intervals
over problems: the first folder is the reference. Conditions may be several models, such as a run's
step_0 and its last step: each reads its own answers. Of answers with a law of ordinary tokens
(token) what is read ends where the first token was forced; other laws' texts are not what the
model read.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure

from rsp_rl.analysis import profile_differences
from rsp_rl.analysis.averages import finite_means, mean_and_sem, plain
from rsp_rl.analysis.conditions import Condition, check_names, open_conditions, position_name
from rsp_rl.analysis.distribution_changes import (
    EARLY,
    LATE,
    Changes,
    Means,
    changes,
    early_and_late,
    shown,
)
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
from rsp_rl.console.screen import bar, say
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
        curves_of: Curves of each problem alone.
        width: Tokens a bin; None where bins are shares of the answer.
        unread: Answers whose forced tokens could not be told from the model's own.
        empty: Answers without a token that the model chose.
    """

    curves: np.ndarray
    first: np.ndarray
    overall: np.ndarray
    tokens: float
    answers: int
    inexact: int
    by_problem: Means
    curves_of: Mapping[str, np.ndarray]
    width: int | None = None
    unread: int = 0
    empty: int = 0

    @property
    def positions(self) -> np.ndarray:
        """Middles of the bins: in percent of the answer, or in tokens."""
        middles = np.arange(self.curves.shape[2]) + 0.5
        return 100 * middles / len(middles) if self.width is None else self.width * middles


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
    bins = parser.add_mutually_exclusive_group()
    bins.add_argument("--bins", type=count, default=BINS, help="positions shown (%(default)s)")
    bins.add_argument(
        "--tokens-per-bin", type=count, metavar="W", help="by tokens instead of by share"
    )
    add_model_options(parser, Path("analysis/distributions"))


def run(args: argparse.Namespace) -> int:
    """Write `distributions.csv`, `.json`, `.md`, `.png`, `changes.csv`; print the table.

    Of several folders `differences.csv` and `.png` too.
    """
    analyse(
        *(args.folders, args.output),
        bins=args.bins,
        width=args.tokens_per_bin,
        options=model_options(args),
    )
    return 0


def analyse(
    folders: Sequence[str],
    output: Path,
    *,
    bins: int = BINS,
    width: int | None = None,
    options: ModelOptions | None = None,
) -> None:
    """Write the files of `run`.

    Args:
        folders: `[NAME=]DIR` each.
        output: Where to.
        bins: Positions shown.
        width: Tokens a bin, where positions are to be tokens.
        options: Model and answers.

    Raises:
        ConfigError: If the model cannot be used.
        RunFolderError: If the folders cannot be compared or hold other answers than the model's.
    """
    options = options or ModelOptions()
    conditions = _told_apart(open_conditions(folders, position_name))
    check_names(conditions)
    may_differ = ("model", "samples", "temperature", "top_p", "top_k")
    benchmarks = options.chosen(conditions, may_differ=may_differ)
    profiles: dict[str, dict[str, Profile]] = {name: {} for name in benchmarks}
    for condition in conditions:
        model = options.load(condition)
        for benchmark in benchmarks:
            profiles[benchmark][condition.name] = profile(
                *(model, condition, benchmark, bins, options.problems, options.samples),
                width=width,
            )
        del model
    if width is not None:
        profiles = {name: _without_empty_bins(of) for name, of in profiles.items()}
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "distributions.json", to_json(profiles))
    found = _changes(profiles, conditions)
    write_whole(output / "changes.csv", to_csv_of_changes(found, METRICS))
    if len(conditions) > 1:
        _write_differences(output, profiles)
    write_analysis(
        output,
        "distributions",
        markdown=to_markdown(profiles, found),
        csv=to_csv(profiles),
        figure=draw(profiles),
    )


def _changes(
    profiles: Mapping[str, Mapping[str, Profile]], conditions: Sequence[Condition]
) -> dict[str, dict[str, Changes]]:
    """What a condition changes: soft prompts against the first without, training against the first.

    The reference is of the same model, where soft prompts are what differs.
    """
    made: dict[str, dict[str, Changes]] = {}
    for benchmark, by_condition in profiles.items():
        made[benchmark] = {}
        for condition in conditions:
            other = _reference(condition, conditions)
            if other is not None:
                own, reference = by_condition[condition.name], by_condition[other.name]
                _say_shared(benchmark, condition.name, own.by_problem, reference.by_problem)
                made[benchmark][condition.name] = changes(own.by_problem, reference.by_problem)
    return made


def _say_shared(benchmark: str, name: str, own: Means, reference: Means) -> None:
    shared, every = len(own.keys() & reference.keys()), len(own.keys() | reference.keys())
    if shared < every:
        say(
            f"warning: {benchmark}, {name}: changes are of the {shared:,} of {every:,} problems "
            "that it and its reference answered with text"
        )


def _reference(condition: Condition, conditions: Sequence[Condition]) -> Condition | None:
    """What a condition is held against."""
    if condition.protocol.rsp.enabled:
        weights = condition.manifest["weights"]
        plain = [c for c in conditions if not c.protocol.rsp.enabled]
        of_model = [c for c in plain if c.manifest["weights"] == weights]
        return next(iter(of_model), None)
    first = conditions[0]
    return first if first.manifest["weights"] != condition.manifest["weights"] else None


def _told_apart(conditions: Sequence[Condition]) -> list[Condition]:
    """Steps of one run have one name by their protocol; their folders tell them apart."""
    names = Counter(condition.name for condition in conditions)
    return [
        replace(c, name=f"{c.name}, {c.root.name}") if names[c.name] > 1 else c for c in conditions
    ]


def _without_empty_bins(profiles: Mapping[str, Profile]) -> dict[str, Profile]:
    """Up to the last that any condition has a token in."""
    some = np.any([~np.isnan(p.curves[0, 0]) for p in profiles.values()], axis=0)
    last = int(np.flatnonzero(some)[-1]) + 1
    return {
        name: replace(
            p,
            curves=p.curves[:, :, :last],
            curves_of={problem: of[:, :last] for problem, of in p.curves_of.items()},
        )
        for name, p in profiles.items()
    }


def _write_differences(output: Path, profiles: Mapping[str, Mapping[str, Profile]]) -> None:
    found = {
        benchmark: profile_differences.compare_curves({n: p.curves_of for n, p in of.items()})
        for benchmark, of in profiles.items()
    }
    first = {benchmark: next(iter(of.values())) for benchmark, of in profiles.items()}
    positions = {benchmark: p.positions for benchmark, p in first.items()}
    where = _where(next(iter(first.values())))
    figure = profile_differences.draw(found, positions, where)
    figures.save(figure, output / "differences.png")
    csv = profile_differences.to_csv(found, METRICS, positions)
    write_whole(output / "differences.csv", csv)


def _where(profile: Profile) -> str:
    """What the positions are."""
    return "position in the answer (%)" if profile.width is None else "token of the answer"


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
    *,
    width: int | None = None,
) -> Profile:
    """Run the model over a condition's answers to a benchmark.

    Args:
        model: The condition's.
        condition: Whose answers.
        benchmark: Which.
        bins: B.
        problems: Only the first so many.
        samples: Only the first so many of each.
        width: See `analyse`.

    Raises:
        RunFolderError: If no answer has any text.
    """
    if width is not None:
        bins = -(-condition.protocol.max_tokens_of(benchmark) // width)
    answers: dict[str, list[np.ndarray]] = {}
    inexact = unread = empty = 0
    trajectories = model.trajectories(benchmark, problems=problems, samples=samples)
    for trajectory in bar(trajectories, f"{condition.name}, {benchmark}", unit="answer"):
        if trajectory.is_unread:
            unread += 1
            continue
        if not trajectory.generated:
            empty += 1
            continue
        inexact += not trajectory.is_exact
        metrics = token_metrics(model.generated_logits(trajectory))
        answers.setdefault(trajectory.problem.id, []).append(metrics)
    if not answers:
        raise RunFolderError(f"{condition.root} holds no answer with text to {benchmark}")
    return replace(summarise(answers, bins, inexact, width), unread=unread, empty=empty)


def summarise(
    of_problems: Mapping[str, Sequence[np.ndarray]],
    bins: int,
    inexact: int = 0,
    width: int | None = None,
) -> Profile:
    """Curves and scalars of answers.

    Args:
        of_problems: By problem, metrics [M, N] of each sample's tokens, N at least 1.
        bins: B.
        inexact: See `Profile`.
        width: See `Profile`.
    """
    answers = list(of_problems.values())
    first = [[a[:, : first_tokens(a.shape[1])].mean(1) for a in samples] for samples in answers]
    lengths = [[np.array(a.shape[1]) for a in samples] for samples in answers]
    curves = [[bin_means(a, bins, width) for a in samples] for samples in answers]
    return Profile(
        curves=mean_and_sem(curves),
        first=mean_and_sem(first),
        overall=mean_and_sem([[a.mean(1) for a in samples] for samples in answers]),
        tokens=float(mean_and_sem(lengths)[0]),
        answers=sum(map(len, answers)),
        inexact=inexact,
        by_problem={
            name: early_and_late(samples, [first_tokens(a.shape[1]) for a in samples])
            for name, samples in of_problems.items()
        },
        curves_of={
            name: finite_means(np.stack(of)) for name, of in zip(of_problems, curves, strict=True)
        },
        width=width,
    )


def first_tokens(n: int) -> int:
    """How many tokens the first 5% of N are, one at least."""
    return math.ceil(_FIRST * n)


def bin_means(metrics_MN: np.ndarray, bins: int, width: int | None = None) -> np.ndarray:
    """Means by bin of normalised position, [M, B]; NaN where N < B leaves a bin empty.

    Args:
        metrics_MN: Of an answer's tokens.
        bins: B.
        width: Tokens a bin, where bins are no shares; what is beyond the last is in it.
    """
    n = metrics_MN.shape[1]
    of_token = np.arange(n) * bins // n if width is None else np.arange(n) // width
    of_token = np.minimum(of_token, bins - 1)
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
                "left_out": {"forced_tokens_unknown": p.unread, "no_text": p.empty},
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
    """The curves: one row a benchmark, condition, metric and bin.

    Position is the bin's middle, a share of the answer or a number of tokens.
    """
    return csv_text(
        "benchmark,condition,metric,position,mean,sem",
        [
            [benchmark, name, metric, _position(p, b), *p.curves[:, i, b]]
            for benchmark, by_condition in profiles.items()
            for name, p in by_condition.items()
            for i, metric in enumerate(METRICS)
            for b in range(p.curves.shape[2])
        ],
    )


def _position(profile: Profile, number: int) -> float:
    middle = float(profile.positions[number])
    return middle / 100 if profile.width is None else middle


def to_markdown(
    profiles: Mapping[str, Mapping[str, Profile]],
    found: Mapping[str, Mapping[str, Changes]] | None = None,
) -> str:
    """The paper's Table 9 for these folders, and below it what conditions change.

    Args:
        profiles: By benchmark and condition.
        found: Changes of some conditions.
    """
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
        if unread := sum(p.unread for p in by_condition.values()):
            lines[-1] += (
                f" {unread} more are left out: their forced tokens could not be told from the "
                "model's own."
            )
        if empty := sum(p.empty for p in by_condition.values()):
            lines[-1] += f" {empty} more have no text of the model's own, and are left out."
        if changed := (found or {}).get(benchmark):
            parts = (EARLY, LATE)
            names = [f"{metric}, {part}" for metric in METRICS for part in parts]
            lines += ["", "Changes, with 95% intervals over problems:", ""]
            lines += markdown_head(["condition", *names])
            for name, of in changed.items():
                cells = [
                    shown(e) for i in range(len(METRICS)) for e in (of[part][i] for part in parts)
                ]
                lines.append(markdown_row([name, *cells]))
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
                positions = p.positions[there]
                mean, sem = mean[there], np.nan_to_num(sem[there])
                axis.plot(positions, mean, color=colour, label=name)
                axis.fill_between(
                    positions, mean - sem, mean + sem, color=colour, alpha=0.2, linewidth=0
                )
            axis.set_title(f"{benchmark}: {title}", fontsize=10)
            if p.width is None:
                axis.set_xlim(0, 100)
            axis.set_xlabel(_where(p))
    figures.legend_below(figure, axes[0], 4)
    return figure
