"""Answers through vLLM: thoughts are the law `hidden` of its worker, the end marker a forced token.

What a model of Coconut does, in the terms of `rsp_rl.thoughts`: from the first position on, so many
thoughts as the model has; then the end marker; then greedy tokens. Pauses and what has neither are
an ordinary prompt.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rsp_rl.basics.errors import ConfigError
from rsp_rl.inference.engines import start_engines
from rsp_rl.inference.requests import EngineOptions, Request
from rsp_rl.latent.folder import Thinking
from rsp_rl.latent.generation import Answer
from rsp_rl.latent.layout import Markers, prefix
from rsp_rl.latent.methods import THOUGHTS, get_method
from rsp_rl.latent.settings import CLASSIFIER
from rsp_rl.thoughts.laws.hidden import Hidden
from rsp_rl.thoughts.phases import Phases
from rsp_rl.thoughts.settings import Thinking as LawThinking


def check_engine_can(thinking: Thinking) -> None:
    """Make sure that vLLM's worker can end a model's thoughts.

    Raises:
        ConfigError: If a classifier ends them.
    """
    if thinking.ends == CLASSIFIER:
        raise ConfigError(
            "this model ends its thoughts by a classifier, which vLLM's worker has not; evaluate "
            "it with --engine huggingface"
        )


def requests(
    thinking: Thinking, markers: Markers, questions: Sequence[Sequence[int]]
) -> list[Request]:
    """A request a question, in their order.

    Args:
        thinking: How the model answers.
        markers: Ids of the added tokens.
        questions: Their tokens.
    """
    method = get_method(thinking.method)
    thinks = method.filler == THOUGHTS and thinking.thoughts > 0
    law = None
    if thinks:
        phases = Phases(max_thoughts=thinking.thoughts, on_cut=(markers.end,))
        law = LawThinking(Hidden(markers.latent), phases, seed=0)
    extra = thinking.thoughts + 1 if thinks else 0
    sampling = {"temperature": 0.0, "max_tokens": thinking.max_new_tokens + extra}
    made = []
    for number, question in enumerate(questions):
        tokens, first = prefix(question, method, 0 if thinks else thinking.thoughts, markers)
        tokens = tokens[:first] if thinks else tokens
        made.append(Request(number, tokens, dict(sampling), thinking=law))
    return made


def answer_with_vllm(
    folder: Path,
    thinking: Thinking,
    markers: Markers,
    questions: Sequence[Sequence[int]],
    options: EngineOptions,
) -> Iterator[Answer]:
    """Greedy answers, in the order of the questions.

    Args:
        folder: The model's.
        thinking: How it answers.
        markers: Ids of the added tokens.
        questions: Their tokens.
        options: How vLLM is run.

    Raises:
        ConfigError: See `check_engine_can`.
    """
    check_engine_can(thinking)
    asked = requests(thinking, markers, questions)
    thinks = any(request.thinking for request in asked)
    engines = start_engines(folder, options, soft_prompts=False, thoughts=thinks)
    try:
        begun, found = time.monotonic(), {}
        for completions in engines.generate(asked):
            found.update({completion.number: completion for completion in completions})
        seconds = (time.monotonic() - begun) / max(len(asked), 1)
    finally:
        engines.close()
    thoughts = thinking.thoughts if thinks else 0
    for number in range(len(asked)):
        completion = found[number]
        ended = completion.finish_reason == "stop"
        # Of what vLLM counts, the thoughts, the end marker and the end of the text are no tokens.
        written = completion.tokens - (thoughts + 1 if thinks else 0) - ended
        yield Answer(completion.text, written, thoughts, ended, seconds)
