import pytest

from rsp_rl.grading.rules import RULES, THOUSANDS


@pytest.mark.parametrize("rule", [*RULES, THOUSANDS], ids=lambda rule: rule.name)
def test_each_rule_does_what_its_example_says(rule):
    assert not rule.needles or any(needle in rule.example for needle in rule.needles)
    assert rule.pattern.sub(rule.replacement, rule.example) == rule.expected
