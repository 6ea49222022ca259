"""From the key of an entry back to the values of its fields.

Invariants:
- Only what the key tells is decoded: None and a missing field, lists and maps have keys that are
  not theirs alone, and decode to nothing.
- Numbers are decoded for an index in which no float is a whole number (see KeyEncoder.is_lossy):
  those are ints.
"""

from math import isinf
from struct import Struct
from typing import Any, Final

from amberdb._time import time_of
from amberdb.index.ordered.keys import (
    DATETIME_ZERO,
    DIFFERENCE_ZERO,
    EXACT_INTS,
    TAG_BOOL,
    TAG_BYTES,
    TAG_DATETIME,
    TAG_NUMBER,
    TAG_STR,
    inverted,
)

_DOUBLE = Struct(">d")
_DIFFERENCE = Struct(">H")
_U64 = Struct(">Q")
assert _DOUBLE.size == _U64.size == 8
assert _DIFFERENCE.size == 2

_END: Final = b"\0\0"
_ESCAPED: Final = b"\0\xff"


def decoded(key: bytes, start: int, descending: tuple[bool, ...]) -> list[Any] | None:
    """The values of the fields in a key from `start` on, each of which may descend; None when one
    of them does not follow from the key."""
    turned = inverted(key)
    values: list[Any] = []
    at = start
    for descends in descending:
        data, other = (turned, key) if descends else (key, turned)
        tag = data[at]
        if tag in (TAG_STR, TAG_BYTES):
            end = data.index(_END, at + 1)
            text = data[at + 1 : end]
            if _ESCAPED in text:
                text = text.replace(_ESCAPED, b"\0")
            values.append(text.decode() if tag == TAG_STR else text)
            at = end + 2
        elif tag == TAG_NUMBER:
            number, size = _number(data, other, at + 1)
            values.append(number)
            at += 1 + size
        elif tag == TAG_DATETIME:
            values.append(time_of(_U64.unpack_from(data, at + 1)[0] - DATETIME_ZERO))
            at += 9
        elif tag == TAG_BOOL:
            values.append(data[at + 1] == 1)
            at += 2
        else:
            return None
    return values


def _number(data: bytes, other: bytes, at: int) -> tuple[int | float, int]:
    """A number and the size of its key; `other` is the key with every bit inverted."""
    if data[at] & 0x80:
        double: float = -_DOUBLE.unpack_from(data, at)[0]
    else:
        double = _DOUBLE.unpack_from(other, at)[0]
    if -EXACT_INTS < double < EXACT_INTS:
        return (int(double) if double.is_integer() else double), 8
    if isinf(double):
        return double, 10
    return int(double) + _DIFFERENCE.unpack_from(data, at + 8)[0] - DIFFERENCE_ZERO, 10
