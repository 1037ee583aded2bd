"""Rollouts with soft prompts: verl's agent loop, with L placeholders in the prompt and a record.

The manager sees whole batches and knows whether they are for validation: it chooses the agent loop
and numbers the rollouts. The agent loop, one instance a rollout, places and records.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

from tensordict import TensorDict
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, register
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.trainer.ppo.v1 import AgentLoopManagerTQ
from verl.utils import tensordict_utils as tu

from rsp_rl.options import ConfigError, RspOptions
from rsp_rl.placement import PlacementError, place_in_chat, placeholder_id
from rsp_rl.preflight import SINGLE_TURN_AGENT
from rsp_rl.soft_prompt import EXTRA_ARG, RECORD_FIELD, SoftPromptRecord, prompt_index_of

AGENT_LOOP = "rsp_single_turn"

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
    """verl's manager, sending batches that are to have soft prompts to our agent loop."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._options = RspOptions.from_config(self.config.rsp)
        self._training_groups = GroupCounter()

    def generate_sequences(self, prompts: TensorDict) -> None:
        """Dispatch a batch of prompts; see `AgentLoopManagerTQ.generate_sequences`."""
        validation = bool(tu.get_non_tensor_data(prompts, key="validate", default=False))
        if self._options.enabled and (self._options.validation or not validation):
            self._check_agents(prompts)
            step = int(tu.get_non_tensor_data(prompts, key="global_steps", default=0))
            indices = [prompt_index_of(index) for index in prompts["index"]]
            size = self.rollout_config.val_kwargs.n if validation else self.rollout_config.n
            # Every validation starts anew: all of a run's validations see the same draws.
            counter = GroupCounter() if validation else self._training_groups
            starts = counter.starts(step, indices, size)
            tu.assign_non_tensor_data(prompts, "agent_name", AGENT_LOOP)
            tu.assign_non_tensor_data(prompts, "rsp_validation", validation)
            tu.assign_non_tensor_stack(prompts, "rsp_prompt_index", indices)
            tu.assign_non_tensor_stack(prompts, "rsp_group_start", starts)
        super().generate_sequences(prompts)

    @staticmethod
    def _check_agents(prompts: TensorDict) -> None:
        """Refuse other agent loops of datasets that `rsp_rl.preflight` did not read."""
        if "agent_name" not in prompts:
            return
        names = {str(name) for name in prompts["agent_name"]}
        if unknown := sorted(names - {AGENT_LOOP, SINGLE_TURN_AGENT}):
            raise ConfigError(
                f"the dataset asks for agent loop {unknown[0]!r}; soft prompts support single-turn "
                "rollouts: drop the dataset's agent_name column or set rsp.length=0"
            )


class SoftPromptAgentLoopOutput(AgentLoopOutput):
    """An agent loop's output whose soft prompt record becomes a tensor of the training sample."""

    rsp_record: Any
    """Encoded `SoftPromptRecord`, int64 [7]."""

    def as_dict(self) -> dict[str, Any]:
        """See `AgentLoopOutput.as_dict`; a tensor field travels to log-prob and update."""
        output = super().as_dict()
        output[RECORD_FIELD] = self.rsp_record
        return output


@register(AGENT_LOOP)
class SoftPromptAgentLoop(SingleTurnAgentLoop):
    """Single-turn rollout with a soft prompt."""

    async def run(
        self, sampling_params: dict[str, Any], priority: int = 0, **kwargs: Any
    ) -> SoftPromptAgentLoopOutput:
        """Generate one response; see `SingleTurnAgentLoop.run`.

        Args:
            sampling_params: vLLM's; shared by the group, hence copied before the record goes in.
            priority: Scheduling priority.
            **kwargs: The dataset row's fields, `global_steps`, `session_id` and `PLACE_FIELDS`.
        """
        self._place_in_run = kwargs
        self._sampling_params = dict(sampling_params)
        output = await super().run(self._sampling_params, priority=priority, **kwargs)
        return SoftPromptAgentLoopOutput(
            **{name: getattr(output, name) for name in output.model_fields_set},
            rsp_record=self._record.to_tensor(),
        )

    async def ct_build_initial_tokens(
        self, messages: list[dict], tools: list[dict] | None = None, **multi_modal: Any
    ) -> list[int]:
        """Tokens of the prompt, L placeholders included; makes the rollout's record.

        Raises:
            PlacementError: If the prompt with its soft prompt exceeds `rollout.prompt_length`;
                verl would cut its left side off.
        """
        options = RspOptions.from_config(self.config.rsp)
        kwargs = dict(self.apply_chat_template_kwargs)
        if tools:
            kwargs["tools"] = tools
        placed = await self.loop.run_in_executor(
            None,
            partial(
                place_in_chat, self.tokenizer, messages, options.length, options.position, **kwargs
            ),
        )
        if len(placed.token_ids) > self.prompt_length:
            raise PlacementError(
                f"a prompt of {len(placed.token_ids)} tokens, {options.length} of them RSP, "
                f"exceeds actor_rollout_ref.rollout.prompt_length={self.prompt_length}; lower "
                "data.max_prompt_length with data.filter_overlong_prompts=True, or raise it"
            )
        place = self._place_in_run
        validation, prompt_index, group_start = (int(place[name]) for name in PLACE_FIELDS)
        self._record: SoftPromptRecord = options.record(
            step=int(place["global_steps"]),
            prompt_index=prompt_index,
            rollout=group_start + int(place["session_id"]),
            group_start=group_start,
            start=placed.start,
            dtype=self.rollout_config.dtype,
            placeholder_id=placeholder_id(self.tokenizer),
            validation=bool(validation),
        )
        self._sampling_params["extra_args"] = {EXTRA_ARG: self._record.to_dict()}
        if options.seeded_sampling:
            self._sampling_params["seed"] = self._record.seed >> 1  # vLLM wants a signed 64-bit one
        return placed.token_ids

    # The record's type for readers; verl makes one instance a rollout.
    _record: SoftPromptRecord
    _place_in_run: dict[str, Any]
    _sampling_params: dict[str, Any]
