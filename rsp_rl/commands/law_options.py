"""`--law NAME --law.KEY VALUE`: which keys there are is the law's to say, not the parser's."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from rsp_rl.basics.errors import ConfigError

#: How the settings are written, and the one option that stands for all of them.
PREFIX, OPTION = "--law.", "--law.KEY"


def add_law_options(parser: argparse.ArgumentParser) -> None:
    """Register them."""
    law = parser.add_argument_group("thoughts")
    law.add_argument(
        "--law", metavar="NAME",
        help="what stands in place of tokens' embeddings while the model thinks: soft_thinking, "
        "dirichlet, gumbel, multiplex, soft, fuzzy, moi, hidden, neighbours, "
        "neftune, token (default: none)",
    )  # fmt: skip
    law.add_argument(
        OPTION, dest="law_settings", metavar="VALUE", action="append", default=[],
        help="the law's settings and its phases, such as --law.k 10, --law.end '</think>', "
        "--law.max_thoughts 512; a wrong key lists the right ones",
    )  # fmt: skip


def spelled_out(arguments: Sequence[str]) -> list[str]:
    """`--law.k 10` and `--law.k=10` as `--law.KEY=k=10`, which the parser knows."""
    made: list[str] = []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if not argument.startswith(PREFIX) or argument.partition("=")[0] == OPTION:
            made.append(argument)
            continue
        key, equals, value = argument.removeprefix(PREFIX).partition("=")
        if not equals and left and not left[0].startswith("--"):
            equals, value = "=", left.pop(0)
        made.append(f"{OPTION}={key}{equals}{value}")
    return made


def law_group(args: argparse.Namespace) -> dict[str, Any] | None:
    """The `law` group of a protocol; None without `--law`.

    Raises:
        ConfigError: If there are settings without a law, or one without a value or with two.
    """
    if args.law is None:
        if args.law_settings:
            key = args.law_settings[0].partition("=")[0]
            raise ConfigError(f"{PREFIX}{key} without --law NAME; say whose setting it is")
        return None
    group = {"name": args.law}
    for given in args.law_settings:
        key, equals, text = given.partition("=")
        if not key or not equals:
            raise ConfigError(f"{PREFIX}{key} needs a value")
        if key == "name":
            raise ConfigError(f"{PREFIX}name={text}: a law is named by --law")
        if key in group:
            raise ConfigError(f"{PREFIX}{key} is given twice; several texts are one list: '[a, b]'")
        group[key] = _value(key, text)
    return group


def _value(key: str, text: str) -> Any:
    """A number, word or list as YAML has them; a text stays as it was given."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        made = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]
    except (OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        if text.lstrip()[:1] in ("[", "{"):
            first = str(error).partition("\n")[0]
            raise ConfigError(f"{PREFIX}{key} {text!r} cannot be read: {first}") from error
        return text
    quoted = text[:1] in ("'", '"')
    # YAML drops spaces, and reads `so: ` as a group and nothing as null.
    if isinstance(made, dict) or (isinstance(made, str) and not quoted):
        return text
    return text if made is None and text.strip() not in ("null", "~") else made
