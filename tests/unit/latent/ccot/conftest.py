"""One of each tiny model with its adapters; tests that change them make their own."""

from __future__ import annotations

import pytest

from rsp_rl.latent.ccot.adapters import Adapters
from tests.unit.latent.ccot.made import CONFIGS, make_adapters


@pytest.fixture(scope="session", params=CONFIGS)
def adapters(request: pytest.FixtureRequest) -> Adapters:
    return make_adapters(request.param)
