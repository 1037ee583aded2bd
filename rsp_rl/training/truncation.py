"""Truncated sampling: what top-k and top-p leave of a distribution.

With top-k 50 a rollout samples from the policy renormalised over 50 tokens, while the loss is about
the whole policy. For a sampled token the two log-probs differ by -log(mass), mass being what the
whole policy gives to all tokens that could have been sampled: a gap of one sign that has nothing to
do with soft prompts. The actor computes it beside its log-probs, from the same logits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

#: Field of a training sample: log of the mass at each token's position, float [T].
LOG_MASS_FIELD = "rsp_log_mass"

#: Setting of a batch: the truncation to compute it for, `(top_k, top_p)`; absent for none.
TRUNCATION_KEY = "rsp_truncation"

#: Tokens whose fp32 logits exist at once.
_CHUNK_TOKENS = 1024


@dataclass(frozen=True)
class Truncation:
    """How a rollout truncates its sampling distribution.

    Attributes:
        top_k: Number of tokens kept; below 1 all of them (vLLM's -1).
        top_p: Then the fewest of these whose renormalised probabilities reach this sum.
    """

    top_k: int = -1
    top_p: float = 1.0

    @classmethod
    def of(cls, rollout: Mapping[str, Any]) -> Truncation:
        """That of `actor_rollout_ref.rollout`."""
        return cls(int(rollout["top_k"]), float(rollout["top_p"]))

    @property
    def enabled(self) -> bool:
        """Whether it keeps less than everything."""
        return self.top_k > 0 or self.top_p < 1


def log_mass(
    logits_TV: torch.Tensor, temperature_T: torch.Tensor, truncation: Truncation
) -> torch.Tensor:
    """Log of the probability that truncation keeps, at each position.

    As vLLM truncates (`apply_top_k_top_p`): top-k first, then top-p within it, at least one token.

    Args:
        logits_TV: [T, V], any float dtype.
        temperature_T: [T], above 0; the logits are divided by it first.
        truncation: What is kept.

    Returns:
        float32 [T], at most 0.
    """
    import torch  # here: the settings alone need no torch

    chunks = zip(logits_TV.split(_CHUNK_TOKENS), temperature_T.split(_CHUNK_TOKENS), strict=True)
    return torch.cat(
        [_log_mass(logits.float() / by[:, None].float(), truncation) for logits, by in chunks]
    )


def _log_mass(logits_TV: torch.Tensor, truncation: Truncation) -> torch.Tensor:
    vocab_size = logits_TV.shape[-1]
    kept = min(truncation.top_k, vocab_size) if truncation.top_k > 0 else vocab_size
    # Descending; -inf (a masked token) stays at the end and adds nothing.
    values_TK = logits_TV.topk(kept).values
    if truncation.top_p < 1:
        probabilities_TK = values_TK.softmax(-1)
        before_TK = probabilities_TK.cumsum(-1) - probabilities_TK
        dropped_TK = before_TK >= truncation.top_p
        dropped_TK[..., 0] = False
        values_TK = values_TK.masked_fill(dropped_TK, -math.inf)
    return (values_TK.logsumexp(-1) - logits_TV.logsumexp(-1)).clamp(max=0)
