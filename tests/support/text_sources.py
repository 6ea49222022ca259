"""Text sources over plain maps: segments as LMDB would hold them, without LMDB."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

from amberdb.index.text.packing import ROWS_KEY
from amberdb.index.text.postings import (
    InMemoryPostings,
    Segment,
    SegmentSource,
    Source,
    segment_pairs,
)
from amberdb.index.text.text import UNIT, Occurrences


def source_of(pairs: Mapping[bytes, bytes]) -> SegmentSource:
    """A segment of these pairs. Raises CorruptionError as a Segment does."""
    keys = sorted(pairs)

    def scan(low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key in keys[bisect_left(keys, low) : bisect_left(keys, high)]:
            yield key, pairs[key]

    return Segment(pairs[ROWS_KEY]).source(pairs.get, scan)


def occurrences_of(counts: Mapping[str, int], unit: int = 1) -> Occurrences:
    """Terms by how often they occur, in 1/unit; `unit` is 1 or UNIT."""
    if unit == UNIT:
        return [(count, count, [term]) for term, count in counts.items()]
    return [(UNIT, UNIT, [term for term, count in counts.items() for _ in range(count)])]


def in_memory_of(rows: Mapping[int, Occurrences]) -> InMemoryPostings:
    postings = InMemoryPostings()
    for rowid, occurrences in sorted(rows.items()):
        postings.add(rowid, occurrences)
    return postings


def spread(rows: Mapping[int, Occurrences], places: Sequence[int]) -> list[Source]:
    """Rows over several sources: the i-th goes to source places[i % len(places)]; every other
    source is a packed segment."""
    shares: dict[int, dict[int, Occurrences]] = {}
    for at, (rowid, occurrences) in enumerate(rows.items()):
        shares.setdefault(places[at % len(places)], {})[rowid] = occurrences
    sources: list[Source] = []
    for place, share in shares.items():
        postings = in_memory_of(share)
        sources.append(source_of(dict(segment_pairs([postings]))) if place % 2 else postings)
    return sources
