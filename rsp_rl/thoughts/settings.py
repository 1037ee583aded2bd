"""Thinking as a user asks for it: a law, its settings, its phases as texts; and as engines take it.

law: gumbel
law.k: 10                 # the law's own, see its module
law.end: </think>         # tokens that end thinking
law.max_thoughts: 2048
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from rsp_rl.basics.errors import ConfigError
from rsp_rl.thoughts.law import InputLaw
from rsp_rl.thoughts.names import LAWS, law_from_settings, law_to_settings
from rsp_rl.thoughts.phases import Phases

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Departures of the public forks, by name:
#: - `same_temperature`: the answer is sampled at the thoughts' temperature, whatever was asked for
#:   (Soft-Thinking reads `after_thinking_temperature` and never applies it);
#: - `greedy_answer`: the answer is greedy (Soft-Thinking before December 2025);
#: - `cold_abort`: cold steps after thinking end the output.
COMPAT = ("same_temperature", "greedy_answer", "cold_abort")

#: Key of a request's thinking in `SamplingParams.extra_args`.
EXTRA_ARG = "rsp_rl_thoughts"

#: Key in that of the record of an output that goes on, `ThoughtRecord.to_bytes`: its tokens stand
#: behind the prompt's.
SO_FAR = "so_far"


@dataclass(frozen=True)
class ThoughtSettings:
    """What a user asks for.

    Attributes:
        law: With its settings.
        begin: Text after which thinking begins; empty for the first token.
        end: Tokens that end it, by their text.
        end_text: Text that ends it.
        max_thoughts: Most thoughts.
        cold_entropy: Nats of the cold stop; 0 for none.
        cold_steps: Steps below it, in a row.
        on_end: Text that is forced after `end_text`, or after a token of `end`.
        on_cut: Text that is forced where `max_thoughts` or the cold stop ends it; None for the
            first of `end`.
        compat: Names in `COMPAT`.
    """

    law: InputLaw
    begin: str = ""
    end: tuple[str, ...] = ("</think>",)
    end_text: str = ""
    max_thoughts: int | None = None
    cold_entropy: float = 0.0
    cold_steps: int = 256
    on_end: str = ""
    on_cut: str | None = None
    compat: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.compat) - set(COMPAT)):
            raise ConfigError(f"law.compat={unknown[0]} is unknown; use any of {', '.join(COMPAT)}")
        for name in ("begin", "end_text", "on_end", "on_cut"):
            text = getattr(self, name)
            if not isinstance(text, str) and (name != "on_cut" or text is not None):
                raise ConfigError(f"law.{name}={text!r} must be a text; a number's is in quotes")
        for text in (*self.end, self.begin, self.end_text, self.on_end, self.on_cut or ""):
            if any("\ud800" <= letter <= "\udfff" for letter in text):
                raise ConfigError(f"law: {text!r} has half a character, which no tokenizer takes")
        self._check_used()
        # Its numbers are checked where they are used; without a model already.
        Phases(
            max_thoughts=self.max_thoughts,
            cold_entropy=self.cold_entropy,
            cold_steps=self.cold_steps,
            cold_abort="cold_abort" in self.compat,
        )

    def _check_used(self) -> None:
        """Refuse what would be taken and change nothing."""
        if {"same_temperature", "greedy_answer"} <= set(self.compat):
            raise ConfigError("law.compat: same_temperature and greedy_answer exclude each other")
        if "same_temperature" in self.compat and not hasattr(self.law, "temperature"):
            raise ConfigError(
                f"law.compat=same_temperature is the thoughts' temperature for the answer, and "
                f"{self.law.name} has no temperature"
            )
        if self.on_end and not (self.end or self.end_text):
            raise ConfigError(
                f"law.on_end={self.on_end!r} is forced after what ends the thoughts, and there is "
                "nothing; set law.end or law.end_text, or use law.on_cut"
            )
        if self.on_cut and not (self.max_thoughts or self.cold_entropy):
            raise ConfigError(
                f"law.on_cut={self.on_cut!r} is forced where the thoughts are cut, and nothing "
                "cuts them; set law.max_thoughts or law.cold_entropy"
            )

    @classmethod
    def from_dict(cls, name: str, settings: Mapping[str, Any]) -> ThoughtSettings:
        """From a law's name and its settings and phases, all at one level.

        Raises:
            ConfigError: On an unknown law or setting, or a bad value.
        """
        phases = {field.name for field in fields(cls)} - {"law"}
        own = {key: value for key, value in settings.items() if key not in phases}
        if name in LAWS:
            known = {field.name for field in fields(LAWS[name])}
            if unknown := sorted(own.keys() - known):
                raise ConfigError(
                    f"law.{unknown[0]} is no setting of {name}; known: "
                    f"{', '.join(sorted(known | phases))}"
                )
        given = {key: settings[key] for key in phases & settings.keys()}
        for key in ("end", "compat"):
            if key in given:
                value = given[key]
                texts = [value] if isinstance(value, str) else value
                texts = [] if texts is None else texts
                if not (
                    isinstance(texts, list | tuple)
                    and all(isinstance(text, str) and text for text in texts)
                ):
                    raise ConfigError(f"law.{key}={value!r} must be a list of texts")
                given[key] = tuple(texts)
        return cls(law=law_from_settings(name, own), **given)

    def to_dict(self) -> dict[str, Any]:
        """Plain types: `law`, its settings and the phases, all at one level."""
        phases = {field.name: getattr(self, field.name) for field in fields(self)}
        phases |= {key: list(phases[key]) for key in ("end", "compat")}
        phases.pop("law")
        return {"law": self.law.name, **law_to_settings(self.law), **phases}

    def answer_sampling(self, sampling: Mapping[str, Any]) -> dict[str, Any]:
        """How the answer after the thoughts is sampled, `compat` applied."""
        made = dict(sampling)
        if "greedy_answer" in self.compat:
            made["temperature"] = 0.0
        elif "same_temperature" in self.compat:
            made["temperature"] = getattr(self.law, "temperature", 1.0)
        return made

    def resolve(self, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> Phases:
        """The phases in a model's tokens.

        Args:
            tokenizer: The model's.
            vocabulary: V of the model.

        Raises:
            ConfigError: If the law does not fit the model, a token of `end` is none of the
                tokenizer's, or nothing would ever end the thoughts.
        """
        self.law.check(vocabulary)
        end_ids = tuple(self._end_id(tokenizer, text) for text in self.end)
        if not (end_ids or self.end_text or self.max_thoughts):
            raise ConfigError(
                "nothing ends the thoughts; set law.max_thoughts, law.end or law.end_text"
            )
        self._check_emitted(end_ids)
        # Text of several tokens may come in others.
        begin = _encode(tokenizer, self.begin)
        cut = end_ids[:1] if self.on_cut is None else _encode(tokenizer, self.on_cut)
        found = {
            "begin": begin,
            "end": end_ids,
            "on_end": _encode(tokenizer, self.on_end),
            "on_cut": cut,
        }
        for name, ids in found.items():
            # Added to the tokenizer alone: never emitted, and without a row to be looked up.
            if (largest := max(ids, default=0)) >= vocabulary:
                raise ConfigError(
                    f"law.{name} is token {largest} in this tokenizer, and the model has "
                    f"{vocabulary}; use the tokenizer that the model was trained with"
                )
        return Phases(
            begin=begin if len(begin) == 1 else (),
            begin_text=self.begin if len(begin) > 1 else "",
            end_ids=end_ids,
            end_text=self.end_text,
            max_thoughts=self.max_thoughts,
            cold_entropy=self.cold_entropy,
            cold_steps=self.cold_steps,
            on_end=found["on_end"],
            on_cut=cut,
            cold_abort="cold_abort" in self.compat,
        )

    def _check_emitted(self, end_ids: Sequence[int]) -> None:
        """A law that emits one token alone can neither end its thoughts nor must it."""
        emitted = getattr(self.law, "latent_id", None)
        if emitted is None:
            return
        if not self.max_thoughts:
            raise ConfigError(
                f"law={self.law.name} emits one token for all thoughts, which ends none; set "
                "law.max_thoughts"
            )
        if emitted in end_ids:
            raise ConfigError(
                f"law.latent_id={emitted} is a token of law.end, and would end the thoughts at the "
                "first; choose another"
            )

    @staticmethod
    def _end_id(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
        ids = _encode(tokenizer, text)
        # To a tokenizer that has bytes for nothing it does not know, it is one token: the unknown.
        if len(ids) != 1 or (ids[0] == tokenizer.unk_token_id and text != tokenizer.unk_token):
            raise ConfigError(
                f"law.end={text!r} is no single token of this tokenizer (it is {len(ids)}); a "
                "model that was not trained to end its reasoning so needs law.max_thoughts=N and "
                "law.end=[], or law.end_text"
            )
        return ids[0]


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text, add_special_tokens=False)) if text else ()


@dataclass(frozen=True)
class Thinking:
    """One request's thinking, as engines take it.

    Attributes:
        law: With everything filled in.
        phases: In the model's tokens.
        seed: Of its noise, an unsigned 64-bit integer.
    """

    law: InputLaw
    phases: Phases
    seed: int

    def __post_init__(self) -> None:
        whole = isinstance(self.seed, int) and not isinstance(self.seed, bool)
        if not (whole and 0 <= self.seed < 1 << 64):
            raise ConfigError(
                f"the seed of a request's thoughts must be a whole number from 0 to 2^64 - 1, not "
                f"{self.seed!r}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for `SamplingParams.extra_args`."""
        return {
            "law": self.law.name,
            "settings": law_to_settings(self.law),
            "phases": asdict(self.phases),
            "seed": self.seed,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Thinking:
        """What `to_dict` made, maybe sent as JSON in between.

        Raises:
            ConfigError: On a bad value.
        """
        phases = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in content["phases"].items()
        }
        law = law_from_settings(content["law"], content["settings"])
        return cls(law, Phases(**phases), content["seed"])

    def with_seed(self, seed: int) -> Thinking:
        """The same with another seed."""
        return replace(self, seed=seed)
