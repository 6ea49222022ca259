"""Plain values: what callers pass, in the exact types that documents hold.

    str, int, float, bytes, datetime and their subclasses    StrEnum, IntEnum, numpy.str_, Timestamp
    scalars of numpy and of libraries like it                numpy.int64(3), numpy.bool_(True)

The one place that decides which values are taken, for documents, ids, filters and keys of indexes
alike.

Invariants:
- A plain scalar is None, bool, int of 64 bits, float that is not NaN, str, bytes, or datetime in
  UTC; never an instance of a subclass.
- Methods of a subclass are not called where the base class has the value.
"""

from datetime import UTC, datetime
from typing import Any, Final, cast

from amberdb._errors import InvalidDocumentError

INT_MIN, INT_MAX = -(1 << 63), (1 << 63) - 1
STORABLE: Final = "None, bool, int, float, str, bytes, datetime, list or dict"
SURROGATE: Final = "a str with a lone surrogate (half of an emoji): cut text between characters"

_PLAIN: Final = frozenset({str, bool, bytes, type(None)})
_OF_ARRAYS: Final = frozenset({bool, int, float, str, bytes})
"""The types of scalars that are taken from libraries of arrays."""


def plain_text(value: object) -> str | None:
    """An instance of str, or of a subclass, as a str; None for anything else."""
    return str.__str__(value) if isinstance(value, str) else None


def has_surrogate(text: str) -> bool:
    """Whether UTF-8 cannot express it: half of an emoji, or bytes of a path that are no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def plain_scalar(value: Any) -> Any:
    """A single value in its plain type; lone surrogates are left to the encoders. Raises
    InvalidDocumentError, whose message names the value and what to do."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return _integer(int.__int__(value))
    if isinstance(value, float):
        return _number(float.__float__(value))
    if isinstance(value, datetime):
        return _instant(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(cast(bytes, value))
    if hasattr(value, "dtype") and getattr(value, "ndim", None) == 0:
        item = value.item()
        if type(item) in _OF_ARRAYS:
            return plain_scalar(item)
    raise InvalidDocumentError(f"a value of type {_type_of(value)}: {_advice(value)}")


def _integer(value: int) -> int:
    if not INT_MIN <= value <= INT_MAX:
        raise InvalidDocumentError("an int beyond 64 bits: store it as a str, or as a float")
    return value


def _number(value: float) -> float:
    if value != value:
        raise InvalidDocumentError("NaN, which equals nothing: use None, or leave the field out")
    return value


def _instant(value: datetime) -> datetime:
    try:
        offset = value.utcoffset()
    except Exception:  # of pandas.NaT, an instance of datetime
        raise InvalidDocumentError(
            f"{value!r}, a datetime without a time: use None, or leave the field out"
        ) from None
    if offset is None:
        raise InvalidDocumentError(
            "a datetime without a time zone: give it one, as in datetime.now(UTC)"
        )
    try:
        value = value.astimezone(UTC)
    except OverflowError:
        raise InvalidDocumentError(
            "a datetime outside the years 1 to 9999 of UTC: give it the zone UTC"
        ) from None
    return datetime.combine(value.date(), value.timetz())  # not of a subclass


def _type_of(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _advice(value: object) -> str:
    name = _type_of(value)
    if name in ("uuid.UUID", "decimal.Decimal") or name.startswith("pathlib."):
        return "store str(value)"
    if name == "datetime.date":
        return "store a datetime with a time zone, or value.isoformat()"
    if isinstance(value, (set, frozenset)):
        return "store a list"
    if hasattr(value, "tolist"):
        return "store value.tolist(), or declare a Vector index for the field"
    return f"use {STORABLE}"
