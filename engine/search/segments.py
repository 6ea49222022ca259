"""Segments: the postings of a text index, in LMDB and in memory.

    checkpoint: the rows of a frozen memtable become one packed segment in LMDB
    merge:      segments of similar size become one segment without their dead rows
    search:     over a list of sources: the segments in the view's LMDB transaction, postings in
                memory for each memtable, and postings for the transaction's own pending rows

Keys in the keyspace of the index, besides those of engine/search/live_rows.py:

    l                the list of segments: next number u32; number u32 and rows u32 of each; crc u32
    s number u32 ... the pairs of one segment (index/text/postings.py)

Invariants:
- A segment is immutable, and no number is given twice. A row is in at most one listed segment.
- A segment and the list that names it are written in one LMDB transaction, of a checkpoint or a
  merge; so a view sees exactly the segments of the rows that its transaction holds.
- The terms of a row come from its document as of the commit that wrote the row's entry, which is in
  the same memtable. Later versions may have the same rowid and another text: an index that was
  dropped is not maintained, and snapshots from before the drop still search it.
- Dead rows of a segment are masked by the view's live rows (live_rows.py) until it is merged.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Final, final

from amberdb._bytes import CRC_SIZE, append_crc, crc_matches
from amberdb._call_lock import CallLock
from amberdb.engine.schema.document_format import rowid_of, unpack
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.schema.search_index import RowIndex, rowid_of_key
from amberdb.engine.search.live_rows import damaged_index, is_applied
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
    """The segments of one text index as of one LMDB transaction, oldest first."""

    __slots__ = ("items", "next")

    def __init__(self, next: int, items: list[tuple[int, int]]) -> None:
        self.next = next
        self.items = items
        """(number, rows)"""

    @classmethod
    def read(cls, get: Callable[[bytes], bytes | None], index: RowIndex) -> "SegmentList":
        """Reads the list of an index; without one no segment was written yet. Raises
        CorruptionError."""
        value = get(index.prefix + LIST)
        if value is None:
            return cls(1, [])
        if not crc_matches(value) or (len(value) - CRC_SIZE - _U32) % (2 * _U32):
            raise damaged_index(index, "the list of its segments fails its checksum")
        numbers = [
            int.from_bytes(value[offset : offset + _U32])
            for offset in range(0, len(value) - CRC_SIZE, _U32)
        ]
        return cls(numbers[0], list(zip(numbers[1::2], numbers[2::2], strict=True)))

    def pair(self, index: RowIndex) -> tuple[bytes, bytes]:
        """The key and the value of the list."""
        numbers = [self.next, *(number for item in self.items for number in item)]
        data = b"".join(number.to_bytes(_U32) for number in numbers)
        return index.prefix + LIST, data + append_crc(data)

    def write(self, store: "StoreWriter", index: RowIndex) -> None:
        store.put(*self.pair(index))


@final
class Sources:
    """The sources of one text index. Segments and postings of memtables are cached for the views
    that follow."""

    def __init__(self) -> None:
        self._mutex = CallLock()
        self._segments: dict[int, Segment] = {}
        self._in_memory: dict[int, _MemtablePostings] = {}
        self._newest = 0

    def of(self, view: "View", index: RowIndex) -> list[Source]:
        """The sources of a view: segments, memtables, pending rows; oldest first. Raises
        CorruptionError."""
        sources: list[Source] = []
        with self._mutex:
            segments = SegmentList.read(view.get, index)
            memtables = [o for o in reversed(view.memtables) if not is_applied(o, view)]
            if view.lsn >= self._newest:
                self._newest = view.lsn if view.pending is None else self._newest
                _drop_others(self._segments, {number for number, _ in segments.items})
                _drop_others(self._in_memory, {memtable.number for memtable in memtables})
            for number, _ in segments.items:
                sources.append(self._segment(view, index, number))
            for memtable in memtables:
                if index.prefix in memtable.rows:
                    in_memory = self._in_memory.setdefault(memtable.number, _MemtablePostings())
                    sources.append(in_memory.updated(memtable, index))
        if view.pending is not None:
            sources.append(_pending(view, index))
        return sources

    def stats(self) -> dict[str, int]:
        """The cached segments, and the bytes of everything cached."""
        with self._mutex:
            return {
                "segments": len(self._segments),
                "memory_bytes": sum(
                    segment.rowids.nbytes + segment.lengths.nbytes
                    for segment in self._segments.values()
                )
                + sum(in_memory.postings.size_bytes for in_memory in self._in_memory.values()),
            }

    def _segment(self, view: "View", index: RowIndex, number: int) -> Source:
        segment = self._segments.get(number)
        if segment is None:
            segment = self._segments[number] = read_segment(view.get, index, number)
        return source_of(segment, view.get, view.scan, index, number)


class _MemtablePostings:
    """The postings of one memtable, and how many of its row events they hold."""

    __slots__ = ("_count", "postings")

    def __init__(self) -> None:
        self.postings = InMemoryPostings()
        self._count = 0

    def updated(self, memtable: Memtable, index: RowIndex) -> InMemoryPostings:
        """The postings after the memtable's new row events were added. Raises CorruptionError."""
        versions = memtable.entries
        for lsn, key, id_bytes in memtable.rows[index.prefix][self._count :]:
            if id_bytes is not None:
                version = versions.get(index.documents + id_bytes)
                add_row(self.postings, index, rowid_of_key(key), id_bytes, version, lsn)
            self._count += 1
        return self.postings


def _drop_others(
    cached: "dict[int, Segment] | dict[int, _MemtablePostings]", numbers: set[int]
) -> None:
    """Removes everything but these numbers."""
    for number in cached.keys() - numbers:
        del cached[number]


def _pending(view: "View", index: RowIndex) -> InMemoryPostings:
    """The postings of the pending rows of the view's own transaction."""
    postings = InMemoryPostings()
    assert view.pending is not None
    effects = view.pending.effects
    for key, id_bytes in sorted(effects.items()):
        if id_bytes is not None and key.startswith(index.entry_prefix):
            version: Version = (view.lsn, effects.get(index.documents + id_bytes), None)
            add_row(postings, index, rowid_of_key(key), id_bytes, version, view.lsn)
    return postings


def add_row(
    table: InMemoryPostings | Batch,
    index: RowIndex,
    rowid: int,
    id_bytes: bytes,
    version: "Version | None",
    lsn: int,
) -> None:
    """Adds the postings of a row whose entry was written at `lsn`, from its document as of that
    Lsn; `version` is the document's newest one. Raises CorruptionError."""
    assert index.extractor is not None
    while version is not None and version[0] > lsn:
        version = version[2]
    value = None if version is None else version[1]
    if value is None or rowid_of(value) != rowid:
        raise damaged_index(index, f"row {rowid} has no document")
    document = unpack(index.documents + id_bytes, value).document()
    table.add(rowid, index.extractor.occurrences(document))


# -- writing, inside a checkpoint, a build or a merge ------------------------------------------


def add_segment(
    store: "StoreWriter", index: RowIndex, sources: Sequence[Packable], alive: "Alive | None"
) -> None:
    """Writes the live rows of the sources as one segment and adds it to the list; all rows if
    `alive` is None, nothing if no row is alive. Raises CorruptionError."""
    segments = SegmentList.read(store.get, index)
    number = segments.next
    prefix = segment_prefix(index, number)
    rows = 0
    chunk: list[tuple[bytes, bytes]] = []
    for key, value in segment_pairs(sources, alive):
        if key == ROWS_KEY:
            rows = len(unpack_rows(value)[0])
        chunk.append((prefix + key, value))
        if len(chunk) == PAIRS_CHUNK:
            store.put_sorted(chunk)
            chunk = []
    store.put_sorted(chunk)
    if rows:
        segments.next += 1
        segments.items.append((number, rows))
        segments.write(store, index)


def replace_segments(
    store: "StoreWriter", index: RowIndex, numbers: Sequence[int], alive: "Alive"
) -> None:
    """Merges segments into one without their dead rows, and removes them. Raises
    CorruptionError."""
    add_segment(store, index, _sources(store.get, store.scan, index, numbers), alive)
    segments = SegmentList.read(store.get, index)
    segments.items = [item for item in segments.items if item[0] not in numbers]
    segments.write(store, index)
    for number in numbers:
        prefix = segment_prefix(index, number)
        while store.delete_range(prefix, end_of(prefix), PAIRS_CHUNK) == PAIRS_CHUNK:
            pass


def merged_segment(
    get: Get, scan: Scan, index: RowIndex, numbers: Sequence[int], number: int, alive: "Alive"
) -> tuple[int, Iterator[tuple[bytes, bytes]]]:
    """Several segments as one with the number `number`, without their dead rows: the count of its
    rows, and its pairs in order of the keys. Raises CorruptionError."""
    prefix = segment_prefix(index, number)
    pairs = segment_pairs(_sources(get, scan, index, numbers), alive)
    first = list(islice(pairs, 1))
    rows = len(unpack_rows(first[0][1])[0]) if first else 0
    return rows, ((prefix + key, value) for key, value in chain(first, pairs))


# -- keys --------------------------------------------------------------------------------------


def segment_prefix(index: RowIndex, number: int) -> bytes:
    return index.prefix + SEGMENT + number.to_bytes(_U32)


def read_segment(get: Get, index: RowIndex, number: int) -> Segment:
    """The rows of a segment; its postings stay in LMDB. Raises CorruptionError."""
    rows = get(segment_prefix(index, number) + ROWS_KEY)
    if rows is None:
        raise damaged_index(index, f"its segment {number} is missing")
    return Segment(rows)


def source_of(segment: Segment, get: Get, scan: Scan, index: RowIndex, number: int) -> Source:
    """A segment with its pairs, read by `get` and `scan` and without the segment's prefix."""
    prefix = segment_prefix(index, number)
    size = len(prefix)

    def scan_inside(start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        return ((key[size:], value) for key, value in scan(prefix + start, prefix + end))

    return segment.source(lambda key: get(prefix + key), scan_inside)


def _sources(get: Get, scan: Scan, index: RowIndex, numbers: Sequence[int]) -> list[Source]:
    return [
        source_of(read_segment(get, index, number), get, scan, index, number) for number in numbers
    ]
