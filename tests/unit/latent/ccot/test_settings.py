"""The paper's values by default, and what is refused, each in a sentence of its own."""

from __future__ import annotations

import re
from typing import Any

import pytest

from rsp_rl.basics.errors import ConfigError
from rsp_rl.latent.ccot.settings import CcotSettings


def test_the_papers() -> None:
    settings = CcotSettings()
    assert (settings.generator_rank, settings.decoder_rank) == (128, 64)
    assert (settings.ratio, settings.selection, settings.longest_chain) == (0.1, "even", 200)


@pytest.mark.parametrize(("ratio", "cap"), [(0.05, 10), (0.1, 20), (0.2, 40), (1, 200), (0, 0)])
def test_the_cap_is_200_r(ratio: float, cap: int) -> None:
    assert CcotSettings(ratio=ratio).cap == cap


@pytest.mark.parametrize(("layers", "found"), [(32, 16), (5, 2), (1, 1)])
def test_the_layer_is_half_of_them(layers: int, found: int) -> None:
    assert CcotSettings(joint_epochs=0).layer_of(layers) == found


def test_the_last_layer_without_a_joint_phase() -> None:
    assert CcotSettings(layer=4, joint_epochs=0).layer_of(4) == 4
    assert CcotSettings(layer=4, ratio=0).layer_of(4) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": 1.5}, "ratio is 1.5: thoughts a token of the chain, 0 (none) to 1 (all)"),
        ({"ratio": -0.1}, "ratio is -0.1"),
        ({"ratio": float("nan")}, "ratio is nan"),
        ({"layer": 0}, "layer is 0: it must be above 0"),
        ({"generator_rank": 0}, "generator_rank is 0: it must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"seed": -1}, "seed is -1: it must be at least 0"),
        ({"end_probability": 1.0}, "end_probability is 1.0"),
        ({"selection": "random"}, "selection is 'random': choose even"),
        ({"selection": "scored"}, "selection=scored is not offered: the paper's scorer"),
        ({"decoder_epochs": 0, "joint_epochs": 0}, "nothing would learn to answer"),
        ({"epochs_per_layer": 0}, "nothing would learn to think; set it to 1 at least"),
    ],
)
def test_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        CcotSettings(**settings)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (5, "layer is 5, but the model has layers 1 to 4"),
        (4, "layer 4 is the model's last: the joint phase trains the generator's layers above it"),
    ],
)
def test_a_layer_that_the_model_has_not(layer: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CcotSettings(layer=layer).layer_of(4)
