"""What each section evaluates and analyses."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import pytest

from rsp_rl.basics.errors import ConfigError
from rsp_rl.comparators.ltpo import Ltpo
from rsp_rl.comparators.presets import get_preset
from rsp_rl.evaluation.protocol import load_protocol
from rsp_rl.reproduce.plan import SECTIONS, Analysis, Wanted, evaluations, make_plan

INSTRUCT = "Qwen2.5-Math-1.5B-Instruct"


def wanted(*overrides: str, model: str = INSTRUCT, **changes: object) -> Wanted:
    protocol = load_protocol("rsp_inference", overrides)
    own = any(text.startswith("benchmarks=") for text in overrides)
    return Wanted(model, protocol, own, **changes)


def asked(analysis: Analysis) -> dict[str, tuple[int, list[str]]]:
    """L and benchmarks by label."""
    return {
        e.label: (e.protocol.rsp.length, [plan.benchmark for plan in e.protocol.benchmarks])
        for e in analysis.reads
    }


def test_accuracy_takes_table_7s_length_of_each_benchmark() -> None:
    positions, lengths = make_plan(["4.2"], wanted())["4.2"]
    found = asked(positions)
    assert len(found) == 4 * 3
    assert found["suffix_L20_math500"] == (20, ["math500"])
    assert found["prefix_L10_gsm8k"] == (10, ["gsm8k"])
    assert found["baseline_aime24"] == (0, ["aime24"])
    assert len(asked(lengths)) == 3 * 3
    # What both read is evaluated once.
    assert len(evaluations({"4.2": [positions, lengths]})) == 12 + 9 - 3


@pytest.mark.parametrize("section", SECTIONS)
def test_noise_on_the_question_is_no_soft_prompt_of_the_papers(section: str) -> None:
    noise = wanted("rsp.law=question_noise", "rsp.scale=5")
    with pytest.raises(
        ConfigError, match=r"rsp\.law=question_noise inserts nothing, and the paper"
    ):
        make_plan([section], noise)


def test_table_1_needs_comparators_and_shares_what_other_tables_read() -> None:
    plan = make_plan(["4.2"], wanted(comparators=(("ltpo", "rsp.length=8"),)))
    table = plan["4.2"][1]
    assert table.name == "trained_or_random"
    found = asked(table)
    assert found["ltpo_L8_gsm8k"] == (8, ["gsm8k"])
    assert found["suffix_L10_gsm8k"] == (10, ["gsm8k"])
    assert len(found) == 3 * 3
    assert len(evaluations(plan)) == len(evaluations(make_plan(["4.2"], wanted()))) + 3


def test_ltpo_has_the_papers_settings_of_each_benchmark_unless_others_are_given() -> None:
    def settings(*comparator: str) -> dict[str, object]:
        table = make_plan(["4.2"], wanted(comparators=(comparator,)))["4.2"][1]
        return {
            e.label: e.protocol.comparator for e in table.reads if e.protocol.comparator is not None
        }

    names = {f"ltpo_L8_{name}": f"paper-{name}" for name in ("math500", "gsm8k", "aime24")}
    papers = {label: get_preset("ltpo", name).settings for label, name in names.items()}
    assert settings("ltpo") == papers
    changed = settings("ltpo", "sigma=4")
    assert changed == {label: replace(s, sigma=4.0) for label, s in papers.items()}
    assert set(settings("ltpo", "preset=authors").values()) == {Ltpo()}


def test_table_7_tells_prompts_apart() -> None:
    by_template = {}
    for template in ("raw", "qwen25-math-cot"):
        chosen = wanted(f"template={template}", model="Qwen2.5-Math-7B")
        positions, _ = make_plan(["4.2"], chosen)["4.2"]
        by_template[template] = {length for length, _ in asked(positions).values() if length}
    assert by_template == {"raw": {10, 20}, "qwen25-math-cot": {20}}


def test_a_model_of_ones_own_needs_a_length() -> None:
    with pytest.raises(ConfigError, match="Table 7 has no L for mine with chat template on math5"):
        make_plan(["4.2"], wanted(model="mine"))
    positions, lengths = make_plan(["4.2"], wanted("rsp.length=5", model="mine"))["4.2"]
    assert {length for length, _ in asked(positions).values()} == {0, 5}
    assert {length for length, _ in asked(lengths).values()} == {10, 15, 20}


def test_mechanism_and_diversity() -> None:
    plan = make_plan(["4.3", "4.4"], wanted())
    distributions, attention = plan["4.3"]
    assert [label for label in asked(distributions)] == [
        *("baseline_math500", "prefix_L20_math500", "infix_L20_math500", "suffix_L20_math500")
    ]
    assert asked(attention) == {"suffix_L10_math500": (10, ["math500"])}
    first_token, diversity, pass_at_n, coverage = plan["4.4"]
    assert set(coverage.reads) < set(pass_at_n.reads)
    assert set(first_token.reads) < set(pass_at_n.reads)
    for evaluation in pass_at_n.reads:
        assert [p.samples for p in evaluation.protocol.benchmarks] == [16, 16]
    for evaluation in diversity.reads:
        (only,) = evaluation.protocol.benchmarks
        assert (only.benchmark, only.limit, only.samples) == ("math500", 64, 300)


def test_sections_share_what_is_the_same() -> None:
    plan = make_plan(["4.2", "4.3"], wanted("benchmarks=[math500]"))
    together = {evaluation.name for evaluation in evaluations(plan)}
    alone = [{e.name for e in evaluations({s: plan[s]})} for s in plan]
    assert together == alone[0] | alone[1]
    assert len(alone[0] & alone[1]) == 5  # four positions with L = 20, the suffix with L = 10
    assert len({e.protocol.fingerprint() for e in evaluations(plan)}) == len(together)


def test_benchmarks_of_ones_own() -> None:
    _, pass_at_n, *_ = make_plan(["4.4"], wanted("benchmarks=[gsm8k]"))["4.4"]
    assert {name for _, names in asked(pass_at_n).values() for name in names} == {"gsm8k"}


def test_dials_are_turned_one_at_a_time() -> None:
    (analysis,) = make_plan(["dials"], wanted("rsp.length=20"))["dials"]
    turned = {
        (e.protocol.rsp.length, e.protocol.rsp.scale, e.protocol.rsp.law): e for e in analysis.reads
    }
    assert {length for length, scale, law in turned if (scale, law) == (1, "gaussian")} == {
        *(0, 1, 5, 10, 20, 40)
    }
    others = {key for key in turned if key[1:] != (1, "gaussian")}
    assert {length for length, _, _ in others} == {20}
    assert {scale for _, scale, law in others if law == "gaussian"} == {0, 0.25, 0.5, 2}
    assert {law for _, scale, law in others if scale == 1} == {"sphere", "vocab", "fixed"}
    for kind, samples, temperature in (("greedy", 1, 0), ("sampled", 4, 1)):
        made = [e for e in analysis.reads if e.label.endswith(kind)]
        assert len(made) == len(turned)
        plans = [plan for e in made for plan in e.protocol.benchmarks]
        assert {(plan.samples, plan.temperature) for plan in plans} == {(samples, temperature)}
    assert len({e.name for e in analysis.reads}) == len(analysis.reads)


def test_format_begins_with_the_models_own_template() -> None:
    (analysis,) = make_plan(["format"], wanted("template=chat", "rsp.length=20"))["format"]
    assert analysis.reads[0].protocol.template == "chat"
    assert not analysis.reads[0].protocol.rsp.enabled
    asked_under = {(e.protocol.template, e.protocol.rsp.position) for e in analysis.reads}
    assert asked_under == {
        (template, position)
        for template in ("chat", "raw", "abel")
        for position in ("prefix", "suffix")
    }


def test_pass_at_n_of_a_held_out_half_asks_twice_as_many() -> None:
    chosen = wanted("benchmarks=[gsm8k]", held_out_half=True, samples=8)
    _, _, pass_at_n, coverage = make_plan(["4.4"], chosen)["4.4"]
    assert pass_at_n.options == {"held_out_half": True}
    plans = [plan for e in pass_at_n.reads for plan in e.protocol.benchmarks]
    assert {plan.samples for plan in plans} == {16}
    assert "16 samples" in coverage.remark


def test_some_of_a_sections_analyses() -> None:
    plan = make_plan(["4.3", "4.4"], wanted(), ["first_token"])
    assert {section: [a.name for a in found] for section, found in plan.items()} == {
        "4.4": ["first_token"]
    }
    with pytest.raises(ConfigError, match="--only lengths is unknown here; use some of distrib"):
        make_plan(["4.3"], wanted(), ["lengths"])


def test_seeds_are_paired_where_there_are_several() -> None:
    several = ("DAPO=a,b", "DAPO+RSP=c,d")
    for runs, names in (
        (several, ["comparison", "training"]),
        (("DAPO=a", "DAPO+RSP=c"), ["comparison"]),
        (("DAPO=a,b", "DAPO+RSP=c"), ["comparison"]),
    ):
        assert [a.name for a in make_plan(["4.5"], wanted(runs=runs))["4.5"]] == names


def test_every_module_can_be_called() -> None:
    plan = make_plan(SECTIONS, wanted(runs=("a,b", "c,d")))
    for analysis in (analysis for analyses in plan.values() for analysis in analyses):
        assert callable(import_module(analysis.module).analyse)


def test_what_cannot_be_planned() -> None:
    with pytest.raises(ConfigError, match=r"--section 4\.1 is unknown"):
        make_plan(["4.1"], wanted())
    with pytest.raises(ConfigError, match=r"recipes/dapo_rsp_qwen7b\.sh.*--runs DAPO=RUN_DIR"):
        make_plan(["4.5"], wanted())
