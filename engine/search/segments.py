"""Segments: where the postings of a text index are, in LMDB and in the memtables.

    checkpoint: the rows of a frozen memtable become one packed segment in LMDB
    afterwards: segments of like size are merged, and what died is left out
    search:     a list of sources: the segments of the view's LMDB transaction, a postings for each
                memtable, and one of the transaction's own pending rows

In the tree of the index, besides what engine/search/live_rows.py keeps there:

    l                the segments in use: next number u32; number u32 and rows u32 of each; a seal
    s number u32 ... the pairs of one segment (index/text/postings.py)

Invariants:
- A segment never changes, and no number is given twice. A row is in at most one segment in use.
- A segment and the list that names it are written in one LMDB transaction, a checkpoint's or a
  merge's; so a view sees exactly the segments of the rows that its transaction holds.
- A row's terms are made of its document, which is in the memtable that has the row's birth.
- What is dead in a segment is masked by the view's alive rows (live_rows.py), until it is merged.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Final, final

from amberdb._bytes import CRC_SIZE, append_crc, crc_matches
from amberdb._errors import CorruptionError
from amberdb.engine.schema.document_format import rowid_of, unpack
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.schema.search_index import RowIndex, rowid_of_key
from amberdb.engine.search.live_rows import is_applied
from amberdb.engine.storage.memtable import Memtable, Version
from amberdb.index.text.batch import Batch
from amberdb.index.text.packing import ROWS_KEY, unpack_rows
from amberdb.index.text.postings import (
    Get,
    InMemoryPostings,
    Packable,
    Scan,
    Segment,
    Source,
    segment_pairs,
)

if TYPE_CHECKING:
    from amberdb.engine.search.live_rows import Alive
    from amberdb.engine.storage.store import StoreWriter
    from amberdb.engine.storage.view import View

LIST: Final = b"l"
SEGMENT: Final = b"s"
PAIRS_CHUNK: Final = 500

_U32 = 4


@final
class SegmentList:
    """The segments of one text index that are in use, oldest first, as LMDB has them."""

    __slots__ = ("items", "next")

    def __init__(self, next: int, items: list[tuple[int, int]]) -> None:
        self.next = next
        self.items = items
        """(number, rows)"""

    @classmethod
    def read(cls, get: Callable[[bytes], bytes | None], index: RowIndex) -> "SegmentList":
        """Raises CorruptionError."""
        value = get(index.prefix + LIST)
        if value is None:
            return cls(1, [])
        if not crc_matches(value) or (len(value) - CRC_SIZE - _U32) % (2 * _U32):
            raise _damaged(index, "the list of its segments fails its checksum")
        numbers = [
            int.from_bytes(value[at : at + _U32]) for at in range(0, len(value) - CRC_SIZE, _U32)
        ]
        return cls(numbers[0], list(zip(numbers[1::2], numbers[2::2], strict=True)))

    def pair(self, index: RowIndex) -> tuple[bytes, bytes]:
        """As it is stored."""
        numbers = [self.next, *(number for item in self.items for number in item)]
        data = b"".join(number.to_bytes(_U32) for number in numbers)
        return index.prefix + LIST, data + append_crc(data)

    def write(self, store: "StoreWriter", index: RowIndex) -> None:
        store.put(*self.pair(index))


@final
class Sources:
    """Of one text index: what it takes to score a view's rows. What can be kept is kept."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._segments: dict[int, Segment] = {}
        self._in_memory: dict[int, _MemtablePostings] = {}
        self._newest = 0

    def of(self, view: "View", index: RowIndex) -> list[Source]:
        """Segments first, oldest first. Raises CorruptionError."""
        found: list[Source] = []
        with self._mutex:
            listed = SegmentList.read(view.get, index)
            memtables = [o for o in reversed(view.memtables) if not is_applied(o, view)]
            if view.lsn >= self._newest:
                self._newest = view.lsn if view.pending is None else self._newest
                _forget(self._segments, {number for number, _ in listed.items})
                _forget(self._in_memory, {memtable.number for memtable in memtables})
            for number, _ in listed.items:
                found.append(self._segment(view, index, number))
            for memtable in memtables:
                if index.prefix in memtable.rows:
                    growing = self._in_memory.setdefault(memtable.number, _MemtablePostings())
                    found.append(growing.grown(memtable, index))
        if view.pending is not None:
            found.append(_pending(view, index))
        return found

    def stats(self) -> dict[str, int]:
        with self._mutex:
            return {
                "segments": len(self._segments),
                "memory_bytes": sum(
                    segment.rowids.nbytes + segment.lengths.nbytes
                    for segment in self._segments.values()
                )
                + sum(growing.postings.size_bytes for growing in self._in_memory.values()),
            }

    def _segment(self, view: "View", index: RowIndex, number: int) -> Source:
        segment = self._segments.get(number)
        if segment is None:
            segment = self._segments[number] = read_segment(view.get, index, number)
        return source_of(segment, view.get, view.scan, index, number)


class _MemtablePostings:
    """The postings of a memtable, and how many of its row events went in."""

    __slots__ = ("_count", "postings")

    def __init__(self) -> None:
        self.postings = InMemoryPostings()
        self._count = 0

    def grown(self, memtable: Memtable, index: RowIndex) -> InMemoryPostings:
        versions = memtable.entries
        for _, key, id_bytes in memtable.rows[index.prefix][self._count :]:
            if id_bytes is not None:
                version = versions.get(index.documents + id_bytes)
                add_row(self.postings, index, rowid_of_key(key), id_bytes, version)
            self._count += 1
        return self.postings


def _forget(kept: "dict[int, Segment] | dict[int, _MemtablePostings]", numbers: set[int]) -> None:
    for number in kept.keys() - numbers:
        del kept[number]


def _pending(view: "View", index: RowIndex) -> InMemoryPostings:
    """The rows of the view's own transaction."""
    postings = InMemoryPostings()
    assert view.pending is not None
    effects = view.pending.effects
    for key, id_bytes in sorted(effects.items()):
        if id_bytes is not None and key.startswith(index.entry_prefix):
            version: Version = (view.lsn, effects.get(index.documents + id_bytes), None)
            add_row(postings, index, rowid_of_key(key), id_bytes, version)
    return postings


def add_row(
    table: InMemoryPostings | Batch,
    index: RowIndex,
    rowid: int,
    id_bytes: bytes,
    version: "Version | None",
) -> None:
    """Adds a row by its document, of which `version` is the newest. Raises CorruptionError."""
    assert index.extractor is not None
    while version is not None:
        value = version[1]
        if value is not None and rowid_of(value) == rowid:
            document = unpack(index.documents + id_bytes, value).document()
            table.add(rowid, index.extractor.occurrences(document))
            return
        version = version[2]
    raise _damaged(index, f"row {rowid} has no document")


# -- writing, inside a checkpoint, a build or a merge ------------------------------------------


def add_segment(
    store: "StoreWriter", index: RowIndex, sources: Sequence[Packable], alive: "Alive | None"
) -> None:
    """Writes one segment of what is alive in the sources (None: all of it), and lists it."""
    listed = SegmentList.read(store.get, index)
    number = listed.next
    low = segment_prefix(index, number)
    rows = 0
    chunk: list[tuple[bytes, bytes]] = []
    for key, value in segment_pairs(sources, alive):
        if key == ROWS_KEY:
            rows = len(unpack_rows(value)[0])
        chunk.append((low + key, value))
        if len(chunk) == PAIRS_CHUNK:
            store.put_sorted(chunk)
            chunk = []
    store.put_sorted(chunk)
    if rows:
        listed.next += 1
        listed.items.append((number, rows))
        listed.write(store, index)


def replace_segments(
    store: "StoreWriter", index: RowIndex, numbers: Sequence[int], alive: "Alive"
) -> None:
    """Merges segments into one, without what is dead, and removes them."""
    add_segment(store, index, _sources(store.get, store.scan, index, numbers), alive)
    listed = SegmentList.read(store.get, index)
    listed.items = [item for item in listed.items if item[0] not in numbers]
    listed.write(store, index)
    for number in numbers:
        low = segment_prefix(index, number)
        while store.delete_range(low, end_of(low), PAIRS_CHUNK) == PAIRS_CHUNK:
            pass


def merged_segment(
    get: Get, scan: Scan, index: RowIndex, numbers: Sequence[int], number: int, alive: "Alive"
) -> tuple[int, Iterator[tuple[bytes, bytes]]]:
    """Segments as one with another number, without what is dead: its rows, and its pairs in
    order. Raises CorruptionError."""
    low = segment_prefix(index, number)
    pairs = segment_pairs(_sources(get, scan, index, numbers), alive)
    first = list(islice(pairs, 1))
    rows = len(unpack_rows(first[0][1])[0]) if first else 0
    return rows, ((low + key, value) for key, value in chain(first, pairs))


# -- keys --------------------------------------------------------------------------------------


def segment_prefix(index: RowIndex, number: int) -> bytes:
    return index.prefix + SEGMENT + number.to_bytes(_U32)


def read_segment(get: Get, index: RowIndex, number: int) -> Segment:
    """Raises CorruptionError."""
    rows = get(segment_prefix(index, number) + ROWS_KEY)
    if rows is None:
        raise _damaged(index, f"its segment {number} is missing")
    return Segment(rows)


def source_of(segment: Segment, get: Get, scan: Scan, index: RowIndex, number: int) -> Source:
    """A segment as one reader sees it: its pairs, as if they were alone."""
    low = segment_prefix(index, number)
    size = len(low)

    def scan_inside(start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        return ((key[size:], value) for key, value in scan(low + start, low + end))

    return segment.source(lambda key: get(low + key), scan_inside)


def _sources(get: Get, scan: Scan, index: RowIndex, numbers: Sequence[int]) -> list[Source]:
    return [
        source_of(read_segment(get, index, number), get, scan, index, number) for number in numbers
    ]


def _damaged(index: RowIndex, what: str) -> CorruptionError:
    return CorruptionError(
        f"{index.spec.name}: {what}: declare the index anew, and it is built from the documents",
        index=index.spec.name,
    )
