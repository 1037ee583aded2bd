"""What thoughts hold probable: by whole forward passes, and by graphs worked out by hand."""

from __future__ import annotations

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rsp_rl.analysis.latent_probes import Reading, Stop, read
from rsp_rl.analysis.latent_tree import (
    ANSWER,
    ENTROPY,
    EVEN,
    LIKELIEST,
    REACHABLE,
    RIGHT,
    STEP,
    Read,
    Tree,
    analyse,
    embedding_norms,
    layered,
    read_trees,
    shares_by_distance,
    thought_norms,
    to_markdown,
)
from rsp_rl.basics.errors import ConfigError
from rsp_rl.cli import main
from rsp_rl.data import arithmetic_steps, prosqa
from rsp_rl.data.step_problems import StepProblem, write_step_problems
from rsp_rl.latent.folder import Thinking, load_thinker, save_thinker
from rsp_rl.latent.problem_tokens import question_text, tokenize
from rsp_rl.latent.scratch import make_model
from rsp_rl.latent.settings import Settings

#: Rosa reaches a, b, c and d; only by a, b and c the answer, c. Ivo's are e and b, and f is e's.
QUESTION = (
    "Rosa is a aa. Every aa is a bb. Rosa is a dd. Every bb is a cc. Ivo is a ee. Every ee is a "
    "ff. Ivo is a bb. Is Rosa a ff or cc?"
)
PROBLEM = StepProblem(QUESTION, ("Rosa is a aa.", "Every aa is a bb.", "Every bb is a cc."), "x")
KINDS = ("aa", "bb", "dd", "cc", "ee", "ff")
SETTINGS = Settings(max_stage=2, thoughts_per_step=2)
NO_NORMS = np.zeros(0)


def reading(*names: float, stem: float = 0.5, answer: float = 0.25, norms=NO_NORMS) -> Reading:
    return Reading(np.array(names), stem, answer, norms)


def thinker_of(folder, settings: Settings = SETTINGS):
    thinker = load_thinker(folder, torch.float64)
    thinker.thinking = Thinking.of(settings)
    return thinker


@pytest.fixture(scope="module")
def sums_model(tmp_path_factory):
    """A random model whose tokenizer knows sums: names of ProsQA are several tokens each."""
    problems = arithmetic_steps.generate("train", 64)
    sizes = {"layers": 2, "hidden_size": 32, "heads": 2, "context": 2048}
    return make_model(tmp_path_factory.mktemp("sums"), problems, **sizes)


@pytest.fixture(scope="module")
def words_model(tmp_path_factory):
    """One that knows ProsQA's words, a token each."""
    sizes = {"layers": 2, "hidden_size": 32, "heads": 2, "context": 512}
    return make_model(tmp_path_factory.mktemp("words"), prosqa.generate("train", 200), **sizes)


@pytest.fixture(scope="module")
def bare_model(tmp_path_factory):
    """One that knows the words of bare problems, also where they begin a line."""
    problems = prosqa.generate("train", 200, level="bare")
    sizes = {"layers": 2, "hidden_size": 32, "heads": 2, "context": 512}
    return make_model(tmp_path_factory.mktemp("bare"), problems, **sizes)


@pytest.fixture(scope="module")
def problems():
    return prosqa.generate("heldout", 6)


@pytest.fixture(scope="module")
def bare_problems():
    return prosqa.generate("heldout", 12, level="bare")


def stop_of(thinker, problem: StepProblem, thoughts: int) -> Stop:
    tree, text = Tree.of(problem.question), question_text(problem)
    question = tuple(thinker.tokenizer.encode(text, add_special_tokens=False))
    return Stop(question, thoughts, tree.stem(thoughts), tree.kinds)


def naive(thinker, stop: Stop, name: str) -> tuple[float, float, float, list[float]]:
    """Probability of name, stem and answer's mark by whole passes, and the thoughts' norms."""
    model, markers = thinker.model, thinker.markers
    table = model.get_input_embeddings()

    def ids(text: str) -> list[int]:
        return thinker.tokenizer.encode(text, add_special_tokens=False)

    def forward(inputs):
        out = model(inputs_embeds=inputs, output_hidden_states=True, use_cache=False)
        return out.hidden_states[-1], out.logits[0].log_softmax(-1)

    inputs = table(torch.tensor([[*stop.question, markers.begin]]))
    norms = []
    for _ in range(stop.thoughts):
        if thinker.thinking.method == "coconut":
            thought = forward(inputs)[0][:, -1:]
            norms.append(float(thought.norm()))
        else:
            thought = table(torch.tensor([[markers.latent]]))
        inputs = torch.cat([inputs, thought], dim=1)
    inputs = torch.cat([inputs, table(torch.tensor([[markers.end]]))], dim=1)
    start = inputs.shape[1] - 1
    stem, whole = ids(stop.stem), ids(f"{stop.stem} {name}" if stop.stem else name)
    inputs = torch.cat([inputs, table(torch.tensor([whole]))], dim=1)
    log_probs = forward(inputs)[1]
    chosen = [float(log_probs[start + i, token]) for i, token in enumerate(whole)]
    answer = math.exp(float(log_probs[start, ids("###")[0]]))
    own = math.exp(sum(chosen[len(stem) :]))
    return own, math.exp(sum(chosen[: len(stem)])), answer, norms


@pytest.mark.parametrize("method", ["coconut", "pause_as_thought"])
@pytest.mark.parametrize("model", ["sums_model", "words_model"])
def test_probabilities_are_those_of_whole_passes(model, method, problems, request):
    thinker = thinker_of(request.getfixturevalue(model), replace(SETTINGS, method=method))
    stops = []
    for k, problem in [(0, problems[0]), (3, problems[0]), (3, problems[1]), (1, problems[2])]:
        stops.append(stop_of(thinker, problem, k))
    one_token = [len(thinker.tokenizer.encode(f" {kind}")) == 1 for kind in stops[0].names]
    assert all(one_token) == (model == "words_model")
    with torch.no_grad():
        for stop, found in zip(stops, read(thinker, stops, batch_size=3), strict=True):
            for name, value in zip(stop.names, found.names, strict=True):
                own, stem, answer, norms = naive(thinker, stop, name)
                assert value == pytest.approx(own, rel=1e-9)
            assert found.stem == pytest.approx(stem, rel=1e-9)
            assert found.answer == pytest.approx(answer, rel=1e-9)
            assert found.norms == pytest.approx(norms, rel=1e-9)


@pytest.mark.parametrize("method", ["coconut", "pause_as_thought"])
@pytest.mark.parametrize("model", ["sums_model", "bare_model"])
def test_probabilities_of_bare_steps_are_those_of_whole_passes(
    model, method, bare_problems, request
):
    """A later step begins with the kind: without a space before it, as the line begins."""
    thinker = thinker_of(request.getfixturevalue(model), replace(SETTINGS, method=method))
    stops = [stop_of(thinker, bare_problems[n], k) for n, k in [(0, 0), (0, 2), (1, 1), (2, 3)]]
    one_token = [len(thinker.tokenizer.encode(kind)) == 1 for kind in stops[1].names]
    assert all(one_token) == (model == "bare_model")
    with torch.no_grad():
        for stop, found in zip(stops, read(thinker, stops, batch_size=3), strict=True):
            passes = [naive(thinker, stop, name) for name in stop.names]
            assert found.names.tolist() == pytest.approx([own for own, *_ in passes], rel=1e-9)
            _, stem, answer, norms = passes[0]
            assert found.answer == pytest.approx(answer, rel=1e-9)
            assert found.norms == pytest.approx(norms, rel=1e-9)
            if not stop.stem:
                assert stem == 1  # of nothing; told is that one of the kinds comes
                stem = sum(own for own, *_ in passes)
            assert found.stem == pytest.approx(stem, rel=1e-9)


def test_a_bare_step_is_read_at_the_tokens_that_it_is_trained_on(bare_model, bare_problems):
    """The names' tokens are those of the gold steps, whose kinds begin a line but in the first."""
    thinker = thinker_of(bare_model)
    for problem, tokens in zip(
        bare_problems, tokenize(bare_problems, thinker.tokenizer), strict=True
    ):
        for k, (step, ids) in enumerate(zip(problem.steps, tokens.steps, strict=True)):
            stop = stop_of(thinker, problem, k)
            kind = step.split()[0 if k else 1].removesuffix(".")
            whole = f"{stop.stem} {kind}" if stop.stem else kind
            begun = thinker.tokenizer.encode(whole, add_special_tokens=False)
            assert ids[: len(begun)] == tuple(begun)


def test_a_tokenizer_that_joins_stem_and_name(words_model):
    thinker = thinker_of(words_model)
    stop = Stop((1, 2), 1, "Every fim", ("x",))
    joined = type("Joined", (), {"__call__": lambda *_, **__: self_ids})
    self_ids = type("Ids", (), {"input_ids": [[1, 2], [1, 3, 4]]})
    thinker.tokenizer = joined()
    with pytest.raises(ConfigError, match="joins 'Every fim' with 'x'"):
        list(read(thinker, [stop]))


def test_a_graph():
    tree = Tree.of(QUESTION)
    assert (tree.person, tree.answer, tree.kinds) == ("Rosa", "cc", KINDS)
    assert tree.distances == {"Rosa": 0, "aa": 1, "dd": 1, "bb": 2, "cc": 3}
    assert tree.right == {"aa", "bb", "cc"}
    assert tree.steps == 3
    assert [tree.stem(k) for k in (0, 1)] == ["Rosa is a", "Every"]
    bare = Tree.of("Rosa aa. aa bb. Rosa dd. bb cc. Ivo ee. ee ff. Ivo bb. Rosa ff cc?")
    assert bare == replace(tree, bare=True)
    assert [bare.stem(k) for k in (0, 1)] == ["Rosa", ""]
    assert [tree.next(k) for k in range(4)] == [["aa", "dd"], ["aa", "dd"], ["bb"], ["cc"]]


def test_measures_of_a_reading():
    names = reading(0.2, 0.1, 0.05, 0.05, 0.1, 0.0)  # half of all is no kind's
    found = Read(0, 1, Tree.of(QUESTION), names)
    assert found.shares == pytest.approx(
        dict(zip(KINDS, (0.4, 0.2, 0.1, 0.1, 0.2, 0.0), strict=True))
    )
    entropy = -sum(p * math.log(p) for p in (0.4, 0.2, 0.1, 0.1, 0.2))
    assert found.measures == pytest.approx(
        {RIGHT: 0.7, EVEN: 0.5, REACHABLE: 0.8, ENTROPY: entropy, LIKELIEST: 1, STEP: 0.5}
        | {ANSWER: 0.25}
    )
    assert found.by_distance(3).tolist() == pytest.approx([0.5, 0.2, 0.1, 0.2])
    wrong = replace(found, reading=reading(0.1, 0.1, 0.3, 0.1, 0.2, 0.2))
    assert wrong.measures[LIKELIEST] == 0


def test_distances_of_problems_with_graphs_of_other_depths():
    deep = Read(0, 0, Tree.of(QUESTION), reading(1, 0, 0, 0, 0, 1))
    flat = Tree.of("Rosa is a aa. Ivo is a bb. Is Rosa a aa or bb?")
    found = shares_by_distance([deep, Read(1, 0, flat, reading(1, 1))])
    assert found[0].tolist() == pytest.approx([0.5, 0, 0, 0.5])


def test_norms_are_those_of_the_most_thoughts():
    tree = Tree.of(QUESTION)
    stops = [(0, 0, []), (0, 1, [2.0]), (0, 2, [2.0, 4.0]), (1, 0, []), (1, 1, [6.0])]
    found = [Read(n, k, tree, reading(*[1] * 6, norms=np.array(x))) for n, k, x in stops]
    assert [values.tolist() for values in thought_norms(found)] == [[2, 6], [4]]


def test_a_problem_is_read_at_the_steps_that_it_has(words_model, problems):
    thinker = thinker_of(words_model)
    found = read_trees(thinker, problems)
    assert {one.k for one in found} == {0, 1, 2}
    short = read_trees(thinker, problems, most=0)
    assert [one.problem for one in short] == [*range(6)]
    long = read_trees(thinker, problems, most=9)
    for number, problem in enumerate(problems):
        assert [one.k for one in long if one.problem == number] == [*range(len(problem.steps))]
    norms = thought_norms(found)
    assert [len(values) for values in norms] == [6] * 4  # two a step


def test_the_next_node_of_a_layer_lies_below_its_parent():
    places = layered(Tree.of(QUESTION))
    assert places["Rosa"] == (0, 0)
    assert {name: y for name, (_, y) in places.items()} == {
        "Rosa": 0, "aa": -1, "dd": -1, "bb": -2, "cc": -3,
    }  # fmt: skip
    assert len({*places.values()}) == 5


def test_files(words_model, tmp_path, capsys):
    model = tmp_path / "model"
    save_thinker(model, thinker_of(words_model))
    data = tmp_path / "heldout.jsonl"
    write_step_problems(data, prosqa.generate("heldout", 8))
    command = ["analyze", "latent-tree", str(model), "--data", str(data), "--problems", "5"]
    assert main([*command, "--output", str(tmp_path / "out"), "--drawn", "3"]) == 0
    names = ("latent_tree.md", "latent_tree.csv", "latent_tree.png", "latent_tree.kinds.csv")
    assert all((tmp_path / "out" / name).is_file() for name in names)
    rows = list(csv.DictReader((tmp_path / "out" / "latent_tree.kinds.csv").open()))
    assert {row["problem"] for row in rows} == set("01234")
    shares = [float(row["share"]) for row in rows if (row["problem"], row["k"]) == ("0", "0")]
    assert sum(shares) == pytest.approx(1)
    table = (tmp_path / "out" / "latent_tree.md").read_text()
    assert table in capsys.readouterr().out
    assert "| thought 4 |" in table
    assert "| thought 5 |" not in table


def test_files_of_bare_problems(bare_model, bare_problems, tmp_path):
    analyse(thinker_of(bare_model), bare_problems, tmp_path)
    assert (tmp_path / "latent_tree.png").is_file()
    rows = list(csv.DictReader((tmp_path / "latent_tree.csv").open()))
    begins = {row["k"]: float(row["value"]) for row in rows if row["measure"] == STEP}
    assert begins.keys() == {"0", "1", "2"}
    assert all(0 < value < 1 for value in begins.values())


def test_pauses_have_no_norms(words_model, problems, tmp_path):
    thinker = thinker_of(words_model, replace(SETTINGS, method="pause_as_thought"))
    analyse(thinker, problems, tmp_path)
    table = (tmp_path / "latent_tree.md").read_text()
    assert "| embedding table |" in table
    assert "| thought 1 |" not in table
    assert to_markdown(read_trees(thinker, problems), [], embedding_norms(thinker)) == table


class TestRefused:
    def test_a_method_without_thoughts(self, words_model, problems):
        thinker = thinker_of(words_model, replace(SETTINGS, method="cot"))
        with pytest.raises(ConfigError, match="method cot has neither thoughts nor pauses"):
            read_trees(thinker, problems)

    def test_other_problems(self, words_model, problems):
        other = [problems[0], *arithmetic_steps.generate("heldout", 1)]
        with pytest.raises(ConfigError, match=r"f\.jsonl, problem 1: no question of ProsQA"):
            read_trees(thinker_of(words_model), other, "f.jsonl")

    def test_an_answer_that_both_or_none_are(self):
        with pytest.raises(ValueError, match="2 of the two kinds are reached from Rosa"):
            Tree.of("Rosa is a aa. Rosa is a bb. Is Rosa a aa or bb?")

    def test_more_thoughts_than_the_context_holds(self, words_model, problems):
        thinker = thinker_of(words_model)
        texts = [question_text(problem) for problem in problems]
        question = max(map(len, thinker.tokenizer(texts).input_ids))
        # Two markers and `Rosa is a`; a name of one token is what follows and is not read itself.
        thinker.model.config.n_positions = question + 5
        read_trees(thinker, problems, most=0)
        thinker.model.config.n_positions -= 1
        with pytest.raises(ConfigError, match=r"take fewer thoughts"):
            read_trees(thinker, problems, most=0)

    def test_a_tree_that_is_not_there(self, words_model, problems, tmp_path):
        with pytest.raises(ConfigError, match="--drawn 6: the file has 6 problems"):
            analyse(thinker_of(words_model), problems, tmp_path, drawn=6)
