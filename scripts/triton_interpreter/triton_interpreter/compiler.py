"""Where Triton looks for a backend's compiler; with TRITON_INTERPRET=1 it does not ask it."""

from __future__ import annotations

from typing import Any, NoReturn

from triton.backends.compiler import BaseBackend


class InterpreterBackend(BaseBackend):
    """Of no target. What would compile is asked for without TRITON_INTERPRET=1, and refused."""

    @staticmethod
    def supports_target(target: Any) -> bool:
        """None: where a compiler is wanted there is none."""
        return False

    def hash(self) -> str:
        """See `BaseBackend`."""
        return "interpreter"

    def parse_options(self, options: dict) -> NoReturn:
        """Refused; the first that Triton asks."""
        raise RuntimeError("Triton's interpreter compiles nothing; set TRITON_INTERPRET=1")

    def add_stages(self, stages: dict, options: object, language: Any) -> NoReturn:
        """As `parse_options`."""
        self.parse_options({})

    def load_dialects(self, context: Any) -> NoReturn:
        """As `parse_options`."""
        self.parse_options({})

    def get_module_map(self) -> dict:
        """See `BaseBackend`."""
        return {}
