"""Segments: the postings of a text index, in LMDB and in memory.

    commit:     its rows are added to the postings of the memtable
    checkpoint: the postings of a frozen memtable become one packed segment in LMDB
    merge:      segments of similar size become one segment without their dead rows
    search:     over a list of sources: the segments in the view's LMDB transaction, the postings of
                each memtable, and postings for the transaction's own pending rows

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
- The terms of a row are made once: whoever asks for the postings of a memtable adds the rows that
  they lack. After a commit that is the committing thread, after a replay the background.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Final, NamedTuple, final

from amberdb._bytes import CRC_SIZE, append_crc, crc_matches
from amberdb._call_lock import CallLock, current_frame
from amberdb.engine.schema.codec import decode_document
from amberdb.engine.schema.document_format import rowid_of, unpack
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.schema.search_index import RowIndex, rowid_of_key
from amberdb.engine.search.live_rows import damaged_index, is_applied
from amberdb.engine.storage.memtable import Memtable, Version
from amberdb.index.text.packing import ROWS_KEY, unpack_rows
from amberdb.index.text.postings import (
    Get,
    InMemoryPostings,
    Scan,
    Segment,
    Source,
    segment_pairs,
)

if TYPE_CHECKING:
    from amberdb.engine.search.live_rows import Alive
    from amberdb.engine.storage.store_writer import StoreWriter
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
    """The sources of one text index. Segments are cached for the views that follow."""

    def __init__(self) -> None:
        self._mutex = CallLock()
        self._cached: _StoredSegments | None = None
        """Of the newest LMDB transaction that was searched."""

    def of(self, view: "View", index: RowIndex) -> list[Source]:
        """The sources of a view: segments, memtables, pending rows; oldest first. Raises
        CorruptionError."""
        get, scan = view.get, view.scan
        sources: list[Source] = [
            segment.source(get, scan, prefix)
            for prefix, segment in self._segments(view, index).by_prefix.items()
        ]
        for memtable in reversed(view.memtables):
            if index.prefix in memtable.rows and not is_applied(memtable, view):
                sources.append(postings_of(memtable, index))
        if view.pending is not None:
            sources.append(_pending(view, index))
        return sources

    def stats(self) -> dict[str, int]:
        """The cached segments, and their bytes."""
        cached = self._cached
        segments = [] if cached is None else list(cached.by_prefix.values())
        return {
            "segments": len(segments),
            "memory_bytes": sum(each.rowids.nbytes + each.lengths.nbytes for each in segments),
        }

    def _segments(self, view: "View", index: RowIndex) -> "_StoredSegments":
        cached, store_id = self._cached, view.store_id
        if cached is not None and cached.store_id == store_id:
            return cached
        with self._mutex:
            known = {} if cached is None else cached.by_prefix
            prefixes = [
                segment_prefix(index, number)
                for number, _ in SegmentList.read(view.get, index).items
            ]
            segments = {
                prefix: known.get(prefix) or read_segment(view.get, index, prefix)
                for prefix in prefixes
            }
            found = _StoredSegments(store_id, view.applied_lsn, segments)
            if cached is None or cached.applied_lsn <= found.applied_lsn:
                self._cached = found
            return found


class _StoredSegments(NamedTuple):
    """The segments of one LMDB transaction, by the prefix of their keys."""

    store_id: tuple[str, int]
    applied_lsn: int
    by_prefix: dict[bytes, Segment]


@final
class _MemtableRows:
    """The postings of one text index in one memtable, and how many of its row events they hold."""

    __slots__ = ("_count", "_is_adding", "_mutex", "_postings")

    def __init__(self) -> None:
        self._mutex = CallLock()
        self._start()

    def _start(self) -> None:
        self._count = 0  # first: an interruption after it leaves nothing that counts as whole
        self._postings = InMemoryPostings()
        self._is_adding = False

    @property
    def size_bytes(self) -> int:
        """Estimated memory."""
        return self._postings.size_bytes

    def whole(self, memtable: Memtable, index: RowIndex) -> InMemoryPostings:
        """The postings of all rows. Raises CorruptionError."""
        if self._count != len(memtable.rows[index.prefix]):
            with self._mutex:
                self._add(memtable, index, None)
        return self._postings

    def add_some(self, memtable: Memtable, index: RowIndex, limit: int | None) -> bool:
        """Adds up to `limit` row events, unless another thread is adding. Returns whether some are
        left. Raises CorruptionError."""
        frame = current_frame()
        if not self._mutex.acquire(frame, 0):
            return False
        try:
            return self._add(memtable, index, limit)
        finally:
            self._mutex.release(frame)

    def _add(self, memtable: Memtable, index: RowIndex, limit: int | None) -> bool:
        if self._is_adding:  # an interrupted call may have added a part of a row
            self._start()
        events = memtable.rows[index.prefix]
        versions = memtable.entries
        end = None if limit is None else self._count + limit
        for lsn, key, id_bytes in events[self._count : end]:
            self._is_adding = True
            if id_bytes is not None:
                version = versions.get(index.documents + id_bytes)
                add_row(self._postings, index, rowid_of_key(key), id_bytes, version, lsn)
            self._count += 1
            self._is_adding = False
        return self._count < len(events)


def postings_of(memtable: Memtable, index: RowIndex) -> InMemoryPostings:
    """The postings of all rows of a text index that a memtable has had. Raises CorruptionError."""
    return _rows_of(memtable, index).whole(memtable, index)


def add_rows(
    memtable: Memtable, row_indexes: Mapping[bytes, RowIndex], limit: int | None = None
) -> bool:
    """Adds rows that the postings of a memtable lack, up to `limit` to each, unless another thread
    is adding: so no search has to. Returns whether some are left. Raises CorruptionError."""
    is_left = False
    for prefix in list(memtable.rows):
        index = row_indexes.get(prefix)
        if index is not None and index.is_text:  # else it was dropped, or is one of vectors
            is_left |= _rows_of(memtable, index).add_some(memtable, index, limit)
    return is_left


def _rows_of(memtable: Memtable, index: RowIndex) -> _MemtableRows:
    rows = memtable.derived.get(index.prefix)
    if rows is None:
        rows = memtable.derived.setdefault(index.prefix, _MemtableRows())
    assert isinstance(rows, _MemtableRows)
    return rows


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
    table: InMemoryPostings,
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
    document = decode_document(unpack(index.documents + id_bytes, value).body)
    table.add(rowid, index.extractor.occurrences(document))


# -- writing, inside a checkpoint, a build or a merge ------------------------------------------


def add_segment(
    store: "StoreWriter", index: RowIndex, sources: Sequence[Source], alive: "Alive | None"
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


def read_segment(get: Get, index: RowIndex, prefix: bytes) -> Segment:
    """The rows of the segment with this prefix; its postings stay in LMDB. Raises
    CorruptionError."""
    rows = get(prefix + ROWS_KEY)
    if rows is None:
        number = int.from_bytes(prefix[-_U32:])
        raise damaged_index(index, f"its segment {number} is missing")
    return Segment(rows)


def _sources(get: Get, scan: Scan, index: RowIndex, numbers: Sequence[int]) -> list[Source]:
    prefixes = [segment_prefix(index, number) for number in numbers]
    return [read_segment(get, index, prefix).source(get, scan, prefix) for prefix in prefixes]
