"""Rollout against actor, layout by layout: the parts of `scripts/parity_matrix.py`."""
