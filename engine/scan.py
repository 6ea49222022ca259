"""Scans: from a plan to the documents it finds, with the place of each for paging.

Invariants:
- Entries come in the order of their full fields, then of their rowid, also where LMDB's limit cut
  the key: entries that share a cut key are gathered and sorted by what was cut off.
- A document with several entries is emitted once: at its first entry within the plan's ranges.
- An entry without its document is damage, and raises.
"""

import warnings
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

from amberdb._bytes import CRC_RESIDUE
from amberdb._errors import CorruptionError, FullScanWarning
from amberdb._types import Document
from amberdb.engine.codec import decode_unchecked
from amberdb.engine.planner import Plan, Range
from amberdb.engine.schema import CUT_ENTRY_SIZE, ROWID_SIZE, CompiledIndex, Schema, unpack_cut
from amberdb.engine.stored import BODY, damaged, expires_us, rowid_of
from amberdb.engine.trees import TREE_SIZE, end_of
from amberdb.engine.view import View

_CUT_KEY_SIZE = TREE_SIZE + CUT_ENTRY_SIZE
_CUT_SIZE = _CUT_KEY_SIZE - ROWID_SIZE


FULL_SCAN_MAX = 10_000
"""Documents read one by one before a query warns, once per shape."""
_UNWATCHED = -(1 << 62)
_warned: set[tuple[str, str]] = set()


class Entry(NamedTuple):
    """One index entry, or one document of a scan by id (then `rowid` is empty)."""

    fields: bytes
    """Tree and full fields, nothing cut off; of a scan by id the document's key."""
    rowid: bytes
    """8 bytes as stored: inverted when the last field descends."""
    id: bytes


Place = tuple[bytes, bytes]
"""`fields` and `rowid` of the last entry that was seen: where the next page goes on."""


Found = tuple[Entry, bytes, Document]
"""The entry, the stored value and the document."""


def documents(
    view: View, schema: Schema, plan: Plan, after: Place | None = None, *, shape: str = ""
) -> Iterator[Found]:
    """Live documents that the plan finds and its residual filter keeps, in the plan's order.

    With a shape, more than FULL_SCAN_MAX documents read without an index give a warning.
    """
    read = 0 if shape and plan.is_full_scan else _UNWATCHED
    residual = None if plan.residual.is_empty else plan.residual.matches
    can_expire = schema.expires_at is not None
    index = plan.index
    for entry in entries(view, plan, after):
        key = schema.prefix + entry.id
        value = view.get(key)
        if value is None:
            if index is None:
                continue
            raise CorruptionError(
                f"index {index.spec.name!r} of {schema.name!r} names the document {entry.id!r}, "
                "which is not there: run check()",
                key=key,
            )
        if crc32(value, crc32(key)) != CRC_RESIDUE:
            raise damaged(key)
        read += 1
        if read == FULL_SCAN_MAX:
            _warn(schema.name, shape)
        if can_expire and expires_us(value) <= view.now_us:
            continue
        document: Document = decode_unchecked(value[BODY])
        if residual is not None and not residual(document):
            continue
        if (
            index is not None
            and plan.is_multi
            and not _is_first(plan, index, document, rowid_of(value), entry)
        ):
            continue
        yield entry, value, document


def entries(view: View, plan: Plan, after: Place | None = None) -> Iterator[Entry]:
    """The entries in the plan's ranges, behind the place."""
    ranges = reversed(plan.ranges) if plan.reverse else plan.ranges
    for low, high in ranges:
        if after is not None:
            if (after[0] >= high) if not plan.reverse else (after[0] < low):
                continue
            low, high = _behind(low, high, after, plan.reverse)
        if plan.index is None:
            for key, _ in view.scan(low, high, plan.reverse):
                yield Entry(key, b"", key[TREE_SIZE:])
        else:
            yield from _index_entries(view, low, high, plan.reverse, after)


def _behind(low: bytes, high: bytes, after: Place, reverse: bool) -> Range:
    """The part of the range behind a place; of a cut key the whole group, sifted later."""
    fields, rowid = after
    if len(fields) > _CUT_SIZE:
        group = fields[:_CUT_SIZE]
        return (low, min(high, end_of(group))) if reverse else (max(low, group), high)
    place = fields + rowid
    return (low, min(high, place)) if reverse else (max(low, place + b"\0"), high)


def _index_entries(
    view: View, low: bytes, high: bytes, reverse: bool, after: Place | None
) -> Iterator[Entry]:
    is_cut_range = len(low) > _CUT_SIZE or len(high) > _CUT_SIZE
    scan_high = end_of(high[:_CUT_SIZE]) if len(high) > _CUT_KEY_SIZE else high
    group: list[Entry] = []
    for key, value in view.scan(low[:_CUT_KEY_SIZE], scan_high, reverse):
        if len(key) < _CUT_KEY_SIZE:
            if group:
                yield from _sorted_group(group, reverse)
                group = []
            yield Entry(key[:-ROWID_SIZE], key[-ROWID_SIZE:], value)
            continue
        fields = key[:-ROWID_SIZE]
        if group and not group[0].fields.startswith(fields):
            yield from _sorted_group(group, reverse)
            group = []
        id_bytes, remainder = unpack_cut(value)
        entry = Entry(fields + remainder, key[-ROWID_SIZE:], id_bytes)
        if is_cut_range and not low <= entry.fields + entry.rowid < high:
            continue
        if after is not None and (entry[:2] >= after if reverse else entry[:2] <= after):
            continue
        group.append(entry)
    if group:
        yield from _sorted_group(group, reverse)


def _sorted_group(group: list[Entry], reverse: bool) -> list[Entry]:
    group.sort(reverse=reverse)
    return group


def _is_first(
    plan: Plan, index: CompiledIndex, document: Document, rowid: int, entry: Entry
) -> bool:
    """Whether no other entry of the document in the ranges comes before this one."""
    found = [
        fields
        for cut, remainder in index.entries(document, rowid)
        for fields in [index.prefix + cut[:-ROWID_SIZE] + remainder]
        if any(low <= fields + cut[-ROWID_SIZE:] < high for low, high in plan.ranges)
    ]
    first = max(found) if plan.reverse else min(found)
    return entry.fields == first


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
