"""check() of a search index: its rows, live-row bitmap and postings against the documents.

Invariants:
- Postings are compared by sums: each (row, term, frequency) adds a hash of the term times the
  frequency to the sum of its row, over all sources. A posting that is missing, duplicated or of
  another row changes a sum, and memory stays at a few bytes per row.
"""

from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from math import isclose
from typing import TYPE_CHECKING, Any, Final

from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.search_index import RowIndex, rowid_of_key
from amberdb.engine.search.live_rows import LiveRows
from amberdb.engine.search.row_reader import RowReader
from amberdb.engine.search.segments import Sources
from amberdb.engine.storage.view import View
from amberdb.index.text.packing import ENTRY_SHIFT, UNIT_MASK
from amberdb.index.text.text import FREQUENCY_MAX, UNIT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MASK: Final = (1 << 64) - 1


def check_rows(
    view: View,
    schema: Schema,
    index: RowIndex,
    report: Callable[[str], None],
    *,
    with_terms: bool,
) -> None:
    """Reports each problem. Without `with_terms` postings are not compared: another version of the
    analyzer made them. Raises CorruptionError when the index cannot be read."""
    import numpy as np

    name = f"{schema.name}: {index.spec.name}"
    entries = view.scan(index.entry_prefix, end_of(index.entry_prefix))
    rowids = np.array([rowid_of_key(key) for key, _ in entries], np.int64)
    alive = np.flatnonzero(LiveRows().committed(view, index))
    if not np.array_equal(rowids, alive):
        wrong = np.setxor1d(rowids, alive)
        report(f"{name}: the live-row bitmap is wrong for {len(wrong)} rows, first row {wrong[0]}")
    elif index.extractor is not None and len(rowids) and with_terms:
        _check_postings(view, schema, index, rowids, lambda problem: report(f"{name}: {problem}"))


def _check_postings(
    view: View,
    schema: Schema,
    index: RowIndex,
    rowids: "NDArray[np.int64]",
    report: Callable[[str], None],
) -> None:
    sums, lengths, doubles = _sums(view, index, int(rowids[-1]) + 1)
    for rowid in rowids[doubles[rowids] > 1].tolist():
        report(f"row {rowid} is in more than one segment")
    reader = RowReader(view, schema)
    for rowid in rowids.tolist():
        assert index.extractor is not None
        counts: Counter[str] = Counter()
        length = 0
        for units, length_units, terms in index.extractor.occurrences(reader.read(rowid, index)):
            length += length_units * len(terms)
            for term in terms:
                counts[term] += units
        wanted = sum(_hash(term) * min(count, FREQUENCY_MAX) for term, count in counts.items())
        has_length = isclose(lengths[rowid], length / UNIT, rel_tol=1e-6)
        if int(sums[rowid]) != wanted & _MASK or not has_length:
            report(f"the postings of row {rowid} differ from its document")


def _sums(view: View, index: RowIndex, size: int) -> "tuple[NDArray[Any], ...]":
    """By rowid: the sum over its postings, its length, and the number of sources it is in."""
    import numpy as np

    from amberdb.index.text.postings import items, summed

    sums = np.zeros(size, np.uint64)
    lengths = np.zeros(size, np.float32)
    doubles = np.zeros(size, np.uint8)
    for source in Sources().of(view, index):
        held = source.rowids
        inside = held < size
        lengths[held[inside]] = source.lengths[: len(held)][inside]
        doubles[held[inside]] += 1
        for term, packed in items(source.blocks()):
            entries = summed(np.frombuffer(packed, np.uint64))
            rows = held[(entries >> np.uint64(ENTRY_SHIFT)).astype(np.int64)]
            known = rows < size
            sums[rows[known]] += np.uint64(_hash(term)) * (entries & np.uint64(UNIT_MASK))[known]
    return sums, lengths, doubles


@lru_cache(maxsize=1 << 16)
def _hash(term: str) -> int:
    return int.from_bytes(blake2b(term.encode(), digest_size=8).digest())
