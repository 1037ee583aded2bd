"""The paper's claims as questions, each answered by what was measured: yes, no or undecided.

A claim says which way a quantity goes. Its answer is yes where the quantity's 95% interval lies
wholly on that side of the limit, no where it lies wholly on the other, and undecided between: with
few problems most are. Questions are the paper's own words (arXiv 2605.11936), shortened by dots.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rsp_rl.analysis import law_table
from rsp_rl.analysis.conditions import BASELINE
from rsp_rl.analysis.dials_table import GREEDY
from rsp_rl.analysis.distribution_changes import EARLY, FADED
from rsp_rl.analysis.thoughts import ROUGE
from rsp_rl.analysis.training_table import FIRST_HALF, HELD_OUT, SECOND_HALF
from rsp_rl.basics.files import read_json
from rsp_rl.display.tables import markdown_row

YES, NO, UNDECIDED = "yes", "no", "undecided"


@dataclass(frozen=True)
class Answer:
    """A claim on one benchmark.

    Attributes:
        source: Section of the paper.
        question: In its words.
        benchmark: Of the measurement.
        condition: Of the measurement.
        measured: What, and its 95% interval.
        answer: `YES`, `NO` or `UNDECIDED`.
    """

    source: str
    question: str
    benchmark: str
    condition: str
    measured: str
    answer: str


def answers(analyses: Mapping[str, Path]) -> list[Answer]:
    """All that a run's analyses can answer.

    Args:
        analyses: Folder of each finished analysis, by its name.
    """
    return [
        answer for name, claim in _CLAIMS if name in analyses for answer in claim(analyses[name])
    ]


def to_markdown(found: Iterable[Answer]) -> str:
    """How many of each answer, and a row a claim."""
    found = list(found)
    counts = ", ".join(
        f"{sum(answer.answer == kind for answer in found)} {kind}" for kind in (YES, NO, UNDECIDED)
    )
    lines = [
        f"{counts}. An answer is yes or no where the 95% interval (bootstrap over problems; of "
        "training, Student's t over seeds) lies wholly on one side, else undecided.",
        "",
        markdown_row(["paper", "claim", "benchmark", "condition", "measured", "answer"]),
        markdown_row(["---"] * 6),
    ]
    for answer in found:
        cells = [answer.source, answer.question, answer.benchmark, answer.condition]
        lines.append(markdown_row([*cells, answer.measured, f"**{answer.answer}**"]))
    return "\n".join(lines)


def verdict(low: float, high: float, sign: float, limit: float = 0.0) -> str:
    """Whether an interval lies above the limit (sign 1) or below it (sign -1).

    Args:
        low: Its lower end; NaN, as of a single problem, decides nothing.
        high: Its upper end.
        sign: 1 or -1.
        limit: What it is held against.
    """
    if sign < 0:
        low, high, limit = -high, -low, -limit
    if low > limit:
        return YES
    return NO if high < limit else UNDECIDED


def _rows(file: Path) -> Iterator[dict[str, str]]:
    if not file.is_file():  # of an analysis of before
        return
    with file.open(encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(stream)


def _intervals(
    file: Path, keys: tuple[str, str], value: str
) -> dict[str, dict[tuple[str, str], tuple[float, float, float]]]:
    """Value, low and high by benchmark and two more columns."""
    found: dict[str, dict[tuple[str, str], tuple[float, float, float]]] = {}
    for row in _rows(file):
        numbers = tuple(float(row[name]) for name in (value, "low", "high"))
        found.setdefault(row["benchmark"], {})[row[keys[0]], row[keys[1]]] = numbers
    return found


def _interval(value: float, low: float, high: float, spec: str = "+.4f") -> str:
    return f"{value:{spec}} [{low:{spec}}, {high:{spec}}]"


_SIGNS = {
    "entropy": ("entropy↑", 1),
    "top1": ("top-1 probability↓", -1),
    "varentropy": ("varentropy↑", 1),
}


def _early(folder: Path) -> Iterator[Answer]:
    for row in _rows(folder / "changes.csv"):
        if row["part"] != EARLY:
            continue
        words, sign = _SIGNS[row["metric"]]
        value, low, high = (float(row[key]) for key in ("change", "low", "high"))
        yield Answer(
            "4.3",
            f"“All three RSP injection positions show early-stage … {words}”",
            row["benchmark"],
            row["condition"],
            f"first 5% of the answer, change {_interval(value, low, high)}",
            verdict(low, high, sign),
        )


def _returns(folder: Path) -> Iterator[Answer]:
    by_part: dict[tuple[str, ...], dict[str, tuple[float, ...]]] = {}
    for row in _rows(folder / "changes.csv"):
        key = row["benchmark"], row["condition"], row["metric"]
        values = tuple(float(row[name]) for name in ("change", "low", "high"))
        by_part.setdefault(key, {})[row["part"]] = values
    for (benchmark, condition, metric), parts in by_part.items():
        words, _ = _SIGNS[metric]
        early, early_low, early_high = parts[EARLY]
        left, low, high = parts[FADED]
        sign = 1 if early > 0 else -1
        # Without an early change there is nothing that could return.
        moved = verdict(early_low, early_high, sign) == YES
        yield Answer(
            "4.3",
            "“all three metrics return to baseline in the middle and final portions” "
            f"({words[:-1]}: less than a quarter of the early change is left in the second half)",
            benchmark,
            condition,
            f"second half less a quarter of the early {early:+.4f}: {_interval(left, low, high)}",
            verdict(low, high, -sign) if moved else UNDECIDED,
        )


def _theorem_1(folder: Path) -> Iterator[Answer]:
    for benchmark, found in _benchmarks(read_json(folder / "attention.json")):
        check = found["theorem_1"]
        yield Answer(
            "3.3",
            "Theorem 1: the attention mass on the soft prompt never exceeds its bound",
            benchmark,
            "suffix",
            f"{check['violations']} of {check['checked']:,} layers x heads x queries above it, "
            f"least slack {check['worst_slack']:.1e}",
            NO if check["violations"] else YES,
        )


def _benchmarks(content: Mapping[str, object]) -> Iterator[tuple[str, Mapping]]:
    return ((name, found) for name, found in content.items() if isinstance(found, Mapping))


def _decay(folder: Path) -> Iterator[Answer]:
    for benchmark, found in _benchmarks(read_json(folder / "attention.json")):
        if "decay" not in found:  # an analysis of before
            continue
        decay = found["decay"]
        yield Answer(
            "3.3, Figure 2",
            "“early influence with automatic KV cache-growth decay”: attention mass on a soft "
            "prompt token falls along the reasoning",
            benchmark,
            "suffix",
            "last fifth over first fifth "
            + _interval(decay["ratio"], decay["low"], decay["high"], ".2f"),
            verdict(decay["low"], decay["high"], -1, limit=1.0),
        )


def _first_token(folder: Path) -> Iterator[Answer]:
    by_benchmark = _intervals(folder / "first_token.csv", ("row", "metric"), "value")
    for benchmark, found in by_benchmark.items():
        for name in dict.fromkeys(row for row, _ in found if not row.startswith("τ")):
            rho, low, high = found[name, "spearman"]
            above, below = verdict(low, high, 1), verdict(low, high, -1, limit=0.99)
            yield Answer(
                "4.4, Table 3",
                "“temperature … preserves ranking …, while RSP partially preserves but reranks”: ρ "
                "above 0 and below 0.99",
                benchmark,
                name,
                f"Spearman ρ {_interval(rho, low, high, '.3f')}",
                _both(above, below),
            )
            for metric, words in (
                ("mass_outside_top10", "mass outside the baseline's top 10"),
                ("js_divergence", "Jensen-Shannon divergence"),
            ):
                value, low, high = found[name, metric]
                cold, hot = found["τ = 2", metric][0], found["τ = 3", metric][0]
                yield Answer(
                    "4.4, Table 3",
                    "“RSP's distributional shift falls between τ=2.0 and τ=3.0 in magnitude” "
                    f"({words})",
                    benchmark,
                    name,
                    f"{_interval(value, low, high, '.3f')}; τ = 2: {cold:.3f}, τ = 3: {hot:.3f}",
                    _both(verdict(low, high, 1, cold), verdict(low, high, -1, hot)),
                )


def _both(*verdicts: str) -> str:
    if NO in verdicts:
        return NO
    return YES if set(verdicts) == {YES} else UNDECIDED


def _diversity(folder: Path) -> Iterator[Answer]:
    by_benchmark = _intervals(folder / "diversity.csv", ("condition", "measure"), "mean")
    for benchmark, found in by_benchmark.items():
        conditions, measures = ([*dict.fromkeys(key[i] for key in found)] for i in (0, 1))
        plain, *others = conditions
        for drawn, measure in itertools.product(others, measures[:2]):
            before, _, before_high = found[plain, measure]
            value, low, high = found[drawn, measure]
            separate = low > before_high
            yield Answer(
                "4.4, Table 4",
                f"“the trajectory set becomes more diverse and splits into more separated groups” "
                f"({measure})",
                benchmark,
                drawn,
                f"{_interval(value, low, high, '.4f')}, baseline {before:.4f}",
                YES if separate else NO if high < found[plain, measure][1] else UNDECIDED,
            )


def _pass_at_n(folder: Path) -> Iterator[Answer]:
    by_benchmark: dict[str, list[dict[str, str]]] = {}
    for row in _rows(folder / "pass_at_n.csv"):
        by_benchmark.setdefault(row["benchmark"], []).append(row)
    for benchmark, rows in by_benchmark.items():
        n = max(int(row["n"]) for row in rows)
        for row in rows:
            if int(row["n"]) != n or row["condition"] not in _PASS_CLAIMS:
                continue
            words, sign = _PASS_CLAIMS[row["condition"]]
            value, low, high = (float(row[f"difference{end}"]) for end in ("", "_low", "_high"))
            yield Answer(
                "4.4, Figure 4",
                words,
                benchmark,
                row["condition"],
                f"pass@{n} over the baseline's {100 * value:+.1f} [{100 * low:+.1f}, "
                f"{100 * high:+.1f}] points",
                verdict(low, high, sign),
            )


def _laws(folder: Path) -> Iterator[Answer]:
    """Differences are to ordinary sampling, the first condition."""
    for row in _rows(folder / "laws.csv"):
        key = row["condition"], row["measure"]
        if key not in _LAW_CLAIMS or not row["difference"]:
            continue
        source, words, sign = _LAW_CLAIMS[key]
        value, low, high = (float(row[f"difference{end}"]) for end in ("", "_low", "_high"))
        factor, unit = (100, "points") if row["measure"] == law_table.ACCURACY else (1, "tokens")
        yield Answer(
            source,
            words,
            row["benchmark"],
            row["condition"],
            f"{row['measure']} over sampled tokens' "
            f"{_interval(factor * value, factor * low, factor * high, '+.1f')} {unit}",
            verdict(low, high, sign),
        )


_TALK_SOFT, _TALK_SINGLE = "arXiv 2505.15778", "arXiv 2508.03440"

_LAW_CLAIMS = {
    ("soft_thinking", law_table.ACCURACY): (
        f"{_TALK_SOFT}; {_TALK_SINGLE} says the opposite",
        "“Soft Thinking achieves higher Pass@1”",
        1,
    ),
    ("soft_thinking", law_table.TOKENS): (_TALK_SOFT, "“… while requiring fewer tokens”", -1),
    ("gumbel", law_table.ACCURACY): (
        _TALK_SINGLE,
        "“Soft Thinking is improved when introducing randomness” (Gumbel above sampled tokens)",
        1,
    ),
}


def _thoughts(folder: Path) -> Iterator[Answer]:
    by_benchmark = _intervals(folder / "thoughts.csv", ("condition", "metric"), "value")
    for benchmark, found in by_benchmark.items():
        of_first, of_second = (
            found.get(("soft_thinking", f"Jensen-Shannon to the {rank} token"))
            for rank in ("first", "second")
        )
        if of_first and of_second:
            yield Answer(
                _TALK_SINGLE,
                "“Model's output probabilities are quite similar between using Soft Token and "
                "using the token with highest probability”: nearer to it than to the second",
                benchmark,
                "soft_thinking",
                f"Jensen-Shannon {_interval(*of_first, '.3f')}; to the second "
                f"{_interval(*of_second, '.3f')}",
                _apart(of_second, of_first),
            )
        soft, sampled = (found.get((name, ROUGE)) for name in ("soft_thinking", "sampled"))
        if soft and sampled:
            yield Answer(
                _TALK_SINGLE,
                "“Sequence similarity between Soft Thinking and Greedy Token Thinking is higher "
                "than Token Thinking and Greedy Token Thinking”",
                benchmark,
                "soft_thinking",
                f"ROUGE-L {_interval(*soft, '.3f')}; of sampled tokens "
                f"{_interval(*sampled, '.3f')}",
                _apart(soft, sampled),
            )


def _apart(larger: tuple[float, ...], smaller: tuple[float, ...]) -> str:
    """By whether two intervals have nothing in common."""
    if larger[1] > smaller[2]:
        return YES
    return NO if larger[2] < smaller[1] else UNDECIDED


_PASS_CLAIMS = {
    "independent RSP, sampled": (
        "“Condition (iv) achieves the highest Pass@N”: above the baseline",
        1,
    ),
    "shared RSP, sampled": ("“(ii) shows no improvement over the baseline”", -1),
}


def _few_points(folder: Path) -> Iterator[Answer]:
    for row in _rows(folder / "dials.csv"):
        if row["measure"] == GREEDY and row["difference"] and _ONLY_L.fullmatch(row["condition"]):
            yield _within_a_few_points(row)


def _format(folder: Path) -> Iterator[Answer]:
    own = None
    for row in _rows(folder / "format.csv"):
        template, _, condition = row["condition"].partition(", ")
        own = own or template
        if row["measure"] != GREEDY or not row["difference"] or condition == BASELINE:
            continue
        if template == own:
            yield _within_a_few_points(row)
            continue
        value, low, high = _points(row)
        yield Answer(
            "4.2, Table 2",
            "“format-mismatch recovery: when a … template is applied to a … model not trained for "
            "that format, Suffix recovers”: above the same template without a soft prompt",
            row["benchmark"],
            row["condition"],
            f"greedy, change {_interval(value, low, high, '+.1f')} points",
            verdict(low, high, 1),
        )


def _within_a_few_points(row: Mapping[str, str]) -> Answer:
    value, low, high = _points(row)
    return Answer(
        "4.2, Table 2",
        "“On instruct models RSP stays within a few percentage points of the baseline” (5)",
        row["benchmark"],
        row["condition"],
        f"greedy, change {_interval(value, low, high, '+.1f')} points",
        _both(verdict(low, high, 1, -_FEW), verdict(low, high, -1, _FEW)),
    )


def _points(row: Mapping[str, str]) -> tuple[float, float, float]:
    value, low, high = (100 * float(row[f"difference{end}"]) for end in ("", "_low", "_high"))
    return value, low, high


_FEW = 5.0
_ONLY_L = re.compile(r"L = \d+")


def _training(folder: Path) -> Iterator[Answer]:
    for row in _rows(folder / "training.csv"):
        if not row["difference"]:
            continue
        kind = "pass@k" if row["measure"].startswith("pass@") else row["measure"]
        if kind not in _TRAINING_CLAIMS or row["measure"] == "pass@1":
            continue
        words, sign = _TRAINING_CLAIMS[kind]
        value, low, high = (float(row[f"difference{end}"]) for end in ("", "_low", "_high"))
        yield Answer(
            "4.5, Figure 5",
            words,
            f"{row['seeds']} seeds",
            row["run"],
            f"{row['measure']}, change {_interval(value, low, high, '+.3f')}",
            verdict(low, high, sign),
        )


_TRAINING_CLAIMS = {
    HELD_OUT: ("“a late-stage advantage”: it ends above DAPO on held-out problems", 1),
    "pass@k": (
        "“input-side branch opening composes with loss-side preservation to yield further gains”: "
        "more problems solved by one of k sampled answers",
        1,
    ),
    f"entropy{SECOND_HALF}": (
        "“RSP perturbs the hidden states …, exposing the policy to broader learning signals”: more "
        "entropy on its own rollouts",
        1,
    ),
    f"reward{FIRST_HALF}": ("“delayed early reward growth”: less reward at first", -1),
}

#: By analysis, in the paper's order.
_CLAIMS: tuple[tuple[str, Callable[[Path], Iterable[Answer]]], ...] = (
    ("attention", _theorem_1),
    ("attention", _decay),
    ("dials", _few_points),
    ("format", _format),
    ("distributions", _early),
    ("distributions", _returns),
    ("first_token", _first_token),
    ("diversity", _diversity),
    ("pass_at_n", _pass_at_n),
    ("laws", _laws),
    ("thoughts", _thoughts),
    ("training", _training),
)
