"""What a model that thinks would write next, were it made to stop after some of its thoughts.

After k thoughts the end marker is forced, then the beginning of a step (a stem such as `Every`),
and read is how probable each of some names is there: the product over the name's tokens, as in the
analysis of Coconut's paper (arXiv 2412.06769, section 5.3).

Shapes: B rows, T columns, d width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data.step_problems import MARK
from rsp_rl.latent.folder import Thinker
from rsp_rl.latent.layout import Row, collate, prefix
from rsp_rl.latent.methods import THOUGHTS
from rsp_rl.latent.thinking import hidden_states


@dataclass(frozen=True)
class Stop:
    """Where a problem's thoughts are stopped, and what is asked there.

    Attributes:
        question: Its tokens.
        thoughts: How many, or pauses in their place.
        stem: What the step begins with; empty if with one of the names.
        names: What may follow, after a space where there is a stem. None begins another.
    """

    question: tuple[int, ...]
    thoughts: int
    stem: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """What was read at a stop.

    Attributes:
        names: Probability of each name after the stem, float64; they need not sum to 1.
        stem: Probability of the stem after the end marker; of an empty one, that any name comes.
        answer: Probability that the first token is the answer's mark's.
        norms: Euclidean norm of each thought, in order; empty for pauses.
    """

    names: np.ndarray
    stem: float
    answer: float
    norms: np.ndarray


def read(thinker: Thinker, stops: Sequence[Stop], batch_size: int = 32) -> Iterator[Reading]:
    """Readings in the order of the stops.

    Args:
        thinker: In evaluation mode while it is read.
        stops: Any; next to each other best of the same number of thoughts.
        batch_size: Sequences at a time.

    Raises:
        ConfigError: If the tokenizer does not keep a stem apart from a name that follows.
    """
    training = thinker.model.training
    thinker.model.eval()
    try:
        for start in range(0, len(stops), batch_size):
            yield from _read(thinker, stops[start : start + batch_size], batch_size)
    finally:
        thinker.model.train(training)


def longest(thinker: Thinker, stops: Sequence[Stop]) -> int:
    """Tokens of the longest sequence that `read` makes of stops; raises as it does."""
    return max(len(row.token_ids) for stop in stops for row in _lay_out(thinker, stop).rows)


@dataclass(frozen=True)
class _LaidOut:
    """A stop as sequences: one a beginning of names, so that names of a token each share one."""

    stem: tuple[int, ...]
    names: list[tuple[int, ...]]
    beginnings: list[tuple[int, ...]]
    rows: list[Row]

    def place(self, begun: tuple[int, ...]) -> int:
        """Number of the row that a name's beginning is read from."""
        length = len(begun)
        return next(n for n, own in enumerate(self.beginnings) if own[:length] == begun)


def _lay_out(thinker: Thinker, stop: Stop) -> _LaidOut:
    stem, names = _spell(thinker.tokenizer, stop)
    before, first = prefix(stop.question, thinker.method, stop.thoughts, thinker.markers)
    thoughts = stop.thoughts if thinker.method.filler == THOUGHTS else 0
    beginnings = _beginnings(names)
    rows = [
        Row((*before, *stem, *begun), first, stop.thoughts, len(before), thoughts)
        for begun in beginnings
    ]
    return _LaidOut(stem, names, beginnings, rows)


def _read(thinker: Thinker, stops: Sequence[Stop], batch_size: int) -> Iterator[Reading]:
    laid_out = [_lay_out(thinker, stop) for stop in stops]
    rows = [row for one in laid_out for row in one.rows]
    found = [
        read_row
        for start in range(0, len(rows), batch_size)
        for read_row in _log_probs(thinker, rows[start : start + batch_size])
    ]
    mark = thinker.tokenizer.encode(MARK, add_special_tokens=False)[0]
    start = 0
    for one in laid_out:
        own = found[start : start + len(one.rows)]
        start += len(one.rows)
        log_probs_TV, norms = own[0]
        values = []
        for name in one.names:
            of_name_TV, _ = own[one.place(name[:-1])]
            at = enumerate(name, len(one.stem))
            values.append(sum(float(of_name_TV[i, token]) for i, token in at))
        names = np.exp(np.array(values))
        stem = np.exp(sum(float(log_probs_TV[i, token]) for i, token in enumerate(one.stem)))
        begins = float(stem if one.stem else names.sum())
        yield Reading(names, begins, float(np.exp(log_probs_TV[0, mark])), norms)


def _spell(
    tokenizer: PreTrainedTokenizerBase, stop: Stop
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Tokens of the stem, and of each name after it."""
    before = f"{stop.stem} " if stop.stem else ""
    texts = [stop.stem, *(before + name for name in stop.names)]
    stem, *whole = tokenizer(texts, add_special_tokens=False).input_ids
    for name, ids in zip(stop.names, whole, strict=True):
        if ids[: len(stem)] != stem or len(ids) == len(stem):
            raise ConfigError(
                f"the tokenizer joins {stop.stem!r} with {name!r}, which follows it: how probable "
                "the one is after the other cannot be read"
            )
    return tuple(stem), [tuple(ids[len(stem) :]) for ids in whole]


def _beginnings(names: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """What must be read to know all names: all but their last tokens, none that begins another."""
    begun = {name[:-1] for name in names}
    longest = [b for b in begun if not any(o != b and o[: len(b)] == b for o in begun)]
    return sorted(longest)


@torch.no_grad()
def _log_probs(thinker: Thinker, rows: Sequence[Row]) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
    """Of each row, log-probs [T, V] of what follows the end marker and each token after it."""
    model = thinker.model
    batch = collate(rows, thinker.pad).to(model.get_input_embeddings().weight.device)
    states_BTd = hidden_states(model, batch)
    for number, row in enumerate(rows):
        start = batch.first - row.first
        states_Td = states_BTd[number, start + row.first_label - 1 : start + len(row.token_ids)]
        log_probs_TV = model.get_output_embeddings()(states_Td).double().log_softmax(-1).cpu()
        # A thought is the state before it.
        thoughts_Kd = states_BTd[number, batch.first - 1 : batch.first - 1 + row.thoughts]
        yield log_probs_TV, thoughts_Kd.double().norm(dim=-1).cpu().numpy()
