"""Any Python value as a value that a document can hold.

    Decimal, UUID, Path, an int beyond 64 bits   text
    date, time; timedelta                        ISO 8601 text; seconds
    a datetime without a time zone               a datetime in UTC
    NaN, NaT                                     None
    half of an emoji                             U+FFFD in its place
    set, tuple, deque, array                     a list; of a set in a fixed order
    dataclass, named tuple, pydantic model       a map of the fields
    an Enum                                      its value
    any other object                             its repr

Invariants:
- It never raises, whatever the methods of an object do, and never changes what it is given.
- What a document can hold already comes back equal.
"""

# The values have no static type, so type(value) and its parts are unknown to pyright.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

import dataclasses
import enum
import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

REPR_MAX: Final = 10_000
"""Characters kept of the repr of an object."""
DEPTH_MAX: Final = 48
"""Levels of maps and lists that are kept; a document has a few more. What is below becomes text."""

_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1
_AS_IS: Final = frozenset({bool, bytes, type(None)})
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_AS_TEXT: Final = (Decimal, Fraction, UUID, PurePath, complex)
_AS_ISO: Final = (date, time)


def storable_text(text: str) -> str:
    """The text without lone surrogates."""
    if text.isascii() or _SURROGATE.search(text) is None:
        return str.__str__(text)
    # Two halves that stand side by side are one character.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def storable_map(value: Mapping[Any, Any]) -> dict[str, Any]:
    """The map with storable keys and values."""
    try:
        return _map(value, ())
    except Exception:  # of a method of the map, or another thread changes it
        return {"text": text_of(value, repr)}


def storable(value: Any) -> Any:
    """The value, or what is stored in its place."""
    return _value(value, ())


def text_of(value: object, read: Callable[[object], str] = str) -> str:
    """`str(value)`, cut to REPR_MAX characters, also of an object whose method raises."""
    try:
        return storable_text(read(value)[:REPR_MAX])
    except Exception as error:
        return f"<{type(value).__name__}, whose text cannot be read: {type(error).__name__}>"


def _value(value: Any, outer: tuple[int, ...]) -> Any:
    kind = type(value)
    if kind is str and value.isascii():  # as nearly all values are
        return value
    if kind in _AS_IS or (kind is int and _INT_MIN <= value <= _INT_MAX):
        return value
    if kind is dict and len(outer) < DEPTH_MAX and id(value) not in outer:
        return _map(value, outer)
    if isinstance(value, enum.Enum) and not isinstance(value, str | int):
        return _value(value.value, outer)
    try:
        return _scalar(value) if isinstance(value, _SCALARS) else _structure(value, outer)
    except Exception:  # of a method of the object
        return text_of(value, repr)


def _scalar(value: Any) -> Any:
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, int):
        number = int.__int__(value)
        return number if _INT_MIN <= number <= _INT_MAX else _digits(number)
    if isinstance(value, float):
        return float.__float__(value) if value == value else None
    if isinstance(value, datetime):
        return _instant(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, _AS_ISO):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    return text_of(value)


_SCALARS: Final = (str, int, float, *_AS_ISO, timedelta, bytes, bytearray, memoryview, *_AS_TEXT)


def _digits(number: int) -> str:
    try:
        return str(number)
    except ValueError:  # Python limits the digits that it converts
        return hex(number)[:REPR_MAX]


def _instant(value: datetime) -> datetime | str | None:
    if value != value:  # pandas.NaT
        return None
    try:
        if value.utcoffset() is None:
            value = value.replace(tzinfo=UTC)
        value = value.astimezone(UTC)
        return datetime.combine(value.date(), value.timetz())  # not of a subclass
    except OverflowError:
        return text_of(value)


def _structure(value: Any, outer: tuple[int, ...]) -> Any:
    if id(value) in outer or len(outer) >= DEPTH_MAX:
        return text_of(value, repr)
    if isinstance(value, Mapping):
        return _map(value, outer)
    inner = (*outer, id(value))
    if type(value) is list:
        return [_value(item, inner) for item in value]
    if (fields := _fields(value)) is not None:
        return _map(fields, inner)
    if isinstance(value, AbstractSet):
        items = [_value(item, inner) for item in value]
        return sorted(items, key=lambda item: (type(item).__name__, repr(item)))
    if isinstance(value, Sequence) or type(value).__name__ == "deque":
        return [_value(item, inner) for item in value]
    if hasattr(value, "tolist"):  # of an array, or a scalar of a library of arrays
        return _value(value.tolist(), inner)
    return text_of(value, repr)


def _fields(value: Any) -> Mapping[Any, Any] | None:
    """The fields of an object that is made of fields; None for any other."""
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    for method in ("model_dump", "_asdict"):
        if callable(dump := getattr(value, method, None)) and isinstance(fields := dump(), Mapping):
            return fields
    return None


def _map(value: Mapping[Any, Any], outer: tuple[int, ...]) -> dict[str, Any]:
    inner = (*outer, id(value))
    plain: dict[str, Any] = {}
    for key, item in value.items():
        name = key if type(key) is str and key.isascii() else _name(key, inner)
        while name in plain:  # 1 and "1" are two keys
            name += "'"
        plain[name] = _value(item, inner)
    return plain


def _name(key: Any, outer: tuple[int, ...]) -> str:
    return storable_text(key) if isinstance(key, str) else text_of(_value(key, outer))
