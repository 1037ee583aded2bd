"""The paper's tables are those of its text, line by line, where the text is at hand."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from rsp_rl.data.benchmarks import BENCHMARKS
from rsp_rl.evaluation.protocol import load_protocol
from rsp_rl.reproduce.tables import TABLES, Table, numbers_in
from rsp_rl.training.configs import compose_config

REPO = Path(__file__).resolve().parents[3]
SHARED = Path(os.environ.get("RSP_RL_SHARED", REPO.parent / "shared"))
TEXT = SHARED / "seeds" / "rsp_paper.txt"

#: The text has some formulas twice, as read and as TeX: what they are once.
_ONCE = (
    ("ρ\\rho", "ρ"),
    ("±\\pm", "±"),
    ("τ=2.0\\tau{=}2.0", "τ=2.0"),
    ("τ=3.0\\tau{=}3.0", "τ=3.0"),
    ("RSP\\geq1/16", "RSP≥1/16"),
    ("Baseline\\geq1/16", "Baseline≥1/16"),
    ("nsamplingn_{\\text{sampling}}", "n_sampling"),
    ("prompt GG", "prompt G"),
    ("temperature 1.01.0, top-pp 1.01.0, top-kk 5050", "temperature 1.0, top-p 1.0, top-k 50"),
    ("(εlow,εhigh)(\\varepsilon_{\\text{low}},\\varepsilon_{\\text{high}})", "(εlow,εhigh)"),
    ("(0.2, 0.28)(0.2,\\,0.28)", "(0.2, 0.28)"),
    ("clip cc 10.010.0", "clip c 10.0"),
    (" (1/i|yi|1/\\sum_{i}|y_{i}|)", ""),  # a formula: one over the number of tokens
    ("5×1075\\times 10^{-7}", "5e-7"),
    ("80\\geq 80", "≥80"),
    ("L=20L=20", "L=20"),
    ("4×4\\times", "4×"),
    ("\\sim1212", "~12"),
)


def normal(line: str) -> str:
    line = " ".join(line.split())
    for twice, once in _ONCE:
        line = line.replace(twice, once)
    return line


needs_text = pytest.mark.skipif(
    not TEXT.is_file(), reason="the paper's text is not at hand; RSP_RL_SHARED names its folder"
)


@needs_text
@pytest.mark.parametrize("number", TABLES)
def test_a_table_is_the_papers_and_all_of_it(number: int) -> None:
    lines = [normal(line) for line in TEXT.read_text(encoding="utf-8").splitlines()]
    (caption,) = [i for i, line in enumerate(lines) if line.startswith(f"Table {number}: ")]
    wanted = TABLES[number].lines
    assert lines[caption + 1 : caption + 1 + len(wanted)] == wanted
    after = lines[caption + 1 + len(wanted)]
    assert after.startswith("Table ") or not re.search(r"\d", after), "a line of it is missing"


@needs_text
def test_no_table_is_missing() -> None:
    found = re.findall(r"^Table (\d+): ", TEXT.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(map(int, found)) == sorted(TABLES)


def test_lines_and_cells() -> None:
    table = Table(
        "\n | x |\nName | A | B\nSome\none | 1 | 2\n | 3 | 4\nOthers\ntwo | | 5\n", head=2
    )
    assert table.columns == ("Name", "A", "B")
    assert table.lines[-4:] == ["one 1 2", "3 4", "Others", "two 5"]
    assert [(row.group, row.cells) for row in table.rows()] == [
        ("Some", ("one", "1", "2")),
        ("Some", ("one", "3", "4")),
        ("Others", ("two", "", "5")),
    ]


@pytest.mark.parametrize("number", TABLES)
def test_rows_are_as_wide_as_the_head(number: int) -> None:
    table = TABLES[number]
    assert all(len(row.cells) == len(table.columns) for row in table.rows())


@pytest.mark.parametrize(
    ("cell", "numbers"),
    [
        ("45.00 (-7.2)", [45, -7.2]),
        ("20.00 (+10.0)", [20, 10]),
        ("20.77 ± 1.47", [20.77, 1.47]),
        ("5/30 (16.7%)", [5, 30, 16.7]),
        ("#6, #8, #14", [6, 8, 14]),
        ("2,028 / 2,048", [2028, 2048]),
        ("(0.2, 0.28)", [0.2, 0.28]),
        ("learning rate 5e-7 (constant)", [5e-7]),
        ("disabled", []),
    ],
)
def test_numbers_of_a_cell(cell: str, numbers: list[float]) -> None:
    assert numbers_in(cell) == numbers


def test_table_2_is_a_part_of_table_6() -> None:
    whole = {(row.group, *row.cells[:2]): row.cells[2:] for row in TABLES[6].rows()}
    for row in TABLES[2].rows():
        model = row.cells[0].replace("-Inst", "-Instruct")
        modes = [whole[row.group, model, mode] for mode in ("Baseline", "Prefix", "Suffix")]
        # By benchmark, then by mode.
        assert list(row.cells[1:]) == [mode[i] for i in range(3) for mode in modes]


def test_differences_of_table_6_are_those_of_its_accuracies() -> None:
    baselines = {}
    for row in TABLES[6].rows():
        mode, *cells = row.cells[1:]
        key = row.group, row.cells[0]
        if mode == "Baseline":
            baselines[key] = [float(cell) for cell in cells]
            continue
        for cell, baseline in zip(cells, baselines[key], strict=True):
            accuracy, difference = numbers_in(cell)
            # Rounded to a tenth, in float64.
            assert abs(accuracy - baseline - difference) <= 0.05 + 1e-9


def test_table_11_is_our_protocol() -> None:
    """The paper's text has College Math's accuracy, Table 11 leaves it out."""
    protocol = load_protocol("rsp_paper")
    plans = {plan.benchmark: plan for plan in protocol.benchmarks}
    names = ("aime24", "amc23", "math500", "gsm8k", "olympiadbench", "minerva_math", "gaokao2023en")
    assert plans.keys() == {*names, "college_math"}
    for name, row in zip(names, TABLES[11].rows(), strict=True):
        problems, temperature, samples = (numbers_in(cell)[0] for cell in row.cells[1:4])
        assert problems == BENCHMARKS[name].problems
        assert (plans[name].temperature, plans[name].samples) == (temperature, samples)


def test_table_12_is_our_training() -> None:
    config = compose_config("dapo_rsp")
    fields = {row.cells[0]: numbers_in(row.cells[1]) for row in TABLES[12].rows()}
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert fields["Train batch size"] == [config.data.train_batch_size]
    batch, updates = fields["PPO mini-batch size"]
    assert batch == actor.ppo_mini_batch_size
    assert updates * batch == config.data.train_batch_size
    assert fields["Rollouts per prompt G"] == [rollout.n]
    lengths = [config.data.max_prompt_length, config.data.max_response_length]
    assert fields["Max prompt / response length"] == lengths
    sampling = [rollout.temperature, rollout.top_p, rollout.top_k]
    assert fields["Rollout sampling"] == sampling
    assert fields["(εlow,εhigh)"] == [actor.clip_ratio_low, actor.clip_ratio_high]
    assert fields["Dual clip c"] == [actor.clip_ratio_c]
    assert fields["Entropy coefficient"] == [actor.entropy_coeff]
    assert fields["Optimizer"] == [actor.optim.lr]
    assert fields["Save / eval frequency"] == [config.trainer.save_freq]
    assert fields["Total training"][1] <= config.trainer.total_training_steps
    assert fields["RSP (DAPO + RSP only)"] == [config.rsp.length]
