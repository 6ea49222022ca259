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
from dataclasses import dataclass
from datetime import datetime
from reprlib import repr as shorten
from typing import TYPE_CHECKING, Any, TypeAlias, cast, final
from zlib import crc32

from amberdb._bytes import CRC_SIZE, append_crc, crc_matches
from amberdb._errors import AmberError, CursorError, InvalidDocumentError, QueryError
from amberdb._plain import plain_scalar
from amberdb._public import public
from amberdb._time import time_of
from amberdb._types import Document, FieldPath, Lsn, Where
from amberdb.engine.query.order import OrderField
from amberdb.engine.schema.codec import decode, encode, encode_sorted
from amberdb.engine.schema.document_format import header_of
from amberdb.engine.schema.documents import Projection
from amberdb.engine.storage.source import Place
from amberdb.index.paths import MISSING, Path, path_name

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    _T = TypeVar("_T", default=Document)
else:  # without a default before Python 3.13
    from typing import TypeVar

    _T = TypeVar("_T")

Identity: TypeAlias = tuple[int, Where | None, tuple[OrderField, ...]]
"""The collection's number, the filter and the order of a query."""


@public
@final
@dataclass(frozen=True, slots=True)
class Record:
    """A document with its version and its times, as record() and find(records=True) return it."""

    id: str
    version: Lsn
    """The Lsn of its last write: for `update(..., if_version=)`."""
    created_at: datetime
    """When it was first stored, in UTC."""
    updated_at: datetime
    """When it was last written, in UTC."""
    document: Document


@public
@final
class Page(list[_T]):
    """A list with a cursor to the next page, `find(..., after=page.cursor)`: of documents, or with
    `find(records=True)` of records, a Page[Record].

    It is equal to a list of the same items.
    """

    __slots__ = ("_next",)

    def __init__(self, items: Iterable[_T] = (), cursor: str | None = None) -> None:
        super().__init__(items)
        self._next: str | tuple[Identity, int, Place] | None = cursor

    def __repr__(self) -> str:
        ending = "last page" if self._next is None else "next page: after=page.cursor"
        return f"<amberdb.Page of {len(self)}, {ending}: {shorten(list(self))}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Page, (list(self), self.cursor)

    def stop_at(self, identity: Identity, origin: int, place: Place) -> None:
        """Sets the place of the last document, from which the cursor is made. find() calls it when
        the page is full, so that there may be more documents."""
        self._next = identity, origin, place

    @property
    def cursor(self) -> str | None:
        """The cursor to the next page; None when this page was not full, and so the last."""
        if isinstance(self._next, tuple):
            identity, origin, place = self._next
            self._next = cursor_of([digest_of(identity), origin, place])
        return self._next


def record_of(stored: bytes, document: Document, kept: Document) -> Record:
    """The record of a stored value and its document, of which `kept` is returned."""
    version, created_us, updated_us, _, _ = header_of(stored)
    created_at = time_of(created_us)
    updated_at = created_at if updated_us == created_us else time_of(updated_us)
    return Record(document["id"], Lsn(version), created_at, updated_at, kept)


def digest_of(identity: Sequence[Any]) -> int:
    """A checksum of what a query is: equal for equal queries."""
    try:
        return crc32(encode_sorted(identity))
    except (TypeError, ValueError):  # a map that is no dict, or a value of another type
        return crc32(encode_sorted(_plainly(identity)))


def _plainly(value: Any) -> Any:
    """A part of a parsed filter in plain types: equal for filters that mean the same."""
    if isinstance(value, Mapping):
        return {_plain_name(name): _plainly(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plainly(item) for item in value]
    try:
        return plain_scalar(value)
    except InvalidDocumentError:  # a time beyond UTC
        return repr(value)


def _plain_name(name: Any) -> str:
    name = path_name(name)
    return str.__str__(name)


def cursor_of(parts: Sequence[Any]) -> str:
    """A cursor that holds these parts."""
    data = encode(parts)
    return base64.urlsafe_b64encode(data + append_crc(data)).decode()


def parts_of(cursor: str, *types: type) -> list[Any]:
    """The parts of a cursor, which are of these types. Raises CursorError."""
    try:
        data = base64.urlsafe_b64decode(cursor.encode("ascii"))
        if not crc_matches(data):
            raise ValueError("damaged")
        parts: list[Any] = decode(data[:-CRC_SIZE])
        if tuple(map(type, parts)) != types:
            raise ValueError("not of these types")
    except (AmberError, ValueError, TypeError, AttributeError, RecursionError, binascii.Error):
        raise CursorError("not a valid cursor: pass the cursor of a page unchanged") from None
    return parts


def open_cursor(cursor: str, identity: Identity) -> tuple[int, Place]:
    """The origin of a cursor (the number of an index, or a constant of query.py for a scan of
    documents or a sorted result) and its place. Raises CursorError."""
    digest, origin, place = parts_of(cursor, int, int, bytes)
    if digest != digest_of(identity):
        raise CursorError(
            "this cursor belongs to another query: use the collection, filter and order of its page"
        )
    return origin, place


def parse_field(field: FieldPath, argument: str) -> Path:
    """The path of a field that an argument names. Raises QueryError."""
    try:
        return Path.of(path_name(field))
    except (ValueError, TypeError) as error:
        raise QueryError(f"{argument}: {error}") from None


def parse_fields(fields: Sequence[FieldPath]) -> list[Path]:
    """The paths of the fields of a projection. Raises QueryError."""
    if isinstance(fields, str):
        raise QueryError(f"fields must be a list of fields, not the str {fields!r}")
    try:
        return [Path.of(path_name(name)) for name in fields]
    except (ValueError, TypeError, AttributeError) as error:
        raise QueryError(f"fields: {error}") from None


def projector(fields: Sequence[FieldPath]) -> Callable[[Document], Projection]:
    """projecting() of fields that are given as dotted paths. Raises QueryError."""
    return projecting(parse_fields(fields))


def projecting(paths: Sequence[Path]) -> Callable[[Document], Projection]:
    """A function that copies the values at these paths of a document."""

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
