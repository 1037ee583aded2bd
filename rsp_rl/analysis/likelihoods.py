"""`rsp-rl analyze likelihoods`: what training does out of domain, by right answers' likelihood.

Models beside each other on multiple-choice questions (rsp_rl/data/choices.py has the sets and how
they are asked): negative log-likelihood a token of the right choice, in nats, a mean over
questions; and how often the right choice is the likeliest, by its log-probability and by that over
its characters (of k in a tie 1 / k). With 95% bootstrap intervals over questions; below a value its
difference to the first model, on the same drawn questions.

A MODEL is a Hugging Face folder, a name on the hub, or a checkpoint (global_step_N). A question
that is too long for the model, or for --max-length, loses its start; what cannot be read at all is
left out; a wrong choice may be like the right one, always a tie: all three are counted. Scores are
kept as they come: after a crash, run the same command again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rsp_rl.analysis.cells import Measure, draw, paired_cells, to_csv, to_markdown
from rsp_rl.analysis.options import add_analysis
from rsp_rl.analysis.outputs import write_analysis
from rsp_rl.basics.arguments import count
from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.basics.files import locked, read_json, write_json
from rsp_rl.console.screen import bar, say
from rsp_rl.data.choices import CHOICE_SETS, ChoiceQuestion, load_choices
from rsp_rl.display import figures
from rsp_rl.draws.record import DTYPES
from rsp_rl.evaluation.comparison import Cell
from rsp_rl.inference.prompts import stable_hash
from rsp_rl.inference.requests import EngineOptions

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from rsp_rl.analysis.choice_scoring import Reading

NLL, ACCURACY, BY_CHARACTERS = "nats a token", "likeliest", "likeliest by characters"

_COLUMNS = (
    Measure(NLL, places=3),
    Measure(ACCURACY, percent=True),
    Measure(BY_CHARACTERS, percent=True),
)

_FILES = "likelihoods."

BATCH_TOKENS = 8192
"""Tokens read at once, by default."""


@dataclass(frozen=True)
class Scores:
    """One model on one set.

    Attributes:
        nll_P: Negative log-likelihood a token of each right choice, questions in their order.
        likeliest_P: Whether it is the likeliest, 1 or 0, and 1 / k where k choices are.
        by_characters_P: The same by the log-probability over characters.
        hashes: Of each question as the model read it.
        answers: Tokens of each right choice.
        truncated: Questions whose start was cut off.
        tied: Questions of which a wrong choice is the right one, token by token.
        left_out: How many could not be read, by why.
    """

    nll_P: np.ndarray
    likeliest_P: np.ndarray
    by_characters_P: np.ndarray
    hashes: tuple[str, ...]
    answers: tuple[int, ...]
    truncated: int
    tied: int
    left_out: dict[str, int]


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register `analyze likelihoods`."""
    parser = add_analysis(
        commands,
        "likelihoods",
        run,
        help="right answers of multiple-choice questions, before and after training",
        description=__doc__,
    )
    parser.add_argument(
        "models", nargs="+", metavar="[NAME=]MODEL", help="the others are compared with the first"
    )
    parser.add_argument(
        "--questions",
        nargs="+",
        required=True,
        metavar="SET",
        help=f"of the hub: {', '.join(CHOICE_SETS)}; or NAME=FILE, a file of the same fields",
    )
    parser.add_argument("--limit", type=count, help="a fixed random subset of so many questions")
    parser.add_argument("--max-length", type=count, help="in tokens (default: the model's context)")
    parser.add_argument(
        "--dtype", choices=("auto", *DTYPES), default="auto", help="bfloat16 on a GPU, else float32"
    )
    parser.add_argument(
        "--batch-tokens", type=count, default=BATCH_TOKENS, help="read at once (%(default)s)"
    )
    parser.add_argument("--output", type=Path, default=Path("analysis/likelihoods"))


def run(args: argparse.Namespace) -> int:
    """Write `likelihoods.csv`, `.md`, `.png` and the scores; print the table."""
    analyse(
        *(args.models, args.questions, args.output),
        limit=args.limit,
        max_length=args.max_length,
        dtype=args.dtype,
        batch_tokens=args.batch_tokens,
    )
    return 0


def analyse(
    models: Sequence[str],
    sets: Sequence[str],
    output: Path,
    *,
    limit: int | None = None,
    max_length: int | None = None,
    dtype: str = "auto",
    batch_tokens: int = BATCH_TOKENS,
) -> None:
    """Write the files of `run`.

    Args:
        models: `[NAME=]MODEL` each, the reference first.
        sets: See `load_choices`.
        output: Where to.
        limit: Only so many questions of a set, a fixed random subset.
        max_length: Most tokens of question and choice.
        dtype: What the models compute in.
        batch_tokens: Tokens read at once.

    Raises:
        ConfigError: If a model or set cannot be used, or two have one name.
        RunFolderError: If the output holds others' scores, or models read questions otherwise.
    """
    named = _named(models)
    asked: dict[str, list[ChoiceQuestion]] = {}
    for text in sets:
        name, questions = load_choices(text)
        if name in asked:
            raise ConfigError(f"--questions: two sets are called {name}; name one NAME=FILE")
        asked[name] = chosen(name, questions, limit)
    dtype = EngineOptions(dtype=dtype).resolved_dtype()
    # What cannot be compared must not show after hours of scoring.
    readers = {model: _reader(path, max_length) for model, path in named.items()}
    read = _read_alike(readers, asked)
    for model, reader in readers.items():
        _check_begun(output / model, reader.how(dtype, batch_tokens))
    found: dict[str, dict[str, Scores]] = {name: {} for name in asked}
    for model, reader in readers.items():
        for name, scores in score(output / model, reader, read, dtype, batch_tokens).items():
            found[name][model] = scores
    table = {name: rows_of(by_model) for name, by_model in found.items()}
    markdown = to_markdown("Right answers to multiple-choice questions", table, _COLUMNS)
    markdown += "\n" + "\n".join(f"- {line}" for line in notes(found)) + "\n"
    # Values of questions lie far apart, their differences do not.
    figure = draw(
        *(table, _COLUMNS, lambda number, _: figures.colour(number)), differences=len(named) > 1
    )
    write_analysis(output, "likelihoods", markdown=markdown, csv=to_csv(table), figure=figure)


def _named(texts: Sequence[str]) -> dict[str, str]:
    """Models by name, by default a folder's own, or `step_N` of a checkpoint."""
    named: dict[str, str] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            path = text
            name = Path(text).name.replace("global_step_", "step_")
        # Beside the folders lie the files of the whole.
        if not name or name in (".", "..") or "/" in name or name.startswith(_FILES):
            raise ConfigError(f"{text!r}: {name!r} names no folder for its scores; name it: NAME=")
        if name in named:
            raise ConfigError(f"two models are called {name!r}; name them: NAME=MODEL")
        named[name] = path
    return named


def chosen(name: str, questions: list[ChoiceQuestion], limit: int | None) -> list[ChoiceQuestion]:
    """The questions that are asked; a smaller limit's are among a larger one's."""
    if limit is None or limit >= len(questions):
        return questions
    ranked = sorted(questions, key=lambda question: stable_hash([name, question.id], 16))
    kept = {question.id for question in ranked[:limit]}
    return [question for question in questions if question.id in kept]


@dataclass(frozen=True)
class Reader:
    """A model, as far as it reads.

    Attributes:
        model: Hugging Face folder.
        config: Its own.
        tokenizer: Its own.
        longest: Most tokens of question and choice; None for no limit.
    """

    model: Path
    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase
    longest: int | None

    def how(self, dtype: str, batch_tokens: int) -> dict[str, Any]:
        """What scores of a folder have in common; the model's place may change."""
        from rsp_rl.models.weights import weights_digest

        return {
            "model": str(self.model),
            "weights": weights_digest(self.model),
            "dtype": dtype,
            "batch_tokens": batch_tokens,
            "longest": self.longest,
        }

    def read(self, name: str, questions: Sequence[ChoiceQuestion]) -> Read:
        """A set in tokens.

        Raises:
            ConfigError: If none of its questions can be read, or one has a token that the model
                lacks.
        """
        from rsp_rl.analysis.choice_scoring import reading_of
        from rsp_rl.models.vocabulary import check_tokens, vocabulary_size

        readings, left_out = [], Counter[str]()
        for question in questions:
            reading = reading_of(self.tokenizer, question, self.longest)
            if isinstance(reading, str):
                left_out[reading] += 1
                continue
            where = f"{name}, question {question.id}"
            for sequence in reading.sequences:
                ids = list(sequence)
                check_tokens(self.tokenizer, ids, vocabulary_size(self.config), where)
            readings.append(reading)
        if not readings:
            why = ", ".join(left_out)
            raise ConfigError(f"{name}: none of {len(questions)} questions can be read: {why}")
        return Read(readings, dict(left_out))


@dataclass(frozen=True)
class Read:
    """A set in tokens, and how many of its questions could not be read, by why."""

    readings: list[Reading]
    left_out: dict[str, int]


def _reader(path: str, max_length: int | None) -> Reader:
    from rsp_rl.models.context import context_of
    from rsp_rl.models.folder import check_model, load_tokenizer

    model = _model_folder(path)
    config, tokenizer = check_model(model), load_tokenizer(model)
    limits = [limit for limit in (context_of(config), max_length) if limit is not None]
    return Reader(model, config, tokenizer, min(limits, default=None))


def _read_alike(
    readers: Mapping[str, Reader], asked: Mapping[str, Sequence[ChoiceQuestion]]
) -> dict[str, Read]:
    """Sets in tokens, which all models read alike.

    Raises:
        ConfigError: As `Reader.read`.
        RunFolderError: If models read a question otherwise.
    """
    (first, reader), *others = readers.items()
    made = {}
    for name, questions in asked.items():
        made[name] = reader.read(name, questions)
        hashes = {reading.id: _hash(reading) for reading in made[name].readings}
        for other, another in others:
            own = {r.id: _hash(r) for r in another.read(name, questions).readings}
            if own == hashes:
                continue
            odd = next(q.id for q in questions if own.get(q.id) != hashes.get(q.id))
            if reader.longest != another.longest:
                raise RunFolderError(
                    f"{first} reads {reader.longest or 'any number of'} tokens at most and {other} "
                    f"{another.longest or 'any number'}, which makes question {odd} of {name} "
                    "another one; give both a --max-length"
                )
            raise RunFolderError(
                f"{first} and {other} read question {odd} of {name} in other tokens: numbers a "
                "token of two tokenizers cannot be compared; compare models of one"
            )
    return made


def score(
    folder: Path,
    reader: Reader,
    read: Mapping[str, Read],
    dtype: str,
    batch_tokens: int,
) -> dict[str, Scores]:
    """One model's scores on all sets, kept in a folder as they come.

    Args:
        folder: Gets `how.json` and a `SET.scores.jsonl` a set.
        reader: The model.
        read: Its reading of each set.
        dtype: What the model computes in.
        batch_tokens: See `analyse`.

    Raises:
        RunFolderError: If the folder holds another model's scores, or other questions'.
    """
    from rsp_rl.analysis.choice_scoring import batches, log_probs

    network: Any = None
    found = {}
    with ExitStack() as stack:
        stack.enter_context(locked(folder))
        how = reader.how(dtype, batch_tokens)
        _check_begun(folder, how)
        write_json(folder / "how.json", how)
        for name, of in read.items():
            kept = _Kept(folder / f"{name}.scores.jsonl", of.readings)
            missing = [
                batch
                for batch in batches(of.readings, batch_tokens)
                if any(reading.id not in kept.scores for reading in batch)
            ]
            if missing and network is None:
                network = _load(reader.model, reader.config, dtype)
            for batch in bar(missing, f"{folder.name}, {name}", unit="batch"):
                kept.add(batch, log_probs(network, batch))
            kept.finish()
            found[name] = _scores(of.readings, kept.scores, of.left_out)
    return found


def _model_folder(path: str) -> Path:
    """A Hugging Face folder, made of the checkpoint where it is one."""
    from rsp_rl.evaluation.trained_run import TrainedRun, checkpoint_run
    from rsp_rl.models.folder import resolve_model_folder
    from rsp_rl.runs.checkpoints import merge_checkpoint

    folder = Path(path).expanduser()
    if checkpoint_run(folder):
        return merge_checkpoint(folder)
    if folder.is_dir() and (trained := TrainedRun.open(folder)) is not None:
        steps = ", ".join(map(str, trained.steps().values())) or "none is finished"
        raise ConfigError(f"{folder} is a run; name one of its checkpoints: {steps}")
    return resolve_model_folder(path)


def _load(model: Path, config: PretrainedConfig, dtype: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    from rsp_rl.inference.requests import has_gpu

    network = AutoModelForCausalLM.from_pretrained(
        model, config=config, dtype=getattr(torch, dtype), attn_implementation="sdpa"
    ).eval()
    return network.to("cuda" if has_gpu() else "cpu")


def _check_begun(folder: Path, how: Mapping[str, Any]) -> None:
    """Refuse to mix a folder's scores with others'."""
    file = folder / "how.json"
    begun = read_json(file) if file.is_file() else how
    for name, value in how.items():
        if name != "model" and begun.get(name) != value:
            raise RunFolderError(
                f"{folder} holds scores made with {name} {begun.get(name)!r}, and now it is "
                f"{value!r}; remove the folder, or choose another --output"
            )


class _Kept:
    """Scores of a set on disk, a question a line; a line that was cut short does not count.

    Args:
        file: The file.
        readings: What is asked.

    Raises:
        RunFolderError: If a line is no score, or of what is not asked.
    """

    def __init__(self, file: Path, readings: Sequence[Reading]) -> None:
        self._file, self._readings = file, readings
        self._hashes = {reading.id: _hash(reading) for reading in readings}
        choices = {reading.id: len(reading.sequences) for reading in readings}
        self.scores: dict[str, list[float]] = {}
        content = file.read_bytes() if file.is_file() else b""
        *lines, cut_short = content.split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                identifier, values = row["question"], [float(x) for x in row["log_probs"]]
                same = self._hashes[identifier] == row["hash"]
                if same and (len(values) != choices[identifier] or not np.isfinite(values).all()):
                    raise ValueError(f"its log-probabilities are {values}")
            except (ValueError, TypeError, KeyError) as error:
                raise RunFolderError(
                    f"{file}, line {number} is no score of a question that is asked ({error!r}); "
                    "remove the file, or choose another --output"
                ) from error
            if not same:
                raise RunFolderError(
                    f"{file}, line {number}: question {identifier} was another one, or read by "
                    "another tokenizer; remove the file, or choose another --output"
                )
            self.scores[identifier] = values
        if cut_short:
            file.write_bytes(content[: -len(cut_short)])

    def add(self, batch: Sequence[Reading], values: Sequence[Sequence[float]]) -> None:
        """Keep a batch's scores, at once.

        Raises:
            RunFolderError: If one is no number: the model's weights or dtype overflow.
        """
        text = ""
        for reading, of_choices in zip(batch, values, strict=True):
            if not np.isfinite(of_choices).all():
                raise RunFolderError(
                    f"{self._file.parent}: question {reading.id} has the log-probabilities "
                    f"{list(of_choices)}; the model overflows, try --dtype float32"
                )
            if reading.id not in self.scores:
                self.scores[reading.id] = list(of_choices)
                text += self._line(reading)
        with self._file.open("a", encoding="ascii") as file:
            file.write(text)

    def finish(self) -> None:
        """Put the lines into the questions' order."""
        from rsp_rl.basics.files import write_whole

        write_whole(self._file, "".join(self._line(reading) for reading in self._readings))

    def _line(self, reading: Reading) -> str:
        row = {
            "question": reading.id,
            "hash": self._hashes[reading.id],
            "right": reading.right,
            "log_probs": self.scores[reading.id],
            "tokens": reading.answers,
            "characters": reading.characters,
            "truncated": reading.truncated,
        }
        return json.dumps(row) + "\n"


def _hash(reading: Reading) -> str:
    content = repr((reading.sequences, reading.answers, reading.right)).encode()
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _scores(
    readings: Sequence[Reading], log_probs: Mapping[str, Sequence[float]], left_out: dict[str, int]
) -> Scores:
    nll, likeliest, by_characters = [], [], []
    for reading in readings:
        # Rows of a batch differ by roundings, and what is the same text must not.
        of_text = dict(zip(reading.sequences, log_probs[reading.id], strict=True))
        values = np.array([of_text[sequence] for sequence in reading.sequences])
        scaled = values / np.array(reading.characters)
        nll.append(-values[reading.right] / reading.answers[reading.right])
        likeliest.append(_share(values, reading.right))
        by_characters.append(_share(scaled, reading.right))
    return Scores(
        np.array(nll),
        np.array(likeliest, dtype=float),
        np.array(by_characters, dtype=float),
        tuple(_hash(reading) for reading in readings),
        tuple(reading.answers[reading.right] for reading in readings),
        sum(reading.truncated > 0 for reading in readings),
        sum(r.sequences.count(r.sequences[r.right]) > 1 for r in readings),
        left_out,
    )


def _share(values: np.ndarray, right: int) -> float:
    """1 where the right choice has the highest value; of k that have it, 1 / k."""
    highest = values == values.max()
    return float(highest[right] / highest.sum())


def rows_of(by_model: Mapping[str, Scores]) -> dict[str, dict[str, Cell]]:
    """Cells by model and measure."""
    references = dict.fromkeys(by_model, next(iter(by_model)))
    rows: dict[str, dict[str, Cell]] = {name: {} for name in by_model}
    for measure, field in (
        (NLL, "nll_P"),
        (ACCURACY, "likeliest_P"),
        (BY_CHARACTERS, "by_characters_P"),
    ):
        values = {name: getattr(scores, field) for name, scores in by_model.items()}
        for name, cell in paired_cells(values, references).items():
            rows[name][measure] = cell
    return rows


def notes(found: Mapping[str, Mapping[str, Scores]]) -> list[str]:
    """What a reader of the table must know, a line a set; what is lost is said at once too."""
    lines = []
    for name, by_model in found.items():
        scores = next(iter(by_model.values()))
        tokens = f"{np.mean(scores.answers):.1f} tokens a right answer"
        line = f"{name}: {len(scores.hashes):,} questions, {tokens}"
        lost = [f"{count:,} left out ({why})" for why, count in scores.left_out.items()]
        if scores.truncated:
            lost.append(f"{scores.truncated:,} without their start, which was too long")
        if scores.tied:
            lost.append(f"{scores.tied:,} with a wrong choice like the right one, which is a tie")
        if lost:
            line += "; " + ", ".join(lost)
            say(f"warning: {line}")
        lines.append(line + ".")
    return lines
