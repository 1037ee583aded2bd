"""The `rsp:` config group as a checked object."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from rsp_rl.placement import POSITIONS, Position
from rsp_rl.soft_prompt import DTYPES, SoftPromptRecord, rollout_seed

Mode = Literal["independent", "shared"]
MODES = ("independent", "shared")

#: verl and vLLM write rollout dtypes in several ways.
_DTYPE_ALIASES = {
    "float": "float32",
    "fp32": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
}


class ConfigError(ValueError):
    """A bad setting; the message names the setting, the cause and the mend."""


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


@dataclass(frozen=True)
class GuardOptions:
    """Bounds on the gap between rollout and actor log-probs.

    Attributes:
        max_mean_gap: Largest allowed mean |log p_rollout - log p_actor| over a step's response
            tokens, in nats. bf16 rollouts are at 3e-3 to 6e-3, a forgotten soft prompt above 0.1.
        steps: Number of steps after each start during which exceeding the bound is an error;
            later it is a warning. 0 turns the error off.
    """

    max_mean_gap: float = 0.1
    steps: int = 5

    def __post_init__(self) -> None:
        if not (_is_finite(self.max_mean_gap) and self.max_mean_gap > 0):
            raise ConfigError(
                f"rsp.guard.max_mean_gap={self.max_mean_gap!r} must be a finite number above 0, in "
                "nats; rsp.guard.steps=0 turns the error off"
            )
        if not (_is_whole(self.steps) and self.steps >= 0):
            raise ConfigError(f"rsp.guard.steps={self.steps!r} must be a whole number, 0 or more")


@dataclass(frozen=True)
class RspOptions:
    """Every RSP option (config group `rsp`).

    Attributes:
        length: L, soft prompt vectors a rollout; 0 turns RSP off (plain DAPO).
        position: `suffix` (default), `prefix` or `infix` (see `rsp_rl.placement`).
        scale: Dial that multiplies sigma_E; 1 is the paper's.
        mode: `independent`, a fresh draw for every rollout; `shared`, one draw for a whole group
            (the paper's control).
        seed: Run seed of the draws.
        seeded_sampling: Whether each rollout's token sampling is seeded too, with its rollout seed:
            a resumed run then repeats the rollouts of an uninterrupted one. Costs vLLM some speed.
        validation: Whether validation rollouts get a soft prompt too (the paper's do not).
        mean: mu_E; filled in from the pretrained table by `rsp_rl.train`.
        std: sigma_E; filled in likewise.
        guard: See `GuardOptions`.
    """

    length: int = 20
    position: Position = "suffix"
    scale: float = 1.0
    mode: Mode = "independent"
    seed: int = 42
    seeded_sampling: bool = False
    validation: bool = False
    mean: float | None = None
    std: float | None = None
    guard: GuardOptions = field(default_factory=GuardOptions)

    def __post_init__(self) -> None:
        if not (_is_whole(self.length) and self.length >= 0):
            raise ConfigError(
                f"rsp.length={self.length!r} must be a whole number, 0 (RSP off) or more"
            )
        if self.position not in POSITIONS:
            raise ConfigError(f"rsp.position={self.position!r} is unknown; use one of {POSITIONS}")
        if self.mode not in MODES:
            raise ConfigError(f"rsp.mode={self.mode!r} is unknown; use one of {MODES}")
        if not (_is_finite(self.scale) and self.scale >= 0):
            raise ConfigError(f"rsp.scale={self.scale!r} must be a finite number of at least 0")
        if not _is_whole(self.seed):
            raise ConfigError(f"rsp.seed={self.seed!r} must be a whole number")
        for name in ("seeded_sampling", "validation"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"rsp.{name}={getattr(self, name)!r} must be true or false")
        if (self.mean is None) != (self.std is None):
            raise ConfigError(
                f"rsp.mean={self.mean} and rsp.std={self.std}: set both, or neither to read them "
                "from the pretrained embedding table"
            )
        if self.mean is not None and not _is_finite(self.mean):
            raise ConfigError(f"rsp.mean={self.mean!r} must be a finite number")
        if self.std is not None and not (_is_finite(self.std) and self.std >= 0):
            raise ConfigError(f"rsp.std={self.std!r} must be a finite number of at least 0")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> RspOptions:
        """Check and convert the config group.

        Raises:
            ConfigError: On an unknown option or a bad value.
        """
        if not isinstance(config, Mapping):
            raise ConfigError(f"rsp={config!r} must be a group of options; see configs/rsp")
        values = dict(config)
        guard = values.pop("guard", None) or {}
        if not isinstance(guard, Mapping):
            raise ConfigError(f"rsp.guard={guard!r} must be a group: max_mean_gap and steps")
        for name, given, known in (
            ("rsp", values, {f.name for f in fields(cls)}),
            ("rsp.guard", guard, {f.name for f in fields(GuardOptions)}),
        ):
            if unknown := sorted(set(given) - known):
                raise ConfigError(f"unknown option {name}.{unknown[0]}; known: {sorted(known)}")
        return cls(**values, guard=GuardOptions(**dict(guard)))

    @property
    def enabled(self) -> bool:
        """Whether training rollouts get a soft prompt."""
        return self.length > 0

    def record(
        self,
        *,
        step: int,
        prompt_index: int,
        rollout: int,
        group_start: int,
        start: int,
        dtype: str,
        placeholder_id: int,
        validation: bool = False,
    ) -> SoftPromptRecord:
        """The record of one rollout.

        Args:
            step: Global step; validation draws ignore it, so that all validations of a run see
                the same soft prompts.
            prompt_index: Dataset index of the prompt as an integer (see `prompt_index_of`).
            rollout: Number of the rollout among those of this prompt in this step.
            group_start: Number of the group's first rollout: what `shared` mode draws with.
            start: First soft prompt position in the prompt's tokens.
            dtype: Rollout dtype, as verl or vLLM write it.
            placeholder_id: Token id at the soft prompt positions.
            validation: Whether this is a validation rollout.
        """
        if self.mean is None or self.std is None:
            raise ConfigError(
                "rsp.mean and rsp.std are not set; start training through `rsp-rl train` "
                "(python -m rsp_rl.train), which reads them from the pretrained embedding table"
            )
        seed = rollout_seed(
            self.seed,
            0 if validation else step,
            prompt_index,
            group_start if self.mode == "shared" else rollout,
            validation=validation,
        )
        return SoftPromptRecord(
            seed=seed,
            start=start,
            length=self.length,
            mean=self.mean,
            std=self.std * self.scale,
            dtype=rollout_dtype(dtype),
            placeholder_id=placeholder_id,
        )


def rollout_dtype(dtype: str) -> str:
    """A rollout dtype under its torch name.

    Raises:
        ConfigError: If soft prompts cannot be rounded to it.
    """
    name = str(dtype).removeprefix("torch.")
    name = _DTYPE_ALIASES.get(name, name)
    if name not in DTYPES:
        raise ConfigError(
            f"actor_rollout_ref.rollout.dtype={dtype!r} does not say what soft prompts are "
            f"rounded to; set it to one of {DTYPES}"
        )
    return name
