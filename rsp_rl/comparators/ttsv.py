"""TTSV: one prefix for all problems, trained to make the model sure of its own answers.

Kang, Shi, Chen: "Model Whisper: Steering Vectors Unlock Large Language Models' Potential in
Test-time", arXiv 2512.04748. In every step the frozen model answers a mini-batch of the test
problems with the current prefix; the loss is the mean entropy over the answers' tokens. No gold
answer is used.

Shape suffixes: `_LD` prefix, `_NV` logits of N tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

from rsp_rl.basics.errors import ConfigError
from rsp_rl.comparators.trained_file import TrainedFile, load_trained
from rsp_rl.comparators.training import Answered, TrainingSettings, descend, shuffled_batches
from rsp_rl.dials.options import RspOptions
from rsp_rl.inference.soft_prompts import Comparator, HostModel
from rsp_rl.placement.prompt import Position

if TYPE_CHECKING:
    from rsp_rl.inference.huggingface import HuggingFaceEngine
    from rsp_rl.inference.requests import Request

PREFIX = "prefix"


@dataclass(frozen=True)
class Ttsv(Comparator):
    """How a trained prefix is used.

    Attributes:
        trained: Folder that `rsp-rl train-comparator ttsv` wrote.
    """

    method: ClassVar[str] = "ttsv"
    length: ClassVar[int] = 20
    position: ClassVar[Position] = "prefix"
    paths: ClassVar[tuple[str, ...]] = ("trained",)

    trained: str

    def check(self, model: Path, rsp: RspOptions) -> str:
        """See `Comparator.check`."""
        file = self._load()
        file.check(model, rsp, file.tensors[PREFIX].shape[1])
        return file.digest

    def start(self, host: HostModel) -> Prefix:
        """See `Comparator.start`."""
        return Prefix(self._load().tensors[PREFIX])

    def _load(self) -> TrainedFile:
        return load_trained(Path(self.trained), self.method, (PREFIX,))


@dataclass(frozen=True)
class Prefix:
    """The same vectors for every request; see `SoftPrompts`.

    Attributes:
        rows_LD: Float32 [L, d].
    """

    rows_LD: torch.Tensor

    def rows(self, request: Request) -> torch.Tensor:
        """See `SoftPrompts.rows`."""
        return self.rows_LD


@dataclass(frozen=True)
class TtsvTraining(TrainingSettings):
    """Hyper-parameters; defaults are those of the authors' `train.sh` and `train.py`.

    Their name for that run says 30 epochs, its settings 20. Its batch of 16 is 8 on each of two
    GPUs. The RSP paper's are in `rsp_rl.comparators.presets`.

    Attributes:
        length: L.
        epochs: Passes over the problems.
        batch_size: Problems a mini-batch.
        accumulation: Mini-batches a step.
        learning_rate: AdamW's; falls linearly over the epochs to `final_share` of itself.
        final_share: Of the learning rate, after the last epoch.
        weight_decay: AdamW's.
        epsilon: AdamW's.
        max_tokens: Longest answer that is trained on.
        temperature: Of the answers' sampling.
        top_p: Likewise.
        repetition_penalty: Likewise.
        seed: Of prefix, order and sampling.
    """

    length: int = Ttsv.length
    epochs: int = 20
    batch_size: int = 16
    accumulation: int = 1
    learning_rate: float = 1e-3
    final_share: float = 0.01
    weight_decay: float = 1e-8
    epsilon: float = 1e-5
    max_tokens: int = 256
    temperature: float = 0.5
    top_p: float = 0.95
    repetition_penalty: float = 1.15
    seed: int = 15


def entropy(logits_NV: torch.Tensor, tokens_N: torch.Tensor | None = None) -> torch.Tensor:
    """Entropy of each position's distribution over the vocabulary, in nats, [N].

    At temperature 1, whatever the answers were sampled at, as in the authors' code.

    Args:
        logits_NV: float32.
        tokens_N: What was chosen: of no matter here (see `TokenLoss`).
    """
    log_probs_NV = torch.log_softmax(logits_NV, dim=-1)
    return -(log_probs_NV.exp() * log_probs_NV).sum(-1)


def train(
    engine: HuggingFaceEngine,
    epochs: Sequence[Sequence[Request]],
    settings: TtsvTraining,
    *,
    on_step: Callable[[float], None] = lambda loss: None,
) -> tuple[torch.Tensor, list[float]]:
    """Train a prefix.

    It starts from a standard normal distribution, as an `nn.Embedding` does.

    Args:
        engine: The model, frozen; it answers with the prefix as it is at the time.
        epochs: The problems' requests of each epoch, equally many, seeds of their own in each.
        settings: Hyper-parameters.
        on_step: Called with each step's mean entropy.

    Returns:
        The prefix, float32 [L, d], and the mean of each epoch's steps, in nats a token.

    Raises:
        ConfigError: If there are no problems.
    """
    if not any(epochs):
        raise ConfigError("TTSV has no problems to train on; it needs one at least")
    host, generator = engine.host, torch.Generator().manual_seed(settings.seed)
    prefix_LD = torch.randn(settings.length, host.hidden_size, generator=generator)
    prefix_LD = prefix_LD.to(host.network.device).requires_grad_()
    optimizer = torch.optim.AdamW(
        [prefix_LD],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        eps=settings.epsilon,
    )
    schedule = torch.optim.lr_scheduler.LinearLR(
        optimizer, start_factor=1.0, end_factor=settings.final_share, total_iters=len(epochs)
    )
    course = []
    for requests in epochs:
        losses = []
        for numbers in shuffled_batches(len(requests), settings.step_size, generator):
            batch = [_penalised(requests[n], settings.repetition_penalty) for n in numbers]
            engine.soft_prompts = Prefix(prefix_LD.detach())
            answers = engine.generate_tokens(batch)
            answered = [
                Answered(request, tokens, lambda: prefix_LD)
                for request, tokens in zip(batch, answers, strict=True)
            ]
            losses.append(
                descend(host, answered, entropy, optimizer, batch_size=settings.batch_size)
            )
            on_step(losses[-1])
        schedule.step()
        course.append(sum(losses) / len(losses))
    return prefix_LD.detach().cpu(), course


def _penalised(request: Request, penalty: float) -> Request:
    return replace(request, sampling={**request.sampling, "repetition_penalty": penalty})
