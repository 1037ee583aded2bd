"""`rsp-rl analyze latent-tree`: the search that a thought in hidden states spans, on ProsQA.

A step of ProsQA is an edge of the graph, from the person who is asked about to the answer. After k
of a model's thoughts the end marker is forced and step k + 1 begun: of the first step the person is
given (`Rosa is a`), whose kinds follow, of a later one `Every`, and the kind that it goes on from
follows. Of bare problems a step begins with `Rosa`, and a later one with the kind itself.
What the model holds probable there is read for every kind that the question names
(arXiv 2412.06769, section 5.3), and set beside the graph: how far a kind is from the person, and
whether a way leads from it to the answer. k counts the steps that thoughts stand for, c thoughts
each, and a problem is counted where it has a step k + 1.

- right: share of kinds from which the answer is reached; beside it what that share would be were
  all kinds probable alike that are as many steps away as the next one on the way;
- reachable: share of kinds that are reached from the person at all;
- entropy of the shares, in nats, and how often the likeliest kind is right;
- how probable the begun step is in the model's own eyes (where nothing begins it: that one of the
  kinds comes), and that it answers at once.

Shares are of the probability of all kinds. Numbers are means over problems, with 95% bootstrap
intervals. Beside them are the thoughts' norms, and those of the rows of the embedding table, whose
place they take.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rsp_rl.analysis.averages import finite_means
from rsp_rl.analysis.options import add_analysis
from rsp_rl.analysis.outputs import write_analysis
from rsp_rl.basics.arguments import count, from_zero
from rsp_rl.basics.errors import ConfigError
from rsp_rl.basics.files import write_whole
from rsp_rl.console.screen import bar
from rsp_rl.data.prosqa import distances, read_graph
from rsp_rl.display import figures
from rsp_rl.display.tables import csv_text, markdown_head, markdown_row
from rsp_rl.evaluation.comparison import Estimate
from rsp_rl.evaluation.metrics import bootstrap_means, interval

if TYPE_CHECKING:
    from rsp_rl.analysis.latent_probes import Reading, Stop
    from rsp_rl.data.step_problems import StepProblem
    from rsp_rl.latent.folder import Thinker

PROBLEMS = 200
"""Of the file, by default."""

RIGHT, EVEN, REACHABLE = "right", "right if even", "reachable"
ENTROPY, LIKELIEST = "entropy (nats)", "likeliest is right"
STEP, ANSWER = "begins the step", "answers at once"
MEASURES = (RIGHT, EVEN, REACHABLE, ENTROPY, LIKELIEST, STEP, ANSWER)

_QUANTILES = (5, 50, 95)
_COLUMNS = 3
_INK, _REACHED, _PALE, _RIGHT_PALE = "#222222", "#9aa3b0", "#d9dde3", "#99d8c7"


@dataclass(frozen=True)
class Tree:
    """What a question's graph says of its kinds.

    Attributes:
        person: Who is asked about.
        answer: The kind that is the answer.
        edges: Of the whole graph.
        kinds: All that the question names, in the order of its sentences.
        distances: From the person, of those that are reached.
        right: Those from which the answer is reached, of those that are reached; it is one.
        bare: Whether sentences are names alone.
    """

    person: str
    answer: str
    edges: tuple[tuple[str, str], ...]
    kinds: tuple[str, ...]
    distances: dict[str, int]
    right: frozenset[str]
    bare: bool = False

    @classmethod
    def of(cls, question: str) -> Tree:
        """A question's.

        Raises:
            ValueError: It is no question of ProsQA, or both or none of its kinds are reached.
        """
        graph = read_graph(question)
        far, _ = distances(graph.edges, graph.person)
        reached = [choice for choice in graph.choices if choice in far]
        if len(reached) != 1:
            raise ValueError(f"{len(reached)} of the two kinds are reached from {graph.person}")
        (answer,) = reached
        back, _ = distances([(child, parent) for parent, child in graph.edges], answer)
        # Nobody is of the kind of a person: who has no parents is one.
        kinds = tuple(dict.fromkeys(child for _, child in graph.edges))
        right = frozenset(kind for kind in kinds if kind in far and kind in back)
        return cls(graph.person, answer, graph.edges, kinds, far, right, graph.bare)

    @property
    def steps(self) -> int:
        """Of a shortest way to the answer."""
        return self.distances[self.answer]

    def stem(self, k: int) -> str:
        """How step k + 1 begins, up to the kind that is read; a bare one with nothing if k > 0."""
        if self.bare:
            return "" if k else self.person
        return "Every" if k else f"{self.person} is a"

    def next(self, k: int) -> list[str]:
        """Kinds that are as far from the person as the one that is read there."""
        return [kind for kind in self.kinds if self.distances.get(kind) == max(k, 1)]


@dataclass(frozen=True)
class Read:
    """A problem after k steps' worth of thoughts.

    Attributes:
        problem: Its place in the file.
        k: Steps that thoughts stand for.
        tree: Its graph.
        reading: What the model gave.
    """

    problem: int
    k: int
    tree: Tree
    reading: Reading

    @property
    def shares(self) -> dict[str, float]:
        """By kind, of the probability of all."""
        values = self.reading.names / self.reading.names.sum()
        return dict(zip(self.tree.kinds, values.tolist(), strict=True))

    def by_distance(self, longest: int) -> np.ndarray:
        """Shares of the kinds at distance 1, 2, ... and, last, of those that are not reached."""
        found = np.zeros(longest + 1)
        for kind, share in self.shares.items():
            found[self.tree.distances.get(kind, longest + 1) - 1] += share
        return found

    @property
    def measures(self) -> dict[str, float]:
        """By the names of `MEASURES`."""
        shares, tree = self.shares, self.tree
        values = np.array([*shares.values()])
        near = tree.next(self.k)
        return {
            RIGHT: sum(shares[kind] for kind in tree.right),
            EVEN: sum(kind in tree.right for kind in near) / len(near),
            REACHABLE: sum(shares[kind] for kind in tree.kinds if kind in tree.distances),
            ENTROPY: float(-np.sum(values * np.log(np.maximum(values, 1e-300)))),
            LIKELIEST: float(max(shares, key=shares.__getitem__) in tree.right),
            STEP: self.reading.stem,
            ANSWER: self.reading.answer,
        }


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register `analyze latent-tree`."""
    parser = add_analysis(
        commands,
        "latent-tree",
        run,
        help="the search that thoughts in hidden states span, and their norms",
        description=__doc__,
    )
    parser.add_argument("path", metavar="RUN_OR_MODEL", help="of `rsp-rl latent train`")
    parser.add_argument("--data", required=True, metavar="FILE", help="problems of ProsQA")
    parser.add_argument(
        "--problems", type=count, default=PROBLEMS, help="only the first so many (%(default)s)"
    )
    parser.add_argument(
        "--most", type=from_zero, metavar="K", help="the most steps that thoughts stand for"
    )
    parser.add_argument(
        "--drawn",
        type=from_zero,
        metavar="N",
        help="problem whose tree is drawn (one of many steps)",
    )
    parser.add_argument("--batch-size", type=count, default=32, help="sequences (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("analysis/latent_tree"))


def run(args: argparse.Namespace) -> int:
    """Write `latent_tree.csv`, `.md`, `.png`, `.svg` and `.kinds.csv`; print the table."""
    from transformers.utils.logging import disable_progress_bar

    from rsp_rl.data.step_problems import load_step_problems
    from rsp_rl.latent.folder import load_thinker
    from rsp_rl.latent.run_folder import find_thinker

    disable_progress_bar()
    problems = load_step_problems(args.data, "--data", needs_steps=False)[: args.problems]
    analyse(
        load_thinker(find_thinker(args.path).model),
        problems,
        args.output,
        place=args.data,
        most=args.most,
        drawn=args.drawn,
        batch_size=args.batch_size,
    )
    return 0


def analyse(
    thinker: Thinker,
    problems: Sequence[StepProblem],
    output: Path,
    *,
    place: str = "the file",
    most: int | None = None,
    drawn: int | None = None,
    batch_size: int = 32,
) -> None:
    """Write the files of `run`.

    Args:
        thinker: The model.
        problems: Of ProsQA.
        output: Where to.
        place: What errors call the problems' file.
        most: The most steps that thoughts stand for; as the model was trained for if None.
        drawn: Place of the problem whose tree is drawn; of those with the most k the one with the
            most kinds that are reached if None.
        batch_size: Sequences at a time.

    Raises:
        ConfigError: If the model's method has neither thoughts nor pauses, or a problem is not
            ProsQA's, or does not fit the context, or the drawn one is not among them.
    """
    found = read_trees(thinker, problems, place, most, batch_size)
    last = max(one.k for one in found)
    if drawn is None:
        longest = [one for one in found if one.k == last]
        drawn = max(longest, key=lambda one: len(one.tree.distances)).problem
    shown = [one for one in found if one.problem == drawn]
    if not shown:
        raise ConfigError(f"--drawn {drawn}: {place} has {len(problems)} problems here, from 0 on")
    norms = thought_norms(found)
    table = embedding_norms(thinker)
    write_analysis(
        output,
        "latent_tree",
        markdown=to_markdown(found, norms, table),
        csv=to_csv(found, norms, table),
        figure=draw(found, shown, norms, table),
    )
    write_whole(output / "latent_tree.kinds.csv", kinds_csv(found))


def read_trees(
    thinker: Thinker,
    problems: Sequence[StepProblem],
    place: str = "the file",
    most: int | None = None,
    batch_size: int = 32,
) -> list[Read]:
    """Read every problem after 0, 1, ... steps' worth of thoughts; see `analyse`."""
    from rsp_rl.analysis.latent_probes import Stop, read
    from rsp_rl.latent.methods import NOTHING
    from rsp_rl.latent.problem_tokens import tokenize

    thinking = thinker.thinking
    assert thinking is not None
    if thinker.method.filler == NOTHING:
        raise ConfigError(
            f"method {thinking.method} has neither thoughts nor pauses: there is nothing to stop "
            "after some of them; give a run of another method"
        )
    trees = [_tree(problem, f"{place}, problem {n}") for n, problem in enumerate(problems)]
    each = thinking.thoughts_per_step
    most = thinking.thoughts // each if most is None else most
    tokens = tokenize(problems, thinker.tokenizer)
    # By k, so that sequences of a batch have the same number of passes.
    wanted = [(k, n) for k in range(most + 1) for n, tree in enumerate(trees) if tree.steps > k]
    stops = [
        Stop(tokens[n].question, k * each, trees[n].stem(k), trees[n].kinds) for k, n in wanted
    ]
    _check_context(thinker, stops, place)
    readings = bar(read(thinker, stops, batch_size), unit="stop", total=len(stops))
    return [Read(n, k, trees[n], reading) for (k, n), reading in zip(wanted, readings, strict=True)]


def _tree(problem: StepProblem, place: str) -> Tree:
    try:
        return Tree.of(problem.question)
    except ValueError as error:
        raise ConfigError(
            f"{place}: {error}; this analysis is for problems of `python -m rsp_rl.data.prosqa`"
        ) from error


def _check_context(thinker: Thinker, stops: Sequence[Stop], place: str) -> None:
    from rsp_rl.analysis.latent_probes import longest
    from rsp_rl.models.context import context_of

    context, needed = context_of(thinker.model.config), longest(thinker, stops)
    if context is not None and needed > context:
        raise ConfigError(
            f"{place}: a question with its thoughts and the step begun takes {needed} tokens, the "
            f"model's context is {context}; take fewer thoughts (--most)"
        )


def thought_norms(found: Sequence[Read]) -> list[np.ndarray]:
    """By thought, its norm in every problem that has so many; none for pauses."""
    longest: dict[int, np.ndarray] = {}
    for one in found:  # those of the most thoughts come last
        longest[one.problem] = one.reading.norms
    most = max(map(len, longest.values()))
    return [
        np.array([norms[i] for norms in longest.values() if len(norms) > i]) for i in range(most)
    ]


def embedding_norms(thinker: Thinker) -> np.ndarray:
    """Of every row of the embedding table."""
    table = thinker.model.get_input_embeddings().weight
    return table.detach().double().norm(dim=-1).cpu().numpy()


def estimates(found: Sequence[Read]) -> dict[int, dict[str, Estimate]]:
    """By k and measure, over problems."""
    made: dict[int, dict[str, Estimate]] = {}
    for k in sorted({one.k for one in found}):
        rows = [one.measures for one in found if one.k == k]
        values_MP = np.array([[row[name] for row in rows] for name in MEASURES])
        drawn = bootstrap_means(values_MP, np.random.default_rng(0))
        made[k] = {
            name: Estimate(float(values_MP[i].mean()), *interval(drawn[:, i]))
            for i, name in enumerate(MEASURES)
        }
    return made


def shares_by_distance(found: Sequence[Read]) -> dict[int, np.ndarray]:
    """By k, mean shares of kinds at distance 1, 2, ..., and, last, of those not reached."""
    longest = max(max(one.tree.distances.values()) for one in found)
    return {
        k: finite_means(np.stack([one.by_distance(longest) for one in found if one.k == k]))
        for k in sorted({one.k for one in found})
    }


def to_markdown(found: Sequence[Read], norms: Sequence[np.ndarray], table: np.ndarray) -> str:
    """By k: what the next step's kind is, how far it is, and the thoughts' norms."""
    lines = ["# What thoughts hold probable", "", *markdown_head(["k", "problems", *MEASURES])]
    for k, row in estimates(found).items():
        cells = [_shown(row[name]) for name in MEASURES]
        problems = sum(one.k == k for one in found)
        lines.append(markdown_row([str(k), str(problems), *cells]))
    by_distance = shares_by_distance(found)
    far = range(1, len(next(iter(by_distance.values()))))
    lines += ["", "## Shares by distance from the person", ""]
    lines += markdown_head(["k", *map(str, far), "not reached"])
    for k, row in by_distance.items():
        lines.append(markdown_row([str(k), *(f"{value:.3f}" for value in row)]))
    lines += ["", "## Norms", "", *markdown_head(["", *(f"{q}%" for q in _QUANTILES), "mean"])]
    for name, values in _norm_rows(norms, table).items():
        cells = [f"{x:.3g}" for x in (*np.percentile(values, _QUANTILES), values.mean())]
        lines.append(markdown_row([name, *cells]))
    return "\n".join(lines) + "\n"


def _shown(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _norm_rows(norms: Sequence[np.ndarray], table: np.ndarray) -> dict[str, np.ndarray]:
    thoughts = {f"thought {number}": values for number, values in enumerate(norms, start=1)}
    return {"embedding table": table, **thoughts}


def to_csv(found: Sequence[Read], norms: Sequence[np.ndarray], table: np.ndarray) -> str:
    """One row a k and measure, a k and distance, and a quantile of norms."""
    rows: list[list[object]] = []
    for k, row in estimates(found).items():
        rows += [[k, name, e.value, e.low, e.high] for name, e in row.items()]
    for k, shares in shares_by_distance(found).items():
        names = [*(f"share at distance {n + 1}" for n in range(len(shares) - 1)), "not reached"]
        rows += [[k, name, share, "", ""] for name, share in zip(names, shares, strict=True)]
    for name, values in _norm_rows(norms, table).items():
        low, middle, high = np.percentile(values, _QUANTILES)
        rows.append(["", f"norm of {name}", middle, low, high])
    return csv_text("k,measure,value,low,high", rows)


def kinds_csv(found: Sequence[Read]) -> str:
    """One row a problem, k and kind; the distance is empty where it is not reached."""
    return csv_text(
        "problem,k,kind,probability,share,distance,right,answer",
        [
            [
                *(one.problem, one.k, kind, probability, one.shares[kind]),
                *(one.tree.distances.get(kind, ""), int(kind in one.tree.right)),
                int(kind == one.tree.answer),
            ]
            for one in found
            for kind, probability in zip(one.tree.kinds, one.reading.names, strict=True)
        ],
    )


def draw(
    found: Sequence[Read], shown: Sequence[Read], norms: Sequence[np.ndarray], table: np.ndarray
) -> Figure:
    """Above a problem's tree after each k, below what all problems say."""
    rows = math.ceil(len(shown) / _COLUMNS)
    figure, axes = figures.panels(rows + 1, _COLUMNS, (11.5, 4 * rows + 4))
    places = layered(shown[0].tree)
    trees, below = axes[: rows * _COLUMNS], axes[rows * _COLUMNS :]
    for axis, one in zip(trees, shown, strict=False):
        _draw_tree(axis, one, places)
    for axis in trees[len(shown) :]:
        axis.remove()
    _draw_bars(below[0], found)
    _draw_lines(below[1], found)
    _draw_norms(below[2], norms, table)
    return figure


def layered(tree: Tree) -> dict[str, tuple[float, float]]:
    """Places of the person and all kinds that are reached: a row a distance, few crossings."""
    places = {tree.person: (0.0, 0.0)}
    parents: Mapping[str, list[str]] = {
        kind: [a for a, b in tree.edges if b == kind and a in tree.distances]
        for kind in tree.distances
    }
    for far in range(1, max(tree.distances.values()) + 1):
        row = [kind for kind, distance in tree.distances.items() if distance == far]

        def middle(kind: str) -> float:
            above = [places[parent][0] for parent in parents[kind] if parent in places]
            return sum(above) / len(above)

        row.sort(key=middle)
        for number, kind in enumerate(row):
            places[kind] = ((number + 0.5) / len(row) - 0.5, -float(far))
    return places


def _draw_tree(axis: Axes, one: Read, places: Mapping[str, tuple[float, float]]) -> None:
    tree, shares = one.tree, one.shares
    for parent, child in tree.edges:
        if parent in places and child in places:
            (x, y), (to_x, to_y) = places[parent], places[child]
            leads = child in tree.right
            colour = figures.colour(2) if leads else _REACHED
            width = 1.4 if leads else 0.7
            axis.plot([x, to_x], [y, to_y], color=colour, linewidth=width, zorder=1)
    for name, (x, y) in places.items():
        right = name in tree.right or name == tree.person
        axis.scatter(
            *(x, y),
            s=60 + 900 * shares.get(name, 0.0),
            marker="s" if name == tree.answer else "o",
            color=_RIGHT_PALE if right else _PALE,
            edgecolors=figures.colour(2) if right else _REACHED,
            zorder=2,
        )
        label = name if name == tree.person else f"{name}\n{100 * shares[name]:.0f}%"
        axis.annotate(label, (x, y), ha="center", va="center", fontsize=7, color=_INK, zorder=3)
    beyond = sum(share for kind, share in shares.items() if kind not in tree.distances)
    thoughts = "no thought" if one.k == 0 else f"k = {one.k}"
    begun = f"{tree.stem(one.k)} …".lstrip()
    axis.set_title(f"{thoughts}: “{begun}”\nnot reached: {100 * beyond:.0f}%", fontsize=9)
    axis.set_xlim(-0.62, 0.62)
    axis.set_ylim(min(y for _, y in places.values()) - 0.5, 0.5)
    axis.axis("off")


def _draw_bars(axis: Axes, found: Sequence[Read]) -> None:
    by_k = estimates(found)
    right = np.array([row[RIGHT].value for row in by_k.values()])
    reached = np.array([row[REACHABLE].value for row in by_k.values()])
    parts = {
        "leads to the answer": (right, figures.colour(2)),
        "reached, leads elsewhere": (reached - right, _REACHED),
        "not reached": (1 - reached, _PALE),
    }
    bottom = np.zeros(len(right))
    for label, (share, colour) in parts.items():
        axis.bar([*by_k], share, 0.7, bottom, color=colour, label=label)
        bottom = bottom + share
    even = [row[EVEN].value for row in by_k.values()]
    axis.plot([*by_k], even, "_", markersize=22, color=figures.colour(1), label="right if even")
    axis.set(ylim=(0, 1), xlabel="k, steps that thoughts stand for")
    axis.set_title("Shares of the next step's kind", fontsize=10)
    _legend(axis)


def _draw_lines(axis: Axes, found: Sequence[Read]) -> None:
    by_k = estimates(found)
    for number, name in enumerate((ENTROPY, LIKELIEST, STEP, ANSWER)):
        row = [by_k[k][name] for k in by_k]
        colour = figures.colour(number)
        marker = figures.marker(number)
        axis.plot([*by_k], [e.value for e in row], color=colour, marker=marker, label=name)
        low, high = [e.low for e in row], [e.high for e in row]
        axis.fill_between([*by_k], low, high, color=colour, alpha=0.15, linewidth=0)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("k, steps that thoughts stand for")
    axis.set_title("Entropy and how sure the model is", fontsize=10)
    _legend(axis)


def _draw_norms(axis: Axes, norms: Sequence[np.ndarray], table: np.ndarray) -> None:
    low, middle, high = np.percentile(table, _QUANTILES)
    axis.axhspan(low, high, color=_REACHED, alpha=0.3, linewidth=0, label="table, 5 to 95%")
    axis.axhline(middle, color=_REACHED)
    if norms:
        numbers = range(1, len(norms) + 1)
        below, centre, above = (np.array([np.percentile(v, q) for v in norms]) for q in _QUANTILES)
        bounds = [centre - below, above - centre]
        axis.errorbar(
            *(numbers, centre, bounds),
            fmt="o",
            color=figures.colour(0),
            capsize=3,
            label="thoughts, 5 to 95%",
        )
    axis.set_ylim(bottom=0)
    axis.set_xlabel("thought")
    axis.set_title("Norms", fontsize=10)
    _legend(axis)


def _legend(axis: Axes) -> None:
    axis.legend(
        *axis.get_legend_handles_labels(),
        loc="upper center",
        bbox_to_anchor=(0.5, -0.2),
        ncols=2,
        fontsize=8,
        frameon=False,
    )
