"""The laws by name and by code: ours, and those that installed packages bring.

A package names its laws in the entry point group `rsp_rl.laws`, as others name plug-ins of verl
and vLLM: every process of a run, on every node that has the package, then finds them by itself. A
law of ours is told by its position; one of a package by a hash of its name, so that neither the
order nor the number of packages changes what a record says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from types import SimpleNamespace
from typing import TYPE_CHECKING

from rsp_rl.basics.errors import ConfigError
from rsp_rl.draws.law import Law

if TYPE_CHECKING:
    import torch

    from rsp_rl.draws.law import Draw

#: Entry point group: a name, and the class that it names, `my_laws:MyLaw`.
GROUP = "rsp_rl.laws"

#: Codes of own laws are above it, positions of ours below.
_FIRST_OWN_CODE = 1 << 32

#: Of the rows that a law is tried with.
_WIDTH = 64


class Laws(Mapping[str, Law]):
    """Laws by name: ours in the order of their codes, then those of packages by name.

    Packages are looked at when a name or a code is none of ours, once a process.

    Args:
        ours: In the order of their codes.

    Raises:
        ConfigError: From any look-up, if a package's law cannot be used.
    """

    def __init__(self, ours: Sequence[Law]) -> None:
        self._ours = {law.name: law for law in ours}

    @cached_property
    def _own(self) -> dict[str, Law]:
        found: dict[str, Law] = {}
        for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
            where = f"entry point {entry.name} = {entry.value} of the group {GROUP}"
            if entry.name in self._ours or entry.name in found:
                raise ConfigError(f"{where}: there is a law of that name already; choose another")
            found[entry.name] = _loaded(entry, where)
        return found

    def __getitem__(self, name: str) -> Law:
        return self._ours[name] if name in self._ours else self._own[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._ours
        yield from self._own

    def __len__(self) -> int:
        return len(self._ours) + len(self._own)

    def code(self, name: str) -> int:
        """What stands for a law in an encoded record, in [0, 2^63)."""
        return list(self._ours).index(name) if name in self._ours else own_code(name)

    def of_code(self, code: int) -> str | None:
        """The name of a law by its code, if there is one in this process."""
        if 0 <= code < len(self._ours):
            return list(self._ours)[code]
        return next((name for name in self._own if own_code(name) == code), None)


def own_code(name: str) -> int:
    """Code of a package's law, in [2^32, 2^63)."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % ((1 << 63) - _FIRST_OWN_CODE) + _FIRST_OWN_CODE


def _loaded(entry: EntryPoint, where: str) -> Law:
    try:
        kind = entry.load()
    except Exception as error:  # whatever a stranger's module raises
        raise ConfigError(f"{where} cannot be imported: {error!r}") from error
    if not (isinstance(kind, type) and issubclass(kind, Law)):
        raise ConfigError(f"{where} is no subclass of rsp_rl.draws.law.Law")
    try:
        law = kind()
    except TypeError as error:  # an argument is wanted, or `draw` is missing
        raise ConfigError(f"{where} cannot be made without arguments: {error}") from error
    if getattr(law, "name", None) != entry.name:
        raise ConfigError(
            f"{where}: the class has name = {getattr(law, 'name', None)!r}; give both one name"
        )
    _try(law, where)
    return law


def _try(law: Law, where: str) -> None:
    """Two draws of one record are the same, and another's are others.

    A law that draws rows of the table needs the table, and is looked at where it draws alone.
    """
    if law.from_table:
        return
    given = {"length": 3, "mean": 0.0, "std": 1.0, "table": 0}
    first, again, other = (
        checked(law, SimpleNamespace(seed=seed, **given), _WIDTH, where) for seed in (7, 7, 8)
    )
    if not first.equal(again):
        raise ConfigError(
            f"{where} draws other numbers from the same record each time, so that rollout and "
            "actor would not have one soft prompt; take what is random from the record's seed, as "
            "numpy.random.Generator(numpy.random.Philox(key=record.seed)) does"
        )
    if first.equal(other) and not law.one_draw:
        raise ConfigError(
            f"{where} draws the same from every seed; use record.seed, or say one_draw = True"
        )


def checked(law: Law, record: Draw, hidden_size: int, where: str | None = None) -> torch.Tensor:
    """The rows of a rollout, which are what they should be: float32 [L, d], finite.

    Args:
        law: Any.
        record: The rollout's.
        hidden_size: d.
        where: What an error calls the law.

    Raises:
        ConfigError: If they are not: written into an array, they might fit by broadcasting.
    """
    import torch

    rows = law.draw(record, hidden_size)
    where = where or f"rsp.law={law.name}"
    if not isinstance(rows, torch.Tensor):
        raise ConfigError(f"{where} draws a {type(rows).__name__}; a law draws a torch tensor")
    wanted = (record.length, hidden_size)
    if rows.shape != wanted or rows.dtype != torch.float32 or rows.device.type != "cpu":
        raise ConfigError(
            f"{where} draws {rows.dtype} {list(rows.shape)} on {rows.device}; a law draws "
            f"torch.float32 {list(wanted)} on cpu"
        )
    if not rows.isfinite().all():
        raise ConfigError(f"{where} draws NaN or infinity with seed {record.seed}")
    return rows
