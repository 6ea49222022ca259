"""Folding: how the rows of search indexes get into LMDB, and how their segments are kept few.

    a checkpoint folds the entries of a frozen memtable
    an index build folds the rows of documents from before the declaration
    a merge makes one segment of several of like size

Invariants:
- Entries, bits and segment are written in the LMDB transaction of whoever calls: all or nothing.
- A row is folded once: a build passes over rows that a checkpoint has brought already.
- When nothing is due there are fewer than MERGE_WIDTH segments of a tier, and dead rows are no more
  than live ones and DEAD_MIN. A segment past ROWS_MAX is merged no further: a merge is one
  transaction.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from amberdb import _failpoints as failpoints
from amberdb._types import Document
from amberdb.engine.schema.search_index import RowIndex, rowid_of_key
from amberdb.engine.search.live_rows import is_stored_alive, store_bits, stored_alive
from amberdb.engine.search.segments import (
    PAIRS_CHUNK,
    SegmentList,
    add_row,
    add_segment,
    read_segment,
    replace_segments,
)
from amberdb.engine.storage.memtable import Memtable
from amberdb.engine.storage.store import Store, StoreWriter
from amberdb.index.text.batch import Batch
from amberdb.index.text.postings import is_alive

MERGE_WIDTH: Final = 8
_TIER_BITS: Final = 3
"""A tier holds segments of up to MERGE_WIDTH times the rows of the one below."""
ROWS_MAX: Final = 1 << 20
DEAD_MIN: Final = 1024
"""Dead rows that are not worth writing a segment again."""


def flush_rows(
    store: StoreWriter, memtable: Memtable, keys: Sequence[bytes], index: RowIndex
) -> None:
    """The entries of one search index, `keys` ascending, as the memtable leaves them."""
    versions = memtable.entries
    batch = Batch()
    born: list[tuple[bytes, bytes]] = []
    died: list[int] = []
    for key in keys:
        id_bytes = versions[key][1]
        rowid = rowid_of_key(key)
        if id_bytes is None:
            store.delete(key)
            died.append(rowid)
        else:
            born.append((key, id_bytes))
            if index.is_text:
                add_row(batch, index, rowid, id_bytes, versions.get(index.documents + id_bytes))
    _store_rows(store, index, born, died, batch)


def flush_documents(
    store: StoreWriter, index: RowIndex, found: Iterable[tuple[int, bytes, Document]]
) -> None:
    """(rowid, id, document) of documents in LMDB, for a build."""
    batch = Batch()
    born: list[tuple[bytes, bytes]] = []
    for rowid, id_bytes, document in found:
        if index.content(document) is not None and not is_stored_alive(store, index, rowid):
            born.append((index.key(rowid), id_bytes))
            if index.extractor is not None:
                batch.add(rowid, index.extractor.occurrences(document))
    born.sort()
    _store_rows(store, index, born, [], batch)


def _store_rows(
    store: StoreWriter,
    index: RowIndex,
    born: list[tuple[bytes, bytes]],
    died: Sequence[int],
    batch: Batch,
) -> None:
    """`born` are entries, ascending; the batch has the same rows."""
    for start in range(0, len(born), PAIRS_CHUNK):
        store.put_sorted(born[start : start + PAIRS_CHUNK])
    lives = {rowid_of_key(key): True for key, _ in born}
    store_bits(store, index, lives | dict.fromkeys(died, False))
    if index.is_text:
        add_segment(store, index, [batch], None)


def merge_due(store: Store, index: RowIndex) -> bool:
    """Merges once, in a transaction of its own, if it is time; whether it was."""
    if not index.is_text:
        return False
    with store.write() as writer:  # one without a change costs no sync
        listed = SegmentList.read(writer.get, index)
        numbers = _same_tier(listed)
        if not numbers:
            numbers = _mostly_dead(writer, index, listed)
        if numbers:
            replace_segments(writer, index, numbers, stored_alive(writer, index))
            if failpoints.on:
                failpoints.reach("merge.in-transaction")
    return bool(numbers)


def _same_tier(listed: SegmentList) -> list[int]:
    """Enough segments of like size to be merged."""
    tiers: dict[int, list[int]] = {}
    for number, rows in listed.items:
        if rows < ROWS_MAX:
            tiers.setdefault(rows.bit_length() // _TIER_BITS, []).append(number)
    due = [numbers for numbers in tiers.values() if len(numbers) >= MERGE_WIDTH]
    return due[0] if due else []


def _mostly_dead(store: StoreWriter, index: RowIndex, listed: SegmentList) -> list[int]:
    """A segment to be written again without its dead rows."""
    alive = stored_alive(store, index)
    total = sum(rows for _, rows in listed.items)
    if total <= 2 * int(alive.sum()) + DEAD_MIN:
        return []  # so no table of rows has to be read
    for number, rows in listed.items:
        segment = read_segment(store.get, index, number)
        if 2 * int(is_alive(segment.rowids, alive).sum()) < rows:
            return [number]
    return []
