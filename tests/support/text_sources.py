"""Text sources over plain maps: segments as LMDB would hold them, without LMDB."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

from amberdb.index.packing import ROWS_KEY
from amberdb.index.postings import Memtable, Segment, SegmentSource, Source, segment_pairs


def source_of(pairs: Mapping[bytes, bytes]) -> SegmentSource:
    """A segment of these pairs. Raises CorruptionError as a Segment does."""
    keys = sorted(pairs)

    def scan(low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key in keys[bisect_left(keys, low) : bisect_left(keys, high)]:
            yield key, pairs[key]

    return Segment(pairs[ROWS_KEY]).source(pairs.get, scan)


def memtable_of(forwards: Mapping[int, bytes]) -> Memtable:
    memtable = Memtable()
    for rowid, forward in forwards.items():
        memtable.add(rowid, forward)
    return memtable


def spread(forwards: Mapping[int, bytes], places: Sequence[int]) -> list[Source]:
    """Rows over several sources: the i-th goes to source places[i % len(places)]; every other
    source is a packed segment."""
    shares: dict[int, dict[int, bytes]] = {}
    for at, (rowid, forward) in enumerate(forwards.items()):
        shares.setdefault(places[at % len(places)], {})[rowid] = forward
    sources: list[Source] = []
    for place, share in shares.items():
        memtable = memtable_of(share)
        sources.append(source_of(dict(segment_pairs([memtable]))) if place % 2 else memtable)
    return sources
