"""Order-preserving key encoding: values to bytes that sort as the values do.

Invariants:
- The total order is None (and missing) < bool < number < str < bytes < datetime < list < map.
  int and float compare exactly, -0.0 is 0.0, str compares by code point, datetime by instant.
- encode(a) < encode(b) exactly when a sorts before b, and they are equal exactly when neither
  does. All lists are equal in this order, and so are all maps: a reader compares the values.
- No encoding is a proper prefix of another, so concatenated encodings sort as tuples.
  Inverting every byte reverses the order and keeps that property.
- Only key_decoder.py decodes keys, where nothing was lost; otherwise the document is read by the id
  in the entry's value.

Format of a field (docs/format.md draws it): one byte of class tag, then
    bool        1 byte: 0 or 1
    number      8 bytes of IEEE 754 double, big-endian, the sign bit inverted for positive ones
                and every bit for negative ones; from 2**53 on (infinity included) 2 more bytes:
                the exact int minus the double, plus 0x8000
    str, bytes  the bytes (of UTF-8) with 00 written as 00 FF, then 00 00
    datetime    8 bytes: microseconds since 1970-01-01 UTC plus 2**63, big-endian
    None, list, map   nothing
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from struct import Struct
from typing import Any, Final

from amberdb._errors import InvalidDocumentError
from amberdb._plain import INT_MAX, INT_MIN, SURROGATE, plain_scalar
from amberdb._time import microseconds

KEYSPACE_BYTES = 4
ROWID_BYTES = 8
LMDB_KEY_BYTES_MAX = 511
FIELD_KEY_BYTES_MAX = LMDB_KEY_BYTES_MAX - KEYSPACE_BYTES - ROWID_BYTES
"""The bytes of fields that fit between the keyspace and the rowid of one entry."""
DIGEST_BYTES = 8
CUT_BYTES = FIELD_KEY_BYTES_MAX - DIGEST_BYTES
"""The bytes that an entry key keeps of fields with FIELD_KEY_BYTES_MAX bytes or more; a digest of
the rest follows, and the rest itself goes into the entry's value."""

TAG_NONE, TAG_BOOL, TAG_NUMBER, TAG_STR = 0x10, 0x20, 0x30, 0x40
TAG_BYTES, TAG_DATETIME, TAG_LIST, TAG_MAP = 0x50, 0x60, 0x70, 0x80
# The gaps leave room for future classes; none is 00 or FF, so a class has a byte on each side.

Encoder = Callable[[Any], bytes]

EXACT_INTS = 1 << 53
"""Every smaller int is exactly a double; from here on a key also has the difference."""
DIFFERENCE_ZERO = 0x8000
DATETIME_ZERO = 1 << 63
_ROWID_MAX = (1 << 64) - 1

_INVERTED: Final = bytes(255 - byte for byte in range(256))
_TAGGED_DOUBLE = Struct(">Bd")
_TAGGED_U64 = Struct(">BQ")
_U16 = Struct(">H")
_U64 = Struct(">Q")
assert _TAGGED_DOUBLE.size == _TAGGED_U64.size == 9
assert _U64.size == ROWID_BYTES
assert _U16.size == 2

_pack_number = _TAGGED_DOUBLE.pack
_pack_datetime = _TAGGED_U64.pack
_TAG_NUMBER_INVERTED = 0xFF - TAG_NUMBER
_ZERO = _pack_number(TAG_NUMBER, -0.0)
_NONE, _LIST, _MAP = bytes([TAG_NONE]), bytes([TAG_LIST]), bytes([TAG_MAP])
_FALSE, _TRUE = bytes([TAG_BOOL, 0]), bytes([TAG_BOOL, 1])
_STR_TAG, _BYTES_TAG = chr(TAG_STR), bytes([TAG_BYTES])
_NO_DIFF = _U16.pack(DIFFERENCE_ZERO)


# -- encoding --------------------------------------------------------------------------------


def _encode_none(_: None) -> bytes:
    return _NONE


def _encode_bool(value: bool) -> bytes:
    return _TRUE if value else _FALSE


def _encode_int(value: int) -> bytes:
    if -EXACT_INTS < value < EXACT_INTS:
        if value > 0:  # negating a double flips its top bit
            return _pack_number(TAG_NUMBER, -value)
        if value:
            return _pack_number(_TAG_NUMBER_INVERTED, value).translate(_INVERTED)
        return _ZERO
    if not INT_MIN <= value <= INT_MAX:
        raise InvalidDocumentError(f"an int beyond 64 bits: {value:#x}")
    double = float(value)
    return _encode_double(double) + _U16.pack(value - int(double) + DIFFERENCE_ZERO)


def _encode_float(value: float) -> bytes:
    if -EXACT_INTS < value < EXACT_INTS:
        return _encode_double(value)
    if value != value:
        raise InvalidDocumentError("NaN, which has no place in any order")
    return _encode_double(value) + _NO_DIFF


def _encode_double(value: float) -> bytes:
    if value > 0.0:
        return _pack_number(TAG_NUMBER, -value)
    if value < 0.0:
        return _pack_number(_TAG_NUMBER_INVERTED, value).translate(_INVERTED)
    return _ZERO


def _encode_str(value: str) -> bytes:
    try:
        if "\x00" not in value:
            return f"{_STR_TAG}{value}\x00\x00".encode()
        data = value.encode()
    except UnicodeEncodeError:
        raise InvalidDocumentError(SURROGATE) from None
    return _STR_TAG.encode() + data.replace(b"\x00", b"\x00\xff") + b"\x00\x00"


def _encode_bytes(value: bytes) -> bytes:
    if b"\x00" in value:
        value = value.replace(b"\x00", b"\x00\xff")
    return _BYTES_TAG + value + b"\x00\x00"


def _encode_datetime(value: datetime) -> bytes:
    global _last_datetime
    last, key = _last_datetime
    if value is last:  # several indexes of one document have the same field
        return key
    try:
        key = _pack_datetime(TAG_DATETIME, microseconds(value) + DATETIME_ZERO)
    except TypeError:
        raise InvalidDocumentError("a datetime without a time zone") from None
    _last_datetime = (value, key)
    return key


_last_datetime: tuple[datetime | None, bytes] = (None, b"")


def _encode_list(_: Any) -> bytes:
    return _LIST


def _encode_map(_: Any) -> bytes:
    return _MAP


SCALAR_ENCODERS: Final[dict[object, Encoder]] = {
    str: _encode_str,
    int: _encode_int,
    datetime: _encode_datetime,
    float: _encode_float,
    type(None): _encode_none,
    bool: _encode_bool,
    bytes: _encode_bytes,
}
_ENCODERS: Final[dict[object, Encoder]] = {
    **SCALAR_ENCODERS,
    list: _encode_list,
    tuple: _encode_list,
    dict: _encode_map,
}
_encoder_for: Final[Callable[[object], Encoder | None]] = _ENCODERS.get


def encode(value: object) -> bytes:
    """The key of one value. Raises InvalidDocumentError for a value that is not storable: NaN, an
    int beyond 64 bits, a lone surrogate, a datetime without a time zone, any other type."""
    encoder = _encoder_for(type(value))
    return encoder(value) if encoder is not None else _encode_other(value)


def encode_desc(value: object) -> bytes:
    """encode() with every byte inverted: sorts in descending order."""
    return encode(value).translate(_INVERTED)


def inverted(key: bytes) -> bytes:
    """From encode(value) to encode_desc(value)."""
    return key.translate(_INVERTED)


def _encode_other(value: object) -> bytes:
    """The key of a value that is not of a plain type."""
    if isinstance(value, Mapping):
        return _MAP
    if isinstance(value, (list, tuple)):
        return _LIST
    plain = plain_scalar(value)
    return _ENCODERS[type(plain)](plain)


def _descending(encoder: Encoder) -> Encoder:
    return lambda value: encoder(value).translate(_INVERTED)


SCALAR_ENCODERS_DESC: Final[dict[object, Encoder]] = {
    kind: _descending(encoder) for kind, encoder in SCALAR_ENCODERS.items()
}


def encode_rowid(rowid: int) -> bytes:
    """The end of an entry key: 8 bytes, big-endian."""
    return _U64.pack(rowid)


def encode_rowid_desc(rowid: int) -> bytes:
    """encode_rowid() inverted: ties in a descending index descend too."""
    return _U64.pack(rowid ^ _ROWID_MAX)


# -- classes ---------------------------------------------------------------------------------


def class_range(key: bytes) -> tuple[bytes, bytes]:
    """Bounds of the class of a value, from its key of encode() or encode_desc(): low <= key < high
    for exactly the keys of the values in it."""
    tag = key[0]
    return bytes([tag]), bytes([tag + 1])


def after_prefix(key: bytes) -> bytes | None:
    """From the key of a str, or of bytes: keys from it on and before the one that is returned are
    those of the values that begin with it. None: those to the end of the class."""
    head = key[:-2].rstrip(b"\xff")
    return head[:-1] + bytes([head[-1] + 1]) + b"\x00\x00" if len(head) > 1 else None


def text_of(key: bytes) -> bytes:
    """The UTF-8 of the str that encode() has made this key of."""
    return key[1:-2].replace(b"\x00\xff", b"\x00")
