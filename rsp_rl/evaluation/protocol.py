"""What is asked in an evaluation, and how: benchmarks, template, sampling, stop rules, seeds.

A protocol is a YAML file, in `eval/protocols` or the user's own:

    template: qwen-boxed            # rsp_rl.data.templates
    max_tokens: 16000
    sampling: {temperature: 0.0}    # for all benchmarks; samples: 1, top_p: 1.0, top_k: 0
    benchmarks:
      math500:
      aime24: {samples: 32, temperature: 1.0}
    headline: [math500, aime24]     # their unweighted mean is the protocol's one number

and, where wanted, `name`, `seed`, `stop`, `rsp`, `comparator` and `law`, as `Protocol` describes
them. A file that asks the same problems in several ways names these, each with what it changes:

    modes:
      hard_greedy: {law: {name: token, top_k: 1}, sampling: {samples: 1}}
      soft_sampled: {law: {name: soft}}
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rsp_rl.basics.errors import ConfigError
from rsp_rl.basics.package_files import PROTOCOLS
from rsp_rl.comparators.methods import (
    comparator_from_config,
    comparator_to_config,
    evaluation_length,
)
from rsp_rl.data.benchmarks import BENCHMARKS, Problem
from rsp_rl.data.templates import get_template
from rsp_rl.dials.options import RspOptions
from rsp_rl.draws.laws import LAWS
from rsp_rl.inference.prompts import stable_hash
from rsp_rl.inference.soft_prompts import Comparator
from rsp_rl.thoughts.names import LAWS as INPUT_LAWS
from rsp_rl.thoughts.settings import ThoughtSettings

#: RSP options that an evaluation has; mu_E and sigma_E are the model's, the others training's.
_RSP_OPTIONS = ("length", "position", "scale", "mode", "law", "seed")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

#: What a mode may change; problems, seeds and headline are those of all.
_OF_A_MODE = {"comparator", "law", "max_tokens", "rsp", "sampling", "stop", "template"}

#: Folders of another kind beside those of modes.
_NO_MODE = re.compile(r"step_\d+|logs")


@dataclass(frozen=True)
class BenchmarkPlan:
    """How one benchmark is asked.

    Attributes:
        benchmark: A key of `rsp_rl.data.benchmarks.BENCHMARKS`.
        samples: Answers a problem.
        temperature: 0 is greedy.
        top_p: Nucleus, above 0 and at most 1.
        top_k: 0 for the whole vocabulary, as vLLM has it.
        limit: Number of problems, a fixed seeded subset; None for all.
        max_tokens: Most generated tokens a sample; None for the protocol's.
    """

    benchmark: str
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    limit: int | None = None
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        where = f"benchmarks.{self.benchmark}"
        if self.benchmark not in BENCHMARKS:
            raise ConfigError(
                f"{where}: unknown benchmark {self.benchmark!r}; use one of {', '.join(BENCHMARKS)}"
            )
        _check_whole(f"{where}.samples", self.samples, 1)
        _check_whole(f"{where}.top_k", self.top_k, 0)
        if self.limit is not None:
            _check_whole(f"{where}.limit", self.limit, 1)
        if self.max_tokens is not None:
            _check_whole(f"{where}.max_tokens", self.max_tokens, 1)
        if not (_is_number(self.temperature) and self.temperature >= 0):
            raise ConfigError(
                f"{where}.temperature={self.temperature!r} must be a number from 0 on"
            )
        if not (_is_number(self.top_p) and 0 < self.top_p <= 1):
            raise ConfigError(f"{where}.top_p={self.top_p!r} must be above 0 and at most 1")


@dataclass(frozen=True)
class Protocol:
    """A whole evaluation.

    Attributes:
        name: Names the folder of results; the file's name by default.
        template: A key of `rsp_rl.data.templates.TEMPLATES`.
        benchmarks: The benchmarks in order.
        max_tokens: Most generated tokens a sample, where a benchmark has no limit of its own.
        headline: Benchmarks whose unweighted mean is the headline.
        stop: Strings at which an output is cut off. Empty, the default, leaves ends to the model's
            end-of-sequence and end-of-turn tokens.
        seed: Of sampling and of subsets.
        rsp: Soft prompts at inference, off by default; of its options `length`, `position`,
            `scale`, `mode`, `law` and `seed` apply.
        comparator: What fills the soft prompts instead of RSP's draw, if anything does: a group
            of `method` (`rsp_rl.comparators.methods.METHODS`) and the method's settings. `rsp`
            then says how many vectors there are and where; by default, as the method has it.
        law: What stands in place of tokens' embeddings while the model thinks, if anything does: a
            group of `name` (`rsp_rl.thoughts.names.LAWS`), the law's settings and its phases
            (`ThoughtSettings`). `sampling` is then how the answer after the thoughts is sampled.
    """

    name: str
    template: str
    benchmarks: tuple[BenchmarkPlan, ...]
    max_tokens: int
    headline: tuple[str, ...]
    stop: tuple[str, ...] = ()
    seed: int = 0
    rsp: RspOptions = field(default_factory=lambda: RspOptions(length=0))
    comparator: Comparator | None = None
    law: ThoughtSettings | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"name={self.name!r} must be letters, digits, '_', '-' and '.': it names a folder"
            )
        try:
            get_template(self.template)
        except ConfigError as error:
            raise ConfigError(f"template: {error}") from error
        if not self.benchmarks:
            raise ConfigError("benchmarks is empty; name at least one")
        _check_whole("max_tokens", self.max_tokens, 1)
        _check_whole("seed", self.seed)
        for name in self.headline:
            if name not in BENCHMARKS:
                raise ConfigError(f"headline: unknown benchmark {name!r}")
        if not self.headline or len(set(self.headline)) < len(self.headline):
            raise ConfigError(f"headline={list(self.headline)} must name benchmarks, each once")
        if self.comparator is not None:
            self._check_comparator(self.comparator.method)
        draws_differ = self.rsp.enabled and self.rsp.mode == "independent"
        if self.comparator is not None:
            draws_differ &= self.comparator.uses_seed
        elif LAWS[self.rsp.law].one_draw:
            draws_differ = False
        for plan in self.benchmarks:
            if plan.samples > 1 and not draws_differ:
                self._check_differ(plan)
            self._check_thoughts_end(plan)

    def _check_differ(self, plan: BenchmarkPlan) -> None:
        if self.law is not None and self.law.law.deterministic:
            raise ConfigError(
                f"benchmarks.{plan.benchmark}: {plan.samples} samples of a problem, but "
                f"law.name={self.law.law.name} draws nothing with these settings: their thoughts "
                "are all the same; set samples=1, or rsp.length for soft prompts that differ"
            )
        if self.law is None and plan.temperature == 0:
            raise ConfigError(
                f"benchmarks.{plan.benchmark}: {plan.samples} greedy samples of a problem are "
                "all the same; set samples=1 or a temperature above 0"
            )

    def _check_thoughts_end(self, plan: BenchmarkPlan) -> None:
        most = None if self.law is None else self.law.max_thoughts
        if isinstance(most, int) and most >= (plan.max_tokens or self.max_tokens):
            raise ConfigError(
                f"benchmarks.{plan.benchmark}: law.max_thoughts={most} leaves no room for an "
                f"answer in max_tokens={plan.max_tokens or self.max_tokens}"
            )

    def _check_comparator(self, method: str) -> None:
        if self.law is not None:
            raise ConfigError(
                f"comparator.method={method} and law.name={self.law.law.name}: comparators write "
                "their prompts before an answer begins and know no thoughts; leave one of them out"
            )
        if not self.rsp.enabled:
            raise ConfigError(
                f"comparator.method={method} but rsp.length=0: it has no positions to fill; leave "
                "rsp.length to its default, or comparator out"
            )
        for name, default in (("scale", 1), ("law", RspOptions.law)):
            if (own := getattr(self.rsp, name)) != default:
                raise ConfigError(
                    f"rsp.{name}={own} is RSP's own and comparator.method={method} knows none; "
                    f"leave it at {default}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON; `from_dict` reads it back."""
        return {
            "name": self.name,
            "template": self.template,
            "max_tokens": self.max_tokens,
            "stop": list(self.stop),
            "seed": self.seed,
            "rsp": {
                name: getattr(self.rsp, name)
                for name in _RSP_OPTIONS
                # Only where it is another, as in protocols from before.
                if name != "law" or self.rsp.law != RspOptions.law
            },
            "comparator": self.comparator and comparator_to_config(self.comparator),
            # Only where there is one, as in protocols from before.
            **({} if self.law is None else {"law": _law_to_group(self.law)}),
            "benchmarks": {
                plan.benchmark: {
                    "samples": plan.samples,
                    "temperature": float(plan.temperature),
                    "top_p": float(plan.top_p),
                    "top_k": plan.top_k,
                    "limit": plan.limit,
                    # Only where it is set, as in protocols from before.
                    **({} if plan.max_tokens is None else {"max_tokens": plan.max_tokens}),
                }
                for plan in self.benchmarks
            },
            "headline": list(self.headline),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Protocol:
        """A protocol from plain types, as `to_dict` gives them and protocol files hold them.

        Raises:
            ConfigError: On an unknown or missing setting or a bad value.
        """
        values = {name: value for name, value in content.items() if value is not None}
        sampling = values.pop("sampling", None)
        _check_known("", values, {f.name for f in fields(cls)} | {"sampling"})
        for name in ("template", "max_tokens", "benchmarks", "headline"):
            if name not in values:
                raise ConfigError(f"{name} is missing")
        for name in ("headline", "stop"):
            if name in values:
                values[name] = _texts(name, values[name])
        values["benchmarks"] = tuple(
            _plan(name, sampling, own)
            for name, own in _group("benchmarks", values["benchmarks"]).items()
        )
        rsp: dict[str, Any] = {"length": 0}
        if "comparator" in values:
            comparator = comparator_from_config(values["comparator"])
            values["comparator"] = comparator
            rsp |= {"length": evaluation_length(comparator), "position": comparator.position}
        given = _group("rsp", values.get("rsp", {}))
        _check_known("rsp.", given, set(_RSP_OPTIONS))
        values["rsp"] = RspOptions.from_config(rsp | given)
        if "law" in values:
            values["law"] = _law(_group("law", values["law"]))
        return cls(**values)

    def max_tokens_of(self, benchmark: str) -> int:
        """Most generated tokens a sample of one of its benchmarks."""
        own = {plan.benchmark: plan.max_tokens for plan in self.benchmarks}[benchmark]
        return own or self.max_tokens

    def fingerprint(self, benchmark: str | None = None) -> str:
        """Hash of everything that changes outputs, hence neither of name nor of headline.

        Args:
            benchmark: Only of what changes this benchmark's outputs, None for all of them.
        """
        content = self.to_dict()
        del content["name"], content["headline"]
        if benchmark is not None:
            content["benchmarks"] = {benchmark: content["benchmarks"][benchmark]}
        if not self.rsp.enabled:
            content["rsp"] = None
        if self.comparator is None:  # as in protocols from before there were any
            del content["comparator"]
        else:
            for name in (*self.comparator.paths, "preset"):  # places and names change nothing
                content["comparator"].pop(name, None)
        content["template"] = repr(get_template(self.template))  # its text, whatever its name
        return stable_hash(content, 8).hex()


def load_protocol(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Protocol:
    """Read a protocol file that has one mode, or of which one is chosen (`modes=[NAME]`).

    Args:
        name_or_path: See `load_modes`.
        overrides: See `load_modes`.

    Raises:
        ConfigError: As `load_modes`, or if the protocol has several modes.
    """
    modes = load_modes(name_or_path, overrides)
    if len(modes) > 1:
        raise ConfigError(
            f"protocol {name_or_path} has {len(modes)} modes, which `rsp-rl eval` evaluates one by "
            f"one; choose one here: modes=[{next(iter(modes))}], of {', '.join(modes)}"
        )
    (protocol,) = modes.values()
    return protocol


def load_modes(name_or_path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Protocol]:
    """Read a protocol file.

    Args:
        name_or_path: A name in `eval/protocols`, or the path of a `.yaml` file.
        overrides: `key=value` each, such as `max_tokens=512`, `rsp.length=20`, `template=abel`,
            `sampling.temperature=0.6`, `benchmarks.aime24.samples=4`. `benchmarks=[gsm8k,aime24]`
            asks these alone: each as the file says, or by `sampling` where the file lacks it.
            `max_tokens` is for all, also for those that have a limit of their own in the file.
            `modes=[NAME]` asks in these modes alone; an override is for all modes that do not set
            the same themselves, `modes.NAME.sampling.samples=4` for one.

    Returns:
        By mode; a protocol without modes is the only one, of no name. That of a mode is called
        `PROTOCOL.MODE`.

    Raises:
        ConfigError: If there is no such file, or on an unknown key or a bad value; names file and
            key.
    """
    file = _find(name_or_path)
    try:
        content = OmegaConf.load(file)
    except (OSError, ValueError, yaml.YAMLError) as error:
        cause = " ".join(str(error).split())  # PyYAML's takes several lines
        raise ConfigError(f"protocol {file} cannot be read: {cause}") from error
    if not isinstance(content, DictConfig):
        raise ConfigError(f"protocol {file} holds no settings; see {PROTOCOLS}")
    try:
        values = {"name": file.stem, **_override(content, overrides)}
        return {mode: _of_mode(mode, own) for mode, own in _by_mode(values).items()}
    except ConfigError as error:
        given = f" with {' '.join(overrides)}" if overrides else ""
        raise ConfigError(f"protocol {file}{given}: {error}") from error


def _of_mode(mode: str, values: dict[str, Any]) -> Protocol:
    try:
        return Protocol.from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"modes.{mode}: {error}" if mode else str(error)) from error


def _by_mode(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each mode's settings: what it sets goes before all else, and before a benchmark's own.

    Raises:
        ConfigError: On a mode whose name names no folder, or that sets what is for all.
    """
    modes = values.pop("modes", None)
    if modes is None:
        return {"": values}
    made = {}
    for mode, given in _group("modes", modes).items():
        if not _NAME.fullmatch(mode) or _NO_MODE.fullmatch(mode):
            raise ConfigError(
                f"modes.{mode} must be letters, digits, '_', '-' and '.', and neither step_N nor "
                "logs: it names a folder"
            )
        own = _group(f"modes.{mode}", {} if given is None else given)
        _check_known(f"modes.{mode}.", own, _OF_A_MODE)
        of_mode = {**values, "name": f"{values['name']}.{mode}"}
        for name, value in own.items():
            if name == "sampling" and value is None:  # nothing is changed, as for a benchmark
                continue
            here = of_mode.get(name)
            merged = isinstance(here, Mapping) and isinstance(value, Mapping)
            of_mode[name] = {**here, **value} if merged else value
        sampled = own.get("sampling")
        sampled = set(sampled) if isinstance(sampled, Mapping) else set()
        if "limit" in sampled:
            raise ConfigError(
                f"modes.{mode}.sampling.limit: all modes ask the same problems; set sampling.limit"
            )
        set_here = sampled | ({"max_tokens"} & own.keys())
        if set_here and isinstance(plans := values.get("benchmarks"), Mapping):
            of_mode["benchmarks"] = {
                benchmark: {key: plan[key] for key in plan if key not in set_here}
                if isinstance(plan, Mapping)
                else plan
                for benchmark, plan in plans.items()
            }
        made[mode] = of_mode
    if not made:
        raise ConfigError("modes is empty; name at least one, or leave it out")
    return made


def choose_problems(plan: BenchmarkPlan, problems: Sequence[Problem], seed: int) -> list[Problem]:
    """The problems that a plan asks, in their order.

    A pure function, the same in every process and Python version; a smaller limit's problems are
    among a larger one's.

    Args:
        plan: Whose `limit` counts.
        problems: All of the benchmark's.
        seed: The protocol's.
    """
    if plan.limit is None:
        return list(problems)
    ranked = sorted(
        problems, key=lambda problem: stable_hash([seed, problem.benchmark, problem.id], 16)
    )
    chosen = {problem.id for problem in ranked[: plan.limit]}
    return [problem for problem in problems if problem.id in chosen]


def _find(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ConfigError(f"there is no protocol file {path}")
        return path
    file = PROTOCOLS / f"{name_or_path}.yaml"
    if not file.is_file():
        names = ", ".join(sorted(found.stem for found in PROTOCOLS.glob("*.yaml")))
        raise ConfigError(
            f"unknown protocol {str(name_or_path)!r}; use one of {names or 'none found'} "
            f"(in {PROTOCOLS}), or give the path of a .yaml file"
        )
    return file


def _override(content: DictConfig, overrides: Iterable[str]) -> dict[str, Any]:
    """A file's settings with the overrides put into them."""
    chosen = chosen_modes = None
    # A limit for all takes the file's own away, so it comes before one for a benchmark.
    for override in sorted(overrides, key=lambda text: not text.startswith("max_tokens=")):
        key, equals, _ = override.partition("=")
        if not key or not equals:
            raise ConfigError(f"override {override!r} must be key=value")
        try:
            change = OmegaConf.from_dotlist([override])
            a_choice = key in ("benchmarks", "modes")
            merged = content if a_choice else OmegaConf.merge(content, change)
        except (OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"override {override!r}: {_first_line(error)}") from error
        _check_no_new_mode(content, merged, override)
        if key == "benchmarks":  # a choice among the file's, which a merge would lose
            chosen = _texts(key, OmegaConf.to_container(change)[key])
        if key == "modes":
            chosen_modes = _texts(key, OmegaConf.to_container(change)[key])
        if key == "max_tokens" and isinstance(merged.get("benchmarks"), DictConfig):
            for plan in merged.benchmarks.values():
                if isinstance(plan, DictConfig):
                    plan.pop("max_tokens", None)
        content = merged
    try:
        values = OmegaConf.to_container(content, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(_first_line(error)) from error
    if chosen is not None:
        plans = _group("benchmarks", values.get("benchmarks") or {})
        values["benchmarks"] = {name: plans.get(name) for name in chosen}
    if chosen_modes is not None:
        modes = _group("modes", values.get("modes") or {})
        if unknown := [name for name in chosen_modes if name not in modes]:
            there = f"there are {', '.join(modes)}" if modes else "the protocol has none"
            raise ConfigError(f"modes={list(chosen_modes)}: no mode {unknown[0]!r}; {there}")
        values["modes"] = {name: modes[name] for name in chosen_modes}
    return values


def _check_no_new_mode(before: DictConfig, after: DictConfig, override: str) -> None:
    """A name that is misspelt would be one more mode, of the settings for all."""
    there, now = (
        {str(mode) for mode in modes} if isinstance(modes, DictConfig) else set()
        for modes in (before.get("modes"), after.get("modes"))
    )
    if new := sorted(now - there):
        has = f"there are {', '.join(map(str, before.modes))}" if there else "the protocol has none"
        raise ConfigError(f"override {override!r}: no mode {new[0]!r}; {has}")


def _first_line(error: Exception) -> str:
    """What is wrong; OmegaConf and PyYAML add lines on where they stood."""
    return str(error).partition("\n")[0]


def _plan(benchmark: str, sampling: object, own: object) -> BenchmarkPlan:
    """A benchmark's own settings, and those for all where it has none."""
    known = {f.name for f in fields(BenchmarkPlan)} - {"benchmark"}
    values: dict[str, Any] = {}
    for name, given in (("sampling", sampling), (f"benchmarks.{benchmark}", own)):
        group = _group(name, {} if given is None else given)
        # The limit for all is the protocol's `max_tokens`.
        _check_known(f"{name}.", group, known - ({"max_tokens"} if name == "sampling" else set()))
        values |= group
    return BenchmarkPlan(str(benchmark), **values)


def _law(group: dict[str, Any]) -> ThoughtSettings:
    if not isinstance(group.get("name"), str):
        raise ConfigError(f"law.name is missing; use one of {', '.join(INPUT_LAWS)}")
    return ThoughtSettings.from_dict(group.pop("name"), group)


def _law_to_group(law: ThoughtSettings) -> dict[str, Any]:
    settings = law.to_dict()
    return {"name": settings.pop("law"), **settings}


def _group(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name}={value!r} must be a group, `key: value` each")
    group = {str(key): own for key, own in value.items()}
    if len(group) < len(value):
        names = [str(key) for key in value]
        twice = next(key for key in names if names.count(key) > 1)
        raise ConfigError(f"{name} names {twice!r} twice, as text and as another type")
    return group


def _texts(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) and text for text in value):
        raise ConfigError(f"{name}={value!r} must be a list of texts, such as {name}=[a,b]")
    return tuple(value)


def _check_known(prefix: str, given: Iterable[str], known: set[str]) -> None:
    if unknown := sorted(set(given) - known):
        raise ConfigError(f"unknown key {prefix}{unknown[0]}; known: {', '.join(sorted(known))}")


def _check_whole(name: str, value: object, least: int | None = None) -> None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or (least is not None and value < least):
        bound = "" if least is None else f" from {least} on"
        raise ConfigError(f"{name}={value!r} must be a whole number{bound}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
