"""What the screen shows of a training run: start-up by stages, a line or a bar a step.

On a terminal a bar is drawn anew; in a file there are plain lines, one a step. Everything that the
run's processes print besides is in the files of `RUN_DIR/logs` (`rsp_rl.console.log_files`).
"""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

#: Steps whose median says how long the others will take.
_RECENT = 20


def duration(seconds: float) -> str:
    """Seconds for a reader: `8.1 s`, `2 min 5 s`, `3 h 7 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


class TrainingView:
    """Shows the events of a run.

    `begin` (`logs`): the checks are done; `stage` (`name`): a part of start-up begins; `steps`
    (`total`, `done`): training begins; `phase` (`name`): a part of a step begins; `step` (`step`,
    `reward`, `tokens`, `gap`, `seconds`), `validation` (`step`, `accuracy`), `checkpoint` (`step`,
    `path`), `warning` (`text`).

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal
        self._stage = ("checks of settings, model and data", time.monotonic())
        self._starting = True
        self._warned: set[str] = set()
        self._seconds: deque[float] = deque(maxlen=_RECENT)
        self._total = 0
        self._logs = ""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=console,
            transient=True,
        )
        self._bar: TaskID | None = None

    def show(self, event: dict[str, Any]) -> None:
        """Show an event; one of an unknown kind, or without its fields, is left out."""
        handler = getattr(self, f"_on_{event['kind']}", None)
        if handler is None:
            return
        try:
            handler(**{name: value for name, value in event.items() if name != "kind"})
        except (TypeError, ValueError) as error:
            self._line(f"(an event could not be shown: {error})")

    def finish(self) -> None:
        """Say that the training has ended as it should."""
        if self._seconds:
            last = f"{duration(statistics.median(self._seconds))} a step"
            self._line(f"trained   {self._total} steps, {last}; logs in {self._logs}")

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._progress.stop()

    def _line(self, text: str, style: str | None = None) -> None:
        # soft_wrap: in a file, a line is a line however long.
        self._console.print(escape(text), style=style, soft_wrap=True, highlight=False)

    def _draw(self, **changes: Any) -> None:
        if self._bar is not None:
            self._progress.update(self._bar, **changes)

    def _on_begin(self, logs: str) -> None:
        if self._live and self._bar is None:
            self._bar = self._progress.add_task("start-up", total=None, numbers="")
            self._progress.start()
        self._logs = logs
        self._end_stage()
        self._line(f"logs      {logs}, a file a process")

    def _on_stage(self, name: str) -> None:
        if not self._starting:
            return
        if name != self._stage[0]:
            self._end_stage()
        self._stage = (name, time.monotonic())
        self._draw(description=f"start-up: {escape(name)}")

    def _end_stage(self) -> None:
        name, begun = self._stage
        if name:
            self._line(f"start-up  {name}, {duration(time.monotonic() - begun)}")
        self._stage = ("", time.monotonic())

    def _on_steps(self, total: int, done: int) -> None:
        self._end_stage()
        self._starting = False
        self._total = total
        if done:
            self._line(f"resumed   after step {done} of {total}")
        self._draw(total=total, completed=done, description="")

    def _on_phase(self, name: str) -> None:
        self._draw(description=escape(name))

    def _on_step(self, step: int, reward: float, tokens: float, gap: float, seconds: float) -> None:
        left = (self._total - step) * statistics.median([*self._seconds, seconds])
        # Of a step whose tokens are all of older policies there is none.
        shown = "-" if math.isnan(gap) else f"{gap:.1e}"
        numbers = (
            f"reward {reward:.3f}  tokens {tokens:.1f}  gap {shown}  {duration(seconds)} a step"
        )
        if step < self._total:
            numbers += f"  {duration(left)} left"
        self._seconds.append(seconds)  # all of the event was in order
        numbers = f"step {step:>{len(str(self._total))}}/{self._total}  {numbers}"
        if self._live:
            self._draw(completed=step, numbers=numbers)
        else:
            self._line(numbers)

    def _on_validation(self, step: int, accuracy: float | None) -> None:
        value = "no accuracy" if accuracy is None else f"accuracy {accuracy:.3f}"
        self._line(f"validation at step {step}: {value}", "bold")

    def _on_checkpoint(self, step: int, path: str) -> None:
        self._line(f"checkpoint of step {step}: {path}")

    def _on_warning(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._line(f"warning: {text}", "yellow")
