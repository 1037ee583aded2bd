"""What a model makes of a thought, beside what it would make of the thought's single tokens.

At a position of a recorded trace the model reads, after the very same inputs, the mixture, and in
its place each of the mixture's three heaviest tokens alone. Of the four:

- the Jensen-Shannon divergence (base 2) between the next-token distribution after the mixture and
  after each token;
- by layer, the share of the ten likeliest tokens of the logit lens (final norm and output
  embedding on the layer's hidden state; nostalgebraist 2020) that mixture and token have in common.

Probes of "LLMs are Single-threaded Reasoners" (arXiv 2508.03440).

Shape suffixes: `_T` prompt, `_C` the mixture and its tokens, `_CV` with the vocabulary, `_LC` with
the layers in front.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Tokens of a mixture that are tried alone.
ALONE = 3

_LENS = 10


@dataclass(frozen=True)
class Mixture:
    """A thought.

    Attributes:
        ids: Its tokens, the heaviest first.
        weights: Theirs, positive.
    """

    ids: list[int]
    weights: list[float]

    @classmethod
    def of(cls, ids: Sequence[int], weights: Sequence[float]) -> Mixture:
        """Sorted, duplicates merged, weights' sum 1."""
        merged: dict[int, float] = {}
        for token, weight in zip(ids, weights, strict=True):
            merged[token] = merged.get(token, 0.0) + weight
        total = sum(merged.values())
        heaviest = sorted(merged, key=merged.__getitem__, reverse=True)
        kept = [token for token in heaviest if merged[token] > 0]
        return cls(kept, [merged[token] / total for token in kept])

    @property
    def entropy(self) -> float:
        """In nats."""
        p = np.array(self.weights)
        return float(-(p * np.log(p)).sum())


@dataclass(frozen=True)
class Probe:
    """One thought.

    Attributes:
        position: Its number in the trace, from 0.
        entropy: Of its weights, in nats.
        divergences: To each of its tokens alone, in base 2; NaN where it has fewer.
        overlaps: By layer, the embedding's first, and token: float64 [layers + 1, 3].
    """

    position: int
    entropy: float
    divergences: np.ndarray
    overlaps: np.ndarray


@torch.inference_mode()
def probe(
    model: PreTrainedModel,
    prompt_T: torch.Tensor,
    trace: Sequence[Mixture],
    at: Collection[int],
) -> Iterator[Probe]:
    """Probe some thoughts of a trace, which begins right after its prompt.

    Args:
        model: That left the trace.
        prompt_T: Its prompt's embeddings, soft prompt included, [T, d].
        trace: All of its thoughts up to the last that is probed.
        at: Their numbers.

    Yields:
        In the trace's order.
    """
    table = model.get_input_embeddings()
    cache = model(inputs_embeds=prompt_T[None], use_cache=True, logits_to_keep=1).past_key_values
    for position, mixture in enumerate(trace):
        if position > max(at, default=-1):
            return
        rows = [_mixed(table, mixture)]
        if position in at:
            alone = torch.tensor(mixture.ids[:ALONE], device=prompt_T.device)
            rows += list(table(alone))
            # A copy: what is tried alone must leave no trace in the keys and values.
            tried = copy.deepcopy(cache)
            tried.batch_repeat_interleave(len(rows))
            output = model(
                inputs_embeds=torch.stack(rows)[:, None],
                past_key_values=tried,
                output_hidden_states=True,
            )
            yield Probe(
                position,
                mixture.entropy,
                _padded(_divergences(output.logits[:, 0])),
                _padded(_overlaps(model, [state[:, 0] for state in output.hidden_states])),
            )
        cache = model(
            inputs_embeds=rows[0][None, None], past_key_values=cache, use_cache=True
        ).past_key_values


def _mixed(table: torch.nn.Module, mixture: Mixture) -> torch.Tensor:
    rows_KD = table(torch.tensor(mixture.ids, device=table.weight.device))
    weights_K = torch.tensor(mixture.weights, device=rows_KD.device)
    return (weights_K[:, None] * rows_KD.float()).sum(0).to(rows_KD.dtype)


def _divergences(logits_CV: torch.Tensor) -> np.ndarray:
    """Of the first row to all others."""
    p_CV = torch.softmax(logits_CV.double(), dim=1)
    middle_CV = (p_CV[:1] + p_CV[1:]) / 2
    nats_C = (
        torch.special.entr(middle_CV).sum(1)
        - (torch.special.entr(p_CV[0]).sum() + torch.special.entr(p_CV[1:]).sum(1)) / 2
    )
    return (nats_C / np.log(2)).clamp_min(0).cpu().numpy()


def _overlaps(model: PreTrainedModel, states: Sequence[torch.Tensor]) -> np.ndarray:
    """By layer, [layers + 1, C - 1]; the last hidden state has passed the final norm already."""
    norm, head = _final_norm(model), model.get_output_embeddings()
    shares = []
    for number, state_CD in enumerate(states):
        normed_CD = state_CD if number == len(states) - 1 else norm(state_CD)
        top_CK = head(normed_CD).topk(_LENS, dim=1).indices.tolist()
        own = set(top_CK[0])
        shares.append([len(own & set(other)) / _LENS for other in top_CK[1:]])
    return np.array(shares, dtype=np.float64).reshape(len(states), -1)


def _final_norm(model: PreTrainedModel) -> torch.nn.Module:
    """What stands between the last layer and the output embedding.

    Raises:
        ValueError: If it is under no name that is known.
    """
    body = model.base_model
    for name in ("norm", "ln_f", "final_layernorm", "final_layer_norm"):
        if isinstance(found := getattr(body, name, None), torch.nn.Module):
            return found
    raise ValueError(f"{type(body).__name__} has no final norm under a known name")


def _padded(values: np.ndarray) -> np.ndarray:
    missing = ALONE - values.shape[-1]
    widths = [(0, 0)] * (values.ndim - 1) + [(0, missing)]
    return np.pad(values.astype(np.float64), widths, constant_values=np.nan)
