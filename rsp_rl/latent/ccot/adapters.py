"""One frozen model and its two adapters, of which one at a time is at work, or none.

theta is the model alone; phi and psi are LoRA on all linear layers of the blocks (peft's).

Layers are counted as Hugging Face counts hidden states: 0 is the embeddings, i the output of block
i, and the last one has gone through the final norm as well.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from rsp_rl.basics.errors import ConfigError
from rsp_rl.latent.thinking import check_thinks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Weights = Literal["theta", "phi", "psi"]
"""What runs: the model alone, or with its generator, or with its decoder."""


@dataclass(frozen=True)
class _Kind:
    """An architecture.

    Attributes:
        blocks: Name of their list in the model without its output layer.
        linear: Names of the linear layers of attention and feed-forward in a block.
        transposed: Whether these keep their weights as [in, out].
    """

    blocks: str
    linear: tuple[str, ...]
    transposed: bool = False


_GATED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

KINDS = {
    "gpt2": _Kind("h", ("c_attn", "c_proj", "c_fc"), transposed=True),
    "llama": _Kind("layers", _GATED),
    "qwen2": _Kind("layers", _GATED),
}
"""By model type of a `config.json`."""


class Adapters:
    """A model with phi and psi, which change nothing until they are trained.

    Args:
        model: Frozen by this, its dropout off; its adapters are added in place, in float32 where
            it is less exact.
        generator_rank: Of phi.
        decoder_rank: Of psi.
        scale: Alpha over rank.
        seed: Of the adapters' first values.

    Raises:
        ConfigError: If the model is of no kind that is known here, or keeps a window of its past
            only, or cannot think; see `rsp_rl.latent.thinking.check_thinks`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        generator_rank: int,
        decoder_rank: int,
        scale: float,
        seed: int,
    ) -> None:
        kind = _kind_of(model)
        check_thinks(model)
        self.model = model.eval().requires_grad_(False)
        self.blocks: nn.ModuleList = getattr(model.base_model, kind.blocks)
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            torch.manual_seed(seed)
            for name, rank in (("phi", generator_rank), ("psi", decoder_rank)):
                config = LoraConfig(
                    r=rank,
                    lora_alpha=scale * rank,
                    target_modules=list(kind.linear),
                    fan_in_fan_out=kind.transposed,
                )
                inject_adapter_in_model(config, model, adapter_name=name)
        self._layers = [
            [part for part in block.modules() if isinstance(part, BaseTunerLayer)]
            for block in self.blocks
        ]
        named = model.named_parameters()
        self._own = {name: parameter for name, parameter in named if ".lora_" in name}
        for parameter in self._own.values():
            if parameter.dtype in (torch.bfloat16, torch.float16):
                parameter.data = parameter.data.float()
        self._trained: list[nn.Parameter] = []
        self._used: Weights | None = None
        self.use("theta")

    @property
    def layers(self) -> int:
        """L."""
        return len(self.blocks)

    @property
    def width(self) -> int:
        """d."""
        return self.model.get_input_embeddings().weight.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.get_input_embeddings().weight.device

    def parameters(
        self, name: Literal["phi", "psi"], layers: Iterable[int] | None = None
    ) -> list[nn.Parameter]:
        """What of an adapter belongs to some layers, counted from 1; by default to all."""
        wanted = range(1, self.layers + 1) if layers is None else layers
        return [
            getattr(part, factor)[name].weight
            for layer in wanted
            for part in self._layers[layer - 1]
            for factor in ("lora_A", "lora_B")
        ]

    def train_only(self, parameters: Sequence[nn.Parameter]) -> None:
        """Let these have gradients and no others, whichever adapter is at work."""
        self._trained = list(parameters)
        self._freeze_the_rest()

    def use(self, weights: Weights) -> None:
        """Run with these from now on."""
        if weights == self._used:
            return
        self._used = weights
        for part in (part for layer in self._layers for part in layer):
            part.enable_adapters(weights != "theta")
            if weights != "theta":
                part.set_adapter(weights)
        # peft gives gradients to the adapter that it sets, and takes them from the other.
        self._freeze_the_rest()

    def state_dict(self) -> dict[str, nn.Parameter]:
        """The adapters' parameters, by peft's names."""
        return dict(self._own)

    def load_state_dict(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            ValueError: If names or shapes are others.
        """
        if self._own.keys() != tensors.keys():
            raise ValueError(f"other adapters: {sorted(self._own.keys() ^ tensors.keys())[0]}")
        with torch.no_grad():
            for name, parameter in self._own.items():
                if parameter.shape != tensors[name].shape:
                    raise ValueError(f"{name} has another shape")
                parameter.copy_(tensors[name])

    def _freeze_the_rest(self) -> None:
        for parameter in self._own.values():
            parameter.requires_grad_(False)
        for parameter in self._trained:
            parameter.requires_grad_(True)


def _kind_of(model: PreTrainedModel) -> _Kind:
    config = model.config
    kind = KINDS.get(config.model_type)
    if kind is None or not hasattr(model.base_model, kind.blocks):
        raise ConfigError(
            f"CCOT knows the layers of {', '.join(KINDS)}, and {type(model).__name__} is a model "
            f"of type {config.model_type}; take one of these"
        )
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        raise ConfigError(
            f"{type(model).__name__} keeps a window of its past in some layers, and CCOT goes back "
            "in its cache; set use_sliding_window to false in config.json"
        )
    return kind


def exact(tensor: torch.Tensor) -> torch.Tensor:
    """The same in float32, or as it is if that is wider: what a loss is computed in."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
