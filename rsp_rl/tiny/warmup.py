"""Warm-up: supervised fine-tuning that gives RL a model with something left to find.

Most target solutions state the boxed answer directly, the others reason step by step. The model
therefore prefers the direct answer, which is right about half the time, although it can reason and
is nearly always right when it does: the reward gap that RL closes.

In most samples a few random tokens stand before the end of the user's turn. They carry nothing, and
teach the model to look past whatever stands there. Without that, a random soft prompt of a few
vectors would wreck so small a model, where it merely perturbs a real one.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

from rsp_rl.console.screen import bar
from rsp_rl.data import arithmetic
from rsp_rl.tiny.decoding import is_right, prompt_ids, respond
from rsp_rl.tiny.muon import Muon
from rsp_rl.tiny.tokenizer import END_OF_TURN

DIRECT_SHARE = 0.6
NOISE_SHARE = 0.6
MAX_NOISE_TOKENS = 20

BATCH_SIZE = 32
ADAM_LEARNING_RATE = 1.5e-3
MUON_LEARNING_RATE = 1e-2
FINAL_LEARNING_RATE_SHARE = 0.1
RAMP_STEPS = 50
MAX_GRAD_NORM = 1.0

POOL_SIZE = 4096
CHECK_PROBLEMS = 200
CHECK_EVERY = 100
IGNORED = -100
"""Label of a position without loss, as in ``torch.nn.functional.cross_entropy``."""


@dataclass(frozen=True)
class WarmupResult:
    """What a warm-up ended with.

    Attributes:
        loss: Mean cross-entropy (nats a response token) over the last tenth of the steps.
        greedy_accuracy: Share of held-out problems that greedy decoding answers rightly.
        sampled_accuracy: The same for one sample a problem at temperature 1.
        reasoned_accuracy: The same among those samples that reason step by step.
        seconds: Wall time.
    """

    loss: float
    greedy_accuracy: float
    sampled_accuracy: float
    reasoned_accuracy: float
    seconds: float


class WarmupSamples:
    """An endless stream of training batches from the warm-up split.

    Args:
        tokenizer: The tiny model's tokenizer.
        rng: Chooses problems, solution kinds and noise.
        pool_size: How many distinct problems to draw from.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, rng: np.random.Generator, pool_size: int
    ):
        problems = arithmetic.generate("warmup", pool_size)
        self._rng = rng
        self._prompts = prompt_ids(tokenizer, problems)
        self._direct = tokenizer([p.direct_solution + END_OF_TURN for p in problems]).input_ids
        self._reasoned = tokenizer([p.reasoned_solution + END_OF_TURN for p in problems]).input_ids
        # The last end-of-turn token of a prompt closes the user's turn; what follows is constant.
        self._tail = self._prompts[0][::-1].index(tokenizer.eos_token_id) + 1
        self._noise_tokens = np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)
        self._pad = tokenizer.pad_token_id

    def batches(self, batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yields ``(input_ids, labels)``, both int64 ``[batch_size, T]``, padded on the right.

        Labels are aligned with the inputs (not shifted): ``IGNORED`` on prompt and padding.
        """
        while True:
            samples = [self._sample() for _ in range(batch_size)]
            width = max(len(prompt) + len(response) for prompt, response in samples)
            input_ids = torch.full((batch_size, width), self._pad)
            labels = torch.full((batch_size, width), IGNORED)
            for row, (prompt, response) in enumerate(samples):
                end = len(prompt) + len(response)
                input_ids[row, :end] = torch.tensor(prompt + response)
                labels[row, len(prompt) : end] = torch.tensor(response)
            yield input_ids, labels

    def _sample(self) -> tuple[list[int], list[int]]:
        rng = self._rng
        index = rng.integers(len(self._prompts))
        prompt = self._prompts[index]
        if rng.random() < NOISE_SHARE:
            noise = rng.choice(self._noise_tokens, size=rng.integers(1, MAX_NOISE_TOKENS + 1))
            prompt = prompt[: -self._tail] + noise.tolist() + prompt[-self._tail :]
        solutions = self._direct if rng.random() < DIRECT_SHARE else self._reasoned
        return prompt, solutions[index]


def warm_up(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, *, steps: int, seed: int
) -> WarmupResult:
    """Trains the model in place, showing loss and held-out greedy accuracy on the way.

    Repeatable for a given seed, machine and thread count.

    Args:
        model: A fresh tiny model.
        tokenizer: Its tokenizer.
        steps: Optimiser steps, at least 1.
        seed: Order and noise of the training samples.
    """
    start = time.monotonic()
    pool_size = min(POOL_SIZE, steps * BATCH_SIZE)
    samples = WarmupSamples(tokenizer, np.random.default_rng(seed), pool_size)
    batches = samples.batches(BATCH_SIZE)
    heldout = arithmetic.generate("heldout", CHECK_PROBLEMS)
    optimizers = _optimizers(model)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda step: _learning_rate_share(step, steps))
        for o in optimizers
    ]
    losses = []
    shown: dict[str, str] = {}
    progress = bar(range(1, steps + 1), "warm-up", unit="step")
    for step in progress:
        loss = response_loss(model, *next(batches))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        for stepper in (*optimizers, *schedules):
            stepper.step()
        model.zero_grad()
        losses.append(loss.item())
        shown["loss"] = f"{losses[-1]:.3f}"
        if step % CHECK_EVERY == 0 and step < steps:
            greedy = _accuracy(respond(model, tokenizer, heldout), heldout)
            shown["greedy"] = f"{greedy:.3f}"
        progress.set_postfix(shown, refresh=False)

    sampled = respond(model, tokenizer, heldout, generator=torch.Generator().manual_seed(seed))
    reasoned = [(r, p) for r, p in zip(sampled, heldout, strict=True) if "=" in r]
    return WarmupResult(
        loss=float(np.mean(losses[-max(1, steps // 10) :])),
        greedy_accuracy=_accuracy(respond(model, tokenizer, heldout), heldout),
        sampled_accuracy=_accuracy(sampled, heldout),
        reasoned_accuracy=_accuracy(*zip(*reasoned, strict=True)) if reasoned else 0.0,
        seconds=time.monotonic() - start,
    )


def response_loss(
    model: Qwen2ForCausalLM, input_ids: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Mean cross-entropy over the response tokens.

    Args:
        model: The model.
        input_ids: int64 ``[B, T]``, padded on the right. Causal attention never looks at padding
            that follows, so no attention mask is needed.
        labels: int64 ``[B, T]``, aligned with ``input_ids``; ``IGNORED`` where there is no loss.
    """
    hidden_BTd = model.model(input_ids[:, :-1], use_cache=False).last_hidden_state
    targets_BT = labels[:, 1:]
    counted_BT = targets_BT != IGNORED
    # The output layer runs on the response positions alone.
    logits_NV = model.lm_head(hidden_BTd[counted_BT])
    return torch.nn.functional.cross_entropy(logits_NV, targets_BT[counted_BT])


def _optimizers(model: Qwen2ForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the weight matrices of the blocks, AdamW for everything else."""
    matrices = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
    muon_ids = {id(weight) for weight in matrices}
    others = [weight for weight in model.parameters() if id(weight) not in muon_ids]
    return [
        # Fewer steps than with AdamW alone, which is most of the recipe's set-up time.
        Muon(matrices, lr=MUON_LEARNING_RATE),
        torch.optim.AdamW(others, lr=ADAM_LEARNING_RATE, weight_decay=0.0, fused=True),
    ]


def _learning_rate_share(step: int, steps: int) -> float:
    """Linear ramp, then linear decay to the final share."""
    ramp = min(1.0, (step + 1) / RAMP_STEPS)
    return ramp * (1.0 - (1.0 - FINAL_LEARNING_RATE_SHARE) * step / steps)


def _accuracy(responses: list[str], problems: list[arithmetic.Problem]) -> float:
    return float(np.mean([is_right(r, p) for r, p in zip(responses, problems, strict=True)]))
