"""The page of the Python API: public names, their signatures and docstrings."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from docs.docstrings import code, parse, table
from rsp_rl.basics import errors

#: Public names by what they are for, `module:name`, each with the methods that count.
#: `tests/unit/test_public_api.py` holds their signatures.
NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "Generation": {
        "rsp_rl.inference.generator:Generator": ("generate", "close"),
        "rsp_rl.inference.requests:EngineOptions": (),
        "rsp_rl.inference.requests:Completion": (),
    },
    "Grading": {
        "rsp_rl.grading:grade": (),
        "rsp_rl.grading:is_correct": (),
        "rsp_rl.grading:extract_answer": (),
        "rsp_rl.grading:Verdict": (),
        "rsp_rl.grading:Extraction": (),
        "rsp_rl.grading.reward:compute_score": (),
    },
    "Draws": {
        "rsp_rl.draws.laws:draw_soft_prompt": (),
        "rsp_rl.draws.record:SoftPromptRecord": ("to_tensor", "from_tensor", "draw"),
        "rsp_rl.draws.law:Law": ("draw",),
    },
    "Placement": {
        "rsp_rl.placement.chat:place_in_chat": (),
        "rsp_rl.placement.prompt:PlacedPrompt": (),
    },
    "Options": {
        "rsp_rl.dials.options:RspOptions": ("from_config",),
        "rsp_rl.dials.options:GuardOptions": (),
        "rsp_rl.dials.schedule:Schedule": (),
    },
    "Problems with steps": {
        "rsp_rl.data.step_problems:StepProblem": (),
        "rsp_rl.data.step_problems:load_step_problems": (),
    },
    "A model to try with": {"rsp_rl.tiny:make_tiny_model": ()},
    "Agent loops": {"rsp_rl.training.verl_plugin.agent_loop:SoftPromptMixin": ("run",)},
}

WIDTH = 88


def page() -> str:
    """The whole page."""
    parts = [
        "What is promised to others' code, made from its signatures and docstrings"
        " (`python scripts/docs/reference.py`); a change of any of them shows in"
        " `tests/unit/test_public_api.py`. All else in `rsp_rl` may move.",
    ]
    for group, names in NAMES.items():
        parts.append(f"## {group}")
        for name, methods in names.items():
            parts += _of_name(name, methods)
    parts += ["## Errors", _errors()]
    return "# Python API\n\n" + "\n\n".join(parts) + "\n"


def public(name: str) -> Any:
    """What `module:name` is."""
    module, _, path = name.partition(":")
    found = import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def _of_name(name: str, methods: tuple[str, ...]) -> Iterator[str]:
    module, _, short = name.partition(":")
    thing = public(name)
    yield f"### {short}"
    yield f"```python\nfrom {module} import {short}\n```"
    yield f"```py\n{_signature(short, thing)}\n```"
    yield from _said(thing)
    for method in methods:
        inner = getattr(thing, method)
        yield f"#### {short}.{method}"
        yield f"```py\n{_signature(f'{short}.{method}', inner)}\n```"
        yield from _said(inner)


def _signature(name: str, thing: Any) -> str:
    """As its source has it, a parameter a line where it is long."""
    found = inspect.signature(thing)
    given = [p for p in found.parameters.values() if p.name not in ("self", "cls")]
    shown, starred = [], False
    for parameter in given:
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            shown.append("*")
            starred = True
        text = f"{parameter.name}"
        if parameter.annotation is not parameter.empty:
            text += f": {parameter.annotation}"
        if parameter.default is not parameter.empty:
            text += f" = {_default(parameter.default)}"
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
        starred |= parameter.kind is parameter.VAR_POSITIONAL
        shown.append(stars.get(parameter.kind, "") + text)
    result = found.return_annotation
    arrow = "" if result in (found.empty, "None") or inspect.isclass(thing) else f" -> {result}"
    line = f"{name}({', '.join(shown)}){arrow}"
    if len(line) <= WIDTH:
        return line
    return f"{name}(\n" + "".join(f"    {part},\n" for part in shown) + f"){arrow}"


def _default(value: Any) -> str:
    """A default that a factory makes is made anew for each."""
    made = "<factory>" in repr(value)
    return "..." if made else repr(value)


def _said(thing: Any) -> Iterator[str]:
    docstring = parse(thing)
    yield docstring.text
    kinds = {}
    if dataclasses.is_dataclass(thing):
        kinds = {field.name: str(field.type) for field in dataclasses.fields(thing)}
    for section, entries in docstring.entries.items():
        if section in ("Args", "Attributes"):
            head = ["argument" if section == "Args" else "attribute", "what"]
            rows = [(code(name), what) for name, what in entries]
            if kinds:
                head.insert(1, "type")
                rows = [(name, code(kinds.get(name.strip("`"), "")), what) for name, what in rows]
                rows = [[name, "" if kind == "``" else kind, what] for name, kind, what in rows]
            yield table(head, rows)
        else:
            lines = [f"`{name}`: {what}" if name else what for name, what in entries]
            yield f"**{section}** " + " ".join(lines)


def _errors() -> str:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ]
    rows = [
        (code(kind.__name__), code(kind.__bases__[-1].__name__), parse(kind).first)
        for kind in kinds
    ]
    head = "All are in `rsp_rl.basics.errors`; each is also one of Python's own kinds."
    return f"{head}\n\n" + table(["error", "also a", "what"], rows)
