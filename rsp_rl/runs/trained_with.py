"""How a run made a model, as its own files say it; what they do not say is not on record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rsp_rl.basics.errors import RunFolderError
from rsp_rl.dials.options import RspOptions
from rsp_rl.draws.laws import LAWS
from rsp_rl.runs.checkpoints import saved_law, step_of
from rsp_rl.runs.folder import RunFolder
from rsp_rl.runs.merging import made_of

UNKNOWN = "not on record"

#: Names of sources that are told of a data file.
_SOURCES = 10

_ACTOR, _ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"

#: The objective in verl's settings: what each is called, and where it is.
_OBJECTIVE = (
    ("advantages", "algorithm.adv_estimator"),
    ("loss", f"{_ACTOR}.policy_loss.loss_mode"),
    ("clip below", f"{_ACTOR}.clip_ratio_low"),
    ("clip above", f"{_ACTOR}.clip_ratio_high"),
    ("aggregation", f"{_ACTOR}.loss_agg_mode"),
    ("KL loss", f"{_ACTOR}.use_kl_loss"),
    ("entropy coefficient", f"{_ACTOR}.entropy_coeff"),
    ("dynamic sampling", "algorithm.filter_groups.enable"),
)
_SAMPLING = (
    ("temperature", f"{_ROLLOUT}.temperature"),
    ("top_p", f"{_ROLLOUT}.top_p"),
    ("top_k", f"{_ROLLOUT}.top_k"),
)


@dataclass(frozen=True)
class TrainedModel:
    """A model and the run that it is of.

    Attributes:
        folder: The run's.
        config: Its Hydra config.
        checkpoint: The `global_step_N` that the model was made of.
        model: Its Hugging Face folder.
    """

    folder: RunFolder
    config: DictConfig
    checkpoint: Path
    model: Path

    @property
    def step(self) -> int:
        """Steps that it was trained for."""
        return step_of(self.checkpoint)

    @cached_property
    def rsp(self) -> dict[str, Any]:
        """Settings of its soft prompts."""
        return saved_law(self.checkpoint) or self.folder.read_settings()

    @property
    def has_soft_prompts(self) -> bool:
        """Whether its rollouts had any."""
        return adds_noise(self.rsp) or bool(self.rsp.get("length"))

    @property
    def rollouts_had(self) -> str:
        """What its rollouts had, if they had any."""
        if adds_noise(self.rsp):
            return "noise on the questions of its rollouts"
        return "random soft prompts in its rollouts"

    @cached_property
    def law(self) -> dict[str, Any] | None:
        """What its rollouts thought with."""
        return self.folder.read_law()

    def setting(self, name: str) -> Any:
        """A setting of the run, None if it is not there.

        Raises:
            RunFolderError: If it cannot be read.
        """
        try:
            return OmegaConf.select(self.config, name)
        except OmegaConfBaseException as error:
            raise RunFolderError(
                f"{self.folder.root}/config/config.yaml: {name} cannot be read ({error}); mend it"
            ) from error


def adds_noise(rsp: Mapping[str, Any]) -> bool:
    """Whether settings, as stored, are of a law whose rows are added to the question, and on."""
    law = LAWS.get(str(rsp.get("law")))
    return law is not None and law.added and RspOptions.from_config(rsp).enabled


def unknown_law(rsp: Mapping[str, Any]) -> str | None:
    """The law of settings that insert nothing, if its package is gone: it may have added noise."""
    law = rsp.get("law")
    return None if rsp.get("length") or law is None or law in LAWS else str(law)


def trained_with(run: TrainedModel) -> list[tuple[str, str]]:
    """Pairs of what and how, in plain text."""

    def known(name: str) -> str:
        return _said(run.setting(name))

    last, made = run.folder.last_step(), made_of(run.model) or {}
    adapter = made.get("adapter")
    return [
        ("method", "reinforcement learning with verl and rsp-rl"),
        ("objective", _settings(run, _OBJECTIVE)),
        ("soft prompts", _soft_prompts(run.rsp)),
        ("thoughts", _thoughts(run.law)),
        ("template", _template(run)),
        ("data", _data(run)),
        ("steps", str(run.step) + ("" if last is None else f" of {last}")),
        ("prompts a step", known("data.train_batch_size")),
        ("rollouts a prompt", known(f"{_ROLLOUT}.n")),
        ("sampling", _settings(run, _SAMPLING)),
        ("most tokens of a response", known("data.max_response_length")),
        ("reward function", known("reward.custom_reward_function.name")),
        ("learning rate", known(f"{_ACTOR}.optim.lr")),
        ("adapter", f"LoRA of rank {adapter['r']}, merged" if adapter else "none"),
        ("weights", _said(made.get("dtype"))),
    ]


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return UNKNOWN if value is None else str(value)


def _settings(run: TrainedModel, names: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(f"{what} {_said(run.setting(name))}" for what, name in names)


def _soft_prompts(rsp: Mapping[str, Any]) -> str:
    if adds_noise(rsp):
        parts = [f"{name} {_said(rsp.get(name))}" for name in ("law", "mode", "scale")]
    elif law := unknown_law(rsp):
        return (
            f"{UNKNOWN}: law {law}, scale {_said(rsp.get('scale'))}, of a package that is not here"
        )
    elif not rsp.get("length"):
        return "none"
    else:
        parts = [f"L = {rsp['length']}"]
        parts += [f"{name} {_said(rsp.get(name))}" for name in ("law", "position", "mode", "scale")]
    for name in ("probability", "mixing"):
        if rsp.get(name) not in (None, 1.0, "none"):
            parts.append(f"{name} {rsp[name]}")
    for name in ("length_schedule", "scale_schedule"):
        if (rsp.get(name) or {}).get("shape", "constant") != "constant":
            parts.append(f"{name} {json.dumps(rsp[name])}")
    return ", ".join(parts)


def _thoughts(law: Mapping[str, Any] | None) -> str:
    if law is None:
        return "none"
    rest = ", ".join(f"{name} {json.dumps(value)}" for name, value in law.items() if name != "name")
    return f"{law['name']}: {rest}"


def _template(run: TrainedModel) -> str:
    if run.setting("actor_rollout_ref.model.custom_chat_template"):
        return "a chat template of the run's own"
    return "the base model's chat template"


def _data(run: TrainedModel) -> str:
    """Names of the training files, with their rows as they are now."""
    files = run.setting("data.train_files")
    names = [files] if isinstance(files, str) else list(files or [])
    return "; ".join(_file(run.folder.named_path(str(name))) for name in names) or UNKNOWN


def _file(file: Path) -> str:
    rows, sources = _contents(file)
    name = f"{file.parent.name}/{file.name}"
    of = f" of {', '.join(sources)}" if sources else ""
    return f"{name}, {UNKNOWN if rows is None else f'{rows:,}'} rows{of}"


def _contents(file: Path) -> tuple[int | None, list[str]]:
    """Rows of a data file, and what they are called there (`data_source`)."""
    if file.suffix == ".jsonl" and file.is_file():
        with file.open("rb") as stream:
            return sum(1 for line in stream if line.strip()), []
    if file.suffix != ".parquet" or not file.is_file():
        return None, []
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(file) as opened:
            rows = opened.metadata.num_rows
            if "data_source" not in opened.schema_arrow.names:
                return rows, []
            column = opened.read(columns=["data_source"])["data_source"]
            return rows, sorted(map(str, column.unique().to_pylist()))[:_SOURCES]
    except (ArrowException, OSError):
        return None, []
