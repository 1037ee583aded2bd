"""The actor side: log-probs of stored rollouts and the gradient, one layout at a time."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np

from parity import stand_ins
from parity.actor import (
    Sample,
    build_engine,
    engine_config,
    plain_torch_log_probs,
    training_batch,
)
from parity.layouts import ActorLayout
from parity.models import LORA_ALPHA, LORA_RANK, Policy
from parity.ranks import run_on_ranks

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from tensordict import TensorDict

    from rsp_rl.training.verl_plugin.actor_engine import SoftPromptFSDPEngine


@dataclass(frozen=True)
class Gap:
    """|log p_rollout - log p_actor| over response tokens, in nats."""

    mean: float
    max: float

    @classmethod
    def between(cls, samples: list[Sample], log_probs: list[np.ndarray]) -> Gap:
        """Of samples that hold the rollout's log-probs, and the actor's, one array a sample."""
        gaps = np.concatenate(
            [abs(s.old_log_probs - row) for s, row in zip(samples, log_probs, strict=True)]
        )
        # NaN must not hide behind a comparison that it fails.
        return cls(*(float(np.nan_to_num(v, nan=np.inf)) for v in (gaps.mean(), gaps.max())))


@dataclass(frozen=True)
class Measurement:
    """What one actor layout gave.

    Attributes:
        gaps: By the rollouts' names.
        gradient_error: See `relative_error`.
        stand_ins: What took the place of a part that needs a GPU.
    """

    gaps: dict[str, Gap]
    gradient_error: float
    stand_ins: list[str]


def reference_gradient(policy: Policy, samples: list[Sample]) -> dict[str, np.ndarray]:
    """d loss / d parameters in plain torch and float64: one process, one sequence at a time.

    The loss is DAPO's (token-mean, Eq. 9 of the paper) where no clip is active: old log-probs are
    the rollouts' own, so that all ratios are 1 to rounding.
    """
    import torch

    model = policy.load(torch.float64)
    rows = plain_torch_log_probs(model, samples)
    tokens = sum(map(len, rows))
    loss = sum(
        -sample.advantage * (row - torch.from_numpy(sample.old_log_probs)).exp().sum() / tokens
        for sample, row in zip(samples, rows, strict=True)
    )
    loss.backward()
    return {n: p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None}


def forgotten_gap(policy: Policy, samples: list[Sample]) -> Gap:
    """The gap that an actor would show which does not put the soft prompts in."""
    import torch

    model = policy.load(torch.float64)
    with torch.no_grad():
        rows = plain_torch_log_probs(model, samples, soft_prompts=False)
    return Gap.between(samples, [row.numpy() for row in rows])


def measure(
    layouts: Sequence[ActorLayout],
    policy: Policy,
    rollouts: dict[str, list[Sample]],
    trained: list[Sample],
    reference: dict[str, np.ndarray],
    *,
    as_it_is: bool = False,
) -> list[Measurement]:
    """Log-prob gaps and gradient error of verl's actor engine.

    Args:
        layouts: Alike but for `dynamic`, which is the batch's setting: they share an engine.
        policy: Which both sides load.
        rollouts: Sets of rollouts by name. Each is scored by itself; sets of the same tokens and
            soft prompts, which differ in vLLM's log-probs only, once.
        trained: Rollouts whose gradient is taken.
        reference: What `reference_gradient` returned for them.
        as_it_is: Without stand-ins, to learn how verl refuses the layout on a CPU.

    Raises:
        RuntimeError: If verl refuses the layouts; the message is its traceback.
    """
    needed = [] if as_it_is else stand_ins.needed_by(layouts[0])
    overrides = [*layouts[0].overrides(), *stand_ins.overrides(needed)]
    if policy.adapter is not None:
        overrides += [
            f"actor_rollout_ref.model.lora_rank={LORA_RANK}",
            f"actor_rollout_ref.model.lora_alpha={LORA_ALPHA}",
            f"actor_rollout_ref.model.lora_adapter_path={policy.adapter}",
        ]
    # Composed once, here: it costs a rank more than its share of the work.
    config = engine_config(policy.actor_model, *overrides)
    kinds = {name: _inputs(samples) for name, samples in rollouts.items()}
    distinct = {kinds[name]: samples for name, samples in rollouts.items()}
    arguments = (config, layouts, list(distinct.values()), trained, needed)
    ranks = run_on_ranks(_measure_on_rank, layouts[0].ranks, *arguments, timeout=180)
    measurements = []
    for number in range(len(layouts)):
        log_probs = {}
        for place, (kind, samples) in enumerate(distinct.items()):
            rows: list[Any] = [None] * len(samples)
            for rank in ranks:
                for index, row in rank[number][0][place]:
                    rows[index] = row
            log_probs[kind] = rows
        gaps = {n: Gap.between(rollouts[n], log_probs[kind]) for n, kind in kinds.items()}
        error = float(np.max([relative_error(rank[number][1], reference) for rank in ranks]))
        measurements.append(Measurement(gaps, error, needed))
    return measurements


def _inputs(samples: list[Sample]) -> tuple:
    """What the actor's log-probs of a set depend on."""
    return tuple((tuple(s.prompt), tuple(s.response), s.record) for s in samples)


def relative_error(gradients: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> float:
    """|g - g_reference| / |g_reference|, Euclidean, of the parameter tensor that is worst.

    Infinite if the two are not gradients of the same parameters; NaN if one holds NaN.
    """
    if gradients.keys() != reference.keys():
        return float("inf")
    errors = [
        np.linalg.norm(gradients[name] - wanted) / np.linalg.norm(wanted)
        for name, wanted in reference.items()
    ]
    return float(np.max(errors))  # Python's max can lose a NaN


def _measure_on_rank(
    rank: int,
    config: DictConfig,
    layouts: Sequence[ActorLayout],
    sets: list[list[Sample]],
    trained: list[Sample],
    needed: list[str],
) -> list[tuple[list[list[tuple[int, np.ndarray]]], dict[str, np.ndarray]]]:
    """By layout: of each set this rank's samples' indices and log-probs; and the gradients."""
    from verl.workers.utils.losses import ppo_loss
    from verl.workers.utils.padding import response_from_nested

    stand_ins.put_in_place(needed)
    # verl tells of every model that it builds.
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        engine, actor_config = build_engine(config)

    def mine(samples: list[Sample]) -> range:
        first, step = engine.get_data_parallel_rank(), engine.get_data_parallel_size()
        return range(first, len(samples), step)

    def batch(samples: list[Sample], layout: ActorLayout) -> TensorDict:
        own = [samples[index] for index in mine(samples)]
        settings = {**layout.batch_settings(), "global_batch_size": len(samples)}
        return training_batch(own, **settings)

    results = []
    for layout in layouts:
        log_probs = []
        for samples in sets:
            data = batch(samples, layout)
            with engine.eval_mode():
                output = engine.infer_batch(data)["model_output"]
            rows = response_from_nested(output["log_probs"], data["response_mask"]).unbind()
            log_probs.append([(i, r.numpy()) for i, r in zip(mine(samples), rows, strict=True)])
        with engine.train_mode():
            engine.optimizer_zero_grad()
            data = batch(trained, layout)
            engine.forward_backward_batch(data, partial(ppo_loss, config=actor_config))
            results.append((log_probs, whole_gradients(engine)))
    return results


def whole_gradients(engine: SoftPromptFSDPEngine) -> dict[str, np.ndarray]:
    """The engine's gradients, unsharded, by the plain model's parameter names."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    module = engine.module
    if not isinstance(module, FullyShardedDataParallel):
        return {
            name: parameter.grad.full_tensor().numpy().copy()
            for name, parameter in module.named_parameters()
            if parameter.grad is not None
        }
    with FullyShardedDataParallel.summon_full_params(module, with_grads=True):
        return {
            name.replace("_fsdp_wrapped_module.", ""): parameter.grad.numpy().copy()
            for name, parameter in module.module.named_parameters()
            if parameter.grad is not None
        }
