"""Scan: the documents that a plan finds, with the place of each for paging.

Invariants:
- A document with several entries is yielded once: at its first entry within the plan's ranges.
- An entry without a document is damage, and raises CorruptionError.
"""

import warnings
from collections.abc import Iterable, Iterator
from zlib import crc32

from amberdb._bytes import CRC_RESIDUE
from amberdb._errors import CorruptionError, FullScanWarning
from amberdb._types import Document
from amberdb.engine.query.planner import Plan
from amberdb.engine.schema.document_format import (
    BODY,
    damaged,
    expires_us,
    rowid_of,
    unpack,
    unpack_expires,
)
from amberdb.engine.schema.documents import encode_id
from amberdb.engine.schema.ordered_index import CompiledIndex
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.split_document import join
from amberdb.engine.storage.index_scan import Entry, entries, merged, points
from amberdb.engine.storage.source import Place, Source
from amberdb.index.ordered.keys import CUT_BYTES, KEYSPACE_BYTES, ROWID_BYTES

FULL_SCAN_MAX = 10_000
"""Documents read without an index before a query warns, once for each shape of a query."""
_UNWATCHED = -(1 << 62)
"""A count that never reaches FULL_SCAN_MAX."""
_warned: set[tuple[str, str]] = set()

Found = tuple[Place, bytes, Document]
"""The place, the stored value and the document."""


def documents(
    source: Source, schema: Schema, plan: Plan, after: Place | None = None, *, shape: str = ""
) -> Iterator[Found]:
    """The documents that the plan finds and its residual filter passes, without expired ones, in
    the order of the plan; without their vectors, which join() reads.

    `after` is the place to continue after. `shape` describes the query in the warning about more
    than FULL_SCAN_MAX documents read without an index; empty, there is no warning. Raises
    CorruptionError.
    """
    return passing(source, schema, plan, scanned(source, plan, after), shape=shape)


def scanned(source: Source, plan: Plan, after: Place | None = None) -> Iterator[Entry]:
    """What a plan reads, in its order: entries of its index, or documents."""
    if plan.by_ids:
        return points(source, plan.ranges, reverse=plan.reverse, after=after)
    if plan.heads:
        rest = None if after is None else plan.rank(after)
        return merged(source, plan.heads, plan.ranges, reverse=plan.reverse, after=rest)
    return entries(
        source, plan.ranges, of_index=plan.index is not None, reverse=plan.reverse, after=after
    )


def passing(
    source: Source, schema: Schema, plan: Plan, found: Iterable[Entry], *, shape: str = ""
) -> Iterator[Found]:
    """The documents of what a plan has read, as documents() returns them."""
    read = 0 if shape and plan.is_full_scan else _UNWATCHED
    residual = None if plan.residual.is_empty else plan.residual.matches
    now_us = source.now_us if schema.expires_at is not None else None
    of_index = plan.index is not None
    first_only = plan.is_multi
    prefix = schema.prefix
    decode, migration = schema.decode, schema.migration
    get, vectors_at = source.getter_of(prefix), source.vectors_at
    for place, content in found:
        if of_index:
            key = prefix + content
            value = get(key)
            if value is None:
                raise orphan(schema, plan.index, key)
        else:
            key, value = place, content
        # Inline, as in row_reader.py: a function call here costs 4 percent of a scan.
        if crc32(value, crc32(key)) != CRC_RESIDUE:
            raise damaged(key)
        read += 1
        if read == FULL_SCAN_MAX:
            _warn(schema.name, shape)
        if now_us is not None and unpack_expires(value)[0] <= now_us:
            continue
        document: Document = (
            decode(value[BODY])
            if migration is None
            else schema.document(unpack(key, value), vectors_at)
        )
        if residual is not None and not residual(document):
            continue
        if first_only and place != first_place(plan, document, rowid_of(value)):
            continue
        yield place, value, document


def documents_by_id(
    source: Source, schema: Schema, ids: Iterable[str]
) -> Iterator[tuple[bytes, Document] | None]:
    """The stored value and the document of each id, in order; None where there is none, or it has
    expired. Raises InvalidDocumentError, CorruptionError."""
    prefix, decode, migration = schema.prefix, schema.decode, schema.migration
    get, vectors_at = source.getter_of(prefix), source.vectors_at
    now_us = source.now_us if schema.expires_at is not None else None
    for id in ids:
        key = prefix + encode_id(id)
        value = get(key)
        if value is None:
            yield None
            continue
        if crc32(value, crc32(key)) != CRC_RESIDUE:
            raise damaged(key)
        if now_us is not None and unpack_expires(value)[0] <= now_us:
            yield None
        elif migration is None:
            document: Document = decode(value[BODY])
            yield value, join(document, schema.vectors, vectors_at)
        else:
            yield value, schema.document(unpack(key, value), vectors_at)


def place_in(plan: Plan, schema: Schema, document: Document, value: bytes) -> Place | None:
    """The place at which the scan of a plan yields a document; None when it does not."""
    if plan.index is None:
        return schema.key(document["id"])
    if plan.index is schema.expiry:
        return schema.expiry_key(expires_us(value), rowid_of(value))
    return first_place(plan, document, rowid_of(value))


def first_place(plan: Plan, document: Document, rowid: int) -> Place | None:
    """The place of the entry of a document that the scan reads first; None when all are outside
    the plan's ranges."""
    assert plan.index is not None
    places = [
        fields + cut[-ROWID_BYTES:]
        for cut, rest in plan.index.entries(document, rowid)
        for fields in [plan.index.prefix + (cut[:CUT_BYTES] + rest if rest else cut[:-ROWID_BYTES])]
    ]
    inside = [place for place in places if any(low <= place < high for low, high in plan.ranges)]
    return (max(inside) if plan.reverse else min(inside)) if inside else None


def orphan(schema: Schema, index: CompiledIndex | None, key: bytes) -> CorruptionError:
    """The error for an entry without a document."""
    name = index.name if index is not None else "id"
    return CorruptionError(
        f"index {name!r} of {schema.name!r} names the document {key[KEYSPACE_BYTES:]!r}, "
        "which is missing: run check()",
        key=key,
    )


def _warn(collection: str, shape: str) -> None:
    if (collection, shape) in _warned:
        return
    _warned.add((collection, shape))
    warnings.warn(
        f"a query of collection {collection!r} read more than {FULL_SCAN_MAX} documents without "
        f"an index: {shape}; declare an index over its fields",
        FullScanWarning,
        stacklevel=2,
    )
