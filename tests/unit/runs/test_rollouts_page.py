"""The page of rollouts: what it counts and shows, its bounds; what a model wrote stays text."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from pathlib import Path
from shutil import which

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsp_rl.display.pages import asset
from rsp_rl.display.viewer import HEAD, TAIL
from rsp_rl.runs.folder import RunFolder
from rsp_rl.runs.rollouts import read_step
from rsp_rl.runs.rollouts_data import OF_GROUP, RunFacts, shown_step, spread
from rsp_rl.runs.rollouts_page import write_rollouts_page
from tests.unit.pages import HOSTILE, Page
from tests.unit.runs.made_rollouts import sample, told, uid, write_groups, write_step

METRICS = {"critic/score/max": 1.0, "critic/score/min": 0.0, "rsp/logprob_gap_mean": 1e-6}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "my run")


def page_of(folder: RunFolder, metrics: dict | None = None, **options: object) -> Page:
    steps = {int(file.stem): METRICS for file in folder.train_samples.glob("?.jsonl")}
    written = write_rollouts_page(folder, steps if metrics is None else metrics, **options)
    assert written == folder.rollouts_page
    return Page(written.read_text(encoding="utf-8"))


def steps_of(page: Page) -> list[dict]:
    return page.unpack("index")["steps"]


def groups_of(page: Page, step: int = 0) -> list[dict]:
    return [page.unpack(f"outputs-{group['outputs']}") for group in steps_of(page)[step]["list"]]


# What is counted.


@settings(max_examples=30, deadline=None)
@given(
    runs=st.lists(
        st.lists(st.text("+-", min_size=1, max_size=20), max_size=9), min_size=1, max_size=4
    ),
    room=st.sampled_from([0, 1_000, 4_000, 10**6]),
)
def test_counts_on_the_page_are_those_of_the_files(
    tmp_path_factory: pytest.TempPathFactory, runs: list[list[str]], room: int
) -> None:
    """Whatever it has room to show."""
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    for number, marks in enumerate(runs, start=1):
        write_groups(folder, number, marks)
    page = page_of(folder, output_bytes=room)
    for marks, step in zip(runs, steps_of(page), strict=True):
        rows = [json.loads(line) for line in read(folder, step["step"])]
        assert step["rollouts"] == len(rows)
        assert step["right"] == sum(row["score"] for row in rows) == "".join(marks).count("+")
        assert step["wrong"] == "".join(marks).count("-")
        assert step["groups"] == len(marks)
        assert step["mixed"] == sum(len(set(group)) == 2 for group in marks)
        assert step["all_right"] == sum(set(group) == {"+"} for group in marks)
        assert step["all_wrong"] == sum(set(group) == {"-"} for group in marks)
        shown = [page.unpack(f"outputs-{group['outputs']}") for group in step["list"]]
        assert step["shown_groups"] == len(shown)
        assert step["shown"] == sum(len(group["rollouts"]) for group in shown)
        for entry, group in zip(step["list"], shown, strict=True):
            names = [one["name"] for one in group["rollouts"]]
            assert (entry["shown"], len(set(names))) == (len(names), len(names))
            assert {marks[0] for marks in names} <= set("0123456789")
    assert sum(len(packed) for name, packed in page.scripts.items() if is_output(name)) <= room


def is_output(name: str | None) -> bool:
    return bool(name) and name.startswith("outputs-")


def read(folder: RunFolder, step: int) -> list[str]:
    return (folder.train_samples / f"{step}.jsonl").read_text().splitlines()


def test_a_group_is_shown_with_all_that_is_on_record(folder: RunFolder) -> None:
    write_step(
        folder,
        1,
        samples=[
            sample(uid(7, 0), reward=1.0, text="two", prompt="before after"),
            sample(uid(7, 1), text="three", prompt="before after"),
        ],
        rollouts=[
            told(uid(7, 0), right=True, tokens=5, gap=0.5) | {"before": 7},
            told(uid(7, 1), tokens=24, gap=float("inf"))
            | {"reward_info": {"acc": 0, "pred": "3", "timeouts": 1.0}},
        ],
        soft_prompts=[
            {"uid": uid(7, 0), "start": 3, "length": 8},
            {"uid": uid(7, 1), "start": 3, "length": 0},
        ],
    )
    (folder.root / "config").mkdir()
    (folder.root / "config" / "config.yaml").write_text("data: {max_response_length: 24}")
    page = page_of(folder)
    (group,) = groups_of(page)
    first, second = group["rollouts"]
    assert (first["right"], first["reward"], first["extracted"], first["tokens"]) == (
        *(True, 1.0, "3", 5),
    )
    assert (first["gap_mean"], first["gap_max"], first["marks"]) == (0.25, 0.5, [])
    assert (second["right"], second["gap_max"]) == (False, "inf")
    assert second["marks"] == ["at the limit of tokens", "timed out"]
    with_one, without = group["prompts"]
    assert (with_one["before"]["head"], with_one["after"]["head"]) == ("before ", "after")
    assert (with_one["length"], with_one["placed"], with_one["of"]) == (8, True, ["0"])
    assert (without["length"], without["placed"], without["of"]) == (0, False, ["1"])
    (step,) = steps_of(page)
    assert (step["list"][0]["question"], step["list"][0]["gold"]) == ("before after", "2")
    assert (step["tokens"], step["tokens_max"], step["largest_gap"]) == (14.5, 24, "inf")


def test_noise_on_the_question_is_no_soft_prompt(folder: RunFolder) -> None:
    names = [uid(7, number) for number in range(3)]
    noise = {"start": 3, "added_to": 2**64 - 1}
    write_step(
        folder,
        1,
        samples=[sample(name) for name in names],
        rollouts=[told(name) for name in names],
        soft_prompts=[
            {"uid": names[0], "length": 8, **noise},
            {"uid": names[1], "length": 0, **noise},
            {"uid": names[2], "length": 8, "start": 3, "added_to": 0},
        ],
    )
    (group,) = groups_of(page_of(folder))
    told_of = [(one["length"], one["placed"], one["added"]) for one in group["prompts"]]
    assert sorted(told_of) == [(0, False, True), (8, False, False), (8, False, True)]


def test_a_run_of_an_earlier_version_says_what_is_not_on_record(folder: RunFolder) -> None:
    names = [uid(1, 0), uid(1, 1)]
    write_step(
        folder,
        1,
        samples=[sample(names[0], reward=10.0), sample(names[1])],
        soft_prompts=[{"uid": name, "start": 3, "length": 8} for name in names],
    )
    metrics = {1: METRICS | {"critic/score/max": 10.0}}
    page = page_of(folder, metrics)
    (group,) = groups_of(page)
    assert [one["right"] for one in group["rollouts"]] == [True, False]
    assert [one["tokens"] for one in group["rollouts"]] == [None, None]
    assert [(p["length"], p["start"], p["placed"]) for p in group["prompts"]] == [(8, 3, False)]
    assert "Of 2 rollouts the reward told no verdict" in page.text
    assert "counts as right if its reward is the run's largest, 10," in page.text
    page = page_of(folder, {})
    (step,) = steps_of(page)
    assert (step["right"], step["wrong"], step["logged"]) == (0, 0, False)
    assert "there are rollouts that are neither right nor wrong" in page.text
    assert "No metrics were logged of step 1" in page.text


def test_verdicts_by_a_reward_of_degrees_are_said(folder: RunFolder) -> None:
    """A run of today, whose reward function gives a mere number."""
    names = [uid(1, 0), uid(1, 1), uid(1, 2)]
    rewards = (1.0, 0.99, 0.0)
    samples = [sample(name, reward=reward) for name, reward in zip(names, rewards, strict=True)]
    rows = [told(name, right=None) for name in names[1:]] + [told(names[0], right=True)]
    write_step(folder, 1, samples=samples, rollouts=rows)
    page = page_of(folder)
    (step,) = steps_of(page)
    assert (step["right"], step["wrong"], step["by_reward"]) == (1, 2, 2)
    assert "Of 2 rollouts the reward told no verdict (`acc` of 0 or 1)" in page.text
    write_groups(folder, 1, ["+-"])
    assert "told no verdict" not in page_of(folder).text


def test_rewards_that_are_infinite_have_a_mean_in_words(folder: RunFolder) -> None:
    names = [uid(1, 0), uid(1, 1)]
    rewards = [float("inf"), float("-inf")]
    write_step(
        folder,
        1,
        samples=[sample(name, reward=reward) for name, reward in zip(names, rewards, strict=True)],
    )
    (step,) = steps_of(page_of(folder))
    assert step["reward"] == "nan"


def test_a_limit_that_hangs_on_a_variable_is_not_known(folder: RunFolder) -> None:
    """The run had it; whoever writes the page need not."""
    write_groups(folder, 1, ["+"])
    config = folder.root / "config" / "config.yaml"
    config.parent.mkdir()
    config.write_text("data: {max_response_length: '${oc.env:RSP_RL_NO_SUCH_VARIABLE}'}\n")
    (group,) = groups_of(page_of(folder))
    assert group["rollouts"][0]["marks"] == []
    config.write_text("data: {max_response_length: 4}\n")
    (group,) = groups_of(page_of(folder))
    assert group["rollouts"][0]["marks"] == ["at the limit of tokens"]


def test_thoughts_are_shown_as_their_heaviest_tokens(folder: RunFolder) -> None:
    thoughts = {"law": "multiplex", "seed": 1, "start": 3, "at": [0], "kind": ["mix"]}
    thoughts |= {"ids": [[5, 6]], "weights": [[0.25, 0.75]], "thoughts": 1}
    write_step(
        folder,
        1,
        samples=[sample(uid(1, number)) for number in range(3)],
        thoughts=[{"uid": uid(1, 0), **thoughts}, {"uid": uid(1, 1), "thoughts": 9}],
    )
    (group,) = groups_of(page_of(folder, token_text="<{}>".format))
    first, second, third = (one["thoughts"] for one in group["rollouts"])
    assert first["tokens"] == [[["<5>", 0.25], ["<6>", 0.75]]]
    assert (second, third) == (9, None)
    (group,) = groups_of(page_of(folder))
    assert group["rollouts"][0]["thoughts"]["tokens"] == [[["#5", 0.25], ["#6", 0.75]]]


def test_a_line_of_the_list_begins_where_prompts_differ(folder: RunFolder) -> None:
    prompts = ["system\nBe brief.\nWhat is 12?", "system\nBe brief.\nWhat is 13?"]
    rows = [sample(uid(number), prompt=prompt) for number, prompt in enumerate(prompts)]
    write_step(folder, 1, samples=rows)
    (step,) = steps_of(page_of(folder))
    assert [group["question"] for group in step["list"]] == ["12?", "13?"]


# What is shown of what there is no room for.


def test_which_groups_come_first(folder: RunFolder) -> None:
    """That with the largest gap, then mixed, wrong and right ones in turn."""
    marks = ["++", "+-", "--", "-+", "++"]
    file = write_groups(folder, 1, marks)
    names = [uid(g, r) for g in range(5) for r in range(2)]
    rows = [told(name, right=m == "+") for name, m in zip(names, "".join(marks), strict=True)]
    rows[9]["gap_max"] = 0.5
    write_step(folder, 1, rollouts=rows)
    step, facts = read_step(1, file), RunFacts({1: METRICS})
    shown = shown_step(step, facts, 10**6)
    counts = [(group["right"], group["wrong"]) for group in shown.entry["list"]]
    assert counts == [(2, 0), (1, 1), (0, 2), (2, 0), (1, 1)]
    room = sum(map(len, list(shown.outputs.values())[:3]))
    assert list(shown_step(step, facts, room).outputs.values()) == list(shown.outputs.values())[:3]
    assert shown_step(step, facts, 0).outputs == {}


def test_of_a_large_group_both_kinds_and_the_largest_gap_are_shown(folder: RunFolder) -> None:
    file = write_groups(folder, 1, ["+" * 40 + "-" * 60])
    names = [uid(0, number) for number in range(100)]
    rows = [told(name, right=number < 40) for number, name in enumerate(names)]
    rows[99]["gap_max"] = 0.5
    write_step(folder, 1, rollouts=rows)
    (group,) = groups_of(page_of(folder))
    shown = [one["name"] for one in group["rollouts"]]
    assert len(shown) == OF_GROUP
    assert shown == [*map(str, range(8)), *map(str, range(40, 47)), "99"]
    (first,) = shown_step(read_step(1, file), RunFacts({1: METRICS}), 500).entry["list"]
    assert 0 < first["shown"] < OF_GROUP


def test_what_is_left_out_is_said(folder: RunFolder) -> None:
    for step in (1, 2):
        write_groups(folder, step, ["+-"] * 50)
    page = page_of(folder, output_bytes=3_000)
    shown = [step["shown"] for step in steps_of(page)]
    assert all(0 < one < 100 for one in shown)
    groups = sum(step["shown_groups"] for step in steps_of(page))
    assert f"{sum(shown)} of 200 rollouts are shown, {groups} of 100 groups;" in page.text
    assert f"at most {OF_GROUP} rollouts" in page.text
    write_groups(folder, 2, ["+-"])
    assert "All 102 rollouts are shown." in page_of(folder).text


def test_of_many_steps_some_have_rollouts() -> None:
    assert spread([3, 5], 2) == spread([3, 5]) == [3, 5]
    few = spread(range(1, 1001), 10)
    assert (len(few), few[0], few[-1]) == (10, 1, 1000)


def test_huge_texts_keep_both_ends(folder: RunFolder) -> None:
    text = "a" * HEAD + "b" * 10**6 + "c" * TAIL
    write_step(folder, 1, samples=[sample(uid(1), text=text, prompt=text)])
    (group,) = groups_of(page_of(folder))
    for shown in (group["rollouts"][0]["output"], group["prompts"][0]["before"]):
        assert shown == {"head": "a" * HEAD, "left_out": 10**6, "tail": "c" * TAIL}
    assert group["rollouts"][0]["characters"] == len(text)
    assert folder.rollouts_page.stat().st_size < 60_000


# What a model wrote stays text.


def test_the_page_loads_nothing_and_runs_its_own_script_alone(folder: RunFolder) -> None:
    write_groups(folder, 1, ["+-"])
    page = page_of(folder)
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base", "img"}
        for name in ("src", "href", "action"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")]
    (policy,) = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    digest = hashlib.sha256(page.scripts[None].encode()).digest()
    assert f"script-src 'sha256-{base64.b64encode(digest).decode()}'" in policy
    assert "default-src 'none'" in policy
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in page.scripts[None]


@pytest.mark.parametrize("hostile", [HOSTILE, "half \ud800 a character"])
def test_hostile_text_stays_text(tmp_path: Path, hostile: str) -> None:
    folder = RunFolder(tmp_path / "<img src=x>")
    write_step(
        folder,
        1,
        samples=[sample(uid(1), text=hostile, prompt=hostile) | {"gts": hostile}],
        rollouts=[told(uid(1)) | {"reward_info": {"acc": 0, "pred": hostile, "stage": hostile}}],
        thoughts=[
            {"uid": uid(1), "law": hostile, "at": [0], "kind": [hostile]}
            | {"ids": [[5]], "weights": [[]], "thoughts": 1}
        ],
    )
    page = page_of(folder, token_text=lambda _: hostile)
    assert "<img src=x>: rollouts" in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert set(page.scripts) == {None, "index", "outputs-1-0"}
    (group,) = groups_of(page)
    (shown,) = group["rollouts"]
    assert shown["extracted"] == shown["stage"] == shown["output"]["head"] == hostile
    assert group["gold"]["head"] == group["prompts"][0]["before"]["head"] == hostile
    assert shown["thoughts"]["tokens"] == [[[hostile, None]]]
    assert steps_of(page)[0]["list"][0]["question"] == hostile


def test_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run\udcff")
    write_groups(folder, 1, ["+"])
    assert "run?: rollouts of training" in page_of(folder).text


# What else it says.


def test_no_samples_no_page(folder: RunFolder) -> None:
    assert write_rollouts_page(folder, {}) is None
    assert not folder.rollouts_page.exists()


def test_padding_and_lines_cut_short_are_said(folder: RunFolder) -> None:
    file = write_step(folder, 1, samples=[sample(uid(1)), sample(f"pad{'0a' * 16}_0_0")])
    with file.open("a") as stream:
        stream.write('{"inp')
    text = page_of(folder).text
    assert "padding is not counted: 1 line of samples." in text
    assert "The samples of step 1 end within a line" in text


# Its script, where there is something to run it with.


@pytest.mark.skipif(which("node") is None, reason="node is not installed: the script is not tried")
def test_numbers_are_shortened_and_not_changed() -> None:
    script = asset("rsp_rl.runs", "rollouts.js")
    function = script[script.index("function short(") : script.index("function kindOf(")]
    shown = {100: "100", 0: "0", 0.125: "0.125", 43.75: "43.8", 12345.6: "12346", -1: "-1"}
    shown |= {1e-7: "1e-7", 1.2345e-6: "0.00000123", 1000: "1000", 30: "30", 999.9: "1000"}
    code = f"{function} console.log(JSON.stringify({json.dumps(list(shown))}.map(short)))"
    done = subprocess.run(["node", "-e", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == list(shown.values())


MOVES = """
const boxes = { step: { value: "" }, show: { value: "wrong" }, shortest: {}, longest: {} };
const byId = (id) => boxes[id];
const searched = () => [];
const of = (step, number, right) =>
  ({ step: { step }, number, right, wrong: 2 - right, rollouts: 2 });
const entries = [of(1, 0, 0), of(2, 0, 2), of(4, 0, 1), of(4, 1, 0), of(5, 0, 2)];
const viewer = {
  entries, chosen: entries[0], filter: () => (viewer.listed = entries.filter(matches())),
  visit: (entry) => (viewer.chosen = entry),
};
viewer.filter();
const went = [1, 1, -1, -1].map((way) => (moveByStep(way), viewer.chosen.step.step));
boxes.step.value = "3"; // chosen in the list of steps, the entry is another one's yet
viewer.filter();
moveByStep(1);
console.log(JSON.stringify([...went, viewer.chosen.number, boxes.step.value]));
"""


@pytest.mark.skipif(which("node") is None, reason="node is not installed: the script is not tried")
def test_keys_go_to_the_next_step_that_the_filters_leave() -> None:
    script = asset("rsp_rl.runs", "rollouts.js")
    kinds = script[script.index("const KINDS") : script.index("const ORDERS")]
    matches = script[script.index("function matches(") : script.index("function row(")]
    move = script[script.index("function moveByStep(") : script.index("// What is searched of")]
    code = kinds + matches + move + MOVES
    done = subprocess.run(["node", "-e", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [4, 4, 1, 1, 1, "4"]


@pytest.mark.skipif(which("node") is None, reason="node is not installed: the script is not tried")
@pytest.mark.parametrize("own", [("rsp_rl.runs", "rollouts.js"), ("rsp_rl.evaluation", "page.js")])
def test_scripts_are_whole(own: tuple[str, str], tmp_path: Path) -> None:
    file = tmp_path / "page.js"
    file.write_text(asset("rsp_rl.display", "viewer.js") + asset(*own))
    subprocess.run(["node", "--check", file], check=True)
