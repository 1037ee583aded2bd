"""A user's thoughts for one model, and a prompt that they must suit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rsp_rl.basics.errors import ConfigError
from rsp_rl.inference.thinking import check_thoughts, thinking_of_model
from rsp_rl.models.folder import load_tokenizer
from rsp_rl.models.stop_tokens import known_stop_tokens
from rsp_rl.thoughts.phases import Phases
from rsp_rl.thoughts.settings import ThoughtSettings
from tests.digit_model import make_digit_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digit_model(tmp_path_factory.mktemp("model") / "tiny")


def check(model: Path, phases: Phases | None, text: str = "3+4", **changes: Any) -> None:
    tokenizer = load_tokenizer(model)
    given = {"context": 64, "max_tokens": 20, "prompt": "the prompt"} | changes
    check_thoughts(tokenizer.encode(text), phases, tokenizer, **given)


def test_room_for_an_answer(model: Path) -> None:
    """Behind the thoughts, and what is forced after them."""
    check(model, None)
    check(model, Phases(end_ids=(3,)))
    check(model, Phases(max_thoughts=19))
    check(model, Phases(max_thoughts=17, on_cut=(1, 2)))
    check(model, Phases(max_thoughts=60), max_tokens=None)
    for phases, said in (
        (Phases(max_thoughts=20), "law.max_thoughts=20 leaves no room .* max_tokens=20"),
        (Phases(max_thoughts=18, on_cut=(1, 2)), "law.max_thoughts=18 with 2 forced tokens"),
    ):
        with pytest.raises(ConfigError, match=said):
            check(model, phases)
    with pytest.raises(ConfigError, match=r"the prompt has 3 tokens, .* a context of 64"):
        check(model, Phases(max_thoughts=61), max_tokens=None)


def test_a_prompt_that_has_begun_already(model: Path) -> None:
    """As chat templates of reasoning models do: the model never writes the marker, nor thinks."""
    (plus,) = load_tokenizer(model).encode("+")
    for phases in (Phases(begin=(plus,)), Phases(begin_text="4+")):
        check(model, phases)
        for text in ("3+4+", "3+4+ "):
            with pytest.raises(ConfigError, match=r"the prompt ends with law.begin='4?\+' already"):
                check(model, phases, text)


def test_a_latent_token_that_ends_the_output(model: Path) -> None:
    tokenizer = load_tokenizer(model)
    stop = min(known_stop_tokens(model, tokenizer))
    given = {"end": [], "max_thoughts": 3, "latent_id": stop}
    with pytest.raises(ConfigError, match=f"law.latent_id={stop} is a token that ends"):
        thinking_of_model(ThoughtSettings.from_dict("hidden", given), model, tokenizer)
