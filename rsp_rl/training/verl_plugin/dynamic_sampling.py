"""Dynamic sampling that ends when it finds nothing to train on.

verl drops groups whose rollouts are all right or all wrong and asks for twice as many, until a
batch is full. Where every group is of that kind (problems far too easy or too hard, a reward that
reads no gold) it asks for ever.
"""

from __future__ import annotations

from collections.abc import Mapping

from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from rsp_rl.basics.errors import ConfigError
from rsp_rl.training.verl_plugin.evictions import watch_evictions

#: Batches of dropped groups without a single usable one beside them that are enough.
NONE_USABLE = 3

_NAMES = {0.0: "all wrong", 1.0: "all right"}


def give_up_in_time(buffer: ReplayBuffer, *, most: int, batch: int, metric: str) -> None:
    """Have a buffer end the run when a step drops too many groups; in place.

    Args:
        buffer: verl's own; its methods are wrapped on this instance.
        most: Batches of dropped groups that a step may cost
            (`algorithm.filter_groups.max_num_gen_batches`); 0 for no limit while some are usable.
        batch: Groups in a batch.
        metric: What groups are dropped by, for the error.
    """
    watch_evictions(
        buffer,
        lambda found: check_usable(
            found.alike, found.usable, most=most, batch=batch, metric=metric
        ),
    )


def check_usable(
    dropped: Mapping[float, int], usable: int, *, most: int, batch: int, metric: str
) -> None:
    """End a step that drops group after group.

    Args:
        dropped: Groups of this step by the value that all of a group's rollouts got.
        usable: Groups of this step that may be trained on.
        most: See `give_up_in_time`.
        batch: Likewise.
        metric: Likewise.

    Raises:
        ConfigError: With the share of each kind of group, and the mend.
    """
    number = sum(dropped.values())
    limit = most if usable else min(most or NONE_USABLE, NONE_USABLE)
    if usable >= batch or not limit or number < limit * batch:
        return
    kinds = ", ".join(
        f"{count} ({count / number:.0%}) {_NAMES.get(value, 'all alike')} ({metric}={value:g})"
        for value, count in sorted(dropped.items())
    )
    found = f"only {usable} of {number + usable}" if usable else f"none of {number}"
    more = (
        f", or allow more than algorithm.filter_groups.max_num_gen_batches={most} batches (0: no "
        "limit)"
        if usable
        else ""
    )
    raise ConfigError(
        f"dynamic sampling found {found} groups of this step usable, of {batch} needed; dropped: "
        f"{kinds}. Look at samples whether the reward is right; take harder or easier problems, or "
        f"more rollouts a group (actor_rollout_ref.rollout.n), or set "
        f"algorithm.filter_groups.enable=False{more}"
    )
