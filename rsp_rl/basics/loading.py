"""Somebody else's code, loaded under a name that an error can say."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from rsp_rl.basics.errors import ConfigError, KnownError


def load(what: str, loader: Callable[[], Any], mend: str | None = None) -> Any:
    """Call what loads something.

    Args:
        what: It, as an error names it.
        loader: Imports, looks up or makes it.
        mend: What to do if it cannot be.

    Returns:
        What the loader does.

    Raises:
        ConfigError: Naming it, the first error of all and the line that raised it.
    """
    try:
        return loader()
    except KnownError:
        raise
    except Exception as error:  # a module may raise anything
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        *_, frame = traceback.extract_tb(cause.__traceback__) or [None]
        where = f" ({frame.filename}, line {frame.lineno})" if frame else ""
        said = " ".join(str(cause).split())
        more = f"; {mend}" if mend else ""
        raise ConfigError(
            f"{what} cannot be loaded: {type(cause).__name__}: {said}{where}{more}"
        ) from error
