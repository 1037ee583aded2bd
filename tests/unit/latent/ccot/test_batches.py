"""Padding by hand, and problems that cannot be trained on."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from rsp_rl.basics.errors import ConfigError
from rsp_rl.latent.ccot.batches import check_problems, collate, pad_left, pad_right
from rsp_rl.latent.problem_tokens import ProblemTokens
from tests.unit.latent.ccot.made import OPENING

PROBLEM = ProblemTokens((6, 7), ((8, 9), (10,)), (OPENING, 9, 1))


def test_padding() -> None:
    left, right = pad_left([(1, 2, 3), (4,)]), pad_right([(1, 2, 3), (4,)])
    assert left.ids_BT.tolist() == [[1, 2, 3], [0, 0, 4]]
    assert left.real_BT.tolist() == [[True] * 3, [False, False, True]]
    assert right.ids_BT.tolist() == [[1, 2, 3], [4, 0, 0]]
    assert right.real_BT.tolist() == [[True] * 3, [True, False, False]]


def test_a_batch() -> None:
    longer = ProblemTokens((6, 7, 8), ((8,),), (OPENING, 9, 9, 1))
    batch = collate([PROBLEM, longer], 0.5)
    assert batch.question.ids_BT.tolist() == [[0, 6, 7], [6, 7, 8]]
    assert batch.chain.ids_BT.tolist() == [[8, 9, 10], [8, 0, 0]]
    assert batch.answer.ids_BT.tolist() == [[OPENING, 9, 1, 0], [OPENING, 9, 9, 1]]
    assert batch.thoughts_BK.tolist() == [[1, 2], [0, 0]]
    assert batch.real_BK.tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (replace(PROBLEM, steps=()), "t.jsonl, problem 1 has no steps"),
        (replace(PROBLEM, question=()), "t.jsonl, problem 1: its question has no tokens"),
        (replace(PROBLEM, answer=(4, 9, 1)), "its answer begins with token 4 and not with the"),
        (
            replace(PROBLEM, steps=(tuple(range(8, 17)),)),
            "a question of 2 tokens with its chain of 9, or 5 thoughts and an answer of 3, is "
            "longer than the model's context of 10",
        ),
        (
            replace(PROBLEM, answer=(OPENING, *range(6, 14))),
            "a question of 2 tokens with its chain of 3, or 2 thoughts and an answer of 9",
        ),
    ],
)
def test_refused(problem: ProblemTokens, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_problems([PROBLEM, problem], 0.5, OPENING, 10, "t.jsonl")


def test_taken() -> None:
    check_problems([PROBLEM], 0.5, OPENING, 6, "t.jsonl")
    check_problems([PROBLEM], 0.5, OPENING, None, "t.jsonl")
