"""Ask what is missing, and grade and keep each answer as it comes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from rsp_rl.console.screen import bar
from rsp_rl.evaluation.folder import Sample, StepFolder
from rsp_rl.evaluation.metrics import write_metrics
from rsp_rl.evaluation.questions import Question
from rsp_rl.evaluation.samples import SampleFile, verdict_fields
from rsp_rl.evaluation.thoughts import TokenTexts, thought_fields
from rsp_rl.grading import grade, pool
from rsp_rl.inference.requests import Completion, Engines

Graded = Callable[[Question, float, float], None]
"""Called with a question and the times (`time.monotonic`) at which its output was finished and
graded."""


class Book:
    """One benchmark's samples and what is still missing; safe to use from several threads.

    Attributes:
        kept: Samples that were there.
        missing: What has still to be asked.

    Args:
        benchmark: Its name.
        wanted: All that is asked.
        file: What is answered already.
        folder: Gets the metrics with the last answer.
        accuracy: By benchmark; gets this one's then.
        texts: Of the model's tokens; needed where requests have a law.

    Raises:
        RunFolderError: If the file holds what was not asked.
    """

    def __init__(
        self,
        benchmark: str,
        wanted: list[Question],
        file: SampleFile,
        folder: StepFolder,
        accuracy: dict[str, float],
        texts: TokenTexts | None = None,
    ) -> None:
        self._benchmark, self._file, self._folder = benchmark, file, folder
        self._texts = texts
        self._accuracy = accuracy
        self._order = list(dict.fromkeys(question.problem.id for question in wanted))
        self._lock = threading.Lock()
        by_key = {(question.problem.id, question.sample): question for question in wanted}
        missing = file.missing({key: question.prompt_hash for key, question in by_key.items()})
        self.kept = len(file.samples)
        self.missing = [by_key[key] for key in missing]
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
        if (thinking := question.request.thinking) is not None:
            assert self._texts is not None, "samples with thoughts keep their tokens' texts"
            sample |= thought_fields(thinking, completion, self._texts)  # type: ignore[misc]
        with self._lock:
            self._file.append(sample)
            self._left -= 1
            if not self._left:
                self._finish()
        return verdict.correct

    def _finish(self) -> None:
        samples = self._file.finish(self._order)
        self._accuracy[self._benchmark] = write_metrics(self._folder, self._benchmark, samples)


def ask(books: list[Book], engines: Engines, progress: bool, on_graded: Graded | None) -> int:
    """Generate what is missing, all benchmarks in one queue, graded while generation goes on.

    Args:
        books: A benchmark each.
        engines: Running ones.
        progress: Whether to show a progress bar on stderr.
        on_graded: See `Graded`.

    Returns:
        How many samples were generated.
    """
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
