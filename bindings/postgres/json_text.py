"""Documents as the text of a jsonb column, and back.

    {"$amber": ["float", "1e+300"]}     what jsonb would change: a float that it returns as an int,
                                        the sign of a zero, an infinity
    {"$amber": ["str", "YQBi"]}         what it refuses: a text with NUL, as base64 of UTF-8
    {"$amber": ["bytes", "AAE="]}       what JSON cannot say
    {"$amber": ["datetime", "2026-01-01T00:00:00.000000Z"]}
    {"$amber": ["vector", "64"]}        vectors of a Vector index, which are in its table: of 64
    {"$amber": ["vectors", "64"]}       numbers, one alone or several
    {"$amber": ["array", "AACAPw=="]}   any other array of float32
    {"$amber": ["arrays", "64:AAC..."]} one of two dimensions
    {"$amber:YQBi": ...}                a name with NUL, or one that begins with $amber

Invariants:
- loads(dumps(x)) == x with equal types, after the column has parsed the text and written it anew.
  The order of names in a map is that of the server.
- A map stays a map, so a path leads to the same value in the column as in the document.
"""

# The values of a document have no static type, so parts of maps and lists are unknown to pyright.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, cast

import msgspec

from amberdb._errors import CorruptionError
from amberdb._types import Document
from amberdb.engine.schema.codec import decode_document, vector_array

_VERSION: Final = b"\x01"
"""In front of the text where the column is sent in its binary format. No document that the codec
has encoded begins so."""
MARK: Final = "$amber"
_NAME: Final = MARK + ":"
_has_names = re.compile(re.escape(_NAME).encode()).search
_EXACT: Final = 1e15
"""Floats that are larger are written with an exponent, which jsonb expands to the digits of an
int."""
_encode = msgspec.json.Encoder().encode


class Beside(NamedTuple):
    """In a document in place of vectors that are in a table."""

    dim: int
    several: bool


_decode = msgspec.json.Decoder().decode


def dumps(document: Document) -> str:
    """The text of a normalised document."""
    return _encode(_guarded_map(document)).decode()


def dumps_binary(document: Document) -> bytes:
    """The same in the binary format."""
    return _VERSION + _encode(_guarded_map(document))


def loads(body: bytes) -> Document:
    """The document that dumps_binary() wrote, or the codec. Raises CorruptionError."""
    if not body.startswith(_VERSION):
        return decode_document(body)
    try:
        text = body[1:]
        value = _decode(text)
        if b"$" in text:  # one byte is found in half the time of the mark
            value = _plain_names(_plain(value)) if _has_names(text) else _plain(value)
        return cast(Document, value)
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
        raise CorruptionError(
            f"a document on the server was changed by another program: {error}"
        ) from error


def literal(value: Any) -> str | None:
    """A str or bool as jsonpath writes it; None for any other value."""
    if (type(value) is str and "\0" not in value) or type(value) is bool:
        return _encode(value).decode()
    return None


def _guarded_map(value: dict[str, Any]) -> dict[str, Any]:
    names = "".join(value)
    if "\0" in names or MARK in names:
        value = {_name(name): item for name, item in value.items()}
    guards = _GUARDS
    return {
        name: item if (guard := guards[type(item)]) is None else guard(item)
        for name, item in value.items()
    }


def _guarded_list(value: list[Any]) -> list[Any]:
    guards = _GUARDS
    return [item if (guard := guards[type(item)]) is None else guard(item) for item in value]


def _guarded_text(value: str) -> Any:
    return _marked("str", _base64(value.encode())) if "\0" in value else value


def _guarded_float(value: float) -> Any:
    if 1e-3 < value < _EXACT:
        return value
    text = repr(value)
    is_safe = -_EXACT < value < _EXACT and "e" not in text and text != "-0.0"
    return value if is_safe else _marked("float", text)


def _guarded_time(value: datetime) -> Any:
    """Of one width, so that texts sort as times do. The encoder writes it so, in a tenth of the
    time, where there are microseconds."""
    time = value if value.tzinfo is UTC else value.astimezone(UTC)
    if time.microsecond:
        return {MARK: ["datetime", time]}
    return _marked("datetime", time.isoformat(timespec="microseconds")[: -len("+00:00")] + "Z")


def _guarded_place(value: Beside) -> Any:
    return _marked("vectors" if value.several else "vector", str(value.dim))


def _guarded_array(value: Any) -> Any:
    numbers = _base64(value.astype("<f4", copy=False).tobytes())
    if value.ndim == 1:
        return _marked("array", numbers)
    return _marked("arrays", f"{value.shape[1]}:{numbers}")


class _Guards(dict[type, Callable[[Any], Any] | None]):
    """By type what makes a value ready; None: it is written as it is. An array is known by what it
    has, since numpy is loaded only where there are vectors."""

    def __missing__(self, kind: type) -> Callable[[Any], Any] | None:
        return _guarded_array if hasattr(kind, "dtype") else None


_GUARDS: Final = _Guards(
    {
        dict: _guarded_map,
        list: _guarded_list,
        str: _guarded_text,
        float: _guarded_float,
        datetime: _guarded_time,
        bytes: lambda value: _marked("bytes", _base64(value)),
        Beside: _guarded_place,
        **dict.fromkeys((int, bool, type(None))),
    }
)


def _marked(kind: str, text: str) -> dict[str, list[str]]:
    return {MARK: [kind, text]}


def _name(name: str) -> str:
    if "\0" in name or name.startswith(MARK):
        return _NAME + _base64(name.encode())
    return name


def _plain(value: Any) -> Any:
    """The value, its maps and lists changed in place; names stay as they are."""
    if type(value) is dict:
        if MARK in value:
            kind, text = value[MARK]
            return _READERS[kind](text)
        for name, item in value.items():
            if type(item) in _NESTED:
                value[name] = _plain(item)
    elif type(value) is list:
        value[:] = [_plain(item) if type(item) in _NESTED else item for item in value]
    return value


def _plain_names(value: Any) -> Any:
    if type(value) is dict:
        return {_plain_name(name): _plain_names(item) for name, item in value.items()}
    if type(value) is list:
        return [_plain_names(item) for item in value]
    return value


def _plain_name(name: str) -> str:
    return b64decode(name[len(_NAME) :]).decode() if name.startswith(_NAME) else name


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _text(text: str) -> str:
    return b64decode(text).decode()


def _vector(text: str) -> Beside:
    return Beside(int(text), several=False)


def _vectors(text: str) -> Beside:
    return Beside(int(text), several=True)


def _array(text: str) -> Any:
    return vector_array(b64decode(text))


def _arrays(text: str) -> Any:
    dim, _, numbers = text.partition(":")
    return vector_array(b64decode(numbers), int(dim))


_NESTED: Final = (dict, list)
_READERS: Final[dict[str, Callable[[str], Any]]] = {
    "str": _text,
    "float": float,
    "datetime": datetime.fromisoformat,
    "bytes": b64decode,
    "vector": _vector,
    "vectors": _vectors,
    "array": _array,
    "arrays": _arrays,
}
