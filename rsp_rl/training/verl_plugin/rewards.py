"""Rewards that are no number, stopped before they become advantages.

A NaN makes the advantages of its whole group NaN, and with them the model. With a list or a text
verl loses the rollout: its agent loop fails, and the step trains on fewer. So the agent loop's
worker notes what is wrong with a reward, and the trainer, which can end the run, refuses it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
import torch
from ray.exceptions import RayTaskError
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

from rsp_rl.basics.errors import ConfigError

#: In a sample's `reward_extra_info`: what is wrong with its reward, in words.
FAULT = "reward_fault"


def reward_fault(reward: Any) -> str | None:
    """What is wrong with a reward; None if it is a number that training can use.

    Args:
        reward: What a reward function, a reward manager or an agent loop gave; arrays and tensors
            without dimensions are numbers.
    """
    shape = getattr(reward, "shape", ())
    if len(shape):
        return f"a {type(reward).__name__} of shape {tuple(shape)}, not a number"
    if hasattr(reward, "item"):
        reward = reward.item()
    if not isinstance(reward, int | float):
        return f"{reward!r:.80}, of type {type(reward).__name__}, not a number"
    if not abs(reward) <= torch.finfo(torch.float32).max:  # NaN is not, either
        return f"{reward!r}, which no advantage can be made of"
    return None


@ray.remote
class RewardCheckingWorker(AgentLoopWorkerTQ.__ray_actor_class__):
    """verl's agent loop worker, which notes faults of rewards.

    Ray does not let an actor class be subclassed, hence the class beneath it.
    """

    async def _compute_score(self, outputs: list[AgentLoopOutput], kwargs: dict[str, Any]) -> None:
        """See `AgentLoopWorker._compute_score`; a faulty reward becomes NaN with a word on it."""
        final = outputs[-1]
        try:
            await super()._compute_score(outputs, kwargs=kwargs)
            if final.reward_score is None and self.reward_loop_worker_handles is None:
                return  # the trainer asks a reward model for it
            fault = reward_fault(final.reward_score) or self._metric_fault(final)
        except RayTaskError as error:
            # The reward function's own; the death of its worker is the watchdog's.
            cause = error.cause if isinstance(error.cause, Exception) else error
            fault = f"an error, {type(cause).__name__}: {_line(cause)}"
        if fault is None:
            return
        final.reward_score = math.nan
        info = final.extra_fields.get("reward_extra_info") or {}
        # Dynamic sampling makes a number of its metric in every sample.
        noted = dict.fromkeys(self._filter_metrics(), math.nan)
        final.extra_fields["reward_extra_info"] = {**info, **noted, FAULT: fault}

    def _filter_metrics(self) -> list[str]:
        """What dynamic sampling, if it is on, looks for in `reward_extra_info`."""
        groups = self.config.algorithm.get("filter_groups") or {}
        # verl's word for the reward itself.
        return [groups["metric"]] if groups.get("enable") and groups["metric"] != "reward" else []

    def _metric_fault(self, output: AgentLoopOutput) -> str | None:
        info = output.extra_fields.get("reward_extra_info") or {}
        for metric in self._filter_metrics():
            if metric not in info:
                return (
                    f"a number, but there is no {metric!r} beside it, by which algorithm."
                    "filter_groups tells groups apart"
                )
            if fault := reward_fault(info[metric]):
                return f"a number, but {metric!r}, which algorithm.filter_groups reads, is {fault}"
        return None


def _line(error: Exception) -> str:
    *_, last = str(error).strip().splitlines() or [""]
    return last[:300]


def check_rewards(
    rewards: Sequence[float],
    infos: Sequence[Mapping[str, Any]],
    name: Callable[[int], str],
    when: str,
) -> None:
    """Refuse a batch with a reward that is no number.

    Args:
        rewards: A sequence reward a sample.
        infos: `reward_extra_info` of each.
        name: What an error calls a sample, by its number.
        when: Such as `step 3`.

    Raises:
        ConfigError: With the number of such rewards, and the first of them with its sample.
    """
    faults = {
        number: info.get(FAULT) or fault
        for number, (reward, info) in enumerate(zip(rewards, infos, strict=True))
        if (fault := reward_fault(reward)) or info.get(FAULT)
    }
    if faults:
        number, fault = next(iter(faults.items()))
        raise ConfigError(
            f"{len(faults)} of {len(rewards)} rewards of {when} are no numbers; the first, of "
            f"{name(number)}, is {fault}. Mend the reward (reward.custom_reward_function)"
        )
