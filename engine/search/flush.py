"""Flush and merge: rows of search indexes are written to LMDB, and their segments are kept few.

    a checkpoint flushes the entries of a frozen memtable
    an index build flushes the rows of the documents that existed before the declaration
    a merge replaces several segments of similar size by one

Invariants:
- Entries, bitmaps and segment are written in the caller's LMDB transaction: all or nothing.
- A row is flushed once: a build skips the rows that a checkpoint has flushed already.
- When no merge is due, a tier has fewer than MERGE_WIDTH segments, and the dead rows are at most
  the live rows plus DEAD_MIN. A segment of ROWS_MAX rows or more is not merged with others: a merge
  is one transaction.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from amberdb import _failpoints as failpoints
from amberdb._errors import InvalidDocumentError
from amberdb._types import Document
from amberdb.engine.schema.search_index import RowIndex, rowid_of_key
from amberdb.engine.search.live_rows import (
    is_stored_alive,
    rowids_of,
    store_bits,
    stored_alive,
)
from amberdb.engine.search.segments import (
    PAIRS_CHUNK,
    SegmentList,
    add_segment,
    postings_of,
    read_segment,
    replace_segments,
    segment_prefix,
)
from amberdb.engine.storage.memtable import Memtable
from amberdb.engine.storage.store import Store
from amberdb.engine.storage.store_writer import StoreWriter
from amberdb.index.text.postings import InMemoryPostings, is_alive

MERGE_WIDTH: Final = 8
_TIER_BITS: Final = 3
"""A segment of the next tier has 2 ** _TIER_BITS times as many rows."""
ROWS_MAX: Final = 1 << 20
DEAD_MIN: Final = 1024
"""Up to this many dead rows are not worth rewriting a segment."""


def flush_rows(
    store: StoreWriter, memtable: Memtable, keys: Sequence[bytes], index: RowIndex
) -> None:
    """Flushes entries of one search index as of the end of a memtable; `keys` ascend. Raises
    CorruptionError."""
    versions = memtable.entries
    added: list[tuple[bytes, bytes]] = []
    removed: list[int] = []
    for key in keys:
        id_bytes = versions[key][1]
        if id_bytes is None:
            store.delete(key)
            removed.append(rowid_of_key(key))
        else:
            added.append((key, id_bytes))
    _store_entries(store, index, added, removed)
    if index.is_text and added:
        alive = np.zeros(rowid_of_key(added[-1][0]) + 1, np.bool_)
        alive[rowids_of(key for key, _ in added)] = True
        add_segment(store, index, [postings_of(memtable, index)], alive)


def flush_documents(
    store: StoreWriter, index: RowIndex, documents: Iterable[tuple[int, bytes, Document]]
) -> None:
    """Flushes the rows of documents that LMDB holds, given as (rowid, id, document), for an index
    build. Raises CorruptionError, and InvalidDocumentError with the id of a document that the index
    cannot take."""
    postings = InMemoryPostings()
    added: list[tuple[bytes, bytes]] = []
    for rowid, id_bytes, document in sorted(documents, key=_rowid):
        try:
            has_content = index.content(document) is not None
        except InvalidDocumentError as error:
            raise error.of_document(id_bytes.decode()) from None
        if has_content and not is_stored_alive(store, index, rowid):
            added.append((index.key(rowid), id_bytes))
            if index.extractor is not None:
                postings.add(rowid, index.extractor.occurrences(document))
    _store_entries(store, index, added, [])
    if index.is_text:
        add_segment(store, index, [postings], None)


def _rowid(of: tuple[int, bytes, Document]) -> int:
    return of[0]


def _store_entries(
    store: StoreWriter,
    index: RowIndex,
    added: list[tuple[bytes, bytes]],
    removed: Sequence[int],
) -> None:
    """Writes entries and bits. `added` are entries in order of their keys, `removed` rowids."""
    for start in range(0, len(added), PAIRS_CHUNK):
        store.put_sorted(added[start : start + PAIRS_CHUNK])
    bits = {rowid_of_key(key): True for key, _ in added}
    store_bits(store, index, bits | dict.fromkeys(removed, False))


def merge_due(store: Store, index: RowIndex) -> bool:
    """Merges segments once, in one transaction, if a merge is due; whether it was. Raises
    CorruptionError."""
    if not index.is_text:
        return False
    with store.write() as writer:  # without a change it costs no sync
        segments = SegmentList.read(writer.get, index)
        numbers = _same_tier(segments)
        if not numbers:
            numbers = _mostly_dead(writer, index, segments)
        if numbers:
            replace_segments(writer, index, numbers, stored_alive(writer, index))
            if failpoints.on:
                failpoints.reach("merge.in-transaction")
    return bool(numbers)


def _same_tier(segments: SegmentList) -> list[int]:
    """The numbers of the segments in a tier that has MERGE_WIDTH or more; empty without one."""
    tiers: dict[int, list[int]] = {}
    for number, rows in segments.items:
        if rows < ROWS_MAX:
            tiers.setdefault(rows.bit_length() // _TIER_BITS, []).append(number)
    due = [numbers for numbers in tiers.values() if len(numbers) >= MERGE_WIDTH]
    return due[0] if due else []


def _mostly_dead(store: StoreWriter, index: RowIndex, segments: SegmentList) -> list[int]:
    """The number of a segment with more dead than live rows, to be rewritten; empty without one."""
    alive = stored_alive(store, index)
    total = sum(rows for _, rows in segments.items)
    if total <= 2 * int(alive.sum()) + DEAD_MIN:
        return []  # without reading the rows of a segment
    for number, rows in segments.items:
        segment = read_segment(store.get, index, segment_prefix(index, number))
        if 2 * int(is_alive(segment.rowids, alive).sum()) < rows:
            return [number]
    return []
