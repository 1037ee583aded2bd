"""Where Triton looks for a backend's driver."""

from __future__ import annotations

from typing import Any, NoReturn

# Triton takes what is no abstract class in this module for the backend's driver.
from triton.backends import driver as base


class InterpreterDriver(base.DriverBase):
    """Never active by itself, as of Triton's own CPU backend: it is chosen."""

    @classmethod
    def is_active(cls) -> bool:
        """See `DriverBase`."""
        return False

    def map_python_to_cpp_type(self, ty: str) -> str:
        """See `DriverBase`."""
        return ty

    def get_current_target(self) -> NoReturn:
        """Refused: a target is what is compiled for."""
        raise RuntimeError("Triton's interpreter compiles nothing; set TRITON_INTERPRET=1")

    def get_active_torch_device(self) -> Any:
        """See `DriverBase`."""
        import torch

        return torch.device("cpu")

    def get_benchmarker(self) -> NoReturn:
        """As `get_current_target`."""
        self.get_current_target()
