"""Values of several kinds in one comparison."""

from fractions import Fraction

import mpmath
import pytest

from rsp_rl.grading.points import Expression, Precision, equal_expressions, proportional

EXACT = Precision(same=1e-20, different=1e-20, zero=1e-25)
_mp = mpmath.mp.clone()
_mp.dps = 40


def _expression(*values):
    return Expression(lambda index: values[index % len(values)], closed=False, rounded=False)


THIRD = _mp.mpf(1) / 3


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (Fraction(1, 3), THIRD, True),
        (THIRD, Fraction(1, 3), True),
        (Fraction(1, 3), THIRD + _mp.mpf(10) ** -15, False),
        (Fraction(1, 3), _mp.mpc(THIRD, 0), True),
        (Fraction(10**400), _mp.mpf(10) ** 400, True),
        (Fraction(10**400 + 1), Fraction(10**400), False),
    ],
)
def test_a_fraction_is_compared_with_all_digits_of_the_other(a, b, equal):
    assert equal_expressions(_expression(a), _expression(b), EXACT) is equal


def test_what_is_too_large_for_a_float_is_left_undecided():
    huge, one = _expression(Fraction(10**400)), _expression(1.0)
    assert equal_expressions(huge, one, EXACT) is None
    assert proportional((huge, one), (one, huge), EXACT) is None


@pytest.mark.parametrize("two", [Fraction(2), 2.0, _mp.mpf(2), _mp.mpc(2)])
@pytest.mark.parametrize("kind", [Fraction, _mp.mpf])
def test_a_ratio_may_mix_kinds(two, kind):
    zero = _expression(Fraction(0))
    first = (_expression(two, 3 * two), zero)
    assert proportional(first, (_expression(kind(1), kind(3)), zero), EXACT)
    assert proportional(first, (_expression(kind(1), kind(4)), zero), EXACT) is False
    assert proportional(first, (_expression(kind(-1), kind(-3)), zero), EXACT, sign=1) is False
