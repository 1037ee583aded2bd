"""A model's folder: where it is, what it must hold, its shapes, its stop tokens."""
