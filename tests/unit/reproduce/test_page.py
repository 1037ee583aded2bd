"""The paper's numbers stand beside equal quantities, and are subtracted from comparable ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rsp_rl.basics.files import write_whole
from rsp_rl.display.tables import csv_text
from rsp_rl.evaluation.protocol import load_protocol
from rsp_rl.reproduce.page import to_html, write_page
from rsp_rl.reproduce.plan import Analysis, Wanted, make_plan
from rsp_rl.reproduce.steps import Layout

INSTRUCT = "Qwen2.5-Math-1.5B-Instruct"
CSV = {
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
    values = {
        name: {
            f"entropy_{part}": {"mean": mean, "sem": sem} for part in ("first_5_percent", "overall")
        }
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
        *("92.80%", "90.00% [88.00%, 92.00%]", "-2.80% (model not known)")
    ]
    # Pass@8 is another quantity than pass@16.
    assert rows["Figure 4: independent RSP, sampled, pass@16, aime24"][2] == "not in this run"
    run = "not known; the run's: math500"
    assert rows[f"Table 4: baseline, sampled, pairwise, {run}"] == [
        "0.0612",
        "0.0712 [0.0700, 0.0800]",
        "+0.0100 (model, benchmark, sampling, DBSCAN's settings not known)",
    ]
    assert rows[f"Table 3: τ = 2, Jensen-Shannon (base 2), {run}"][2].startswith("-0.0100 (model")


def test_another_embedder_or_number_of_answers_is_another_quantity(tmp_path: Path) -> None:
    rows = page(tmp_path, "4.4", embedder="ngrams", trajectories=20)
    assert rows["Table 4: baseline, sampled, pairwise, not known; the run's: math500"][2] == (
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
