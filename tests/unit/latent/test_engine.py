"""What vLLM is asked for each method."""

from __future__ import annotations

import pytest

from rsp_rl.basics.errors import ConfigError
from rsp_rl.latent.engine import check_engine_can, requests
from rsp_rl.latent.folder import Thinking
from rsp_rl.latent.layout import Markers
from rsp_rl.latent.settings import Settings
from rsp_rl.thoughts.laws.hidden import Hidden

MARKERS = Markers(90, 91, 92)


def one(method, **settings):
    thinking = Thinking.of(Settings(method=method, max_stage=2, max_new_tokens=7, **settings))
    [request] = requests(thinking, MARKERS, [(1, 2)])
    return request


def test_thoughts_are_the_hidden_law_with_the_end_marker_after_them():
    request = one("coconut")
    assert request.token_ids == [1, 2, 90]
    assert request.thinking.law == Hidden(92)
    assert (request.thinking.phases.max_thoughts, request.thinking.phases.on_cut) == (2, (91,))
    assert request.sampling == {"temperature": 0.0, "max_tokens": 7 + 2 + 1}


@pytest.mark.parametrize(
    ("method", "prompt"),
    [("cot", [1, 2]), ("pause", [1, 2, 92, 92]), ("pause_as_thought", [1, 2, 90, 92, 92, 91])],
)
def test_all_else_is_an_ordinary_prompt(method, prompt):
    request = one(method)
    assert (request.token_ids, request.thinking) == (prompt, None)
    assert request.sampling["max_tokens"] == 7


def test_a_classifier_is_refused():
    thinking = Thinking.of(Settings(ends="classifier", pad_thoughts=False))
    with pytest.raises(ConfigError, match="--engine huggingface"):
        check_engine_can(thinking)
