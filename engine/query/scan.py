"""Scans: from a plan to the documents it finds, with the place of each for paging.

Invariants:
- Entries come in the order of their full fields, then of their rowid, also where LMDB's limit cut
  the key: entries that share a cut key are gathered and sorted by what was cut off.
- A document with several entries is emitted once: at its first entry within the plan's ranges.
- An entry without its document is damage, and raises.
"""

import warnings
from collections.abc import Iterator
from itertools import chain, islice
from zlib import crc32

from amberdb._bytes import CRC_RESIDUE
from amberdb._errors import CorruptionError, FullScanWarning
from amberdb._types import Document
from amberdb.engine.query.planner import Plan, Range
from amberdb.engine.schema.codec import decode_unchecked
from amberdb.engine.schema.document_format import BODY, damaged, expires_us, rowid_of, unpack
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.schema.schema import CUT_ENTRY_SIZE, Schema, unpack_cut
from amberdb.engine.storage.view import View
from amberdb.index.ordered.keys import CUT_BYTES, KEYSPACE_BYTES, ROWID_BYTES

_CUT_KEY_SIZE = KEYSPACE_BYTES + CUT_ENTRY_SIZE
_PREFIX_SIZE = KEYSPACE_BYTES + CUT_BYTES
_LONG_SIZE = _PREFIX_SIZE + ROWID_BYTES
"""Entries longer than this are gathered by their first _PREFIX_SIZE bytes and sorted."""

FULL_SCAN_MAX = 10_000
"""Documents read one by one before a query warns, once per shape."""
_UNWATCHED = -(1 << 62)
_warned: set[tuple[str, str]] = set()


Place = bytes
"""Where an entry stands: tree, full fields (nothing cut off) and rowid; of a scan without an index
the document's key. Places sort as the entries do, since no fields are a prefix of others."""

Entry = tuple[Place, bytes]
"""(place, id) of an index entry. When LMDB's key is not cut, it is the place."""

Found = tuple[Place, bytes, Document]
"""The place, the stored value and the document."""


def documents(
    view: View, schema: Schema, plan: Plan, after: Place | None = None, *, shape: str = ""
) -> Iterator[Found]:
    """Live documents that the plan finds and its residual filter keeps, in the plan's order.

    With a shape, more than FULL_SCAN_MAX documents read without an index give a warning.
    """
    read = 0 if shape and plan.is_full_scan else _UNWATCHED
    residual = None if plan.residual.is_empty else plan.residual.matches
    dies_us = view.now_us if schema.expires_at is not None else None
    index = plan.index
    first_only = plan.is_multi and index is not None
    prefix = schema.prefix
    migration = schema.migration
    get = view.reader()
    for place, id_bytes in entries(view, plan, after):
        key = prefix + id_bytes
        value = get(key)
        if value is None:
            raise _orphan(schema, plan, key)
        if crc32(value, crc32(key)) != CRC_RESIDUE:
            raise damaged(key)
        read += 1
        if read == FULL_SCAN_MAX:
            _warn(schema.name, shape)
        if dies_us is not None and expires_us(value) <= dies_us:
            continue
        document: Document = (
            decode_unchecked(value[BODY])
            if migration is None
            else schema.document(unpack(key, value))
        )
        if residual is not None and not residual(document):
            continue
        if first_only and place != _first_place(plan, document, rowid_of(value)):
            continue
        yield place, value, document


def entries(view: View, plan: Plan, after: Place | None = None) -> Iterator[Entry]:
    """The entries in the plan's ranges, behind the place."""
    ranges = plan.ranges[::-1] if plan.reverse else plan.ranges
    if after is not None:
        ranges = tuple(
            (low, high) for low, high in ranges if (low < after if plan.reverse else after < high)
        )
    scan = _ids if plan.index is None else _index_entries
    if len(ranges) == 1:  # one generator less on the way of every entry
        return scan(view, *ranges[0], plan.reverse, after)
    return chain.from_iterable(scan(view, low, high, plan.reverse, after) for low, high in ranges)


def keys(view: View, plan: Plan, limit: int) -> list[Place]:
    """The places of at most `limit` of entries(), in no order, in less time; each ends in its
    rowid. A bound that no key was cut short of tells what is in range by keys alone."""
    places: list[Place] = []
    if any(max(len(low), len(high)) > _PREFIX_SIZE for low, high in plan.ranges):
        places += [place for place, _ in islice(entries(view, plan), limit)]
    else:
        for low, high in plan.ranges:
            places += view.keys(low, high, limit - len(places))
    return places


def _ids(
    view: View, low: bytes, high: bytes, reverse: bool, after: Place | None
) -> Iterator[Entry]:
    low, high = _behind(low, high, reverse, after)
    for key, _ in view.scan(low, high, reverse):
        yield key, key[KEYSPACE_BYTES:]


def _index_entries(
    view: View, low: bytes, high: bytes, reverse: bool, after: Place | None
) -> Iterator[Entry]:
    is_long_range = len(low) > _PREFIX_SIZE or len(high) > _PREFIX_SIZE
    start = low[:_PREFIX_SIZE]
    end = end_of(high[:_PREFIX_SIZE]) if len(high) > _PREFIX_SIZE else high
    start, end = _behind(start, end, reverse, after)
    group: list[Entry] = []
    for pair in view.scan(start, end, reverse):
        key = pair[0]
        if group and (len(key) <= _LONG_SIZE or group[0][0][:_PREFIX_SIZE] != key[:_PREFIX_SIZE]):
            yield from _sorted_group(group, reverse)
            group = []
        if len(key) <= _LONG_SIZE:
            yield pair
            continue
        place, id_bytes = _long_entry(pair)
        if is_long_range and not low <= place < high:
            continue
        if after is not None and (place >= after if reverse else place <= after):
            continue
        group.append((place, id_bytes))
    if group:
        yield from _sorted_group(group, reverse)


def _long_entry(pair: tuple[bytes, bytes]) -> Entry:
    key, value = pair
    if len(key) < _CUT_KEY_SIZE:
        return pair
    id_bytes, rest = unpack_cut(value)
    return key[:_PREFIX_SIZE] + rest + key[-ROWID_BYTES:], id_bytes


def _behind(low: bytes, high: bytes, reverse: bool, after: Place | None) -> Range:
    """The part of a range of LMDB's keys behind a place; of long entries the whole group, which
    is sifted later."""
    if after is None:
        return low, high
    if len(after) > _LONG_SIZE:
        group = after[:_PREFIX_SIZE]
        return (low, min(high, end_of(group))) if reverse else (max(low, group), high)
    return (low, min(high, after)) if reverse else (max(low, after + b"\0"), high)


def _sorted_group(group: list[Entry], reverse: bool) -> list[Entry]:
    group.sort(reverse=reverse)
    return group


def _first_place(plan: Plan, document: Document, rowid: int) -> Place | None:
    """Of a document's several entries in the ranges, the one that the scan meets first."""
    assert plan.index is not None
    places = [
        fields + cut[-ROWID_BYTES:]
        for cut, rest in plan.index.entries(document, rowid)
        for fields in [plan.index.prefix + (cut[:CUT_BYTES] + rest if rest else cut[:-ROWID_BYTES])]
    ]
    found = [place for place in places if any(low <= place < high for low, high in plan.ranges)]
    return (max(found) if plan.reverse else min(found)) if found else None


def _orphan(schema: Schema, plan: Plan, key: bytes) -> CorruptionError:
    name = plan.index.spec.name if plan.index is not None else "id"
    return CorruptionError(
        f"index {name!r} of {schema.name!r} names the document {key[KEYSPACE_BYTES:]!r}, "
        "which is not there: run check()",
        key=key,
    )


def _warn(collection: str, shape: str) -> None:
    if (collection, shape) in _warned:
        return
    _warned.add((collection, shape))
    warnings.warn(
        f"a query of collection {collection!r} read over {FULL_SCAN_MAX} documents without an "
        f"index: {shape}; declare one over its fields",
        FullScanWarning,
        stacklevel=2,
    )
