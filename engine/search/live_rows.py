"""Live rows: which rows of a search index are alive as of a view.

A text or vector index has one entry per document, its rowid -> its id (schema/search_index.py),
and a document gets a new rowid whenever the content of such an index changes. So a row is
immutable: one commit adds it and another removes it. A key in the keyspace of the index has a
letter for its kind:

    r rowid    entry: id
    a block    bitmap of the live rows of a block as of LMDB, and a crc; written by checkpoints
    l, s ...   segments of a text index: engine/search/segments.py

Invariants:
- The view alone decides which rows are alive: the bitmap in its LMDB transaction, the row events of
  its memtables up to its Lsn, and its own pending effects. Everything else that knows rows is a
  cache, and may hold rows that are dead, or not added yet, as of the view.
- A mask that alive() or committed() returned is never modified; a newer one is a copy, or the same
  memory with more rows behind the end.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from copy import copy
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, final
from zlib import crc32

from amberdb._bytes import CRC_SIZE, append_crc, crc_matches
from amberdb._call_lock import CallLock
from amberdb._errors import CorruptionError
from amberdb.engine.schema.counters import CollectionCounters
from amberdb.engine.schema.keyspace import ENTRY_PREFIX_SIZE, Effects, end_of
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.storage.memtable import Memtable, RowEvent
from amberdb.index.ordered.keys import ROWID_BYTES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from amberdb.engine.storage.store_writer import StoreWriter
    from amberdb.engine.storage.view import View

    # bool[], by rowid: which rows are alive.
    Alive: TypeAlias = NDArray[np.bool_]
    Rowids: TypeAlias = NDArray[np.int64]

REBUILD: Final = (
    "drop the index from the declaration and declare it again, which rebuilds it from the documents"
)
"""What to do about a damaged search index."""

BITS: Final = b"a"
BLOCK_ROWS: Final = 8192
_BLOCK_BYTES = BLOCK_ROWS // 8


class Live(NamedTuple):
    """The rows that are alive at a view, and how they follow from those of views before it: a state
    with the same list has all rows of an earlier one, besides the rows that the list has since, and
    others only behind its end."""

    alive: "Alive"
    removed: list[int]
    removed_count: int
    """How much of the list this state knows."""
    is_committed: bool = True
    """It has no rows of an open transaction, and those of expired documents are alive."""

    def leads_to(self, later: "Live") -> bool:
        """Whether a state has the rows of this one without some that the list has, and others
        behind its end."""
        return (
            self.removed is later.removed
            and self.removed_count <= later.removed_count
            and len(self.alive) <= len(later.alive)
        )


@final
class LiveRows:
    """The live rows of one search index as of any view; those of the newest view are cached."""

    def __init__(self) -> None:
        self._mutex = CallLock()
        self._cached: _CachedLiveRows | None = None

    def alive(self, view: "View", schema: Schema, index: RowIndex) -> "Alive":
        """bool[], by rowid: rows whose document the view sees; rows past the end are dead. Raises
        CorruptionError."""
        return self.live(view, schema, index).alive

    def live(self, view: "View", schema: Schema, index: RowIndex) -> Live:
        """alive(), and what it follows from. Raises CorruptionError."""
        live = self._committed(view, index)
        pending = view.pending.effects if view.pending is not None else {}
        if not pending and schema.expires_at is None:
            return live
        expired = expired_rows(view, schema)
        if not pending and not len(expired):
            return live
        alive = live.alive
        size = max(CollectionCounters.unpack(view.get(schema.counters_key)).next_rowid, len(alive))
        alive = _grown(alive, size)
        alive = _apply(alive, _pending_events(pending, index))
        alive[expired[expired < size]] = False
        return Live(alive, [], 0, is_committed=False)

    def committed(self, view: "View", index: RowIndex) -> "Alive":
        """bool[], by rowid: the rows alive as of the view's Lsn, without its own pending effects;
        rows of expired documents count. Raises CorruptionError."""
        return self._committed(view, index).alive

    def _committed(self, view: "View", index: RowIndex) -> Live:
        cached = self._cached
        if cached is not None and cached.is_of(view, index):
            return cached.live
        with self._mutex:
            cached = self._cached
            if cached is None or not cached.leads_to(view):
                cached = _CachedLiveRows(view, stored_alive(view, index))
            cached = cached.at(view, index)
            if self._cached is None or cached.age >= self._cached.age:
                self._cached = cached
            return cached.live


class _CachedLiveRows:
    """The live rows as of one Lsn, and how many events of each memtable are applied to them."""

    __slots__ = ("_positions", "_room", "_store_id", "live", "lsn")

    def __init__(self, view: "View", alive: "Alive") -> None:
        import numpy as np

        self._store_id = view.store_id
        self._positions = {memtable.number: 0 for memtable in view.memtables}
        self.live = Live(alive[: int(np.flatnonzero(alive).max(initial=-1)) + 1], [], 0)
        self._room = alive
        """The array that `alive` is the first part of. A row that is added behind this part needs
        no copy: rowids only grow, and rows past the end of a mask are dead."""
        self.lsn = view.applied_lsn
        """The Lsn of the last event applied, at first that of the LMDB transaction."""

    @property
    def age(self) -> tuple[int, int, int]:
        """Grows with every event and every checkpoint, so that the rows of an older view do not
        replace those of a newer one."""
        return self.lsn, max(self._positions), min(self._positions)

    def leads_to(self, view: "View") -> bool:
        """Whether applying later events of the same memtables leads from here to the view."""
        positions = self._positions
        return (
            self.lsn <= view.lsn
            and len(positions) == len(view.memtables)
            and all(memtable.number in positions for memtable in view.memtables)
            and self._store_id == view.store_id
        )

    def is_of(self, view: "View", index: RowIndex) -> bool:
        """Whether these are the live rows of the view: no event was added since."""
        if not self.leads_to(view):
            return False
        prefix, positions = index.prefix, self._positions
        return all(
            len(memtable.rows.get(prefix, ())) <= positions[memtable.number]
            for memtable in view.memtables
        )

    def at(self, view: "View", index: RowIndex) -> "_CachedLiveRows":
        """The live rows as of the view's Lsn: this object when nothing was added."""
        events: list[RowEvent] = []
        positions = self._positions
        for memtable in reversed(view.memtables):  # oldest first
            row_events = memtable.rows.get(index.prefix)
            position = positions[memtable.number]
            if row_events is None or position >= len(row_events):
                continue
            fresh = row_events[position:]
            if fresh[-1][0] > view.lsn:
                fresh = fresh[: bisect_right(fresh, view.lsn, key=_lsn_of)]
            if fresh:
                events += fresh
                positions = {**positions, memtable.number: position + len(fresh)}
        if not events:
            return self
        after = copy(self)
        after._apply(events)
        after._positions = positions
        after.lsn = max(events[-1][0], self.lsn)
        return after

    def _apply(self, events: list[RowEvent]) -> None:
        """Makes `live` the rows after these events. After an interruption it may be called again
        with the same or fewer."""
        alive, removed, removed_count, _ = self.live
        size = len(alive)
        added = rowids_of(key for _, key, id_bytes in events if id_bytes is not None)
        cleared = rowids_of(key for _, key, id_bytes in events if id_bytes is None)
        end = max(size, int(added.max(initial=-1)) + 1, int(cleared.max(initial=-1)) + 1)
        are_behind = int(added.min(initial=size)) >= size
        if end > len(self._room) or not are_behind or int(cleared.min(initial=size)) < size:
            self._room = _grown(alive, end + end // 8)
        if not are_behind:  # others may not add what is new to theirs
            removed, removed_count = [], 0
        self._room[added] = True
        self._room[cleared] = False  # no rowid is added twice
        removed[removed_count:] = cleared.tolist()
        self.live = Live(self._room[:end], removed, len(removed))


def _lsn_of(event: RowEvent) -> int:
    return event[0]


def pending_rows(view: "View", index: RowIndex) -> "Rowids":
    """The rowids that the view's own transaction has added, ascending."""
    import numpy as np

    if view.pending is None:
        return np.empty(0, np.int64)
    events = _pending_events(view.pending.effects, index)
    rowids = rowids_of(key for key, lives in events if lives)
    rowids.sort()
    return rowids


def _pending_events(effects: Effects, index: RowIndex) -> list[tuple[bytes, bool]]:
    """The row events of a transaction: the key of an entry, and whether it was added."""
    prefix = index.entry_prefix
    return [(key, value is not None) for key, value in effects.items() if key.startswith(prefix)]


def rowids_of(keys: Iterable[bytes]) -> "Rowids":
    """The rowids in entry keys of a search index, in the same order."""
    import numpy as np

    joined = b"".join(keys)
    table = np.frombuffer(joined, np.dtype([("prefix", f"S{ENTRY_PREFIX_SIZE}"), ("rowid", ">u8")]))
    return table["rowid"].astype(np.int64)


def _grown(alive: "Alive", size: int) -> "Alive":
    """A copy with room for at least `size` rows."""
    import numpy as np

    grown = np.zeros(max(size, len(alive)), np.bool_)
    grown[: len(alive)] = alive
    return grown


def _apply(alive: "Alive", events: list[tuple[bytes, bool]]) -> "Alive":
    """Marks the added rows, then clears the removed ones: no rowid is added twice. In place where
    there is room."""
    added = rowids_of(key for key, lives in events if lives)
    removed = rowids_of(key for key, lives in events if not lives)
    size = int(max(added.max(initial=0), removed.max(initial=0))) + 1
    if size > len(alive):
        alive = _grown(alive, max(size, len(alive) + len(alive) // 8))
    alive[added] = True
    alive[removed] = False
    return alive


def expired_rows(view: "View", schema: Schema) -> "Rowids":
    """The rows of documents that have expired and are not deleted yet."""
    import numpy as np

    if schema.expires_at is None:
        return np.empty(0, np.int64)
    high = schema.expiry_bound(view.now_us)
    rowids = b"".join(key[-ROWID_BYTES:] for key, _ in view.scan(schema.expiry_prefix, high))
    return np.frombuffer(rowids, ">u8").astype(np.int64)


# -- bitmaps --------------------------------------------------------------------------------------


def stored_alive(source: "View | StoreWriter", index: RowIndex) -> "Alive":
    """The live rows as of LMDB, in the transaction of the view or the writer. Raises
    CorruptionError."""
    import numpy as np

    low = index.prefix + BITS
    blocks = {_block_number(key): value for key, value in source.scan(low, end_of(low))}
    if not blocks:
        return np.zeros(0, np.bool_)
    bits = np.zeros((max(blocks) + 1, _BLOCK_BYTES), np.uint8)
    for number, value in blocks.items():
        bits[number] = np.frombuffer(_checked(index, number, value), np.uint8)
    return np.unpackbits(bits.ravel(), bitorder="little").view(np.bool_)


def _block_number(key: bytes) -> int:
    return int.from_bytes(key[ENTRY_PREFIX_SIZE:])


def _block_key(index: RowIndex, number: int) -> bytes:
    return index.prefix + BITS + number.to_bytes(4)


def _seed(number: int) -> int:
    """The seed of a block's checksum, from its key within the index: a document's value does not
    pass for a block."""
    return crc32(BITS + number.to_bytes(4))


def damaged_index(index: RowIndex, problem: str) -> CorruptionError:
    """The error for damage in the keyspace of a search index."""
    return CorruptionError(
        f"{index.spec.name}: {problem}: {REBUILD}", index=index.spec.name, keyspace=index.number
    )


def _checked(index: RowIndex, number: int, value: bytes) -> bytes:
    """The bits of a block. Raises CorruptionError."""
    if len(value) != _BLOCK_BYTES + CRC_SIZE or not crc_matches(value, _seed(number)):
        raise damaged_index(index, f"block {number} of its live rows fails its checksum")
    return value[:_BLOCK_BYTES]


def _stored_block(store: "StoreWriter", index: RowIndex, number: int) -> bytes | None:
    value = store.get(_block_key(index, number))
    return None if value is None else _checked(index, number, value)


def store_bits(store: "StoreWriter", index: RowIndex, rows: Mapping[int, bool]) -> None:
    """Writes the bits of some rows to LMDB, by rowid: True for a row that is alive. Raises
    CorruptionError."""
    blocks: dict[int, bytearray] = {}
    for rowid, lives in rows.items():
        number, bit = divmod(rowid, BLOCK_ROWS)
        block = blocks.get(number)
        if block is None:
            stored = _stored_block(store, index, number)
            block = blocks[number] = bytearray(stored or _BLOCK_BYTES)
        if lives:
            block[bit >> 3] |= 1 << (bit & 7)
        else:
            block[bit >> 3] &= ~(1 << (bit & 7)) & 0xFF
    for number in sorted(blocks):
        bits = bytes(blocks[number])
        store.put(_block_key(index, number), bits + append_crc(bits, _seed(number)))


def is_stored_alive(store: "StoreWriter", index: RowIndex, rowid: int) -> bool:
    """Whether a row is alive as of LMDB. Raises CorruptionError."""
    number, bit = divmod(rowid, BLOCK_ROWS)
    block = _stored_block(store, index, number)
    return block is not None and bool(block[bit >> 3] >> (bit & 7) & 1)


def is_applied(memtable: Memtable, view: "View") -> bool:
    """Whether the view's LMDB transaction already holds everything in a frozen memtable."""
    return 0 < memtable.last_lsn <= view.applied_lsn
