"""The codec: documents and log payloads to msgpack and back. The one place that knows msgspec.

Invariants:
- `decode(encode(x)) == x` for every normalised document: datetimes as aware UTC (msgpack
  timestamps), bytes as bytes, ints within 64 bits.
- Bytes that are not what was encoded raise CorruptionError, never anything else.
"""

from typing import Any, cast

import msgspec

from amberdb._errors import CorruptionError
from amberdb._types import Document

encode = msgspec.msgpack.Encoder().encode
encode_sorted = msgspec.msgpack.Encoder(order="sorted").encode
decode_unchecked = msgspec.msgpack.Decoder().decode
"""For bytes whose checksum was right: they are ours."""

_decode_effects = msgspec.msgpack.Decoder(dict[bytes, bytes | None]).decode


def decode(data: bytes) -> Any:
    try:
        return decode_unchecked(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, OverflowError, ValueError) as error:
        raise CorruptionError(f"not msgpack: {error}") from error


def decode_document(data: bytes) -> Document:
    document = decode(data)
    if type(document) is not dict:
        raise CorruptionError("a stored document is not a map")
    return cast(Document, document)


def decode_effects(payload: bytes) -> dict[bytes, bytes | None]:
    """The payload of a log record: a map of keys to values, nil for what is gone."""
    try:
        return _decode_effects(payload)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptionError(f"a log record's payload is damaged: {error}") from error
