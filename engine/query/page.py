"""Pages of documents, the cursors between them, and projections.

Invariants:
- Paging is by key: a cursor holds the place of the last document, not a count, so a document that
  is written or removed between two pages neither repeats nor hides others.
- A cursor holds a digest of its collection, filter and order, and a checksum. It is not secret and
  not trusted: a cursor that is damaged or belongs to another query raises CursorError.
"""

# The values of a filter have no static type, so the parts of maps and lists are unknown to pyright.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping, Sequence
from reprlib import repr as shorten
from typing import Any, TypeAlias, cast, final
from zlib import crc32

from amberdb._bytes import CRC_SIZE, append_crc, crc_matches
from amberdb._errors import AmberError, CursorError, InvalidDocumentError, QueryError
from amberdb._plain import plain_scalar
from amberdb._types import Document, Where
from amberdb.engine.query.order import OrderField
from amberdb.engine.schema.codec import decode, encode, encode_sorted
from amberdb.engine.schema.documents import Projection
from amberdb.engine.storage.source import Place
from amberdb.index.paths import MISSING, Path

Identity: TypeAlias = tuple[int, Where | None, tuple[OrderField, ...]]
"""The collection's number, the filter and the order of a query."""


@final
class Page(list[Document]):
    """A list of documents with a cursor to the next page: `find(..., after=page.cursor)`.

    It is equal to a list of the same documents.
    """

    __slots__ = ("_identity", "_origin", "_place")

    def __init__(self, documents: Iterable[Document], identity: Identity, origin: int) -> None:
        super().__init__(documents)
        self._identity = identity
        self._origin = origin
        self._place: Place | None = None

    def __repr__(self) -> str:
        ending = "last page" if self._place is None else "next page: after=page.cursor"
        return f"<amberdb.Page of {len(self)}, {ending}: {shorten(list(self))}>"

    def stop_at(self, place: Place) -> None:
        """Sets the place of the last document, from which the cursor is made. find() calls it when
        the page is full, so that there may be more documents."""
        self._place = place

    @property
    def cursor(self) -> str | None:
        """The cursor to the next page; None when this page was not full, and so the last."""
        if self._place is None:
            return None
        data = encode([_digest(self._identity), self._origin, self._place])
        return base64.urlsafe_b64encode(data + append_crc(data)).decode()


def _digest(identity: Identity) -> int:
    """A checksum of the identity: equal for equal queries."""
    number, where, order = identity
    try:
        return crc32(encode_sorted([number, where, order]))
    except (TypeError, ValueError):  # a map that is no dict, or a value of another type
        return crc32(encode_sorted([number, _plainly(where), order]))


def _plainly(value: Any) -> Any:
    """A part of a parsed filter in plain types: equal for filters that mean the same."""
    if isinstance(value, Mapping):
        return {str.__str__(name): _plainly(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plainly(item) for item in value]
    try:
        return plain_scalar(value)
    except InvalidDocumentError:  # a time beyond UTC
        return repr(value)


def open_cursor(cursor: str, identity: Identity) -> tuple[int, Place]:
    """The origin of a cursor (the number of an index, or a constant of query.py for a scan of
    documents or a sorted result) and its place. Raises CursorError."""
    try:
        data = base64.urlsafe_b64decode(cursor.encode("ascii"))
        if not crc_matches(data):
            raise ValueError("damaged")
        digest, origin, place = decode(data[:-CRC_SIZE])
        if type(origin) is not int or type(place) is not bytes:
            raise ValueError("not of these types")
    except (AmberError, ValueError, TypeError, AttributeError, RecursionError, binascii.Error):
        raise CursorError("not a valid cursor: pass page.cursor unchanged") from None
    if digest != _digest(identity):
        raise CursorError(
            "this cursor belongs to another query: use the collection, filter and order of its page"
        )
    return origin, place


def projector(fields: Sequence[str]) -> Callable[[Document], Projection]:
    """A function that copies these fields of a document, given as dotted paths. Raises
    QueryError."""
    if isinstance(fields, str):
        raise QueryError(f"fields must be a list of fields, not the str {fields!r}")
    try:
        paths = [Path.of(name) for name in fields]
    except (ValueError, TypeError, AttributeError) as error:
        raise QueryError(f"fields: {error}") from None

    def project(document: Document) -> Projection:
        projection = Projection()
        for path in paths:
            value = path.get(document)
            if value is MISSING:
                continue
            parent: dict[str, Any] = projection
            for name in path.segments[:-1]:
                child: Any = parent.setdefault(name, {})
                if type(child) is not dict:
                    break  # a list, which a shorter path has copied whole
                parent = cast(dict[str, Any], child)
            else:
                parent[path.segments[-1]] = value
        return projection

    return project
