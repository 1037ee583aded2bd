"""Evaluate one model under one protocol: ask, grade, keep, count."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from rsp_rl.basics.errors import ConfigError, PlacementError, RunFolderError
from rsp_rl.basics.files import locked, read_json, write_json, write_whole
from rsp_rl.console.screen import bar, quiet
from rsp_rl.data.benchmarks import Problem, load_benchmark
from rsp_rl.evaluation.folder import EvaluationFolder, Sample, StepFolder
from rsp_rl.evaluation.metrics import benchmark_metrics
from rsp_rl.evaluation.protocol import Protocol, choose_problems
from rsp_rl.evaluation.provenance import provenance
from rsp_rl.evaluation.questions import Question, questions
from rsp_rl.evaluation.samples import SampleFile, key_of, verdict_fields
from rsp_rl.grading import grade, pool
from rsp_rl.inference.engines import SharedEngines, check_comparator_engine
from rsp_rl.inference.model_law import model_law
from rsp_rl.inference.requests import Completion, EngineOptions, Engines
from rsp_rl.models.folder import check_model, load_tokenizer
from rsp_rl.models.weights import weights_digest

Graded = Callable[[Question, float, float], None]


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
            embedding table.
        progress: Whether to show a progress bar on stderr.
        on_graded: Called with each question and the times (`time.monotonic`) at which its output
            was finished and graded.

    Raises:
        ConfigError: If the model cannot be used, or none of the benchmarks.
        RunFolderError: If the folder holds another model's or protocol's samples, is in use, or
            cannot be written.
    """
    engine = engine or EngineOptions()
    config = check_model(model)
    tokenizer = load_tokenizer(model)
    context = engine.max_model_len or getattr(config, "max_position_embeddings", None)
    trained = check_comparator(protocol, model, engine)
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
                )
            )
        except (ConfigError, PlacementError) as error:
            outcome.failed[plan.benchmark] = str(error)
    log = EvaluationFolder(folder.root.parent).engine_log
    with locked(folder.root), quiet(log), ExitStack() as stack:
        _write_manifest(folder, model, protocol, engine, context, trained)
        books = []
        for name, wanted in asked.items():
            try:
                _write_problems(folder, name, [question.problem for question in wanted])
                file = stack.enter_context(SampleFile(folder.samples(name)))
                books.append(_Book(name, wanted, file, folder, outcome))
            except RunFolderError as error:
                outcome.failed[name] = str(error)
        if engines is None or protocol.comparator is not None:
            engines = stack.enter_context(
                SharedEngines(
                    *(model, engine),
                    soft_prompts=protocol.rsp.enabled,
                    comparator=protocol.comparator,
                )
            )
        outcome.generated = _ask(books, engines, progress, on_graded)
    return outcome


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


def is_complete(folder: StepFolder, protocol: Protocol) -> bool:
    """Whether a model's evaluation is all there, by its files alone."""
    if not folder.manifest.is_file():
        return False
    same = read_json(folder.manifest).get("fingerprint") == protocol.fingerprint()
    return same and all(folder.metrics(plan.benchmark).is_file() for plan in protocol.benchmarks)


def _with_law(protocol: Protocol, model: Path, law: tuple[float, float] | None) -> Protocol:
    """The protocol with mu_E and sigma_E: as set, else the given ones, else the model's."""
    if not protocol.rsp.enabled or protocol.rsp.mean is not None:
        return protocol
    if law is None:
        stats = model_law(model)
        law = stats.mean, stats.std
    return replace(protocol, rsp=replace(protocol.rsp, mean=law[0], std=law[1]))


#: What a folder's samples have in common, by its name in the manifest, as an error calls it.
_SAME = {
    "fingerprint": "protocol",
    "weights": "model",
    "sampler": "engine",
    "trained": "trained comparator",
}


def _write_manifest(
    folder: StepFolder,
    model: Path,
    protocol: Protocol,
    engine: EngineOptions,
    context: int | None,
    trained: str | None,
) -> None:
    """Say how the numbers are made; refuse to mix them with others'.

    Raises:
        RunFolderError: If the folder was begun with another protocol, model, kind of engine, or
            training of a comparator.
    """
    what = {
        "fingerprint": protocol.fingerprint(),
        "weights": weights_digest(model),
        "sampler": engine.kind,
        "trained": trained,
    }
    made_with = []
    if folder.manifest.is_file():
        begun = read_json(folder.manifest)
        for name, value in what.items():
            if begun.get(name) != value:
                raise RunFolderError(
                    f"{folder.root} holds samples of another {_SAME[name]} "
                    f"(see {folder.manifest.name}); remove the folder, or choose another one with "
                    "--output"
                )
        made_with = begun.get("made_with", [])
    # Everything that samples were generated with, once each: a resumed run may have moved.
    if (now := provenance()) not in made_with:
        made_with.append(now)
    manifest = {
        "protocol": protocol.to_dict(),
        **what,
        # With it and the protocol, every draw can be made again.
        "law": {"mean": protocol.rsp.mean, "std": protocol.rsp.std},
        "model": str(model),
        "engine": {**asdict(engine), "dtype": engine.resolved_dtype()},
        "context": context,
        "made_with": made_with,
    }
    write_json(folder.manifest, manifest)


def _write_problems(folder: StepFolder, benchmark: str, problems: list[Problem]) -> None:
    """Keep the problems beside the steps.

    Raises:
        RunFolderError: If other problems were asked under that name before.
    """
    file = EvaluationFolder(folder.root.parent).problems(benchmark)
    rows = [
        {"id": problem.id, "question": problem.question, "gold": problem.gold}
        for problem in dict.fromkeys(problems)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if file.is_file():
        if file.read_text() != text:
            raise RunFolderError(
                f"{file} holds other problems than {benchmark} has now: the benchmark's file was "
                "changed between two evaluations; restore it, or choose another --output"
            )
        return
    write_whole(file, text)


class _Book:
    """One benchmark's samples and what is still missing; safe to use from several threads."""

    def __init__(
        self,
        benchmark: str,
        wanted: list[Question],
        file: SampleFile,
        folder: StepFolder,
        outcome: Outcome,
    ) -> None:
        self._benchmark, self._file, self._folder = benchmark, file, folder
        self._outcome = outcome
        self._order = list(dict.fromkeys(question.problem.id for question in wanted))
        self._lock = threading.Lock()
        by_key = {(question.problem.id, question.sample): question for question in wanted}
        for sample in file.samples:
            question = by_key.pop(key_of(sample), None)
            if question is None or question.prompt_hash != sample["prompt_hash"]:
                raise RunFolderError(
                    f"{folder.samples(benchmark)}: problem {sample['problem']!r}, sample "
                    f"{sample['sample']} was not asked, or with another prompt (another "
                    "tokenizer?); remove the file"
                )
        self.missing = list(by_key.values())
        self._left = len(self.missing)
        if not self._left:
            self._finish()

    def add(self, question: Question, completion: Completion) -> bool:
        """Grade an output, keep the sample, finish the benchmark with its last one.

        Returns:
            Whether the answer is correct.
        """
        verdict = grade(completion.text, question.problem.gold, self._benchmark)
        sample: Sample = {
            "problem": question.problem.id,
            "sample": question.sample,
            "seed": question.request.sampling["seed"],
            "prompt_hash": question.prompt_hash,
            "gold": question.problem.gold,
            "output": completion.text,
            "finish_reason": completion.finish_reason,
            "tokens": completion.tokens,
            **verdict_fields(verdict),
        }
        with self._lock:
            self._file.append(sample)
            self._left -= 1
            if not self._left:
                self._finish()
        return verdict.correct

    def _finish(self) -> None:
        samples = self._file.finish(self._order)
        self._outcome.accuracy[self._benchmark] = write_metrics(
            self._folder, self._benchmark, samples
        )


def write_metrics(folder: StepFolder, benchmark: str, samples: list[Sample]) -> float:
    """Count a finished benchmark; returns its accuracy."""
    metrics = benchmark_metrics(samples)
    write_json(folder.metrics(benchmark), {"benchmark": benchmark, **metrics})
    return metrics["accuracy"]


def _ask(books: list[_Book], engines: Engines, progress: bool, on_graded: Graded | None) -> int:
    """Generate what is missing, all benchmarks in one queue, graded while generation goes on."""
    queue = [(book, question) for book in books for question in book.missing]
    if not queue:
        return 0
    requests = [
        replace(question.request, number=number) for number, (_, question) in enumerate(queue)
    ]
    # Generation has one thread of Python and the GIL to share: a few graders, not one a core.
    graders = max(1, min(8, (os.cpu_count() or 1) // 2))
    pool.shared().resize(graders)
    with (
        ThreadPoolExecutor(graders) as threads,
        _Progress(len(queue), show=progress) as shown,
    ):

        def keep(completion: Completion, finished: float) -> None:
            book, question = queue[completion.number]
            shown.add(completion.tokens, book.add(question, completion))
            if on_graded is not None:
                on_graded(question, finished, time.monotonic())

        waiting: list[Future[None]] = []
        for completions in engines.generate(requests):
            now = time.monotonic()
            waiting += [threads.submit(keep, completion, now) for completion in completions]
            done = {future for future in waiting if future.done()}
            for future in done:
                future.result()  # a full disk ends the evaluation now and not in an hour
            waiting = [future for future in waiting if future not in done]
        for future in waiting:
            future.result()
    pool.shared().close()
    return len(queue)


class _Progress:
    """A bar with samples done, tokens a second, running accuracy and time left."""

    def __init__(self, total: int, *, show: bool) -> None:
        self._bar = bar(total=total, unit="sample", show=show)
        self._lock = threading.Lock()
        self._tokens = self._correct = 0

    def add(self, tokens: int, correct: bool) -> None:
        with self._lock:
            self._tokens += tokens
            self._correct += correct
            self._bar.update()
            if self._bar.disable:
                return
            rate = self._tokens / max(self._bar.format_dict["elapsed"], 1e-9)
            accuracy = self._correct / self._bar.n
            self._bar.set_postfix_str(f"{rate:,.0f} tokens/s, {accuracy:.1%} right", refresh=False)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
