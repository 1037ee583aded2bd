"""The thoughts of several outputs below each other, as a trainer's micro-batch has them.

Shape suffixes: `_N` thoughts of all outputs, `_NV` the same with the vocabulary, `_NK` with the
law's draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.utils.checkpoint import checkpoint

from rsp_rl.thoughts.law import Embedding, InputLaw
from rsp_rl.thoughts.noise import Noise
from rsp_rl.thoughts.record import ThoughtRecord
from rsp_rl.thoughts.rows import Rows, concatenate

#: Thoughts whose logits exist in float32 at once: those of all would be twice bfloat16 logits.
_CHUNK = 1024


@dataclass(frozen=True)
class SampleThoughts:
    """Where thoughts stand in their outputs, and what they are.

    Attributes:
        law: Of all of them.
        rows: N of them, output by output.
        sample_N: Number of the output, int64.
        offset_N: Position within it, int64.
        noise: That the rollout drew them with.
    """

    law: InputLaw
    rows: Rows
    sample_N: torch.Tensor
    offset_N: torch.Tensor
    noise: Noise

    @classmethod
    def of(cls, records: Sequence[ThoughtRecord | None]) -> SampleThoughts | None:
        """Of outputs, some of which may have no record; None if none has a thought.

        Raises:
            ValueError: If they are of several laws.
        """
        found: list[tuple[int, ThoughtRecord, torch.Tensor]] = []
        for number, record in enumerate(records):
            if record is not None and len(at := record.rows.thought_N.nonzero()[:, 0]):
                found.append((number, record, at))
        if not found:
            return None
        laws = {record.law for _, record, _ in found}
        if len(laws) > 1:
            named = " and ".join(sorted(str(law) for law in laws))
            raise ValueError(f"one micro-batch has thoughts of several laws: {named}")
        counts = torch.tensor([len(at) for *_, at in found])
        offset_N = torch.cat([at for *_, at in found])
        first = Noise.of(
            [record.seed for _, record, _ in found], [record.start for _, record, _ in found]
        )
        return cls(
            law=laws.pop(),
            rows=concatenate([record.rows[at] for _, record, at in found]),
            sample_N=torch.tensor([number for number, *_ in found]).repeat_interleave(counts),
            offset_N=offset_N,
            noise=Noise(
                first.seeds_N.repeat_interleave(counts),
                first.positions_N.repeat_interleave(counts) + offset_N,
            ),
        )

    def __len__(self) -> int:
        return len(self.rows)

    def places(self, starts: Sequence[int]) -> torch.Tensor:
        """Flat indices, int64 [N].

        Args:
            starts: Of each output's first position.
        """
        return torch.tensor(starts)[self.sample_N] + self.offset_N

    def log_probs(self, logits_NV: torch.Tensor, embedding: Embedding) -> torch.Tensor:
        """See `InputLaw.log_prob`: [N] or [N, K], a few positions in float32 at a time.

        Args:
            logits_NV: Of the positions before, in the model's dtype, without a temperature.
            embedding: Of the model that made them.

        Raises:
            ValueError: If the law has no score.
        """
        rows = self.rows.to(logits_NV.device)

        def scored(part_NV: torch.Tensor, at: slice) -> torch.Tensor:
            log = self.law.log_prob(rows[at], part_NV.float(), embedding)
            if log is None:
                raise ValueError(f"the law {self.law.name} has no log-prob to train with")
            return log

        parts = []
        for first in range(0, len(rows), _CHUNK):
            at = slice(first, first + _CHUNK)
            parts.append(checkpoint(scored, logits_NV[at], at, use_reentrant=False))
        return torch.cat(parts)

    @torch.no_grad()
    def gaps(self, logits_NV: torch.Tensor, embedding: Embedding) -> torch.Tensor | None:
        """See `InputLaw.gap`, [N]; arguments as for `log_probs`."""
        rows = self.rows.to(logits_NV.device)
        parts = []
        for first in range(0, len(rows), _CHUNK):
            at = slice(first, first + _CHUNK)
            gap = self.law.gap(rows[at], self.noise.at(at), logits_NV[at].float(), embedding)
            if gap is None:
                return None
            parts.append(gap)
        return torch.cat(parts)

    @torch.no_grad()
    def flips(self, logits_NV: torch.Tensor) -> torch.Tensor:
        """Whether the likeliest token is another than the one that was emitted, bool [N]."""
        return logits_NV.argmax(1) != self.rows.emitted_N.to(logits_NV.device)
