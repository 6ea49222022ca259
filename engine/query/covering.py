"""Covering: answers from the entries of an index alone, without their documents.

A plan covers a query when its entries are those of the documents that match, one for each, and the
fields that are asked for are the id and fields of the index. Where the key of one entry does not
tell a value, as that of None, which a missing field has too, its document is read.

Invariants:
- The answer is the one that the documents give. So an index covers no field while it has a value
  that its keys do not give back (the mark LOSSY), and an index that does not keep this mark, none.
- A document that has expired is told by its entry in the expiry index. With many of those the
  documents are read, which costs less than to collect them.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final, final
from zlib import crc32

from amberdb._bytes import CRC_RESIDUE
from amberdb._types import Document
from amberdb.engine.query.planner import Plan
from amberdb.engine.query.scan import Found, orphan, scanned
from amberdb.engine.schema.document_format import BODY, damaged
from amberdb.engine.schema.ordered_index import LOSSY
from amberdb.engine.schema.schema import Schema
from amberdb.engine.storage.index_scan import count
from amberdb.engine.storage.source import Place, Source
from amberdb.index.ordered.key_decoder import decoded
from amberdb.index.ordered.keys import KEYSPACE_BYTES
from amberdb.index.paths import Path

EXPIRED_MAX: Final = 64
"""Expired documents that are stored still, up to which they are collected."""


@final
class Covering:
    """A plan that covers some fields, at one view."""

    __slots__ = ("_descending", "_expired", "_fields", "_plan", "_schema", "_source")

    def __init__(
        self,
        source: Source,
        schema: Schema,
        plan: Plan,
        fields: Sequence[Path],
        expired: set[bytes],
    ) -> None:
        self._source = source
        self._schema = schema
        self._plan = plan
        self._expired = expired
        self._fields: list[tuple[int, tuple[str, ...]]] = []
        """Where each field is among those of the index, and its segments."""
        self._descending: tuple[bool, ...] = ()
        """Of the fields of the index as far as they are needed."""
        if fields and plan.index is not None:
            encoder = plan.index.encoder
            wanted = [path for path in fields if path.name != "id"]
            self._fields = [(encoder.paths.index(path.name), path.segments) for path in wanted]
            last = max((at for at, _ in self._fields), default=-1)
            self._descending = encoder.descending[: last + 1]

    @classmethod
    def of(
        cls, source: Source, schema: Schema, plan: Plan, fields: Sequence[Path]
    ) -> "Covering | None":
        """The answer that covers these fields; None when the documents have to be read."""
        index = plan.index
        if plan.is_multi or not plan.residual.is_empty:
            return None
        names = {path.name for path in fields} - {"id"} if fields else None
        if names and (
            index is None
            or not index.is_marked
            or not names.issubset(index.encoder.paths)
            or source.get(LOSSY + index.prefix) is not None
        ):
            return None
        expired: set[bytes] = set()
        if schema.expires_at is not None:
            if index is None:  # the entries are the documents
                return None
            until = schema.expiry_bound(source.now_us)
            scan = source.scan(schema.expiry_prefix, until)
            expired = {id_bytes for _, id_bytes in islice(scan, EXPIRED_MAX + 1)}
            if len(expired) > EXPIRED_MAX:
                return None
        return cls(source, schema, plan, fields, expired)

    def count(self) -> int:
        """The number of documents that match."""
        expired = self._expired
        if not expired:
            return count(self._source, self._plan.ranges)
        found = scanned(self._source, self._plan)
        return sum(1 for _, id_bytes in found if id_bytes not in expired)

    def documents(self, after: Place | None = None) -> Iterator[Found]:
        """The matches as scan.documents() yields them, with the fields that are covered alone, or
        with others too; without their stored values."""
        found = scanned(self._source, self._plan, after)
        if self._plan.index is None:
            return ((key, b"", {"id": key[KEYSPACE_BYTES:].decode()}) for key, _ in found)
        if self._expired:
            found = (entry for entry in found if entry[1] not in self._expired)
        if not self._fields:
            return ((place, b"", {"id": id_bytes.decode()}) for place, id_bytes in found)
        return ((place, b"", self._document(place, id_bytes)) for place, id_bytes in found)

    def _document(self, place: Place, id_bytes: bytes) -> Document:
        values = decoded(place, KEYSPACE_BYTES, self._descending)
        if values is None:
            return self._read(id_bytes)
        document: Document = {"id": id_bytes.decode()}
        for at, segments in self._fields:
            inside: dict[str, Any] = document
            for name in segments[:-1]:
                inside = inside.setdefault(name, {})
            inside[segments[-1]] = values[at]
        return document

    def _read(self, id_bytes: bytes) -> Document:
        key = self._schema.prefix + id_bytes
        value = self._source.get(key)
        if value is None:
            raise orphan(self._schema, self._plan.index, key)
        if crc32(value, crc32(key)) != CRC_RESIDUE:
            raise damaged(key)
        document: Document = self._schema.decode(value[BODY])
        return document
