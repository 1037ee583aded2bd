"""`rsp-rl analyze diversity`: how far apart a problem's answers are in meaning (paper, Table 4).

Each problem's outputs are embedded. Three distances, all cosine, each the mean over problems:
pairwise, over all pairs of outputs; and, after DBSCAN has put the outputs into clusters,
inter-cluster, over pairs of cluster centroids (0 for a problem with fewer than two clusters), and
intra-cluster, over pairs of outputs within a cluster (mean over clusters; 0 without any). Brackets
are 95% bootstrap intervals over problems.

The paper embeds 300 outputs of each of 64 problems with BGE-M3; DBSCAN's settings it does not give.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from rsp_rl.analysis.conditions import (
    Condition,
    check_names,
    draw_name,
    open_conditions,
    shared_benchmarks,
)
from rsp_rl.analysis.embedders import DEFAULT, NGRAMS, Embedder, get_embedder
from rsp_rl.analysis.options import add_analysis, add_folders, chosen_benchmarks
from rsp_rl.analysis.outputs import write_analysis
from rsp_rl.basics.arguments import count
from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.console.screen import bar
from rsp_rl.display import figures
from rsp_rl.display.tables import csv_text, markdown_head, markdown_row
from rsp_rl.evaluation.metrics import bootstrap_means, interval

MEASURES = ("pairwise", "inter-cluster", "intra-cluster")


@dataclass(frozen=True)
class Clustering:
    """DBSCAN's settings.

    Attributes:
        eps: Largest cosine distance of neighbours.
        min_samples: Neighbours, itself included, that make an output the core of a cluster.
    """

    eps: float = 0.05
    min_samples: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.eps < 2:
            raise ConfigError(
                f"--eps {self.eps} must be above 0 and below 2: it is a cosine distance"
            )


@dataclass(frozen=True)
class Distance:
    """A mean over problems with its 95% interval."""

    mean: float
    low: float
    high: float


Table = dict[str, dict[str, dict[str, Distance]]]
"""By benchmark, condition and measure."""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register `analyze diversity`."""
    parser = add_analysis(
        commands,
        "diversity",
        run,
        help="semantic distances between a problem's answers (Table 4)",
        description=__doc__,
    )
    add_folders(parser)
    parser.add_argument(
        "--embedder",
        default=DEFAULT,
        help=f"a sentence-transformers model, by folder or hub name, or {NGRAMS} for one of "
        f"character n-grams (default: {DEFAULT})",
    )
    parser.add_argument("--eps", type=float, default=Clustering.eps, help="DBSCAN's, cosine")
    parser.add_argument("--min-samples", type=count, default=Clustering.min_samples)
    parser.add_argument("--benchmark", action="append", help="default: all that are finished")
    parser.add_argument("--problems", type=count, help="only the first so many")
    parser.add_argument("--output", type=Path, default=Path("analysis/diversity"))


def run(args: argparse.Namespace) -> int:
    """Write `diversity.md`, `diversity.csv` and `diversity.png`; print the table."""
    analyse(
        args.folders,
        args.output,
        embedder=args.embedder,
        clustering=Clustering(args.eps, args.min_samples),
        benchmarks=args.benchmark,
        problems=args.problems,
    )
    return 0


def analyse(
    folders: Sequence[str],
    output: Path,
    *,
    embedder: str = DEFAULT,
    clustering: Clustering | None = None,
    benchmarks: Sequence[str] | None = None,
    problems: int | None = None,
) -> None:
    """Write the files of `run`.

    Args:
        folders: `[NAME=]DIR` each.
        output: Where to.
        embedder: See `get_embedder`.
        clustering: DBSCAN's settings.
        benchmarks: All that are finished if None.
        problems: Only the first so many of each.

    Raises:
        ConfigError: If the embedder cannot be used, or two folders have the same name.
        RunFolderError: If the folders cannot be compared, or have one sample a problem.
    """
    clustering = clustering or Clustering()
    conditions = open_conditions(folders, draw_name)
    check_names(conditions)
    may_differ = ("temperature", "top_p", "top_k", "samples")
    chosen = chosen_benchmarks(benchmarks, shared_benchmarks(conditions, may_differ=may_differ))
    embed = get_embedder(embedder)
    table = {
        benchmark: {
            condition.name: diversity(condition, benchmark, embed, clustering, problems)
            for condition in conditions
        }
        for benchmark in chosen
    }
    write_analysis(
        output,
        "diversity",
        markdown=to_markdown(table, embedder, clustering),
        csv=to_csv(table),
        figure=draw(table),
    )


def diversity(
    condition: Condition,
    benchmark: str,
    embed: Embedder,
    clustering: Clustering,
    problems: int | None = None,
    *,
    seed: int = 0,
) -> dict[str, Distance]:
    """The three distances of a condition's outputs.

    Args:
        condition: With two samples a problem at least.
        benchmark: One that is finished.
        embed: See `Embedder`.
        clustering: DBSCAN's settings.
        problems: Only the first so many, by id; `None` for all.
        seed: Of the bootstrap.

    Raises:
        RunFolderError: If there is one sample a problem.
    """
    groups = list(condition.groups(benchmark).values())[:problems]
    if len(groups[0]) < 2:
        raise RunFolderError(
            f"{condition.root} has one sample a problem of {benchmark}; distances take several: "
            "generate with --samples"
        )
    label = f"{condition.name}, {benchmark}"
    measured_P3 = np.array(
        [
            distances(embed([sample["output"] for sample in group]), clustering)
            for group in bar(groups, label, unit="problem")
        ]
    )
    drawn = bootstrap_means(measured_P3.T, np.random.default_rng(seed))
    return {
        name: Distance(float(measured_P3[:, i].mean()), *interval(drawn[:, i]))
        for i, name in enumerate(MEASURES)
    }


def distances(vectors_ND: np.ndarray, clustering: Clustering) -> tuple[float, float, float]:
    """Mean pairwise, inter-cluster and intra-cluster cosine distance of one problem's outputs.

    Args:
        vectors_ND: Embeddings, of norm 1.
        clustering: DBSCAN's settings; outputs that it calls noise are in no cluster.
    """
    from sklearn.cluster import DBSCAN

    fitted = DBSCAN(eps=clustering.eps, min_samples=clustering.min_samples, metric="cosine")
    labels_N = fitted.fit_predict(vectors_ND)
    clusters = [vectors_ND[labels_N == label] for label in sorted(set(labels_N) - {-1})]
    centroids = [cluster.mean(axis=0) for cluster in clusters]
    inter = _mean_pairwise(np.array(centroids)) if len(clusters) > 1 else 0.0
    # Two outputs at least are needed for a pair, which `min_samples=1` does not promise.
    within = [_mean_pairwise(cluster) for cluster in clusters if len(cluster) > 1]
    return _mean_pairwise(vectors_ND), inter, float(np.mean(within)) if within else 0.0


def _mean_pairwise(vectors_ND: np.ndarray) -> float:
    """Mean cosine distance over all pairs of different rows; by their sum, not N x N of them."""
    norms_N = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    units_ND = np.divide(vectors_ND, norms_N, out=np.zeros_like(vectors_ND), where=norms_N > 0)
    n, total = len(units_ND), units_ND.sum(axis=0)
    similarity = (total @ total - (units_ND**2).sum()) / (n * (n - 1))
    return max(0.0, float(1 - similarity))  # rounding may leave a distance of equals below 0


def to_markdown(table: Table, embedder: str, clustering: Clustering) -> str:
    """One table a benchmark, with how it was measured."""
    lines = [
        "# Semantic diversity",
        "",
        f"Cosine distances of embeddings by {embedder}; DBSCAN with eps {clustering.eps:g} and "
        f"min_samples {clustering.min_samples}.",
    ]
    for benchmark, conditions in table.items():
        lines += ["", f"## {benchmark}", "", *markdown_head(["condition", *MEASURES])]
        for name, measured in conditions.items():
            cells = [f"{d.mean:.4f} [{d.low:.4f}, {d.high:.4f}]" for d in measured.values()]
            lines.append(markdown_row([name, *cells]))
    return "\n".join(lines) + "\n"


def to_csv(table: Table) -> str:
    """One row a benchmark, condition and measure."""
    return csv_text(
        "benchmark,condition,measure,mean,low,high",
        [
            [benchmark, name, measure, *astuple(distance)]
            for benchmark, conditions in table.items()
            for name, measured in conditions.items()
            for measure, distance in measured.items()
        ],
    )


def draw(table: Table) -> Figure:
    """One panel a benchmark: the measures side by side, a colour a condition."""
    figure, axes = figures.panels(1, len(table), (4.8 * len(table) + 0.6, 4.4))
    for axis, (benchmark, conditions) in zip(axes, table.items(), strict=True):
        width = 0.8 / len(conditions)
        for number, (name, measured) in enumerate(conditions.items()):
            values = np.array([astuple(distance) for distance in measured.values()])
            places = np.arange(len(MEASURES)) + (number - (len(conditions) - 1) / 2) * width
            axis.bar(
                places,
                values[:, 0],
                width * 0.9,
                yerr=np.abs(values[:, 1:].T - values[:, 0]),
                color=figures.colour(number),
                ecolor="#444",
                label=name,
            )
        axis.set_xticks(range(len(MEASURES)), MEASURES)
        axis.set_title(benchmark, fontsize=10)
        axis.set_ylabel("cosine distance, 95% interval")
    figures.legend_below(figure, axes[0], 2)
    return figure
