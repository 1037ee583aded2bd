"""The actor's side in verl's own terms: config, engine and batch; and plain torch to compare with.

torch and verl are imported where they are used: a caller that only starts ranks needs neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig
    from tensordict import TensorDict
    from verl.workers.config import ActorConfig

    from rsp_rl.draws.record import SoftPromptRecord
    from rsp_rl.thoughts.record import ThoughtRecord
    from rsp_rl.training.verl_plugin.actor_engine import SoftPromptFSDPEngine


@dataclass(frozen=True)
class Sample:
    """A training sample as the trainer sends it to the actor.

    Attributes:
        prompt: Token ids, placeholders included.
        response: Token ids.
        old_log_probs: One a response token.
        advantage: The rollout's.
        record: Its soft prompt; None for plain DAPO.
        trained: False for verl's synthetic padding samples, whose response mask is all zero.
        thoughts: Its response's; None without a law.
    """

    prompt: Sequence[int]
    response: Sequence[int]
    old_log_probs: np.ndarray
    advantage: float
    record: SoftPromptRecord | None = None
    trained: bool = True
    thoughts: ThoughtRecord | None = None

    @property
    def mask(self) -> list[int]:
        """1 where the policy chose."""
        if not self.trained:
            return [0] * len(self.response)
        if self.thoughts is None:
            return [1] * len(self.response)
        return self.thoughts.chosen.int().tolist()


@cache
def compose(name: str = "dapo_rsp", *overrides: str) -> DictConfig:
    """A config of `configs/`, composed as `rsp-rl train` composes it; not to be changed."""
    from rsp_rl.training.configs import compose_config

    return compose_config(name, overrides)


def plain_torch_log_probs(
    model: torch.nn.Module,
    samples: Sequence[Sample],
    soft_prompts: bool = True,
    best: list[float] | None = None,
) -> list[torch.Tensor]:
    """Log-probs of the responses, one sequence at a time, H put in by hand as `inputs_embeds`.

    Args:
        model: On any device.
        samples: What is scored.
        soft_prompts: Put them in.
        best: Gets the log-prob of each position's most likely token.

    Returns:
        By sample, [response], at least fp32, on the model's device.
    """
    import torch

    from rsp_rl.injection.hook import rounded_sum

    rows = []
    for sample in samples:
        tokens = torch.tensor([*sample.prompt, *sample.response], device=model.device)
        embeds = model.get_input_embeddings()(tokens)
        if soft_prompts and sample.record is not None:
            start, length = sample.record.start, sample.record.length
            drawn = sample.record.draw(embeds.shape[-1]).to(embeds.device)
            if sample.record.added_to:
                drawn = rounded_sum(embeds[start : start + length], drawn, drawn.dtype)
            embeds = torch.cat([embeds[:start], drawn.to(embeds), embeds[start + length :]])
        logits = model(inputs_embeds=embeds[None], use_cache=False).logits[0]
        first = len(sample.prompt)
        scores = logits[first - 1 : -1]
        if scores.dtype == torch.bfloat16:
            scores = scores.float()
        log_probs = scores.log_softmax(-1)
        if best is not None:
            best += log_probs.max(-1).values.tolist()
        rows.append(log_probs.gather(-1, tokens[first:, None])[:, 0])
    return rows


def engine_config(model: Path, *overrides: str) -> DictConfig:
    """The config of an actor engine in fp32 on a CPU."""
    return compose(
        "dapo_rsp",
        "+machine=cpu",
        f"actor_rollout_ref.model.path={model}",
        # The engine alone: agent loop, trainer and guard are not needed.
        "actor_rollout_ref.model.external_lib=rsp_rl.training.verl_plugin.cpu_engine",
        *overrides,
    )


def build_engine(config: DictConfig) -> tuple[SoftPromptFSDPEngine, ActorConfig]:
    """verl's actor engine, made as its `ActorRolloutRefWorker.init_model` makes it."""
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.engine import EngineRegistry

    actor_config = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    actor_config.model_config = omega_conf_to_dataclass(config.actor_rollout_ref.model)
    engine = EngineRegistry.new(
        model_type="language_model",
        backend=actor_config.engine.strategy,
        model_config=actor_config.model_config,
        engine_config=actor_config.engine,
        optimizer_config=actor_config.optim,
        checkpoint_config=actor_config.checkpoint,
    )
    engine.initialize()
    return engine, actor_config


def make_engine(model: Path, *overrides: str) -> tuple[SoftPromptFSDPEngine, ActorConfig]:
    """An engine of `engine_config`."""
    return build_engine(engine_config(model, *overrides))


def training_batch(samples: Sequence[Sample], dtype: Any = None, **settings: Any) -> TensorDict:
    """The micro-batch source that verl's engine gets: nested tensors and plain settings.

    Args:
        samples: This rank's.
        dtype: Of the log-probs and advantages; float32 if None.
        **settings: More non-tensor entries, such as `micro_batch_size_per_gpu`.
    """
    import torch
    from verl.utils import tensordict_utils as tu

    from rsp_rl.draws.record import RECORD_FIELD
    from rsp_rl.thoughts.record import THOUGHT_FIELD

    def nested(rows: list[Any], dtype: Any) -> Any:
        rows = [torch.as_tensor(row, dtype=dtype) for row in rows]
        return torch.nested.as_nested_tensor(rows, layout=torch.jagged)

    float_type = dtype or torch.float32
    lengths = [len(s.response) for s in samples]
    masks = nested([s.mask for s in samples], torch.int64)
    tensors = {
        "prompts": nested([s.prompt for s in samples], torch.int64),
        "responses": nested([s.response for s in samples], torch.int64),
        "input_ids": nested([[*s.prompt, *s.response] for s in samples], torch.int64),
        "position_ids": nested(
            [range(len(s.prompt) + len(s.response)) for s in samples], torch.int64
        ),
        "response_mask": masks,
        "loss_mask": masks,
        "old_log_probs": nested([s.old_log_probs for s in samples], float_type),
        "advantages": nested(
            [[s.advantage] * n for s, n in zip(samples, lengths, strict=True)], float_type
        ),
    }
    if samples[0].record is not None:
        tensors[RECORD_FIELD] = nested([s.record.to_tensor() for s in samples], torch.int64)
    if samples[0].thoughts is not None:
        tensors[THOUGHT_FIELD] = nested([s.thoughts.to_tensor() for s in samples], torch.uint8)
    plain = {
        "temperature": 1.0,
        "global_batch_size": len(samples),
        "calculate_entropy": False,
        "use_fused_kernels": False,
        **settings,
    }
    return tu.get_tensordict(tensor_dict=tensors, non_tensor_dict=plain)
