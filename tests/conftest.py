"""What all tests share: how hypothesis draws.

The draws are the same every time, so that a suite that was green stays green. What fresh draws
find (`--hypothesis-profile=long`) becomes an `@example` at its test. No example has a deadline: a
busy machine is no reason to fail, time is measured in scripts/bench.
"""

import logging
import os

import pytest
from hypothesis import settings

# verl reads it when it is first imported, by whichever test comes first.
os.environ.setdefault("VERL_PLATFORM", "cpu")

settings.register_profile("same", deadline=None, print_blob=True, derandomize=True)
settings.register_profile("long", deadline=None, print_blob=True, max_examples=2000)
settings.load_profile("same")  # pytest loads another afterwards, if asked to


@pytest.fixture(autouse=True)
def _warnings_are_heard() -> None:
    """Libraries raise levels of the root logger when imported, by whichever test comes first."""
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    for handler in root.handlers:  # pytest's among them
        handler.setLevel(logging.NOTSET)
