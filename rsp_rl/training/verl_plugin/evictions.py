"""What a step's replay buffer leaves out, for those who end a run that finds nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from verl.trainer.ppo.v1.replay_buffer import DAPO_FILTERED_REWARD_COUNTS_KEY, ReplayBuffer


@dataclass
class Evictions:
    """Of one step so far.

    Attributes:
        alike: Groups whose rollouts all got one value of dynamic sampling's metric, by that value.
        failed: Groups with a rollout that failed.
        usable: Groups that may be trained on.
    """

    alike: Counter[float] = field(default_factory=Counter)
    failed: int = 0
    usable: int = 0


def watch_evictions(buffer: ReplayBuffer, judge: Callable[[Evictions], None]) -> None:
    """Have a judge, which may raise, see what a step leaves out, each time that it does; in place.

    Args:
        buffer: verl's own; its methods are wrapped on this instance.
        judge: See `Evictions`.
    """
    found = Evictions()
    sample, evict = buffer.sample, buffer._evict_terminal_groups

    def sample_anew(*args: Any, **kwargs: Any) -> Any:
        nonlocal found
        found = Evictions()
        return sample(*args, **kwargs)

    def evict_and_tell(global_steps: int, partition_id: str, reasons: tuple) -> tuple:
        result = evict(global_steps, partition_id, reasons)
        evicted, *_, metrics = result
        if evicted:
            found.alike.update(metrics.get(DAPO_FILTERED_REWARD_COUNTS_KEY, {}))
            found.failed += len(reasons[2])
            found.usable = len(buffer._sampleable_terminal_keys(partition_id, reasons))
            judge(found)
        return result

    buffer.sample, buffer._evict_terminal_groups = sample_anew, evict_and_tell
