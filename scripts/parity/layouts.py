"""The factors of the parity matrix, in vLLM's and verl's own settings."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

#: Tokens that vLLM prefills in one step with chunked prefill: less than any prompt of the matrix.
CHUNK = 64
#: Positions a block of vLLM's; its CPU attention takes multiples of 16 in 0.28.0, of 32 in 0.32.0.
BLOCK = 32
_MAX_MODEL_LENGTH = 512


@dataclass(frozen=True)
class RolloutLayout:
    """How vLLM generates.

    Attributes:
        tensor_parallel: Ranks that share the model.
        prefix_caching: Whether prompts share the blocks of a common beginning.
        chunked_prefill: Whether a prompt is prefilled `CHUNK` tokens at a time.
    """

    tensor_parallel: int
    prefix_caching: bool
    chunked_prefill: bool

    @property
    def name(self) -> str:
        """Unique, and fit for a file name."""
        return (
            f"tp{self.tensor_parallel}-prefix{self.prefix_caching:d}"
            f"-chunked{self.chunked_prefill:d}"
        )

    def engine_arguments(self) -> dict[str, Any]:
        """Keyword arguments of `vllm.LLM`, fp32 and eager."""
        from rsp_rl.injection.vllm_prompt import WORKER

        return {
            "dtype": "float32",
            "enforce_eager": True,
            "enable_prompt_embeds": True,
            "worker_cls": WORKER,
            "tensor_parallel_size": self.tensor_parallel,
            "enable_prefix_caching": self.prefix_caching,
            "enable_chunked_prefill": self.chunked_prefill,
            "max_num_batched_tokens": CHUNK if self.chunked_prefill else 2 * _MAX_MODEL_LENGTH,
            "max_num_seqs": 8,
            "max_model_len": _MAX_MODEL_LENGTH,
            "block_size": BLOCK,
            "disable_log_stats": False,
            "logprobs_mode": "processed_logprobs",
        }


@dataclass(frozen=True)
class ActorLayout:
    """How verl's actor computes log-probs and gradients.

    Attributes:
        strategy: verl's name, `fsdp` (FSDP1) or `fsdp2`.
        packed: Remove-padding: a micro-batch is one row; otherwise it is right-padded.
        ranks: Processes.
        ulysses: Sequence-parallel size, a divisor of `ranks`.
        checkpointing: Gradient checkpointing.
        lora: A base model with adapters, in place of a whole trained one.
        dynamic: Micro-batches by tokens instead of by samples.
    """

    strategy: str
    packed: bool
    ranks: int
    ulysses: int
    checkpointing: bool
    lora: bool
    dynamic: bool

    @property
    def name(self) -> str:
        """Unique, and fit for a file name."""
        return (
            f"{self.strategy}-{'packed' if self.packed else 'padded'}-ranks{self.ranks}"
            f"-ulysses{self.ulysses}-checkpointing{self.checkpointing:d}-lora{self.lora:d}"
            f"-dynamic{self.dynamic:d}"
        )

    def overrides(self) -> list[str]:
        """Hydra overrides of the `dapo_rsp` config."""
        actor, model = "actor_rollout_ref.actor", "actor_rollout_ref.model"
        # verl's Ulysses attention is there on transformers' flash-attention path only.
        attention = "flash_attention_2" if self.ulysses > 1 else "sdpa"
        return [
            f"{model}.override_config.attn_implementation={attention}",
            f"{actor}.strategy={self.strategy}",
            f"{actor}.fsdp_config.strategy={self.strategy}",
            # FSDP1 gives gradients by parameter only with the original ones.
            f"{actor}.fsdp_config.use_orig_params={self.strategy == 'fsdp'}",
            f"{actor}.fsdp_config.ulysses_sequence_parallel_size={self.ulysses}",
            f"{model}.use_remove_padding={self.packed}",
            f"{model}.enable_gradient_checkpointing={self.checkpointing}",
        ]

    def batch_settings(self) -> dict[str, Any]:
        """Non-tensor entries of the batch that the engine gets, in verl's names."""
        if self.dynamic:
            size = {"use_dynamic_bsz": True, "max_token_len_per_gpu": 768}
        else:
            size = {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 4}
        return {"use_remove_padding": self.packed, **size}


_ON_OFF = (False, True)
ROLLOUT_LAYOUTS = [RolloutLayout(*values) for values in itertools.product((1, 2), _ON_OFF, _ON_OFF)]
ACTOR_LAYOUTS = [
    ActorLayout(*values)
    for values in itertools.product(
        ("fsdp2", "fsdp"), (True, False), (1, 2, 4), (1, 2), _ON_OFF, _ON_OFF, _ON_OFF
    )
]
