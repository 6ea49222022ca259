"""Documents at the door: what may be stored, and in which form.

Invariants:
- After `normalise` a document holds only what the codec gives back as it was: plain None, bool,
  int of 64 bits, float that is not NaN, str without lone surrogates (the encoder checks), bytes,
  aware datetime, list, and dict with str keys.
- The caller's objects are never changed.
"""

# What a document holds has no static type, so type(value) and its parts are unknown to pyright.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

import os
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, cast, final

from amberdb._errors import InvalidDocumentError, ProjectionError
from amberdb._types import Document

ID_BYTES_MAX = 480
DEPTH_MAX = 64
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1
_AS_IS = frozenset({str, bool, bytes, type(None)})
_TOO_DEEP = f"more than {DEPTH_MAX} levels of nesting"


@final
class Projection(dict[str, Any]):
    """Some fields of a document. put() refuses it, because storing it would lose the others."""


def is_map(document: object) -> bool:
    """Whether it may be a document: any map but a projection."""
    return isinstance(document, Mapping) and not isinstance(document, Projection)


class _Remove:
    def __repr__(self) -> str:
        return "amberdb.REMOVE"

    def __reduce__(self) -> str:
        return "REMOVE"


REMOVE: Final = _Remove()
"""As a value in update(): takes the field out of the document."""


def normalise(document: Mapping[str, Any]) -> Document:
    """The document in plain types; the same object when it is plain already.

    Raises InvalidDocumentError, its `field` naming the place.
    """
    if type(document) is not dict:
        if isinstance(document, Projection):
            raise ProjectionError("a projection has lost fields: get() the whole document first")
        if not isinstance(document, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidDocumentError(f"a document is a map, not {type(document).__name__}")
        document = dict(document)
    document = cast(Document, document)
    if _is_plain(document, 0):
        return document
    return _plain_map(document, "", 0)


def _is_plain(document: Document, depth: int) -> bool:
    """Whether nothing is to be converted or refused: one cheap pass for what nearly all are."""
    if depth > DEPTH_MAX:
        return False
    for name, value in document.items():
        if type(name) is not str:  # pyright: ignore[reportUnnecessaryComparison]
            return False
        kind = type(value)
        if kind in _AS_IS:
            continue
        if kind is int:
            if not _INT_MIN <= value <= _INT_MAX:
                return False
        elif kind is float:
            if value != value:
                return False
        elif kind is datetime:
            if value.tzinfo is not UTC:
                return False
        elif kind is dict:
            if not _is_plain(value, depth + 1):
                return False
        elif kind is list:
            if depth >= DEPTH_MAX:
                return False
            for item in value:
                if type(item) not in _AS_IS and not _is_plain({"": item}, depth + 1):
                    return False
        else:
            return False
    return True


def _plain(value: Any, field: str, depth: int) -> Any:
    """The value with subclasses and tuples turned into plain types, at every level."""
    if type(value) in _AS_IS:
        return value
    is_map = isinstance(value, Mapping)
    if not is_map and not isinstance(value, (list, tuple)):
        return _plain_scalar(value, field)
    if depth > DEPTH_MAX:
        raise _refused(field, _TOO_DEEP)
    if is_map:
        return _plain_map(value, field, depth)
    items = cast(Sequence[Any], value)
    return [_plain(item, f"{field}[{at}]", depth + 1) for at, item in enumerate(items)]


def _plain_map(value: Mapping[Any, Any], field: str, depth: int) -> Document:
    plain: Document = {}
    for name, item in value.items():
        if type(name) is not str:
            where = f"the map {field!r}" if field else "the document"
            raise InvalidDocumentError(f"{where} has the key {name!r}, not a str", field=field)
        plain[name] = _plain(item, f"{field}.{name}" if field else name, depth + 1)
    return plain


def _plain_scalar(value: Any, field: str) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        value = int(value)
        if not _INT_MIN <= value <= _INT_MAX:
            raise _refused(field, "an int beyond 64 bits")
        return value
    if isinstance(value, float):
        value = float(value)
        if value != value:
            raise _refused(field, "NaN")
        return value
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise _refused(field, "a datetime without a time zone")
        try:
            value = value.astimezone(UTC)
        except OverflowError:
            raise _refused(field, "a datetime outside the years 1 to 9999 of UTC") from None
        return datetime.combine(value.date(), value.timetz())  # out of any subclass
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise _refused(field, f"a value of type {type(value).__module__}.{type(value).__qualname__}")


def _refused(field: str, what: str) -> InvalidDocumentError:
    return InvalidDocumentError(f"the field {field!r} holds {what}", field=field)


def surrogate_error(document: Document) -> InvalidDocumentError:
    """Why the encoder refused a normalised document. Hot paths leave the search to it."""
    return _refused(_surrogate_place(document, "") or "", "a str with a lone surrogate")


def _surrogate_place(value: Any, field: str) -> str | None:
    """The first field with a lone surrogate, or the map that has one in a key."""
    inside: list[str | None] = []
    if type(value) is dict:
        items = cast(Document, value).items()
        if any(_has_surrogate(name) for name in value):
            return field
        inside = [_surrogate_place(v, f"{field}.{name}" if field else name) for name, v in items]
    elif type(value) is list:
        inside = [_surrogate_place(item, f"{field}[{at}]") for at, item in enumerate(value)]
    elif type(value) is str and _has_surrogate(value):
        return field
    return next((place for place in inside if place is not None), None)


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= sign <= "\udfff" for sign in text)


def merge(document: Document, patch: Mapping[str, Any], depth: int = 0) -> Document:
    """The document with the patch laid over it: maps are merged, REMOVE takes a field out.

    Raises InvalidDocumentError.
    """
    if not isinstance(patch, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidDocumentError(f"a patch is a map, not {type(patch).__name__}")
    if depth > DEPTH_MAX:
        raise InvalidDocumentError(f"the patch has {_TOO_DEEP}")
    merged = dict(document)
    for name, value in patch.items():
        if value is REMOVE:
            merged.pop(name, None)
        elif isinstance(value, Mapping):
            below = merged.get(name)
            inner = cast(Document, below) if type(below) is dict else {}
            merged[name] = merge(inner, cast(Mapping[str, Any], value), depth + 1)
        else:
            merged[name] = value
    return merged


def encode_id(value: object) -> bytes:
    """The bytes of a document's id: 1 to 480 bytes of UTF-8. Raises InvalidDocumentError."""
    if type(value) is not str:
        raise InvalidDocumentError(
            f"an id is a str, not {type(value).__name__}: {value!r}", field="id"
        )
    try:
        data = value.encode()
    except UnicodeEncodeError:
        raise InvalidDocumentError("an id with a lone surrogate", field="id") from None
    if not 0 < len(data) <= ID_BYTES_MAX:
        raise InvalidDocumentError(
            f"an id has 1 to {ID_BYTES_MAX} bytes of UTF-8, not {len(data)}: hash long names",
            field="id",
        )
    return data


class IdMaker:
    """New ids: 24 hex digits that sort by time; 48 bits of milliseconds, 48 random or counted.

    Within one millisecond the number grows by one, so ids of one process never step back.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._ms = 0
        self._low = 0

    def __call__(self) -> str:
        ms = time.time_ns() // 1_000_000
        with self._mutex:
            if ms > self._ms:
                self._ms = ms
                self._low = int.from_bytes(os.urandom(6)) >> 1
            else:
                self._low += 1
            return f"{self._ms:012x}{self._low:012x}"


new_id = IdMaker()
