"""What takes the place of two parts of the GPU stack on a CPU, so that the rest can be checked.

Both change module globals and are for a check's own process only, never for a run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.fsdp import FullyShardedDataParallel

from parity.layouts import ActorLayout

FSDP1 = "weights loaded on every rank (FSDP1 broadcasts them from GPU memory only)"
FLASH = "torch's attention in place of the flash-attention kernel"

#: The attention's name; without "flash" in it, at which transformers looks for the kernels.
ATTENTION = "ulysses_sdpa"


def needed_by(layout: ActorLayout) -> list[str]:
    """The stand-ins that a layout needs where there is no GPU."""
    return [FSDP1] * (layout.strategy == "fsdp") + [FLASH] * (layout.ulysses > 1)


def overrides(names: list[str]) -> list[str]:
    """Config overrides that go along with stand-ins."""
    attention = "actor_rollout_ref.model.override_config.attn_implementation"
    return [f"{attention}={ATTENTION}"] if FLASH in names else []


def put_in_place(names: list[str]) -> None:
    """Make verl use these stand-ins in this process."""
    if FSDP1 in names:
        load_weights_on_every_rank()
    if FLASH in names:
        register_flash_attention_stand_in()


def load_weights_on_every_rank() -> None:
    """Let verl's FSDP1 engine take CPU modules.

    verl loads weights on rank 0 and has FSDP1 broadcast them (`sync_module_states`), which it does
    from GPU memory only. All else in the engine stays verl's.
    """
    from verl.workers.engine.fsdp import transformer_impl

    class LocalWeightsFSDP(FullyShardedDataParallel):
        def __init__(self, *args: Any, sync_module_states: bool, **kwargs: Any) -> None:
            super().__init__(*args, sync_module_states=False, **kwargs)

    on_cpu = transformer_impl.get_init_weight_context_manager
    transformer_impl.get_init_weight_context_manager = lambda use_meta_tensor, mesh: on_cpu(
        use_meta_tensor=False, mesh=mesh
    )
    transformer_impl.FSDP = LocalWeightsFSDP


def register_flash_attention_stand_in() -> None:
    """Let verl's Ulysses attention run without flash attention.

    transformers' flash-attention path, with verl's all-to-all round the kernel, is registered under
    a name of its own; only the kernel itself is torch's.
    """
    from transformers import AttentionInterface
    from transformers.integrations.flash_attention import flash_attention_forward
    from verl.models.transformers import monkey_patch

    AttentionInterface.register(ATTENTION, flash_attention_forward)
    monkey_patch._flash_attention_forward = packed_attention


def packed_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    query_length: int,
    *,
    position_ids: torch.Tensor,
    softmax_scale: float | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    """Causal attention within the sequences of one packed row, which begin at position 0.

    Args:
        query: [1, T, heads, head_dim]; `key` and `value` may have fewer heads.
        key: See `query`.
        value: See `query`.
        attention_mask: None: a packed row has no padding.
        query_length: T.
        position_ids: int [1, T], from 0 in each sequence.
        softmax_scale: Factor of the scores.
        **kwargs: transformers' other arguments, none of which this model uses.
    """
    sequence_T = (position_ids[0] == 0).cumsum(0)
    mask_TT = (sequence_T[:, None] == sequence_T[None, :]).tril()
    output = torch.nn.functional.scaled_dot_product_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        attn_mask=mask_TT,
        scale=softmax_scale,
        enable_gqa=True,
    )
    return output.transpose(1, 2)
