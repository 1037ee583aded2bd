"""A batch's sequence as it grows: one key-value cache, whichever weights make its next columns.

Shapes: B rows, T columns, d width.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from rsp_rl.latent.ccot.adapters import Adapters, Weights


class _ReachedError(Exception):
    """A forward pass has come to the last layer that is wanted."""


class Stream:
    """Rows of unequal length, padded in any column.

    Positions count a row's real columns, whatever made them: thoughts have the consecutive ones
    after the question's (ours; the paper does not say).

    Args:
        adapters: The model and its adapters.
        rows: B.
    """

    def __init__(self, adapters: Adapters, rows: int) -> None:
        self._adapters = adapters
        self._cache = DynamicCache(config=adapters.model.config)
        self._real_BT = torch.zeros((rows, 0), dtype=torch.long, device=adapters.device)

    def feed(
        self,
        weights: Weights,
        inputs_BTd: torch.Tensor,
        real_BT: torch.Tensor,
        layers: Collection[int],
    ) -> dict[int, torch.Tensor]:
        """Hidden states [B, T, d] of new columns, by layer.

        No layer above the highest of these is computed, and none has these columns in its cache.

        Args:
            weights: What runs.
            inputs_BTd: What stands in place of embeddings.
            real_BT: Which columns are a row's own; nothing sees the others.
            layers: Which are wanted, 1 to L.
        """
        real_BT = real_BT.long()
        before_B1 = self._real_BT.sum(dim=1, keepdim=True)
        positions_BT = (before_B1 + real_BT.cumsum(dim=1) - 1).clamp(min=0)
        self._real_BT = torch.cat([self._real_BT, real_BT], dim=1)
        self._adapters.use(weights)
        with _kept(self._adapters.blocks, layers) as states:
            try:
                output = self._adapters.model.base_model(
                    inputs_embeds=inputs_BTd,
                    attention_mask=self._real_BT,
                    position_ids=positions_BT,
                    past_key_values=self._cache,
                    use_cache=True,
                )
                states[self._adapters.layers] = output.last_hidden_state
            except _ReachedError:
                pass
        return states

    def back_to(self, columns: int) -> None:
        """Forget all columns but the first ones."""
        for layer in self._cache.layers:  # those that no pass has come to are empty
            if layer.is_initialized:
                layer.crop(columns)
        self._real_BT = self._real_BT[:, :columns]


@contextmanager
def _kept(blocks: nn.ModuleList, layers: Collection[int]) -> Iterator[dict[int, torch.Tensor]]:
    """Keep what some blocks put out while this lasts, and stop after the highest of them.

    The last layer's is the model's own output, after the final norm.
    """
    states: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(block: nn.Module, inputs: Any, output: Any) -> None:
            states[layer] = output[0] if isinstance(output, tuple) else output
            if layer == max(layers):
                raise _ReachedError

        return hook

    inner = [layer for layer in layers if layer < len(blocks)]
    handles = [blocks[layer - 1].register_forward_hook(keep(layer)) for layer in inner]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()
