r"""`rsp-rl analyze attention`: attention on soft prompt and question tokens (Figures 2 and 7).

Per-token mass PTM_R[l, i], the weight that query i of layer l puts on a soft prompt token, the mean
over tokens and heads; PTM_Q likewise for a token of the question. Queries are the answer's tokens
before its final \boxed span (all of them if it has none). Layers but the last two, and positions,
go into 5 bins each; where they do not divide, the first bins have one more. A model with fewer than
seven layers has as many layer bins as layers left, and keeps its first at least; an answer with
fewer than five reasoning tokens is in no bin. The mean is over problems of the mean over samples.

Theorem 1 is checked on every answer, layer, head and query behind the soft prompt, the prompt's own
queries among them: the mass on the soft prompt must not exceed
L / (L + n exp(Delta_i / sqrt(d_head))).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from rsp_rl.analysis.averages import mean_and_sem, plain
from rsp_rl.analysis.bound_check import BoundCheck, BoundError
from rsp_rl.analysis.conditions import Condition, open_conditions, position_name
from rsp_rl.analysis.options import (
    FOLDERS_HELP,
    ModelOptions,
    add_analysis,
    add_model_options,
    model_options,
)
from rsp_rl.analysis.outputs import write_analysis
from rsp_rl.analysis.spans import BOX, question_positions, reasoning_length
from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.basics.files import write_json
from rsp_rl.console.screen import bar
from rsp_rl.display import figures
from rsp_rl.display.tables import csv_text, markdown_head, markdown_row
from rsp_rl.evaluation.comparison import Estimate
from rsp_rl.evaluation.metrics import bootstrap_means, interval

if TYPE_CHECKING:
    from rsp_rl.analysis.attention import AttentionRecorder
    from rsp_rl.analysis.teacher_forcing import ForcedModel, Trajectory

BINS = 5
_LAST_LAYERS = 2

KINDS = ("soft_prompt", "question")


@dataclass(frozen=True)
class Heatmaps:
    """One benchmark's per-token mass.

    Attributes:
        mean: By kind, layer bin and position bin, [2, layer bins, 5], kinds as in `KINDS`.
        sem: Standard error over problems of it; NaN with one problem.
        answers: How many were measured.
        left_out: How many had fewer reasoning tokens than bins.
        without_box: How many of the measured had no box, so that all their tokens count.
        bound: Theorem 1's check.
        decay: Mass on a soft prompt token in the last position bin over that in the first, all
            layers that count; 95% bootstrap interval over problems.
    """

    mean: np.ndarray
    sem: np.ndarray
    answers: int
    left_out: int
    without_box: int
    bound: BoundCheck
    decay: Estimate


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register `analyze attention`."""
    parser = add_analysis(
        commands,
        "attention",
        run,
        help="attention on soft prompt and question tokens (Figures 2 and 7), Theorem 1",
        description=__doc__,
    )
    parser.add_argument("folder", metavar="DIR", help=FOLDERS_HELP)
    add_model_options(parser, Path("analysis/attention"))


def run(args: argparse.Namespace) -> int:
    """Write `attention.csv`, `.json`, `.md` and `.png`; print the table and Theorem 1's check."""
    analyse([args.folder], args.output, options=model_options(args))
    return 0


def analyse(folders: Sequence[str], output: Path, *, options: ModelOptions | None = None) -> None:
    """Write the files of `run`.

    Args:
        folders: `[NAME=]DIR`, one, with soft prompts.
        output: Where to.
        options: Model and answers.

    Raises:
        ConfigError: If the model's attention cannot be measured, or there are no soft prompts.
        RunFolderError: If the model is not the one that answered, or no answer is long enough.
        BoundError: If the bound was exceeded anywhere; the files are written all the same.
    """
    from rsp_rl.analysis.attention import MEASURED, check_rotary
    from rsp_rl.models.folder import check_model, resolve_model_folder

    options = options or ModelOptions()
    (condition,) = open_conditions(folders, position_name)
    if not condition.protocol.rsp.enabled:
        raise ConfigError(f"{condition.root} has no soft prompts whose attention could be measured")
    if condition.protocol.rsp.adds:
        raise ConfigError(
            f"{condition.root} has rsp.law={condition.protocol.rsp.law}, whose rows are added to "
            "the question and take no attention of their own; name one with soft prompts"
        )
    benchmarks = options.chosen([condition])
    # Before transformers refuses the attention of a model that has none of the kind.
    check_rotary(check_model(resolve_model_folder(options.model or condition.manifest["model"])))
    model = options.load(condition, attention=MEASURED)
    maps = {
        name: measure(model, condition, name, options.problems, options.samples)
        for name in benchmarks
    }
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "attention.json", to_json(maps, condition))
    write_analysis(
        output, "attention", markdown=to_markdown(maps), csv=to_csv(maps), figure=draw(maps)
    )
    if violations := sum(found.bound.violations for found in maps.values()):
        raise BoundError(
            f"the attention mass exceeds Theorem 1's bound {violations} times (see "
            f"{output / 'attention.json'}): rounding in the model's dtype, or an attention that is "
            "no plain softmax; try --dtype float32"
        )


def measure(
    model: ForcedModel,
    condition: Condition,
    benchmark: str,
    problems: int | None = None,
    samples: int | None = None,
) -> Heatmaps:
    """Run the model over a condition's answers to a benchmark.

    Args:
        model: The condition's, with the measured attention.
        condition: Whose answers.
        benchmark: Which.
        problems: Only the first so many.
        samples: Only the first so many of each.

    Raises:
        ConfigError: If the model's attention cannot be measured.
        RunFolderError: If no answer is long enough.
    """
    found: dict[str, list[np.ndarray]] = {}
    bound, left_out, without_box = BoundCheck(), 0, 0
    trajectories = model.trajectories(benchmark, problems=problems, samples=samples)
    for trajectory in bar(trajectories, f"{condition.name}, {benchmark}", unit="answer"):
        recorder = record(model, trajectory)
        where = {"problem": trajectory.problem.id, "sample": trajectory.sample["sample"]}
        for layer, mass in recorder.layers.items():
            bound.add(layer, mass, recorder.first_query, where)
        length = reasoning_length(trajectory)
        if length < BINS:
            left_out += 1
            continue
        per_token = per_token_mass(recorder, len(trajectory.request.token_ids), length)
        found.setdefault(trajectory.problem.id, []).append(heatmap(per_token))
        without_box += BOX not in trajectory.sample["output"]
    if not found:
        raise RunFolderError(
            f"{condition.root} holds no answer to {benchmark} with {BINS} reasoning tokens or more"
        )
    mean, sem = mean_and_sem(list(found.values()))
    answers = sum(map(len, found.values()))
    return Heatmaps(mean, sem, answers, left_out, without_box, bound, decay(found.values()))


def decay(heatmaps: Iterable[Sequence[np.ndarray]], *, seed: int = 0) -> Estimate:
    """See `Heatmaps.decay`.

    Args:
        heatmaps: By problem, [2, layer bins, `BINS`] of each answer.
        seed: Of the bootstrap.
    """
    of_problems = [np.mean(answers, axis=0)[0].mean(0) for answers in heatmaps]
    ends = np.array([[mass[0], mass[-1]] for mass in of_problems]).T
    drawn = bootstrap_means(ends, np.random.default_rng(seed))
    first, last = ends.mean(1)
    return Estimate(float(last / first), *interval(drawn[:, 1] / drawn[:, 0]))


def record(model: ForcedModel, trajectory: Trajectory) -> AttentionRecorder:
    """Run the model over one answer, every layer measured.

    Raises:
        ConfigError: If the model's attention cannot be measured.
    """
    from rsp_rl.analysis.attention import AttentionRecorder, check_all_recorded

    request = trajectory.request
    question = question_positions(model.tokenizer, request, trajectory.problem.question)
    recorder = AttentionRecorder(request.record.start, request.record.length, question)
    model.forward(request, trajectory.output_ids, 1, attention_recorder=recorder)
    check_all_recorded(recorder, model.config)
    return recorder


def per_token_mass(recorder: AttentionRecorder, prompt: int, length: int) -> np.ndarray:
    """PTM of the reasoning queries, float64 [2, layers, queries], kinds as in `KINDS`.

    Args:
        recorder: The measured layers.
        prompt: Tokens of the prompt.
        length: Reasoning tokens.
    """
    first = prompt - recorder.first_query
    layers = [recorder.layers[number] for number in sorted(recorder.layers)]
    by_kind = (
        [mass.soft_prompt.mean(0) / recorder.length for mass in layers],
        [mass.question.mean(0) / len(recorder.question) for mass in layers],
    )
    return np.array([[row[first : first + length].numpy() for row in rows] for rows in by_kind])


def heatmap(per_token: np.ndarray) -> np.ndarray:
    """Means over bins of layers and positions.

    Args:
        per_token: [2, layers, queries], at least `BINS` queries.

    Returns:
        [2, layer bins, `BINS`].
    """
    kept = max(1, per_token.shape[1] - _LAST_LAYERS)
    return np.stack(
        [
            [positions.mean((1, 2)) for positions in np.array_split(layers, BINS, axis=2)]
            for layers in np.array_split(per_token[:, :kept], min(BINS, kept), axis=1)
        ]
    ).transpose(2, 0, 1)


def to_markdown(maps: dict[str, Heatmaps]) -> str:
    """Overall means and Theorem 1's check, a row a benchmark."""
    kinds = [f"mass per {kind.replace('_', ' ')} token (%)" for kind in KINDS]
    head = [*kinds, "answers", "too short", "checked", "above the bound", "worst slack"]
    lines = ["# Attention on the soft prompt and on the question, and Theorem 1's bound", ""]
    lines += markdown_head(["benchmark", *head])
    for benchmark, found in maps.items():
        bound = found.bound
        cells = [f"{100 * found.mean[k].mean():.4f}" for k in range(len(KINDS))]
        cells += [str(found.answers), str(found.left_out), f"{bound.checked:,}"]
        cells += [str(bound.violations), f"{bound.worst_slack:.3e}"]
        lines.append(markdown_row([benchmark, *cells]))
    lines += ["", "Checked is every layer, head and query behind the soft prompt."]
    return "\n".join(lines) + "\n"


def to_csv(maps: dict[str, Heatmaps]) -> str:
    """One row a benchmark, kind, layer bin and position bin, counted from 1."""
    return csv_text(
        "benchmark,tokens,layer_bin,position_bin,mean,sem",
        [
            [
                benchmark,
                kind,
                row + 1,
                column + 1,
                found.mean[k, row, column],
                found.sem[k, row, column],
            ]
            for benchmark, found in maps.items()
            for k, kind in enumerate(KINDS)
            for row in range(found.mean.shape[1])
            for column in range(BINS)
        ],
    )


def to_json(maps: dict[str, Heatmaps], condition: Condition) -> dict[str, Any]:
    """Overall means, what was left out, and Theorem 1's check, by benchmark."""
    return {
        "model": condition.model,
        "length": condition.protocol.rsp.length,
        "position": condition.protocol.rsp.position,
        **{
            benchmark: {
                "answers": found.answers,
                "left_out": found.left_out,
                "without_box": found.without_box,
                "per_token_mass": {
                    kind: plain(found.mean[k].mean()) for k, kind in enumerate(KINDS)
                },
                "decay": {
                    "ratio": found.decay.value,
                    "low": found.decay.low,
                    "high": found.decay.high,
                },
                "theorem_1": {
                    "checked": found.bound.checked,
                    "violations": found.bound.violations,
                    "worst_slack": found.bound.worst_slack,
                    "worst_at": found.bound.worst_at,
                },
            }
            for benchmark, found in maps.items()
        },
    }


def draw(maps: dict[str, Heatmaps]) -> Figure:
    """A row a benchmark: mass per soft prompt and per question token, in one colour scale."""
    figure, axes = figures.panels(len(maps), 2, (9, 3.4 * len(maps) + 0.4))
    for row, (benchmark, found) in enumerate(maps.items()):
        percent = 100 * found.mean
        norm = LogNorm(percent.min(), percent.max())
        pair = axes[2 * row : 2 * row + 2]
        for axis, values, kind in zip(pair, percent, ("soft prompt", "question"), strict=True):
            image = axis.imshow(values, norm=norm, aspect="auto", origin="lower")
            for (y, x), value in np.ndenumerate(values):
                # Not pure black, which a page takes for its own ink, white in the dark.
                ink = "#111111" if norm(value) > 0.6 else "white"
                axis.text(x, y, f"{value:.2g}", ha="center", va="center", color=ink, fontsize=9)
            axis.grid(visible=False)
            axis.set_xticks(
                range(BINS), [f"{100 * i // BINS}–{100 * (i + 1) // BINS}" for i in range(BINS)]
            )
            axis.set_yticks(range(len(values)), range(1, len(values) + 1))
            axis.set(xlabel="position in the reasoning (%)", ylabel="layer bin, input to output")
            axis.set_title(f"{benchmark}: a {kind} token", fontsize=10)
        bar = figure.colorbar(image, ax=pair, label="attention mass per token (%)")
        bar.set_ticks(np.geomspace(norm.vmin, norm.vmax, 5), minor=False)
        bar.ax.yaxis.set_major_formatter("{x:.2g}")
        bar.minorticks_off()
    return figure
