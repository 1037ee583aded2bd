"""Files that come with the package: configs, protocols, recipes.

In a checkout they lie beside `rsp_rl`, and a wheel carries them inside it (see `setup.py`). They
are those of the `rsp_rl` that was imported: a checkout that is merely first on PYTHONPATH, as the
copy of an uploaded Ray job is, brings its own.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

_PACKAGE = Path(str(files("rsp_rl"))).resolve()
_INSTALLED = _PACKAGE / "_files"

#: Root of the checkout that this is; None for an installed wheel.
CHECKOUT = None if _INSTALLED.is_dir() else _PACKAGE.parent

_ROOT = CHECKOUT or _INSTALLED

CONFIGS = _ROOT / "configs"
PROTOCOLS = _ROOT / "eval" / "protocols"
RECIPES = _ROOT / "recipes"
