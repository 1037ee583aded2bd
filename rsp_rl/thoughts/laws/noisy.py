"""Soft and fuzzy tokens (Soft Tokens, Hard Truths, arXiv 2509.19170).

The input is h = p E + s n with p = softmax(z / tau) over the whole vocabulary and n ~ N(0, I_d)
(Eq. 6); its log-density is -|h - p E|^2 / (2 s^2) plus a constant (Eq. 7). Soft tokens have tau .5;
fuzzy ones 1e-4, so that p is the likeliest token but for near ties.

The paper's s is .33 of the embeddings' root-mean-square norm, which can be read in two ways: of an
entry, with noise as long as a third of an embedding, or of a row, with noise sqrt(d) times that.
The former is the default, because the paper calls its noise smaller than embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from rsp_rl.basics.errors import ConfigError
from rsp_rl.thoughts.law import (
    Embedding,
    InputLaw,
    Moment,
    check_choice,
    check_number,
    check_temperature,
)
from rsp_rl.thoughts.noise import Noise
from rsp_rl.thoughts.rows import Kind, Rows

CONVENTIONS = ("entry", "row")


@dataclass(frozen=True)
class Soft(InputLaw):
    """A mixture of all tokens, plus noise; the likeliest token is emitted, and feeds nothing.

    Attributes:
        tau: Temperature of the mixture, 1e-6 to 1e6.
        sigma: Noise in units of the embeddings' root-mean-square, at most 10,000; 0 for none.
        convention: Of an `entry`, or of a `row`.
        rms: Root-mean-square of the pretrained table's entries, as they are stored; filled in from
            the model.
        learn_embedding: Whether the score has a gradient into E too, as in Eq. 10, or into p alone.
    """

    tau: float = 0.5
    sigma: float = 0.33
    convention: str = "entry"
    rms: float | None = None
    learn_embedding: bool = True

    name = "soft"
    kind = Kind.MIX_NOISE
    dense = True
    mixes_all = True
    emits_likeliest = True
    scores_noise = True
    source = "arXiv 2509.19170"

    def __post_init__(self) -> None:
        check_temperature("tau", self.tau)
        check_number("sigma", self.sigma, least=0, most=1e4)
        check_choice("convention", self.convention, CONVENTIONS)
        if self.rms is not None:
            check_number("rms", self.rms, above=0, most=1e4)

    @property
    def slots(self) -> int:
        """The one that is emitted."""
        return 1

    @property
    def deterministic(self) -> bool:
        """Without noise it is."""
        return self.sigma == 0

    def scale(self, hidden_size: int, factor: float) -> float:
        """s, the standard deviation of the noise.

        Args:
            hidden_size: d.
            factor: What the model multiplies its table's rows by.

        Raises:
            ConfigError: If it depends on a table whose root-mean-square is not filled in.
        """
        if self.sigma == 0:
            return 0.0
        if self.rms is None:
            raise ConfigError("law.rms is not known; give the root-mean-square of the table")
        rms = factor * self.rms * (hidden_size**0.5 if self.convention == "row" else 1.0)
        return self.sigma * rms

    def step(self, moment: Moment) -> Rows:
        """See `InputLaw.step`; what is recorded is the input in the model's dtype."""
        ids_N1 = moment.logits_NV.argmax(1, keepdim=True)
        p_NV = torch.softmax(moment.logits_NV.float() / self.tau, dim=1)
        mean_ND = moment.embedding.mixture(p_NV)
        index_D = torch.arange(mean_ND.shape[1], device=mean_ND.device)
        if scale := self.scale(len(index_D), moment.embedding.factor):
            mean_ND = mean_ND + scale * moment.noise.normal(0, index_D)
        # Rounded here, so that engine and trainer have the same.
        dense_ND = mean_ND.to(moment.embedding.rows(ids_N1).dtype)
        values_N1 = torch.ones(len(ids_N1), 1, device=ids_N1.device)
        return Rows.of_kind(self.kind, ids_N1, values_N1, dense_ND)

    def weights(self, rows: Rows) -> torch.Tensor:
        """Of the emitted token: all, for want of the others."""
        return rows.values_NK

    def log_prob(
        self, rows: Rows, logits_NV: torch.Tensor, embedding: Embedding
    ) -> torch.Tensor | None:
        """The density without its constant, [N]; None without noise."""
        if self.sigma == 0:
            return None
        assert rows.dense_ND is not None
        p_NV = torch.softmax(logits_NV.float() / self.tau, dim=1)
        if self.learn_embedding:
            mean_ND = embedding.mixture(p_NV)
        else:
            mean_ND = _MixtureOfConstants.apply(p_NV, embedding)
        scale = self.scale(mean_ND.shape[1], embedding.factor)
        return -((rows.dense_ND.float() - mean_ND) ** 2).sum(1) / (2 * scale**2)

    def gap(
        self, rows: Rows, noise: Noise, logits_NV: torch.Tensor, embedding: Embedding
    ) -> torch.Tensor:
        """See `InputLaw.gap`: what is recorded less the noise is the p E of then."""
        assert rows.dense_ND is not None
        then_ND = rows.dense_ND.float()
        index_D = torch.arange(then_ND.shape[1], device=then_ND.device)
        if scale := self.scale(len(index_D), embedding.factor):
            then_ND = then_ND - scale * noise.normal(0, index_D)
        now_ND = embedding.mixture(torch.softmax(logits_NV.float() / self.tau, dim=1))
        return (now_ND - then_ND).norm(dim=1) / then_ND.norm(dim=1)


@dataclass(frozen=True)
class Fuzzy(Soft):
    """The likeliest token's embedding plus noise: soft tokens of a small tau."""

    tau: float = 1e-4

    name = "fuzzy"


class _MixtureOfConstants(torch.autograd.Function):
    """p E with a gradient into p alone, whatever the embedding is made of."""

    @staticmethod
    def forward(ctx: Any, p_NV: torch.Tensor, embedding: Embedding) -> torch.Tensor:
        """See the class, [N, d]."""
        with torch.enable_grad():
            ctx.p_NV = p_NV.detach().requires_grad_()
            ctx.mixed_ND = embedding.mixture(ctx.p_NV)
        return ctx.mixed_ND.detach()

    @staticmethod
    def backward(ctx: Any, gradient_ND: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Into p."""
        return torch.autograd.grad(ctx.mixed_ND, ctx.p_NV, gradient_ND)[0], None
