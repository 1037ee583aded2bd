"""What each epoch trains on, from seed and number alone: a resumed run goes on as it was."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rsp_rl.basics.errors import ConfigError
from rsp_rl.latent.layout import Markers, Row, check_lengths, lay_out
from rsp_rl.latent.methods import BY_TOKEN, get_method
from rsp_rl.latent.problem_tokens import ProblemTokens
from rsp_rl.latent.settings import Settings


def epoch_rows(
    problems: Sequence[ProblemTokens], settings: Settings, markers: Markers, epoch: int
) -> list[Row]:
    """The sequences of an epoch, in the order in which they are trained on.

    Args:
        problems: All of the training file.
        settings: Of the training.
        markers: Ids of the added tokens.
        epoch: From `settings.first_epoch` on.
    """
    rng = np.random.default_rng((settings.seed, epoch))
    method = get_method(settings.method)
    rows = []
    for problem in problems:
        stage, removed = settings.stage(epoch), 0
        if settings.uniform_stages and rng.random() < settings.uniform_stages:
            stage = int(rng.integers(len(problem.steps) + 1))
        if method.removal == BY_TOKEN:
            removed = settings.removed_tokens(epoch)
            if removed and settings.icot_smoothing:
                # P(o) ~ exp(-lambda o) over whole numbers is a geometric distribution.
                removed += int(rng.geometric(1 - np.exp(-settings.icot_smoothing))) - 1
        rows.append(row_at(problem, settings, markers, stage, removed))
    return [rows[number] for number in rng.permutation(len(rows))]


def row_at(
    problem: ProblemTokens,
    settings: Settings,
    markers: Markers,
    stage: int,
    removed_tokens: int = 0,
) -> Row:
    """The sequence of a problem at a stage; see `rsp_rl.latent.layout.lay_out`."""
    return lay_out(
        problem,
        get_method(settings.method),
        markers,
        stage=stage,
        max_stage=settings.max_stage,
        thoughts_per_step=settings.thoughts_per_step,
        pad_thoughts=settings.pad_thoughts,
        removed_tokens=removed_tokens,
    )


def longest_rows(
    problems: Sequence[ProblemTokens],
    settings: Settings,
    markers: Markers,
    context: int | None,
    place: str,
) -> dict[int, Row]:
    """The longest sequence of each stage that is trained.

    Args:
        problems: All of the training file.
        settings: Of the training.
        markers: Ids of the added tokens.
        context: Positions of the model, or None where it has no limit.
        place: What an error calls the problems: their file.

    Raises:
        ConfigError: If there are none, or one does not fit the context.
    """
    if not problems:
        raise ConfigError("there are no problems to train on; name a file with some")
    numbers = {settings.stage(epoch) for epoch in range(settings.first_epoch, settings.epochs)}
    if settings.uniform_stages:  # any that a problem has may be drawn; all above the last are alike
        steps = max(len(problem.steps) for problem in problems)
        numbers |= {*range(min(steps, settings.max_stage + 1) + 1)}
    found = {}
    for stage in sorted(numbers):
        rows = [row_at(problem, settings, markers, stage) for problem in problems]
        check_lengths(rows, context, place)
        found[stage] = max(rows, key=lambda row: len(row.token_ids))
    return found


def batches(rows: Sequence[Row], size: int) -> list[Sequence[Row]]:
    """Rows of each optimiser step; the last one's may be fewer."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]
