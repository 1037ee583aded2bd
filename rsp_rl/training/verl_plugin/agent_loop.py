"""Rollouts with soft prompts and thoughts: verl's agent loops, with L placeholders and records.

The manager sees whole batches and knows whether they are for validation: it numbers the rollouts
that are to have soft prompts or a law. The agent loop, one instance a rollout, places and records;
what nobody numbered is a plain rollout.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any, ClassVar

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopBase,
    AgentLoopOutput,
    _agent_loop_registry,
    register,
)
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.experimental.agent_loop.tool_agent_loop import ToolAgentLoop
from verl.experimental.agent_loop.utils import resolve_config_path
from verl.trainer.ppo.v1 import AgentLoopManagerTQ
from verl.utils import tensordict_utils as tu

from rsp_rl.basics.errors import ConfigError, PlacementError
from rsp_rl.dials.options import RspOptions
from rsp_rl.draws.record import EXTRA_ARG, RECORD_FIELD, SoftPromptRecord
from rsp_rl.draws.seeds import prompt_index_of
from rsp_rl.placement.prompt import placeholder_id
from rsp_rl.thoughts.phases import Phases
from rsp_rl.thoughts.record import KIND_FIELD, THOUGHT_FIELD, ThoughtRecord
from rsp_rl.thoughts.settings import EXTRA_ARG as THOUGHT_ARG
from rsp_rl.training.thought_options import ThoughtOptions, thinking_of_rollout
from rsp_rl.training.verl_plugin.resuming import VERSION_FIELD, ResumingClient, Turns
from rsp_rl.training.verl_plugin.rewards import RewardCheckingWorker

#: Fields that the manager adds to a prompt: where its group of rollouts stands in the run.
PLACE_FIELDS = ("rsp_validation", "rsp_prompt_index", "rsp_group_start")


class GroupCounter:
    """Numbers the rollouts of each prompt within a step.

    A group starts at 0, unless its prompt comes again in the same step: at the seam of two epochs,
    with dynamic sampling, or in a dataset with repeated indices. It then counts on, so that no two
    rollouts of a run share a seed.
    """

    def __init__(self) -> None:
        self._step = -1
        self._groups: Counter[int] = Counter()

    def starts(self, step: int, indices: list[int], size: int) -> list[int]:
        """Number of each group's first rollout.

        Args:
            step: Global step; a new one counts anew, so that a resumed step repeats itself.
            indices: Prompt index of each group, in the order of generation.
            size: Rollouts a group.
        """
        if step != self._step:
            self._step = step
            self._groups.clear()
        starts = []
        for index in indices:
            starts.append(self._groups[index] * size)
            self._groups[index] += 1
        return starts


class SoftPromptAgentLoopManager(AgentLoopManagerTQ):
    """verl's manager, numbering the rollouts of batches that are to have soft prompts or a law.

    Its workers check rewards.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = RewardCheckingWorker
        self._options = RspOptions.from_config(self.config.rsp)
        self._law = ThoughtOptions.from_config(self.config.get("law"))
        self._training_groups = GroupCounter()

    def generate_sequences(self, prompts: TensorDict) -> None:
        """Dispatch a batch of prompts; see `AgentLoopManagerTQ.generate_sequences`."""
        validation = bool(tu.get_non_tensor_data(prompts, key="validate", default=False))
        if self.config.trainer.v1.trainer_mode != "sync" and not validation:
            self._check_agents(prompts)  # whose tokens' policies are asked for
        asking = (options for options in (self._options, self._law) if options.enabled)
        if any(options.validation or not validation for options in asking):
            self._check_agents(prompts)
            step = int(tu.get_non_tensor_data(prompts, key="global_steps", default=0))
            indices = [prompt_index_of(index) for index in prompts["index"]]
            size = self.rollout_config.val_kwargs.n if validation else self.rollout_config.n
            # Every validation starts anew: all of a run's validations see the same draws.
            counter = GroupCounter() if validation else self._training_groups
            starts = counter.starts(step, indices, size)
            tu.assign_non_tensor_data(prompts, "rsp_validation", validation)
            tu.assign_non_tensor_stack(prompts, "rsp_prompt_index", indices)
            tu.assign_non_tensor_stack(prompts, "rsp_group_start", starts)
        super().generate_sequences(prompts)

    def _check_agents(self, prompts: TensorDict) -> None:
        """Make sure that the agent loops at hand place soft prompts."""
        names = {self.rollout_config.agent.default_agent_loop}
        if "agent_name" in prompts:
            names = {str(name) for name in prompts["agent_name"]}
        path = self.rollout_config.agent.agent_loop_config_path
        for name in sorted(names):
            check_agent_loop(name, path, with_law=self._law.enabled)


def check_agent_loop(name: str, config_path: str | None = None, *, with_law: bool = False) -> None:
    """Make sure that an agent loop places soft prompts.

    Args:
        name: What it is registered as.
        config_path: `rollout.agent.agent_loop_config_path`, which may register more loops.
        with_law: Whether its rollouts think, too.

    Raises:
        ConfigError: If it is unknown, or no `SoftPromptMixin`; with a law, if it has several turns.
    """
    loops = dict(_agent_loop_registry)
    if config_path:
        loops |= {loop.name: loop for loop in OmegaConf.load(resolve_config_path(config_path))}
    if name not in loops:
        raise ConfigError(f"agent loop {name!r} is not registered; known: {sorted(loops)}")
    target = loops[name]["_target_"]
    if not issubclass(get_class(target), SoftPromptMixin):
        raise ConfigError(
            f"agent loop {name!r} ({target}) places no soft prompts; put "
            "rsp_rl.training.verl_plugin.agent_loop.SoftPromptMixin in front of its base class, or "
            "set rsp.length=0, law=off and trainer.v1.trainer_mode=rsp_sync"
        )
    if with_law and issubclass(get_class(target), ToolAgentLoop):
        raise ConfigError(
            f"agent loop {name!r} sends thoughts back as tokens with its next turn; a law needs "
            "single_turn_agent: leave the column agent_name out of the data"
        )


class SoftPromptAgentLoopOutput(AgentLoopOutput):
    """An agent loop's output whose records become tensors of the training sample."""

    rsp_records: dict[str, Any]
    """By field: encoded `SoftPromptRecord`, int64 [RECORD_SIZE]; encoded `ThoughtRecord`, uint8
    [bytes], and its kinds, uint8 [T]; policies of tokens, int64 [T]."""

    def as_dict(self) -> dict[str, Any]:
        """See `AgentLoopOutput.as_dict`; tensor fields travel to log-prob and update."""
        output = super().as_dict()
        output |= output.pop("rsp_records")
        return output


class SoftPromptMixin(AgentLoopBase):
    """Gives an agent loop soft prompts and thoughts: `class MyLoop(SoftPromptMixin, SomeLoop)`.

    The loop must build its first prompt with `ct_build_initial_tokens`, pass the sampling
    parameters that it got on to every request, append tokens to that prompt and never change it,
    and return one output: as verl's own do. The soft prompt then stays where it is, in the last
    user turn of the first prompt, through all turns: every request carries the record, and the
    server puts H at the same positions each time. With a law it must make one request.
    """

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """Run the loop; see its own `run`.

        Args:
            sampling_params: vLLM's; shared by the group, hence copied before the record goes in.
            **kwargs: The dataset row's fields, `global_steps`, `session_id` and, where the rollout
                is to have a soft prompt, `PLACE_FIELDS`.

        Raises:
            ConfigError: If the loop returns several outputs for a rollout with a soft prompt, or
                for one that may be interrupted.
            ValueError: If thoughts came back that are another output's, or none.
        """
        self._place_in_run = kwargs if PLACE_FIELDS[0] in kwargs else None
        self._sampling_params = dict(sampling_params)
        turns = None
        if isinstance(self.server_manager, ResumingClient):
            self.server_manager = turns = Turns(self.server_manager)
        output = await super().run(self._sampling_params, **kwargs)
        if self._place_in_run is None and turns is None:
            return output
        if isinstance(output, list):
            raise ConfigError(
                f"{type(self).__name__} returns several outputs a rollout; soft prompts and "
                "trainer.v1.trainer_mode=rsp_async support agent loops with one"
            )
        records = {}
        if turns is not None:
            records[VERSION_FIELD] = turns.of_response(output.response_mask)
        if self._record is not None:
            records[RECORD_FIELD] = self._record.to_tensor()
        if self._thinks:
            records |= taken_thoughts(output)
        return SoftPromptAgentLoopOutput(
            **{name: getattr(output, name) for name in output.model_fields_set},
            rsp_records=records,
        )

    async def ct_build_initial_tokens(
        self, messages: list[dict], tools: list[dict] | None = None, **multi_modal: Any
    ) -> list[int]:
        """Tokens of the prompt, L placeholders included if it has any; makes the rollout's record.

        Raises:
            PlacementError: If the prompt with its soft prompt exceeds `rollout.prompt_length`;
                verl would cut its left side off.
        """
        if self._place_in_run is None:
            return await super().ct_build_initial_tokens(messages, tools=tools, **multi_modal)
        options, law, phases = self._parsed_options()
        where = self._place_in_run
        validation, prompt_index, group_start = (int(where[name]) for name in PLACE_FIELDS)
        place = {
            "step": int(where["global_steps"]),
            "prompt_index": prompt_index,
            "rollout": group_start + int(where["session_id"]),
            "validation": bool(validation),
        }
        extra_args: dict[str, Any] = {}
        if law.settings is not None and (law.validation or not validation):
            assert phases is not None
            thinking = thinking_of_rollout(law.settings, phases, options.seed, **place)
            extra_args[THOUGHT_ARG] = thinking.to_dict()
            self._thinks = True
        if options.seeded_sampling:
            self._sampling_params["seed"] = options.sampling_seed(**place)
        self._sampling_params["extra_args"] = extra_args
        if not options.enabled or (validation and not options.validation):
            return await super().ct_build_initial_tokens(messages, tools=tools, **multi_modal)
        length = options.rollout_length(**place, group_start=group_start)
        # As verl passes them on: to some templates an empty list is another thing than none.
        kwargs = {**self.apply_chat_template_kwargs, "tools": tools}
        placed = await self.loop.run_in_executor(
            None,
            partial(options.place, self.tokenizer, messages, length, **kwargs),
        )
        limit = self.rollout_config.prompt_length
        if len(placed.token_ids) > limit:
            raise PlacementError(
                f"a prompt of {len(placed.token_ids)} tokens, {length} of them RSP, exceeds "
                f"actor_rollout_ref.rollout.prompt_length={limit}; lower data.max_prompt_length "
                "with data.filter_overlong_prompts=True, or raise it"
            )
        self._record = options.record(
            **place,
            group_start=group_start,
            start=placed.start,
            dtype=self.rollout_config.dtype,
            placeholder_id=placeholder_id(self.tokenizer),
            question=placed.span if options.adds else (),
        )
        extra_args[EXTRA_ARG] = self._record.to_dict()
        return placed.token_ids

    def _parsed_options(self) -> tuple[RspOptions, ThoughtOptions, Phases | None]:
        """The checked options, parsed once a worker: its rollouts share one config."""
        parsed = SoftPromptMixin._parsed
        if parsed is None or parsed[0] is not self.config:
            law, phases = ThoughtOptions.from_config(self.config.get("law")), None
            if law.settings is not None:
                phases = law.settings.resolve(self.tokenizer, len(self.tokenizer))
            parsed = (self.config, RspOptions.from_config(self.config.rsp), law, phases)
            SoftPromptMixin._parsed = parsed
        return parsed[1:]

    _parsed: ClassVar[tuple[DictConfig, RspOptions, ThoughtOptions, Phases | None] | None] = None

    # verl makes one instance a rollout.
    _record: SoftPromptRecord | None = None
    _thinks = False
    _place_in_run: dict[str, Any] | None
    _sampling_params: dict[str, Any]


def taken_thoughts(output: AgentLoopOutput) -> dict[str, Any]:
    """A rollout's record of thoughts, out of its output and as fields of a sample.

    The output's mask gets 0 at tokens that nobody chose: no loss is theirs.

    Raises:
        ValueError: If there is none, or it is another output's.
    """
    encoded = output.extra_fields.pop(THOUGHT_FIELD, None)
    if encoded is None:
        raise ValueError(
            "a rollout came back without the record of its thoughts; is it rsp_rl's server that "
            "rollouts are made by, and an agent loop with one request?"
        )
    record = ThoughtRecord.from_bytes(encoded).cut(len(output.response_ids))
    record.check(output.response_ids)
    if record.start != len(output.prompt_ids):
        raise ValueError(
            f"a rollout's thoughts begin at position {record.start}, and its prompt has "
            f"{len(output.prompt_ids)} tokens"
        )
    chosen = record.chosen.tolist()
    pairs = zip(output.response_mask, chosen, strict=True)
    output.response_mask = [mask * int(own) for mask, own in pairs]
    return {THOUGHT_FIELD: record.to_tensor(), KIND_FIELD: record.rows.kind_N}


# Under verl's own names: datasets and configs ask for them.
@register("single_turn_agent")
class SoftPromptSingleTurnLoop(SoftPromptMixin, SingleTurnAgentLoop):
    """verl's single-turn rollout, with soft prompts."""


@register("tool_agent")
class SoftPromptToolLoop(SoftPromptMixin, ToolAgentLoop):
    """verl's multi-turn rollout with tools, with soft prompts."""
