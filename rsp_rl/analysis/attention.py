"""Where attention goes: mass on soft prompt and question keys, and Theorem 1's bound on the former.

Measured inside transformers' attention interface, which every layer calls with its queries and
keys after RoPE. The weights of one block of queries exist at a time, those of all queries of a
layer never; what is kept is a number a head and query.

Shape suffixes: `_HTD` heads, positions, head size; `_GTD` key-value heads; `_HBT` a block of
queries by keys; `_HQ` heads and measured queries.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import AttentionInterface, PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from rsp_rl.basics.errors import ConfigError

#: transformers' name for sdpa with the recorder beside it.
MEASURED = "rsp_rl_measured"

_BLOCK = 128
"""Queries whose weights exist at once."""


@dataclass(frozen=True)
class LayerMass:
    """One layer's attention, by head and query, from the first query behind the soft prompt on.

    Attributes:
        soft_prompt: w_r,i, the weights on the L soft prompt keys together (paper, Eq. 2), [H, Q].
        question: The weights on the question's keys together, [H, Q].
        bound: Theorem 1's for the former, [H, Q].
    """

    soft_prompt: torch.Tensor
    question: torch.Tensor
    bound: torch.Tensor


class AttentionRecorder:
    """Collects every layer's `LayerMass` of one sequence.

    Args:
        start: First soft prompt position.
        length: L, at least 1.
        question: Positions of the question's tokens.
    """

    def __init__(self, start: int, length: int, question: list[int]) -> None:
        self.start, self.length, self.question = start, length, question
        self.layers: dict[int, LayerMass] = {}

    @property
    def first_query(self) -> int:
        """Position of the first measured query: the first that sees the whole soft prompt."""
        return self.start + self.length

    def add(
        self, layer: int, query_HTD: torch.Tensor, key_GTD: torch.Tensor, scaling: float
    ) -> None:
        """Measure a layer; see `layer_mass`."""
        self.layers[layer] = layer_mass(
            query_HTD, key_GTD, scaling, self.start, self.length, self.question
        )


def layer_mass(
    query_HTD: torch.Tensor,
    key_GTD: torch.Tensor,
    scaling: float,
    start: int,
    length: int,
    question: list[int],
) -> LayerMass:
    """Mass and bound of every head and every query behind the soft prompt, in float64 on the CPU.

    Args:
        query_HTD: Queries after RoPE.
        key_GTD: Keys after RoPE; each is shared by H / G neighbouring heads.
        scaling: Of q.k, 1 / sqrt(d_head) in most models.
        start: First soft prompt position.
        length: L.
        question: Positions of the question's tokens.
    """
    heads, total, size = query_HTD.shape
    groups = key_GTD.shape[0]
    query_GRTD = query_HTD.float().reshape(groups, heads // groups, total, size)
    is_soft_T = torch.zeros(total, dtype=torch.bool, device=query_HTD.device)
    is_soft_T[start : start + length] = True
    is_question_T = torch.zeros_like(is_soft_T)
    is_question_T[question] = True
    blocks = []
    for first in range(start + length, total, _BLOCK):
        positions_B = torch.arange(first, min(first + _BLOCK, total), device=query_HTD.device)
        seen_BT = torch.arange(total, device=query_HTD.device) <= positions_B[:, None]
        scores_GRBT = query_GRTD[:, :, positions_B] @ key_GTD.float()[:, None].transpose(2, 3)
        # float64 from here on: the bound must not be broken by rounding.
        scores_HBT = scores_GRBT.reshape(heads, -1, total).double() * scaling
        all_keys = _log_sum(scores_HBT, seen_BT)
        soft = _log_sum(scores_HBT, seen_BT & is_soft_T) - all_keys
        asked = _log_sum(scores_HBT, seen_BT & is_question_T) - all_keys
        real_BT = seen_BT & ~is_soft_T
        least_real = scores_HBT.masked_fill(~real_BT, torch.inf).amin(-1)
        most_soft = scores_HBT.masked_fill(~is_soft_T, -torch.inf).amax(-1)
        bound = mass_bound(least_real - most_soft, real_BT.sum(-1), length)
        blocks.append(torch.stack([soft.exp(), asked.exp(), bound]).cpu())
    return LayerMass(*torch.cat(blocks, dim=-1))


def _log_sum(scores_HBT: torch.Tensor, keys_BT: torch.Tensor) -> torch.Tensor:
    return scores_HBT.masked_fill(~keys_BT, -torch.inf).logsumexp(-1)


def mass_bound(margin: torch.Tensor, real_keys: torch.Tensor, length: int) -> torch.Tensor:
    """Theorem 1: w_r,i <= L / (L + n exp(Delta_i / sqrt(d_head))).

    Equality if and only if all real keys score alike and all soft prompt keys do. Strictly
    decreasing in n.

    Args:
        margin: Delta_i / sqrt(d_head), the least score of a real key less the largest of a soft
            prompt key, float64.
        real_keys: n, keys that query i sees and that are not the soft prompt's, at least 1.
        length: L.
    """
    # L / (L + n e^m) = 1 / (1 + e^(m + ln n - ln L)), which does not overflow.
    return torch.sigmoid(torch.log(length / real_keys.to(margin)) - margin)


def _measured_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    attention_recorder: AttentionRecorder | None = None,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """sdpa for the model; queries [1, H, T, D] and keys [1, G, T, D] for the recorder as well."""
    if attention_recorder is not None:
        _check_plain(query.shape[2], attention_mask, kwargs)
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        attention_recorder.add(module.layer_idx, query[0], key[0], scale)
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, **kwargs
    )


AttentionInterface.register(MEASURED, _measured_attention)


def _check_plain(length: int, mask: torch.Tensor | None, arguments: dict[str, object]) -> None:
    """Refuse attention that is no causal softmax of q.k over all keys."""
    window = arguments.get("sliding_window")
    for name, found in (
        ("a mask of its own", mask is not None),
        ("a cap on its scores", arguments.get("softcap") is not None),
        ("attention sinks", arguments.get("s_aux") is not None),
        (f"a sliding window of {window} keys", window is not None and window < length),
    ):
        if found:
            raise ConfigError(
                f"this model's attention has {name}; mass and bound are defined for full causal "
                "attention"
            )


def check_rotary(config: PretrainedConfig) -> None:
    """Refuse models without RoPE, whose positions are not in queries and keys.

    Raises:
        ConfigError: Naming the architecture.
    """
    if not getattr(config.get_text_config(), "rope_parameters", None):
        raise ConfigError(
            f"model type {config.model_type!r} has no rotary position embeddings (RoPE); the "
            "attention analysis supports decoder models with RoPE alone: with learned, relative or "
            "ALiBi positions q.k is not all that its attention scores"
        )


def check_all_recorded(recorder: AttentionRecorder, config: PretrainedConfig) -> None:
    """Make sure that every layer was measured.

    Raises:
        ConfigError: If the architecture does not use transformers' attention interface in all.
    """
    layers = config.get_text_config().num_hidden_layers
    if len(recorder.layers) != layers:
        raise ConfigError(
            f"model type {config.model_type!r} gave queries and keys of {len(recorder.layers)} of "
            f"its {layers} layers; the attention analysis needs transformers' attention interface "
            "in all of them"
        )
