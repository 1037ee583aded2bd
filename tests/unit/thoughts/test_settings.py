"""What a user asks for: round trips, and one clear error for whatever cannot be."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from rsp_rl.basics.errors import ConfigError
from rsp_rl.thoughts.laws.gumbel import Gumbel
from rsp_rl.thoughts.laws.soft_thinking import SoftThinking
from rsp_rl.thoughts.names import LAWS, law_from_settings, law_to_settings
from rsp_rl.thoughts.phases import Phases
from rsp_rl.thoughts.settings import Thinking, ThoughtSettings


class Tokenizer:
    """A token a character, and `</think>` if it has it; `unk` for other special texts."""

    unk_token, unk_token_id = "<unk>", 1

    def __init__(self, thinks: bool = True, bytes_too: bool = True) -> None:
        self._thinks, self._bytes_too = thinks, bytes_too

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        if text == "</think>" and self._thinks:
            return [9]
        return [ord(letter) for letter in text] if self._bytes_too else [self.unk_token_id]


@pytest.mark.parametrize("name", LAWS)
def test_laws_come_back(name: str) -> None:
    law = LAWS[name]()
    assert law_from_settings(name, json.loads(json.dumps(law_to_settings(law)))) == law
    settings = ThoughtSettings.from_dict(name, {"max_thoughts": 5, "end": ["</think>"]})
    content = json.loads(json.dumps(settings.to_dict()))
    assert ThoughtSettings.from_dict(content.pop("law"), content) == settings
    thinking = Thinking(law, Phases(end_ids=(9,), on_cut=(1, 2), cold_entropy=0.1), 2**64 - 1)
    assert Thinking.from_dict(json.loads(json.dumps(thinking.to_dict()))) == thinking
    assert thinking.with_seed(3) == Thinking(law, thinking.phases, 3)


def test_phases_in_tokens() -> None:
    settings = ThoughtSettings(
        SoftThinking(), begin="a", end_text="b", max_thoughts=7, on_end="cd", cold_entropy=0.01
    )
    assert settings.resolve(Tokenizer(), 300) == Phases(
        begin=(97,), end_ids=(9,), end_text="b", max_thoughts=7, cold_entropy=0.01,
        on_end=(99, 100), on_cut=(9,),
    )  # fmt: skip
    none = ThoughtSettings(SoftThinking(), on_cut="")
    assert none.resolve(Tokenizer(), 300).on_cut == ()


def test_how_the_answer_is_sampled() -> None:
    law, asked = SoftThinking(temperature=0.6), {"temperature": 1.0, "top_p": 0.9}
    for compat, temperature in (((), 1.0), (("same_temperature",), 0.6), (("greedy_answer",), 0)):
        found = ThoughtSettings(law, compat=compat).answer_sampling(asked)
        assert found == asked | {"temperature": temperature}
    assert asked["temperature"] == 1.0


#: Law, settings, and what the error names.
HOSTILE: list[tuple[str, dict[str, Any], str]] = [
    ("gumble", {}, "law='gumble' is unknown"),
    ("gumbel", {"tua": 1}, "law.tua is no setting of gumbel"),
    ("gumbel", {"tau": 0}, "law.tau=0"),
    ("gumbel", {"tau": 1e-30}, "law.tau=1e-30"),
    ("gumbel", {"tau": -1.0}, "law.tau=-1"),
    ("gumbel", {"tau": math.nan}, "law.tau=nan"),
    ("gumbel", {"tau": math.inf}, "law.tau=inf"),
    ("gumbel", {"tau": "small"}, "law.tau='small'"),
    ("gumbel", {"tau": None}, "law.tau=None"),
    ("gumbel", {"tau": True}, "law.tau=True"),
    ("gumbel", {"k": 0}, "law.k=0"),
    ("gumbel", {"k": 2.5}, "law.k=2.5"),
    ("gumbel", {"k": [1]}, "law.k="),
    ("gumbel", {"score": "best"}, "law.score='best'"),
    ("gumbel", {"clamp": 1}, "law.clamp=1"),
    ("gumbel", {"temperature": 0}, "law.temperature=0"),
    ("gumbel", {"temperature": 1e-39}, "law.temperature=1e-39"),
    ("gumbel", {"top_p": 0}, "law.top_p=0"),
    ("gumbel", {"top_p": 1.1}, "law.top_p=1.1"),
    ("gumbel", {"top_k": -1}, "law.top_k=-1"),
    ("gumbel", {"min_p": math.nan}, "law.min_p=nan"),
    ("token", {"k": 3}, "law.k is no setting of token"),
    ("soft_thinking", {"k": 0}, "law.k=0"),
    ("dirichlet", {"alpha": 0}, "law.alpha=0"),
    ("dirichlet", {"alpha": 1e30}, "law.alpha=1e\\+30"),
    ("multiplex", {"weighting": "max"}, "law.weighting='max'"),
    ("multiplex", {"duplicates": "never"}, "law.duplicates='never'"),
    ("soft", {"tau": 0}, "law.tau=0"),
    ("soft", {"sigma": -0.1}, "law.sigma=-0.1"),
    ("soft", {"sigma": 1e30}, "law.sigma=1e\\+30"),
    ("soft", {"convention": "table"}, "law.convention='table'"),
    ("soft", {"rms": 0}, "law.rms=0"),
    ("moi", {"k": 1}, "law.k=1"),
    ("moi", {"beta": math.inf}, "law.beta=inf"),
    ("hidden", {"latent_id": -1}, "law.latent_id=-1"),
    ("token", {"compat": ["none"]}, "law.compat=none"),
    ("token", {"compat": "cold_abort"}, "needs law.cold_entropy"),
    ("token", {"begin": 3}, "law.begin=3"),
    ("token", {"on_end": None}, "law.on_end=None"),
    ("token", {"on_cut": 3}, "law.on_cut=3"),
    ("token", {"end": [3]}, "law.end="),
    ("token", {"end": 3}, "law.end=3"),
    ("token", {"end": [""]}, "law.end="),
    ("token", {"end": []}, "nothing ends the thoughts"),
    ("token", {"end": ["</thought>"]}, "law.end='</thought>'"),
    ("token", {"max_thoughts": 0}, "law.max_thoughts=0"),
    ("token", {"max_thoughts": "9"}, "law.max_thoughts='9'"),
    ("token", {"max_thoughts": True}, "law.max_thoughts=True"),
    ("token", {"cold_entropy": math.nan}, "law.cold_entropy=nan"),
    ("token", {"cold_entropy": -1}, "law.cold_entropy=-1"),
    ("token", {"cold_entropy": 1, "cold_steps": 0}, "law.cold_steps=0"),
    ("gumbel", {"k": 301}, "law.k=301, but the model has 300 tokens"),
    ("soft_thinking", {"top_k": 400}, "law.top_k=400"),
    ("multiplex", {"top_k": 301}, "law.top_k=301"),
    ("moi", {"k": 300}, "301"),
    ("hidden", {"latent_id": 300}, "law.latent_id=300"),
]


@pytest.mark.parametrize(("name", "settings", "named"), HOSTILE)
def test_what_cannot_be_is_one_error(name: str, settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        ThoughtSettings.from_dict(name, settings).resolve(Tokenizer(), 300)


@pytest.mark.parametrize("tokenizer", [Tokenizer(False), Tokenizer(False, bytes_too=False)])
def test_a_model_without_the_end_token(tokenizer: Tokenizer) -> None:
    """In pieces, or as the token of all that is unknown."""
    with pytest.raises(ConfigError, match=r"'</think>' is no single token .* law.max_thoughts=N"):
        ThoughtSettings(Gumbel()).resolve(tokenizer, 300)
    capped = ThoughtSettings(Gumbel(), end=(), max_thoughts=5)
    assert capped.resolve(tokenizer, 300).on_cut == ()


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, "7", None, True])
def test_seeds_out_of_range(seed: Any) -> None:
    with pytest.raises(ConfigError, match="the seed of a request's thoughts"):
        Thinking(Gumbel(), Phases(), seed)


def test_draws_may_be_more_than_tokens() -> None:
    ThoughtSettings.from_dict("multiplex", {"k": 500}).resolve(Tokenizer(), 300)
