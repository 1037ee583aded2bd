"""`rsp-rl latent ccot eval`: a model with CCOT's adapters, on a file of problems.

The files are those of `rsp_rl.evaluation.step_answers`. A thought is no token and has none here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from rsp_rl.evaluation.folder import StepFolder
from rsp_rl.evaluation.manifest import made_with
from rsp_rl.evaluation.step_answers import HUGGINGFACE, Asked, Given, answer_all, digest
from rsp_rl.latent.ccot.generation import answer_all as generate
from rsp_rl.latent.ccot.generation import check_room
from rsp_rl.latent.ccot.saved import TENSORS_FILE, check_base, load, read
from rsp_rl.latent.problem_tokens import tokenize
from rsp_rl.models.context import context_of
from rsp_rl.models.folder import check_model, load_tokenizer
from rsp_rl.models.weights import stored_dtype, values_digest

LAW = "ccot"
"""What its samples call the law of their thoughts."""


def evaluate_ccot(
    trained: Path, model: Path, asked: Asked, root: Path, dtype: torch.dtype, device: str
) -> dict[str, Any]:
    """Evaluate a model; what an earlier call has left is kept and not asked again.

    Args:
        trained: What a training left.
        model: Hugging Face folder of the model that it was trained for.
        asked: The problems, one at least, and how they are asked.
        root: Where everything goes.
        dtype: Of the model's weights.
        device: Where it runs.

    Returns:
        What `summary.json` has.

    Raises:
        ConfigError: If the model cannot be used, or its context is too short for an answer.
        RunFolderError: If the training is not finished or another model's, or the folder holds
            another evaluation, is in use, or cannot be written.
    """
    settings, of = read(trained)
    check_base(trained, model)
    config, tokenizer = check_model(model, thinks=True), load_tokenizer(model)
    questions = [tokens.question for tokens in tokenize(asked.problems, tokenizer)]
    check_room(config, questions, settings)
    context = context_of(config)

    def manifest(step: StepFolder) -> dict[str, Any]:
        what = {
            "fingerprint": asked.fingerprint,
            "weights": of["weights"],
            "sampler": HUGGINGFACE,
            "trained": digest((trained / TENSORS_FILE).read_bytes()),
            "thinks": asdict(settings),
            "batch_size": asked.batch_size,
        }
        engine = {"kind": HUGGINGFACE, "dtype": str(dtype).removeprefix("torch.")}
        return {
            "protocol": asked.protocol(settings.max_new_tokens),
            **what,
            "model": str(model),
            "training": of,
            "values": values_digest(model),
            "stored": {"dtype": stored_dtype(model), "made_of": None},
            "engine": engine | {"device": device},
            "context": context,
            "made_with": made_with(step, what),
        }

    def answers(left: list[Sequence[int]]) -> Iterator[Given]:
        adapters, ending, _ = load(trained, model, dtype, device)
        size = asked.batch_size
        for one in generate(adapters, ending, left, tokenizer, settings, batch_size=size):
            steps = one.thoughts + one.tokens
            yield Given(
                *(one.text, steps, one.thoughts, one.ended, one.seconds, LAW), cut_off=one.cut_off
            )

    return answer_all(
        asked,
        root,
        questions,
        manifest,
        answers,
        lambda samples: {
            "method": LAW,
            "thoughts_cut_off": sum(sample.get("thoughts_cut_off", False) for sample in samples),
            "ratio": settings.ratio,
            "cap": settings.cap,
        },
    )
