"""A model's folder: where it is, what it must hold; its shapes, weights and stop tokens."""
