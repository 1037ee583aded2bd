"""A trained model's card: what it is, how it was made, how good it is, and what is not on record.

Only what the run's own files say is in it. A folder's path is not: the card leaves the machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.basics.files import write_whole
from rsp_rl.display.tables import markdown_head, markdown_row
from rsp_rl.models.front_matter import front_matter
from rsp_rl.models.origin import Origin, origin_of
from rsp_rl.runs.folder import RunFolder
from rsp_rl.runs.metrics import GAP_MAX, GAP_MEAN, held_out_accuracy, largest
from rsp_rl.runs.trained_with import UNKNOWN, TrainedModel, trained_with, unknown_law

CARD = "README.md"
#: A card without this line is somebody's own, and stays.
MARK = "<!-- Written by rsp-rl report --card; remove this line to keep your changes. -->"

#: What an actor may forget: the guard's metrics of it, and its name.
_FORGETTABLE = (("rsp", "soft prompts"), ("rsp/law", "thoughts"))


@dataclass(frozen=True)
class Score:
    """A benchmark's result; accuracies are fractions.

    Attributes:
        benchmark: Its name.
        problems: How many were asked.
        samples: Answers a problem.
        accuracy: Mean over problems of the mean over samples, low and high end of its interval.
        before: The same of the model that training started from, None if that was not evaluated.
    """

    benchmark: str
    problems: int
    samples: int
    accuracy: tuple[float, float, float]
    before: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Scores:
    """Results under one protocol.

    Attributes:
        protocol: Its name.
        how: Template, sampling and the like, in words.
        rows: A benchmark each.
        made_with: Versions and commits that they were made with.
    """

    protocol: str
    how: str
    rows: Sequence[Score]
    made_with: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Evaluated:
    """What is known of how good the model is.

    Attributes:
        scores: By protocol.
        left_out: Why evaluations that are there are not among them, a sentence each.
    """

    scores: Sequence[Scores] = ()
    left_out: Sequence[str] = field(default=())


def write_card(folder: RunFolder, checkpoint: Path, model: Path, evaluated: Evaluated) -> Path:
    """Write the card into the model's folder.

    Args:
        folder: The run's.
        checkpoint: The `global_step_N` that the model was made of.
        model: Its Hugging Face folder.
        evaluated: Its scores.

    Raises:
        RunFolderError: If the run's config is missing or damaged.
        ConfigError: If there is a card that was not written by this.
    """
    file = model / CARD
    if file.is_file() and MARK not in file.read_text(encoding="utf-8", errors="replace"):
        raise ConfigError(
            f"{file} was not written by rsp-rl report --card, or was changed since; move it away "
            "to have one written"
        )
    config = folder.read_config()
    if config is None:
        raise RunFolderError(
            f"{folder.root} holds no config/config.yaml, which a model card is made of; is it a "
            "run of rsp-rl?"
        )
    write_whole(file, _card(folder, config, checkpoint, model, evaluated))
    return file


def _card(
    folder: RunFolder, config: DictConfig, checkpoint: Path, model: Path, evaluated: Evaluated
) -> str:
    name = folder.root.resolve().name.encode(errors="replace").decode()
    run = TrainedModel(folder, config, checkpoint, model)
    origin = _origin(run)
    parts = [
        front_matter(_head(name, origin, run, evaluated)),
        MARK,
        "",
        f"# {_text(name)}",
        "",
        f"{_sentence(run)} Base model: {_text(origin.said)}.",
        "",
        "## How it was trained",
        "",
        *_training(trained_with(run)),
        "",
        "## Scores",
        "",
        *_score_lines(evaluated),
        *_held_out(folder, run.step),
        "",
        "## Rollout and actor",
        "",
        _gap(folder, run.step),
        "",
        "## Made with",
        "",
        *_made_with(folder, evaluated),
        "",
        "## Licence",
        "",
        _licence(origin),
        "",
        "## Use",
        "",
        *_use(run),
    ]
    return "\n".join(parts) + "\n"


def _origin(run: TrainedModel) -> Origin:
    path = run.setting("actor_rollout_ref.model.path")
    if not path:
        return Origin(UNKNOWN)
    folder = run.folder.named_path(str(path))
    return origin_of(str(folder) if folder.is_dir() else str(path))


def _head(name: str, origin: Origin, run: TrainedModel, evaluated: Evaluated) -> dict[str, Any]:
    """What the hub reads; what is not on record is left out."""
    head: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if origin.hub:
        head |= {"base_model": origin.hub, "base_model_relation": "finetune"}
    if origin.licence:
        head["license"] = origin.licence
    tags = ["rsp-rl", "verl", "reinforcement-learning"]
    tags += ["random-soft-prompts"] if run.rsp.get("length") else []
    tags += [str(run.rsp["law"])] if run.has_soft_prompts and not run.rsp.get("length") else []
    tags += [f"law-{run.law['name']}"] if run.law else []
    head["tags"] = tags
    results = [
        {
            "task": {"type": "text-generation"},
            "dataset": {"name": row.benchmark, "type": row.benchmark},
            "metrics": [
                {
                    "type": "accuracy",
                    "name": f"{scores.protocol}, mean of {row.samples} samples, %",
                    "value": round(100 * row.accuracy[0], 2),
                }
            ],
        }
        for scores in evaluated.scores
        for row in scores.rows
    ]
    return head | ({"model-index": [{"name": name, "results": results}]} if results else {})


def _sentence(run: TrainedModel) -> str:
    what = []
    if run.has_soft_prompts:
        what.append(run.rollouts_had)
    if run.law is not None:
        what.append(f"thoughts of the law {run.law['name']}")
    if law := unknown_law(run.rsp):
        what.append(f"what the law {law} may have added to questions, which is {UNKNOWN}")
    how = f", with {' and '.join(what)}" if what else ", without soft prompts"
    return f"A language model after {run.step} steps of reinforcement learning{how}."


def _training(lines: Sequence[tuple[str, str]]) -> list[str]:
    head = [markdown_row(["setting", "value"]), markdown_row(["---", "---"])]
    return [*head, *(markdown_row(map(_text, line)) for line in lines)]


def _score_lines(evaluated: Evaluated) -> list[str]:
    lines: list[str] = []
    for scores in evaluated.scores:
        lines += [f"`{_text(scores.protocol)}`: {_text(scores.how)}.", ""]
        head = ("benchmark", "accuracy, %", "base model, %", "problems", "samples a problem")
        rows = [
            (
                *(row.benchmark, _interval(row.accuracy), _interval(row.before)),
                *(f"{row.problems:,}", str(row.samples)),
            )
            for row in scores.rows
        ]
        lines += [*markdown_head(head), *(markdown_row(map(_text, row)) for row in rows), ""]
    if lines:
        lines += ["In brackets are 95% bootstrap intervals over problems."]
    else:
        lines += [f"{UNKNOWN.capitalize()}: no evaluation of this step is in the run's folder."]
    left_out = [f"- Left out: {_text(line)}" for line in evaluated.left_out]
    return [*lines, *([""] if left_out else []), *left_out]


def _interval(accuracy: tuple[float, float, float] | None) -> str:
    if accuracy is None:
        return UNKNOWN
    value, low, high = (100 * part for part in accuracy)
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _held_out(folder: RunFolder, step: int) -> list[str]:
    accuracy = {
        number: found
        for number, data in folder.read_metrics().items()
        if number <= step and (found := held_out_accuracy(data)) is not None
    }
    if not accuracy:
        return []
    steps = dict.fromkeys((min(accuracy), max(accuracy)))
    told = ", ".join(f"{100 * accuracy[number]:.2f}% at step {number}" for number in steps)
    return ["", f"Held-out accuracy during training, without an interval: {told}."]


def _gap(folder: RunFolder, step: int) -> str:
    logged = folder.read_metrics().items()
    steps = {n: data for n, data in logged if n <= step and data.get(GAP_MEAN) is not None}
    if not steps:
        return f"The gap |log p of the rollout - log p of the actor|: {UNKNOWN}."
    mean, most = (largest(steps.values(), name) or 0.0 for name in (GAP_MEAN, GAP_MAX))
    told = (
        "The gap |log p of the rollout - log p of the actor| over response tokens was at most "
        f"{mean:.3g} nats in a step's mean and {most:.3g} nats for one token, over "
        f"{len(steps)} steps."
    )
    for step, data in steps.items():
        told += "".join(_forgotten(step, data, *of) for of in _FORGETTABLE)
    return told


def _forgotten(step: int, data: Mapping[str, float], prefix: str, what: str) -> str:
    """What the guard compared the gap with, of the steps in which it did."""
    would, found = (data.get(f"{prefix}/{name}_gap_mean") for name in ("forgotten", "compared"))
    if would is None or found is None:
        return ""
    dense = prefix == "rsp/law" and f"{prefix}/relative_error_mean" in data
    gap = "the relative error of thoughts" if dense else "it"
    return (
        f" Over {data[f'{prefix}/compared']:,.0f} positions of step {step} {gap} was {found:.3g}, "
        f"and would have been {would:.3g} with an actor that forgot the {what}."
    )


def _made_with(folder: RunFolder, evaluated: Evaluated) -> list[str]:
    trained = [start for start in folder.read_starts() if "versions" in start]
    lines = [_versions("Training", trained)]
    evaluations = [made for scores in evaluated.scores for made in scores.made_with]
    return [*lines, *([_versions("Evaluation", evaluations)] if evaluated.scores else [])]


def _versions(what: str, made_with: Sequence[Mapping[str, Any]]) -> str:
    told = []
    for made in made_with:
        packages = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
        line = f"{packages}; commit of rsp-rl: {made.get('commit') or UNKNOWN}"
        if line not in told:
            told.append(line)
    return f"- {what}: {' / '.join(map(_text, told)) or UNKNOWN}"


def _licence(origin: Origin) -> str:
    if origin.licence:
        return f"The base model's card names `{_text(origin.licence)}`; see there for its terms."
    return (
        f"The base model's licence is {UNKNOWN}. Whoever passes this model on must find it out, "
        "and name it as `license` in the head of this file."
    )


def _use(run: TrainedModel) -> list[str]:
    lines = [
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'model = AutoModelForCausalLM.from_pretrained("THIS_REPOSITORY")',
        'tokenizer = AutoTokenizer.from_pretrained("THIS_REPOSITORY")',
        "```",
    ]
    if run.has_soft_prompts:
        what, them = ("Soft prompts were", "them") if run.rsp.get("length") else ("Noise was", "it")
        lines += ["", f"{what} for training; the model is asked without {them}."]
    return lines


def _text(text: str) -> str:
    """A text from elsewhere as one that Markdown and HTML take for text."""
    line = " ".join(text.encode(errors="replace").decode().split())
    for sign in ("\\", "`", "|", "[", "]", "*"):
        line = line.replace(sign, f"\\{sign}")
    return line.replace("<", "&lt;")
