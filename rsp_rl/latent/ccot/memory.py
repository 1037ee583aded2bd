"""GPU memory that a training of CCOT needs, by arithmetic from shapes: an estimate, not measured.

Bytes, of bf16 weights and float32 adapters on one GPU. What a training keeps for its way back is
the inputs of each linear layer, in bf16 and once more in float32 for its adapter, and what lies
between them; the largest phase is the joint one.

Legend: P parameters, d width, f feed-forward width, V vocabulary, B problems a step.
"""

from __future__ import annotations

from dataclasses import dataclass

from rsp_rl.latent.ccot.settings import CcotSettings, times
from rsp_rl.models.shape import BF16_BYTES, ModelShape

GIB = 1 << 30

#: CUDA's context and fragmentation: an assumption.
OVERHEAD = 2 * GIB

#: Bytes a trained parameter: float32 gradient and AdamW's two moments.
_LEARNING = 12
_FP32_BYTES = 4


@dataclass(frozen=True)
class Lengths:
    """Tokens of the longest question, chain and answer of the data."""

    question: int
    chain: int
    answer: int


@dataclass(frozen=True)
class Memory:
    """What takes how many bytes.

    Attributes:
        weights: theta.
        adapters: phi and psi.
        learning: Gradients and moments of the largest phase.
        cache: Keys and values of a batch.
        activations: What the joint phase keeps of thoughts and answers.
        overhead: `OVERHEAD`.
    """

    weights: int
    adapters: int
    learning: int
    cache: int
    activations: int
    overhead: int = OVERHEAD

    @property
    def total(self) -> int:
        """All together."""
        return sum(vars(self).values())


def adapter_parameters(shape: ModelShape, rank: int) -> int:
    """Of LoRA on all linear layers of one block: (in + out) x rank each."""
    d, f, kv = shape.hidden_size, shape.intermediate_size, shape.kv_size
    q = shape.heads * shape.head_dim
    attention = (d + q) + 2 * (d + kv) + (q + d)
    return rank * (attention + 3 * (d + f))


def memory_of(shape: ModelShape, settings: CcotSettings, lengths: Lengths) -> Memory:
    """The estimate.

    Args:
        shape: Of the model.
        settings: Of the training.
        lengths: Of the data.
    """
    phi = adapter_parameters(shape, settings.generator_rank)
    psi = adapter_parameters(shape, settings.decoder_rank)
    above = shape.layers - settings.layer_of(shape.layers) if settings.ratio else 0
    learning = shape.layers * psi + above * phi  # of the joint phase; a layer of phi's is less
    thoughts = times(settings.ratio, lengths.chain)
    read = lengths.question + max(lengths.chain, thoughts + lengths.answer)
    d, f = shape.hidden_size, shape.intermediate_size
    # Norms, q, k, v, attention's output, its projection, two sums; gate, up, their product, down.
    in_bf16 = 10 * d + 4 * f
    # Adapters of q, k, v, gate and up keep the block's width, o its heads', down f.
    in_float32 = 6 * d + f
    a_layer = BF16_BYTES * in_bf16 + _FP32_BYTES * in_float32
    layers_of = shape.layers * lengths.answer + above * thoughts
    logits = 3 * _FP32_BYTES * shape.vocab_size * lengths.answer
    return Memory(
        weights=BF16_BYTES * shape.parameters,
        adapters=_FP32_BYTES * shape.layers * (phi + psi),
        learning=_LEARNING * learning,
        cache=settings.batch_size * read * shape.kv_bytes_per_token,
        activations=settings.batch_size * (layers_of * a_layer + logits),
    )
