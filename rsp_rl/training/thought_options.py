"""The `law:` config group as a checked object: with which law rollouts think, and how it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rsp_rl.basics.errors import ConfigError
from rsp_rl.draws.seeds import rollout_seed
from rsp_rl.thoughts.law import InputLaw, check_number
from rsp_rl.thoughts.laws.multiplex import Multiplex
from rsp_rl.thoughts.phases import Phases
from rsp_rl.thoughts.settings import Thinking, ThoughtSettings


@dataclass(frozen=True)
class ThoughtGuard:
    """Bounds for laws whose log-prob magnifies rounding, so that it says nothing of the two sides.

    Attributes:
        max_relative_error: Largest mean of |h - h'| / |h|, the means p E on the two sides.
        max_flips: Largest share of thoughts whose likeliest token is another.
    """

    max_relative_error: float = 0.1
    max_flips: float = 0.2

    def __post_init__(self) -> None:
        for option in fields(self):
            check_number(f"guard.{option.name}", getattr(self, option.name), above=0)


@dataclass(frozen=True)
class ThoughtOptions:
    """Every option of the config group `law`.

    Attributes:
        settings: The law, its settings and phases; None for none.
        validation: Whether validation rollouts think too.
        detach_inputs: Whether no gradient flows through thoughts as inputs; None for what the law's
            authors do.
        clip_per_draw: Whether each of a position's draws has a ratio of its own.
        guard: See `ThoughtGuard`.
    """

    settings: ThoughtSettings | None = None
    validation: bool = False
    detach_inputs: bool | None = None
    clip_per_draw: bool = False
    guard: ThoughtGuard = field(default_factory=ThoughtGuard)

    def __post_init__(self) -> None:
        for name in ("validation", "clip_per_draw"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"law.{name}={getattr(self, name)!r} must be true or false")
        if not isinstance(self.detach_inputs, bool | None):
            raise ConfigError(f"law.detach_inputs={self.detach_inputs!r} must be true or false")
        if self.settings is None:
            return
        law = self.settings.law
        if type(law).log_prob is InputLaw.log_prob:
            raise ConfigError(f"law={law.name} has no log-prob, and so nothing to train with")
        if law.deterministic:
            raise ConfigError(
                f"law={law.name} gives all rollouts of a prompt the same thoughts as set here: "
                "nothing tells them apart, and nothing is learnt"
            )
        if self.clip_per_draw and not (isinstance(law, Multiplex) and law.k > 1):
            raise ConfigError(f"law.clip_per_draw=true needs several draws, and {law} has none")

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None) -> ThoughtOptions:
        """Check and convert the config group.

        Raises:
            ConfigError: On an unknown option or a bad value.
        """
        if not isinstance(config, Mapping | None):
            raise ConfigError(f"law={config!r} must be a group of options: give law=NAME of")
        values = dict(config or {})
        if isinstance(config, DictConfig):
            values = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
        name = values.pop("name", None)
        if name is None:
            return cls()
        own = {option.name for option in fields(cls)} - {"settings"}
        given = {key: values.pop(key) for key in own & values.keys()}
        guard = given.pop("guard", None) or {}
        known = {option.name for option in fields(ThoughtGuard)}
        if not isinstance(guard, Mapping) or set(guard) - known:
            raise ConfigError(f"law.guard={guard!r} must be a group: {' and '.join(sorted(known))}")
        settings = ThoughtSettings.from_dict(str(name), values)
        return cls(settings, guard=ThoughtGuard(**guard), **given)

    @property
    def enabled(self) -> bool:
        """Whether training rollouts think."""
        return self.settings is not None

    @property
    def law(self) -> InputLaw:
        """Of an enabled group."""
        assert self.settings is not None
        return self.settings.law


def thinking_of_rollout(
    settings: ThoughtSettings,
    phases: Phases,
    run_seed: int,
    *,
    step: int,
    prompt_index: int,
    rollout: int,
    validation: bool = False,
) -> Thinking:
    """What one rollout's request is sent with.

    Args:
        settings: The group's.
        phases: Theirs in the model's tokens.
        run_seed: `rsp.seed`.
        step: As `rollout_seed` takes it, and so are the others.
        prompt_index: Likewise.
        rollout: Likewise.
        validation: Likewise.
    """
    seed = rollout_seed(
        run_seed,
        0 if validation else step,
        prompt_index,
        rollout,
        validation=validation,
        stream="thought_seed",
    )
    return Thinking(settings.law, phases, seed)
