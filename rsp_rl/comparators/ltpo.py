"""LTPO: the soft prompt of each problem optimised at test time on the model's own confidence.

Ye, Liang, Shan: "Thinking on the Fly", arXiv 2510.04182. The vectors start as the placeholders'
embeddings. Each step perturbs them with Gaussian noise (the policy N(H, sigma^2 I)), asks the
frozen model how confident it is at them, and moves them along the policy gradient; sigma decays.
No text is generated meanwhile and nothing is differentiated.

The details are those of the authors' code (`ltpo.py`): the reward is averaged over the L positions
and the one after them; there is no baseline; what is kept is H *after* the update of the step whose
candidate had the highest reward. Their prompt is not used: all methods are compared in one
template, and the infix position has LTPO's description of the special tokens.

Shape suffixes: `_LD` soft prompt, `_NV` logits of N positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

from rsp_rl.basics.errors import ConfigError
from rsp_rl.dials.options import RspOptions
from rsp_rl.inference.soft_prompts import Comparator, HostModel
from rsp_rl.placement.prompt import Position

if TYPE_CHECKING:
    from rsp_rl.inference.requests import Request

#: Added to probabilities before their logarithm, as in the authors' code: bounds the reward.
_FLOOR = 1e-10


@dataclass(frozen=True)
class Ltpo(Comparator):
    """Settings; defaults are those of the authors' `main.py`.

    Their script for AIME 2024 with Llama-3.1-8B-Instruct has 8 vectors, sigma 4, decay 0.9 and
    learning rate 0.04. The RSP paper's (its Table 8) are in `rsp_rl.comparators.presets`.

    Attributes:
        sigma: Standard deviation of the first step's noise.
        sigma_decay: Factor of sigma from step to step.
        learning_rate: Of the policy gradient.
        steps: Forwards a sample.
        top_k: Most probable tokens that make a position's confidence.
        preset: Whose those of them are that were not set one by one.
    """

    method: ClassVar[str] = "ltpo"
    length: ClassVar[int] = 10
    position: ClassVar[Position] = "infix"
    uses_seed: ClassVar[bool] = True

    sigma: float = 0.1
    sigma_decay: float = 0.99
    learning_rate: float = 0.03
    steps: int = 10
    top_k: int = 10
    preset: str = "authors"

    def __post_init__(self) -> None:
        for name in ("sigma", "sigma_decay", "learning_rate"):
            if not (value := getattr(self, name)) > 0 or not math.isfinite(value):
                raise ConfigError(f"comparator.{name}={value!r} must be a number above 0")
        for name in ("steps", "top_k"):
            if getattr(self, name) < 1:
                raise ConfigError(f"comparator.{name}={getattr(self, name)!r} must be at least 1")

    def check(self, model: Path, rsp: RspOptions) -> None:
        """See `Comparator.check`."""
        from transformers import AutoConfig  # here: the settings alone need no transformers

        vocabulary = AutoConfig.from_pretrained(model).get_text_config().vocab_size
        if self.top_k > vocabulary:
            raise ConfigError(
                f"comparator.top_k={self.top_k} is more than the {vocabulary} tokens of {model}"
            )

    def start(self, host: HostModel) -> LtpoSoftPrompts:
        """See `Comparator.start`."""
        return LtpoSoftPrompts(self, host)


@dataclass(frozen=True)
class Course:
    """How an optimisation went.

    Attributes:
        rows: The vectors to be used, float32 [L, d].
        rewards: Of each step's candidate.
    """

    rows: torch.Tensor
    rewards: list[float]


def confidence(logits_NV: torch.Tensor, top_k: int) -> torch.Tensor:
    """LTPO's reward: minus the mean log-probability of the k most probable tokens, in nats.

    High where the model is sure: one token has nearly everything, the others next to nothing.

    Args:
        logits_NV: float32.
        top_k: k.

    Returns:
        The mean over the N positions, a scalar.
    """
    probabilities = torch.softmax(logits_NV, dim=-1).topk(top_k, dim=-1).values
    return -(probabilities + _FLOOR).log().mean()


def policy_gradient(noise_LD: torch.Tensor, reward: float, sigma: float) -> torch.Tensor:
    """REINFORCE's estimate from one candidate, H + noise: R grad_H log N(H + noise; H, sigma^2).

    The gradient of a normal log-density with respect to its mean is noise / sigma^2.
    """
    return reward * noise_LD / sigma**2


def optimise(
    reward_of: Callable[[torch.Tensor], float], rows_LD: torch.Tensor, settings: Ltpo, seed: int
) -> Course:
    """Optimise the vectors of one soft prompt.

    Args:
        reward_of: Reward of a candidate, [L, d].
        rows_LD: Where to start from, float32.
        settings: Of the method.
        seed: Of the noise, which is drawn on the CPU: the same on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    sigma, best, kept_LD, rewards = settings.sigma, -math.inf, rows_LD, []
    for _ in range(settings.steps):
        noise_LD = sigma * torch.randn(rows_LD.shape, generator=generator)
        rewards.append(reward_of(rows_LD + noise_LD))
        step_LD = policy_gradient(noise_LD, rewards[-1], sigma)
        rows_LD = rows_LD + settings.learning_rate * step_LD
        sigma *= settings.sigma_decay
        if rewards[-1] > best:
            best, kept_LD = rewards[-1], rows_LD
    return Course(kept_LD, rewards)


class LtpoSoftPrompts:
    """Optimises each request's soft prompt; see `SoftPrompts`."""

    def __init__(self, settings: Ltpo, host: HostModel) -> None:
        self._settings, self._host = settings, host

    def rows(self, request: Request) -> torch.Tensor:
        """See `SoftPrompts.rows`."""
        return self.optimise(request).rows

    @torch.no_grad()
    def optimise(self, request: Request) -> Course:
        """The course of a request's soft prompt; its noise comes from the record's seed."""
        record = request.record
        placeholders = torch.tensor(
            request.token_ids[record.start : record.start + record.length],
            device=self._host.network.device,
        )
        start_LD = self._host.network.get_input_embeddings()(placeholders)
        return optimise(
            lambda rows_LD: self.reward(request, rows_LD),
            start_LD.float().cpu(),
            self._settings,
            record.seed,
        )

    @torch.no_grad()
    def reward(self, request: Request, rows_LD: torch.Tensor) -> float:
        """Confidence at the soft prompt and at the token after it, where there is one.

        Later tokens are left out of the forward: nothing before them can see them.
        """
        start, end = request.record.start, request.record.start + request.record.length
        token_ids = request.token_ids[: end + 1]
        logits_NV = self._host.logits(token_ids, start, rows_LD, len(token_ids) - start)
        return float(confidence(logits_NV, self._settings.top_k))
