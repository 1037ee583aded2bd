"""The tools of a run: templates write what they do into the prompts of rows that may call them.

verl counts a prompt's tokens with all tools of `data.tool_config_path` and `function_tool_path`,
and shows those of `rollout.multi_turn` to the rollouts of `tool_agent` and loops like it, or the
ones that the row's `extra_info.tool_selection` names. A name that it does not know it passes over.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rsp_rl.basics.errors import ConfigError

logger = logging.getLogger(__name__)

#: verl's loop that shows no tools.
_WITHOUT = "single_turn_agent"


@dataclass
class Tools:
    """Descriptions of a run's tools, as chat templates take them.

    Attributes:
        known: What rollouts can be shown, by name.
        counted: What verl counts a prompt's tokens with; None without files of tools.
        default_loop: Agent loop of rows that name none.
        in_use: Whether a row was seen that shows some.
        unread: Rows that have tools in a column of their own.
    """

    known: dict[str, dict[str, Any]]
    counted: list[dict[str, Any]] | None
    default_loop: str
    in_use: bool = False
    unread: int = 0

    def shown(self, row: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """What the prompt of a row's rollouts shows; None for a loop without tools.

        Raises:
            ConfigError: If the row selects tools that the run does not have.
        """
        self.unread += bool(row.get("tools"))
        if (row.get("agent_name") or self.default_loop) == _WITHOUT:
            return None
        wanted = (row.get("extra_info") or {}).get("tool_selection")
        if not wanted:
            self.in_use |= bool(self.known)
            return list(self.known.values())
        if not isinstance(wanted, list) or any(name not in [*self.known] for name in wanted):
            raise ConfigError(
                f"extra_info.tool_selection={wanted!r:.80} must be a list of tools of this run, "
                f"{sorted(self.known)} (actor_rollout_ref.rollout.multi_turn.tool_config_path and "
                "function_tool_path); verl would leave out what it does not know"
            )
        self.in_use = True
        return [self.known[name] for name in wanted]

    def report(self) -> None:
        """Say what the rows' prompts do not show, though there it is."""
        if self.unread:
            logger.warning(
                "%d rows have a column 'tools', which verl does not read: their prompts do not "
                "show them; name the tools in actor_rollout_ref.rollout.multi_turn."
                "tool_config_path or function_tool_path",
                self.unread,
            )
        if self.known and not self.in_use:
            logger.warning(
                "no prompt shows the tools %s, for %s shows none; set "
                "actor_rollout_ref.rollout.agent.default_agent_loop=tool_agent, or a row's "
                "agent_name",
                sorted(self.known),
                self.default_loop,
            )


def run_tools(config: DictConfig) -> Tools:
    """The tools of a composed config.

    Functions are loaded as verl loads them; classes are not made, for some start services of their
    own: their descriptions are those of the file that names them.

    Raises:
        ConfigError: If a file cannot be read; in verl a worker would die of it.
    """
    rollout = config.actor_rollout_ref.rollout
    shown = _files(rollout.get("multi_turn") or {})
    counted = _files(config.data)
    known = _load(*shown)
    return Tools(
        known=known,
        counted=[*(known if counted == shown else _load(*counted)).values()]
        if any(counted)
        else None,
        default_loop=(rollout.get("agent") or {}).get("default_agent_loop") or _WITHOUT,
    )


def _files(settings: Mapping[str, Any]) -> tuple[str | None, str | None]:
    return settings.get("tool_config_path"), settings.get("function_tool_path")


def _load(native: str | None, functions: str | None) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for path, load in ((native, _native), (functions, _functions)):
        if not path:
            continue
        try:
            schemas = load(path)
        except Exception as error:  # the user's own code
            raise ConfigError(
                f"the tools of {path} cannot be read: {type(error).__name__}: "
                f"{' '.join(str(error).split())}; see verl's tool_config_path, function_tool_path"
            ) from error
        for schema in schemas:
            name = schema["function"]["name"]
            if name in found:
                raise ConfigError(f"{path}: there are two tools {name!r}; rename one")
            found[name] = schema
    return found


def _native(path: str) -> list[dict[str, Any]]:
    from verl.tools.schemas import OpenAIFunctionToolSchema  # here: verl takes seconds
    from verl.utils.import_utils import resolve_config_path

    schemas = []
    for tool in OmegaConf.load(resolve_config_path(path)).tools:
        if tool.get("tool_schema") is None:
            logger.warning(
                "%s: %s describes itself when it is made, in the run: prompts are tried without "
                "it; give it a tool_schema there to have them tried with it",
                path,
                tool.class_name,
            )
            continue
        given = OmegaConf.to_container(tool.tool_schema, resolve=True)
        schemas.append(OpenAIFunctionToolSchema.model_validate(given))
    return [_as_verl(schema) for schema in schemas]


def _functions(path: str) -> list[dict[str, Any]]:
    from verl.tools.function_tool import load_function_tools_from_path
    from verl.utils.import_utils import resolve_config_path

    tools = load_function_tools_from_path(resolve_config_path(path))
    return [_as_verl(tool.tool_schema) for tool in tools]


def _as_verl(schema: Any) -> dict[str, Any]:
    return schema.model_dump(exclude_unset=True, exclude_none=True)
