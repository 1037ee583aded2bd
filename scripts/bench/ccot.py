"""CCOT on the arithmetic task: exact match and seconds a problem by compression ratio.

A small Qwen2-shaped model first learns from nothing to write the steps (method `cot` of
`rsp_rl.latent.training`); CCOT then trains its adapters on it, a run for each ratio and seed. All
runs are evaluated on the same held-out problems; seconds are those of a problem alone, as in the
paper. Call it again to go on where it was cut off.

    .venv/bin/python scripts/bench/ccot.py --output runs/ccot_arithmetic --threads 1
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils.logging import disable_progress_bar

from rsp_rl.basics.files import read_json, write_json
from rsp_rl.console.screen import say
from rsp_rl.data.arithmetic_steps import generate
from rsp_rl.data.step_problems import StepProblem
from rsp_rl.display.tables import markdown_head, markdown_row
from rsp_rl.evaluation.metrics import bootstrap_means, interval
from rsp_rl.latent.ccot.adapters import Adapters
from rsp_rl.latent.ccot.batches import collate
from rsp_rl.latent.ccot.generation import answer_all
from rsp_rl.latent.ccot.run import train
from rsp_rl.latent.ccot.saved import load
from rsp_rl.latent.ccot.settings import CcotSettings
from rsp_rl.latent.ccot.thoughts import gold_states, read, think
from rsp_rl.latent.folder import load_thinker
from rsp_rl.latent.generation import answer as answer_in_words
from rsp_rl.latent.problem_tokens import ProblemTokens, is_right, tokenize
from rsp_rl.latent.run_folder import METRICS_FILE, MODEL
from rsp_rl.latent.scratch import make_model
from rsp_rl.latent.settings import Settings
from rsp_rl.latent.training import train as train_in_words
from rsp_rl.models.folder import load_tokenizer
from rsp_rl.models.weights import weights_digest

#: The model that writes the steps.
WORDS = Settings(
    method="cot", optimizer="muon", learning_rate=1.5e-3, epochs=2, batch_size=64,
    micro_batch_size=64, validation_limit=100, max_new_tokens=40,
)  # fmt: skip
SIZES = {"architecture": "qwen2", "hidden_size": 64, "layers": 4, "heads": 4, "context": 512}

#: The adapters; ranks are small because the model is.
LATENT = CcotSettings(
    layer=2, generator_rank=32, decoder_rank=16, learning_rate=3e-3, batch_size=64,
    epochs_per_layer=4, decoder_epochs=4, joint_epochs=1, max_new_tokens=8,
)  # fmt: skip

#: Problems that are timed, one at a time.
TIMED = 20


@dataclass(frozen=True)
class Judged:
    """An answer that was looked at.

    Attributes:
        right: Whether it is the problem's.
        thoughts: How many came before it.
        tokens: Thoughts and tokens, each of which takes a step.
        seconds: Of its batch, by the number of problems in it.
    """

    right: bool
    thoughts: int
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Summary:
    """Of one or several runs on the same problems.

    Attributes:
        problems: How many.
        accuracy: Share that is right; of several runs their mean.
        accuracy_low: Lower end of its 95% bootstrap interval over problems.
        accuracy_high: Upper end.
        thoughts: Mean a problem.
        tokens: Mean a problem, thoughts among them.
        seconds_per_problem: Mean.
    """

    problems: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    thoughts: float
    tokens: float
    seconds_per_problem: float


def summarise(runs: Sequence[Sequence[Judged]], *, seed: int = 0) -> Summary:
    """The numbers of runs that answered the same problems.

    Args:
        runs: One at least, a seed of the training each, say; each in the order of the problems.
        seed: Of the bootstrap.
    """
    right_P = np.array([[judged.right for judged in run] for run in runs], dtype=float).mean(axis=0)
    low, high = interval(bootstrap_means(right_P[None], np.random.default_rng(seed))[:, 0])
    every = [judged for run in runs for judged in run]
    return Summary(
        problems=len(right_P),
        accuracy=float(right_P.mean()),
        accuracy_low=low,
        accuracy_high=high,
        thoughts=float(np.mean([judged.thoughts for judged in every])),
        tokens=float(np.mean([judged.tokens for judged in every])),
        seconds_per_problem=float(np.mean([judged.seconds for judged in every])),
    )


def base_model(output: Path, problems: Sequence[StepProblem]) -> Path:
    """The folder of the model that writes the steps."""
    init = output / "init"
    if not (init / "config.json").is_file():
        make_model(init, problems, **SIZES)
    described = {"train": "arithmetic_steps", "problems": len(problems)}
    validation = generate("validation", WORDS.validation_limit)
    return train_in_words(init, problems, validation, WORDS, output / "base", described)


def judge_words(model: Path, problems: Sequence[StepProblem]) -> list[Judged]:
    """Answers of the model that writes the steps; seconds are those of problems alone."""
    thinker = load_thinker(model)
    questions = [tokens.question for tokens in tokenize(problems, thinker.tokenizer)]
    answers = list(answer_in_words(thinker, questions, batch_size=100))
    alone = list(answer_in_words(thinker, questions[:TIMED], batch_size=1))
    seconds = float(np.mean([answer.seconds for answer in alone]))
    return [
        Judged(is_right(answer.text, problem.answer), 0, answer.tokens, seconds)
        for answer, problem in zip(answers, problems, strict=True)
    ]


@torch.no_grad()
def read_as_words(
    adapters: Adapters, settings: CcotSettings, tokens: Sequence[ProblemTokens]
) -> dict[str, float]:
    """Share of thoughts of which the model's output layer reads the token that it reads of gold.

    Of thoughts whose inputs are gold, and of those that phi has by itself.
    """
    if not settings.ratio:
        return {}
    layer, last = settings.layer_of(adapters.layers), adapters.layers
    batch = collate(tokens, settings.ratio)
    stream, gold, inputs_BKd = gold_states(adapters, batch, {last}, layer)
    given = stream.feed("phi", inputs_BKd, batch.real_BK, {last})[last]
    stream, first_Bd = read(adapters, batch.question, layer)
    counts_B = batch.real_BK.sum(dim=1)
    own = think(adapters, stream, first_Bd, layer, lambda done, _: counts_B > done).last_BKd
    head = adapters.model.get_output_embeddings()
    wanted = head(gold[last]).argmax(dim=-1)
    return {
        name: float((head(states).argmax(dim=-1) == wanted)[batch.real_BK].float().mean())
        for name, states in {"given gold": given, "own": own}.items()
    }


def judge(run: Path, model: Path, problems: Sequence[StepProblem]) -> dict[str, Any]:
    """Answers of a run, the share whose thoughts the cap cut off, and what thoughts read as."""
    adapters, ending, settings = load(run / MODEL, model, torch.float32, "cpu")
    tokenizer = load_tokenizer(model)
    tokens = tokenize(problems, tokenizer)
    questions = [problem.question for problem in tokens]
    both = (adapters, ending)
    answers = list(answer_all(*both, questions, tokenizer, settings, batch_size=100))
    alone = list(answer_all(*both, questions[:TIMED], tokenizer, settings, batch_size=1))
    seconds = float(np.mean([answer.seconds for answer in alone]))
    judged = [
        Judged(
            *(is_right(answer.text, problem.answer), answer.thoughts),
            *(answer.thoughts + answer.tokens, seconds),
        )
        for answer, problem in zip(answers, problems, strict=True)
    ]
    return {
        "judged": [vars(one) for one in judged],
        "cut_off": float(np.mean([answer.cut_off for answer in answers])),
        "reads_as_gold": read_as_words(adapters, settings, tokens),
    }


def state_errors(run: Path) -> dict[int, float]:
    """By layer, the mean error of the last tenth of its steps: 1 is the mean state's."""
    lines = [json.loads(line) for line in (run / METRICS_FILE).read_text().splitlines()]
    found: dict[int, list[float]] = {}
    for line in lines:
        if line["layer"]:
            found.setdefault(line["layer"], []).append(line["state_error"])
    return {
        layer: float(np.mean(errors[-max(1, len(errors) // 10) :]))
        for layer, errors in found.items()
    }


def run_one(
    output: Path, model: Path, problems: Sequence[StepProblem], held: Sequence[StepProblem],
    ratio: float, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Trains and evaluates one run, or reads what it came to."""
    folder = output / f"ratio_{ratio:g}_seed_{seed}"
    file = folder / "result.json"
    if not file.is_file():
        begun = time.process_time()
        settings = replace(LATENT, ratio=ratio, seed=seed)
        described = {
            "model": str(model),
            "weights": weights_digest(model),
            "problems": len(problems),
        }
        train(model, problems, settings, folder, described)
        trained = time.process_time() - begun
        result = {
            **judge(folder, model, held),
            **{"state_errors": state_errors(folder), "cpu_seconds_of_training": trained},
        }
        write_json(file, result)
        right = np.mean([one["right"] for one in result["judged"]])
        say(f"ratio {ratio:g}, seed {seed}: {right:.3f}, trained in {trained:.0f} s of CPU")
    return read_json(file)


def difference(first: Sequence[Sequence[Judged]], second: Sequence[Sequence[Judged]]) -> str:
    """Of mean accuracies in points, with its paired 95% interval over problems."""
    means = [
        np.mean([[one.right for one in run] for run in runs], axis=0) for runs in (first, second)
    ]
    change_P = means[1] - means[0]
    low, high = interval(bootstrap_means(change_P[None], np.random.default_rng(0))[:, 0])
    return f"{100 * change_P.mean():+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def table(words: Sequence[Judged], found: dict[float, list[dict[str, Any]]]) -> str:
    """A row for the chain in words and one a ratio, in the paper's columns and some of ours."""
    rows = []
    in_words = summarise([words])
    judged = {
        ratio: [[Judged(**one) for one in result["judged"]] for result in results]
        for ratio, results in found.items()
    }
    rows.append(
        [
            *("chain in words", "-", _accuracy(in_words), "-", "-"),
            *(f"{in_words.tokens:.1f}", f"{in_words.seconds_per_problem:.3f}", "-", "-", "-"),
        ]
    )
    for ratio, runs in judged.items():
        summary = summarise(runs)
        by_seed = " ".join(f"{np.mean([one.right for one in run]):.3f}" for run in runs)
        by_layer = " ".join(_means([result["state_errors"] for result in found[ratio]]))
        reads = " / ".join(_means([result["reads_as_gold"] for result in found[ratio]]))
        cut = np.mean([result["cut_off"] for result in found[ratio]])
        change = difference(judged[0.0], runs) if ratio and 0.0 in judged else "-"
        rows.append(
            [
                *(f"CCOT r = {ratio:g}", f"{summary.thoughts:.1f}", _accuracy(summary), by_seed),
                *(change, f"{summary.tokens:.1f}", f"{summary.seconds_per_problem:.3f}"),
                *(by_layer or "-", reads or "-", f"{cut:.0%}" if ratio else "-"),
            ]
        )
    head = (
        *("", "thoughts", "exact match", "by seed", "points above r = 0", "tokens"),
        *("seconds a problem", "state error by layer", "read as gold: given gold / own"),
        "cut off at the cap",
    )
    return "\n".join([*markdown_head(head), *map(markdown_row, rows)])


def _means(found: Sequence[dict[str, float]]) -> list[str]:
    """Of each name, over runs."""
    return [f"{np.mean([one[name] for one in found]):.3f}" for name in found[0]]


def _accuracy(summary: Summary) -> str:
    return f"{summary.accuracy:.3f} [{summary.accuracy_low:.3f}, {summary.accuracy_high:.3f}]"


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.0, 0.1, 0.2, 1.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--problems", type=int, default=2048, help="that CCOT trains on")
    parser.add_argument("--held-out", type=int, default=300)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    disable_progress_bar()
    if args.threads:
        torch.set_num_threads(args.threads)
    problems, held = generate("train", 16_384), generate("heldout", args.held_out)
    model = base_model(args.output, problems)
    words_file = args.output / "words.json"
    if not words_file.is_file():
        write_json(words_file, {"judged": [vars(one) for one in judge_words(model, held)]})
    words = [Judged(**one) for one in read_json(words_file)["judged"]]
    found: dict[float, list[dict[str, Any]]] = {ratio: [] for ratio in sorted(args.ratios)}
    for seed in args.seeds:
        for ratio in found:
            common = (args.output, model, problems[: args.problems], held)
            found[ratio].append(run_one(*common, ratio, seed))
    print(table(words, found))


if __name__ == "__main__":
    main()
