"""ProsQA: the paper's statistics, and of two answers one that can be reached, by the steps."""

from __future__ import annotations

import math
import re
import statistics
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.data.prosqa import (
    LEVELS,
    MAX_PEOPLE,
    PAPER,
    distances,
    generate,
    main,
    read_graph,
)
from rsp_rl.data.prosqa import statistics as means
from rsp_rl.data.step_problems import StepProblem
from tests.properties import examples

#: A graph by hand: two shortest paths of two edges, and one of three.
BY_HAND = StepProblem(
    "Ada is a bim. Ada is a dop. Every bim is a kel. Every dop is a kel. Every bim is a dop. "
    "Otto is a lum. Is Ada a lum or kel?",
    ("Ada is a bim.", "Every bim is a kel."),
    "Ada is a kel.",
)

#: By how much problems differ (standard deviations, of 4,000).
SPREADS = {"nodes": 1.6, "edges": 5.4, "shortest path": 0.8, "shortest paths": 0.9}


def test_statistics_by_hand() -> None:
    assert list(means([BY_HAND]).values()) == [6, 6, 2, 2]
    longer = StepProblem("Ada is a bim. Otto is a kel. Is Ada a kel or bim?", (), "Ada is a bim.")
    assert list(means([BY_HAND, longer]).values()) == [5, 4, 1.5, 1.5]


def test_a_question_is_read_as_it_is_written() -> None:
    graph = read_graph(BY_HAND.question)
    assert graph.edges[:3] == (("Ada", "bim"), ("Ada", "dop"), ("bim", "kel"))
    assert (graph.person, graph.choices) == ("Ada", ("lum", "kel"))
    assert graph.children == {
        **{"Ada": ["bim", "dop"], "bim": ["kel", "dop"], "dop": ["kel"], "Otto": ["lum"]}
    }
    assert distances(graph.edges, "Ada")[0] == {"Ada": 0, "bim": 1, "dop": 1, "kel": 2}
    for other in ("What is 1+1?", "Every a is a b. True or false: a is b.", ""):
        with pytest.raises(ValueError, match="no question of ProsQA"):
            read_graph(other)


def test_a_bare_question_is_read_as_it_is_written() -> None:
    graph = read_graph("Rosa tasvet. tasvet kovnik. Ivo belnik. Rosa belnik kovnik?")
    assert graph.edges == (("Rosa", "tasvet"), ("tasvet", "kovnik"), ("Ivo", "belnik"))
    assert (graph.person, graph.choices, graph.bare) == ("Rosa", ("belnik", "kovnik"), True)
    assert not read_graph(BY_HAND.question).bare
    for mixed in (
        "Rosa tasvet. tasvet kovnik. Is Rosa a belnik or kovnik?",
        "Rosa is a tasvet. Rosa belnik tasvet?",
        "Rosa tasvet kovnik. Rosa belnik kovnik?",
        "Rosa tasvet. Rosa tasvet?",
    ):
        with pytest.raises(ValueError, match="no question of ProsQA"):
            read_graph(mixed)


def test_bare_problems_are_those_of_small_in_fewer_words() -> None:
    """The same draws; a sentence, a step and the answer lose all but their names."""
    small, bare = (generate("heldout", 50, 3, level) for level in ("small", "bare"))

    def shortened(text: str) -> str:
        return re.sub(r"\b(Every|Is|is a|a|or) ", "", text)

    for long, short in zip(small, bare, strict=True):
        assert short.question == shortened(long.question)
        assert short.steps == tuple(map(shortened, long.steps))
        assert short.answer == shortened(long.answer)
    assert all(len(step.split()) == 2 for problem in bare for step in problem.steps)


@pytest.mark.parametrize("level", ["paper", "balanced"])
def test_statistics_are_the_papers(level: str) -> None:
    """Within four times what the means of sets of 500 differ by: so many has the paper's test set.

    Where theirs are means of such a set, they are as uncertain.
    """
    sets = [means(generate("heldout", 500, seed, level)) for seed in range(4)]
    for name, paper in PAPER.items():
        found = [one[name] for one in sets]
        deviation = SPREADS[name] / math.sqrt(500)
        assert statistics.stdev(found) < 3 * deviation
        assert abs(statistics.mean(found) - paper) < 4 * deviation, name


@examples(40)
@given(
    seed=st.integers(),
    split=st.sampled_from(["train", "heldout"]),
    level=st.sampled_from([*LEVELS]),
)
def test_one_of_two_is_reached_and_the_steps_are_a_shortest_way(
    seed: int, split: str, level: str
) -> None:
    [problem] = generate(split, 1, seed, level)
    graph = read_graph(problem.question)
    far, _ = distances(graph.edges, graph.person)
    [answer] = [choice for choice in graph.choices if choice in far]
    [wrong] = [choice for choice in graph.choices if choice not in far]
    assert graph.bare == LEVELS[level].bare
    assert problem.answer == f"{graph.person}{'' if graph.bare else ' is a'} {answer}."

    stated = problem.question.split(". ")
    assert all(step.removesuffix(".") in stated for step in problem.steps)
    asked = f"x {wrong} {answer}?" if graph.bare else f"Is x a {wrong} or {answer}?"
    steps = read_graph(" ".join([*problem.steps, asked])).edges
    assert (steps[0][0], steps[-1][1]) == (graph.person, answer)
    assert all(a[1] == b[0] for a, b in pairwise(steps))
    assert len(steps) == far[answer]
    assert LEVELS[level].min_steps <= len(steps) <= LEVELS[level].max_steps
    assert len({node for edge in graph.edges for node in edge}) <= LEVELS[level].nodes

    assert len({*graph.edges}) == len(graph.edges)
    children, kinds = graph.children, {kind for _, kind in graph.edges}
    assert not {answer, wrong} & children.keys()
    people = children.keys() - kinds
    assert 2 <= len(people) <= MAX_PEOPLE
    assert all(person[0].isupper() for person in people)
    reach = {person: distances(graph.edges, person)[0] for person in people}
    assert any(wrong in found and answer not in found for found in reach.values())
    if (sizes := LEVELS[level]).balanced:
        lengths = [found.get(wrong, 0) for found in reach.values()]
        assert any(sizes.min_steps <= length <= sizes.max_steps for length in lengths)


def test_the_order_of_the_two_tells_nothing() -> None:
    problems = generate("train", 600)
    first = sum(read_graph(p.question).choices[0] == p.answer.split()[-1][:-1] for p in problems)
    assert abs(first - 300) < 4 * math.sqrt(600) / 2


@pytest.mark.parametrize(("level", "right"), zip(LEVELS, (0.78, 0.57, 0.54, 0.54), strict=True))
def test_what_the_farther_kind_gives_away(level: str, right: float) -> None:
    """As the module says; a change of the generator that gives more away shows here."""
    hits = 0.0
    problems = generate("train", 1000, level=level)
    for problem in problems:
        graph = read_graph(problem.question)
        people = graph.children.keys() - {kind for _, kind in graph.edges}
        found = [distances(graph.edges, person)[0] for person in people]
        near = {kind: min(far.get(kind, 99) for far in found) for kind in graph.choices}
        answer = problem.answer.split()[-1].removesuffix(".")
        [wrong] = {*graph.choices} - {answer}
        hits += (near[answer] > near[wrong]) + 0.5 * (near[answer] == near[wrong])
    assert abs(hits / 1000 - right) < 4 * 0.5 / math.sqrt(1000)


def test_the_command_line_says_the_statistics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--train-size", "20", "--validation-size", "5", "--heldout-size", "5"]
    main(["--output", str(tmp_path), "--level", "balanced", *sizes])
    said = capsys.readouterr().err
    assert "train: means, and the paper's: nodes 2" in said
    assert "(23.0)" in said
