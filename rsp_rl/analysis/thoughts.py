"""`rsp-rl analyze thoughts`: does a model think in mixtures, or follow their likeliest token?

Reads evaluations of one model with laws, and where they are given without: of each trace, some
thoughts at even distances are probed (`rsp_rl.analysis.thought_probes`):

- the entropy of the mixture's weights, in nats;
- the Jensen-Shannon divergence (base 2) of the next-token distribution to the one after the
  mixture's first, second and third token alone;
- the share of the logit lens' ten likeliest tokens that mixture and token have in common, by layer.

Beside a greedy evaluation without a law, every other condition's answers are compared with its
answer to the same problem by ROUGE-L. Numbers are means over problems of the mean over their
samples and thoughts, with 95% bootstrap intervals over problems. Weights are those of the samples,
which have four digits. Measurements of "LLMs are Single-threaded Reasoners" (arXiv 2508.03440).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from rsp_rl.analysis.averages import finite_means
from rsp_rl.analysis.conditions import Condition, check_names, open_conditions
from rsp_rl.analysis.options import (
    ModelOptions,
    add_analysis,
    add_folders,
    add_model_options,
    model_options,
)
from rsp_rl.analysis.outputs import write_analysis
from rsp_rl.analysis.similarity import rouge_l
from rsp_rl.analysis.thought_probes import ALONE, Mixture, Probe, probe
from rsp_rl.basics.arguments import count
from rsp_rl.basics.errors import ConfigError
from rsp_rl.console.screen import bar
from rsp_rl.display import figures
from rsp_rl.display.tables import csv_text, markdown_head, markdown_row
from rsp_rl.evaluation.comparison import Estimate
from rsp_rl.evaluation.metrics import bootstrap_means, interval
from rsp_rl.evaluation.protocol import Protocol

if TYPE_CHECKING:
    from rsp_rl.analysis.teacher_forcing import ForcedModel
    from rsp_rl.evaluation.folder import Sample

PROBES = 16
"""Thoughts of a trace, by default."""

GREEDY, SAMPLED = "greedy", "sampled"

_RANKS = ("first", "second", "third")
ENTROPY, ROUGE = "entropy (nats)", "ROUGE-L to the greedy answer"

_BINS = 10


@dataclass(frozen=True)
class Traces:
    """One condition with a law on one benchmark.

    Attributes:
        scalars: By metric, a number a problem, [P]; NaN where it has none.
        entropies: Along the trace, [P, bins].
        overlaps: By layer and token, [layers + 1, 3], over all probes.
        probes: How many.
        unread: Samples whose thoughts are none that could be read.
    """

    scalars: dict[str, np.ndarray]
    entropies: np.ndarray
    overlaps: np.ndarray
    probes: int
    unread: int


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register `analyze thoughts`."""
    parser = add_analysis(
        commands,
        "thoughts",
        run,
        help="what a model makes of mixtures, beside their single tokens",
        description=__doc__,
    )
    add_folders(parser)
    parser.add_argument(
        "--probes", type=count, default=PROBES, help="thoughts of a trace (%(default)s)"
    )
    add_model_options(parser, Path("analysis/thoughts"))


def run(args: argparse.Namespace) -> int:
    """Write `thoughts.csv`, `.md` and `.png`; print the table."""
    analyse(args.folders, args.output, probes=args.probes, options=model_options(args))
    return 0


def analyse(
    folders: Sequence[str],
    output: Path,
    *,
    probes: int = PROBES,
    options: ModelOptions | None = None,
) -> None:
    """Write the files of `run`.

    Args:
        folders: `[NAME=]DIR` each; one at least with a law whose thoughts are mixtures.
        output: Where to.
        probes: Thoughts of a trace.
        options: Model and answers.

    Raises:
        ConfigError: If the model cannot be used, or no folder has such thoughts.
        RunFolderError: If the folders cannot be compared or were asked otherwise than now.
    """
    options = options or ModelOptions()
    conditions = open_conditions(folders, law_name)
    check_names(conditions)
    if not any(condition.protocol.law for condition in conditions):
        raise ConfigError("no folder has a law; give one of `rsp-rl generate --law NAME`")
    answers = ("samples", "temperature", "top_p", "top_k")
    benchmarks = options.chosen(conditions, may_differ=answers)
    found: dict[str, dict[str, Traces]] = {benchmark: {} for benchmark in benchmarks}
    for condition in conditions:
        if not condition.protocol.law:
            continue
        model = options.load(condition, thoughts=True)
        for benchmark in benchmarks:
            found[benchmark][condition.name] = read_traces(
                model, condition, benchmark, probes, options.problems, options.samples
            )
        del model
    similar = {name: similarities(conditions, name, options.problems) for name in benchmarks}
    write_analysis(
        output,
        "thoughts",
        markdown=to_markdown(found, similar),
        csv=to_csv(found, similar),
        figure=draw(found),
    )


def law_name(protocol: Protocol) -> str:
    """A condition by its law, or by how its tokens were chosen."""
    if protocol.law is not None:
        return protocol.law.law.name
    return GREEDY if _is_greedy(protocol) else SAMPLED


def _is_greedy(protocol: Protocol) -> bool:
    greedy = all(plan.temperature == 0 for plan in protocol.benchmarks)
    return greedy and protocol.law is None and not protocol.rsp.enabled


def read_traces(
    model: ForcedModel,
    condition: Condition,
    benchmark: str,
    probes: int,
    problems: int | None = None,
    samples: int | None = None,
) -> Traces:
    """Probe the thoughts of a condition's samples.

    Args:
        model: The condition's.
        condition: With a law.
        benchmark: One of its.
        probes: Thoughts of a trace.
        problems: Only the first so many.
        samples: Only the first so many of each.

    Raises:
        ConfigError: If none of the samples has a trace of mixtures from its first token on.
    """
    by_problem: dict[str, list[list[Probe]]] = {}
    lengths: dict[str, list[int]] = {}
    unread = 0
    asked = model.asked(benchmark, problems=problems, samples=samples)
    for question, sample in bar(list(asked), f"{condition.name}, {benchmark}", unit="trace"):
        trace = mixtures(sample)
        if not trace:
            unread += 1
            continue
        at = {round(i) for i in np.linspace(0, len(trace) - 1, min(probes, len(trace)))}
        made = list(probe(model.network, model.prompt_embeddings(question.request), trace, at))
        by_problem.setdefault(sample["problem"], []).append(made)
        lengths.setdefault(sample["problem"], []).append(len(trace))
    if not by_problem:
        raise ConfigError(
            f"{condition.root} has no sample of {benchmark} whose thoughts are mixtures from its "
            "first token on; nothing of it can be probed"
        )
    every = [p for traces in by_problem.values() for made in traces for p in made]
    return Traces(
        _scalars(by_problem),
        np.stack([_along(by_problem[name], lengths[name]) for name in by_problem]),
        finite_means(np.stack([p.overlaps for p in every])),
        len(every),
        unread,
    )


def mixtures(sample: Sample) -> list[Mixture]:
    """A sample's thoughts as far as they are mixtures without a gap from the first token on."""
    thoughts, trace = sample["thoughts"], []
    rows = zip(*(thoughts[name] for name in ("at", "kind", "ids", "weights")), strict=True)
    for number, (at, kind, ids, weights) in enumerate(rows):
        if at != number or kind != "mix":
            break
        trace.append(Mixture.of(ids, weights))
    return trace


def _scalars(by_problem: Mapping[str, list[list[Probe]]]) -> dict[str, np.ndarray]:
    rows = []
    for traces in by_problem.values():
        values = [[p.entropy, *p.divergences, *p.overlaps[-1]] for made in traces for p in made]
        rows.append(finite_means(np.array(values)))
    return dict(zip(_metrics(), np.array(rows).T, strict=True))


def _metrics() -> list[str]:
    return [
        ENTROPY,
        *(f"Jensen-Shannon to the {rank} token" for rank in _RANKS),
        *(f"overlap with the {rank} token, last layer" for rank in _RANKS),
    ]


def _along(traces: Sequence[Sequence[Probe]], lengths: Sequence[int]) -> np.ndarray:
    """Mean entropy by tenth of the trace; NaN where nothing was probed."""
    sums, counts = np.zeros(_BINS), np.zeros(_BINS)
    for made, length in zip(traces, lengths, strict=True):
        for p in made:
            sums[p.position * _BINS // length] += p.entropy
            counts[p.position * _BINS // length] += 1
    return np.divide(sums, counts, out=np.full(_BINS, np.nan), where=counts > 0)


def similarities(
    conditions: Sequence[Condition], benchmark: str, problems: int | None = None
) -> dict[str, np.ndarray]:
    """ROUGE-L to the greedy answer of the same problem, [P], by condition; without one, nothing."""
    greedy = next((c for c in conditions if _is_greedy(c.protocol)), None)
    if greedy is None:
        return {}
    reference = {name: group[0]["output"] for name, group in greedy.groups(benchmark).items()}
    kept = list(greedy.problems(benchmark))[:problems]
    return {
        condition.name: np.array(
            [
                np.mean([rouge_l(s["output"], reference[name]) for s in groups[name]])
                for name in kept
            ]
        )
        for condition in conditions
        if condition is not greedy
        for groups in [condition.groups(benchmark)]
    }


def _estimates(values: Mapping[str, np.ndarray]) -> dict[str, Estimate]:
    """Over the problems that have a number."""
    made = {}
    for name, values_P in values.items():
        there = values_P[~np.isnan(values_P)]
        if len(there):
            drawn = bootstrap_means(there[None], np.random.default_rng(0))[:, 0]
            made[name] = Estimate(float(there.mean()), *interval(drawn))
    return made


def _table(
    traces: Mapping[str, Traces], similar: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Estimate]]:
    """By condition and metric."""
    table = {name: _estimates(found.scalars) for name, found in traces.items()}
    for name, estimate in _estimates(similar).items():
        table.setdefault(name, {})[ROUGE] = estimate
    return table


def to_markdown(
    found: Mapping[str, Mapping[str, Traces]], similar: Mapping[str, Mapping[str, np.ndarray]]
) -> str:
    """A table a benchmark: a row a metric, a column a condition."""
    lines = ["# Thoughts, beside their single tokens"]
    for benchmark, traces in found.items():
        table = _table(traces, similar[benchmark])
        lines += ["", f"## {benchmark}", "", *markdown_head(["", *table])]
        for metric in (*_metrics(), ROUGE):
            row = [estimates.get(metric) for estimates in table.values()]
            if any(row):
                cells = [f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" if e else "" for e in row]
                lines.append(markdown_row([metric, *cells]))
        lines.append("")
        for name, of in traces.items():
            lines.append(f"{name}: {of.probes:,} thoughts probed.")
            if of.unread:
                lines[-1] += f" {of.unread:,} samples without a trace of mixtures are left out."
    return "\n".join(lines) + "\n"


def to_csv(
    found: Mapping[str, Mapping[str, Traces]], similar: Mapping[str, Mapping[str, np.ndarray]]
) -> str:
    """One row a benchmark, condition and metric."""
    return csv_text(
        "benchmark,condition,metric,value,low,high",
        [
            [benchmark, name, metric, *astuple(estimate)]
            for benchmark, traces in found.items()
            for name, estimates in _table(traces, similar[benchmark]).items()
            for metric, estimate in estimates.items()
        ],
    )


def draw(found: Mapping[str, Mapping[str, Traces]]) -> Figure:
    """A row a benchmark: entropy along the trace, divergences, overlaps by layer."""
    figure, axes = figures.panels(len(found), 3, (12, 2.8 * len(found) + 0.4))
    for number, (benchmark, traces) in enumerate(found.items()):
        along, divergence, layers = axes[3 * number : 3 * number + 3]
        for i, (name, of) in enumerate(traces.items()):
            colour = figures.colour(i)
            tenths = (np.arange(_BINS) + 0.5) / _BINS
            along.plot(tenths, finite_means(of.entropies), color=colour, marker="o", label=name)
            estimates = _estimates(of.scalars)
            for j, rank in enumerate(_RANKS):
                if e := estimates.get(f"Jensen-Shannon to the {rank} token"):
                    divergence.bar(
                        j + 0.8 * (i + 0.5) / len(traces) - 0.4,
                        e.value,
                        0.8 / len(traces),
                        yerr=[[e.value - e.low], [e.high - e.value]],
                        color=colour,
                        ecolor="#444444",
                        capsize=2,
                    )
            for j in range(ALONE):
                layers.plot(
                    of.overlaps[:, j],
                    color=colour,
                    linestyle=("-", "--", ":")[j],
                    label=f"{name}, {_RANKS[j]}",
                )
        along.set_title(f"{benchmark}: entropy of the mixture (nats)", fontsize=10)
        along.set_xlabel("share of the trace", fontsize=9)
        along.legend(fontsize=8)
        divergence.set_title("Jensen-Shannon to a token alone", fontsize=10)
        divergence.set_xticks(range(ALONE), _RANKS)
        layers.set_title("lens: top 10 in common", fontsize=10)
        layers.set_xlabel("layer", fontsize=9)
        layers.legend(fontsize=7)
    return figure
