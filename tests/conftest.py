"""What all tests share."""

from hypothesis import settings

# A busy machine is no reason to fail: time is measured in scripts/bench, not in tests.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
