"""`rsp-rl latent train --dry-run`: what a training would be, and whether it fits a device.

What an activation takes is not estimated by a formula: the longest sequence of the run goes through
the model once, on the CPU and alone, and what is kept for its backward pass is counted. Weights,
gradients and AdamW's moments are four bytes a parameter each. What a device's allocator and kernels
take besides is not in it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from rsp_rl.data.step_problems import StepProblem
from rsp_rl.latent.epochs import longest_rows
from rsp_rl.latent.folder import Thinker, load_thinker
from rsp_rl.latent.layout import Row, collate
from rsp_rl.latent.methods import BY_TOKEN, NOTHING, get_method
from rsp_rl.latent.problem_tokens import tokenize
from rsp_rl.latent.settings import Settings
from rsp_rl.latent.step_decoder import StepDecoder
from rsp_rl.latent.thinking import hidden_states, token_losses
from rsp_rl.models.context import context_of

GIB = 2**30

#: float32.
_BYTES = 4


@dataclass(frozen=True)
class Stage:
    """Epochs of one stage.

    Attributes:
        number: The stage; see `Settings.stage`.
        epochs: The first and the one after the last, from 0.
        fillers: The most thoughts or pauses of a sequence.
    """

    number: int
    epochs: tuple[int, int]
    fillers: int


@dataclass(frozen=True)
class Memory:
    """Bytes of one process.

    Attributes:
        state: Weights, gradients and moments.
        row: Kept of the longest sequence for its backward pass.
        rows: Of a micro-batch.
    """

    state: int
    row: int
    rows: int

    @property
    def total(self) -> int:
        """All of it, were each row of a micro-batch the longest."""
        return self.state + self.row * self.rows


def stages(settings: Settings) -> list[Stage]:
    """The stages of a training, in order."""
    epochs: Counter[int] = Counter()
    first: dict[int, int] = {}
    for epoch in range(settings.first_epoch, settings.epochs):
        stage = settings.stage(epoch)
        epochs[stage] += 1
        first.setdefault(stage, epoch)
    fills = get_method(settings.method).filler != NOTHING
    return [
        Stage(
            stage,
            (first[stage], first[stage] + number),
            fills * min(stage, settings.max_stage) * settings.thoughts_per_step,
        )
        for stage, number in epochs.items()
    ]


def plan_lines(
    settings: Settings,
    problems: Sequence[StepProblem],
    validation: Sequence[StepProblem],
    processes: int,
) -> Iterator[str]:
    """Settings, data and the arithmetic of the steps; needs no model."""
    for name, value in asdict(settings).items():
        yield f"{name}: {value}"
    steps = Counter(len(problem.steps) for problem in problems)
    spread = ", ".join(f"{count:,} of {number}" for number, count in sorted(steps.items()))
    yield f"# problems: {len(problems):,} to train on, by steps {spread}"
    asked = min(len(validation), settings.validation_limit)
    yield f"# validation: {asked:,} of {len(validation):,} problems after each epoch"
    each = math.ceil(len(problems) / settings.batch_size)
    share = math.ceil(settings.batch_size / processes)
    micro = math.ceil(share / settings.micro_batch_size)
    yield (
        f"# a step: {settings.batch_size} problems over {processes} processes, {share} each in "
        f"{micro} micro-batches of at most {settings.micro_batch_size}"
    )
    for stage in stages(settings):
        begin, end = stage.epochs
        whole = " (all steps gone)" if stage.number > settings.max_stage else ""
        yield (
            f"# stage {stage.number}{whole}: epochs {begin + 1} to {end}, {(end - begin) * each:,} "
            f"steps, {stage.fillers} thoughts or pauses"
        )
    if get_method(settings.method).removal == BY_TOKEN:
        removed = settings.removed_tokens(settings.epochs - 1)
        yield f"# taken away in the last epoch: {removed} tokens of the steps"
    total = (settings.epochs - settings.first_epoch) * each
    yield f"# steps: {each:,} an epoch, {total:,} in all"


def model_lines(
    model: Path,
    settings: Settings,
    problems: Sequence[StepProblem],
    *,
    place: str,
    memory_gb: int | None,
    processes: int = 1,
) -> Iterator[str]:
    """Lengths and memory, by the model.

    Args:
        model: Hugging Face folder.
        settings: Of the training.
        problems: To train on.
        place: What an error calls them.
        memory_gb: Of the device, if it is to be held against one.
        processes: That share a step's problems.

    Raises:
        ConfigError: If the model cannot think, or a problem does not fit its context.
    """
    thinker = load_thinker(model)
    context = context_of(thinker.model.config)
    tokens = tokenize(problems, thinker.tokenizer)
    rows = longest_rows(tokens, settings, thinker.markers, context, place)
    for stage, row in rows.items():
        yield f"# longest sequence at stage {stage}: {len(row.token_ids)} tokens of {context}"
    worst = max(
        (memory(thinker, settings, row, processes) for row in rows.values()),
        key=lambda found: found.total,
    )
    micro = worst.rows * worst.row / GIB
    yield (
        f"# memory of a process, GiB: weights, gradients, moments {worst.state / GIB:.2f}; the "
        f"longest sequence {worst.row / GIB:.3f}, {worst.rows} of them {micro:.2f}"
    )
    held = "" if memory_gb is None else f" of {memory_gb}"
    fits = ""
    if memory_gb is not None:
        fits = ": fits" if worst.total <= memory_gb * GIB else ": DOES NOT FIT"
    yield f"# memory, total: {worst.total / GIB:.2f}{held}{fits}"


def memory(thinker: Thinker, settings: Settings, row: Row, processes: int = 1) -> Memory:
    """What a step of micro-batches of such sequences takes of one of the processes."""
    decoder = None
    if settings.step_decoder:
        end = thinker.tokenizer.eos_token_id
        decoder = StepDecoder(thinker.model, settings.thoughts_per_step, end)
    count = sum(weight.numel() for weight in _weights(thinker, decoder))
    # Muon keeps one moment of what it moves, AdamW two; two is the more.
    state = count * _BYTES * 4
    rows = min(settings.micro_batch_size, math.ceil(settings.batch_size / processes))
    return Memory(state, kept_bytes(thinker, row, settings.recompute, decoder), rows)


def _weights(thinker: Thinker, decoder: StepDecoder | None) -> list[torch.nn.Parameter]:
    return [*thinker.model.parameters(), *(() if decoder is None else decoder.parameters())]


def kept_bytes(
    thinker: Thinker, row: Row, recompute: bool = False, decoder: StepDecoder | None = None
) -> int:
    """Bytes that are kept for the backward pass of one sequence, weights left out."""
    own = {weight.untyped_storage().data_ptr() for weight in _weights(thinker, decoder)}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # held, so that no other takes its place
        return tensor

    batch = collate([row], thinker.pad)
    thinker.model.train()  # dropout keeps its masks
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        states_BTd = hidden_states(thinker.model, batch, recompute=recompute)
        token_losses(thinker.model, states_BTd, batch).sum()
        if decoder is not None:
            decoder.train()
            decoder.losses(states_BTd, batch, [row.stood_for]).sum()
    return sum(storage.nbytes() for storage in kept.values())
