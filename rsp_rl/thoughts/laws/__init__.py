"""The input laws, a module each."""
