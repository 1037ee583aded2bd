"""RSP's own draw as a law: vectors of a seed, at positions that the prompt sets aside."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rsp_rl.draws.record import SoftPromptRecord
from rsp_rl.thoughts.law import InputLaw, Moment
from rsp_rl.thoughts.rows import Kind, Rows


@dataclass(frozen=True)
class RandomSoftPrompt(InputLaw):
    """H of one rollout, bit for bit what `SoftPromptRecord.draw` gives; no score.

    Engines put it into the prompt (`rsp_rl.injection`), where nothing is decided step by step. As a
    law it is what stands at any other position: drawn, recorded, made again from the record.

    Attributes:
        record: The rollout's.
    """

    record: SoftPromptRecord

    name = "random_soft_prompt"
    kind = Kind.DENSE
    dense = True
    source = "arXiv 2605.11936"

    @property
    def slots(self) -> int:
        """The placeholder."""
        return 1

    @property
    def deterministic(self) -> bool:
        """The record has the seed."""
        return True

    def step(self, moment: Moment) -> Rows:
        """Rows of the record at the moment's positions.

        Raises:
            ValueError: If a position is none of the record's.
        """
        offsets_N = (moment.noise.positions_N - self.record.start).tolist()
        if not all(0 <= offset < self.record.length for offset in offsets_N):
            raise ValueError(
                f"the soft prompt is at {self.record.start} to "
                f"{self.record.start + self.record.length}, not at offsets {offsets_N}"
            )
        device = moment.noise.positions_N.device
        ids_N1 = torch.full((len(offsets_N), 1), self.record.placeholder_id, device=device)
        hidden_size = moment.embedding.rows(ids_N1[:1]).shape[-1]
        dense_ND = self.record.draw(hidden_size)[offsets_N].to(device)
        return Rows.of_kind(
            self.kind, ids_N1, torch.ones(len(offsets_N), 1, device=device), dense_ND
        )

    def weights(self, rows: Rows) -> torch.Tensor:
        """Of the placeholder: all, for want of others."""
        return rows.values_NK
