"""The `rsp:` config group as a checked object."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from rsp_rl.basics.errors import ConfigError
from rsp_rl.dials.mixing import MIXINGS, Mixing, in_half, is_chosen
from rsp_rl.dials.schedule import SHAPES, Schedule
from rsp_rl.draws.laws import LAWS
from rsp_rl.draws.record import DTYPES, SoftPromptRecord, tokens_digest
from rsp_rl.draws.seeds import rollout_seed
from rsp_rl.placement.chat import place_in_chat, question_in_chat
from rsp_rl.placement.prompt import POSITIONS, PlacedPrompt, Position

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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
        length: L, soft prompt vectors a rollout; 0 turns RSP off (plain DAPO), and is the length of
            a law that inserts nothing (`question_noise`).
        position: `suffix` (default), `prefix` or `infix` (see `rsp_rl.placement`).
        scale: Dial that multiplies sigma_E; 1 is the paper's. Of `question_noise` it is NEFTune's
            alpha, and 0 turns that off.
        mode: `independent`, a fresh draw for every rollout; `shared`, one draw for a whole group
            (the paper's control).
        law: What is drawn, a key of `rsp_rl.draws.laws.LAWS`: `gaussian` (the paper's), an
            ablation, or one that a package brings (entry point group `rsp_rl.laws`).
        length_schedule: Course of L over the training steps, from `length` on; rounded.
        scale_schedule: Course of the scale, from `scale` on.
        probability: That a training rollout gets a soft prompt, in (0, 1]; the others are plain.
        mixing: `half` gives one to every other rollout of each group, exactly.
        seed: Run seed of the draws.
        seeded_sampling: Whether each rollout's token sampling is seeded too, with its rollout seed:
            a resumed run then repeats the rollouts of an uninterrupted one. Costs vLLM some speed.
        validation: Whether validation rollouts get a soft prompt too (the paper's do not). All of
            them then get one, of `length` and `scale`: schedules and mixing are training's.
        mean: mu_E; filled in from the pretrained table by `rsp-rl train`.
        std: sigma_E; filled in likewise.
        table: Folder of the pretrained model, for a law that draws from its table; filled in.
        table_digest: Which table that is (`EmbeddingTable.digest`); filled in.
        guard: See `GuardOptions`.
    """

    length: int = 20
    position: Position = "suffix"
    scale: float = 1.0
    mode: Mode = "independent"
    law: str = "gaussian"
    length_schedule: Schedule = field(default_factory=Schedule)
    scale_schedule: Schedule = field(default_factory=Schedule)
    probability: float = 1.0
    mixing: Mixing = "none"
    seed: int = 42
    seeded_sampling: bool = False
    validation: bool = False
    mean: float | None = None
    std: float | None = None
    table: str | None = None
    table_digest: str | None = None
    guard: GuardOptions = field(default_factory=GuardOptions)

    def __post_init__(self) -> None:
        if not (_is_whole(self.length) and self.length >= 0):
            raise ConfigError(
                f"rsp.length={self.length!r} must be a whole number, 0 (RSP off) or more"
            )
        if self.position not in POSITIONS:
            raise ConfigError(f"rsp.position={self.position!r} is unknown; use one of {POSITIONS}")
        for name, known in (("mode", MODES), ("law", LAWS), ("mixing", MIXINGS)):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in known:
                raise ConfigError(f"rsp.{name}={value!r} is unknown; use one of {tuple(known)}")
        if not (_is_finite(self.scale) and self.scale >= 0):
            raise ConfigError(f"rsp.scale={self.scale!r} must be a finite number of at least 0")
        if not (_is_finite(self.probability) and 0 < self.probability <= 1):
            raise ConfigError(
                f"rsp.probability={self.probability!r} must be above 0 and at most 1; rsp.length=0 "
                "turns RSP off"
            )
        if self.mixing == "half" and self.probability != 1:
            raise ConfigError(
                f"rsp.mixing=half and rsp.probability={self.probability}: both say which rollouts "
                "get a soft prompt; leave one of them at its default"
            )
        _check_schedule("length", self.length_schedule, whole=True)
        _check_schedule("scale", self.scale_schedule)
        if LAWS[self.law].from_table and (self.scale != 1 or self.scale_schedule != Schedule()):
            raise ConfigError(
                f"rsp.law={self.law} takes rows of the pretrained table as they are; leave "
                "rsp.scale=1 and rsp.scale_schedule at its default"
            )
        if LAWS[self.law].added:
            self._check_adds()
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
        for name in ("table", "table_digest"):
            if not isinstance(getattr(self, name), str | None):
                raise ConfigError(f"rsp.{name}={getattr(self, name)!r} must be text or null")

    def _check_adds(self) -> None:
        given = {"length": 0, "position": "suffix", "length_schedule": Schedule()}
        for name, wanted in given.items():
            if (value := getattr(self, name)) != wanted:
                raise ConfigError(
                    f"rsp.{name}={value} and rsp.law={self.law}: it inserts nothing, its rows are "
                    "added to the embeddings of the question's own tokens; set rsp.length=0, leave "
                    "rsp.position=suffix and rsp.length_schedule at its default, and say with "
                    "rsp.scale how large they are"
                )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> RspOptions:
        """Check and convert the config group.

        Raises:
            ConfigError: On an unknown option or a bad value.
        """
        if not isinstance(config, Mapping):
            raise ConfigError(f"rsp={config!r} must be a group of options; see configs/rsp")
        values = {**config}
        _check_known("rsp", values, cls)
        for name, kind in _GROUPS.items():
            group = values.get(name) or {}
            if not isinstance(group, Mapping):
                known = " and ".join(f.name for f in fields(kind))
                raise ConfigError(f"rsp.{name}={group!r} must be a group: {known}")
            _check_known(f"rsp.{name}", group, kind)
            values[name] = kind(**group)
        return cls(**values)

    @property
    def enabled(self) -> bool:
        """Whether training rollouts get a soft prompt, at some step."""
        if self.adds:
            return self.scale_schedule.largest(self.scale) > 0
        return self.max_length > 0

    @property
    def adds(self) -> bool:
        """Whether the law's rows are added to the question's embeddings, and nothing inserted."""
        return LAWS[self.law].added

    @property
    def has_added_rows(self) -> bool:
        """Whether prompts have such rows: of such a law, and of a scale above 0."""
        return self.adds and self.enabled

    @property
    def share(self) -> float:
        """Expected share of training rollouts with a soft prompt."""
        if not self.enabled:
            return 0.0
        return 0.5 if self.mixing == "half" else self.probability

    @property
    def max_length(self) -> int:
        """The largest L that a rollout may get; 0 of a law that inserts nothing."""
        return int(self.length_schedule.largest(self.length))

    def rollout_length(
        self,
        *,
        step: int,
        prompt_index: int,
        rollout: int,
        group_start: int,
        validation: bool = False,
        question: Sequence[int] = (),
    ) -> int:
        """L of one rollout, 0 for one that gets no soft prompt; arguments as for `record`."""
        if self.adds and not self._scale(step, validation=validation):
            return 0
        if validation:
            return len(question) if self.adds else self.length
        if self.mixing == "half" and not in_half(rollout - group_start):
            return 0
        own_seed = rollout_seed(self.seed, step, prompt_index, rollout)
        if not is_chosen(own_seed, self.probability):
            return 0
        return len(question) if self.adds else round(self.length_schedule.value(self.length, step))

    def place(
        self,
        tokenizer: PreTrainedTokenizerBase,
        messages: list[dict[str, Any]],
        length: int,
        **template_kwargs: Any,
    ) -> PlacedPrompt:
        """A chat's tokens, L placeholders in them; or the question found, where rows are added.

        Args:
            tokenizer: Tokenizer with a chat template.
            messages: The chat.
            length: L; without a meaning where rows are added.
            **template_kwargs: The chat template's.

        Raises:
            PlacementError: See `place_in_chat` and `question_in_chat`.
        """
        if self.adds:
            return question_in_chat(tokenizer, messages, **template_kwargs)
        return place_in_chat(tokenizer, messages, length, self.position, **template_kwargs)

    def moments(self, scale: float) -> tuple[float, float]:
        """Mean and standard deviation that a record holds, at a value of the scale dial.

        Raises:
            ConfigError: If what `rsp-rl train` fills in is not set.
        """
        if self.adds:
            return 0.0, scale
        if self.mean is None or self.std is None:
            raise ConfigError(
                "rsp.mean and rsp.std are not set; start training through `rsp-rl train`, "
                "which reads them from the pretrained embedding table"
            )
        return self.mean, self.std * scale

    def _scale(self, step: int, *, validation: bool) -> float:
        return self.scale if validation else self.scale_schedule.value(self.scale, step)

    def sampling_seed(
        self, *, step: int, prompt_index: int, rollout: int, validation: bool = False
    ) -> int:
        """Seed of a rollout's token sampling, a non-negative signed 64-bit integer.

        Each rollout has its own, also where several share a draw: a group of equal samples would
        teach nothing.
        """
        step = 0 if validation else step
        return rollout_seed(self.seed, step, prompt_index, rollout, validation=validation) >> 1

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
        question: Sequence[int] = (),
    ) -> SoftPromptRecord:
        """The record of one rollout.

        Args:
            step: Global step; validation draws ignore it, so that all validations of a run see
                the same soft prompts.
            prompt_index: Dataset index of the prompt as an integer (see `rsp_rl.draws.seeds`).
            rollout: Number of the rollout among those of this prompt in this step.
            group_start: Number of the group's first rollout: what `shared` mode draws with.
            start: First soft prompt position in the prompt's tokens.
            dtype: Rollout dtype, as verl or vLLM write it.
            placeholder_id: Token id at the soft prompt positions.
            validation: Whether this is a validation rollout.
            question: Tokens from `start` on that rows are added to, for a law that adds them.

        Raises:
            ConfigError: If what `rsp-rl train` fills in is not set, or the dtype is unknown.
            ValueError: If the rollout's place or the soft prompt's is out of range.
        """
        law = LAWS[self.law]
        mean, std = self.moments(self._scale(step, validation=validation))
        if law.from_table and self.table_digest is None:
            raise ConfigError(
                f"rsp.law={self.law} but rsp.table_digest is not set; start training through "
                "`rsp-rl train`, which finds the pretrained table"
            )
        drawer = group_start if self.mode == "shared" else rollout
        seed = rollout_seed(
            self.seed, 0 if validation else step, prompt_index, drawer, validation=validation
        )
        if law.one_draw:
            seed = rollout_seed(self.seed, 0, 0, 0)  # no rollout's own: steps count from 1
        return SoftPromptRecord(
            seed=seed,
            start=start,
            length=self.rollout_length(
                step=step,
                prompt_index=prompt_index,
                rollout=rollout,
                group_start=group_start,
                validation=validation,
                question=question,
            ),
            mean=mean,
            std=std,
            dtype=rollout_dtype(dtype),
            placeholder_id=placeholder_id,
            law=self.law,
            table=int(self.table_digest, 16) if law.from_table else 0,
            added_to=tokens_digest(question) if law.added else 0,
        )


#: Options that are groups of options themselves.
_GROUPS: dict[str, type] = {
    "length_schedule": Schedule,
    "scale_schedule": Schedule,
    "guard": GuardOptions,
}


def _check_known(name: str, given: Mapping[str, Any], kind: type) -> None:
    known = {f.name for f in fields(kind)}
    if unknown := sorted(set(given) - known):
        raise ConfigError(f"unknown option {name}.{unknown[0]}; known: {sorted(known)}")


def _check_schedule(dial: str, schedule: Schedule, *, whole: bool = False) -> None:
    name = f"rsp.{dial}_schedule"
    if schedule.shape not in tuple(SHAPES):
        raise ConfigError(f"{name}.shape={schedule.shape!r} is unknown; use one of {tuple(SHAPES)}")
    if schedule.shape == "constant":
        if schedule != Schedule():
            raise ConfigError(
                f"{name} has an end or steps but {name}.shape=constant; set it to linear or cosine"
            )
        return
    end, kind = schedule.end, "whole number" if whole else "finite number"
    if not ((_is_whole(end) if whole else _is_finite(end)) and end >= 0):
        raise ConfigError(f"{name}.end={end!r} must be a {kind} of at least 0")
    if not (_is_whole(schedule.steps) and schedule.steps >= 2):
        raise ConfigError(
            f"{name}.steps={schedule.steps!r} must be a whole number of at least 2, the step at "
            f"which {dial} reaches {end}"
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
