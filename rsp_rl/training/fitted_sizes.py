"""Sizes that have one right value for a model: they get it before Ray starts, and it is said."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, open_dict

from rsp_rl.basics.errors import ConfigError

logger = logging.getLogger(__name__)

#: fp32, the widest that a rank sends.
_BYTES_A_NUMBER = 4
_MIB = 1 << 20


def fit_context(config: DictConfig) -> None:
    """Let vLLM's batches hold what is prefilled at once, in place.

    Without chunked prefill that is a whole context. verl takes the model's, 32,768 tokens and more,
    and fails on its own mend for it; a run needs prompt and response.

    Raises:
        ConfigError: If a batch has fewer tokens than sequences.
    """
    rollout = config.actor_rollout_ref.rollout
    if not rollout.enable_chunked_prefill:
        if rollout.max_model_len is None:
            rollout.max_model_len = rollout.prompt_length + rollout.response_length
        if rollout.max_num_batched_tokens < rollout.max_model_len:
            logger.warning(
                "actor_rollout_ref.rollout.max_num_batched_tokens=%s is below the context of %s "
                "tokens, which come at once without chunked prefill; raised to that",
                rollout.max_num_batched_tokens,
                rollout.max_model_len,
            )
            rollout.max_num_batched_tokens = rollout.max_model_len
    if rollout.max_num_batched_tokens < rollout.max_num_seqs:
        raise ConfigError(
            f"actor_rollout_ref.rollout.max_num_batched_tokens={rollout.max_num_batched_tokens} "
            f"is below max_num_seqs={rollout.max_num_seqs}, a token each; raise the former or "
            "lower the latter"
        )


def fit_bucket(config: DictConfig, model: Path) -> None:
    """Make room for the largest weight where weights go through shared memory, in place.

    On a GPU verl sends a weight that exceeds the bucket by itself.

    Args:
        config: The composed config.
        model: The model's folder.
    """
    if config.trainer.device != "cpu":
        return
    name, numbers = max(weight_sizes(model), key=lambda weight: weight[1], default=("", 0))
    needed = -(-numbers * _BYTES_A_NUMBER // _MIB)
    engine = config.actor_rollout_ref.rollout.checkpoint_engine
    if engine.update_weights_bucket_megabytes < needed:
        logger.warning(
            "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes=%s does "
            "not hold %s; raised to its %s MiB",
            engine.update_weights_bucket_megabytes,
            name,
            needed,
        )
        with open_dict(config):
            engine.update_weights_bucket_megabytes = needed


def weight_sizes(model: Path) -> Iterator[tuple[str, int]]:
    """Name and count of numbers of each weight, from the headers of its safetensors files."""
    for file in sorted(model.glob("*.safetensors")):
        with file.open("rb") as weights:
            size = int.from_bytes(weights.read(8), "little")
            header = json.loads(weights.read(size))
        for name, tensor in header.items():
            if name != "__metadata__":
                count = 1
                for width in tensor["shape"]:
                    count *= width
                yield name, count
