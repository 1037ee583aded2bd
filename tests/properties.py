"""How many examples a property test tries that has a number of its own."""

from hypothesis import settings

_USUAL = 100  # hypothesis's own number


def examples(count: int) -> settings:
    """Decorates a property test: so many examples, and 20 times as many in the long profile.

    Args:
        count: As many as take about a second.
    """
    return settings(max_examples=count * settings.default.max_examples // _USUAL)
