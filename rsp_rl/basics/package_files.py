"""Files that come with the package: configs, protocols, recipes."""

from __future__ import annotations

from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2]

CONFIGS = _CHECKOUT / "configs"
PROTOCOLS = _CHECKOUT / "eval" / "protocols"
REPOSITORY = _CHECKOUT
