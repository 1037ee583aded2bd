"""ProsQA: which of two kinds is somebody of? Questions that need a search, after Coconut's paper.

arXiv 2412.06769, appendix A.2, algorithm 1: a graph grows node by node. A new node gets
Poisson(1.5) parents, for 35 % of them none that descends from node 1, for 35 % none that descends
from node 0; deeper ones are likelier, by 1.5 depth + 1. Nodes without parents are people, the
others kinds, and an edge is a sentence. Asked is whether node 0 is of a kind that it descends to
and node 1 does not, or of one the other way round, both of them leaves, in random order. A step
is an edge of a shortest path.

What the paper leaves open, and its statistics (table 2) do not; see `PAPER` and `statistics`:

- the size: `NODES`, with those that no edge touches, which no sentence names and nobody counts;
- whether parents are drawn with replacement: without, as no sentence of the paper's example repeats
  (with, a seventh of the edges would);
- the depth of a node: the longest way to it, for the shortest makes fewer shortest paths than the
  paper has;
- how many people there are: at most `MAX_PEOPLE`, as in both of the paper's examples, for a graph
  with more of them has fewer edges for its nodes than the paper's;
- which leaf is the answer: the farthest, `MIN_STEPS` to `MAX_STEPS` away, the lengths of the public
  set; of the problems with the fewest steps a part is left out (`SHORTEST_KEPT`).

The names are ours.

The wrong kind is any leaf of node 1's, as the paper has it, and that gives some answers away: of
the two kinds the one that is farther from all people is right 78 times of 100, without a search.
The level `balanced` takes node 1's farthest leaf, from a graph where it too is as many steps away
as an answer may be; then that is right 58 times. `small` is balanced as well, and `bare` is `small`
with two words a sentence.

``python -m rsp_rl.data.prosqa --output DIR`` writes the three files, and says their statistics.
"""

from __future__ import annotations

import math
import random
import re
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TypeVar

from rsp_rl.data.made_names import KINDS, PEOPLE
from rsp_rl.data.made_steps import draw_distinct, write_from_command_line
from rsp_rl.data.step_problems import StepProblem, load_step_problems

PAPER = {"nodes": 23.0, "edges": 36.0, "shortest path": 3.8, "shortest paths": 1.6}
"""Means of the paper's set (table 2), which `statistics` of this one are held against."""

SIZES = {"train": 17_886, "validation": 300, "heldout": 500}
"""Problems of each split: the paper's (table 3)."""

NODES = 26
MAX_PEOPLE = 3
MIN_STEPS, MAX_STEPS = 3, 6
SHORTEST_KEPT = 0.5
"""Share of the problems of ``MIN_STEPS`` steps that are kept."""


@dataclass(frozen=True)
class Level:
    """What questions are like.

    Attributes:
        nodes: Of the graph while it grows.
        min_steps: Of an answer.
        max_steps: Of an answer.
        balanced: Whether the wrong kind is node 1's farthest leaf and not any.
        bare: Whether a sentence is its two names alone: `Rosa tasvet.`, and asked is `Rosa tasvet
            kovnik?`.
    """

    nodes: int = NODES
    min_steps: int = MIN_STEPS
    max_steps: int = MAX_STEPS
    balanced: bool = False
    bare: bool = False


LEVELS = {
    "paper": Level(),
    "balanced": Level(balanced=True),
    "small": Level(nodes=8, min_steps=2, max_steps=3, balanced=True),
    "bare": Level(nodes=8, min_steps=2, max_steps=3, balanced=True, bare=True),
}
"""By name. The last two are for models from nothing on a laptop: `small` has a quarter of the
tokens, `bare` a seventh."""

_MEAN_PARENTS = 1.5
_ONE_SIDED = 0.35
_DEPTH_WEIGHT = 1.5

#: Of a sentence and of what is asked; by whether they are bare.
_WORDINGS = {
    False: (r"(?:Every )?(\w+) is an? (\w+)\.", r"Is (\w+) an? (\w+) or (\w+)\?"),
    True: (r"(\w+) (\w+)\.", r"(\w+) (\w+) (\w+)\?"),
}

#: A number while a graph grows, a name once it is worded.
Node = TypeVar("Node", int, str)

#: Of whom a node descends: bits, so that a node with parents of both sides is of both.
_NEITHER, _FIRST, _SECOND = 0, 1, 2


@dataclass(frozen=True)
class Graph:
    """What a question states.

    Attributes:
        edges: Who or what is of which kind, in the order of the sentences.
        person: Who is asked about.
        choices: The two kinds, in their order.
        bare: Whether sentences are names alone, see `Level`.
    """

    edges: tuple[tuple[str, str], ...]
    person: str
    choices: tuple[str, str]
    bare: bool = False

    @property
    def children(self) -> dict[str, list[str]]:
        """By node, those that an edge leads to, in the order of the sentences."""
        return _children(self.edges)


def generate(split: str, size: int, seed: int = 0, level: str = "paper") -> list[StepProblem]:
    """Draws distinct problems of one split; see `rsp_rl.data.made_steps.draw_distinct`.

    Args:
        split: See there.
        size: See there.
        seed: See there.
        level: One of ``LEVELS``.
    """
    return draw_distinct(partial(_problem, level=LEVELS[level]), split, size, seed)


def read_graph(question: str) -> Graph:
    """The graph of a question of this set or of the paper's, whose sentences are alike.

    Raises:
        ValueError: It is worded otherwise.
    """
    *sentences, asked = re.split(r"(?<=[.])\s+", question.strip())
    for bare, (of_edge, of_all) in _WORDINGS.items():
        edges = [re.fullmatch(of_edge, sentence) for sentence in sentences]
        last = re.fullmatch(of_all, asked)
        if last is not None and None not in edges:
            person, *choices = last.groups()
            return Graph(tuple(edge.groups() for edge in edges), person, tuple(choices), bare)
    raise ValueError(f"no question of ProsQA: {question!r:.200}")


def distances(
    edges: Iterable[tuple[Node, Node]], start: Node
) -> tuple[dict[Node, int], dict[Node, int]]:
    """How far nodes are from one of them.

    Args:
        edges: From where to where.
        start: The one.

    Returns:
        By node that can be reached, the number of edges of a shortest path, and how many such
        paths there are.
    """
    children = _children(edges)
    far, paths = {start: 0}, {start: 1}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for child in children.get(node, ()):
            if child not in far:
                far[child] = far[node] + 1
                paths[child] = 0
                queue.append(child)
            if far[child] == far[node] + 1:
                paths[child] += paths[node]
    return far, paths


def statistics(problems: Iterable[StepProblem]) -> dict[str, float]:
    """Means over problems under the names of ``PAPER``, read from their texts.

    Nodes are those that a sentence names; of the shortest paths, those from the person to the
    answer are counted.
    """
    rows = []
    for problem in problems:
        graph = read_graph(problem.question)
        far, paths = distances(graph.edges, graph.person)
        [answer] = [choice for choice in graph.choices if choice in far]
        nodes = {node for edge in graph.edges for node in edge}
        rows.append((len(nodes), len(graph.edges), far[answer], paths[answer]))
    return {
        name: sum(row) / len(row) for name, row in zip(PAPER, zip(*rows, strict=True), strict=True)
    }


def _children(edges: Iterable[tuple[Node, Node]]) -> dict[Node, list[Node]]:
    children: dict[Node, list[Node]] = {}
    for parent, child in edges:
        children.setdefault(parent, []).append(child)
    return children


def _problem(rng: random.Random, level: Level) -> StepProblem:
    """Draws graphs until one can be asked about."""
    while True:
        edges, sides = _grow(rng, level.nodes)
        parents = {parent for parent, _ in edges}
        people = parents - {child for _, child in edges}
        if len(people | {0, 1}) > MAX_PEOPLE:
            continue
        leaves = [node for node in range(2, level.nodes) if node not in parents]
        (far, _), (off, _) = distances(edges, 0), distances(edges, 1)
        lengths = range(level.min_steps, level.max_steps + 1)
        right = [n for n in leaves if sides[n] == _FIRST and far[n] in lengths]
        wrong = [n for n in leaves if sides[n] == _SECOND]
        if level.balanced:
            wrong = [n for n in wrong if off[n] in lengths]
        if not right or not wrong:
            continue
        answer = max(right, key=far.__getitem__)
        if far[answer] == level.min_steps and rng.random() >= SHORTEST_KEPT:
            continue
        path = _shortest_path(rng, edges, far, answer)
        other = max(wrong, key=off.__getitem__) if level.balanced else rng.choice(wrong)
        return _worded(rng, edges, people, path, other, level)


def _grow(rng: random.Random, nodes: int) -> tuple[list[tuple[int, int]], list[int]]:
    """The algorithm: edges, and by node of whom it descends."""
    sides, depths = [_FIRST, _SECOND], [0, 0]
    edges = []
    for node in range(2, nodes):
        wanted = _poisson(rng)
        share = rng.random()
        if share <= _ONE_SIDED:
            candidates = [n for n in range(node) if sides[n] in (_NEITHER, _FIRST)]
        elif share <= 2 * _ONE_SIDED:
            candidates = [n for n in range(node) if sides[n] in (_NEITHER, _SECOND)]
        else:
            candidates = list(range(node))
        side, depth = _NEITHER, 0
        for _ in range(min(wanted, len(candidates))):
            weights = [_DEPTH_WEIGHT * depths[n] + 1 for n in candidates]
            [parent] = rng.choices(candidates, weights)
            candidates.remove(parent)
            edges.append((parent, node))
            side |= sides[parent]
            depth = max(depth, depths[parent] + 1)
        sides.append(side)
        depths.append(depth)
    return edges, sides


def _poisson(rng: random.Random) -> int:
    """How many events before uniform numbers multiply to less than exp(-mean)."""
    count, product = 0, rng.random()
    while product > math.exp(-_MEAN_PARENTS):
        count += 1
        product *= rng.random()
    return count


def _shortest_path(
    rng: random.Random, edges: Sequence[tuple[int, int]], far: Mapping[int, int], end: int
) -> list[int]:
    """One of the shortest paths from where the distances begin, at random."""
    path = [end]
    while far[path[0]]:
        before = far[path[0]] - 1
        path.insert(0, rng.choice([p for p, c in edges if c == path[0] and far.get(p) == before]))
    return path


def _worded(
    rng: random.Random,
    edges: Sequence[tuple[int, int]],
    people: set[int],
    path: Sequence[int],
    wrong: int,
    level: Level,
) -> StepProblem:
    nodes = level.nodes
    kinds, persons = iter(rng.sample(KINDS, nodes)), iter(rng.sample(PEOPLE, MAX_PEOPLE))
    names = [next(persons) if node in people else next(kinds) for node in range(nodes)]
    sentence = partial(_sentence, names, people, level.bare)
    sentences = [sentence(*edge) for edge in edges]
    rng.shuffle(sentences)
    choices = [names[path[-1]], names[wrong]]
    rng.shuffle(choices)
    asked = f"Is {names[0]} a {choices[0]} or {choices[1]}?"
    if level.bare:
        asked = f"{names[0]} {choices[0]} {choices[1]}?"
    return StepProblem(
        " ".join([*sentences, asked]),
        tuple(sentence(*edge) for edge in pairwise(path)),
        sentence(0, path[-1]),
    )


def _sentence(names: Sequence[str], people: set[int], bare: bool, of: int, kind: int) -> str:
    if bare:
        return f"{names[of]} {names[kind]}."
    every = "" if of in people else "Every "
    return f"{every}{names[of]} is a {names[kind]}."


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; bad input ends with one message and exit status 2."""
    paths = write_from_command_line(
        *("rsp_rl.data.prosqa", "ProsQA", SIZES, argv),
        {level: partial(generate, level=level) for level in LEVELS},
    )
    for split, path in paths.items():
        found = statistics(load_step_problems(str(path)))
        means = ", ".join(f"{name} {found[name]:.2f} ({PAPER[name]})" for name in PAPER)
        print(f"{split}: means, and the paper's: {means}", file=sys.stderr)


if __name__ == "__main__":
    main()
