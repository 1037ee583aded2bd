"""A run's folder: what lies where, and how its files survive restarts."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsp_rl.basics.errors import RunFolderError
from rsp_rl.basics.files import locked, read_json, write_whole
from rsp_rl.runs.metrics import GAP_MEAN
from rsp_rl.runs.versions import commit, versions

if TYPE_CHECKING:
    from omegaconf import DictConfig

#: RSP settings, in the run's folder and in every checkpoint.
SETTINGS_FILE = "rsp.json"


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run (`RUN_DIR`).

    Attributes:
        root: The folder.
    """

    root: Path

    @property
    def settings(self) -> Path:
        """RSP settings of the run, mu_E and sigma_E of the *pretrained* table among them."""
        return self.root / SETTINGS_FILE

    @property
    def law(self) -> Path:
        """Config group `law` of a run that has one, what the model decides filled in."""
        return self.root / "law.json"

    @property
    def checkpoints(self) -> Path:
        """verl's checkpoints, `global_step_N` each."""
        return self.root / "checkpoints"

    @property
    def data(self) -> Path:
        """`train.parquet`, `val.parquet`: written where verl cannot read the files named to it."""
        return self.root / "data"

    @property
    def logs(self) -> Path:
        """What the run's processes printed, `NAME-PID.log` each, and `driver.log`."""
        return self.root / "logs"

    @property
    def metrics(self) -> Path:
        """One JSON line a logged step: `{"step": int, "data": {name: number}}`."""
        return self.root / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's log folder."""
        return self.root / "tensorboard"

    @property
    def train_samples(self) -> Path:
        """verl's samples of each training step, `N.jsonl`, and what lies beside them."""
        return self.root / "samples" / "train"

    @property
    def rollouts_page(self) -> Path:
        """Self-contained page: steps in numbers, groups of rollouts with their answers."""
        return self.root / "rollouts.html"

    @property
    def summary(self) -> Path:
        """The run in ten numbers."""
        return self.root / "summary.json"

    @property
    def plot(self) -> Path:
        """Reward and held-out accuracy by step."""
        return self.root / "training.png"

    def note_last_step(self, step: int) -> None:
        """Leave word of the step that training ends with, which its data decides (`last_step`)."""
        write_whole(self._last_step, f"{step}\n")

    def last_step(self) -> int | None:
        """The step that training ends with, `None` if it has not got so far as to know it."""
        noted = self._last_step.read_text().strip() if self._last_step.is_file() else ""
        return int(noted) if noted.isdigit() else None

    @property
    def _last_step(self) -> Path:
        return self.root / "last_step.txt"

    def read_settings(self) -> dict[str, Any]:
        """The run's RSP settings.

        Raises:
            RunFolderError: If this is no run's folder.
        """
        if not self.settings.is_file():
            raise RunFolderError(f"{self.root} holds no {self.settings.name}; is it a run folder?")
        return read_json(self.settings)

    def read_law(self) -> dict[str, Any] | None:
        """What rollouts think with; None for a run without a law."""
        return read_json(self.law) if self.law.is_file() else None

    @contextmanager
    def record_start(self) -> Iterator[None]:
        """Note when this start of the run began and ended, and with what, in `starts.jsonl`."""
        begun = time.time()
        made_with = {"versions": versions(), "commit": commit()}  # the checkout may move meanwhile
        try:
            yield
        finally:
            with self._starts.open("a") as file:
                start = {"begun": begun, "ended": time.time(), **made_with}
                file.write(json.dumps(start) + "\n")

    def has_stepped(self) -> bool:
        """Whether the latest start logged a training step, in the file that is the run's own."""
        return self.metrics.is_file() and GAP_MEAN in self.metrics.read_text()

    def wall_seconds(self) -> float:
        """Wall time of all starts of this run, those cut off by a crash left out."""
        return float(sum(start["ended"] - start["begun"] for start in self.read_starts()))

    def read_starts(self) -> list[dict[str, Any]]:
        """What was noted of each start; earlier runs have no `versions` and `commit`."""
        return [record for _, record in _json_lines(self._starts)]

    def read_config(self) -> DictConfig | None:
        """The run's Hydra config, None if it is not there.

        Raises:
            RunFolderError: If it is damaged.
        """
        from omegaconf import OmegaConf
        from yaml import YAMLError

        file = self.root / "config" / "config.yaml"
        if not file.is_file():
            return None
        try:
            config = OmegaConf.load(file)
            if not OmegaConf.is_dict(config):
                raise ValueError("no mapping")
        except (YAMLError, ValueError, OSError) as error:
            raise RunFolderError(f"{file} is damaged ({error}); restore it") from error
        return config

    def known_setting(self, name: str) -> Any:
        """A setting of the config; None if it is not there, or hangs on what is not here now.

        Raises:
            RunFolderError: If the config is damaged.
        """
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        config = self.read_config()
        try:
            return None if config is None else OmegaConf.select(config, name)
        except OmegaConfBaseException:  # a variable of the machine that it ran on
            return None

    def named_path(self, named: str) -> Path:
        """What the config names: a relative path was meant where training was started."""
        path = Path(named).expanduser()
        launched = self.root / "config" / "hydra.yaml"
        if path.is_absolute() or not launched.is_file():
            return path
        from omegaconf import OmegaConf

        return Path(OmegaConf.load(launched).hydra.runtime.cwd) / path

    @property
    def _starts(self) -> Path:
        return self.root / "starts.jsonl"

    def keep_checkpoints_at(self, folder: Path) -> None:
        """Make the folder that checkpoints go to; `checkpoints` is a link to one elsewhere.

        Raises:
            OSError: If it cannot be.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if folder.resolve() == self.checkpoints.resolve():
            return  # there it is, be it by a link of the user's own
        if self.checkpoints.is_symlink():
            self.checkpoints.unlink()
        if not self.checkpoints.exists():
            self.checkpoints.symlink_to(folder.resolve())

    def keep_earlier_metrics(self, elsewhere: Path | None = None) -> None:
        """Move an earlier start's metrics aside; verl opens its log file anew at each start.

        Args:
            elsewhere: Where verl writes them in place of `metrics`, if it was told to; `metrics` is
                a link to it, for whoever reads them.
        """
        written = elsewhere or self.metrics
        for file in dict.fromkeys((self.metrics.resolve(), written.resolve())):
            if file.is_file():
                earlier = self.root / "metrics"
                earlier.mkdir(exist_ok=True)
                number = len(list(earlier.glob("start_*.jsonl")))
                shutil.move(file, earlier / f"start_{number:03d}.jsonl")
        if self.metrics.is_symlink():
            self.metrics.unlink()
        if written.resolve() != self.metrics.resolve():
            self.metrics.symlink_to(written.resolve())

    def read_metrics(self) -> dict[int, dict[str, float]]:
        """All starts' metrics by step, in order, later starts' for steps done twice.

        What was logged beyond the step that a later start began with is of another future (the run
        began anew, or went back to a checkpoint) and is left out.

        Raises:
            RunFolderError: If a file is damaged.
        """
        starts = [*sorted((self.root / "metrics").glob("start_*.jsonl")), self.metrics]
        steps: dict[int, dict[str, float]] = {}
        for file in starts:
            logged = list(_read_metrics(file))
            first = logged[0][0] if logged else math.inf
            steps = {step: data for step, data in steps.items() if step <= first}
            for step, data in logged:
                # Validation before training and the resumed step may share a number.
                steps[step] = {**steps.get(step, {}), **data}
        return dict(sorted(steps.items()))

    def merge_metrics(self) -> dict[int, dict[str, float]]:
        """`read_metrics`, and `metrics.jsonl` anew.

        While a run is at work here its file is left alone: it would go on writing into the one that
        was replaced.

        Raises:
            RunFolderError: If nothing was logged.
        """
        steps = self.read_metrics()
        if not steps:
            raise RunFolderError(f"{self.root} holds no metrics; did the training log a step?")
        lines = [json.dumps({"step": step, "data": data}) for step, data in steps.items()]
        with suppress(RunFolderError), locked(self.root):
            write_whole(self.metrics, "\n".join(lines) + "\n")
        return steps


def _read_metrics(file: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Logged steps of one start."""
    for number, record in _json_lines(file):
        if not isinstance(record.get("step"), int) or not isinstance(record.get("data"), dict):
            raise RunFolderError(
                f"{file}, line {number} is no metrics record ('step' and 'data'); remove the line"
            )
        yield record["step"], record["data"]


def _json_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbered objects of a JSON lines file; a last line that a crash cut short is left out.

    Raises:
        RunFolderError: If another line is no JSON object.
    """
    # Bytes: the cut may go through a character, and JSON strings may hold Unicode's line breaks.
    content = file.read_bytes() if file.is_file() else b""
    *lines, cut_short = content.split(b"\n")
    for number, line in enumerate([*lines, cut_short], start=1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("no JSON object")
        except ValueError as error:
            if number > len(lines):
                return
            raise RunFolderError(
                f"{file}, line {number} is no metrics record ({error}); remove the line"
            ) from error
        yield number, record
