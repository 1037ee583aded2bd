"""CCOT without a cache: all columns anew for each thought, adapters by position.

A row at a time, so without padding; nothing of `rsp_rl.latent.ccot` but the adapters' parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from rsp_rl.latent.ccot.adapters import Adapters

#: By position, which weights make it.
Parts = Sequence[str]


@contextmanager
def by_position(adapters: Adapters, parts: Parts) -> Iterator[None]:
    """Each linear layer adds at each position what that position's adapter adds."""
    layers = [part for part in adapters.model.modules() if isinstance(part, LoraLayer)]

    def forward(layer: LoraLayer) -> Any:
        def call(x: torch.Tensor) -> torch.Tensor:
            result = layer.base_layer(x)
            for name in ("phi", "psi"):
                here = torch.tensor([part == name for part in parts], dtype=x.dtype)[None, :, None]
                added = layer.lora_B[name](layer.lora_A[name](x)) * layer.scaling[name]
                result = result + here * added
            return result

        return call

    for layer in layers:
        layer.forward = forward(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def states(adapters: Adapters, inputs_1Td: torch.Tensor, parts: Parts) -> list[torch.Tensor]:
    """Hidden states of all layers, [T, d] each, the embeddings' first."""
    base = adapters.model.base_model
    with by_position(adapters, parts):
        output = base(inputs_embeds=inputs_1Td, output_hidden_states=True, use_cache=False)
    return [layer[0] for layer in output.hidden_states]


def embed(adapters: Adapters, ids: Sequence[int]) -> torch.Tensor:
    """[1, T, d]."""
    return adapters.model.get_input_embeddings()(torch.tensor([list(ids)]))


def read(adapters: Adapters, question: Sequence[int], layer: int) -> torch.Tensor:
    """State l of the question's last token, [d]."""
    inputs = embed(adapters, question)
    return states(adapters, inputs, ["theta"] * len(question))[layer][-1]


def think(adapters: Adapters, question: Sequence[int], count: int, layer: int) -> torch.Tensor:
    """Inputs of so many thoughts, [1, K, d]."""
    inputs = [read(adapters, question, layer)]
    while len(inputs) < count:
        found = with_thoughts(adapters, question, torch.stack(inputs)[None])
        inputs.append(found[layer][-1])
    return torch.stack(inputs)[None]


def with_thoughts(
    adapters: Adapters, question: Sequence[int], inputs_1Kd: torch.Tensor
) -> list[torch.Tensor]:
    """States of all layers, of question and thoughts."""
    columns = torch.cat([embed(adapters, question), inputs_1Kd], dim=1)
    parts = ["theta"] * len(question) + ["phi"] * inputs_1Kd.shape[1]
    return states(adapters, columns, parts)


def answer_logits(
    adapters: Adapters,
    question: Sequence[int],
    inputs_1Kd: torch.Tensor,
    answer: Sequence[int],
) -> torch.Tensor:
    """Of what follows each of the answer's tokens, [A, V]."""
    columns = [embed(adapters, question), inputs_1Kd, embed(adapters, answer)]
    thoughts = inputs_1Kd.shape[1]
    parts = ["theta"] * len(question) + ["phi"] * thoughts + ["psi"] * len(answer)
    last = states(adapters, torch.cat(columns, dim=1), parts)[-1]
    head: nn.Module = adapters.model.get_output_embeddings()
    return head(last[-len(answer) :])
