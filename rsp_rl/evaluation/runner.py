"""Evaluate one model under one protocol: what is to be asked, and of which engines."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rsp_rl.basics.errors import ConfigError, PlacementError, RunFolderError
from rsp_rl.basics.files import locked
from rsp_rl.comparators.methods import preset_line
from rsp_rl.console.screen import quiet, say
from rsp_rl.data.benchmarks import load_benchmark
from rsp_rl.data.templates import ChatTemplate, get_template
from rsp_rl.draws.laws import LAWS
from rsp_rl.evaluation.asking import Book, Graded, ask
from rsp_rl.evaluation.folder import EvaluationFolder, StepFolder
from rsp_rl.evaluation.manifest import write_manifest, write_problems
from rsp_rl.evaluation.protocol import Protocol, choose_problems
from rsp_rl.evaluation.questions import Question, questions
from rsp_rl.evaluation.samples import SampleFile
from rsp_rl.evaluation.thoughts import TokenTexts
from rsp_rl.inference.engines import SharedEngines, check_comparator_engine
from rsp_rl.inference.model_law import with_model_law
from rsp_rl.inference.requests import EngineOptions, Engines
from rsp_rl.inference.thinking import ModelThinking, thinking_of_model
from rsp_rl.models.context import context_of
from rsp_rl.models.folder import check_model, load_tokenizer
from rsp_rl.models.kept_text import Characters
from rsp_rl.models.vocabulary import (
    check_placeholder,
    check_tokens,
    vocabulary_size,
)
from rsp_rl.placement.dates import depends_on_the_day

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass
class Outcome:
    """How an evaluation ended.

    Attributes:
        accuracy: Of each finished benchmark.
        failed: Why each of the others could not be evaluated.
        generated: Samples that this call generated; 0 if all were there.
    """

    accuracy: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    generated: int = 0


def evaluate(
    model: Path,
    protocol: Protocol,
    folder: StepFolder,
    *,
    engine: EngineOptions | None = None,
    engines: Engines | None = None,
    data_dir: Path | None = None,
    law: tuple[float, float] | None = None,
    table: tuple[float, float] | None = None,
    unlike_training: Sequence[str] = (),
    progress: bool = True,
    on_graded: Graded | None = None,
) -> Outcome:
    """Evaluate a model; what an earlier call has left is kept and not asked again.

    A benchmark that cannot be evaluated does not keep the others from it.

    Args:
        model: Hugging Face folder.
        protocol: What is asked, and how.
        folder: Where samples and metrics go.
        engine: How the model is run.
        engines: Running ones of this model and these options, which stay as they are; by default
            they are started if there is anything to ask, and ended. A comparator has its own.
        data_dir: Folder with the benchmarks' files; else see `load_benchmark`.
        law: mu_E and sigma_E of the protocol's soft prompts; by default those of the model's own
            table.
        table: Mean and standard deviation of the pretrained embedding table, whose
            root-mean-square the noise of thoughts is in units of; by default as `law`.
        unlike_training: What `rsp_rl.evaluation.trained_prompts` found, for `how.json`.
        progress: Whether to show a progress bar on stderr.
        on_graded: See `Graded`.

    Raises:
        ConfigError: If the model cannot be used, or none of the benchmarks.
        RunFolderError: If the folder holds another model's or protocol's samples, is in use, or
            cannot be written.
    """
    engine = engine or EngineOptions()
    config = check_model(model)
    tokenizer = load_tokenizer(model)
    _warn_of_dates(protocol, tokenizer)
    if protocol.rsp.enabled or protocol.law or engine.kind == "huggingface":
        check_placeholder(tokenizer, vocabulary_size(config))
    context = engine.max_model_len or context_of(config)
    trained = check_comparator(protocol, model, engine)
    if (comparator := protocol.comparator) is not None:
        say(f"{comparator.method}: {preset_line(comparator, protocol.rsp.length)}")
    thinking = check_thinking(protocol, model, engine, table or law)
    protocol = _with_law(protocol, model, law)
    outcome = Outcome()
    asked: dict[str, list[Question]] = {}
    for plan in protocol.benchmarks:
        try:
            problems = load_benchmark(plan.benchmark, data_dir)
            problems = choose_problems(plan, problems, protocol.seed)
            asked[plan.benchmark] = list(
                questions(
                    *(plan, problems, protocol, tokenizer),
                    dtype=engine.resolved_dtype(),
                    context=context,
                    model=model,
                    thinking=thinking,
                )
            )
            for question in asked[plan.benchmark]:
                where = f"the prompt of {plan.benchmark}, problem {question.problem.id},"
                check_tokens(tokenizer, question.request.token_ids, vocabulary_size(config), where)
            _warn_of_unknown(plan.benchmark, asked[plan.benchmark], tokenizer)
        except (ConfigError, PlacementError) as error:
            outcome.failed[plan.benchmark] = str(error)
    log = EvaluationFolder(folder.root.parent).engine_log
    with locked(folder.root), quiet(log), ExitStack() as stack:
        write_manifest(
            *(folder, model, protocol, engine, context, trained, unlike_training),
            thinking=thinking and thinking.settings,
        )
        texts = thinking and TokenTexts(tokenizer)
        books = []
        for name, wanted in asked.items():
            try:
                write_problems(folder, name, [question.problem for question in wanted])
                file = stack.enter_context(SampleFile(folder.samples(name)))
                books.append(Book(name, wanted, file, folder, outcome.accuracy, texts))
            except RunFolderError as error:
                outcome.failed[name] = str(error)
        if engines is None or protocol.comparator is not None:
            engines = stack.enter_context(
                SharedEngines(
                    *(model, engine),
                    soft_prompts=protocol.rsp.enabled,
                    thoughts=thinking is not None,
                    comparator=protocol.comparator,
                )
            )
        missing = sum(len(book.missing) for book in books)
        if progress and missing:
            kept = sum(book.kept for book in books)
            say(f"{missing} samples to generate, {kept} are there; log of the engine: {log}")
        outcome.generated = ask(books, engines, progress, on_graded)
    return outcome


def _warn_of_dates(protocol: Protocol, tokenizer: PreTrainedTokenizerBase) -> None:
    template = get_template(protocol.template)
    if not isinstance(template, ChatTemplate):
        return
    if depends_on_the_day(tokenizer, **template.arguments(tokenizer)):
        say(
            "warning: the chat template writes today's date into every prompt and takes no "
            "argument for it: an evaluation on another day has other prompts, and so had training"
        )


def _warn_of_unknown(
    benchmark: str, asked: list[Question], tokenizer: PreTrainedTokenizerBase
) -> None:
    characters = Characters(tokenizer)
    problems = dict.fromkeys(one.problem for one in asked)
    found = {
        str(problem.id): unknown
        for problem in problems
        if (unknown := characters.unknown(problem.question))
    }
    if found:
        lost = ", ".join(map(repr, sorted(set().union(*found.values()))[:5]))
        say(
            f"warning: {benchmark}: the tokenizer does not know all characters of {len(found)} "
            f"problems ({', '.join(sorted(found)[:5])}), such as {lost}; the model reads nothing, "
            "or its unknown token, in their place"
        )


def check_comparator(protocol: Protocol, model: Path, engine: EngineOptions) -> str | None:
    """Make sure that the protocol's comparator, if it has one, can be used.

    Returns:
        What tells its trained parameters from others (`Comparator.check`).

    Raises:
        ConfigError: If the engine cannot run it, or a setting does not suit the model.
        RunFolderError: If its trained parameters cannot be used.
    """
    if protocol.comparator is None:
        return None
    check_comparator_engine(engine, protocol.comparator)
    return protocol.comparator.check(model, protocol.rsp)


def check_thinking(
    protocol: Protocol,
    model: Path,
    engine: EngineOptions,
    table: tuple[float, float] | None = None,
) -> ModelThinking | None:
    """The protocol's law, if it has one, made ready for a model and an engine.

    Args:
        protocol: What is asked.
        model: Hugging Face folder.
        engine: How it is run.
        table: See `evaluate`.

    Raises:
        ConfigError: If the law does not fit the model, or the engine cannot run it.
    """
    if protocol.law is None:
        return None
    thinking = thinking_of_model(protocol.law, model, load_tokenizer(model), table)
    if engine.kind == "vllm":
        thinking.settings.law.check_parallel(engine.tensor_parallel)
    return thinking


def _with_law(protocol: Protocol, model: Path, law: tuple[float, float] | None) -> Protocol:
    """The protocol with mu_E and sigma_E: as set, else the given ones, else the model's."""
    if not protocol.rsp.enabled or protocol.rsp.mean is not None:
        return protocol
    if law is None:
        return replace(protocol, rsp=with_model_law(protocol.rsp, model))
    if LAWS[protocol.rsp.law].from_table:
        raise ConfigError(
            f"rsp.law={protocol.rsp.law} draws rows of the model's own table, and a checkpoint's "
            "is not the one that its run began with; evaluate the checkpoint's folder as a model"
        )
    return replace(protocol, rsp=replace(protocol.rsp, mean=law[0], std=law[1]))
