"""`rsp-rl latent eval`: a model that thinks in hidden states, on a file of problems.

A sample's thoughts are those of the law `hidden`, and its `tokens` are counted as the paper does
(arXiv 2412.06769, section 4.4); pauses are read all at once and count as none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from rsp_rl.basics.errors import ConfigError
from rsp_rl.evaluation.folder import StepFolder
from rsp_rl.evaluation.manifest import made_with
from rsp_rl.evaluation.step_answers import Asked, Given, answer_all
from rsp_rl.latent.folder import BEGIN, END, LATENT, Thinking, load_thinker, read_thinking
from rsp_rl.latent.generation import answer, check_room
from rsp_rl.latent.layout import Markers
from rsp_rl.latent.methods import NOTHING, get_method
from rsp_rl.latent.problem_tokens import tokenize
from rsp_rl.latent.run_folder import TrainedThinker
from rsp_rl.models.context import context_of
from rsp_rl.models.folder import check_model, load_tokenizer
from rsp_rl.models.weights import stored_dtype, values_digest, weights_digest

LAW = "hidden"
"""Name of the law whose thoughts are hidden states (`rsp_rl.thoughts.laws.hidden`)."""

VLLM = "vllm"


def evaluate_thinker(trained: TrainedThinker, asked: Asked, root: Path) -> dict[str, Any]:
    """Evaluate a model; what an earlier call has left is kept and not asked again.

    Args:
        trained: The model.
        asked: The problems, one at least, and how they are asked.
        root: Where everything goes.

    Returns:
        What `summary.json` has.

    Raises:
        ConfigError: If the model cannot be used, has no thoughts to be told the number of, or a
            question leaves no room for its answer.
        RunFolderError: If the folder holds another evaluation, is in use, or cannot be written.
    """
    model = trained.model
    config = check_model(model, thinks=True)
    thinking, tokenizer = _thinking(trained, asked), load_tokenizer(model)
    if asked.engine == VLLM:
        from rsp_rl.latent.engine import check_engine_can

        check_engine_can(thinking)
    markers = Markers(*tokenizer.convert_tokens_to_ids([BEGIN, END, LATENT]))
    questions = [tokens.question for tokens in tokenize(asked.problems, tokenizer)]
    context = context_of(config)
    check_room(questions, thinking, context, asked.file)
    return answer_all(
        asked,
        root,
        questions,
        lambda step: _manifest(step, trained, thinking, asked, context),
        lambda left: _answers(model, thinking, markers, asked, left),
        lambda _: {
            "method": thinking.method,
            "engine": asked.engine,
            "device": _device().type,
            "model": str(model),
            "seed": trained.settings.get("seed"),
            "step_decoder": trained.settings.get("step_decoder"),
            "epochs": trained.epochs,
            "epochs_done": trained.epochs_done,
        },
    )


def _thinking(trained: TrainedThinker, asked: Asked) -> Thinking:
    """How the model thinks, with the number of thoughts that was asked for."""
    thinking = read_thinking(trained.model)
    assert thinking is not None, "find_thinker looks for it"
    if asked.thoughts is None:
        return thinking
    if get_method(thinking.method).filler == NOTHING:
        raise ConfigError(
            f"--thoughts {asked.thoughts}: method {thinking.method} answers without thoughts or "
            "pauses; leave it out"
        )
    return Thinking(**{**asdict(thinking), "thoughts": asked.thoughts})


def _manifest(
    step: StepFolder,
    trained: TrainedThinker,
    thinking: Thinking,
    asked: Asked,
    context: int | None,
) -> dict[str, Any]:
    what = {
        "fingerprint": asked.fingerprint,
        "weights": weights_digest(trained.model),
        "sampler": asked.engine,
        "thinks": asdict(thinking),
        "batch_size": asked.batch_size,
    }
    return {
        "protocol": asked.protocol(thinking.max_new_tokens) | {"thoughts": asked.thoughts},
        **what,
        "model": str(trained.model),
        "training": trained.settings,
        "trained_on": trained.trained_on,
        "values": values_digest(trained.model),
        "stored": {"dtype": stored_dtype(trained.model), "made_of": None},
        "engine": {"kind": asked.engine, "dtype": "float32", "device": _device().type},
        "context": context,
        "made_with": made_with(step, what),
    }


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _answers(
    model: Path,
    thinking: Thinking,
    markers: Markers,
    asked: Asked,
    questions: Sequence[Sequence[int]],
) -> Iterator[Given]:
    """Answers as they come; the model is loaded now."""
    if asked.engine == VLLM:
        from rsp_rl.inference.requests import EngineOptions
        from rsp_rl.latent.engine import answer_with_vllm

        options = EngineOptions(dtype="float32", max_num_seqs=asked.batch_size)
        given = answer_with_vllm(model, thinking, markers, questions, options)
    else:
        thinker = load_thinker(model)
        thinker.thinking = thinking
        thinker.model.to(_device())
        if thinker.classifier is not None:
            thinker.classifier.to(_device())
        given = answer(thinker, questions, batch_size=asked.batch_size)
    for one in given:
        place = (markers.latent, LATENT)
        yield Given(one.text, one.tokens, one.thoughts, one.ended, one.seconds, LAW, place)
