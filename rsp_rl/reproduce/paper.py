"""The paper's numbers (arXiv 2605.11936): what those of its `tables` are numbers of.

A number stands under the conditions that it holds under; what the paper does not say of them is its
`unknown`, and the page says so beside it. Tables 8, 11 and 12 are settings and no measurements:
`rsp_rl.comparators.presets`, `eval/protocols/rsp_paper.yaml`, `configs/objective/dapo.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from rsp_rl.comparators.presets import AUTHORS, PRESETS
from rsp_rl.placement.prompt import Position
from rsp_rl.reproduce.tables import TABLES, numbers_in


@dataclass(frozen=True)
class Quantity:
    """What a number is a number of; only numbers of equal quantities stand side by side.

    Attributes:
        analysis: Name of the analysis that measures it (see `rsp_rl.reproduce.plan`).
        metric: As shown.
        condition: As the analysis calls it.
        benchmark: One, or the average of several.
    """

    analysis: str
    metric: str
    condition: str
    benchmark: str


@dataclass(frozen=True)
class PaperNumber:
    """One number of the paper.

    Attributes:
        source: Its table or figure.
        quantity: What it is.
        value: A fraction where it is shown in percent.
        model: Whose, by the last part of its name on the hub.
        length: L; None without soft prompts.
        prompts: `CHAT` or `RAW`, where the paper has the model with both.
        position: Of the soft prompt, where it is not in the quantity.
        samples: Answers or draws a problem, where the quantity depends on them.
        problems: Where it is not of all problems of the benchmark.
        max_tokens: Longest answer, where the quantity is one of whole answers.
        shown: How: in percent, as a whole number, or as it is.
        unknown: Conditions that the paper does not say.
    """

    source: str
    quantity: Quantity
    value: float
    model: str
    length: int | None = None
    prompts: str | None = None
    position: Position | None = None
    samples: int | None = None
    problems: int | None = None
    max_tokens: int | None = None
    shown: Literal["", "percent", "whole"] = ""
    unknown: tuple[str, ...] = ()


SMALL, LARGE = "Qwen2.5-Math-1.5B", "Qwen2.5-Math-7B"
LLAMA = "Llama-3.1-8B-Instruct"

#: The model of sections 4.3 and 4.4.
INSTRUCT = f"{SMALL}-Instruct"

#: Benchmarks of Tables 1, 2, 6 and 7.
BENCHMARKS = ("math500", "gsm8k", "aime24")

CHAT, RAW = "chat template", "raw text"

#: L of the analyses of sections 4.3 and 4.4, and of attention (appendix F).
MECHANISM_LENGTH, ATTENTION_LENGTH = 20, 10

#: Table 4: problems and trajectories of each.
DIVERSITY_PROBLEMS, DIVERSITY_TRAJECTORIES = 64, 300

#: Table 3: draws a problem. Figure 4, Table 10: samples a problem.
FIRST_TOKEN_DRAWS = PASS_SAMPLES = 16

#: Longest answers (appendix A; G.3 for the evaluation of trainings).
MAX_TOKENS = {"math500": 3072, "gsm8k": 3072, "aime24": 4096}
TRAINING_MAX_TOKENS = 16_000

#: Figure 4, pass@16 with a draw and a seed for every sample, as section 4.4 says it.
_PASS_AT_16 = {"math500": 0.9280, "aime24": 0.3667}

#: Appendix B: the baseline at temperature 1, and its spread over 16 samples, in percent.
_BASELINE_SAMPLED = (73.92, 0.78)

DAPO, DAPO_RSP, BASE = "DAPO", "DAPO+RSP", "base model"

#: A comparator's L in evaluations (appendix A.3): one for all of the paper's presets of a method.
COMPARATOR_LENGTHS = {
    method: next(preset.length for name, preset in presets.items() if name != AUTHORS)
    for method, presets in PRESETS.items()
}

#: The fourth condition of Figure 4, as `rsp_rl.analysis.conditions.draw_name` has it.
_INDEPENDENT = "independent RSP, sampled"

FIRST_TOKEN_METRICS = ("Spearman's rho", "mass outside the top 10", "Jensen-Shannon (base 2)")
DIVERSITY_METRICS = ("pairwise", "inter-cluster", "intra-cluster")
SPREAD = "pass@1, standard deviation over samples"
ACCURACY, DIFFERENCE = "accuracy", "accuracy − baseline"

#: Ids of AIME24's 30 problems in order. The paper's #k counts them from 0: it quotes #6 and #22.
_AIME24 = tuple(str(id_) for id_ in range(60, 90))

_BENCHMARK = {
    "MATH-500": "math500",
    "GSM8K": "gsm8k",
    "AIME24": "aime24",
    "College": "college_math",
    "Minerva": "minerva_math",
}

_MEAN = "mean of "


def mean_of(benchmarks: Iterable[str]) -> str:
    """What an average over benchmarks is called, whatever their order."""
    return f"{_MEAN}{', '.join(sorted(benchmarks))}"


def parts_of(benchmark: str) -> list[str]:
    """The benchmarks of an average; of a single one itself."""
    return benchmark.removeprefix(_MEAN).split(", ")


def aime24_problem(problem: str) -> str:
    """What Table 10 calls a problem of AIME24, by its id."""
    return f"problem #{_AIME24.index(problem)}" if problem in _AIME24 else f"problem {problem}"


def paper_preset(method: str, model: str, benchmark: str) -> str | None:
    """The preset of `rsp_rl.comparators.presets` that a comparator has in the paper, if it has one.

    SoftCoT is GSM8K's on all three benchmarks, as the more accurate one (appendix A.3).
    """
    size = {f"{SMALL}-Instruct": "1.5b", f"{LARGE}-Instruct": "7b"}.get(model)
    parts = {"ltpo": benchmark, "ttsv": size, "softcot": f"gsm8k-{size}"}
    name = f"paper-{parts[method]}"
    return name if name in PRESETS[method] else None


def _model(text: str) -> str:
    name = text.removesuffix(" (ChatML)")
    return LLAMA if name.startswith("LLaMA") else name


def _prompts(text: str, group: str = "") -> str:
    chat = "Instruct" in text or "ChatML" in text or "ChatML" in group
    return CHAT if chat else RAW


def _lengths() -> Iterator[PaperNumber]:
    for model, *cells in (row.cells for row in TABLES[7].rows()):
        for benchmark, cell in zip(BENCHMARKS, cells, strict=True):
            yield PaperNumber(
                "Table 7",
                Quantity("lengths", "L", "chosen", benchmark),
                int(cell),
                _model(model),
                prompts=_prompts(model),
                shown="whole",
            )


#: Table 7: L by model, kind of prompt and benchmark.
LENGTHS: dict[tuple[str, str, str], int] = {
    (number.model, number.prompts, number.quantity.benchmark): number.value for number in _lengths()
}


def _positions() -> Iterator[PaperNumber]:
    """Tables 2 and 6: the first is a part of the second."""
    for row in TABLES[6].rows():
        model, mode, *cells = row.cells
        prompts = _prompts(model, row.group)
        source = "Table 6" if prompts == RAW or mode == "Infix" else "Tables 2, 6"
        for benchmark, cell in zip(BENCHMARKS, cells, strict=True):
            # A baseline has no difference.
            for metric, value in zip((ACCURACY, DIFFERENCE), numbers_in(cell), strict=False):
                yield PaperNumber(
                    source,
                    Quantity("positions", metric, mode.lower(), benchmark),
                    value / 100,
                    _model(model),
                    None if mode == "Baseline" else LENGTHS[_model(model), prompts, benchmark],
                    prompts,
                    max_tokens=MAX_TOKENS[benchmark],
                    shown="percent",
                )


def _methods() -> Iterator[PaperNumber]:
    """Table 1; its RSP is Table 6's best position, whichever that is."""
    names = {"Baseline": "baseline", "RSP": "random"}
    for model, text, *cells in (row.cells for row in TABLES[1].rows()):
        benchmark = _BENCHMARK[text]
        for name, cell in zip(TABLES[1].columns[2:], cells, strict=True):
            condition, value = names.get(name, name.lower()), float(cell) / 100
            lengths = {
                "baseline": None,
                "random": LENGTHS[_model(model), CHAT, benchmark],
                **COMPARATOR_LENGTHS,
            }
            yield PaperNumber(
                "Table 1",
                Quantity("trained_or_random", ACCURACY, condition, benchmark),
                value,
                _model(model),
                lengths[condition],
                CHAT,
                _position_of(_model(model), benchmark, value) if condition == "random" else None,
                max_tokens=MAX_TOKENS[benchmark],
                shown="percent",
                unknown=("what its prefix was trained on",) if condition == "ttsv" else (),
            )


def _position_of(model: str, benchmark: str, accuracy: float) -> Position:
    """Where Table 6 has an accuracy; at the suffix, if there too."""
    found = {
        number.quantity.condition
        for number in _positions()
        if (number.model, number.quantity.benchmark) == (model, benchmark)
        and (number.quantity.metric, number.value) == (ACCURACY, accuracy)
    }
    return next(position for position in ("suffix", "infix", "prefix") if position in found)


def _first_token() -> Iterator[PaperNumber]:
    """Table 3, its accuracies beside Figure 4's."""
    *metrics, accuracies = (row.cells for row in TABLES[3].rows())
    for metric, (label, *cells) in zip(FIRST_TOKEN_METRICS, metrics, strict=True):
        for condition, cell in zip(("τ = 2", "τ = 3", "suffix"), cells, strict=True):
            drawn = condition == "suffix"
            yield PaperNumber(
                "Table 3",
                Quantity("first_token", metric, condition, "math500"),
                numbers_in(cell)[0] / (100 if label.startswith("Mass") else 1),
                INSTRUCT,
                MECHANISM_LENGTH if drawn else None,
                samples=FIRST_TOKEN_DRAWS if drawn else None,
            )
    sampled = dict(
        zip(
            ("baseline, sampled at τ = 2", "baseline, sampled at τ = 3", _INDEPENDENT),
            (numbers_in(cell) for cell in accuracies[1:]),
            strict=True,
        )
    )
    for condition, values in {"baseline, sampled": _BASELINE_SAMPLED, **sampled}.items():
        for metric, value in zip(("pass@1", SPREAD), values, strict=True):
            yield PaperNumber(
                "Appendix B" if condition == "baseline, sampled" else "Table 3",
                Quantity("pass_at_n", metric, condition, "math500"),
                value / 100,
                INSTRUCT,
                MECHANISM_LENGTH if condition == _INDEPENDENT else None,
                samples=PASS_SAMPLES,
                max_tokens=MAX_TOKENS["math500"],
                shown="percent",
            )


def _diversity() -> Iterator[PaperNumber]:
    for metric, row in zip(DIVERSITY_METRICS, TABLES[4].rows(), strict=True):
        for condition, cell in zip(("baseline, sampled", _INDEPENDENT), row.cells[1:], strict=True):
            clusters = () if metric == "pairwise" else ("DBSCAN's settings",)
            yield PaperNumber(
                "Table 4",
                Quantity("diversity", metric, condition, "math500"),
                float(cell),
                INSTRUCT,
                MECHANISM_LENGTH if condition == _INDEPENDENT else None,
                samples=DIVERSITY_TRAJECTORIES,
                problems=DIVERSITY_PROBLEMS,
                max_tokens=MAX_TOKENS["math500"],
                unknown=("which problems", *clusters),
            )


def _pass_at_16() -> Iterator[PaperNumber]:
    for benchmark, value in _PASS_AT_16.items():
        yield PaperNumber(
            "Figure 4",
            Quantity("pass_at_n", "pass@16", _INDEPENDENT, benchmark),
            value,
            INSTRUCT,
            MECHANISM_LENGTH,
            samples=PASS_SAMPLES,
            max_tokens=MAX_TOKENS[benchmark],
            shown="percent",
        )


def _distributions() -> Iterator[PaperNumber]:
    """Table 9; entropies in nats."""
    names = {"Entropy": "entropy", "Top-1 Prob": "top-1 probability", "Varentropy": "varentropy"}
    for text, *cells in (row.cells for row in TABLES[9].rows()):
        name, _, part = text.removesuffix(")").partition(" (")
        metric = "tokens" if name == "Tokens" else f"{names[name]}, {part}"
        for column, cell in zip(TABLES[9].columns[1:], cells, strict=True):
            condition = column.lower()
            lengths = {"baseline": None, **COMPARATOR_LENGTHS}
            yield PaperNumber(
                "Table 9",
                Quantity("distributions", metric, condition, "math500"),
                float(cell),
                INSTRUCT,
                lengths.get(condition, MECHANISM_LENGTH),
                max_tokens=MAX_TOKENS["math500"],
            )


def _coverage() -> Iterator[PaperNumber]:
    """Table 10: how many problems of how many, their share, and which."""
    outcomes = ("only RSP", "only baseline", "both", "neither")
    for outcome, row in zip(outcomes, TABLES[10].rows(), strict=True):
        count, problems, share = numbers_in(row.cells[1])
        found = [("problems", count, "whole"), ("asked", problems, "whole")]
        found.append(("share of problems", share / 100, "percent"))
        found += [(f"problem #{k:.0f}", 1, "whole") for k in numbers_in(row.cells[2])]
        for metric, value, shown in found:
            yield PaperNumber(
                "Table 10",
                Quantity("coverage", metric, outcome, "aime24"),
                value,
                INSTRUCT,
                MECHANISM_LENGTH,
                samples=PASS_SAMPLES,
                max_tokens=MAX_TOKENS["aime24"],
                shown=shown,
            )


#: Table 5's benchmarks, whose mean Table 13 is of.
TRAINING_BENCHMARKS = tuple(_BENCHMARK[name] for name in TABLES[5].columns[1:-1])


def _training() -> Iterator[PaperNumber]:
    """Tables 5 and 13, the latter Figure 5's curves."""
    mean = mean_of(TRAINING_BENCHMARKS)
    found = []
    for (name, *cells), run in zip(
        (row.cells for row in TABLES[5].rows()), (BASE, DAPO, DAPO_RSP), strict=True
    ):
        metric = ACCURACY if name == "Base" else "accuracy at the peak"
        for benchmark, cell in zip((*TRAINING_BENCHMARKS, mean), cells, strict=True):
            found.append(("Table 5", metric, run, benchmark, cell))
    for step, *cells in (row.cells for row in TABLES[13].rows()):
        for run, cell in zip((DAPO, DAPO_RSP), cells, strict=True):
            found.append(("Table 13, Figure 5", f"headline at step {step}", run, mean, cell))
    for source, metric, run, benchmark, cell in found:
        yield PaperNumber(
            source,
            Quantity("comparison", metric, run, benchmark),
            float(cell) / 100,
            LARGE,
            MECHANISM_LENGTH if run == DAPO_RSP else None,
            max_tokens=TRAINING_MAX_TOKENS,
            shown="percent",
        )


#: All of them.
NUMBERS: tuple[PaperNumber, ...] = (
    *_methods(),
    *_positions(),
    *_lengths(),
    *_first_token(),
    *_diversity(),
    *_pass_at_16(),
    *_distributions(),
    *_coverage(),
    *_training(),
)
