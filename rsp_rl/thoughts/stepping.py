"""One step of many requests: which positions are the law's, and what it makes of them.

The reference engine and vLLM's worker call the same function; they differ in how they get logits
and in where they put the inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rsp_rl.thoughts.host import sent, tokens_and_kinds
from rsp_rl.thoughts.law import Embedding, InputLaw, Moment
from rsp_rl.thoughts.noise import Noise
from rsp_rl.thoughts.phases import Phase
from rsp_rl.thoughts.rows import Kind, Rows


@dataclass
class Thinker:
    """A request with a law.

    Attributes:
        law: The law.
        phase: Where it is.
        seed: Of its noise, an unsigned 64-bit integer.
    """

    law: InputLaw
    phase: Phase
    seed: int


@dataclass(frozen=True)
class Made:
    """Records of requests of one law, thoughts and forced tokens alike.

    Attributes:
        members: Which requests.
        rows: Theirs.
        tokens: What was emitted for each, on the host.
        kinds: Of each, on the host.
    """

    members: list[int]
    rows: Rows
    tokens: list[int]
    kinds: list[int]


@dataclass(frozen=True)
class Step:
    """What came of a step.

    Attributes:
        emitted: The token of each request; None where the sampler's counts.
        made: Records by law.
    """

    emitted: list[int | None]
    made: list[Made]


def step(
    thinkers: Sequence[Thinker],
    positions: Sequence[int],
    logits_NV: torch.Tensor,
    embedding: Embedding,
    hidden_ND: torch.Tensor | None = None,
) -> Step:
    """Let the laws make the next positions of those requests that are thinking.

    Args:
        thinkers: N requests.
        positions: Absolute position of the token that each of them gets now.
        logits_NV: From which; minus infinity for ids without a token.
        embedding: The model's.
        hidden_ND: Last hidden states, if a law needs them.

    Returns:
        What is not the sampler's. Of all others the phase must be told: `heard`.
    """
    emitted: list[int | None] = [None] * len(thinkers)
    groups: dict[InputLaw, list[int]] = {}
    for at, thinker in enumerate(thinkers):
        if thinker.phase.thinking or thinker.phase.forced is not None:
            groups.setdefault(thinker.law, []).append(at)
    entropies = _entropies(thinkers, logits_NV, range(len(thinkers)), thinking=True)
    found = []
    for law, members in groups.items():
        rows = _rows_of(law, members, thinkers, positions, logits_NV, embedding, hidden_ND)
        kinds, ids, instead = [], [], []
        for at, token, own in zip(members, *tokens_and_kinds(rows), strict=True):
            phase = thinkers[at].phase
            if phase.forced is not None:
                kind, token = Kind.FORCED, phase.forced
                phase.took_forced()
            else:
                kind, token = phase.took_thought(token, entropies.get(at))
                if kind == Kind.TOKEN and law.emits_likeliest:
                    kind = Kind.END
            instead.append(kind)
            kinds.append(own if kind is None else int(kind))
            ids.append(token)
            emitted[at] = token
        found.append(Made(members, _with_tokens(rows, instead, ids), ids, kinds))
    return Step(emitted, found)


def heard(
    thinkers: Sequence[Thinker], sampled: Sequence[int | None], logits_NV: torch.Tensor
) -> list[int]:
    """Tell the phases what the sampler made.

    Args:
        thinkers: As in `step`.
        sampled: Its tokens; None where they do not count.
        logits_NV: As in `step`.

    Returns:
        The requests whose output must end with this token.
    """
    counting = [at for at, token in enumerate(sampled) if token is not None]
    entropies = _entropies(thinkers, logits_NV, counting, thinking=False)
    return [
        at
        for at in counting
        if thinkers[at].phase.took_sample(sampled[at], entropies.get(at))  # type: ignore[arg-type]
    ]


def _rows_of(
    law: InputLaw,
    members: list[int],
    thinkers: Sequence[Thinker],
    positions: Sequence[int],
    logits_NV: torch.Tensor,
    embedding: Embedding,
    hidden_ND: torch.Tensor | None,
) -> Rows:
    seeds = [thinkers[at].seed for at in members]
    noise = Noise.of(seeds, [positions[at] for at in members])
    if len(members) < len(logits_NV):
        at_N = sent(members, logits_NV.device)
        logits_NV = logits_NV[at_N]
        hidden_ND = None if hidden_ND is None else hidden_ND[at_N]
    return law.step(Moment(logits_NV, noise, embedding, hidden_ND))


def _with_tokens(rows: Rows, kinds: list[Kind | None], ids: list[int]) -> Rows:
    """With some of the rows replaced by single tokens."""
    if not any(kind is not None for kind in kinds):
        return rows
    single = Rows.tokens(Kind.TOKEN, ids, like=rows)
    device = rows.kind_N.device
    thought_N = sent([kind is None for kind in kinds], device, torch.bool)
    instead = sent([kind or Kind.TOKEN for kind in kinds], device, torch.uint8)
    dense_ND = rows.dense_ND
    return Rows(
        torch.where(thought_N, rows.kind_N, instead),
        torch.where(thought_N[:, None], rows.ids_NK, single.ids_NK),
        torch.where(thought_N[:, None], rows.values_NK, single.values_NK),
        None if dense_ND is None else torch.where(thought_N[:, None], dense_ND, 0),
    )


def _entropies(
    thinkers: Sequence[Thinker], logits_NV: torch.Tensor, among: Sequence[int], *, thinking: bool
) -> dict[int, float]:
    """Of the positions whose phase watches it, before filters, at the law's temperature."""
    phases = {at: thinkers[at].phase for at in among}
    watched = [
        at for at, phase in phases.items() if phase.watches_entropy and phase.thinking == thinking
    ]
    if not watched:
        return {}
    temperature = [getattr(thinkers[at].law, "temperature", 1.0) for at in watched]
    device = logits_NV.device
    temperature_N1 = sent(temperature, device, torch.float32)[:, None]
    scores = logits_NV[sent(watched, device)].float() / temperature_N1
    p = torch.softmax(scores, dim=1)
    return dict(zip(watched, torch.special.entr(p).sum(1).tolist(), strict=True))
