"""Protocols: the shipped files are the papers', overrides, seeds and subsets that never change."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data.benchmarks import BENCHMARKS, Problem
from rsp_rl.data.templates import TEMPLATES
from rsp_rl.dials.options import RspOptions
from rsp_rl.evaluation.protocol import (
    PROTOCOLS,
    BenchmarkPlan,
    Protocol,
    choose_problems,
    load_protocol,
)
from rsp_rl.inference.prompts import sample_seed
from rsp_rl.placement.prompt import INSTRUCTION
from rsp_rl.thoughts.settings import ThoughtSettings
from tests.unit.other_process import printed

SHIPPED = (
    *("multiplex", "quick", "rsp_inference", "rsp_paper", "simplerl_zoo", "soft_thinking"),
    *("soft_thinking_dirichlet", "soft_thinking_gumbel", "sums", "sums_digits", "tiny"),
)
#: In tests/unit/evaluation/test_modes.py.
WITH_MODES = ("soft_tokens",)


def _plans(protocol: Protocol) -> dict[str, BenchmarkPlan]:
    return {plan.benchmark: plan for plan in protocol.benchmarks}


# The shipped files.


def test_rsp_paper_is_its_table_11() -> None:
    protocol = load_protocol("rsp_paper")
    greedy = ("math500", "gsm8k", "olympiadbench", "minerva_math", "gaokao2023en", "college_math")
    table = {name: (0.0, 1) for name in greedy} | {name: (1.0, 32) for name in ("aime24", "amc23")}
    plans = _plans(protocol)
    assert {name: (plan.temperature, plan.samples) for name, plan in plans.items()} == table
    assert all((plan.top_p, plan.top_k, plan.limit) == (1, 0, None) for plan in plans.values())
    assert (protocol.template, protocol.max_tokens) == ("qwen-boxed", 16_000)
    assert set(protocol.headline) == {"gsm8k", "math500", "college_math", "minerva_math", "aime24"}
    assert (protocol.stop, protocol.rsp.enabled) == ((), False)
    assert sum(BENCHMARKS[name].problems * plan.samples for name, plan in plans.items()) == 8_209


def test_simplerl_zoo_samples_from_a_nucleus() -> None:
    protocol = load_protocol("simplerl_zoo")
    assert set(_plans(protocol)) == set(BENCHMARKS) - {"arithmetic", "sums", "sums_digits"}
    assert {(plan.temperature, plan.top_p) for plan in protocol.benchmarks} == {(1.0, 0.95)}
    assert protocol.stop == ()


def test_simplerl_zoos_stop_words_are_written_beside_it() -> None:
    text = (PROTOCOLS / "simplerl_zoo.yaml").read_text()
    commented = [line for line in text.splitlines() if line.startswith("# stop:")]
    stop = load_protocol(
        "simplerl_zoo", [commented[0].removeprefix("# ").replace(": ", "=", 1)]
    ).stop
    assert stop == ("</s>", "<|im_end|>", "<|endoftext|>", "assistant", "user", "_end", "_start")


def test_rsp_inference_asks_what_table_7_is_of() -> None:
    protocol = load_protocol("rsp_inference")
    asked = (BenchmarkPlan("math500"), BenchmarkPlan("gsm8k"))
    assert protocol.benchmarks == (*asked, BenchmarkPlan("aime24", max_tokens=4_096))
    limits = {name: protocol.max_tokens_of(name) for name in _plans(protocol)}
    assert limits == {"math500": 3_072, "gsm8k": 3_072, "aime24": 4_096}
    assert sum(BENCHMARKS[name].problems for name in _plans(protocol)) == 1_849
    assert TEMPLATES[protocol.template].text("Q").startswith(f"<|im_start|>system\n{INSTRUCTION}")


def test_quick_is_a_fraction_of_the_paper() -> None:
    quick, paper = load_protocol("quick"), load_protocol("rsp_paper")
    assert quick.headline == paper.headline
    assert set(quick.headline) == set(_plans(quick))
    for plan in quick.benchmarks:
        assert plan.limit is None or plan.limit < BENCHMARKS[plan.benchmark].problems
    assert sum((p.limit or 30) * p.samples for p in quick.benchmarks) < 800


def test_tiny_asks_the_cpu_recipes_problems() -> None:
    protocol = load_protocol("tiny")
    assert protocol.benchmarks == (BenchmarkPlan("arithmetic"),)
    assert (protocol.template, protocol.max_tokens) == ("plain-chat", 40)
    assert protocol.headline == ("arithmetic",)
    assert BENCHMARKS["arithmetic"].problems == 200


@pytest.mark.parametrize(
    ("name", "law", "answer"),
    [
        (
            "soft_thinking",
            {"law": "soft_thinking", "k": 10, "cold_entropy": 0.01, "cold_steps": 256},
            (0.6, 0.95, 30),
        ),
        ("soft_thinking_gumbel", {"law": "gumbel", "k": 10, "tau": 0.5}, (0.6, 0.95, 30)),
        ("soft_thinking_dirichlet", {"law": "dirichlet", "k": 10, "alpha": 4.0}, (0.6, 0.95, 30)),
        ("multiplex", {"law": "multiplex", "k": 3, "weighting": "probability"}, (1.0, 0.95, 0)),
    ],
)
def test_protocols_with_a_law_are_their_papers(name: str, law: dict, answer: tuple) -> None:
    protocol = load_protocol(name)
    given = protocol.law.to_dict()
    assert {key: given[key] for key in law} == law
    assert given["end"] == ["</think>"]
    # Answers are sampled as thoughts are, in all of them.
    assert {(p.temperature, p.top_p, p.top_k) for p in protocol.benchmarks} == {answer}
    assert (given["temperature"], given["top_p"], given["top_k"]) == answer
    samples = {plan.benchmark: plan.samples for plan in protocol.benchmarks}
    assert samples["aime24"] == (1 if protocol.law.law.deterministic else 16)


def test_every_shipped_file_is_tested() -> None:
    assert {file.stem for file in PROTOCOLS.iterdir()} == {*SHIPPED, *WITH_MODES}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_protocol_survives_json(name: str) -> None:
    protocol = load_protocol(name, ["rsp.length=20", "stop=[user]"])
    assert Protocol.from_dict(json.loads(json.dumps(protocol.to_dict()))) == protocol


# Files and overrides.


def _write(folder: Path, **changes: object) -> Path:
    content = {
        "template": "raw",
        "max_tokens": 64,
        "benchmarks": {"gsm8k": None, "aime24": {"samples": 4, "temperature": 1.0}},
        "headline": ["gsm8k"],
    } | changes
    file = folder / "mine.yaml"
    present = {key: value for key, value in content.items() if value != "absent"}
    file.write_text(yaml.safe_dump(present, sort_keys=False))
    return file


def test_a_users_file(tmp_path: Path) -> None:
    protocol = load_protocol(_write(tmp_path))
    assert protocol == Protocol(
        name="mine",
        template="raw",
        benchmarks=(BenchmarkPlan("gsm8k"), BenchmarkPlan("aime24", samples=4, temperature=1.0)),
        max_tokens=64,
        headline=("gsm8k",),
    )


def test_sampling_is_for_benchmarks_that_say_nothing_else(tmp_path: Path) -> None:
    file = _write(tmp_path, sampling={"temperature": 0.6, "top_p": 0.9, "limit": 7})
    plans = _plans(load_protocol(file))
    assert plans["gsm8k"] == BenchmarkPlan("gsm8k", temperature=0.6, top_p=0.9, limit=7)
    assert (plans["aime24"].temperature, plans["aime24"].top_p) == (1.0, 0.9)


def test_overrides(tmp_path: Path) -> None:
    file = _write(tmp_path)
    overrides = ["max_tokens=512", "rsp.length=20", "rsp.mode=shared", "seed=1", "template=abel"]
    overrides += [
        "benchmarks.gsm8k.limit=5",
        "sampling.top_k=50",
        "name=other",
        "stop=[user, _end]",
    ]
    protocol = load_protocol(str(file), overrides)
    assert (protocol.max_tokens, protocol.seed, protocol.template) == (512, 1, "abel")
    assert protocol.rsp == RspOptions(length=20, mode="shared")
    assert (protocol.name, protocol.stop) == ("other", ("user", "_end"))
    plans = _plans(protocol)
    assert plans["gsm8k"] == BenchmarkPlan("gsm8k", top_k=50, limit=5)
    assert plans["aime24"] == BenchmarkPlan("aime24", samples=4, temperature=1.0, top_k=50)


def test_a_limit_of_a_benchmarks_own(tmp_path: Path) -> None:
    file = _write(tmp_path, benchmarks={"gsm8k": None, "aime24": {"max_tokens": 99}})

    def limits(*overrides: str) -> list[int]:
        protocol = load_protocol(file, overrides)
        assert Protocol.from_dict(protocol.to_dict()) == protocol
        return [protocol.max_tokens_of(plan.benchmark) for plan in protocol.benchmarks]

    assert limits() == [64, 99]
    # What is set for all is of all; what is set for one comes after it, wherever it stands.
    assert limits("max_tokens=8") == [8, 8]
    assert limits("max_tokens=8", "benchmarks.aime24.max_tokens=9") == [8, 9]
    assert limits("benchmarks.gsm8k.max_tokens=7") == [7, 99]
    limited = load_protocol(file).fingerprint()
    with pytest.raises(ConfigError, match=r"benchmarks=.* must be a group"):
        load_protocol(_write(tmp_path, benchmarks=["gsm8k"]), ["max_tokens=8"])
    plain = load_protocol(_write(tmp_path, benchmarks={"gsm8k": None, "aime24": None}))
    assert limited != plain.fingerprint()
    assert "max_tokens" not in plain.to_dict()["benchmarks"]["aime24"]  # as in those of before


def test_a_choice_of_benchmarks(tmp_path: Path) -> None:
    file = _write(tmp_path)
    for overrides in (
        ["benchmarks=[aime24,math500]", "benchmarks.aime24.limit=3"],
        ["benchmarks.aime24.limit=3", "benchmarks=[aime24,math500]"],
    ):
        protocol = load_protocol(file, overrides)
        aime24 = BenchmarkPlan("aime24", samples=4, temperature=1.0, limit=3)
        assert protocol.benchmarks == (aime24, BenchmarkPlan("math500"))
        # Still the protocol's: a mean over fewer benchmarks would be another number.
        assert protocol.headline == ("gsm8k",)


def test_greedy_samples_differ_by_independent_soft_prompts_alone(tmp_path: Path) -> None:
    file = _write(tmp_path, benchmarks={"gsm8k": {"samples": 16}})
    assert load_protocol(file, ["rsp.length=20"]).benchmarks[0].samples == 16
    for overrides in ([], ["rsp.length=20", "rsp.mode=shared"]):
        with pytest.raises(ConfigError, match=r"benchmarks\.gsm8k: 16 greedy samples"):
            load_protocol(file, overrides)


def test_samples_of_a_law_that_draws_nothing(tmp_path: Path) -> None:
    """Whether the answer after the thoughts is sampled or not; what draws, differs."""
    file = _write(tmp_path, benchmarks={"gsm8k": {"samples": 16, "temperature": 1.0}})
    ends = ["law.end=[]", "law.max_thoughts=9"]
    nothing = (
        ["law.name=soft_thinking"],
        ["law.name=soft", "law.sigma=0"],
        ["law.name=hidden"],
        ["law.name=gumbel", "law.k=1"],
        ["law.name=multiplex", "law.top_k=1"],
        ["law.name=token", "law.min_p=1"],
    )
    for law in nothing:
        for more in ([], ["benchmarks.gsm8k.temperature=0"], ["rsp.length=4", "rsp.mode=shared"]):
            with pytest.raises(ConfigError, match=r"gsm8k: 16 samples .* draws nothing with these"):
                load_protocol(file, [*law, *ends, *more])
        load_protocol(file, [*law, *ends, "rsp.length=4"])
        load_protocol(file, [*law, *ends, "benchmarks.gsm8k.samples=1"])
    # Thoughts that differ make greedy answers differ.
    greedy = load_protocol(file, ["law.name=gumbel", *ends, "benchmarks.gsm8k.temperature=0"])
    assert greedy.benchmarks[0].samples == 16


def test_a_law_in_a_file_and_over_it(tmp_path: Path) -> None:
    file = _write(tmp_path, law={"name": "gumbel", "k": 5, "max_thoughts": 8})
    assert (load_protocol(file).law.law.k, load_protocol(file).law.max_thoughts) == (5, 8)
    changed = load_protocol(file, ["law.k=7", "law.tau=1e-3", "law.end=[</a>,</b>]"]).law
    assert (changed.law.k, changed.law.tau, changed.end) == (7, 1e-3, ("</a>", "</b>"))
    assert load_protocol(file, ["law.name=multiplex"]).law.law.name == "multiplex"
    assert load_protocol(file, ["law=null"]) == load_protocol(_write(tmp_path))
    with_rsp = load_protocol(_write(tmp_path, law={"name": "gumbel"}), ["rsp.length=20"])
    assert (with_rsp.rsp.length, with_rsp.law.law.name) == (20, "gumbel")
    assert Protocol.from_dict(json.loads(json.dumps(with_rsp.to_dict()))) == with_rsp


def test_no_comparator_beside_a_law(tmp_path: Path) -> None:
    file = _write(tmp_path, law={"name": "gumbel"})
    with pytest.raises(ConfigError, match=r"comparator.method=ltpo and law.name=gumbel"):
        load_protocol(file, ["comparator.method=ltpo"])


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"law": "gumbel"}, "law='gumbel' must be a group"),
        ({"law": {"k": 3}}, "law.name is missing; use one of token, soft_thinking"),
        ({"law": {"name": ["gumbel"]}}, "law.name is missing"),
        ({"law": {"name": "gumble"}}, "law='gumble' is unknown; use one of token"),
        ({"law": {"name": "gumbel", "kk": 3}}, "law.kk is no setting of gumbel; known: begin, "),
        ({"law": {"name": "gumbel", "k": 0}}, "law.k=0 must be a whole number of at least 1"),
        ({"law": {"name": "gumbel", "tau": 0}}, "law.tau=0.0 must be a number"),
        ({"law": {"name": "gumbel", "end": 5}}, "law.end=5 must be a list of texts"),
        ({"law": {"name": "gumbel", "end": [""]}}, "law.end=.* must be a list of texts"),
        ({"law": {"name": "gumbel", "on_cut": 5}}, "law.on_cut=5 must be a text"),
        ({"law": {"name": "gumbel", "max_thoughts": True}}, "law.max_thoughts=True must be"),
        ({"law": {"name": "gumbel", "cold_steps": 0}}, "law.cold_steps=0 must be"),
        ({"law": {"name": "gumbel", "compat": "old"}}, "law.compat=old is unknown"),
        (
            {"law": {"name": "gumbel", "max_thoughts": 64}},
            "benchmarks.gsm8k: law.max_thoughts=64 leaves no ",
        ),
        ({"tempalte": "raw"}, "unknown key tempalte; known: benchmarks, comparator"),
        ({"template": "absent"}, "template is missing"),
        ({"benchmarks": None}, "benchmarks is missing"),
        ({"headline": "absent"}, "headline is missing"),
        ({"template": "qwen"}, "template: unknown template 'qwen'; use one of qwen-boxed"),
        ({"template": ["raw"]}, "template: unknown template"),
        ({"max_tokens": 0}, "max_tokens=0 must be a whole number from 1 on"),
        ({"max_tokens": "many"}, "max_tokens='many' must be"),
        ({"max_tokens": True}, "max_tokens=True must be"),
        ({"seed": 1.5}, "seed=1.5 must be a whole number"),
        ({"name": "a/b"}, "name='a/b' must be"),
        ({"stop": "user"}, "stop='user' must be a list of texts"),
        ({"stop": [""]}, "stop=.* must be a list of texts"),
        ({"headline": ["gsm9k"]}, "headline: unknown benchmark 'gsm9k'"),
        ({"headline": []}, "headline=.* must name benchmarks, each once"),
        ({"headline": ["gsm8k", "gsm8k"]}, "headline=.* must name benchmarks, each once"),
        ({"benchmarks": {}}, "benchmarks is empty"),
        ({"benchmarks": ["gsm8k"]}, "benchmarks=.* must be a group"),
        ({"benchmarks": {"gsm9k": None}}, "benchmarks.gsm9k: unknown benchmark 'gsm9k'"),
        ({"benchmarks": {"gsm8k": 3}}, "benchmarks.gsm8k=3 must be a group"),
        ({"benchmarks": {"gsm8k": {"n": 3}}}, "unknown key benchmarks.gsm8k.n; known: limit"),
        ({"benchmarks": {"gsm8k": {"samples": 0}}}, "benchmarks.gsm8k.samples=0 must be"),
        ({"benchmarks": {"gsm8k": {"limit": 0}}}, "benchmarks.gsm8k.limit=0 must be"),
        ({"benchmarks": {"gsm8k": {"max_tokens": 0}}}, "benchmarks.gsm8k.max_tokens=0 must be"),
        ({"sampling": {"max_tokens": 9}}, "unknown key sampling.max_tokens"),
        ({"benchmarks": {"gsm8k": {"top_k": -1}}}, "benchmarks.gsm8k.top_k=-1 must be"),
        ({"benchmarks": {"gsm8k": {"top_p": 0}}}, "benchmarks.gsm8k.top_p=0 must be"),
        ({"benchmarks": {"gsm8k": {"temperature": -1}}}, "benchmarks.gsm8k.temperature=-1 must"),
        ({"sampling": {"temprature": 1}}, "unknown key sampling.temprature"),
        ({"sampling": {"temperature": float("nan")}}, "benchmarks.gsm8k.temperature=nan must be"),
        ({"rsp": 20}, "rsp=20 must be a group"),
        ({"rsp": {"length": -1}}, "rsp.length=-1 must be"),
        ({"rsp": {"guard": {}}}, "unknown key rsp.guard; known: law, length"),
    ],
)
def test_bad_settings_name_file_and_key(
    changes: dict[str, object], cause: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"protocol .*mine\.yaml: {cause}"):
        load_protocol(_write(tmp_path, **changes))


@pytest.mark.parametrize(
    ("override", "cause"),
    [
        ("max_tokens", "override 'max_tokens' must be key=value"),
        ("=3", "override '=3' must be key=value"),
        ("benchmarks.aime24", "must be key=value"),
        ("benchmarks=gsm8k", "benchmarks='gsm8k' must be a list of texts"),
        ("benchmarks=[]", "benchmarks is empty"),
        ("benchmarks=[gsm9k]", "unknown benchmark 'gsm9k'"),
        ("stop=[user", r"override 'stop=\[user'"),
        ("seed=${nothing}", "Interpolation key 'nothing' not found"),
        ("max_tokens.a=3", "max_tokens=.* must be a whole number"),
    ],
)
def test_bad_overrides_name_file_and_override(override: str, cause: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"protocol .*mine\.yaml with .*: .*{cause}") as error:
        load_protocol(_write(tmp_path), [override])
    assert "\n" not in str(error.value)


def test_unknown_protocols(tmp_path: Path) -> None:
    names = ", ".join(sorted({*SHIPPED, *WITH_MODES}))
    with pytest.raises(ConfigError, match=f"unknown protocol 'rsp'; use one of {names}"):
        load_protocol("rsp")
    with pytest.raises(ConfigError, match=r"there is no protocol file .*gone\.yaml"):
        load_protocol(tmp_path / "gone.yaml")


@pytest.mark.parametrize("content", ["a: [1", "- a\n- b", "a: 1\na: 2", b"\xff: 1", "three"])
def test_files_that_are_no_settings(content: str | bytes, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=r"protocol .*mine\.yaml"):
        load_protocol(file)


# Fingerprints.


def test_the_fingerprint_heeds_what_changes_outputs() -> None:
    protocol = load_protocol("rsp_paper")
    plan = protocol.benchmarks[0]
    changed = [
        replace(protocol, template="abel"),
        replace(protocol, max_tokens=15_999),
        replace(protocol, stop=("user",)),
        replace(protocol, seed=1),
        replace(protocol, rsp=RspOptions(length=20)),
        replace(protocol, rsp=RspOptions(length=20, seed=1)),
        replace(protocol, law=ThoughtSettings.from_dict("gumbel", {})),
        replace(protocol, law=ThoughtSettings.from_dict("gumbel", {"k": 3})),
        replace(protocol, law=ThoughtSettings.from_dict("gumbel", {"max_thoughts": 3})),
        replace(protocol, benchmarks=protocol.benchmarks[1:]),
        replace(protocol, benchmarks=(replace(plan, limit=5), *protocol.benchmarks[1:])),
        replace(protocol, benchmarks=(replace(plan, temperature=0.5), *protocol.benchmarks[1:])),
    ]
    fingerprints = {other.fingerprint() for other in (protocol, *changed)}
    assert len(fingerprints) == 1 + len(changed)
    same = [
        replace(protocol, name="other"),
        replace(protocol, headline=("gsm8k",)),
        replace(protocol, rsp=RspOptions(length=0, seed=7)),  # off
        replace(protocol, benchmarks=(replace(plan, temperature=0), *protocol.benchmarks[1:])),
    ]
    assert {other.fingerprint() for other in same} == {protocol.fingerprint()}


def test_fingerprints_of_before_there_were_laws() -> None:
    found = {name: load_protocol(name).fingerprint() for name in ("quick", "rsp_paper")}
    assert found == {"quick": "fb9ab3182df8cbe8", "rsp_paper": "86d597f9381dec82"}
    assert "law" not in load_protocol("quick").to_dict()


def test_the_fingerprint_of_a_benchmark_ignores_the_others() -> None:
    protocol, alone = load_protocol("rsp_paper"), load_protocol("rsp_paper", ["benchmarks=[amc23]"])
    assert protocol.fingerprint("amc23") == alone.fingerprint("amc23")
    assert protocol.fingerprint("gsm8k") != protocol.fingerprint("math500")
    assert load_protocol("rsp_paper", ["seed=1"]).fingerprint("amc23") != alone.fingerprint("amc23")


# Subsets and seeds.

PROBLEMS = [Problem("gsm8k", str(number), f"{number}?", "1") for number in range(40)]


@given(
    limits=st.lists(st.integers(1, 50), min_size=2, max_size=2).map(sorted),
    seed=st.integers(0, 9),
    order=st.permutations(PROBLEMS),
)
def test_subsets_are_nested_and_know_no_order(
    limits: list[int], seed: int, order: list[Problem]
) -> None:
    smaller, larger = (
        choose_problems(BenchmarkPlan("gsm8k", limit=limit), PROBLEMS, seed) for limit in limits
    )
    assert len(smaller) == min(limits[0], len(PROBLEMS))
    assert set(smaller) <= set(larger)
    assert smaller == [problem for problem in PROBLEMS if problem in smaller]
    shuffled = choose_problems(BenchmarkPlan("gsm8k", limit=limits[0]), order, seed)
    assert set(shuffled) == set(smaller)


def test_no_limit_asks_all() -> None:
    assert choose_problems(BenchmarkPlan("gsm8k"), PROBLEMS, 0) == PROBLEMS


def test_subsets_and_seeds_are_frozen() -> None:
    """Golden values: evaluations of old runs are continued, and compared with new ones."""
    plan = BenchmarkPlan("gsm8k", limit=4)
    assert [problem.id for problem in choose_problems(plan, PROBLEMS, 0)] == ["5", "32", "36", "38"]
    assert [problem.id for problem in choose_problems(plan, PROBLEMS, 1)] == ["1", "7", "15", "29"]
    assert sample_seed(0, "aime24", "60", 0) == 777604639086150122
    assert sample_seed(0, "aime24", "60", 1) == 3892754392110005550


def test_seeds_are_the_same_in_another_process() -> None:
    code = (
        "from rsp_rl.evaluation.protocol import load_protocol;"
        "from rsp_rl.inference.prompts import sample_seed;"
        "print(sample_seed(3, 'math500', 'test/a.json', 7), load_protocol('quick').fingerprint())"
    )
    seed, fingerprint = printed(code).split()
    assert int(seed) == sample_seed(3, "math500", "test/a.json", 7)
    assert fingerprint == load_protocol("quick").fingerprint()


def test_seeds_of_a_whole_evaluation_differ() -> None:
    seeds = {
        sample_seed(seed, benchmark, str(problem), sample)
        for seed in range(2)
        for benchmark in ("gsm8k", "aime24")
        for problem in range(1000)
        for sample in range(16)
    }
    assert len(seeds) == 64_000
    assert min(seeds) >= 0
    assert 2**62 < max(seeds) < 2**63  # vLLM takes signed 64-bit integers


@given(st.text(), st.text(), st.text(), st.text())
def test_seeds_tell_names_apart_that_run_together(a: str, b: str, c: str, d: str) -> None:
    if (a, b) != (c, d):
        assert sample_seed(0, a, b, 0) != sample_seed(0, c, d, 0)
