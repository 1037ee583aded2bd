"""Methods in the paper's order, seeds grouped, beside the paper's numbers."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from rsp_rl.analysis.latent_table import (
    Order,
    draw,
    open_evaluation,
    paper_order,
    tabulate,
    to_markdown,
)
from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.cli import main
from rsp_rl.latent.methods import METHODS
from rsp_rl.latent.paper import ROWS, TABLE_1, TASKS
from rsp_rl.latent.settings import Settings

BASE = Settings(epochs=4)


def made(
    root: Path,
    accuracy: float,
    settings: Settings | None = BASE,
    *,
    fingerprint: str = "f00d",
    where: str = "evaluation/heldout",
    trained_on: str | None = None,
    **summary: object,
) -> Path:
    """A run's folder with an evaluation; its interval is 0.02 to both sides."""
    folder = root / where
    (folder / "step_0").mkdir(parents=True)
    own = {} if settings is None else asdict(settings)
    manifest = {"protocol": {"headline": ["heldout"]}, "fingerprint": fingerprint, "training": own}
    manifest |= {"trained_on": trained_on}
    (folder / "step_0" / "how.json").write_text(json.dumps(manifest))
    found = {
        "method": own.get("method", "coconut"),
        "accuracy": accuracy,
        "accuracy_low": accuracy - 0.02,
        "accuracy_high": accuracy + 0.02,
        "tokens": 14.0,
        "seconds_per_problem": 0.25,
        "thoughts": 6.0,
        "problems": 500,
        "unfinished": 0,
        "without_answer": 0,
        "batch_size": 64,
        "device": "cpu",
        "engine": "huggingface",
        "epochs": 4,
        "epochs_done": 4,
    }
    (folder / "summary.json").write_text(json.dumps(found | summary))
    return root


def of(method: str, seed: int = 0, **changes: object) -> Settings:
    return replace(BASE, method=method, seed=seed, **changes)


def rows_of(runs, task="prosqa"):
    return tabulate([open_evaluation(run) for run in runs])


def test_the_papers_table_has_all_methods_and_tasks():
    assert [*TABLE_1] == [
        *("cot", "no_cot", "icot", "pause", "coconut"),
        *("no_curriculum", "no_thought", "pause_as_thought"),
    ]
    assert {*TABLE_1} == {*METHODS}
    assert all([*row] == [*TASKS] for row in TABLE_1.values())
    shown = {m: [(c.accuracy, c.tokens) for c in row.values()] for m, row in TABLE_1.items()}
    assert shown["cot"] == [(42.9, 25.0), (98.8, 92.5), (77.5, 49.4)]
    assert shown["coconut"] == [(34.1, 8.2), (99.8, 9.0), (97.0, 14.2)]
    assert shown["pause_as_thought"] == [(24.1, 2.2), (100.0, 3.0), (96.6, 8.2)]
    assert [(m, t) for m, row in TABLE_1.items() for t, c in row.items() if c.spread is None] == [
        ("icot", "gsm8k")
    ]


def test_rows_with_the_decoder_follow_those_without_and_have_no_number():
    assert [*ROWS] == [
        *("cot", "no_cot", "icot", "pause", "coconut", "coconut+step_decoder", "no_curriculum"),
        *("no_curriculum+step_decoder", "no_thought", "pause_as_thought"),
    ]
    assert {key: row.reported for key, row in ROWS.items() if "+" not in key} == TABLE_1
    own = [row for key, row in ROWS.items() if "+" in key]
    assert [(row.label, row.name, {**row.reported}) for row in own] == [
        ("- with SIM-CoT's decoder", "Coconut with SIM-CoT's decoder", {}),
        (
            "- w/o curriculum with SIM-CoT's decoder",
            *("w/o curriculum with SIM-CoT's decoder", {}),
        ),
    ]


def test_rows_and_seeds(tmp_path):
    runs = [
        made(tmp_path / "c1", 0.90, of("coconut", 1)),
        made(tmp_path / "p", 0.70, of("pause")),
        made(tmp_path / "c0", 0.80, of("coconut", 0), tokens=16.0),
        made(tmp_path / "cot", 0.75, of("cot")),
    ]
    rows = rows_of(runs)
    assert [row.row.key for row in rows] == ["cot", "pause", "coconut"]
    coconut = rows[2]
    assert coconut.accuracy.value == pytest.approx(0.85)
    # Of two values, t is 12.706 and the standard error half of their distance.
    assert coconut.half_width == pytest.approx(12.706 * 0.05, rel=1e-4)
    assert coconut.mean("tokens") == 15
    assert (rows[0].accuracy.low, rows[0].accuracy.high) == (0.73, 0.77)


def test_order_by_pairs(tmp_path):
    """CoT 77.5 ±1.9, No-CoT 76.7 ±1.0, iCoT 98.2 ±0.3, Coconut 97.0 ±0.3 in the paper."""
    runs = [
        made(tmp_path / "cot", 0.95, of("cot")),
        made(tmp_path / "no", 0.50, of("no_cot")),
        made(tmp_path / "i", 0.90, of("icot")),
        made(tmp_path / "c", 0.935, of("coconut")),
    ]
    order = paper_order(rows_of(runs), "prosqa")
    assert order == Order(
        same=(("icot", "no_cot"), ("coconut", "no_cot")),
        other=(("icot", "cot"), ("icot", "coconut")),
        open=(("coconut", "cot"),),  # 0.015 apart, and half widths make 0.028
    )
    assert math.hypot(0.02, 0.02) > 0.015
    # CoT over No-CoT is within the paper's spreads, so no pair.


def test_a_difference_within_the_papers_spreads_is_no_pair(tmp_path):
    runs = [made(tmp_path / m, 0.5, of(m)) for m in ("cot", "icot")]
    assert paper_order(rows_of(runs), "prontoqa").open == ()  # 1.0 of 1.1
    runs = [made(tmp_path / f"2{m}", 0.5, of(m)) for m in ("icot", "coconut")]
    assert paper_order(rows_of(runs), "prosqa").open == (("icot", "coconut"),)  # 1.2 of 0.6


def test_files_and_notes(tmp_path, capsys):
    runs = [
        made(tmp_path / "cot", 0.75, of("cot"), thoughts=0.0, unfinished=3),
        made(tmp_path / "c0", 0.90, of("coconut", learning_rate=2e-4), epochs_done=3),
        made(tmp_path / "p", 0.70, of("pause_as_thought"), batch_size=1),
        made(tmp_path / "n", 0.70, of("no_thought")),
    ]
    output = tmp_path / "out"
    command = ["latent", "table", *map(str, runs), "--output", str(output)]
    assert main([*command, "--task", "prosqa"]) == 0
    text = (output / "latent_table.md").read_text()
    assert text in capsys.readouterr().out
    assert "| CoT | 1 | 75.00 [73.00, 77.00] | 14.0 | 0.0 | 0.25 | 77.5 ±1.9 | 49.4 |" in text
    assert "Seconds do not compare: batch sizes are 1, 64." in text
    assert "same learning_rate: CoT 0.0001, Coconut 0.0002, - w/o thought 0.0001" in text
    assert f"{tmp_path / 'c0' / 'evaluation' / 'heldout'}: its training had done 3 of 4" in text
    assert "CoT: 3 answers cut off at the token limit, 0 without a line" in text
    assert "Order here: Coconut, CoT, w/o thought = pause as thought." in text
    assert "Order in the paper (prosqa): Coconut, pause as thought, w/o thought, CoT." in text
    assert "Of 4 pairs that the paper tells apart, 2 are in its order here, 2 the other" in text
    assert "other way round: w/o thought over CoT; pause as thought over CoT." in text
    assert (output / "latent_table.png").is_file()
    (cot, *_) = csv.DictReader((output / "latent_table.csv").open())
    assert (cot["paper_accuracy"], cot["paper_tokens"], cot["seeds"]) == ("0.775", "49.4", "0")
    assert main(command) == 0
    bare = (output / "latent_table.md").read_text()
    assert "paper (%)" not in bare
    assert "With --task, one of gsm8k, prontoqa, prosqa" in bare


def test_what_icot_alone_reads_is_said_of_icot_alone(tmp_path):
    tokens = {"icot_tokens_per_epoch": 2}
    runs = [
        made(tmp_path / "c0", 0.5, of("cot")),
        made(tmp_path / "c1", 0.6, of("cot", 1, **tokens)),
        made(tmp_path / "i0", 0.5, of("icot", **tokens)),
    ]
    assert "not all were trained with" not in to_markdown(rows_of(runs), None).lower()
    runs.append(made(tmp_path / "i1", 0.5, of("icot", 1)))
    with pytest.raises(ConfigError, match="icot_tokens_per_epoch is 2 and 8"):
        rows_of(runs)


class TestWithTheDecoder:
    @pytest.fixture
    def runs(self, tmp_path):
        """Seeds of Coconut and of Coconut with the decoder, and two rows beside."""
        return [
            made(tmp_path / "sim", 0.95, of("coconut", step_decoder=1.0)),
            made(tmp_path / "cot", 0.94, of("cot")),
            made(tmp_path / "c0", 0.50, of("coconut")),
            made(tmp_path / "p", 0.99, of("pause_as_thought")),
        ]

    def test_files(self, tmp_path, runs):
        output = tmp_path / "out"
        command = ["latent", "table", *map(str, runs), "--output", str(output)]
        assert main([*command, "--task", "prosqa"]) == 0
        text = (output / "latent_table.md").read_text()
        table = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
        assert [cells[0].removeprefix("| ") for cells in table] == [
            *("CoT", "Coconut", "- with SIM-CoT's decoder", "- pause as thought")
        ]
        assert [cells[-2] for cells in table] == ["77.5 ±1.9", "97.0 ±0.3", "–", "96.6 ±0.8"]
        assert "- Coconut with SIM-CoT's decoder: its loss has the weight 1 (step_decoder)." in text
        assert "same step_decoder" not in text
        assert (
            "- Order here: pause as thought, Coconut with SIM-CoT's decoder, CoT, Coconut.\n"
            "- Order in the paper (prosqa): Coconut, pause as thought, CoT.\n"
        ) in text
        assert "Of 2 pairs that the paper tells apart, 1 are in its order here, 1 the other" in text
        assert (
            "- Coconut with SIM-CoT's decoder, which the paper has not, is above Coconut; below "
            "pause as thought; not told apart from CoT.\n"
        ) in text
        rows = [*csv.DictReader((output / "latent_table.csv").open())]
        assert [row["method"] for row in rows][1:3] == ["coconut", "coconut+step_decoder"]
        assert [rows[2][f"paper_{of}"] for of in ("accuracy", "spread", "tokens")] == [""] * 3
        assert rows[2]["accuracy"] == "0.95"
        assert main(command) == 0
        assert "which the paper has not" not in (output / "latent_table.md").read_text()

    def test_the_picture_has_no_diamond_of_it(self, runs):
        axis = draw(rows_of(runs), "prosqa").axes[0]
        diamonds = [line for line in axis.lines if line.get_marker() == "D"]
        # From below: pause as thought, with the decoder, Coconut, CoT.
        assert [int(line.get_ydata()[0]) for line in diamonds] == [0, 2, 3]
        assert axis.get_yticklabels()[1].get_text() == "- with SIM-CoT's decoder"

    def test_beside_coconut_alone_the_paper_has_no_order(self, runs):
        text = to_markdown(rows_of([runs[0], runs[2]]), "prosqa")
        assert "Order in the paper" not in text
        assert "pairs that the paper" not in text
        assert "which the paper has not, is above Coconut." in text

    def test_its_seeds_have_one_weight(self, tmp_path, runs):
        other = made(tmp_path / "half", 0.9, of("coconut", 1, step_decoder=0.5))
        said = r"both of method coconut\+step_decoder .*: step_decoder is 1.0 and 0.5"
        with pytest.raises(ConfigError, match=said):
            rows_of([runs[0], other])

    def test_a_training_that_is_not_known_may_have_had_it(self, tmp_path, runs):
        unknown = made(tmp_path / "model", 0.9, None)
        text = to_markdown(rows_of([runs[0], unknown]), None)
        folder = unknown / "evaluation" / "heldout"
        assert f"{folder}: its training is not known, nor whether it had SIM-CoT's" in text
        assert text.count("is not known") == 1


class TestRefused:
    def test_seeds_of_other_problems(self, tmp_path):
        first = made(tmp_path / "a", 0.8, of("coconut"), trained_on="d1")
        runs = [first, made(tmp_path / "b", 0.9, of("coconut", 1), trained_on="d2")]
        with pytest.raises(ConfigError, match="were trained on other problems"):
            rows_of(runs)
        lines = rows_of([first, made(tmp_path / "c", 0.9, of("cot"), trained_on="d2")])
        assert "- Not all were trained on the same problems." in to_markdown(lines, "prosqa")

    def test_runs_of_a_method_that_are_no_seeds(self, tmp_path):
        runs = [
            made(tmp_path / "a", 0.5, of("cot")),
            made(tmp_path / "b", 0.5, of("cot", 1, epochs=9)),
        ]
        with pytest.raises(ConfigError, match="differ in more than their seed: epochs is 4 and 9"):
            rows_of(runs)

    @pytest.mark.parametrize("settings", [of("cot"), None])
    def test_a_seed_twice(self, tmp_path, settings):
        runs = [made(tmp_path / name, 0.5, settings) for name in "ab"]
        with pytest.raises(ConfigError, match="and of seed"):
            rows_of(runs)

    def test_other_problems(self, tmp_path):
        runs = [made(tmp_path / "a", 0.5), made(tmp_path / "b", 0.5, of("cot"), fingerprint="beef")]
        with pytest.raises(RunFolderError, match="were not asked the same problems"):
            rows_of(runs)

    def test_several_evaluations_of_a_run(self, tmp_path):
        run = made(tmp_path / "a", 0.5)
        made(run, 0.6, where="evaluation/other")
        with pytest.raises(
            ConfigError, match=r"several evaluations; name one of .*heldout, .*other"
        ):
            open_evaluation(run)
        assert open_evaluation(run / "evaluation" / "other").summary["accuracy"] == 0.6

    def test_a_run_whose_own_summary_lies_beside(self, tmp_path):
        """A recipe leaves one at the top; it is a copy and no evaluation."""
        run = made(tmp_path / "a", 0.5)
        (run / "summary.json").write_text('{"accuracy": 0.1}')
        assert open_evaluation(run).summary["accuracy"] == 0.5

    @pytest.mark.parametrize("missing", ["summary.json", "step_0/how.json"])
    def test_no_finished_evaluation(self, tmp_path, missing, capsys):
        run = made(tmp_path / "a", 0.5)
        (run / "evaluation" / "heldout" / missing).unlink()
        assert main(["latent", "table", str(run)]) == 1
        assert "holds no finished evaluation" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("change", "said"), [({"tokens": None}, "lacks 'tokens'"), ({"method": "x"}, "method 'x'")]
    )
    def test_a_damaged_summary(self, tmp_path, change, said):
        run = made(tmp_path / "a", 0.5, **change)
        file = run / "evaluation" / "heldout" / "summary.json"
        kept = {
            key: value for key, value in json.loads(file.read_text()).items() if value is not None
        }
        file.write_text(json.dumps(kept | {"epochs": 4, "epochs_done": 4}))
        with pytest.raises(RunFolderError, match=said):
            open_evaluation(run)
