"""Checks and normal forms of documents, patches and ids that a caller passes in.

Invariants:
- After normalise() a document has only values that the codec decodes as they were: None, bool, int
  of 64 bits, float that is not NaN, str without lone surrogates (the encoder checks), bytes, aware
  datetime, list, and dict with str keys; no instances of subclasses.
- The caller's objects are never changed.
"""

# The values of a document have no static type, so type(value) and its parts are unknown to pyright.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, cast, final

from amberdb._call_lock import CallLock
from amberdb._errors import InvalidDocumentError, ProjectionError
from amberdb._plain import INT_MAX, INT_MIN, SURROGATE, plain_scalar, plain_text
from amberdb._public import public
from amberdb._types import Document

ID_BYTES_MAX = 480
DEPTH_MAX = 64
_AS_IS = frozenset({str, bool, bytes, type(None)})
_TOO_DEEP = f"more than {DEPTH_MAX} levels of nesting"


@public
@final
class Projection(dict[str, Any]):
    """Some fields of a document. put() refuses it, because storing it would lose the others."""


def is_map(document: object) -> bool:
    """Whether the object can be a document: any map except a projection."""
    return isinstance(document, Mapping) and not isinstance(document, Projection)


@public
class _Remove:
    def __repr__(self) -> str:
        return "amberdb.REMOVE"

    def __reduce__(self) -> str:
        return "REMOVE"


REMOVE: Final = _Remove()
"""As a value in update(): removes the field from the document."""


def normalise(document: Mapping[str, Any]) -> Document:
    """The document in plain types; the same object when it has no others.

    Raises InvalidDocumentError with the path of the value as `field`.
    """
    if type(document) is not dict:
        if isinstance(document, Projection):
            raise ProjectionError(
                "a projection lacks fields of its document: get() the whole document first"
            )
        if not isinstance(document, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidDocumentError(f"a document is a map, not {type(document).__name__}")
        document = dict(document)
    document = cast(Document, document)
    if _is_plain(document, 0):
        return document
    return _plain_map(document, "", 0)


def _is_plain(document: Document, depth: int) -> bool:
    """Whether nothing has to be converted or refused: one fast pass, enough for most documents."""
    if depth > DEPTH_MAX:
        return False
    for name, value in document.items():
        if type(name) is not str:  # pyright: ignore[reportUnnecessaryComparison]
            return False
        kind = type(value)
        if kind in _AS_IS:
            continue
        if kind is int:
            if not INT_MIN <= value <= INT_MAX:
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
    """The value with subclasses and tuples converted to plain types, at every level."""
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
    return [_plain(item, f"{field}[{index}]", depth + 1) for index, item in enumerate(items)]


def _plain_map(value: Mapping[Any, Any], field: str, depth: int) -> Document:
    plain: Document = {}
    for name, item in value.items():
        text = plain_text(name)
        if text is None:
            where = f"the map {field!r}" if field else "the document"
            raise InvalidDocumentError(
                f"{where} has the key {name!r}, not a str: name fields by text", field=field
            )
        plain[text] = _plain(item, f"{field}.{text}" if field else text, depth + 1)
    return plain


def _plain_scalar(value: Any, field: str) -> Any:
    if value is REMOVE:
        raise _refused(field, "amberdb.REMOVE: it is a value for update() alone")
    try:
        return plain_scalar(value)
    except InvalidDocumentError as error:
        raise _refused(field, error.message) from None


def _refused(field: str, value: str) -> InvalidDocumentError:
    """The error of a field with such a value."""
    return InvalidDocumentError(f"the field {field!r} holds {value}", field=field)


def surrogate_error(document: Document) -> InvalidDocumentError:
    """The error of a normalised document that the encoder refused, with the field: documents are
    searched for lone surrogates only then."""
    return _refused(_surrogate_path(document, "") or "", SURROGATE)


def _surrogate_path(value: Any, field: str) -> str | None:
    """The path of the first str with a lone surrogate, or of the map that has one in a key."""
    inside: list[str | None] = []
    if type(value) is dict:
        items = cast(Document, value).items()
        if any(has_surrogate(name) for name in value):
            return field
        inside = [_surrogate_path(v, f"{field}.{name}" if field else name) for name, v in items]
    elif type(value) is list:
        inside = [_surrogate_path(item, f"{field}[{index}]") for index, item in enumerate(value)]
    elif type(value) is str and has_surrogate(value):
        return field
    return next((path for path in inside if path is not None), None)


def has_surrogate(text: str) -> bool:
    """Whether a text cannot be encoded."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def encode_id(value: object) -> bytes:
    """The bytes of a document's id: 1 to 480 bytes of UTF-8. Raises InvalidDocumentError."""
    if type(value) is not str:
        text = plain_text(value)
        if text is None:
            raise InvalidDocumentError(
                f"an id is a str, not {type(value).__name__} ({value!r}): give text, as str() does",
                field="id",
            )
        value = text
    try:
        data = value.encode()
    except UnicodeEncodeError:
        raise InvalidDocumentError(f"the id holds {SURROGATE}", field="id") from None
    if not 0 < len(data) <= ID_BYTES_MAX:
        raise InvalidDocumentError(
            f"an id has 1 to {ID_BYTES_MAX} bytes of UTF-8, not {len(data)}: hash long names",
            field="id",
        )
    return data


class IdMaker:
    """Makes ids of 24 hex digits that sort by time: 48 bits of milliseconds, and 48 bits that are
    random for the first id of a millisecond and grow by one for each later one. The ids of one
    process ascend, also when the clock is set back.
    """

    def __init__(self) -> None:
        self._mutex = CallLock()
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
