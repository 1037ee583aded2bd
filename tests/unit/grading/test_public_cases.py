import pytest
from public_cases import (
    BOX,
    DECIDED_OTHERWISE,
    MATH_VERIFY,
    MATH_VERIFY_OUTPUTS,
    SIMPLERL,
    VERL_OUTPUTS,
)

from rsp_rl.grading import grade, is_correct


@pytest.mark.parametrize(("answer", "gold", "expected"), [*MATH_VERIFY, *SIMPLERL])
def test_answers(answer, gold, expected):
    assert bool(is_correct(answer, gold)) is expected
    assert bool(grade(BOX % answer, gold)) is expected


@pytest.mark.parametrize(("output", "gold", "expected"), [*MATH_VERIFY_OUTPUTS, *VERL_OUTPUTS])
def test_outputs(output, gold, expected):
    assert bool(grade(output, gold)) is expected


@pytest.mark.parametrize(("answer", "gold", "theirs", "reason"), DECIDED_OTHERWISE)
def test_decided_otherwise(answer, gold, theirs, reason):
    assert bool(is_correct(answer, gold)) is not theirs, reason
