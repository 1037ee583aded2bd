"""Shapes of a model from its `config.json`, without weights, and how large it is by them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsp_rl.basics.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

#: Bytes of a bf16 number: what models compute in, and what keys and values are kept in.
BF16_BYTES = 2

#: Shapes (`config.json`) of the recipes' models, so that a dry run needs no network.
KNOWN_SHAPES: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-Math-7B": {
        "model_type": "qwen2",
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    },
    "Qwen/Qwen2.5-Math-1.5B": {
        "model_type": "qwen2",
        "vocab_size": 151936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    },
    "meta-llama/Llama-3.1-8B-Instruct": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
    },
    "meta-llama/Llama-2-7b-chat-hf": {
        "model_type": "llama",
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    },
    "meta-llama/Llama-3.2-3B-Instruct": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": True,
    },
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": {
        "model_type": "qwen2",
        "vocab_size": 151936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
    },
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": {
        "model_type": "qwen2",
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
    },
}


#: Model types whose parameters `ModelShape` counts, and whether q, k and v have biases.
_ATTENTION_BIAS = {"qwen2": True, "llama": False}


@dataclass(frozen=True)
class ModelShape:
    """Shapes of a decoder with grouped-query attention and a gated feed-forward.

    Attributes:
        vocab_size: V, rows of the embedding table.
        hidden_size: d.
        intermediate_size: f.
        layers: Transformer layers.
        heads: Query heads.
        kv_heads: Key/value heads.
        head_dim: Size of a head.
        max_position_embeddings: Longest sequence.
        tied: Whether the output projection is the embedding table.
        attention_bias: Whether q, k and v have biases.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    max_position_embeddings: int
    tied: bool
    attention_bias: bool

    @classmethod
    def from_config(cls, config: Mapping[str, Any], where: str) -> ModelShape:
        """Read the fields of a Hugging Face `config.json`.

        Raises:
            ConfigError: If the model type is not known here, or a field is missing.
        """
        model_type = config.get("model_type")
        if model_type not in _ATTENTION_BIAS:
            raise ConfigError(
                f"{where}: memory of model type {model_type!r} cannot be estimated, only of "
                f"{sorted(_ATTENTION_BIAS)}; training itself does not need the estimate"
            )
        try:
            heads = config["num_attention_heads"]
            return cls(
                vocab_size=config["vocab_size"],
                hidden_size=config["hidden_size"],
                intermediate_size=config["intermediate_size"],
                layers=config["num_hidden_layers"],
                heads=heads,
                kv_heads=config.get("num_key_value_heads") or heads,
                head_dim=config.get("head_dim") or config["hidden_size"] // heads,
                max_position_embeddings=config["max_position_embeddings"],
                tied=bool(config.get("tie_word_embeddings", False)),
                attention_bias=_ATTENTION_BIAS[model_type],
            )
        except KeyError as error:
            raise ConfigError(f"{where} has no {error}; is it a model's config.json?") from error

    @property
    def kv_size(self) -> int:
        """Width of keys, and of values."""
        return self.kv_heads * self.head_dim

    @property
    def embedding_parameters(self) -> int:
        """V x d."""
        return self.vocab_size * self.hidden_size

    @property
    def layer_parameters(self) -> int:
        """One layer: q and o, k and v, their biases, the gated feed-forward, two norms."""
        d, q, kv = self.hidden_size, self.heads * self.head_dim, self.kv_size
        bias = q + 2 * kv if self.attention_bias else 0
        return 2 * d * q + 2 * d * kv + bias + 3 * d * self.intermediate_size + 2 * d

    @property
    def root_parameters(self) -> int:
        """What FSDP keeps in its root unit: embedding, output projection unless tied, last norm."""
        return self.embedding_parameters * (1 if self.tied else 2) + self.hidden_size

    @property
    def parameters(self) -> int:
        """P."""
        return self.layers * self.layer_parameters + self.root_parameters

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one token in all layers, bf16."""
        return 2 * self.layers * self.kv_size * BF16_BYTES


def kv_numbers_per_token(config: PretrainedConfig) -> int:
    """Numbers of one token's keys and values in all layers of a model of any kind.

    Models that keep less than keys and values of each head (latents, windows) need less.
    """
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return 2 * config.num_hidden_layers * kv_heads * head_dim


def model_shape(path: str) -> ModelShape:
    """The shape of `actor_rollout_ref.model.path`.

    A folder's own `config.json`; for the recipes' models `KNOWN_SHAPES`; else the hub's.

    Raises:
        ConfigError: If there is no such config, or it cannot be used.
    """
    if path in KNOWN_SHAPES and not Path(path).is_dir():
        return ModelShape.from_config(KNOWN_SHAPES[path], path)
    file = Path(path).expanduser() / "config.json"
    if not file.parent.is_dir():
        file = _download_config(path)
    try:
        config = dict(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{file} is no readable model config: {error}") from error
    return ModelShape.from_config(config, str(file))


def _download_config(path: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(path, "config.json"))
    except Exception as error:  # the hub raises a dozen kinds; all mean the same to the user
        raise ConfigError(
            f"actor_rollout_ref.model.path={path!r}: no such folder, and the hub gave no "
            f"config.json ({type(error).__name__}: {error}); check the name, the network, HF_TOKEN"
        ) from error
