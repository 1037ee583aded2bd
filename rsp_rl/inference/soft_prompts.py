"""What fills the soft prompt positions of a prompt: one interface for drawn and trained vectors.

A prompt comes with L placeholders where its soft prompt goes (`rsp_rl.placement`) and a record that
says where they are and with which seed to draw. A `SoftPrompts` gives the L vectors for them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch

from rsp_rl.dials.options import RspOptions
from rsp_rl.injection.hook import draw_rows
from rsp_rl.placement.prompt import Position

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rsp_rl.inference.requests import Request


@dataclass(frozen=True)
class HostModel:
    """The frozen model that reads the soft prompts.

    Attributes:
        folder: Where it was loaded from.
        network: It, without gradients of its own.
        tokenizer: Its tokenizer.
    """

    folder: Path
    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def hidden_size(self) -> int:
        """d, width of the input embeddings."""
        return self.network.get_input_embeddings().weight.shape[1]

    def logits(
        self, token_ids: list[int], start: int, rows_LD: torch.Tensor, kept: int
    ) -> torch.Tensor:
        """One forward with the soft prompt in place; differentiable in it.

        Args:
            token_ids: The sequence, placeholders included, [T].
            start: Index of the first placeholder.
            rows_LD: What stands at them instead, [L, d], in any dtype.
            kept: At how many of the last positions.

        Returns:
            float32 [kept, V].
        """
        device = self.network.device
        embeds_TD = self.network.get_input_embeddings()(torch.tensor(token_ids, device=device))
        rows_LD = rows_LD.to(device, embeds_TD.dtype)
        after = start + rows_LD.shape[0]
        embeds_TD = torch.cat([embeds_TD[:start], rows_LD, embeds_TD[after:]])
        output = self.network(inputs_embeds=embeds_TD[None], logits_to_keep=kept, use_cache=False)
        return output.logits[0].float()


class SoftPrompts(Protocol):
    """Where the vectors of soft prompts come from."""

    def rows(self, request: Request) -> torch.Tensor:
        """Vectors for the L positions that the request's record names, float32 [L, d]."""


@dataclass(frozen=True)
class DrawnSoftPrompts:
    """RSP: drawn from the record's seed (paper, Eq. 1).

    Attributes:
        hidden_size: d.
    """

    hidden_size: int

    def rows(self, request: Request) -> torch.Tensor:
        """See `SoftPrompts.rows`."""
        return draw_rows([request.record], self.hidden_size)


@dataclass(frozen=True)
class Comparator(ABC):
    """A method and its settings, as the protocol of an evaluation holds them.

    How many vectors there are and where they stand are the protocol's `rsp.length` and
    `rsp.position`; `length` and `position` are the method's own defaults for them.
    """

    method: ClassVar[str]
    length: ClassVar[int]
    position: ClassVar[Position]
    #: Whether the record's seed matters: if not, greedy samples of a problem are all the same.
    uses_seed: ClassVar[bool] = False
    #: Settings that say where something lies; what lies there counts, and not where.
    paths: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def check(self, model: Path, rsp: RspOptions) -> str | None:
        """Make sure, without loading the model, that the method can be used with it.

        Args:
            model: Its Hugging Face folder.
            rsp: How many vectors there are, and where.

        Returns:
            What tells the trained parameters from others; None where nothing is trained.

        Raises:
            ConfigError: If a setting does not suit the model.
            RunFolderError: If a file of trained parameters is missing, damaged, or another's.
        """

    @abstractmethod
    def start(self, host: HostModel) -> SoftPrompts:
        """Load what is needed beside the model."""
