"""The laws: from which distribution the rows of a soft prompt are drawn.

`gaussian` is the paper's. The others are ablations, each of which takes one property away:

- `sphere`: the rows' norms do not fluctuate;
- `vocab`: the rows are real embeddings, rows of the pretrained table itself;
- `fixed`: all rollouts of a run get the same draw;
- `question_noise`: nothing is inserted, rows are added to the embeddings of the question's tokens.

A law's position in `LAWS` is its code in a record. What all have in common: a counter-based
generator keyed by the rollout's seed, read row by row, so that the first rows of a longer soft
prompt are the rows of a shorter one, on every machine; those of `question_noise` up to its factor
1 / sqrt(L d). Laws of other packages come in by an entry point (`rsp_rl.draws.own_laws`).
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import numpy as np

from rsp_rl.basics.errors import EmbeddingTableError
from rsp_rl.draws.embedding_table import pretrained_table
from rsp_rl.draws.law import Draw, Law
from rsp_rl.draws.own_laws import Laws

if TYPE_CHECKING:
    import torch


class Gaussian(Law):
    """Rows i.i.d. N(mu_E 1_d, sigma_E^2 I_d) (paper, Eq. 1)."""

    name = "gaussian"

    def draw(self, record: Draw, hidden_size: int) -> torch.Tensor:
        """See `draw_soft_prompt`."""
        return draw_soft_prompt(record.seed, record.length, hidden_size, record.mean, record.std)


class Vocabulary(Law):
    """Rows of the pretrained table W_E, each chosen uniformly among all V, with replacement."""

    name = "vocab"
    from_table = True

    def draw(self, record: Draw, hidden_size: int) -> torch.Tensor:
        """Rows as they are stored: mu_E, sigma_E and the scale dial have no part in them.

        Raises:
            EmbeddingTableError: If the pretrained table is gone, another one, or of another width.
        """
        table = pretrained_table(f"{record.table:016x}")
        if table.hidden_size != hidden_size:
            raise EmbeddingTableError(
                f"{table.file} has rows of {table.hidden_size} numbers, the model's are of "
                f"{hidden_size}: it is not this model's pretrained table; set rsp.table"
            )
        generator = np.random.Generator(np.random.Philox(key=record.seed))
        ids = generator.integers(table.vocab_size, size=record.length)
        return _tensor(table.rows(ids))


class Fixed(Gaussian):
    """The Gaussian law with one draw for the whole run, validation included."""

    name = "fixed"
    one_draw = True


class Sphere(Gaussian):
    """Rows on a sphere round the origin, in the directions of the Gaussian law's rows.

    The Euclidean norm of every row is the root mean square of the Gaussian law's,
    sqrt(E |h_j|^2) = sqrt(d (mu_E^2 + std^2)), exactly (up to float32). A row of the same seed thus
    differs from the Gaussian one in its norm alone, by a factor of about 1 +- 1/sqrt(2 d).
    """

    name = "sphere"

    def draw(self, record: Draw, hidden_size: int) -> torch.Tensor:
        """The Gaussian rows, each scaled to the norm."""
        rows_LD = super().draw(record, hidden_size).double()
        norm = math.sqrt(hidden_size * (record.mean**2 + record.std**2))
        # Rows of zeros (mean and std 0) have the norm 0 already, and no direction to keep.
        norms_L1 = rows_LD.norm(dim=1, keepdim=True).clamp(min=sys.float_info.min)
        return (rows_LD * (norm / norms_L1)).float()


class QuestionNoise(Law):
    """Uniform noise for the embeddings of the question's L tokens (NEFTune, arXiv 2310.05914).

    Entries are i.i.d. uniform on [-1, 1), times alpha / sqrt(L d); alpha is the record's `std`. L
    is the question's, where the paper has the length of the whole text.
    """

    name = "question_noise"
    added = True

    def draw(self, record: Draw, hidden_size: int) -> torch.Tensor:
        """The noise alone: mu_E and sigma_E have no part in it."""
        generator = np.random.Generator(np.random.Philox(key=record.seed))
        rows_LD = generator.random((record.length, hidden_size))
        rows_LD *= 2
        rows_LD -= 1
        rows_LD *= record.std / math.sqrt(max(record.length, 1) * hidden_size)
        return _tensor(rows_LD.astype(np.float32))


#: By name, in the order of their codes in encoded records: append, never reorder.
LAWS = Laws((Gaussian(), Vocabulary(), Fixed(), Sphere(), QuestionNoise()))


def draw_soft_prompt(
    seed: int, length: int, hidden_size: int, mean: float, std: float
) -> torch.Tensor:
    """Draw H, rows i.i.d. N(mean 1_d, std^2 I_d) (paper, Eq. 1).

    A pure function of its arguments, bit-identical on every machine. Philox with numpy's ziggurat,
    not Box-Muller over raw bits: numpy's vectorised log and cos differ in the last place between
    processors.

    Args:
        seed: Rollout seed, an unsigned 64-bit integer.
        length: L, at least 0.
        hidden_size: d, at least 1.
        mean: mu_E.
        std: sigma_E times the scale dial, at least 0.

    Returns:
        float32 [L, d] on the CPU.

    Raises:
        ValueError: If length, hidden size or standard deviation is out of its range.
    """
    if length < 0 or hidden_size < 1 or not std >= 0:
        raise ValueError(f"cannot draw length={length}, hidden_size={hidden_size}, std={std}")
    generator = np.random.Generator(np.random.Philox(key=seed))
    rows_LD = generator.standard_normal((length, hidden_size))
    rows_LD *= std  # in place: a draw is mostly its normals, and then memory
    rows_LD += mean
    return _tensor(rows_LD.astype(np.float32))


def _tensor(rows_LD: np.ndarray) -> torch.Tensor:
    import torch  # here: settings name laws, and draw nothing

    return torch.from_numpy(rows_LD)
