"""The paper's numbers (arXiv 2605.11936), each with its table and the conditions it holds under.

Incomplete on purpose: a number is here only if we are sure of it. Conditions that we are not sure
of are its `unknown`, and the page says so beside it. Not here yet: the accuracies of Tables 1, 2
and 6, the attention masses of Figures 2 and 7, Table 10's counts, and of Table 9 all but the
entropy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """What a number is a number of; only numbers of equal quantities stand side by side.

    Attributes:
        analysis: Name of the analysis that measures it (see `rsp_rl.reproduce.plan`).
        metric: As shown.
        condition: As the analysis calls it.
        benchmark: One, or the average of several; None if it is not known.
    """

    analysis: str
    metric: str
    condition: str
    benchmark: str | None = None


@dataclass(frozen=True)
class PaperNumber:
    """One number of the paper.

    Attributes:
        source: Its table or figure.
        quantity: What it is.
        value: A fraction where `percent`.
        model: Whose, by the last part of its name on the hub; None if not known.
        length: L; None without soft prompts.
        samples: Answers or draws a problem, where the quantity depends on them.
        problems: Where it is not of all problems of the benchmark.
        percent: Whether it is shown in percent.
        unknown: Conditions that are not known to us; the number is then of one of `MODELS`
            and `BENCHMARKS`.
    """

    source: str
    quantity: Quantity
    value: float
    model: str | None
    length: int | None = None
    samples: int | None = None
    problems: int | None = None
    percent: bool = False
    unknown: tuple[str, ...] = ()


SMALL, LARGE = "Qwen2.5-Math-1.5B", "Qwen2.5-Math-7B"
LLAMA = "Llama-3.1-8B-Instruct"

#: Benchmarks of Tables 2, 6 and 7.
BENCHMARKS = ("math500", "gsm8k", "aime24")

CHAT, RAW = "chat template", "raw text"

#: Table 7: L by model and kind of prompt, in the order of `BENCHMARKS`.
LENGTHS: dict[tuple[str, str], tuple[int, int, int]] = {
    (LLAMA, CHAT): (15, 20, 15),
    (f"{LARGE}-Instruct", CHAT): (20, 20, 20),
    (f"{SMALL}-Instruct", CHAT): (20, 10, 20),
    (LARGE, RAW): (10, 10, 20),
    (SMALL, RAW): (10, 10, 20),
    (SMALL, CHAT): (20, 20, 10),
    (LARGE, CHAT): (20, 20, 20),
}

#: All models of sections 4.2 to 4.4.
MODELS = tuple(dict.fromkeys(model for model, _ in LENGTHS))

#: L of the analyses of sections 4.3 and 4.4, and of attention (appendix F).
MECHANISM_LENGTH, ATTENTION_LENGTH = 20, 10

#: Table 4: problems and trajectories of each.
DIVERSITY_PROBLEMS, DIVERSITY_TRAJECTORIES = 64, 300

#: Table 3: draws a problem. Figure 4: samples a problem.
FIRST_TOKEN_DRAWS = PASS_SAMPLES = 16

#: Table 9, entropy in nats by position: over the first 5% of the answer, and over all of it.
_ENTROPY = {
    "baseline": (0.1332, 0.0871),
    "prefix": (0.1366, 0.0881),
    "infix": (0.1402, 0.0899),
    "suffix": (0.1941, 0.1049),
}

FIRST_TOKEN_METRICS = ("Spearman's rho", "mass outside the top 10", "Jensen-Shannon (base 2)")

#: Table 3, in the order of `FIRST_TOKEN_METRICS`.
_FIRST_TOKEN = {
    "τ = 2": (1.000, 0.0518, 0.060),
    "τ = 3": (1.000, 0.2911, 0.218),
    "suffix": (0.709, 0.2186, 0.131),
}

DIVERSITY_METRICS = ("pairwise", "inter-cluster", "intra-cluster")

#: Table 4, in the order of `DIVERSITY_METRICS`.
_DIVERSITY = {
    "baseline, sampled": (0.0612, 0.0183, 0.0526),
    "independent RSP, sampled": (0.0879, 0.0982, 0.0528),
}

#: Figure 4, pass@16 with a draw and a seed for every sample.
_PASS_AT_16 = {"math500": 0.9280, "aime24": 0.3667}

DAPO, DAPO_RSP = "DAPO", "DAPO+RSP"

TRAINING_BENCHMARKS = ("gsm8k", "math500", "college_math", "minerva_math", "aime24")

_MEAN = "mean of "

#: Table 13 and Figure 5: mean over `TRAINING_BENCHMARKS` at steps 0, 10, ..., 100, in percent.
_BY_STEP = {
    DAPO: (30.06, 46.40, 49.02, 49.58, 50.62, 50.88, 51.84, 52.52, 53.20, 52.52, 50.54),
    DAPO_RSP: (30.06, 46.22, 49.54, 50.72, 52.06, 52.40, 52.96, 53.86, 54.04, 54.36, 53.64),
}

#: Table 5: each run at its peak, in the order of `TRAINING_BENCHMARKS`, in percent.
_PEAKS = {
    DAPO: (86.3, 78.2, 41.4, 37.5, 22.6),
    DAPO_RSP: (87.7, 78.6, 42.2, 39.7, 23.6),
}


def mean_of(benchmarks: Iterable[str]) -> str:
    """What an average over benchmarks is called, whatever their order."""
    return f"{_MEAN}{', '.join(sorted(benchmarks))}"


def parts_of(benchmark: str) -> list[str]:
    """The benchmarks of an average; of a single one itself."""
    return benchmark.removeprefix(_MEAN).split(", ")


def _numbers() -> list[PaperNumber]:
    found = [
        PaperNumber("Table 7", Quantity("lengths", "L", kind, benchmark), length, model)
        for (model, kind), lengths in LENGTHS.items()
        for benchmark, length in zip(BENCHMARKS, lengths, strict=True)
    ]
    found += [
        PaperNumber(
            "Table 9",
            Quantity("distributions", f"entropy, {part}", position, "math500"),
            value,
            f"{SMALL}-Instruct",
            None if position == "baseline" else MECHANISM_LENGTH,
        )
        for position, values in _ENTROPY.items()
        for part, value in zip(("first 5%", "overall"), values, strict=True)
    ]
    found += [
        PaperNumber(
            "Table 3",
            Quantity("first_token", metric, row),
            value,
            None,
            MECHANISM_LENGTH if row == "suffix" else None,
            FIRST_TOKEN_DRAWS if row == "suffix" else None,
            unknown=("model", "benchmark"),
        )
        for row, values in _FIRST_TOKEN.items()
        for metric, value in zip(FIRST_TOKEN_METRICS, values, strict=True)
    ]
    found += [
        PaperNumber(
            "Table 4",
            Quantity("diversity", metric, condition),
            value,
            None,
            None if condition.startswith("baseline") else MECHANISM_LENGTH,
            DIVERSITY_TRAJECTORIES,
            DIVERSITY_PROBLEMS,
            unknown=("model", "benchmark", "sampling", "DBSCAN's settings"),
        )
        for condition, values in _DIVERSITY.items()
        for metric, value in zip(DIVERSITY_METRICS, values, strict=True)
    ]
    found += [
        PaperNumber(
            "Figure 4",
            Quantity("pass_at_n", "pass@16", "independent RSP, sampled", benchmark),
            value,
            None,
            MECHANISM_LENGTH,
            PASS_SAMPLES,
            percent=True,
            unknown=("model",),
        )
        for benchmark, value in _PASS_AT_16.items()
    ]
    found += [
        PaperNumber(
            "Table 5",
            Quantity("comparison", "accuracy at the peak", run, benchmark),
            value / 100,
            LARGE,
            MECHANISM_LENGTH if run == DAPO_RSP else None,
            percent=True,
        )
        for run, values in _PEAKS.items()
        for benchmark, value in zip(TRAINING_BENCHMARKS, values, strict=True)
    ]
    found += [
        PaperNumber(
            "Table 13, Figure 5",
            Quantity("comparison", f"headline at step {10 * i}", run, mean_of(TRAINING_BENCHMARKS)),
            value / 100,
            LARGE,
            MECHANISM_LENGTH if run == DAPO_RSP else None,
            percent=True,
        )
        for run, values in _BY_STEP.items()
        for i, value in enumerate(values)
    ]
    return found


#: All of them.
NUMBERS: tuple[PaperNumber, ...] = tuple(_numbers())
