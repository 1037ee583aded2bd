"""`rsp-rl latent ccot eval`: a model with CCOT's adapters, on a file of problems.

The files are those of every other evaluation, as `rsp_rl.evaluation.thinkers` writes them for
models that are one folder: the file of problems is the one benchmark, a sample's `tokens` are its
thoughts and the tokens of its answer. A thought is no token and has none here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rsp_rl.basics.files import locked, write_json
from rsp_rl.console.screen import bar, say
from rsp_rl.evaluation.folder import EvaluationFolder, OptionalSample, Sample, StepFolder
from rsp_rl.evaluation.manifest import keep_problems, made_with
from rsp_rl.evaluation.marked import grade_marked
from rsp_rl.evaluation.metrics import write_metrics
from rsp_rl.evaluation.outputs import write_outputs
from rsp_rl.evaluation.reading import read_metrics
from rsp_rl.evaluation.samples import SampleFile, verdict_fields
from rsp_rl.evaluation.thinkers import Asked
from rsp_rl.evaluation.thoughts import thought_count
from rsp_rl.latent.ccot.engines import HUGGINGFACE
from rsp_rl.latent.ccot.generation import Answer, answer_all, check_room
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
    folder, step = EvaluationFolder(root), EvaluationFolder(root).step(0)
    name, problems = asked.benchmark, asked.problems
    what = {
        "fingerprint": asked.fingerprint,
        "weights": of["weights"],
        "sampler": HUGGINGFACE,
        "trained": _digest((trained / TENSORS_FILE).read_bytes()),
        "thinks": asdict(settings),
        "batch_size": asked.batch_size,
    }
    ids = [str(number) for number in range(len(problems))]
    with locked(step.root):
        manifest = {
            "protocol": _protocol(asked, settings.max_new_tokens),
            **what,
            "model": str(model),
            "training": of,
            "values": values_digest(model),
            "stored": {"dtype": stored_dtype(model), "made_of": None},
            "engine": {
                "kind": HUGGINGFACE, "dtype": str(dtype).removeprefix("torch."), "device": device
            },
            "context": context_of(config),
            "made_with": made_with(step, what),
        }  # fmt: skip
        write_json(step.manifest, manifest)
        rows = zip(ids, problems, strict=True)
        keep_problems(
            *(step, name),
            [
                {"id": id_, "question": p.question, "gold": p.answer, "steps": [*p.steps]}
                for id_, p in rows
            ],
        )
        hashes = [_digest(np.asarray(q, dtype=np.int64).tobytes()) for q in questions]
        with SampleFile(step.samples(name)) as file:
            keys = ((id_, 0) for id_ in ids)
            left = file.missing(dict(zip(keys, hashes, strict=True)))
            missing = [int(id_) for id_, _ in left]
            say(f"{len(missing)} problems to answer, {len(ids) - len(missing)} are there")
            if missing:
                adapters, ending, _ = load(trained, model, dtype, device)
                given = answer_all(
                    *(adapters, ending, [questions[number] for number in missing]),
                    *(tokenizer, settings),
                    batch_size=asked.batch_size,
                )
                answers = zip(missing, given, strict=True)
                for number, answer in bar(answers, unit="problem", total=len(missing)):
                    file.append(_sample(number, hashes[number], problems[number].answer, answer))
            samples = file.finish(ids)
        write_metrics(step, name, samples)
    summary = _summary(asked, step, samples) | {"ratio": settings.ratio, "cap": settings.cap}
    write_json(folder.summary_json, summary)
    write_outputs(folder)
    return summary


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _protocol(asked: Asked, max_tokens: int) -> dict[str, Any]:
    return {
        "name": asked.results,
        "template": None,
        "data": asked.file,
        "limit": asked.limit,
        "max_tokens": max_tokens,
        "headline": [asked.benchmark],
    }


def _sample(number: int, prompt_hash: str, gold: str, answer: Answer) -> Sample:
    own: OptionalSample = {"seconds": answer.seconds}
    if answer.thoughts:
        own |= {
            "law": LAW,
            "thoughts": {
                "at": [*range(answer.thoughts)],
                "kind": ["hidden"] * answer.thoughts,
                "ids": [[]] * answer.thoughts,
                "weights": [[]] * answer.thoughts,
                "texts": {},
            },
            "thoughts_cut_off": answer.cut_off,
        }
    return {
        "problem": str(number),
        "sample": 0,
        "seed": 0,  # of nothing: answers are greedy
        "prompt_hash": prompt_hash,
        "gold": gold,
        "output": answer.text,
        "finish_reason": "stop" if answer.ended else "length",
        "tokens": answer.thoughts + answer.tokens,
        **verdict_fields(grade_marked(answer.text, gold)),
        **own,
    }  # type: ignore[return-value]


def _summary(asked: Asked, step: StepFolder, samples: Sequence[Sample]) -> dict[str, Any]:
    metrics = read_metrics(step)[asked.benchmark]
    return {
        "method": LAW,
        "accuracy": metrics["accuracy"],
        "accuracy_low": metrics["accuracy_low"],
        "accuracy_high": metrics["accuracy_high"],
        "tokens": metrics["tokens_mean"],
        "seconds_per_problem": metrics["seconds_mean"],
        "thoughts": float(np.mean([thought_count(s) if "law" in s else 0 for s in samples])),
        "thoughts_cut_off": sum(sample.get("thoughts_cut_off", False) for sample in samples),
        "problems": metrics["problems"],
        "unfinished": sum(sample["finish_reason"] == "length" for sample in samples),
        "without_answer": sum(not sample["extracted"] for sample in samples),
        "batch_size": asked.batch_size,
        "data": asked.file,
    }
