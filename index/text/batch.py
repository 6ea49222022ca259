"""Batch: rows of a text index that are only packed into a segment, as a checkpoint does.

InMemoryPostings look a term up for each occurrence, so that they can be searched at once. A batch
cannot be searched: it sorts once, which takes a third of the time.

Invariants:
- segment_pairs() of a Batch equals that of InMemoryPostings with the same rows.
"""

from array import array
from collections import defaultdict
from collections.abc import Iterator
from itertools import count
from typing import final

import numpy as np

from amberdb.index.text.packing import ENTRY_BYTES, ENTRY_SHIFT, Lengths, Rowids
from amberdb.index.text.text import UNIT, Occurrences


@final
class Batch:
    """Takes rows by add(), then is read once by segment_pairs()."""

    __slots__ = ("_entries", "_lengths", "_numbers", "_rowids", "_sizes", "_terms")

    def __init__(self) -> None:
        self._rowids = array("q")
        self._lengths = array("f")
        self._numbers: defaultdict[str, int] = defaultdict(count().__next__)
        """The number of each term, in the order of first occurrence."""
        self._terms = array("I")
        """The number of each occurrence's term."""
        self._entries = array("Q")
        """One entry for all occurrences in one field of a row; _sizes has how many they are."""
        self._sizes = array("I")

    def add(self, rowid: int, occurrences: Occurrences) -> None:
        base = len(self._rowids) << ENTRY_SHIFT
        length = 0
        for units, length_units, terms in occurrences:
            self._terms.extend(map(self._numbers.__getitem__, terms))
            self._entries.append(base | units)
            self._sizes.append(len(terms))
            length += length_units * len(terms)
        self._lengths.append(length / UNIT)
        self._rowids.append(rowid)

    @property
    def rowids(self) -> Rowids:
        return np.frombuffer(self._rowids, np.int64)

    @property
    def lengths(self) -> Lengths:
        return np.frombuffer(self._lengths, np.float32)

    def items(self) -> Iterator[tuple[str, bytes]]:
        terms = list(self._numbers)
        order = sorted(range(len(terms)), key=terms.__getitem__)
        ranks = np.empty(len(terms), np.uint32)
        ranks[order] = np.arange(len(terms), dtype=np.uint32)
        by_rank = ranks[np.frombuffer(self._terms, np.uint32)]
        entries = np.repeat(np.frombuffer(self._entries, np.uint64), self._sizes)
        sizes = np.bincount(by_rank, minlength=len(terms)) * ENTRY_BYTES
        packed = entries[np.argsort(by_rank, kind="stable")].tobytes()
        start = 0
        for number, end in zip(order, np.cumsum(sizes).tolist(), strict=True):
            yield terms[number], packed[start:end]
            start = end
