r"""Judge an answer: string, then number, then algebra (paper A.2, decisions in the issue).

The first two stages run here and take microseconds; only what they cannot decide goes to a worker
process. A comparison that runs out of time or memory there counts as wrong and is counted.
"""

from __future__ import annotations

import logging

from rsp_rl.grading import pool
from rsp_rl.grading.characters import plain_characters
from rsp_rl.grading.equivalence import equal
from rsp_rl.grading.extraction import extract_answer
from rsp_rl.grading.leaves import canonical, compare_leaves, compare_relations, compare_yes_no
from rsp_rl.grading.listed import unlisted
from rsp_rl.grading.normalize import LONGEST, normalize, readings
from rsp_rl.grading.structure import read
from rsp_rl.grading.verdict import Verdict

_SENTENCES = ("answer_is", "final_answer_is")
_log = logging.getLogger(__name__)


def grade(output: str, gold: str, benchmark: str | None = None) -> Verdict:
    r"""Judge a model's output against the gold answer. Never raises, hangs or executes anything.

    Args:
        output: The model's whole output.
        gold: The gold answer, as its benchmark writes it.
        benchmark: Name of the benchmark. Today no benchmark has a rule of its own, so it changes
            nothing: what sets their golds apart (units, lists, Python notation) shows in the gold.

    Returns:
        A verdict that is truthy if and only if the answer is correct, with the answer and the
        step of the extraction chain that found it.
    """
    extraction = extract_answer(output)
    wider = extraction.wider
    if wider and extraction.step != "boxed" and _same_string(wider, gold):
        return Verdict(True, "string").of(extraction)
    verdict = is_correct(extraction.text, gold)
    if not verdict and extraction.step in _SENTENCES and extraction.text.endswith("!"):
        verdict = is_correct(extraction.text.rstrip("!"), gold)  # it is 42!
    if wider and extraction.step == "boxed" and not (verdict or verdict.timed_out):
        run_of_boxes = is_correct(wider, gold)
        verdict = run_of_boxes if run_of_boxes else verdict
    return verdict.of(extraction)


def _same_string(prediction: str, gold: str) -> bool:
    if max(len(prediction), len(gold)) > LONGEST:
        return False
    return canonical(normalize(prediction)) == canonical(normalize(gold))


def is_correct(prediction: str, gold: str) -> Verdict:
    """Whether an answer equals the gold. Never raises, hangs or executes anything.

    Args:
        prediction: An answer, without the reasoning around it.
        gold: The gold answer.

    Returns:
        A verdict that is truthy if and only if they are equal; an empty answer or an empty gold
        is never correct.
    """
    try:
        return _judge(prediction, gold)
    except Exception:  # a fault of ours must not end a training run
        _log.warning("cannot compare %.200r with %.200r", prediction, gold, exc_info=True)
        return Verdict(False, "none", prediction, unparsable=True)


def _judge(prediction: str, gold: str) -> Verdict:
    prediction, gold = (unlisted(plain_characters(text).strip()) for text in (prediction, gold))
    if not prediction or not gold:
        return Verdict(False, "none", prediction)
    if prediction == gold:
        return Verdict(True, "string", prediction)
    if max(len(prediction), len(gold)) > LONGEST:
        same = canonical(prediction) == canonical(gold)
        return Verdict(same, "string", prediction)
    pairs = readings(prediction, gold)
    verdicts = []
    for pair in pairs:
        verdicts.append(_compare(prediction, *pair))
        if verdicts[-1]:
            return verdicts[-1]
    for index, pair in enumerate(pairs):
        if verdicts[index] is None:
            verdicts[index] = verdict = _compare_by_algebra(prediction, *pair)
            if verdict or verdict.timed_out:  # one answer has the time of one comparison
                return verdict
    return verdicts[0]


def _compare(answer: str, prediction: str, gold: str) -> Verdict | None:
    """A verdict of string and number, ``None`` if only algebra can tell."""
    if canonical(prediction) == canonical(gold):
        return Verdict(True, "string", answer)
    said = compare_yes_no(prediction, gold)
    if said is not None:
        return Verdict(said, "string", answer)
    pool.shared().start()  # so that it is ready by the time that an answer needs it
    leaves = CheapComparer()
    decision = equal(read(prediction), read(gold), leaves)
    return None if decision is None else Verdict(decision, leaves.stage, answer)


def _compare_by_algebra(answer: str, prediction: str, gold: str) -> Verdict:
    outcome = pool.shared().compare(prediction, gold)
    return Verdict(
        outcome.equal,
        "symbolic",
        answer,
        timed_out=outcome.timed_out,
        crashed=outcome.crashed,
        unparsable=outcome.unparsable,
    )


class CheapComparer:
    """Leaves compared by string and number; implements `rsp_rl.grading.equivalence.Comparer`.

    Attributes:
        stage: The furthest stage that a decision needed.
    """

    def __init__(self) -> None:
        self.stage = "string"

    def value(self, prediction: str, gold: str) -> bool | None:
        """Whether two leaves are equal, ``None`` if only algebra can tell."""
        decision, stage = compare_leaves(prediction, gold)
        if stage == "numeric":
            self.stage = "numeric"
        return decision

    def relation(
        self, prediction: tuple[str, str], gold: tuple[str, str], sign: int
    ) -> bool | None:
        """Whether two relations are equivalent, ``None`` if only algebra can tell."""
        self.stage = "numeric"
        return compare_relations(prediction, gold, sign)
