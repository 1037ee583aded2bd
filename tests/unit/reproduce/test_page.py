"""The paper's numbers stand beside equal quantities, and are subtracted from comparable ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rsp_rl.basics.files import write_whole
from rsp_rl.comparators.presets import get_preset
from rsp_rl.comparators.trained_file import save_trained
from rsp_rl.display.tables import csv_text
from rsp_rl.evaluation.protocol import load_protocol
from rsp_rl.reproduce.page import to_html, write_page
from rsp_rl.reproduce.plan import Analysis, Wanted, make_plan
from rsp_rl.reproduce.steps import Layout

INSTRUCT = "Qwen2.5-Math-1.5B-Instruct"
ACCURACIES = "accuracy,low,high,difference,difference_low,difference_high"
CSV = {
    "positions": (
        f"model,position,benchmark,length,{ACCURACIES}",
        [
            ["m", "baseline", "math500", 0, 0.74, 0.70, 0.78, "", "", ""],
            ["m", "suffix", "math500", 20, 0.75, 0.71, 0.79, 0.01, -0.01, 0.03],
        ],
    ),
    "trained_or_random": (
        f"model,method,benchmark,length,{ACCURACIES}",
        [
            ["m", name, "math500", length, 0.75, 0.71, 0.79, 0.01, -0.01, 0.03]
            for name, length in (("random", 20), ("ltpo", 8), ("ttsv", 20), ("softcot", 4))
        ],
    ),
    "coverage": (
        "benchmark,problem,samples,right_first,right_second,outcome",
        [
            ["aime24", "66", 16, 0, 2, "only second"],
            ["aime24", "67", 16, 1, 2, "both"],
            ["aime24", "68", 16, 0, 1, "only second"],
            ["aime24", "82", 16, 0, 0, "neither"],
        ],
    ),
    "pass_at_n": (
        "benchmark,condition,n,pass,low,high",
        [
            ["math500", "independent RSP, sampled", 16, 0.9, 0.88, 0.92],
            ["aime24", "independent RSP, sampled", 8, 0.3, 0.1, 0.5],
        ],
    ),
    "diversity": (
        "benchmark,condition,measure,mean,low,high",
        [["math500", "baseline, sampled", "pairwise", 0.0712, 0.07, 0.08]],
    ),
    "first_token": (
        "benchmark,row,metric,value,low,high",
        [["math500", "τ = 2", "js_divergence", 0.05, 0.04, 0.06]],
    ),
}
ENTROPY = {"suffix": (0.2041, 0.01), "prefix": (0.1266, None)}


def write_analysis(layout: Layout, analysis: Analysis) -> None:
    """The files of an analysis that the page reads."""
    folder = layout.analysis(analysis)
    folder.mkdir(parents=True)
    write_whole(folder / f"{analysis.name}.md", f"# {analysis.name}\n\n## math500\n\nA table.\n")
    write_whole(folder / f"{analysis.name}.svg", "<svg></svg>")
    if analysis.name in CSV:
        write_whole(folder / f"{analysis.name}.csv", csv_text(*CSV[analysis.name]))
    spread = ["math500", "independent RSP, sampled", 16, 0.0123]
    head = "benchmark,condition,samples,standard_deviation"
    write_whole(folder / "single_samples.csv", csv_text(head, [spread]))
    values = {
        name: {
            f"{metric}_{part}": {"mean": mean, "sem": sem}
            for part in ("first_5_percent", "overall")
            for metric in ("entropy", "top1", "varentropy")
        }
        | {"tokens": 570.5}
        for name, (mean, sem) in ENTROPY.items()
    }
    write_whole(folder / "distributions.json", json.dumps({"math500": values}))


def page(tmp_path: Path, section: str, *overrides: str, **changes: object) -> dict[str, list[str]]:
    """Cells of the comparison with the paper, by condition and quantity."""
    wanted = Wanted(INSTRUCT, load_protocol("rsp_inference", overrides), **changes)
    plan = make_plan([section], wanted)
    layout = Layout(tmp_path / "out")
    for analysis in plan[section]:
        if analysis.name in (*CSV, "distributions"):
            write_analysis(layout, analysis)
    write_page(plan, wanted, layout, {})
    lines = (layout.root / "report.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines]
    found = {}
    for source, _, _, benchmark, condition, quantity, *values in (r for r in rows if len(r) == 9):
        found[f"{source}: {condition}, {quantity}, {benchmark}"] = values
    return found


def test_same_conditions_are_subtracted(tmp_path: Path) -> None:
    rows = page(tmp_path, "4.3")
    assert rows["Table 9: suffix, tokens, math500"] == ["573.3", "570.5000", "-2.8000"]
    name = "Table 9: prefix, top-1 probability, first 5%, math500"
    assert rows[name] == ["0.9523", "0.1266", "-0.8257"]
    name = "Table 9: suffix, varentropy, overall, math500"
    assert rows[name][0] == "0.2038"
    assert rows["Table 9: ltpo, entropy, first 5%, math500"][2] == "not in this run"
    assert rows["Table 9: suffix, entropy, first 5%, math500"] == [
        *("0.1941", "0.2041 [0.1845, 0.2237]", "+0.0100")
    ]
    assert rows["Table 9: prefix, entropy, overall, math500"] == ["0.0881", "0.1266", "+0.0385"]
    assert rows["Table 9: infix, entropy, overall, math500"] == ["0.0899", "–", "not in this run"]


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("rsp.length=15",), "other L: 15"),
        (("benchmarks.math500.limit=50",), "only 50 problems of math500"),
        (
            ("benchmarks.math500.limit=50", "rsp.length=15"),
            "other L: 15; only 50 problems of math500",
        ),
    ],
)
def test_other_conditions_are_not(tmp_path: Path, overrides: tuple[str, ...], reason: str) -> None:
    rows = page(tmp_path, "4.3", *overrides)
    assert rows["Table 9: suffix, entropy, first 5%, math500"][2] == reason


def test_other_models_are_not(tmp_path: Path) -> None:
    wanted = Wanted("mine", load_protocol("rsp_inference"))
    plan = make_plan(["4.3"], wanted)
    layout = Layout(tmp_path)
    write_analysis(layout, plan["4.3"][0])
    write_page(plan, wanted, layout, {})
    text = (tmp_path / "report.md").read_text()
    assert "**Another model than the paper's.** This run is of mine" in text
    assert "| suffix | entropy, first 5% | 0.1941 | 0.2041 [0.1845, 0.2237] | other model" in text


def test_conditions_that_are_not_known_are_named(tmp_path: Path) -> None:
    rows = page(tmp_path, "4.4")
    assert rows["Figure 4: independent RSP, sampled, pass@16, math500"] == [
        *("92.80%", "90.00% [88.00%, 92.00%]", "-2.80%")
    ]
    spread = "independent RSP, sampled, pass@1, standard deviation over samples, math500"
    assert rows[f"Table 3: {spread}"] == ["1.07%", "1.23%", "+0.16%"]
    # Pass@8 is another quantity than pass@16.
    assert rows["Figure 4: independent RSP, sampled, pass@16, aime24"][2] == "not in this run"
    assert rows["Table 4: baseline, sampled, pairwise, math500"] == [
        *("0.0612", "0.0712 [0.0700, 0.0800]", "+0.0100 (which problems not known)")
    ]
    assert rows["Table 3: τ = 2, Jensen-Shannon (base 2), math500"][2] == "-0.0100"


def test_accuracies_and_their_differences(tmp_path: Path) -> None:
    rows = page(tmp_path, "4.2")
    assert rows["Tables 2, 6: baseline, accuracy, math500"] == [
        *("73.00%", "74.00% [70.00%, 78.00%]", "+1.00%")
    ]
    assert rows["Tables 2, 6: suffix, accuracy − baseline, math500"] == [
        *("1.20%", "1.00% [-1.00%, 3.00%]", "-0.20%")
    ]
    assert rows["Table 6: infix, accuracy, math500"] == ["75.20%", "–", "not in this run"]


def test_prompts_are_told_apart(tmp_path: Path) -> None:
    """Table 6 has the base models twice."""
    plan, layout, wanted = planned(tmp_path, "template=raw", model="Qwen2.5-Math-7B")
    write_analysis(layout, plan["4.2"][0])
    write_page(plan, wanted, layout, {})
    text = (layout.root / "report.md").read_text()
    assert "| Qwen2.5-Math-7B, raw text | 10 | gsm8k | suffix | accuracy | 54.13% |" in text
    assert "Qwen2.5-Math-7B, chat template" not in text


def test_outcomes_by_problem(tmp_path: Path) -> None:
    rows = page(tmp_path, "4.4")
    assert rows["Table 10: only RSP, problems, aime24"] == ["5", "2", "-3"]
    assert rows["Table 10: only RSP, share of problems, aime24"][:2] == ["16.70%", "50.00%"]
    assert rows["Table 10: only RSP, problem #6, aime24"] == ["1", "1", "+0"]
    assert rows["Table 10: only RSP, problem #22, aime24"] == ["1", "0", "-1"]
    assert rows["Table 10: only RSP, problem #14, aime24"][2] == "not in this run"


def planned(folder: Path, *overrides: str, model: str, **changes: object) -> tuple:
    wanted = Wanted(model, load_protocol("rsp_inference", overrides), **changes)
    return make_plan(["4.2"], wanted), Layout(folder / "out"), wanted


def test_comparators_are_held_against_the_papers_settings(tmp_path: Path) -> None:
    for method, preset in (("ttsv", "paper-1.5b"), ("softcot", "paper-gsm8k-1.5b")):
        settings = get_preset(method, preset).values()
        if method == "softcot":
            settings |= {"learning_rate": 5e-6}
        how = {"method": method, "length": 4, "position": "infix", "model": "m", "weights": "w"}
        how |= {"settings": settings, "assistant": "/models/Small"}
        save_trained(tmp_path / method, {}, how)
    comparators = (
        ("ltpo",),
        ("ttsv", f"trained={tmp_path / 'ttsv'}"),
        ("softcot", f"trained={tmp_path / 'softcot'}"),
    )
    rows = page(tmp_path, "4.2", comparators=comparators)
    assert rows["Table 1: ltpo, accuracy, math500"][2] == "+2.60%"
    unknown = "-0.20% (what its prefix was trained on not known)"
    assert rows["Table 1: ttsv, accuracy, math500"][2] == unknown
    assert rows["Table 1: softcot, accuracy, math500"][2] == (
        "learning_rate 5e-06 (not 2e-05); assistant /models/Small (not "
        "Qwen/Qwen2.5-Math-1.5B-Instruct)"
    )
    assert rows["Table 1: random, accuracy, math500"][2] == "other position: suffix, not infix"


def test_other_settings_of_comparators_are_named(tmp_path: Path) -> None:
    comparators = (
        ("ltpo", "preset=authors", "rsp.length=8"),
        ("ttsv", f"trained={tmp_path / 'gone'}"),
    )
    rows = page(tmp_path, "4.2", comparators=comparators)
    assert rows["Table 1: ltpo, accuracy, math500"][2] == (
        "sigma 0.1 (not 20); sigma_decay 0.99 (not 0.95); learning_rate 0.03 (not 0.005); "
        "steps 10 (not 20)"
    )
    assert "settings of its training not known (" in rows["Table 1: ttsv, accuracy, math500"][2]


def test_other_limits_of_answers_are_named(tmp_path: Path) -> None:
    rows = page(tmp_path, "4.2", "max_tokens=4096")
    reason = "answers of at most 4,096 and not 3,072 tokens"
    assert rows["Tables 2, 6: baseline, accuracy, math500"][2] == reason


def test_another_embedder_or_number_of_answers_is_another_quantity(tmp_path: Path) -> None:
    rows = page(tmp_path, "4.4", embedder="ngrams", trajectories=20)
    assert rows["Table 4: baseline, sampled, pairwise, math500"][2] == (
        "other embedder: ngrams; 20 and not 300 answers a problem"
    )


def test_failures_are_named_and_markup_is_text(tmp_path: Path) -> None:
    wanted = Wanted("<b>mine</b>", replace(load_protocol("rsp_inference"), max_tokens=8))
    plan = make_plan(["4.3"], wanted)
    write_analysis(Layout(tmp_path), plan["4.3"][0])
    why = "no <script>alert(1)</script>\nin `two` lines"
    page = write_page(plan, wanted, Layout(tmp_path), {plan["4.3"][1].title: why}).read_text()
    assert "<b>mine" not in page
    assert "<script" not in page
    assert page.count("no &lt;script&gt;alert(1)&lt;/script&gt; in `two` lines") == 2
    assert "Not complete." in page


def test_html_holds_the_figures_and_loads_nothing(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.svg", '<svg id="figure"></svg>')
    page = to_html(["# Title & all\n\n![A figure](a.png)", "| a |\n| --: |\n| 1 |"], tmp_path)
    assert "<title>Title &amp; all</title>" in page
    assert '<svg id="figure"></svg>' in page
    assert "<td" in page
    assert "src=" not in page
    assert "default-src 'none'" in page
