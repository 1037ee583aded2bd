"""Hidden-state feedback, as in Coconut (arXiv 2412.06769): a thought is the state before it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rsp_rl.basics.errors import ConfigError
from rsp_rl.thoughts.law import InputLaw, Moment, check_whole
from rsp_rl.thoughts.rows import Kind, Rows


@dataclass(frozen=True)
class Hidden(InputLaw):
    """The last hidden state of the position before, after the final norm.

    Attributes:
        latent_id: Token that is emitted for every thought; it feeds nothing, and ends none.
    """

    latent_id: int = 0

    name = "hidden"
    kind = Kind.HIDDEN
    dense = True
    needs_hidden = True
    source = "arXiv 2412.06769"

    def __post_init__(self) -> None:
        check_whole("latent_id", self.latent_id, 0)

    @property
    def slots(self) -> int:
        """The one that is emitted."""
        return 1

    @property
    def deterministic(self) -> bool:
        """It is."""
        return True

    def check(self, vocabulary: int) -> None:
        """See `InputLaw.check`."""
        if self.latent_id >= vocabulary:
            raise ConfigError(
                f"law.latent_id={self.latent_id}, but the model has {vocabulary} tokens"
            )

    def step(self, moment: Moment) -> Rows:
        """See `InputLaw.step`.

        Raises:
            ValueError: If the engine gives no hidden states.
        """
        if moment.hidden_ND is None:
            raise ValueError("law=hidden needs the hidden states of the positions before")
        count, device = len(moment.hidden_ND), moment.hidden_ND.device
        ids_N1 = torch.full((count, 1), self.latent_id, dtype=torch.int32, device=device)
        return Rows.of_kind(
            self.kind, ids_N1, torch.ones(count, 1, device=device), moment.hidden_ND
        )

    def weights(self, rows: Rows) -> torch.Tensor:
        """Of the emitted token: all, for want of others."""
        return rows.values_NK
