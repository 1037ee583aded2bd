"""A training run as its evaluation sees it: checkpoints, base model, soft-prompt law, trackers."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from rsp_rl.basics.errors import ConfigError
from rsp_rl.basics.files import read_json
from rsp_rl.dials.options import rollout_dtype
from rsp_rl.evaluation.trained_prompts import unlike_training
from rsp_rl.inference.model_law import model_law
from rsp_rl.models.folder import resolve_model_folder
from rsp_rl.runs.checkpoints import finished_checkpoints
from rsp_rl.runs.folder import RunFolder
from rsp_rl.runs.merging import made_of
from rsp_rl.runs.metrics import held_out_by_source
from rsp_rl.thoughts.laws.token import Token
from rsp_rl.thoughts.settings import ThoughtSettings

#: Share of an adapter that rounding may change before it is said.
_TOLD_LOSS = 0.05

_CHECKPOINT = re.compile(r"global_step_(\d+)")


@dataclass(frozen=True)
class TrainedRun:
    """A run of rsp_rl, or a folder of plain verl's checkpoints.

    Attributes:
        root: The run's folder.
        checkpoints: Folder of the `global_step_N`.
        config: The run's Hydra config, if it is there.
    """

    root: Path
    checkpoints: Path
    config: DictConfig | None

    @classmethod
    def open(cls, path: Path) -> TrainedRun | None:
        """The run at a path, `None` if there is none.

        Args:
            path: Folder of a run, or one that holds verl's `global_step_N` folders.
        """
        for checkpoints in (RunFolder(path).checkpoints, path):
            if any(_CHECKPOINT.fullmatch(folder.name) for folder in checkpoints.glob("global_*")):
                break
        else:
            # A run that has just begun, to be watched.
            if not (path / "config" / "config.yaml").is_file():
                return None
            checkpoints = RunFolder(path).checkpoints
        config = path / "config" / "config.yaml"
        loaded = OmegaConf.load(config) if config.is_file() else None
        return cls(path, checkpoints, loaded)

    def steps(self) -> dict[int, Path]:
        """Whole checkpoints by step, in order."""
        return finished_checkpoints(self.checkpoints)

    def base_model(self) -> Path:
        """Hugging Face folder that training started from.

        Raises:
            ConfigError: If the run does not say, or it is gone.
        """
        if self.config is None:
            raise ConfigError(
                f"{self.root} does not say which model it started from (no config/config.yaml); "
                "name it with --base-model, or leave step 0 out with --steps"
            )
        path = str(self.config.actor_rollout_ref.model.path)
        folder = RunFolder(self.root).named_path(path)
        return resolve_model_folder(str(folder) if folder.is_dir() else path)

    def _data_files(self) -> list[Path]:
        """The run's data, validation's first; in front of what is named, what verl read of it."""
        found = []
        for name in ("val", "train"):
            named = OmegaConf.select(self.config, f"data.{name}_files")
            names = [named] if isinstance(named, str) else list(named or [])
            folder = RunFolder(self.root)
            found += [folder.data / f"{name}.parquet", *map(folder.named_path, names)]
        return found

    def law(self) -> tuple[float, float] | None:
        """mu_E and sigma_E that the run trained with, `None` if it had no soft prompts."""
        settings = RunFolder(self.root).settings
        saved = read_json(settings) if settings.is_file() else {}
        return None if saved.get("mean") is None else (saved["mean"], saved["std"])

    def table(self, base_model: str | None = None) -> tuple[float, float] | None:
        """Mean and standard deviation of the table that training started from, if it is there.

        A checkpoint's own is another one once its embeddings were trained.

        Args:
            base_model: What training started from, where the run does not say.
        """
        if (law := self.law()) is not None:
            return law
        try:
            stats = model_law(resolve_model_folder(base_model) if base_model else self.base_model())
        except ConfigError:  # it is gone, or its table is of another width
            return None
        return stats.mean, stats.std

    def validates_as(self, law: ThoughtSettings | None) -> bool:
        """Whether training's own validation thinks as a protocol does, tokens by their laws.

        Args:
            law: The protocol's.
        """
        group = {} if self.config is None else self.config.get("law") or {}
        thinks = group.get("name") if group.get("validation") else None
        return (thinks or Token.name) == (Token.name if law is None else law.law.name)

    def unlike_training(self, template: str, model: Path, dtype: str) -> list[str]:
        """What an evaluation has other than the run's rollouts had, a sentence each.

        Args:
            template: The protocol's.
            model: Hugging Face folder of the model that is asked.
            dtype: What it computes in.
        """
        if self.config is None:  # plain verl's checkpoints do not say
            return []
        try:
            base = self.base_model()
        except ConfigError:  # it is gone; a checkpoint has its tokenizer
            base = model
        found = unlike_training(self.config, self._data_files(), template, model, base)
        rollout = self.config.actor_rollout_ref.get("rollout", {})
        try:
            trained = rollout_dtype(rollout.get("dtype"))
        except ConfigError:  # plain verl's `auto`
            trained = dtype
        if trained != dtype:
            found.append(f"the model computes in {dtype}, in training's rollouts in {trained}")
        loss = ((made_of(model) or {}).get("adapter") or {}).get("bfloat16_loss", 0)
        merged_there = self.config.actor_rollout_ref.model.get("lora", {}).get("merge")
        if dtype == "bfloat16" and loss > _TOLD_LOSS and not merged_there:
            found.append(
                f"rounding to bfloat16 changes the merged LoRA adapter by {loss:.0%} of its size, "
                "training's rollouts added it unrounded; evaluate with --dtype float32"
            )
        if rollout.get("quantization"):
            found.append(f"training's rollouts had weights rounded to {rollout.quantization}")
        return found

    def validated(self, step: int) -> dict[str, float]:
        """Accuracy of the training's own validation at a step, by source of the problems.

        Raises:
            RunFolderError: If the run's metrics are damaged.
        """
        return held_out_by_source(RunFolder(self.root).read_metrics().get(step, {}))

    def last_step(self) -> int | None:
        """The step that training ends with, if the run says so."""
        if noted := RunFolder(self.root).last_step():
            return noted
        steps = None if self.config is None else self.config.trainer.get("total_training_steps")
        return int(steps) if steps else None

    def track(self, values: Mapping[str, float], step: int) -> None:
        """Log to the run's trackers (TensorBoard, wandb, ... but not to console and file).

        Training has its own connection to a tracker such as wandb, perhaps still open, and steps
        there only go forward: evaluation logs as a run of its own, `<experiment>_evaluation`.
        TensorBoard shows both under the run's folder.

        Args:
            values: By name.
            step: The checkpoint's.
        """
        if self.config is None:
            return
        trainer = self.config.trainer
        configured = trainer.logger if OmegaConf.is_list(trainer.logger) else [trainer.logger]
        backends = [name for name in configured if name not in ("console", "file")]
        if not backends:
            return
        from verl.utils.tracking import Tracking

        os.environ["TENSORBOARD_DIR"] = str(RunFolder(self.root).tensorboard)
        tracking = Tracking(
            str(trainer.project_name), f"{trainer.experiment_name}_evaluation", backends
        )
        tracking.log(dict(values), step)
        tracking.finish()


def checkpoint_run(path: Path) -> tuple[Path, int] | None:
    """Run folder and step of a path that is one `global_step_N` folder, else `None`."""
    match = _CHECKPOINT.fullmatch(path.name)
    if not match or not path.is_dir():
        return None
    parent = path.resolve().parent
    root = parent.parent if parent.name == "checkpoints" else parent
    return root, int(match[1])
