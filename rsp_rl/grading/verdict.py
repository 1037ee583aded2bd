"""What the grader hands back: an extraction, and a verdict, truthy if and only if correct."""

from __future__ import annotations

from dataclasses import dataclass, replace

STEPS = (
    "minerva", "boxed", "gsm8k", "answer_is", "final_answer_is", "whole", "last_number", "none",
)  # fmt: skip
"""Steps of the extraction chain, in order, and ``none`` when no step fired.

The paper's (A.2) but for ``gsm8k`` and ``whole``; see `rsp_rl.grading.extraction`.
"""

STAGES = ("string", "numeric", "symbolic", "none")
"""Stages of the equivalence test, in order; ``none`` when there was nothing to compare."""


@dataclass(frozen=True, slots=True)
class Extraction:
    """An answer found in a model's output.

    Attributes:
        text: The answer as written, ``""`` when there is none.
        step: Which step of the chain found it, one of `STEPS`.
        wider: A longer reading of the same place, ``""`` when there is none: a run of boxes joined
            by commas, or all that follows "the answer is". It counts only as a whole, so it never
            lets a part of an answer pass.
    """

    text: str
    step: str
    wider: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement on one answer; ``bool(verdict)`` is true if and only if it is correct.

    Attributes:
        correct: Whether the answer equals the gold.
        stage: The stage that decided, one of `STAGES`.
        extracted: The answer that was compared.
        extraction_step: Step of the chain that found it, one of `STEPS`; ``none`` when
            `rsp_rl.grading.is_correct` was called on an answer directly.
        timed_out: The symbolic stage was cut off; the answer counts as wrong.
        crashed: A worker process died on it; the answer counts as wrong.
        unparsable: Undecided by string and number, and not readable as mathematics.
    """

    correct: bool
    stage: str
    extracted: str = ""
    extraction_step: str = "none"
    timed_out: bool = False
    crashed: bool = False
    unparsable: bool = False

    def __bool__(self) -> bool:
        return self.correct

    def of(self, extraction: Extraction) -> Verdict:
        """The same judgement, labelled with where its answer came from."""
        return replace(self, extracted=extraction.text, extraction_step=extraction.step)
