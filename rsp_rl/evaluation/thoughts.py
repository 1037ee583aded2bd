"""Thoughts of an evaluation: what a sample keeps of them, and what a benchmark's samples say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypedDict, cast

import numpy as np

from rsp_rl.basics.errors import GenerationError
from rsp_rl.evaluation.folder import OptionalSample, Sample, Thoughts

if TYPE_CHECKING:  # those who read samples need no torch
    from transformers import PreTrainedTokenizerBase

    from rsp_rl.inference.requests import Completion
    from rsp_rl.thoughts.settings import Thinking

#: `rsp_rl.thoughts.rows.Kind.FORCED` by the name that samples have.
FORCED = "forced"


class TokenTexts:
    """Texts of single tokens, each decoded once.

    Args:
        tokenizer: The model's.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}

    def __getitem__(self, token: int) -> str:
        if token not in self._known:
            self._known[token] = self._tokenizer.decode([token])
        return self._known[token]


def thought_fields(thinking: Thinking, completion: Completion, texts: TokenTexts) -> OptionalSample:
    """What a sample keeps of its thoughts.

    Args:
        thinking: What was asked.
        completion: What came.
        texts: Of the model's tokens.

    Raises:
        GenerationError: If the engine gave no record, or one of another output: the law would have
            been at work unseen, or not at all.
    """
    record = completion.thoughts
    found = "none" if record is None else f"one of {record.law.name}, {len(record)} positions"
    if record is None or record.law != thinking.law or len(record) != completion.tokens:
        raise GenerationError(
            f"law.name={thinking.law.name} was asked for, and the engine's record of an output of "
            f"{completion.tokens} tokens is {found}; this is a fault of the engine"
        )
    from rsp_rl.thoughts.columns import thought_columns  # with torch, which readers need not have

    thoughts = cast(Thoughts, thought_columns(record, texts.__getitem__))
    return {"law": record.law.name, "thoughts": thoughts}


def check_thoughts(sample: OptionalSample) -> None:
    """Make sure that what a line holds of thoughts can be read.

    Raises:
        ValueError: Naming what is wrong.
    """
    if "law" not in sample and "thoughts" not in sample:
        return
    thoughts = sample.get("thoughts")
    if not isinstance(sample.get("law"), str) or not isinstance(thoughts, dict):
        raise ValueError("'law' and 'thoughts' go together, a name and a group")
    lists = [thoughts.get(name) for name in ("at", "kind", "ids", "weights")]
    alike = all(isinstance(one, list) for one in lists) and len({*map(len, lists)}) == 1
    if not alike or not isinstance(thoughts.get("texts"), dict):
        raise ValueError("'thoughts' has not the same positions in all of its lists")


class Lengths(TypedDict):
    """Means over some samples, in tokens; None where there are none."""

    samples: int
    tokens: float | None
    """Generated ones."""
    thoughts: float | None
    """Positions that were the law's."""
    thinking_tokens: float | None
    """Up to the last position that was the law's or was forced."""
    answer_tokens: float | None
    """The others: the token that ended the thoughts by itself is the answer's first."""


class ThoughtMetrics(TypedDict):
    """Numbers of a benchmark's thoughts."""

    law: str
    all: Lengths
    right: Lengths
    """Of right answers alone, as Soft Thinking's papers have lengths: wrong ones may be longer."""
    without_answer_rate: float
    """Samples that ended while they thought: cut off, or by a token that ends an output."""
    forced_rate: float
    """Samples whose thoughts did not end by themselves."""


def thought_metrics(samples: Sequence[Sample]) -> ThoughtMetrics | None:
    """Count a benchmark's thoughts; None where no sample has a law."""
    thinking = [sample for sample in samples if "law" in sample]
    if not thinking:
        return None
    counted = [_count(sample) for sample in thinking]
    right = [count for count, sample in zip(counted, thinking, strict=True) if sample["correct"]]
    return {
        "law": thinking[0]["law"],
        "all": _lengths(counted),
        "right": _lengths(right),
        "without_answer_rate": _rate(
            thoughts > 0 and answer <= (sample["finish_reason"] == "stop")
            for (_, thoughts, _, answer), sample in zip(counted, thinking, strict=True)
        ),
        "forced_rate": _rate(FORCED in sample["thoughts"]["kind"] for sample in thinking),
    }


def thought_line(metrics: ThoughtMetrics) -> str:
    """The numbers in a sentence."""
    every, right = metrics["all"], metrics["right"]
    line = (
        f"law {metrics['law']}: {every['thoughts']:,.1f} thoughts a sample, "
        f"{every['thinking_tokens']:,.1f} tokens of thinking and {every['answer_tokens']:,.1f} of "
        f"answer"
    )
    if right["tokens"] is not None:
        line += (
            f"; of the {right['samples']:,} right ones {right['thinking_tokens']:,.1f} and "
            f"{right['answer_tokens']:,.1f}"
        )
    if metrics["forced_rate"]:
        line += f"; {metrics['forced_rate']:.1%} had their end forced"
    if metrics["without_answer_rate"]:
        line += f"; {metrics['without_answer_rate']:.1%} ended while they thought"
    return line


def thought_count(sample: Sample) -> int:
    """Positions of a sample that were its law's."""
    return sum(kind != FORCED for kind in sample["thoughts"]["kind"])


def _count(sample: Sample) -> tuple[int, int, int, int]:
    """Tokens, thoughts, tokens of thinking, tokens of the answer."""
    thoughts = sample["thoughts"]
    thinking = max(thoughts["at"], default=-1) + 1
    return sample["tokens"], thought_count(sample), thinking, sample["tokens"] - thinking


def _lengths(counted: Sequence[tuple[int, int, int, int]]) -> Lengths:
    tokens, thoughts, thinking, answer = (
        np.mean(counted, axis=0).tolist() if counted else [None] * 4
    )
    return {
        "samples": len(counted),
        "tokens": tokens,
        "thoughts": thoughts,
        "thinking_tokens": thinking,
        "answer_tokens": answer,
    }


def _rate(events: Iterable[bool]) -> float:
    return float(np.mean(list(events)))
