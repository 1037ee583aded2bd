"""What a training of CCOT is told.

The paper's are ranks, ratios, layer and cap (arXiv 2412.13171, sections 4 and 5.1). It is silent on
the learning rate, the batch, the epochs of each phase, LoRA's alpha, the decay, the clipping, and
on the probability at which thoughts end: these are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from fractions import Fraction
from math import ceil

from rsp_rl.basics.errors import ConfigError

EVEN, SCORED = "even", "scored"
SELECTIONS = (EVEN, SCORED)

#: Whole numbers that may be 0.
_FROM_ZERO = ("epochs_per_layer", "decoder_epochs", "joint_epochs", "weight_decay", "seed")


@dataclass(frozen=True)
class CcotSettings:
    """Of one training.

    Attributes:
        ratio: r, thoughts a token of the chain: 0 has no thoughts, 1 a thought for each token.
        layer: l, of which the states are fed back: hidden states l of a Hugging Face model, 1 the
            output of its first block; None takes half of the layers. The paper has 15 of 32.
        selection: Which positions of the chain thoughts stand for; see
            `rsp_rl.latent.ccot.positions`.
        generator_rank: Of phi.
        decoder_rank: Of psi.
        lora_scale: Alpha over rank, of both; ours.
        learning_rate: AdamW's, constant, in all phases; ours.
        weight_decay: Ours.
        max_grad_norm: Longer gradients are shortened to it; ours.
        batch_size: Problems a step; ours.
        epochs_per_layer: Passes over the problems for each layer of phi; ours.
        decoder_epochs: Passes in which psi alone learns, and the end of thoughts; ours.
        joint_epochs: Passes in which phi's layers above l learn too; ours.
        end_probability: Thoughts end when their classifier says so with more than that; ours.
        longest_chain: An answer has at most r times that many thoughts, rounded up.
        max_new_tokens: Of an answer, thoughts not counted; ours.
        seed: Of the adapters' first values and of the problems' order.
    """

    ratio: float = 0.1
    layer: int | None = None
    selection: str = EVEN
    generator_rank: int = 128
    decoder_rank: int = 64
    lora_scale: float = 2.0
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    batch_size: int = 32
    epochs_per_layer: int = 1
    decoder_epochs: int = 3
    joint_epochs: int = 1
    end_probability: float = 0.5
    longest_chain: int = 200
    max_new_tokens: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if name in ("ratio", "end_probability", "selection") or value is None:
                continue
            if not (value >= 0 if name in _FROM_ZERO else value > 0):
                bound = "at least 0" if name in _FROM_ZERO else "above 0"
                raise ConfigError(f"{name} is {value}: it must be {bound}")
        if not 0 <= self.ratio <= 1:
            raise ConfigError(
                f"ratio is {self.ratio}: thoughts a token of the chain, 0 (none) to 1 (all)"
            )
        if not 0 < self.end_probability < 1:
            raise ConfigError(
                f"end_probability is {self.end_probability}: it must be above 0, below 1"
            )
        if self.selection not in SELECTIONS:
            raise ConfigError(f"selection is {self.selection!r}: choose {EVEN}")
        if self.selection == SCORED:
            raise ConfigError(
                "selection=scored is not offered: the paper's scorer, a linear layer on layer 3, "
                "comes ready from an earlier work's training of another model, which neither that "
                f"paper's text nor any public checkpoint lets us repeat; take selection={EVEN}, "
                "which the paper found about as good"
            )
        if not self.decoder_epochs + self.joint_epochs:
            raise ConfigError(
                "decoder_epochs and joint_epochs are both 0: nothing would learn to answer"
            )
        if self.ratio and not self.epochs_per_layer:
            raise ConfigError(
                f"epochs_per_layer is 0: with ratio {self.ratio} nothing would learn to think; set "
                "it to 1 at least, or ratio to 0"
            )

    def layer_of(self, layers: int) -> int:
        """l in a model of so many layers.

        Raises:
            ConfigError: If it has no such layer, or if it is the last one and a joint phase, which
                trains those above it, is asked for.
        """
        layer = max(1, layers // 2) if self.layer is None else self.layer
        if layer > layers:
            raise ConfigError(
                f"layer is {layer}, but the model has layers 1 to {layers}; half of them is the "
                "paper's choice"
            )
        if layer == layers and self.ratio and self.joint_epochs:
            raise ConfigError(
                f"layer {layer} is the model's last: the joint phase trains the generator's layers "
                "above it, of which there are none; take a lower layer, or joint_epochs=0"
            )
        return layer

    @property
    def cap(self) -> int:
        """The most thoughts of an answer, 200 r (section 4.3)."""
        return times(self.ratio, self.longest_chain)


def times(ratio: float, tokens: int) -> int:
    """A ratio of so many tokens, rounded up, of the ratio as it is written.

    As floats 0.07 of 100 is more than 7, and would be 8.
    """
    return ceil(Fraction(str(ratio)) * tokens)
