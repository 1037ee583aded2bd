"""How many of torch's operations something takes: on a GPU a launch each, whatever they compute.

A count is the same on every machine, where seconds are not. Views launch nothing and are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

#: Views that their schemas do not name as such.
_VIEWS = {"_unsafe_view", "detach", "alias", "lift_fresh", "_reshape_alias", "empty", "empty_like"}


class Operations(TorchDispatchMode):
    """Counts operations by name while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        returned = func._schema.returns
        aliases = any(r.alias_info is not None and not r.alias_info.is_write for r in returned)
        if not aliases and name not in _VIEWS and not name.startswith("new_empty"):
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def operations(work: Callable[[], object]) -> Counter[str]:
    """Of one call, by name."""
    with Operations() as counting:
        work()
    return counting.found
