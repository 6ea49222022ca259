"""Rows: the entries of search indexes, and which of them are alive at a view.

A text or vector index has one entry per document, its rowid -> its id (schema/search_index.py),
and a document gets a new rowid whenever the content of such an index changes. So a row never
changes: it is born with one commit and dies with another. In the keyspace of the index a letter
says what a key is:

    r rowid    entry: id
    a block    which rows of a block are alive in LMDB, one bit each, sealed; by checkpoints
    s ...      segments of a text index: engine/search/segments.py

Invariants:
- What is alive is decided by the view alone: the bits of its LMDB transaction, the row events of
  its memtables up to its Lsn, and its own pending effects. Whatever else knows rows is a cache, and
  may know some that are dead, or not born yet.
- What alive() returns is never changed afterwards; a newer one is a copy.
"""

import threading
from collections.abc import Iterable, Mapping
from copy import copy
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeAlias, final
from zlib import crc32

from amberdb._bytes import CRC_SIZE, append_crc, crc_matches
from amberdb._errors import CorruptionError
from amberdb.engine.schema.counters import CollectionCounters
from amberdb.engine.schema.keyspace import ENTRY_PREFIX_SIZE, Effects, end_of
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.storage.memtable import Memtable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from amberdb.engine.storage.store import StoreWriter
    from amberdb.engine.storage.view import View

    Alive: TypeAlias = NDArray[np.bool_]
    Rowids: TypeAlias = NDArray[np.int64]

BITS: Final = b"a"
BLOCK_ROWS: Final = 8192
_BLOCK_BYTES = BLOCK_ROWS // 8


@final
class Rows:
    """Of one search index: alive rows at any view, the last answer kept."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._kept: _CachedLiveRows | None = None

    def alive(self, view: "View", schema: Schema, index: RowIndex) -> "Alive":
        """bool[next rowid of the view]: rows whose document can be seen."""
        alive = self.committed(view, index)
        fresh = view.pending.effects if view.pending is not None else {}
        expired = _expired(view, schema)
        if not fresh and not len(expired):
            return alive
        size = max(CollectionCounters.unpack(view.get(schema.counters_key)).next_rowid, len(alive))
        alive = _grown(alive, size)
        _apply(alive, _pending_events(fresh, index))
        alive[expired[expired < size]] = False
        return alive

    def committed(self, view: "View", index: RowIndex) -> "Alive":
        """The same without the view's own pending effects, and with what has expired."""
        with self._mutex:
            kept = self._kept
            if kept is None or not kept.leads_to(view):
                kept = _CachedLiveRows(view, stored_alive(view, index))
            kept = kept.at(view, index)
            if self._kept is None or kept.age >= self._kept.age:
                self._kept = kept
            return kept.alive


class _CachedLiveRows:
    """Alive rows as of one Lsn, and how far the memtables' events have gone into it."""

    __slots__ = ("_places", "_store_id", "alive", "lsn")

    def __init__(self, view: "View", alive: "Alive") -> None:
        self._store_id = view.store_id
        self._places = {memtable.number: 0 for memtable in view.memtables}
        self.alive = alive
        self.lsn = view.applied_lsn
        """Of the last event that went in, or of all that LMDB had."""

    @property
    def age(self) -> tuple[int, int, int]:
        """Grows with every event and every checkpoint: a view of the past displaces nothing."""
        return self.lsn, max(self._places), min(self._places)

    def leads_to(self, view: "View") -> bool:
        """Whether only later events of the same memtables are between this and the view."""
        return (
            self._store_id == view.store_id
            and self.lsn <= view.lsn
            and self._places.keys() == {memtable.number for memtable in view.memtables}
        )

    def at(self, view: "View", index: RowIndex) -> "_CachedLiveRows":
        """This one, or a copy that has gone on to the view's Lsn."""
        events: list[tuple[bytes, bool]] = []
        places = dict(self._places)
        last = self.lsn
        for memtable in reversed(view.memtables):  # oldest first
            found = memtable.rows.get(index.prefix)
            if found is None:
                continue
            for lsn, key, value in islice(found, places[memtable.number], None):
                if lsn > view.lsn:
                    break
                places[memtable.number] += 1
                events.append((key, value is not None))
                last = max(last, lsn)
        if not events:
            return self
        after = copy(self)
        after.alive = _apply(_grown(self.alive, 0), events)
        after._places = places
        after.lsn = last
        return after


def pending_rows(view: "View", index: RowIndex) -> "Rowids":
    """Rows that the view's own transaction has added, ascending."""
    import numpy as np

    if view.pending is None:
        return np.empty(0, np.int64)
    events = _pending_events(view.pending.effects, index)
    rowids = rowids_of(key for key, lives in events if lives)
    rowids.sort()
    return rowids


def _pending_events(effects: Effects, index: RowIndex) -> list[tuple[bytes, bool]]:
    prefix = index.entry_prefix
    return [(key, value is not None) for key, value in effects.items() if key.startswith(prefix)]


def rowids_of(keys: Iterable[bytes]) -> "Rowids":
    """The rowids of entry keys of a search index."""
    import numpy as np

    joined = b"".join(keys)
    table = np.frombuffer(joined, np.dtype([("prefix", f"S{ENTRY_PREFIX_SIZE}"), ("rowid", ">u8")]))
    return table["rowid"].astype(np.int64)


def _grown(alive: "Alive", size: int) -> "Alive":
    """A copy with room for at least `size` rows."""
    import numpy as np

    copy = np.zeros(max(size, len(alive)), np.bool_)
    copy[: len(alive)] = alive
    return copy


def _apply(alive: "Alive", events: list[tuple[bytes, bool]]) -> "Alive":
    """Marks births, then deaths: no row is born twice. In place where there is room."""
    born = rowids_of(key for key, lives in events if lives)
    died = rowids_of(key for key, lives in events if not lives)
    size = int(max(born.max(initial=0), died.max(initial=0))) + 1
    if size > len(alive):
        alive = _grown(alive, max(size, len(alive) + len(alive) // 8))
    alive[born] = True
    alive[died] = False
    return alive


def _expired(view: "View", schema: Schema) -> "Rowids":
    """Rows of documents that have expired and are not removed yet."""
    import numpy as np

    if schema.expires_at is None:
        return np.empty(0, np.int64)
    high = schema.expiry_bound(view.now_us)
    tails = b"".join(key[-8:] for key, _ in view.scan(schema.expiry_prefix, high))
    return np.frombuffer(tails, ">u8").astype(np.int64)


# -- bits --------------------------------------------------------------------------------------


def stored_alive(source: "View | StoreWriter", index: RowIndex) -> "Alive":
    """What LMDB has, as of the transaction of the view or the writer."""
    import numpy as np

    low = index.prefix + BITS
    blocks = {_block_number(key): value for key, value in source.scan(low, end_of(low))}
    if not blocks:
        return np.zeros(0, np.bool_)
    bits = np.zeros((max(blocks) + 1, _BLOCK_BYTES), np.uint8)
    for number, value in blocks.items():
        bits[number] = np.frombuffer(_unsealed(index, number, value), np.uint8)
    return np.unpackbits(bits.ravel(), bitorder="little").view(np.bool_)


def _block_number(key: bytes) -> int:
    return int.from_bytes(key[ENTRY_PREFIX_SIZE:])


def _block_key(index: RowIndex, number: int) -> bytes:
    return index.prefix + BITS + number.to_bytes(4)


def _seed(number: int) -> int:
    """Of the seal: of the key within the index, so that none passes for a document's."""
    return crc32(BITS + number.to_bytes(4))


def _unsealed(index: RowIndex, number: int, value: bytes) -> bytes:
    """The bits of a block. Raises CorruptionError."""
    if len(value) != _BLOCK_BYTES + CRC_SIZE or not crc_matches(value, _seed(number)):
        raise CorruptionError(
            f"{index.spec.name}: block {number} of its alive rows fails its checksum: declare the "
            "index anew, and it is built from the documents",
            index=index.spec.name,
        )
    return value[:_BLOCK_BYTES]


def _stored_block(store: "StoreWriter", index: RowIndex, number: int) -> bytes | None:
    value = store.get(_block_key(index, number))
    return None if value is None else _unsealed(index, number, value)


def store_bits(store: "StoreWriter", index: RowIndex, rows: Mapping[int, bool]) -> None:
    """Sets the bits of some rows in LMDB: True where they live from now on."""
    blocks: dict[int, bytearray] = {}
    for rowid, lives in rows.items():
        number, place = divmod(rowid, BLOCK_ROWS)
        block = blocks.get(number)
        if block is None:
            stored = _stored_block(store, index, number)
            block = blocks[number] = bytearray(stored or _BLOCK_BYTES)
        if lives:
            block[place >> 3] |= 1 << (place & 7)
        else:
            block[place >> 3] &= ~(1 << (place & 7)) & 0xFF
    for number in sorted(blocks):
        bits = bytes(blocks[number])
        store.put(_block_key(index, number), bits + append_crc(bits, _seed(number)))


def is_stored_alive(store: "StoreWriter", index: RowIndex, rowid: int) -> bool:
    number, place = divmod(rowid, BLOCK_ROWS)
    block = _stored_block(store, index, number)
    return block is not None and bool(block[place >> 3] >> (place & 7) & 1)


def is_applied(memtable: Memtable, view: "View") -> bool:
    """Whether the view's LMDB transaction holds all of a frozen memtable already."""
    return 0 < memtable.last_lsn <= view.applied_lsn
