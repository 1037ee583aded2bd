"""The model's input embedding as laws ask for it: rows of tokens, and mixtures of all of them.

Rows come through the model's own look-up, whatever that does to the table's (Gemma's multiplies
them). A mixture is a product with the table itself, times the same factor, which is measured at the
look-up: so both speak of the same vectors. A factor that a model applies to its *inputs*, looked up
or given as embeddings, as Granite does, is none of this module's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from rsp_rl.basics.errors import ConfigError

#: Rows that the factor is measured at, and roundings that each may be off by.
_PROBES, _ROUNDINGS = 64, 4

#: Rows of a table in half precision that are multiplied at a time, as float32.
_CHUNK = 16_384


class TableEmbedding:
    """`rsp_rl.thoughts.law.Embedding` over a table.

    Args:
        look_up: Inputs of tokens: [..., d] of ids [...].
        table: The table as it is now, [V or more, d]; called each time, for weights that change or
            are gathered.
        factor: What the look-up multiplies rows of the table by; measured, once, if `None`. To be
            given where `look_up` must not be called on tokens of nobody's, as inside its own hook.
    """

    def __init__(
        self,
        look_up: Callable[[torch.Tensor], torch.Tensor],
        table: Callable[[], torch.Tensor],
        factor: float | None = None,
    ) -> None:
        self._look_up = look_up
        self._table = table
        self._factor = factor

    @classmethod
    def of(cls, module: nn.Module) -> TableEmbedding:
        """Over an embedding module with a `weight`, as `get_input_embeddings()` gives it."""
        return cls(module, lambda: module.weight)

    @property
    def factor(self) -> float:
        """What the look-up multiplies rows of the table by, 1 for most models.

        Raises:
            ConfigError: If its rows are no multiples of the table's.
        """
        if self._factor is None:
            self._factor = self._measured()
        return self._factor

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """See `Embedding.rows`."""
        return self._look_up(ids)

    def mixture(self, probabilities_NV: torch.Tensor) -> torch.Tensor:
        """See `Embedding.mixture`.

        Raises:
            ConfigError: If the table has fewer rows than there are probabilities, as a part of one
                does, or see `factor`.
        """
        vocabulary = probabilities_NV.shape[1]
        table_VD = self._whole(vocabulary, "a mixture of all")
        size = vocabulary if table_VD.dtype == torch.float32 else _CHUNK
        mixed_ND = probabilities_NV.new_zeros(len(probabilities_NV), table_VD.shape[1])
        for at in range(0, vocabulary, size):
            end = min(at + size, vocabulary)
            mixed_ND = mixed_ND + probabilities_NV[:, at:end] @ table_VD[at:end].float()
        return mixed_ND if self.factor == 1 else self.factor * mixed_ND

    @torch.no_grad()
    def nearest(self, ids_N: torch.Tensor, count: int, vocabulary: int) -> torch.Tensor:
        """See `Embedding.nearest`; searched each time, for engines change their table in place.

        Raises:
            ConfigError: If the table has fewer rows than V, as a part of one does.
        """
        if count == 1:
            return ids_N[:, None]
        table_VD = self._whole(vocabulary, "the nearest of all")
        own_ND = nn.functional.normalize(table_VD[ids_N].float(), dim=1)
        cosine_NV = own_ND.new_empty(len(own_ND), vocabulary)
        for at in range(0, vocabulary, _CHUNK):
            part_VD = table_VD[at : min(at + _CHUNK, vocabulary)].float()
            # Of rows of zeros, which no token has: 0.
            norms_V = part_VD.norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
            cosine_NV[:, at : at + len(part_VD)] = own_ND @ part_VD.T / norms_V
        return cosine_NV.scatter_(1, ids_N[:, None], torch.inf).topk(count, dim=1).indices

    def _whole(self, vocabulary: int, what: str) -> torch.Tensor:
        """The table, which has a row of each of V tokens."""
        table_VD = self._table()
        if len(table_VD) < vocabulary:
            raise ConfigError(
                f"{what} {vocabulary} tokens needs the whole embedding table, and there are "
                f"{len(table_VD)} rows of it here; use a law of a few tokens, or one GPU an engine"
            )
        return table_VD

    @torch.no_grad()
    def _measured(self) -> float:
        table_VD = self._table()
        steps = torch.linspace(0, len(table_VD) - 1, min(_PROBES, len(table_VD)))
        ids_N = steps.round().long().to(table_VD.device)
        rows_ND, of_table_ND = self._look_up(ids_N), table_VD[ids_N]
        if torch.equal(rows_ND, of_table_ND):
            return 1.0
        wide_ND, base_ND = rows_ND.double(), of_table_ND.double()
        factor = float((wide_ND * base_ND).sum() / (base_ND * base_ND).sum())
        bound = _ROUNDINGS * torch.finfo(rows_ND.dtype).eps
        if not bool(((wide_ND - factor * base_ND).abs() <= bound * wide_ND.abs() + 1e-30).all()):
            raise ConfigError(
                "this model's input embedding is no multiple of its table, so that a mixture of "
                "all tokens is not what it would make of them; use a law of a few tokens"
            )
        return factor
