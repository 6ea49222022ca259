"""Queries answered: pages of documents, the cursors between them, and counts.

Invariants:
- Paging is by key: a cursor holds the place of the last document, not a count, so documents that
  are written or removed between pages neither repeat nor hide others.
- A cursor belongs to one collection, filter and order, and says so with a checksum; it carries
  no secret and is not trusted: anything else raises CursorError.
"""

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice
from typing import Any, TypeAlias, cast, final
from zlib import crc32

from amberdb._bytes import CRC_SIZE, append_crc, crc_matches
from amberdb._errors import AmberError, CursorError, QueryError
from amberdb._types import Document, Order, Where
from amberdb.engine.query.filter import Filter, parse
from amberdb.engine.query.order import OrderField, parse_order, sorter
from amberdb.engine.query.planner import Plan, by_documents, by_index, choose
from amberdb.engine.query.scan import Place, documents, entries
from amberdb.engine.schema.codec import decode, encode, encode_sorted
from amberdb.engine.schema.document_format import rowid_of
from amberdb.engine.schema.documents import Projection
from amberdb.engine.schema.schema import CollectionCounters, Schema
from amberdb.engine.storage.view import View
from amberdb.index.ordered.keys import encode_rowid, encode_rowid_desc
from amberdb.index.paths import MISSING, Path

_SORTED = -1
"""In a cursor, in place of an index: the result was sorted."""

_Sorted: TypeAlias = tuple[bytes, Document]


@final
class Page(list[Document]):
    """Documents, and the way to the next page: `find(..., after=page.cursor)`."""

    __slots__ = ("_place", "_query", "_source")

    def __init__(self, documents: Iterable[Document], query: "Query", source: int) -> None:
        super().__init__(documents)
        self._query = query
        self._source = source
        self._place: Place | None = None

    def stop_at(self, place: Place) -> None:
        """For find(): the place of the last document, when there may be more."""
        self._place = place

    @property
    def cursor(self) -> str | None:
        """Where the next page goes on; None when this page was not filled."""
        if self._place is None:
            return None
        data = encode([self._query.digest, self._source, self._place])
        return base64.urlsafe_b64encode(data + append_crc(data)).decode()


@dataclass(frozen=True, slots=True)
class Query:
    """One question to one collection, parsed."""

    schema: Schema
    where: Where | None
    filter: Filter
    order: tuple[OrderField, ...]

    @classmethod
    def of(cls, schema: Schema, where: Where | None, order_by: Order | None = None) -> "Query":
        """Raises QueryError."""
        found, order = parse(where), parse_order(order_by)
        if schema.vectors:
            schema.refuse_vectors(found, order)
        return cls(schema, where, found, order)

    @property
    def digest(self) -> int:
        """The same for the same question: binds a cursor to it."""
        question = [self.schema.definition.number, self.where or None, self.order]
        try:
            return crc32(encode_sorted(question))
        except (TypeError, ValueError):  # a Mapping or a value that is not plain
            return crc32(repr(question).encode())

    def find(
        self,
        view: View,
        limit: int | None,
        after: str | None,
        fields: Sequence[str] | None,
    ) -> Page:
        """Raises QueryError, CursorError."""
        if limit is not None and (type(limit) is not int or limit < 0):
            raise QueryError(f"limit is a count or None, not {limit!r}")
        project = None if fields is None else projector(fields)
        if after is None:
            source, place = None, None
        else:
            source, place = _open_cursor(after, self.digest)
        plan = self._plan(view, limit, source)
        if plan.is_sorted and source != _SORTED:
            page = self._scanned(view, plan, limit, place)
        else:
            page = self._sorted(view, plan, limit, place)
        if project is not None:
            page[:] = map(project, page)
        return page

    def count(self, view: View) -> int:
        """How many live documents match."""
        schema = self.schema
        if self.filter.is_empty:
            count = CollectionCounters.unpack(view.get(schema.head_key)).documents
            if schema.expires_at is not None:
                high = schema.expiry_bound(view.now_us)
                count -= sum(1 for _ in view.scan(schema.expiry_prefix, high))
            return count
        plan = choose(view, schema, self.filter, (), False)
        if (
            plan.index is not None
            and plan.residual.is_empty
            and not plan.is_multi
            and schema.expires_at is None
        ):
            return sum(1 for _ in entries(view, plan))
        return sum(1 for _ in documents(view, schema, plan, shape=self._shape(plan)))

    def ids(self, view: View) -> list[str]:
        """The ids of all documents that match."""
        plan = choose(view, self.schema, self.filter, (), False)
        found = documents(view, self.schema, plan, shape=self._shape(plan))
        return [document["id"] for _, _, document in found]

    def explain(self, view: View) -> dict[str, Any]:
        return choose(view, self.schema, self.filter, self.order, True).explain(self.order)

    # -- inside ------------------------------------------------------------------------------

    def _shape(self, plan: Plan) -> str:
        """What a warning of a full scan names; empty when all documents were asked for."""
        if not plan.is_full_scan or (self.filter.is_empty and not self.order):
            return ""
        order = ", ".join("-" * field.descending + field.path for field in self.order)
        return f"{self.filter.shape} order_by=[{order}]" if order else self.filter.shape

    def _plan(self, view: View, limit: int | None, source: int | None) -> Plan:
        """The best plan; behind a cursor, the one that the cursor walks along."""
        if source is None or source == _SORTED:
            return choose(view, self.schema, self.filter, self.order, limit is not None)
        if source == 0:
            return by_documents(self.schema, self.filter, self.order)
        plan = by_index(view, self.schema, source, self.filter, self.order)
        if plan is None or not plan.is_sorted:
            raise CursorError("the index that this cursor walks along is gone: start again")
        return plan

    def _scanned(self, view: View, plan: Plan, limit: int | None, after: Place | None) -> Page:
        found = documents(view, self.schema, plan, after, shape=self._shape(plan))
        source = 0 if plan.index is None else plan.index.number
        page = Page((), self, source)
        if limit == 0:
            return page
        last = None
        for last in islice(found, limit):
            page.append(last[2])
        if last is not None and len(page) == limit:
            page.stop_at(last[0])
        return page

    def _sorted(self, view: View, plan: Plan, limit: int | None, after: Place | None) -> Page:
        key = sorter(self.order)
        rowid = encode_rowid_desc if self.order[-1].descending else encode_rowid

        def keyed() -> Iterator[_Sorted]:
            for _, value, document in documents(view, self.schema, plan, shape=self._shape(plan)):
                place = key(document) + rowid(rowid_of(value))
                if after is None or place > after:
                    yield place, document

        by_place: Callable[[_Sorted], bytes] = _first
        if limit is None:
            best = sorted(keyed(), key=by_place)
        else:
            best = nsmallest(limit, keyed(), key=by_place)
        page = Page((document for _, document in best), self, _SORTED)
        if best and len(best) == limit:
            page.stop_at(best[-1][0])
        return page


def _first(item: _Sorted) -> bytes:
    return item[0]


def _open_cursor(cursor: str, digest: int) -> tuple[int, Place]:
    """(source, place). Raises CursorError."""
    try:
        data = base64.urlsafe_b64decode(cursor.encode("ascii"))
        if not crc_matches(data):
            raise ValueError("damaged")
        owner, source, place = decode(data[:-CRC_SIZE])
        if type(source) is not int or type(place) is not bytes:
            raise ValueError("not ours")
    except (AmberError, ValueError, TypeError, AttributeError, RecursionError, binascii.Error):
        raise CursorError("not a cursor of a page: pass page.cursor as it was") from None
    if owner != digest:
        raise CursorError("this cursor belongs to another query: repeat filter and order with it")
    return source, place


def projector(fields: Sequence[str]) -> Callable[[Document], Projection]:
    """What keeps these fields of a document. Raises QueryError."""
    if isinstance(fields, str):
        raise QueryError(f"fields is a list of fields, not {fields!r}")
    try:
        paths = [Path.of(name) for name in fields]
    except (ValueError, TypeError, AttributeError) as error:
        raise QueryError(f"fields: {error}") from None

    def project(document: Document) -> Projection:
        kept = Projection()
        for path in paths:
            value = path.get(document)
            if value is MISSING:
                continue
            inner: dict[str, Any] = kept
            for name in path.segments[:-1]:
                below: Any = inner.setdefault(name, {})
                if type(below) is not dict:
                    break  # a list that another path keeps whole
                inner = cast(dict[str, Any], below)
            else:
                inner[path.segments[-1]] = value
        return kept

    return project
