"""Made-up evaluations in the layout of `rsp_rl.evaluation.folder`: no model, any shape."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rsp_rl.evaluation.folder import EvaluationFolder, Sample
from rsp_rl.evaluation.metrics import benchmark_metrics

#: Problems and samples a problem.
BENCHMARKS = {"gsm8k": (12, 1), "math500": (10, 1), "aime24": (4, 4)}
HEADLINE = ("gsm8k", "math500", "aime24")

Outputs = Callable[[str, str, int, int], str]


def sample(problem: str = "0", number: int = 0, correct: bool = True, **fields: object) -> Sample:
    """One sample; whatever a test does not care about is filled in."""
    extracted = fields.get("extracted", "4" if correct else "5")
    return {
        "problem": problem,
        "sample": number,
        "seed": number,
        "prompt_hash": "0123456789abcdef",
        "gold": "4",
        "output": f"So 2 + 2 is \\boxed{{{extracted}}}.",
        "finish_reason": "stop",
        "tokens": 10,
        "extracted": extracted,
        "extraction_step": "boxed" if extracted else "none",
        "correct": correct,
        "stage": "string",
        "timed_out": False,
        "crashed": False,
        "unparsable": False,
        **fields,
    }  # type: ignore[return-value]


def make_evaluation(
    root: Path,
    chance: Mapping[int, float],
    *,
    benchmarks: Mapping[str, tuple[int, int]] = BENCHMARKS,
    headline: Sequence[str] = HEADLINE,
    seed: int = 0,
    fingerprint: str = "f00d",
    output: Outputs | None = None,
) -> EvaluationFolder:
    """Write an evaluation of some steps.

    Args:
        root: The run's folder.
        chance: Chance of a right sample by step.
        benchmarks: Problems and samples a problem of each benchmark.
        headline: Benchmarks of the headline.
        seed: Of the made-up verdicts: a problem that is easy at one step is easy at the next.
        fingerprint: Of the made-up protocol.
        output: Text of a sample, from benchmark, problem, step and sample number.
    """
    folder = EvaluationFolder(root / "evaluation" / "made_up")
    folder.root.mkdir(parents=True)
    for name, (problems, _) in benchmarks.items():
        write_lines(
            folder.problems(name),
            [{"id": str(i), "question": f"{i} + $2$?", "gold": "4"} for i in range(problems)],
        )
    for step, probability in chance.items():
        folder.step(step).root.mkdir()
        write_manifest(folder, step, headline, fingerprint)
        for name, shape in benchmarks.items():
            samples = made_samples(name, shape, step, probability, seed, output)
            write_samples(folder, step, name, samples)
    return folder


def made_samples(
    benchmark: str,
    shape: tuple[int, int],
    step: int,
    probability: float,
    seed: int = 0,
    output: Outputs | None = None,
) -> list[Sample]:
    """Samples of one benchmark at one step."""
    problems, n = shape
    made = []
    for problem in range(problems):
        ease = random.Random(f"{seed} {benchmark} {problem}").random()
        for number in range(n):
            luck = random.Random(f"{seed} {benchmark} {problem} {step} {number}")
            correct = 0.7 * ease + 0.3 * luck.random() < probability
            cut_off = not correct and luck.random() < 0.3
            made.append(
                sample(
                    str(problem),
                    number,
                    correct,
                    tokens=16_000 if cut_off else luck.randint(200, 1_500),
                    finish_reason="length" if cut_off else "stop",
                    **({"extracted": ""} if cut_off else {}),
                    **({"output": output(benchmark, str(problem), step, number)} if output else {}),
                )
            )
    return made


def write_manifest(
    folder: EvaluationFolder,
    step: int,
    headline: Sequence[str] = HEADLINE,
    fingerprint: str = "f00d",
) -> None:
    """Write a step's `how.json`."""
    manifest = {
        "protocol": {"name": "made_up", "template": "qwen-boxed", "headline": list(headline)},
        "fingerprint": fingerprint,
        "model": f"checkpoints/global_step_{step}",
        "made_with": [{"versions": {"vllm": "0.28.0"}, "commit": "c0ffee", "hardware": {}}],
    }
    folder.step(step).manifest.write_text(json.dumps(manifest))


def write_samples(
    folder: EvaluationFolder, step: int, benchmark: str, samples: Sequence[Sample]
) -> None:
    """Write a benchmark's samples and metrics at one step."""
    write_lines(folder.step(step).samples(benchmark), samples)
    metrics = {"benchmark": benchmark, **benchmark_metrics(samples)}
    folder.step(step).metrics(benchmark).write_text(json.dumps(metrics))


def write_lines(file: Path, rows: Sequence[object]) -> None:
    """Write JSON lines."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
