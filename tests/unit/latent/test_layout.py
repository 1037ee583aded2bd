"""Each method's sequence, by examples worked out by hand."""

from __future__ import annotations

import pytest

from rsp_rl.basics.errors import ConfigError
from rsp_rl.latent.layout import IGNORED, Markers, check_lengths, collate, lay_out
from rsp_rl.latent.methods import get_method
from rsp_rl.latent.problem_tokens import ProblemTokens

MARKERS = Markers(begin=90, end=91, latent=92)
#: Question 1 2 3, steps of two, one and two tokens, answer 40 41.
PROBLEM = ProblemTokens((1, 2, 3), ((10, 11), (20,), (30, 31)), (40, 41))
STEPS = [10, 11, 20, 30, 31]


def row(method: str, stage: int = 0, **options):
    defaults = {"max_stage": 2, "thoughts_per_step": 2}
    return lay_out(PROBLEM, get_method(method), MARKERS, stage=stage, **(defaults | options))


@pytest.mark.parametrize(
    ("method", "stage", "expected", "first_label", "thoughts"),
    [
        ("cot", 0, [1, 2, 3, *STEPS, 40, 41], 3, 0),
        ("no_cot", 3, [1, 2, 3, 40, 41], 3, 0),
        ("pause", 3, [1, 2, 3, 92, 92, 92, 92, 40, 41], 7, 0),
        ("no_curriculum", 3, [1, 2, 3, 90, 92, 92, 92, 92, 91, 40, 41], 9, 4),
        ("coconut", 0, [1, 2, 3, 90, 91, *STEPS, 40, 41], 5, 0),
        ("coconut", 1, [1, 2, 3, 90, 92, 92, 91, 20, 30, 31, 40, 41], 7, 2),
        ("coconut", 2, [1, 2, 3, 90, 92, 92, 92, 92, 91, 30, 31, 40, 41], 9, 4),
        # Beyond the last stage all steps are gone, and thoughts do not grow.
        ("coconut", 3, [1, 2, 3, 90, 92, 92, 92, 92, 91, 40, 41], 9, 4),
        ("no_thought", 1, [1, 2, 3, 20, 30, 31, 40, 41], 3, 0),
        ("no_thought", 3, [1, 2, 3, 40, 41], 3, 0),
        ("pause_as_thought", 1, [1, 2, 3, 90, 92, 92, 91, 20, 30, 31, 40, 41], 7, 0),
    ],
)
def test_a_methods_sequence(method, stage, expected, first_label, thoughts):
    found = row(method, stage)
    assert list(found.token_ids) == expected
    assert (found.first_label, found.thoughts) == (first_label, thoughts)


@pytest.mark.parametrize(
    ("removed", "left"), [(0, STEPS), (1, STEPS[1:]), (3, STEPS[3:]), (5, []), (99, [])]
)
def test_icot_takes_tokens_from_the_front_of_the_steps_and_never_the_answers(removed, left):
    assert list(row("icot", removed_tokens=removed).token_ids) == [1, 2, 3, *left, 40, 41]


def test_a_problem_of_few_steps_has_the_stages_thoughts_or_its_own():
    short = ProblemTokens((1,), ((10,),), (40,))
    options = {"stage": 2, "max_stage": 2, "thoughts_per_step": 1}
    method = get_method("coconut")
    padded = lay_out(short, method, MARKERS, **options)
    own = lay_out(short, method, MARKERS, **options, pad_thoughts=False)
    assert list(padded.token_ids) == [1, 90, 92, 92, 91, 40]
    assert list(own.token_ids) == [1, 90, 92, 91, 40]


def test_a_batch_has_its_first_thoughts_in_one_column():
    long = row("coconut", 1)
    short = lay_out(
        ProblemTokens((7,), ((8,), (9,)), (40,)),
        get_method("coconut"),
        MARKERS,
        stage=1,
        max_stage=2,
        thoughts_per_step=1,
    )
    batch = collate([long, short], pad=0)
    assert batch.token_ids_BT.tolist() == [
        [1, 2, 3, 90, 92, 92, 91, 20, 30, 31, 40, 41],
        [0, 0, 7, 90, 92, 91, 9, 40, 0, 0, 0, 0],
    ]
    assert batch.mask_BT.tolist() == [[1] * 12, [0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0]]
    assert batch.positions_BT.tolist() == [list(range(12)), [0, 0, 0, 1, 2, 3, 4, 5, 0, 0, 0, 0]]
    none = IGNORED
    assert batch.labels_BT.tolist() == [
        [none] * 7 + [20, 30, 31, 40, 41],
        [none] * 6 + [9, 40] + [none] * 4,
    ]
    assert batch.thoughts_BT.nonzero().tolist() == [[0, 4], [0, 5], [1, 4]]
    assert (batch.first, batch.passes) == (4, 2)


def test_what_the_context_does_not_hold_is_named():
    rows = [row("coconut", 0), row("coconut", 1)]
    check_lengths(rows, 12, "train.jsonl")
    check_lengths(rows, None, "train.jsonl")
    with pytest.raises(ConfigError, match=r"train\.jsonl, problem 0.*12 tokens.*context 11"):
        check_lengths(rows, 11, "train.jsonl")
