"""What a benchmark's samples say: accuracy, pass@k, maj@n, lengths, failures, intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TypedDict

import numpy as np

from rsp_rl.basics.errors import RunFolderError
from rsp_rl.basics.files import write_json
from rsp_rl.evaluation.folder import Sample, StepFolder
from rsp_rl.evaluation.thoughts import ThoughtMetrics, thought_metrics
from rsp_rl.grading.leaves import canonical
from rsp_rl.grading.normalize import normalize

RESAMPLES = 10_000
"""Bootstrap resamples behind every interval."""

_CHUNK = 1_000
"""Resamples drawn at once: with 3,000 distinct problems, 24 MB."""


class OptionalMetrics(TypedDict, total=False):
    """What only some evaluations' metrics have."""

    thoughts: ThoughtMetrics
    seconds_mean: float
    """A sample, where they are kept."""


class BenchmarkMetrics(OptionalMetrics):
    """Numbers of one benchmark at one step; rates are fractions in [0, 1]."""

    problems: int
    samples_per_problem: int
    """n."""
    accuracy: float
    """avg@n: the mean over problems of the mean over their samples."""
    accuracy_low: float
    """Lower end of the accuracy's 95% bootstrap interval over problems."""
    accuracy_high: float
    accuracy_standard_error: float
    """Of the accuracy, over problems: what the bootstrap's standard deviation tends to."""
    pass_at_k: dict[str, float]
    """Unbiased pass@k for k = 1..n; the keys are strings, as JSON wants them."""
    majority_accuracy: float
    """maj@n; see `majority_is_right`."""
    tokens_mean: float
    """Generated tokens a sample."""
    tokens_p95: float
    truncation_rate: float
    """Samples that the token limit cut off."""
    extraction_failure_rate: float
    """Samples in which no answer was found."""
    timeouts: int
    crashes: int
    unparsable: int


class PairedDifference(TypedDict):
    """Difference of two accuracies on the same problems."""

    problems: int
    difference: float
    """Accuracy of the second less that of the first."""
    low: float
    """Lower end of the 95% paired bootstrap interval over problems."""
    high: float


def benchmark_metrics(samples: Sequence[Sample], *, seed: int = 0) -> BenchmarkMetrics:
    """Count a benchmark's samples; their order does not matter.

    Args:
        samples: Every sample of the benchmark, equally many of each problem.
        seed: Of the bootstrap.

    Raises:
        RunFolderError: If there are no samples, a sample is there twice, or problems differ in
            their number of samples.
    """
    groups = by_problem(samples)
    n = len(next(iter(groups.values())))
    correct_P = np.array([sum(s["correct"] for s in group) for group in groups.values()])
    accuracy_P = correct_P / n
    low, high = interval(bootstrap_means(accuracy_P[None], np.random.default_rng(seed))[:, 0])
    tokens = np.array([sample["tokens"] for sample in samples])
    found: BenchmarkMetrics = {
        "problems": len(groups),
        "samples_per_problem": n,
        "accuracy": float(accuracy_P.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "accuracy_standard_error": float(accuracy_P.std() / np.sqrt(len(groups))),
        "pass_at_k": {str(k): pass_at_k(n, correct_P, k) for k in range(1, n + 1)},
        "majority_accuracy": float(np.mean([majority_is_right(g) for g in groups.values()])),
        "tokens_mean": float(tokens.mean()),
        "tokens_p95": float(np.percentile(tokens, 95)),
        "truncation_rate": _rate(sample["finish_reason"] == "length" for sample in samples),
        "extraction_failure_rate": _rate(not sample["extracted"] for sample in samples),
        "timeouts": sum(sample["timed_out"] for sample in samples),
        "crashes": sum(sample["crashed"] for sample in samples),
        "unparsable": sum(sample["unparsable"] for sample in samples),
    }
    if (thoughts := thought_metrics(samples)) is not None:
        found["thoughts"] = thoughts
    if all("seconds" in sample for sample in samples):
        found["seconds_mean"] = float(np.mean([sample["seconds"] for sample in samples]))
    return found


def write_metrics(folder: StepFolder, benchmark: str, samples: list[Sample]) -> float:
    """Count a finished benchmark; returns its accuracy."""
    metrics = benchmark_metrics(samples)
    write_json(folder.metrics(benchmark), {"benchmark": benchmark, **metrics})
    return metrics["accuracy"]


def paired_difference(
    first: Sequence[Sample], second: Sequence[Sample], *, seed: int = 0
) -> PairedDifference:
    """How far the second's accuracy is above the first's, on the problems that both have.

    Args:
        first: Samples of the reference.
        second: Samples of the other; its number of samples a problem may differ.
        seed: Of the bootstrap.

    Raises:
        RunFolderError: As `benchmark_metrics`, or if they share no problem.
    """
    a, b = problem_accuracies(first), problem_accuracies(second)
    common = [problem for problem in a if problem in b]
    if not common:
        raise RunFolderError("the two sets of samples share no problem; are the benchmarks equal?")
    difference_P = np.array([b[problem] - a[problem] for problem in common])
    low, high = interval(bootstrap_means(difference_P[None], np.random.default_rng(seed))[:, 0])
    return {
        "problems": len(common),
        "difference": float(difference_P.mean()),
        "low": low,
        "high": high,
    }


def by_problem(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """Samples of each problem in order, problems by id.

    Raises:
        RunFolderError: As `benchmark_metrics`.
    """
    groups: dict[str, dict[int, Sample]] = {}
    for sample in samples:
        group = groups.setdefault(sample["problem"], {})
        if sample["sample"] in group:
            raise RunFolderError(
                f"sample {sample['sample']} of problem {sample['problem']!r} is there twice; "
                "remove one of the two lines"
            )
        group[sample["sample"]] = sample
    if not groups:
        raise RunFolderError("there are no samples to count; evaluate first")
    first, n = next((problem, len(group)) for problem, group in groups.items())
    for problem, group in groups.items():
        if len(group) != n:
            raise RunFolderError(
                f"problem {first!r} has {n} samples but problem {problem!r} has {len(group)}; run "
                "the evaluation again to complete it"
            )
    return {p: [groups[p][number] for number in sorted(groups[p])] for p in sorted(groups)}


def problem_accuracies(samples: Iterable[Sample]) -> dict[str, float]:
    """Fraction of right samples of each problem, by id.

    Raises:
        RunFolderError: As `benchmark_metrics`.
    """
    groups = by_problem(samples)
    return {p: sum(s["correct"] for s in group) / len(group) for p, group in groups.items()}


def pass_at_k(n: int, correct_P: np.ndarray, k: int) -> float:
    """Unbiased pass@k, the mean over problems of 1 - C(n - c, k) / C(n, k).

    The quotient of binomials is computed as the product of 1 - k / i for i = n - c + 1 .. n, which
    neither overflows nor cancels (Chen et al. 2021, arXiv 2107.03374, figure 3).

    Args:
        n: Samples a problem.
        correct_P: c, right samples of each problem.
        k: Samples drawn, 1..n.
    """
    correct, counts = np.unique(correct_P, return_counts=True)
    # A problem with fewer than k wrong samples cannot miss; its product would hold a zero or less.
    missed = [np.prod(1 - k / np.arange(n - c + 1, n + 1)) if c <= n - k else 0 for c in correct]
    return float(np.dot(1 - np.array(missed), counts) / counts.sum())


def majority_is_right(group: Sequence[Sample]) -> bool:
    r"""Whether the answer that most of a problem's samples give is right (maj@n).

    Two answers are one if they are the same string after the grader's notation rules
    (`rsp_rl.grading.normalize`) and without spaces: `\dfrac12` and `\frac{1}{2}` are, `0.5` and
    `\frac{1}{2}` are not. No gold takes part in the grouping. Samples without an answer do not
    vote; a problem without votes is wrong. A tie goes to the answer seen first, and a group's
    verdict is that of its first sample.

    Args:
        group: The problem's samples, in order.
    """
    votes: dict[str, list[bool]] = {}
    for sample in group:
        if sample["extracted"]:
            key = _spelling(sample["extracted"])
            votes.setdefault(key, []).append(sample["correct"])
    return bool(votes) and max(votes.values(), key=len)[0]


@lru_cache(maxsize=1 << 16)  # most of a problem's samples say the same
def _spelling(answer: str) -> str:
    return canonical(normalize(answer))


def bootstrap_means(values_RP: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Means over problems drawn anew with replacement, the same draw for all rows.

    Problems with equal columns are interchangeable, so it is enough to draw how often each
    distinct column comes up, which is multinomial: as exact as drawing problems, without a
    10,000 x P table, and independent of the problems' order.

    Args:
        values_RP: One row a run (or one row of differences), one column a problem.
        rng: Source of the draws. Benchmarks that are averaged must share one generator, else
            their draws would be the same and not independent.

    Returns:
        `RESAMPLES` x R.
    """
    columns_RD, counts_D = np.unique(values_RP, axis=1, return_counts=True)
    problems = counts_D.sum()
    means = [
        rng.multinomial(problems, counts_D / problems, size=_CHUNK) @ columns_RD.T / problems
        for _ in range(RESAMPLES // _CHUNK)
    ]
    return np.concatenate(means)


def interval(resampled: np.ndarray) -> tuple[float, float]:
    """Central 95% of bootstrap values (percentile method)."""
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(low), float(high)


def _rate(events: Iterable[bool]) -> float:
    return float(np.mean(list(events)))
