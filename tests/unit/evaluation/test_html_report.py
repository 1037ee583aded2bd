"""The report's file: what is in it, what is not, and that model output stays text."""

import base64
import hashlib

import pytest

from rsp_rl.basics.errors import RunFolderError
from rsp_rl.display.viewer import HEAD, TAIL
from rsp_rl.evaluation.html_report import write_report
from rsp_rl.evaluation.summary import read_summary
from rsp_rl.evaluation.viewer_data import OUTPUT_BYTES, viewer_data
from tests.unit.evaluation.made_runs import (
    make_evaluation,
    sample,
    write_lines,
    write_samples,
)
from tests.unit.pages import HOSTILE, Page


def report(folder) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path):
    return make_evaluation(tmp_path / "my run", {0: 0.3, 10: 0.5, 20: 0.6})


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of a small run, for tests that only look at it."""
    root = tmp_path_factory.mktemp("report") / "my run"
    return report(make_evaluation(root, {0: 0.3, 10: 0.5, 20: 0.6}))


def test_every_problem_and_output_of_a_small_run_is_there(page):
    index = page.unpack("index")
    assert index["steps"] == [0, 10, 20]
    names = [(b["name"], b["samples"], len(b["problems"])) for b in index["benchmarks"]]
    assert names == [("gsm8k", 1, 12), ("math500", 1, 10), ("aime24", 4, 4)]
    problem = index["benchmarks"][2]["problems"][3]
    assert (problem["id"], problem["question"], problem["gold"]) == ("3", "3 + $2$?", "4")
    outputs = page.unpack(f"outputs-{problem['outputs']}")
    assert [[s["number"] for s in step] for step in outputs] == [[0, 1, 2, 3]] * 3
    assert [sum(s["correct"] for s in step) for step in outputs] == problem["right"]
    cut = [sum("cut off" in s["marks"] for s in step) for step in outputs]
    assert cut == problem["cut_off"]
    assert len(page.scripts) == 1 + 26 + 1  # index, problems, the page's own


def test_table_and_how(page):
    assert "my run: evaluation by made_up" in page.text
    for text in ("aime24 (avg@4)", "headline (mean of 3)", "optimistic", "c0ffee", "step 20"):
        assert text in page.text
    assert len([tag for tag, _ in page.tags if tag == "svg"]) == 3


def test_the_page_loads_nothing(page):
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base", "img"}
        for name in ("src", "href", "xlink:href", "action"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")]
    assert "@import" not in page.text
    assert "url(http" not in page.text


def test_only_the_own_script_may_run(page):
    (policy,) = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    digest = hashlib.sha256(page.scripts[None].encode()).digest()
    assert f"script-src 'sha256-{base64.b64encode(digest).decode()}'" in policy
    assert "default-src 'none'" in policy
    types = [a.get("type") for tag, a in page.tags if tag == "script"]
    assert types.count(None) == 1
    assert set(types) == {None, "text/plain"}


def test_hostile_text_stays_text(tmp_path):
    folder = make_evaluation(
        tmp_path / "<img src=x>", {0: 0.5}, output=lambda *_: HOSTILE, headline=["gsm8k"]
    )
    asked = [{"id": HOSTILE, "question": HOSTILE, "gold": HOSTILE}]
    write_lines(folder.problems("gsm8k"), asked)
    write_samples(folder, 0, "gsm8k", [sample(HOSTILE, extracted=HOSTILE, output=HOSTILE)])
    page = report(folder)
    assert "<img src=x>: evaluation" in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]
    problem = page.unpack("index")["benchmarks"][0]["problems"][0]
    assert {problem[key] for key in ("id", "question", "gold")} == {HOSTILE}
    ((shown,),) = page.unpack(f"outputs-{problem['outputs']}")
    assert (shown["head"], shown["extracted"]) == (HOSTILE, HOSTILE)
    # The viewer puts it into the page by these alone, which make text nodes.
    script = page.scripts[None]
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in script


def test_long_outputs_keep_both_ends(tmp_path):
    long = "a" * HEAD + "b" * 500 + "c" * TAIL
    short = "d" * (HEAD + TAIL)
    texts = {"0": long, "1": short}
    folder = make_evaluation(
        tmp_path,
        {0: 0.5},
        benchmarks={"gsm8k": (2, 1)},
        headline=["gsm8k"],
        output=lambda _, problem, *__: texts[problem],
    )
    page = report(folder)
    ((first,),), ((second,),) = (page.unpack(f"outputs-gsm8k-{i}") for i in range(2))
    assert (set(first["head"]), first["left_out"], set(first["tail"])) == ({"a"}, 500, {"c"})
    assert (second["head"], second["left_out"], second["tail"]) == (short, 0, "")


def test_what_changed_comes_first_and_the_page_stays_small(tmp_path):
    folder = make_evaluation(
        tmp_path, {0: 0, 10: 0}, benchmarks={"gsm8k": (4, 1)}, headline=["gsm8k"]
    )
    # Always right, right then wrong, always wrong, right but cut off.
    for step, marks in ((0, "++-+"), (10, "+--+")):
        samples = [sample(str(i), correct=mark == "+") for i, mark in enumerate(marks)]
        samples[3]["finish_reason"] = "length"
        write_samples(folder, step, "gsm8k", samples)
    summary = read_summary(folder)
    everything = viewer_data(folder, summary, OUTPUT_BYTES).outputs
    assert list(everything) == ["gsm8k-1", "gsm8k-2", "gsm8k-3", "gsm8k-0"]
    room = sum(map(len, everything.values())) - 1
    data = viewer_data(folder, summary, room)
    assert list(data.outputs) == ["gsm8k-1", "gsm8k-2", "gsm8k-3"]
    assert data.benchmarks[0]["problems"][0]["outputs"] == ""
    assert viewer_data(folder, summary, 0).outputs == {}


def test_small_benchmarks_leave_their_room_to_large_ones(folder):
    summary = read_summary(folder)
    everything = viewer_data(folder, summary, OUTPUT_BYTES).outputs
    aime24 = sum(len(packed) for key, packed in everything.items() if "aime24" in key)
    others = [len(packed) for key, packed in everything.items() if "aime24" not in key]
    # Enough for all but one: equal shares would leave out far more of the large ones.
    data = viewer_data(folder, summary, aime24 + sum(others) - min(others))
    assert len(data.outputs) >= len(everything) - 2


def test_what_was_left_out_is_said(folder):
    text = Page(write_report(folder, output_bytes=0).read_text(encoding="utf-8")).text
    assert "Verdicts of all 26 problems at all steps; outputs of 0" in text
    assert "step_*/*.samples.jsonl" in text


def test_a_benchmark_that_some_steps_lack(folder):
    folder.step(10).metrics("math500").unlink()
    page = report(folder)
    problem = page.unpack("index")["benchmarks"][1]["problems"][0]
    assert problem["right"][1] is None
    assert page.unpack(f"outputs-{problem['outputs']}")[1] == []
    assert "Step 10 has no headline: math500 not done." in page.text


def test_samples_of_unknown_problems_are_refused(folder):
    write_samples(folder, 0, "gsm8k", [sample("99")])
    with pytest.raises(RunFolderError, match=r"step_0/gsm8k\.samples\.jsonl holds problem '99'"):
        write_report(folder)
