"""ROUGE-L against a plain recursion."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.analysis.similarity import longest_common_subsequence, rouge_l

WORDS = st.lists(st.sampled_from("abcd"), max_size=12)


@given(a=WORDS, b=WORDS)
def test_longest_common_subsequence_is_the_recursion_s(a: list[str], b: list[str]) -> None:
    @cache
    def naive(i: int, j: int) -> int:
        if not i or not j:
            return 0
        if a[i - 1] == b[j - 1]:
            return naive(i - 1, j - 1) + 1
        return max(naive(i - 1, j), naive(i, j - 1))

    assert longest_common_subsequence(a, b) == naive(len(a), len(b))


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("so two and two is four", "so two and two is four", 1.0),
        ("two and two", "two plus two", 2 / 3),
        ("", "", 1.0),
        ("words", "", 0.0),
        ("a  b\nc", "a b c", 1.0),
    ],
)
def test_rouge_l(text: str, reference: str, expected: float) -> None:
    assert rouge_l(text, reference) == pytest.approx(expected)
