"""`rsp-rl latent eval`: a model that thinks in hidden states, on a file of problems.

The files are those of every other evaluation (`rsp_rl.evaluation.folder`), the file of problems
being the one benchmark and the model step 0: what reads them reads these. A sample's thoughts are
those of the law `hidden`, and its `tokens` are thoughts and tokens, the sequential steps that the
answer took, as the paper counts them (arXiv 2412.06769, section 4.4); pauses are read all at once
and count as none. Beside them `summary.json` has the numbers that methods are compared by.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rsp_rl.basics.errors import ConfigError
from rsp_rl.basics.files import locked, write_json
from rsp_rl.console.screen import bar, say
from rsp_rl.data.step_problems import StepProblem
from rsp_rl.evaluation.folder import EvaluationFolder, OptionalSample, Sample, StepFolder
from rsp_rl.evaluation.manifest import keep_problems, made_with
from rsp_rl.evaluation.marked import grade_marked
from rsp_rl.evaluation.metrics import write_metrics
from rsp_rl.evaluation.outputs import write_outputs
from rsp_rl.evaluation.reading import read_metrics
from rsp_rl.evaluation.samples import SampleFile, verdict_fields
from rsp_rl.evaluation.thoughts import thought_count
from rsp_rl.inference.prompts import stable_hash
from rsp_rl.latent.folder import BEGIN, END, LATENT, Thinking, load_thinker, read_thinking
from rsp_rl.latent.generation import Answer, answer, check_room
from rsp_rl.latent.layout import Markers
from rsp_rl.latent.methods import NOTHING, get_method
from rsp_rl.latent.problem_tokens import tokenize
from rsp_rl.latent.run_folder import TrainedThinker
from rsp_rl.models.context import context_of
from rsp_rl.models.folder import check_model, load_tokenizer
from rsp_rl.models.weights import stored_dtype, values_digest, weights_digest

LAW = "hidden"
"""Name of the law whose thoughts are hidden states (`rsp_rl.thoughts.laws.hidden`)."""

HUGGINGFACE, VLLM = "huggingface", "vllm"


@dataclass(frozen=True)
class Asked:
    """What a model is asked.

    Attributes:
        file: Of the problems, as the command line has it.
        problems: In order; their places are their ids.
        thoughts: How many before an answer, with a classifier the most; None for the model's own.
        limit: How many of the file's problems these are, None for all.
        batch_size: Problems at a time, which seconds a problem depend on.
        engine: `huggingface`, the reference, or `vllm`, which keeps nothing until all is answered.
    """

    file: str
    problems: Sequence[StepProblem]
    thoughts: int | None = None
    limit: int | None = None
    batch_size: int = 64
    engine: str = HUGGINGFACE

    @property
    def benchmark(self) -> str:
        """Names files: the problems' file without its ending."""
        return re.sub(r"[^\w.-]+", "_", Path(self.file).stem)

    @property
    def fingerprint(self) -> str:
        """Of what changes outputs, whatever the model."""
        texts = [[problem.question, problem.answer] for problem in self.problems]
        return stable_hash([texts, self.thoughts], 8).hex()

    @property
    def results(self) -> str:
        """Names the folder: less than all of the file, or other thoughts, are another one."""
        if self.thoughts is None and self.limit is None:
            return self.benchmark
        return f"{self.benchmark}-{self.fingerprint[:6]}"


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
    folder, step = EvaluationFolder(root), EvaluationFolder(root).step(0)
    name = asked.benchmark
    ids = [str(number) for number in range(len(asked.problems))]
    with locked(step.root):
        write_json(step.manifest, _manifest(step, trained, thinking, asked, context))
        rows = zip(ids, asked.problems, strict=True)
        keep_problems(
            *(step, name),
            [
                {"id": id_, "question": p.question, "gold": p.answer, "steps": [*p.steps]}
                for id_, p in rows
            ],
        )
        hashes = [_hash(question) for question in questions]
        with SampleFile(step.samples(name)) as file:
            keys = ((id_, 0) for id_ in ids)
            asked_for = file.missing(dict(zip(keys, hashes, strict=True)))
            missing = [int(id_) for id_, _ in asked_for]
            kept = len(questions) - len(missing)
            say(f"{len(missing)} problems to answer, {kept} are there")
            left = [questions[number] for number in missing]
            answers = _answers(model, thinking, markers, asked, left)
            for number, given in zip(missing, answers, strict=True):
                gold = asked.problems[number].answer
                file.append(_sample(number, hashes[number], gold, given, markers))
            samples = file.finish(ids)
        write_metrics(step, name, samples)
    summary = _summary(trained, thinking, asked, step, samples)
    write_json(folder.summary_json, summary)
    write_outputs(folder)
    return summary


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


def _hash(question: Sequence[int]) -> str:
    tokens = np.asarray(question, dtype=np.int64).tobytes()
    return hashlib.blake2b(tokens, digest_size=8).hexdigest()


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
        "protocol": {
            "name": asked.results,
            "template": None,
            "data": asked.file,
            "limit": asked.limit,
            "thoughts": asked.thoughts,
            "max_tokens": thinking.max_new_tokens,
            "headline": [asked.benchmark],
        },
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
) -> Iterator[Answer]:
    """Answers as they come; the model is loaded if there is anything to ask."""
    if not questions:
        return
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
    yield from bar(given, unit="problem", total=len(questions))


def _sample(number: int, prompt_hash: str, gold: str, given: Answer, markers: Markers) -> Sample:
    own: OptionalSample = {"seconds": given.seconds}
    if given.thoughts:
        latent = markers.latent
        own |= {
            "law": LAW,
            "thoughts": {
                "at": [*range(given.thoughts)],
                "kind": [LAW] * given.thoughts,
                "ids": [[latent]] * given.thoughts,
                "weights": [[]] * given.thoughts,
                "texts": {str(latent): LATENT},
            },
        }
    return {
        "problem": str(number),
        "sample": 0,
        "seed": 0,  # of nothing: answers are greedy
        "prompt_hash": prompt_hash,
        "gold": gold,
        "output": given.text,
        "finish_reason": "stop" if given.ended else "length",
        "tokens": given.tokens,
        **verdict_fields(grade_marked(given.text, gold)),
        **own,
    }  # type: ignore[return-value]


def _summary(
    trained: TrainedThinker,
    thinking: Thinking,
    asked: Asked,
    step: StepFolder,
    samples: Sequence[Sample],
) -> dict[str, Any]:
    metrics = read_metrics(step)[asked.benchmark]
    return {
        "method": thinking.method,
        "accuracy": metrics["accuracy"],
        "accuracy_low": metrics["accuracy_low"],
        "accuracy_high": metrics["accuracy_high"],
        "tokens": metrics["tokens_mean"],
        "seconds_per_problem": metrics["seconds_mean"],
        "thoughts": float(np.mean([thought_count(s) if "law" in s else 0 for s in samples])),
        "problems": metrics["problems"],
        "unfinished": sum(sample["finish_reason"] == "length" for sample in samples),
        "without_answer": sum(not sample["extracted"] for sample in samples),
        "batch_size": asked.batch_size,
        "engine": asked.engine,
        "device": _device().type,
        "data": asked.file,
        "model": str(trained.model),
        "seed": trained.settings.get("seed"),
        "epochs": trained.epochs,
        "epochs_done": trained.epochs_done,
    }
