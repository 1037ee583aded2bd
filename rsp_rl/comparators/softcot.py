"""SoftCoT: a small assistant model's hidden states, projected into the model's embedding space.

Xu, Guo, Zeng, Miao: "SoftCoT: Soft Chain-of-Thought for Efficient Reasoning with LLMs", ACL 2025,
arXiv 2502.12134. The assistant reads the question and then L placeholder tokens. Its last hidden
states at these go through one linear layer and stand at the model's L soft prompt positions. The
layer alone is trained, on the negative log-likelihood of solutions; both models stay frozen.

The request to the assistant asks for what theirs asks for, in our words. Their prompt to the model
is not used: all methods are compared in one template.

Shape suffixes: `_LA` hidden states of the assistant, `_LD` soft prompt, `_NV` logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.comparators.trained_file import TrainedFile, load_trained
from rsp_rl.comparators.training import Answered, TrainingSettings, descend, shuffled_batches
from rsp_rl.dials.options import RspOptions
from rsp_rl.inference.soft_prompts import Comparator, HostModel
from rsp_rl.models.weights import weights_digest
from rsp_rl.placement.chat import place_in_chat
from rsp_rl.placement.prompt import Position, placeholder_id

if TYPE_CHECKING:
    from rsp_rl.inference.requests import Request

_NAMES = ("weight", "bias")

_REQUEST = (
    "Write {length} tokens that help another language model to solve the following problem. They "
    "should hold what matters for its solution, such as its numbers and the operations on them, "
    "the most important first. Write single informative tokens: no sentences, no numbering.\n\n"
    "Problem: {question}"
)
_ANSWER = "Here are {length} tokens that help to solve the problem: "


@dataclass(frozen=True)
class SoftCot(Comparator):
    """How a trained projection is used.

    Attributes:
        trained: Folder that `rsp-rl train-comparator softcot` wrote.
        assistant: Hugging Face folder or name on the hub; by default where it was at training.
    """

    method: ClassVar[str] = "softcot"
    length: ClassVar[int] = 4
    position: ClassVar[Position] = "infix"
    paths: ClassVar[tuple[str, ...]] = ("trained", "assistant")

    trained: str
    assistant: str | None = None

    def check(self, model: Path, rsp: RspOptions) -> str:
        """See `Comparator.check`."""
        file = self._load()
        file.check(model, rsp, file.tensors["weight"].shape[0])
        assistant = self._assistant_folder(file)
        if weights_digest(assistant) != file.how["assistant_weights"]:
            raise RunFolderError(
                f"{file.file} was trained with the assistant {file.how['assistant']}, and "
                f"{assistant} has other weights; name it with comparator.assistant"
            )
        return file.digest

    def start(self, host: HostModel) -> ProjectedThoughts:
        """See `Comparator.start`."""
        file = self._load()
        weight = file.tensors["weight"]
        projection = nn.Linear(weight.shape[1], weight.shape[0])
        projection.load_state_dict(file.tensors)
        assistant = Assistant(self._assistant_folder(file), host)
        return ProjectedThoughts(assistant, projection.requires_grad_(False))

    def _load(self) -> TrainedFile:
        return load_trained(Path(self.trained), self.method, _NAMES)

    def _assistant_folder(self, file: TrainedFile) -> Path:
        return resolve_assistant(self.assistant or file.how["assistant"])


def resolve_assistant(name: str) -> Path:
    """Folder of an assistant model.

    Raises:
        ConfigError: If there is none of that name.
    """
    from rsp_rl.models.folder import check_model, resolve_model_folder

    try:
        folder = resolve_model_folder(name)
        check_model(folder)
    except ConfigError as error:
        raise ConfigError(
            f"SoftCoT's assistant model {name!r} cannot be used ({error}); name it with "
            "comparator.assistant, or with --assistant where it is trained"
        ) from error
    return folder


@dataclass(frozen=True)
class SoftCotTraining(TrainingSettings):
    """Hyper-parameters.

    Vectors, epochs and batch are those of the authors' README (Llama-3.1-8B-Instruct with
    Llama-3.2-1B-Instruct on GSM8K; for Qwen2.5-7B-Instruct the batch is 1), the learning rate that
    of their `train_softcot.py`. The rest is what transformers' Trainer, which they use, does by
    itself: AdamW without weight decay, falling linearly to 0, gradients clipped, seed 42. The RSP
    paper's are in `rsp_rl.comparators.presets`.

    Attributes:
        length: L in training, soft thought tokens.
        evaluation_length: L in evaluations: the layer takes one position at a time, so that it can
            be another one.
        epochs: Passes over the problems.
        batch_size: Problems a mini-batch.
        accumulation: Mini-batches a step.
        learning_rate: At the start.
        max_grad_norm: Longer gradients are shortened to it.
        seed: Of the projection and of the order.
    """

    length: int = SoftCot.length
    epochs: int = 10
    batch_size: int = 4
    accumulation: int = 1
    learning_rate: float = 2e-5
    evaluation_length: int = SoftCot.length
    max_grad_norm: float = 1.0
    seed: int = 42


class Assistant:
    """The assistant model, frozen.

    Args:
        folder: Its Hugging Face folder.
        host: The model that it assists; it runs beside it, in the same dtype.
    """

    def __init__(self, folder: Path, host: HostModel) -> None:
        from transformers import AutoModelForCausalLM

        from rsp_rl.models.folder import load_tokenizer

        self._tokenizer = load_tokenizer(folder)
        network = AutoModelForCausalLM.from_pretrained(folder, dtype=host.network.dtype).eval()
        # Without its output layer: what is wanted is what goes into that.
        self._network = network.base_model.to(host.network.device).requires_grad_(False)
        self.hidden_size: int = network.config.get_text_config().hidden_size

    @torch.no_grad()
    def thoughts(self, question: str, length: int) -> torch.Tensor:
        """Last hidden states at the L placeholders after a question, float32 [L, d_assistant].

        Raises:
            PlacementError: If its tokenizer has no chat template.
        """
        asked = _REQUEST.format(length=length, question=question)
        placed = place_in_chat(self._tokenizer, [{"role": "user", "content": asked}], 0, "prefix")
        opening = self._tokenizer.encode(_ANSWER.format(length=length), add_special_tokens=False)
        token_ids = placed.token_ids + opening + [placeholder_id(self._tokenizer)] * length
        ids_1T = torch.tensor([token_ids], device=self._network.device)
        output = self._network(input_ids=ids_1T, use_cache=False)
        return output.last_hidden_state[0, -length:].float().cpu()


@dataclass(frozen=True)
class ProjectedThoughts:
    """Projects the assistant's hidden states for each request; see `SoftPrompts`.

    Attributes:
        assistant: Who thinks.
        projection: d_assistant to d, on the CPU.
    """

    assistant: Assistant
    projection: nn.Linear

    def rows(self, request: Request) -> torch.Tensor:
        """See `SoftPrompts.rows`."""
        return self.projection(self.assistant.thoughts(request.question, request.record.length))


def negative_log_likelihood(logits_NV: torch.Tensor, tokens_N: torch.Tensor) -> torch.Tensor:
    """Of each token, in nats, [N]."""
    return nn.functional.cross_entropy(logits_NV, tokens_N, reduction="none")


def train(
    host: HostModel,
    assistant: Assistant,
    solved: Sequence[tuple[Request, list[int]]],
    settings: SoftCotTraining,
    *,
    on_step: Callable[[float], None] = lambda loss: None,
) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Train a projection.

    Args:
        host: The model, frozen.
        assistant: Its assistant; asked once a problem, since neither it nor the problem changes.
        solved: Problems' requests with the tokens of their solutions.
        settings: Hyper-parameters.
        on_step: Called with each step's mean loss.

    Returns:
        Weight [d, d_assistant] and bias [d], float32, and the mean of each epoch's steps, in nats a
        token.

    Raises:
        ConfigError: If there are no problems.
    """
    if not solved:
        raise ConfigError("SoftCoT has no solved problems to train on; it needs one at least")
    generator = torch.Generator().manual_seed(settings.seed)
    device = host.network.device
    projection = _new_projection(assistant.hidden_size, host.hidden_size, generator).to(device)
    optimizer = torch.optim.AdamW(
        projection.parameters(), lr=settings.learning_rate, weight_decay=0.0
    )
    thoughts = [assistant.thoughts(r.question, r.record.length).to(device) for r, _ in solved]
    answered = [
        Answered(request, answer_ids, partial(projection, hidden_LA))
        for (request, answer_ids), hidden_LA in zip(solved, thoughts, strict=True)
    ]
    steps = settings.epochs * -(-len(solved) // settings.step_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    course = []
    for _ in range(settings.epochs):
        losses = []
        for numbers in shuffled_batches(len(solved), settings.step_size, generator):
            batch = [answered[number] for number in numbers]
            loss = descend(
                *(host, batch, negative_log_likelihood, optimizer),
                batch_size=settings.batch_size,
                max_grad_norm=settings.max_grad_norm,
            )
            schedule.step()
            losses.append(loss)
            on_step(loss)
        course.append(sum(losses) / len(losses))
    trained = {name: tensor.detach().cpu() for name, tensor in projection.state_dict().items()}
    return trained, course


def _new_projection(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with torch's own first values, drawn from a generator of ours."""
    projection = nn.Linear(inputs, outputs)
    bound = inputs**-0.5
    with torch.no_grad():
        for parameter in projection.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return projection
