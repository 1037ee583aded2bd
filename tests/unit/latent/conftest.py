"""A tokenizer, tiny random models of three architectures, and problems for them."""

from __future__ import annotations

import pytest
import torch

from rsp_rl.data import arithmetic_steps
from rsp_rl.latent.folder import Thinker, Thinking, load_thinker
from rsp_rl.latent.scratch import ARCHITECTURES, make_model
from rsp_rl.latent.settings import Settings


@pytest.fixture(scope="session")
def step_problems():
    """64 sums with steps."""
    return arithmetic_steps.generate("train", 64)


@pytest.fixture(scope="session", params=ARCHITECTURES)
def any_model(request, step_problems, tmp_path_factory):
    """Folder of a random model of each architecture."""
    folder = tmp_path_factory.mktemp(request.param)
    sizes = {"layers": 2, "hidden_size": 32, "heads": 2, "context": 256}
    return make_model(folder, step_problems, architecture=request.param, **sizes)


@pytest.fixture(scope="session")
def gpt2(step_problems, tmp_path_factory):
    """Folder of a random GPT-2."""
    sizes = {"layers": 2, "hidden_size": 32, "heads": 2, "context": 256}
    return make_model(tmp_path_factory.mktemp("gpt2"), step_problems, **sizes)


def thinker_of(folder, settings: Settings, dtype=torch.float64) -> Thinker:
    """A model that answers as a training with these settings would leave it."""
    thinker = load_thinker(folder, dtype)
    thinker.thinking = Thinking.of(settings)
    # The added tokens begin with one row, and their logits would tie.
    with torch.no_grad():
        table = thinker.model.get_input_embeddings().weight
        table += 0.01 * torch.randn(table.shape, generator=torch.Generator().manual_seed(0))
    return thinker
