"""`rsp-rl analyze first-token`: what a soft prompt does to the first token (paper, Table 3).

Of each distribution the top 100 ids and logits are kept. Two are compared over the ids that either
has, an absent one with the logit -1e9 (section 4.3), probabilities being the softmax over these:

- Spearman's rho of their ranks, ties (the absent ones) at their mean rank;
- the mass that is not on the baseline's ten likeliest tokens;
- the Jensen-Shannon divergence in base 2: 0 for equal ones, 1 for such as share no token.

Higher temperatures reuse the baseline's logits: they spread the mass without a change of ranks.
Every number is the mean over problems of the mean over their draws, with a 95% bootstrap interval
over problems. Sampled answers take no part; a folder's draws do, one a sample.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from rsp_rl.analysis.conditions import check_names, open_conditions, position_name
from rsp_rl.analysis.options import (
    ModelOptions,
    add_analysis,
    add_folders,
    add_model_options,
    model_options,
)
from rsp_rl.analysis.outputs import write_analysis
from rsp_rl.basics.errors import ConfigError
from rsp_rl.console.screen import bar
from rsp_rl.display import figures
from rsp_rl.display.tables import csv_text, markdown_head, markdown_row
from rsp_rl.evaluation.comparison import Estimate
from rsp_rl.evaluation.metrics import bootstrap_means, interval

if TYPE_CHECKING:
    import torch

    from rsp_rl.analysis.teacher_forcing import ForcedModel

METRICS = ("spearman", "mass_outside_top10", "js_divergence")
_TITLES = ("Spearman's rho", "mass outside the top 10", "Jensen-Shannon (base 2)")

TEMPERATURES = (2.0, 3.0)
_TOP = 100
_HEAD = 10
_ABSENT = -1e9

Table = dict[str, dict[str, dict[str, Estimate]]]
"""Estimates by benchmark, row and metric."""


@dataclass(frozen=True)
class TopLogits:
    """The likeliest tokens of a distribution.

    Attributes:
        ids: Their ids, likeliest first, int64 [K], K = 100 or the whole vocabulary if smaller.
        logits: Their logits, float64 [K].
    """

    ids: np.ndarray
    logits: np.ndarray

    @classmethod
    def of(cls, logits_V: torch.Tensor) -> TopLogits:
        """From the logits of the whole vocabulary."""
        logits, ids = logits_V.float().topk(min(_TOP, logits_V.numel()))
        return cls(ids.cpu().numpy(), logits.double().cpu().numpy())

    def at(self, temperature: float) -> TopLogits:
        """The same logits at another temperature."""
        return TopLogits(self.ids, self.logits / temperature)


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register `analyze first-token`."""
    parser = add_analysis(
        commands,
        "first-token",
        run,
        help="what soft prompts and temperatures do to the first token (Table 3)",
        description=__doc__,
    )
    add_folders(parser)
    add_model_options(parser, Path("analysis/first_token"))


def run(args: argparse.Namespace) -> int:
    """Write `first_token.csv`, `.md` and `.png`; print the table."""
    analyse(args.folders, args.output, options=model_options(args))
    return 0


def analyse(folders: Sequence[str], output: Path, *, options: ModelOptions | None = None) -> None:
    """Write the files of `run`.

    Args:
        folders: `[NAME=]DIR` each, all with soft prompts.
        output: Where to.
        options: Model and prompts.

    Raises:
        ConfigError: If the model cannot be used, or a folder has no soft prompts.
        RunFolderError: If the folders cannot be compared or were asked otherwise than now.
    """
    options = options or ModelOptions()
    conditions = open_conditions(folders, position_name)
    check_names(conditions)
    for condition in conditions:
        if not condition.protocol.rsp.enabled:
            raise ConfigError(
                f"{condition.root} has no soft prompts; the baseline is made from the folder that "
                "has, name that one alone"
            )
    answers = ("samples", "temperature", "top_p", "top_k", "max_tokens", "stop")
    benchmarks = options.chosen(conditions, may_differ=answers)
    table: Table = {benchmark: {} for benchmark in benchmarks}
    for condition in conditions:
        model = options.load(condition)
        for benchmark in benchmarks:
            rows = measure(model, benchmark, condition.name, options.problems, options.samples)
            table[benchmark] |= estimates(rows)
        del model
    write_analysis(
        output,
        "first_token",
        markdown=to_markdown(table),
        csv=to_csv(table),
        figure=draw(table),
    )


def measure(
    model: ForcedModel,
    benchmark: str,
    name: str,
    problems: int | None = None,
    samples: int | None = None,
) -> dict[str, np.ndarray]:
    """Run the model over every prompt of an evaluation, without its soft prompt and with each draw.

    Args:
        model: The evaluation's.
        benchmark: One of the evaluation's.
        name: Of the row of soft prompts.
        problems: Only the first so many.
        samples: Only the first so many draws of each.

    Returns:
        Metrics of each problem, [M, P], by row: `τ = ...` for each temperature, then `name`.
    """
    plain = list(model.questions(benchmark, soft_prompts=False))[:problems]
    draws: dict[str, list[TopLogits]] = {question.problem.id: [] for question in plain}
    baselines = {
        question.problem.id: TopLogits.of(model.forward(question.request, [], 1)[0])
        for question in bar(plain, f"baseline, {benchmark}", unit="prompt")
    }
    for question in bar(model.questions(benchmark), f"{name}, {benchmark}", unit="prompt"):
        found = draws.get(question.problem.id)
        if found is not None and (samples is None or question.sample < samples):
            found.append(TopLogits.of(model.forward(question.request, [], 1)[0]))
    rows = {
        f"τ = {t:g}": [compare(base, base.at(t)) for base in baselines.values()]
        for t in TEMPERATURES
    }
    rows[name] = [
        np.mean([compare(base, drawn) for drawn in draws[problem]], axis=0)
        for problem, base in baselines.items()
    ]
    return {row: np.array(values).T for row, values in rows.items()}


def compare(baseline: TopLogits, other: TopLogits) -> np.ndarray:
    """Spearman, mass outside the baseline's top 10, Jensen-Shannon in base 2: float64 [3]."""
    ids = np.union1d(baseline.ids, other.ids)
    a, b = _logits_at(ids, baseline), _logits_at(ids, other)
    p, q = _softmax(a), _softmax(b)
    outside = ~np.isin(ids, baseline.ids[:_HEAD])
    return np.array([spearman(a, b), q[outside].sum(), jensen_shannon(p, q)])


def _logits_at(ids: np.ndarray, top: TopLogits) -> np.ndarray:
    logits = np.full(len(ids), _ABSENT)
    logits[np.searchsorted(ids, top.ids)] = top.logits
    return logits


def _softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max())
    return p / p.sum()


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rho: Pearson's of the ranks, ties at their mean rank; NaN if one is all ties."""
    ranks = np.stack([_ranks(a), _ranks(b)])
    ranks -= ranks.mean(1, keepdims=True)
    norms = np.sqrt(np.square(ranks).sum(1))
    return float(ranks[0] @ ranks[1] / norms.prod()) if norms.all() else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    """Jensen-Shannon divergence in base 2, in [0, 1]."""
    middle = (p + q) / 2
    return float((_kl(p, middle) + _kl(q, middle)) / 2)


def _kl(p: np.ndarray, q: np.ndarray) -> float:
    there = p > 0
    return float((p[there] * np.log2(p[there] / q[there])).sum())


def estimates(rows: Mapping[str, np.ndarray], *, seed: int = 0) -> dict[str, dict[str, Estimate]]:
    """Means over problems with 95% bootstrap intervals, by row and metric.

    Args:
        rows: Metrics of each problem, [M, P].
        seed: Of the bootstrap.
    """
    drawn = bootstrap_means(np.concatenate(list(rows.values())), np.random.default_rng(seed))
    by_row = np.split(drawn, len(rows), axis=1)
    return {
        row: {
            metric: Estimate(float(values[i].mean()), *interval(resampled[:, i]))
            for i, metric in enumerate(METRICS)
        }
        for (row, values), resampled in zip(rows.items(), by_row, strict=True)
    }


def to_markdown(table: Table) -> str:
    """The paper's Table 3 for these folders."""
    lines = ["# The first token, against the baseline's"]
    for benchmark, rows in table.items():
        lines += ["", f"## {benchmark}", "", *markdown_head(["", *_TITLES])]
        for name, row in rows.items():
            cells = [f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" for e in row.values()]
            lines.append(markdown_row([name, *cells]))
    return "\n".join(lines) + "\n"


def to_csv(table: Table) -> str:
    """One row a benchmark, row and metric; fractions."""
    return csv_text(
        "benchmark,row,metric,value,low,high",
        [
            [benchmark, name, metric, *astuple(estimate)]
            for benchmark, rows in table.items()
            for name, row in rows.items()
            for metric, estimate in row.items()
        ],
    )


def draw(table: Table) -> Figure:
    """A row a benchmark, a panel a metric, a bar with its interval a row of the table."""
    figure, axes = figures.panels(len(table), len(METRICS), (12, 2.6 * len(table) + 0.4))
    for number, (benchmark, rows) in enumerate(table.items()):
        for i, (metric, title) in enumerate(zip(METRICS, _TITLES, strict=True)):
            axis = axes[number * len(METRICS) + i]
            found: Sequence[Estimate] = [row[metric] for row in rows.values()]
            axis.bar(
                range(len(rows)),
                [e.value for e in found],
                yerr=[[e.value - e.low for e in found], [e.high - e.value for e in found]],
                color=[figures.COLOURS[6 if name.startswith("τ") else 0] for name in rows],
                ecolor="#444444",
                capsize=3,
                width=0.6,
            )
            axis.set_xticks(range(len(rows)), list(rows))
            axis.set_axisbelow(True)
            axis.set_title(f"{benchmark}: {title}", fontsize=10)
    return figure
