"""A training run: its dry run, its checks, its start, the guard, and verl's side of it."""
