"""What an engine's worker keeps of requests with a law: the records of all their positions.

Records lie on the device, in pools of rows that requests take pages of; the host knows which row is
which position's, and every emitted token. What is asked for is a request and an absolute position,
never a place in a batch: batches are shuffled, and a preempted request begins anew. Of a sampler's
token there is no row: its id is all there is to it.

A record stays until it is claimed by its key. Of outputs that nobody claims, as those of aborted
requests, only the latest are kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch

from rsp_rl.basics.errors import GenerationError
from rsp_rl.thoughts.host import sent
from rsp_rl.thoughts.law import InputLaw
from rsp_rl.thoughts.record import ThoughtRecord
from rsp_rl.thoughts.rows import Kind, Rows, concatenate
from rsp_rl.thoughts.stepping import Made, Thinker

#: GiB that records may take on the device, unless an engine is told otherwise: 13 million positions
#: of mixtures of ten, 260 thousand of dense rows of 2,048 bfloat16.
MOST_GIB = 1.0

#: Of a position's record: its kind, and a slot's id and value.
_KIND_BYTES, _SLOT_BYTES = 1, 8

#: Finished records that wait to be claimed.
MOST_UNCLAIMED = 4096

#: Rows of a page; pages of a pool that begins.
_PAGE, _FIRST_PAGES = 64, 16

#: No row.
_NONE = -1

_TOKEN_KINDS = frozenset(int(kind) for kind in Kind if kind.is_token)


def position_bytes(law: InputLaw, hidden_size: int, itemsize: int) -> int:
    """That the record of a thought takes.

    Args:
        law: Whose.
        hidden_size: d of the model.
        itemsize: Bytes of a number of its.
    """
    dense = hidden_size * itemsize if law.dense else 0
    return _KIND_BYTES + _SLOT_BYTES * law.slots + dense


@dataclass(eq=False)
class Entry:
    """One request.

    Attributes:
        key: What its record is claimed by.
        thinker: Its law, and where it is.
        start: Absolute position of its output's first token.
        masked: Ids that its law must not see, int64.
        stop_ids: Tokens that end its output.
        ids: Tokens emitted so far.
        rows: Of each its row in the pool, -1 for a sampler's token.
        overlaid: The same, -1 too where the input is the token's own embedding.
        ended: Whether its output must end: what is emitted from here on is no part of it.
    """

    key: int
    thinker: Thinker
    start: int
    masked: torch.Tensor | None = None
    stop_ids: tuple[int, ...] = ()
    ids: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    overlaid: list[int] = field(default_factory=list)
    ended: bool = False
    _request: str = ""
    _pool: _Pool | None = None
    _pages: list[int] = field(default_factory=list)
    _taken: int = 0

    @property
    def law(self) -> InputLaw:
        """Its law."""
        return self.thinker.law

    @property
    def position(self) -> int:
        """Of the token that comes next, absolute."""
        return self.start + len(self.ids)

    def sampled(self, token: int) -> None:
        """The next token is a sampler's."""
        self.ids.append(token)
        self.rows.append(_NONE)
        self.overlaid.append(_NONE)

    def places(self, first: int, end: int) -> list[tuple[int, int]]:
        """Where inputs are not the tokens' own: absolute positions, and rows.

        Args:
            first: Absolute position.
            end: Behind the last.
        """
        first = max(first, self.start)
        found = self.overlaid[first - self.start : max(0, end - self.start)]
        return [(first + at, place) for at, place in enumerate(found) if place != _NONE]


class ThoughtTable:
    """The requests with a law that a worker has, and their records.

    Args:
        device: Where records lie.
        most_bytes: That they may take.
        most_unclaimed: See `MOST_UNCLAIMED`.

    Attributes:
        requests: Those that are not over, by the engine's name.
    """

    def __init__(
        self,
        device: torch.device | str,
        most_bytes: int = int(MOST_GIB * (1 << 30)),
        most_unclaimed: int = MOST_UNCLAIMED,
    ) -> None:
        self._device = torch.device(device)
        self._most_bytes = most_bytes
        self._most_unclaimed = most_unclaimed
        self._pools: dict[tuple[int, int], _Pool] = {}
        self._by_key: dict[int, Entry] = {}
        self._unclaimed: OrderedDict[int, None] = OrderedDict()
        self.requests: dict[str, Entry] = {}

    def __len__(self) -> int:
        """Records in the table, finished or not."""
        return len(self._by_key)

    @property
    def bytes(self) -> int:
        """That the pools take on the device."""
        return sum(pool.bytes for pool in self._pools.values())

    @property
    def free_share(self) -> float:
        """Share of the pools' rows that nobody has."""
        pages = sum(pool.pages for pool in self._pools.values())
        return sum(len(pool.free) for pool in self._pools.values()) / pages if pages else 1.0

    def begin(self, request: str, entry: Entry) -> None:
        """A new request.

        Raises:
            ValueError: If its key is taken: two outputs of one request would share a record.
        """
        if entry.key in self._by_key:
            raise ValueError(f"two requests with a law have the key {entry.key}; n must be 1")
        entry._request = request
        self.requests[request] = self._by_key[entry.key] = entry

    def add(self, entries: Sequence[Entry], made: Made) -> None:
        """The next positions of requests of one law.

        Args:
            entries: N of them.
            made: Their records, in this order.

        Raises:
            GenerationError: If there is no memory left for them.
        """
        pool = self._pool(made.rows)
        places = []
        for entry, token, kind in zip(entries, made.tokens, made.kinds, strict=True):
            place = self._place(entry, pool)
            places.append(place)
            entry.ids.append(token)
            entry.rows.append(place)
            entry.overlaid.append(_NONE if kind in _TOKEN_KINDS else place)
        pool.write(self._index(places), made.rows)

    def add_before(self, entry: Entry, rows: Rows) -> None:
        """The first positions of a request, from the record of what it goes on from.

        Raises:
            GenerationError: As `add`.
        """
        tokens, kinds = rows.emitted_N.tolist(), rows.kind_N.tolist()
        for is_token, run in groupby(range(len(rows)), lambda at: kinds[at] == Kind.TOKEN):
            places = list(run)
            if is_token:  # whoever made it, its id is all there is to it
                for at in places:
                    entry.sampled(tokens[at])
                continue
            first, end = places[0], places[-1] + 1
            members = list(range(len(places)))
            made = Made(members, rows[first:end], tokens[first:end], kinds[first:end])
            self.add([entry] * len(places), made)

    def read(self, entry: Entry, places: Sequence[int]) -> Rows:
        """Rows of requests of one law.

        Args:
            entry: One of them.
            places: Which of the pool's.
        """
        assert entry._pool is not None
        return entry._pool.held[self._index(places)]

    def finish(self, request: str) -> None:
        """A request is over: its record waits to be claimed. Others are of no concern."""
        entry = self.requests.pop(request, None)
        if entry is None:
            return
        self._unclaimed[entry.key] = None
        if len(self._unclaimed) > self._most_unclaimed:
            self._forget(next(iter(self._unclaimed)))

    def take(self, key: int) -> ThoughtRecord | None:
        """The record of an output, which is then forgotten; None if there is none.

        The engine may not have said yet that the request is over.
        """
        entry = self._by_key.get(key)
        if entry is None:
            return None
        record = self._record(entry)
        self._forget(key)
        return record

    def _forget(self, key: int) -> None:
        entry = self._by_key.pop(key)
        self._unclaimed.pop(key, None)
        self.requests.pop(entry._request, None)
        if entry._pool is not None:
            entry._pool.free.extend(entry._pages)

    def _record(self, entry: Entry) -> ThoughtRecord:
        law = entry.law
        own = [at for at, place in enumerate(entry.rows) if place != _NONE]
        if own:
            found = self.read(entry, [entry.rows[at] for at in own]).to("cpu")
            if len(own) == len(entry.rows):
                return ThoughtRecord(law, entry.thinker.seed, entry.start, found)
        else:
            nothing = torch.empty(0, law.slots)
            found = Rows.of_kind(Kind.TOKEN, nothing, nothing)
        tokens = Rows.tokens(Kind.TOKEN, entry.ids, like=found)
        at_N = torch.tensor(own, dtype=torch.int64)
        dense_ND = tokens.dense_ND
        rows = Rows(
            tokens.kind_N.index_copy(0, at_N, found.kind_N),
            tokens.ids_NK.index_copy(0, at_N, found.ids_NK),
            tokens.values_NK.index_copy(0, at_N, found.values_NK),
            None if dense_ND is None else dense_ND.index_copy(0, at_N, found.dense_ND),
        )
        return ThoughtRecord(law, entry.thinker.seed, entry.start, rows)

    def _pool(self, rows: Rows) -> _Pool:
        width = rows.ids_NK.shape[1], 0 if rows.dense_ND is None else rows.dense_ND.shape[1]
        if width not in self._pools:
            self._pools[width] = _Pool(rows)
        return self._pools[width]

    def _place(self, entry: Entry, pool: _Pool) -> int:
        entry._pool = pool
        page, offset = divmod(entry._taken, _PAGE)
        if page == len(entry._pages):
            if not pool.free and not pool.grow(self._most_bytes - self.bytes):
                raise GenerationError(
                    f"the thoughts of {len(self)} requests fill the {self._most_bytes / 2**30:.2f} "
                    "GiB that they may take of the device's memory; lower --max-num-seqs or "
                    "law.max_thoughts"
                )
            entry._pages.append(pool.free.pop())
        entry._taken += 1
        return entry._pages[page] * _PAGE + offset

    def _index(self, places: Sequence[int]) -> torch.Tensor:
        return sent(places, self._device)


class _Pool:
    """Rows of one width, and which pages of them are free."""

    def __init__(self, like: Rows) -> None:
        self.held = _empty(like, 0)
        self.free: list[int] = []

    @property
    def pages(self) -> int:
        """Free or not."""
        return len(self.held) // _PAGE

    @property
    def bytes(self) -> int:
        """That it takes."""
        return _bytes(self.held)

    def grow(self, most_bytes: int) -> bool:
        """To twice its pages, or as far as so many bytes reach; False if there is none to add."""
        added = max(self.pages, _FIRST_PAGES)
        added = min(added, most_bytes // _bytes(_empty(self.held, _PAGE)))
        if added < 1:
            return False
        self.free.extend(reversed(range(self.pages, self.pages + added)))
        self.held = concatenate([self.held, _empty(self.held, added * _PAGE)])
        return True

    def write(self, at_N: torch.Tensor, rows: Rows) -> None:
        """Rows into their places."""
        self.held.kind_N.index_copy_(0, at_N, rows.kind_N)
        self.held.ids_NK.index_copy_(0, at_N, rows.ids_NK)
        self.held.values_NK.index_copy_(0, at_N, rows.values_NK)
        if rows.dense_ND is not None:
            assert self.held.dense_ND is not None
            self.held.dense_ND.index_copy_(0, at_N, rows.dense_ND)


def _empty(like: Rows, count: int) -> Rows:
    """Rows as wide as others, with anything in them."""
    dense = like.dense_ND
    return Rows(
        like.kind_N.new_empty(count),
        like.ids_NK.new_empty(count, like.ids_NK.shape[1]),
        like.values_NK.new_empty(count, like.values_NK.shape[1]),
        None if dense is None else dense.new_empty(count, dense.shape[1]),
    )


def _bytes(rows: Rows) -> int:
    tensors = (rows.kind_N, rows.ids_NK, rows.values_NK, rows.dense_ND)
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)
