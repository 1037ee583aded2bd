"""The laws by name, and their settings from a command line, a protocol or a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from rsp_rl.basics.errors import ConfigError
from rsp_rl.thoughts.law import InputLaw
from rsp_rl.thoughts.laws.dirichlet import Dirichlet
from rsp_rl.thoughts.laws.gumbel import Gumbel
from rsp_rl.thoughts.laws.hidden import Hidden
from rsp_rl.thoughts.laws.mixture_of_inputs import MixtureOfInputs
from rsp_rl.thoughts.laws.multiplex import Multiplex
from rsp_rl.thoughts.laws.neftune import Neftune
from rsp_rl.thoughts.laws.neighbours import Neighbours
from rsp_rl.thoughts.laws.noisy import Fuzzy, Soft
from rsp_rl.thoughts.laws.soft_thinking import SoftThinking
from rsp_rl.thoughts.laws.token import Token

#: What `--law` may name.
LAWS: dict[str, type[InputLaw]] = {
    kind.name: kind
    for kind in (
        *(Token, SoftThinking, Dirichlet, Gumbel),
        *(Multiplex, Soft, Fuzzy, MixtureOfInputs, Hidden),
        *(Neighbours, Neftune),
    )
}

_KINDS = {"int": int, "float": (int, float), "float | None": (int, float), "str": str, "bool": bool}


def law_from_settings(name: str, settings: Mapping[str, Any]) -> InputLaw:
    """A law with its settings, those that are not there at their defaults.

    Raises:
        ConfigError: On an unknown law or setting, or a bad value.
    """
    if name not in LAWS:
        raise ConfigError(f"law={name!r} is unknown; use one of {', '.join(LAWS)}")
    kind = LAWS[name]
    known = {field.name: field for field in fields(kind)}
    if unknown := sorted(settings.keys() - known.keys()):
        raise ConfigError(
            f"law.{unknown[0]} is no setting of {name}; known: {', '.join(sorted(known))}"
        )
    given = {}
    for key, value in settings.items():
        wanted = _KINDS[str(known[key].type)]
        if value is None and known[key].default is None:
            continue
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise ConfigError(f"law.{key}={value!r} must be of type {known[key].type}")
        try:
            given[key] = float(value) if wanted == (int, float) else value  # 1 is 1.0 here
        except OverflowError as error:
            raise ConfigError(f"law.{key}={value!r} is too large") from error
    return kind(**given)


def law_to_settings(law: InputLaw) -> dict[str, Any]:
    """Plain types, which `law_from_settings` reads back with the law's name."""
    return asdict(law)
