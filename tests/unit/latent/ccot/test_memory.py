"""The dry run's arithmetic: parameters are counted exactly, and what grows with what."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rsp_rl.latent.ccot.memory import OVERHEAD, Lengths, adapter_parameters, memory_of
from rsp_rl.latent.ccot.settings import CcotSettings
from rsp_rl.models.shape import ModelShape, model_shape
from tests.unit.latent.ccot.made import CONFIGS, make_adapters

LLAMA = model_shape("meta-llama/Llama-2-7b-chat-hf")
PAPER = CcotSettings(layer=15)
LENGTHS = Lengths(question=300, chain=400, answer=10)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_adapters_are_counted_as_they_are(kind: str) -> None:
    shape = ModelShape.from_config(CONFIGS[kind].to_dict(), kind)
    adapters = make_adapters(kind)
    for name, rank in (("phi", 3), ("psi", 2)):
        own = sum(parameter.numel() for parameter in adapters.parameters(name, [1]))
        assert adapter_parameters(shape, rank) == own


def test_of_the_papers_model() -> None:
    """319.8 and 159.9 million parameters of adapters, 6,738 million of theta."""
    memory = memory_of(LLAMA, PAPER, LENGTHS)
    assert memory.weights == 2 * 6_738_415_616
    phi, psi = 319_815_680, 159_907_840
    assert memory.adapters == 4 * (phi + psi)
    assert memory.learning == 12 * (psi + phi * 17 // 32)
    assert memory.cache == 32 * 700 * 2 * 32 * 4096 * 2
    assert memory.total == sum(
        (memory.weights, memory.adapters, memory.learning, memory.cache, memory.activations)
    ) + OVERHEAD  # fmt: skip


def test_without_thoughts_psi_alone_learns() -> None:
    memory = memory_of(LLAMA, replace(PAPER, ratio=0), LENGTHS)
    assert memory.learning == 12 * 159_907_840
    assert memory.activations < memory_of(LLAMA, PAPER, LENGTHS).activations


@pytest.mark.parametrize("name", ["ratio", "batch_size"])
def test_it_grows_with(name: str) -> None:
    more = replace(PAPER, **{name: 2 * getattr(PAPER, name)})
    smaller, larger = memory_of(LLAMA, PAPER, LENGTHS), memory_of(LLAMA, more, LENGTHS)
    assert larger.activations > smaller.activations
