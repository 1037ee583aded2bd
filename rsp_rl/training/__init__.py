"""A training run: its checks, its start, the guard, and verl's side of it."""
