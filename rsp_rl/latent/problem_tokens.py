"""A problem's tokens, a piece each for question, steps and answer: lines that can be left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data.step_problems import MARK, StepProblem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class ProblemTokens:
    """Token ids of a problem.

    Attributes:
        question: With its line break; before it the begin-of-text token, where there is one.
        steps: Each with its line break.
        answer: After the mark, and the end-of-text token.
    """

    question: tuple[int, ...]
    steps: tuple[tuple[int, ...], ...]
    answer: tuple[int, ...]

    @property
    def solution(self) -> tuple[int, ...]:
        """Steps and answer."""
        return (*(token for step in self.steps for token in step), *self.answer)


def question_text(problem: StepProblem) -> str:
    """What a model is given of a problem."""
    return problem.question + "\n"


def answer_of(text: str) -> str | None:
    """The answer that a generated text states, or None where it has no line of an answer.

    The text after the last mark, to the end of its line.
    """
    _, mark, rest = text.rpartition(MARK)
    line = rest.splitlines()[0].strip() if rest.strip() and rest.splitlines() else ""
    return line or None if mark else None


def is_right(text: str, answer: str) -> bool:
    """Whether a generated text states an answer, commas aside as in the authors' code."""
    given = answer_of(text)
    return given is not None and given.replace(",", "") == answer.strip().replace(",", "")


def tokenize(
    problems: Sequence[StepProblem], tokenizer: PreTrainedTokenizerBase
) -> list[ProblemTokens]:
    """Tokens of problems.

    Args:
        problems: In their order.
        tokenizer: Of the model.

    Raises:
        ConfigError: If the tokenizer has no end-of-text token, or a word that it does not know.
    """
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            "the tokenizer has no end-of-text token (eos_token), which ends an answer"
        )
    pieces: list[str] = []
    for problem in problems:
        pieces += [question_text(problem), *(step + "\n" for step in problem.steps)]
        pieces.append(f"{MARK} {problem.answer}")
    begin = _beginning(tokenizer)
    encoded = iter(tokenizer(pieces, add_special_tokens=False).input_ids if pieces else [])
    tokens = []
    for number, problem in enumerate(problems):
        question = (*begin, *next(encoded))
        steps = tuple(tuple(next(encoded)) for _ in problem.steps)
        answer = (*next(encoded), tokenizer.eos_token_id)
        found = ProblemTokens(question, steps, answer)
        unknown = tokenizer.unk_token_id
        if unknown not in (None, tokenizer.eos_token_id) and unknown in (
            *question,
            *found.solution,
        ):
            raise ConfigError(
                f"problem {number} has a word that the tokenizer does not know "
                f"({problem.question!r:.80}); take the tokenizer of the data"
            )
        tokens.append(found)
    return tokens


def _beginning(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The begin-of-text token, of tokenizers that put one before a text."""
    bos = tokenizer.bos_token_id
    return (bos,) if bos is not None and tokenizer("1").input_ids[:1] == [bos] else ()
