"""The paper's numbers: every one of its tables', each once, and in agreement with one another."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import pytest

from rsp_rl.comparators.presets import get_preset
from rsp_rl.data.benchmarks import BENCHMARKS
from rsp_rl.reproduce import paper
from rsp_rl.reproduce.paper import PaperNumber
from rsp_rl.reproduce.tables import TABLES, numbers_in
from tests.unit.reproduce.test_tables import TEXT, needs_text

#: Tables of measurements, with how many cells at their left name a row.
MEASURED = {1: 2, 2: 1, 3: 1, 4: 1, 5: 1, 6: 2, 7: 1, 9: 1, 10: 1, 13: 1}


def of_table(number: int) -> list[PaperNumber]:
    sources = {f"Table {number}", "Tables 2, 6" if number in (2, 6) else ""}
    if number == 13:
        sources = {"Table 13, Figure 5"}
    return [one for one in paper.NUMBERS if one.source in sources]


def printed(number: PaperNumber) -> float:
    """As in its table: some fractions are in percent there."""
    in_percent = number.shown == "percent" or number.quantity.metric == "mass outside the top 10"
    value = 100 * number.value if in_percent else number.value
    if number.quantity.metric.startswith("problem #"):
        value = float(number.quantity.metric.partition("#")[2])
    return round(value, 6)


def test_every_number_is_there_once() -> None:
    keys = Counter((number.quantity, number.model, number.prompts) for number in paper.NUMBERS)
    assert [key for key, count in keys.items() if count > 1] == []


@pytest.mark.parametrize("table", MEASURED)
def test_none_is_missing_and_none_invented(table: int) -> None:
    """Those of Table 2 are there with Table 6's."""
    cells = [cell for row in TABLES[table].rows() for cell in row.cells[MEASURED[table] :]]
    wanted = Counter(value for cell in cells for value in numbers_in(cell))
    found = Counter(map(printed, of_table(table)))
    assert wanted <= found if table == 2 else wanted == found
    if table == 2:
        both = Counter(printed(n) for n in paper.NUMBERS if n.source == "Tables 2, 6")
        assert both == wanted


def test_settings_are_no_numbers_of_a_run() -> None:
    assert MEASURED.keys() | {8, 11, 12} == TABLES.keys()


@needs_text
def test_numbers_outside_tables_are_in_the_text() -> None:
    text = TEXT.read_text(encoding="utf-8")
    assert "reaching 92.80" in text
    assert "MATH-500 and 36.67" in text
    assert "baseline at τ=1.0\\tau{=}1.0 reaching 73.92±0.78" in text
    others = [n for n in paper.NUMBERS if n.source in ("Figure 4", "Appendix B")]
    assert [printed(n) for n in others] == [73.92, 0.78, 92.8, 36.67]
    assert "maximum generation length of 3,072 tokens for MATH-500 and GSM8K, and 4,096" in text
    assert paper.MAX_TOKENS == {"math500": 3072, "gsm8k": 3072, "aime24": 4096}


@pytest.mark.parametrize(
    ("table", "model", "prompts", "condition", "benchmark", "metric", "value", "length"),
    [
        (1, "Qwen2.5-Math-7B-Instruct", paper.CHAT, "ttsv", "aime24", "accuracy", 0.2330, 20),
        (1, "Qwen2.5-Math-1.5B-Instruct", paper.CHAT, "softcot", "math500", "accuracy", 0.76, 4),
        (1, "Qwen2.5-Math-1.5B-Instruct", paper.CHAT, "ltpo", "gsm8k", "accuracy", 0.8453, 8),
        (2, paper.LLAMA, paper.CHAT, "suffix", "gsm8k", paper.DIFFERENCE, 0.01, 20),
        (6, paper.LARGE, paper.RAW, "suffix", "gsm8k", "accuracy", 0.5413, 10),
        (6, paper.LARGE, paper.CHAT, "suffix", "gsm8k", "accuracy", 0.7597, 20),
        (6, paper.SMALL, paper.CHAT, "prefix", "math500", paper.DIFFERENCE, 0.29, 20),
        (6, paper.SMALL, paper.RAW, "baseline", "math500", "accuracy", 0.614, None),
        (7, paper.SMALL, paper.CHAT, "chosen", "aime24", "L", 10, None),
        (7, paper.SMALL, paper.RAW, "chosen", "aime24", "L", 20, None),
        (9, paper.INSTRUCT, None, "softcot", "math500", "varentropy, first 5%", 2.2234, 4),
        (9, paper.INSTRUCT, None, "infix", "math500", "tokens", 549.9, 20),
        (9, paper.INSTRUCT, None, "ttsv", "math500", "top-1 probability, overall", 0.9685, 20),
        (10, paper.INSTRUCT, None, "only RSP", "aime24", "problem #22", 1, 20),
        (10, paper.INSTRUCT, None, "neither", "aime24", "share of problems", 0.633, 20),
        (5, paper.LARGE, None, paper.BASE, "college_math", "accuracy", 0.183, None),
    ],
)
def test_a_number_is_of_what_it_stands_at(
    table: int,
    model: str,
    prompts: str | None,
    condition: str,
    benchmark: str,
    metric: str,
    value: float,
    length: int | None,
) -> None:
    """Corners of the tables, by eye."""
    (found,) = [
        number
        for number in of_table(table)
        if (number.model, number.prompts) == (model, prompts)
        and (number.quantity.condition, number.quantity.benchmark) == (condition, benchmark)
        and number.quantity.metric == metric
    ]
    assert found.value == pytest.approx(value)
    assert found.length == length


def test_benchmarks_are_ours() -> None:
    named = {number.quantity.benchmark for number in paper.NUMBERS}
    assert {part for name in named for part in paper.parts_of(name)} <= set(BENCHMARKS)


def test_table_1_is_of_the_best_position_wherever_that_is() -> None:
    found = {
        (number.model, number.quantity.benchmark): number.position
        for number in of_table(1)
        if number.quantity.condition == "random"
    }
    large, small = f"{paper.LARGE}-Instruct", f"{paper.SMALL}-Instruct"
    assert found == {
        **{(large, "math500"): "infix", (large, "gsm8k"): "suffix", (large, "aime24"): "suffix"},
        **{(small, "math500"): "infix", (small, "gsm8k"): "infix", (small, "aime24"): "suffix"},
    }
    accuracies = {
        (n.model, n.prompts, n.quantity.benchmark, n.quantity.condition): n.value
        for n in of_table(6)
        if n.quantity.metric == paper.ACCURACY
    }
    for number in of_table(1):
        key = number.model, number.prompts, number.quantity.benchmark
        if number.quantity.condition == "baseline":
            assert number.value == accuracies[*key, "baseline"]
        if number.quantity.condition == "random":
            positions = [accuracies[*key, name] for name in ("prefix", "infix", "suffix")]
            assert number.value == max(positions)


@pytest.mark.parametrize(("run", "peak"), [(paper.DAPO, 80), (paper.DAPO_RSP, 90)])
def test_peaks_of_table_5_are_those_of_table_13(run: str, peak: int) -> None:
    """The mean of Table 5's five benchmarks is the largest value of the run's curve."""
    numbers = [number for number in paper.NUMBERS if number.quantity.condition == run]
    curve = {
        number.quantity.metric: number.value
        for number in numbers
        if number.quantity.metric.startswith("headline")
    }
    *benchmarks, mean = [n.value for n in numbers if n.quantity.metric == "accuracy at the peak"]
    assert max(curve, key=curve.__getitem__) == f"headline at step {peak}"
    # Numbers of one decimal that add up: exact but for float64.
    assert sum(benchmarks) / 5 == pytest.approx(max(curve.values()), abs=1e-9)
    assert mean == max(curve.values())
    *base, of_base = [n.value for n in paper.NUMBERS if n.quantity.condition == paper.BASE]
    assert sum(base) / 5 == pytest.approx(of_base, abs=1e-9)
    assert of_base == curve["headline at step 0"]


def test_table_10_adds_up() -> None:
    found = {(n.quantity.condition, n.quantity.metric): n.value for n in of_table(10)}
    outcomes = {outcome for outcome, _ in found}
    assert sum(found[outcome, "problems"] for outcome in outcomes) == 30
    for outcome in outcomes:
        assert found[outcome, "asked"] == BENCHMARKS["aime24"].problems
        share = found[outcome, "problems"] / 30
        assert found[outcome, "share of problems"] == pytest.approx(share, abs=5.1e-4)
    assert paper.aime24_problem("66") == "problem #6"
    assert paper.aime24_problem("7") == paper.aime24_problem("x").replace("x", "7") == "problem 7"


def test_lengths_are_of_those_the_paper_tries() -> None:
    assert set(paper.LENGTHS.values()) <= {10, 15, 20}
    assert len(paper.LENGTHS) == 21


def test_ltpos_presets_are_table_8() -> None:
    names = {"tokens": "length", "lr": "learning_rate"}
    for i, text in enumerate(TABLES[8].columns[1:], 1):
        benchmark = {"GSM8K": "gsm8k", "MATH-500": "math500", "AIME24": "aime24"}[text]
        preset = get_preset("ltpo", f"paper-{benchmark}")
        values = preset.values() | {"length": preset.length}
        for row in TABLES[8].rows():
            assert values[names.get(row.cells[0], row.cells[0])] == float(row.cells[i])


@needs_text
def test_presets_are_appendix_a_3() -> None:
    """What the text says of TTSV and SoftCoT, each clause with the settings that it fixes."""
    text = " ".join(TEXT.read_text(encoding="utf-8").split())
    small, large = (get_preset("ttsv", f"paper-{size}").values() for size in ("1.5b", "7b"))
    for clause, settings in {
        "Prefix length 20, trained for 20 epochs with AdamW": {"length": 20, "epochs": 20},
        "batch size 2, gradient accumulation 8 steps": {"batch_size": 2, "accumulation": 8},
    }.items():
        assert clause in text
        assert small.items() >= settings.items()
        assert large.items() >= settings.items()
    assert "Learning rate is 1e-3 for Qwen-1.5B and 1e-5 for Qwen-7B" in text
    assert (small["learning_rate"], large["learning_rate"]) == (1e-3, 1e-5)

    gsm8k, math = (get_preset("softcot", f"paper-{data}-7b") for data in ("gsm8k", "math"))
    assert "Projection module trained for 10 epochs. Thought tokens: 32 during training, 4" in text
    for preset in (gsm8k, math):
        assert preset.values().items() >= {"length": 32, "epochs": 10}.items()
        assert preset.length == preset.values()["evaluation_length"] == 4
    assert "Batch size 4 for GSM8K, 1 for MATH with gradient accumulation 4" in text
    assert gsm8k.values().items() >= {"batch_size": 4, "accumulation": 1}.items()
    assert math.values().items() >= {"batch_size": 1, "accumulation": 4}.items()
    assert "Qwen2.5-Math-1.5B-Instruct (learning rate 2e-5) or" in text
    assert "Qwen2.5-Math-7B-Instruct (learning rate 5e-6)" in text
    of_small = get_preset("softcot", "paper-gsm8k-1.5b")
    assert of_small.values()["learning_rate"] == 2e-5
    assert asdict(gsm8k.settings)["learning_rate"] == math.settings.learning_rate == 5e-6
    assert "The small (assistant) model is Qwen2.5-Math-1.5B-Instruct in both" in text
    assert gsm8k.assistant == of_small.assistant == "Qwen/Qwen2.5-Math-1.5B-Instruct"


@pytest.mark.parametrize(
    ("method", "model", "benchmark", "preset"),
    [
        ("ltpo", "Qwen2.5-Math-7B-Instruct", "gsm8k", "paper-gsm8k"),
        ("ltpo", "mine", "aime24", "paper-aime24"),
        ("ltpo", "mine", "arithmetic", None),
        ("ttsv", "Qwen2.5-Math-7B-Instruct", "gsm8k", "paper-7b"),
        ("ttsv", "mine", "gsm8k", None),
        ("softcot", "Qwen2.5-Math-1.5B-Instruct", "aime24", "paper-gsm8k-1.5b"),
    ],
)
def test_presets_of_the_paper(method: str, model: str, benchmark: str, preset: str | None) -> None:
    assert paper.paper_preset(method, model, benchmark) == preset
