"""Attention of packed sequences one by one, where there is no flash attention.

torch's attention takes a packed micro-batch for one sequence: it computes the square of its length
and masks most of it. Cut at the sequences' borders it computes the squares of theirs alone, and
needs no mask.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_numbers = itertools.count()


class AttentionBySequence:
    """An attention implementation for transformers, told before each forward where to cut.

    Attributes:
        name: By which transformers knows it; each has its own, as a process may have an actor and a
            reference model with other packs.
        lengths: Tokens of each sequence, in order, and whatever else lies in the pack; None where
            the batch is padded, which goes transformers' own way.
    """

    def __init__(self) -> None:
        self.name = f"rsp_rl_sdpa_by_sequence_{next(_numbers)}"
        self.lengths: Sequence[int] | None = None

    def attach(self, model: PreTrainedModel) -> bool:
        """Make a model use it in place of `sdpa`.

        Returns:
            Whether it does; not where the model has another implementation, or windows, whose masks
            are more than causal.
        """
        config = model.config.get_text_config()
        windows = "sliding_attention" in (getattr(config, "layer_types", None) or ())
        if config._attn_implementation != "sdpa" or windows:
            return False
        AttentionInterface.register(self.name, self)
        AttentionMaskInterface.register(self.name, sdpa_mask)
        model.set_attn_implementation(self.name)
        return True

    def __call__(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **options: Any,
    ) -> tuple[torch.Tensor, None]:
        """Attention of one pack, or of a padded batch.

        Args:
            module: The attention module.
            query: [B, heads, T, head size]; B is 1 of a pack.
            key: [B, kv heads, T, head size].
            value: As `key`.
            attention_mask: As for `sdpa`; a pack's is of no use here.
            options: Those of transformers' own `sdpa`.

        Returns:
            [B, T, heads, head size], and no weights.

        Raises:
            ValueError: If the lengths are not this pack's.
        """
        if self.lengths is None:
            return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        if sum(self.lengths) != query.shape[2]:
            raise ValueError(
                f"a pack of {query.shape[2]} tokens came to sequences of {sum(self.lengths)} in all"
            )
        options["is_causal"] = True
        pieces = zip(*(x.split(self.lengths, dim=2) for x in (query, key, value)), strict=True)
        outputs = [sdpa_attention_forward(module, *piece, None, **options)[0] for piece in pieces]
        return torch.cat(outputs, dim=1), None
