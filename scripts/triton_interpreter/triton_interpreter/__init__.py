"""A backend of Triton's that is there, and compiles nothing."""
