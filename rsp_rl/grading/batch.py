"""Grade many answers at once, on several cores, with a progress bar."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from rsp_rl.console.screen import bar
from rsp_rl.grading import pool
from rsp_rl.grading.grader import grade
from rsp_rl.grading.verdict import Verdict


def grade_many(
    items: Sequence[tuple[str, str, str | None]],
    processes: int | None = None,
    progress: bool = False,
) -> Iterator[Verdict]:
    """Grade outputs in parallel.

    Threads do the cheap stages; the symbolic stage runs in as many worker processes.

    Args:
        items: Output, gold and benchmark (or ``None``) of each.
        processes: Worker processes; by default one for each core.
        progress: Whether to show a progress bar on stderr.

    Yields:
        One verdict for each item, in their order.
    """
    processes = processes or os.cpu_count() or 1
    pool.shared().resize(processes)
    with ThreadPoolExecutor(processes) as threads:
        verdicts = threads.map(lambda item: grade(*item), items)
        yield from bar(verdicts, total=len(items), unit="answer", show=progress)
