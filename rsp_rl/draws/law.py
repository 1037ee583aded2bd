"""The interface of a law: from which distribution the rows of a soft prompt are drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:  # torch is imported where a tensor is made: settings need a law's name alone
    import torch


class Draw(Protocol):
    """What a law needs to know of one rollout; `SoftPromptRecord` is one.

    Attributes:
        seed: Rollout seed, an unsigned 64-bit integer.
        length: L; of a law whose rows are added, tokens of the question.
        mean: mu_E; of such a law 0.
        std: sigma_E times the scale dial; of such a law the dial alone.
        table: Digest of the pretrained table, for a law that draws from it.
    """

    @property
    def seed(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def mean(self) -> float: ...
    @property
    def std(self) -> float: ...
    @property
    def table(self) -> int: ...


class Law(ABC):
    """One distribution of soft prompts, a pure function of the rollout's record.

    Rollout and actor draw in processes of their own and must get the same numbers, in any order and
    any number of times: what is random comes from the record's seed, never from a generator that
    remembers.

    Attributes:
        name: What `rsp.law` calls it.
        one_draw: Whether all rollouts of a run share one seed.
        from_table: Whether rows come from the pretrained table, whose digest is then in the record.
        added: Whether rows are added to the embeddings of the question's tokens, where others stand
            at positions of their own.
    """

    name: ClassVar[str]
    one_draw: ClassVar[bool] = False
    from_table: ClassVar[bool] = False
    added: ClassVar[bool] = False

    @abstractmethod
    def draw(self, record: Draw, hidden_size: int) -> torch.Tensor:
        """The rows of one rollout.

        Args:
            record: The rollout's; `seed`, `length`, `mean`, `std` and `table` count here.
            hidden_size: d, at least 1.

        Returns:
            float32 [L, d] on the CPU.
        """
