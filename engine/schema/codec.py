"""The codec: documents and log payloads to msgpack and back. The one place that calls msgspec.

A vector, a numpy array of float32, is a msgpack extension of type 1: its elements, little-endian.

Invariants:
- `decode(encode(x)) == x` for every normalised document: datetimes as aware UTC (msgpack
  timestamps), bytes as bytes, ints within 64 bits.
- Bytes that are not what was encoded raise CorruptionError, never anything else.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

import msgspec

from amberdb._errors import CorruptionError
from amberdb._types import Document

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T", bound=msgspec.Struct)

_VECTOR = 1
_IS_LITTLE = sys.byteorder == "little"


def _encode_vector(value: Any) -> msgspec.msgpack.Ext:
    """For whatever msgspec does not know: of what a normalised document holds, only arrays."""
    return msgspec.msgpack.Ext(_VECTOR, value.astype("<f4", copy=False).tobytes())


def _decode_vector(code: int, data: memoryview) -> "NDArray[np.float32]":
    import numpy as np  # a database without vectors never needs it

    if code != _VECTOR or len(data) % 4:
        raise ValueError(f"an extension of type {code} and {len(data)} bytes")
    # Over bytes of its own: read-only, aligned, and without the rest of the document.
    array: NDArray[np.float32] = np.frombuffer(bytes(data), "<f4")
    return array if _IS_LITTLE else array.astype(np.float32)


encode = msgspec.msgpack.Encoder(enc_hook=_encode_vector).encode
encode_sorted = msgspec.msgpack.Encoder(order="sorted").encode
decode_unchecked = msgspec.msgpack.Decoder(ext_hook=_decode_vector).decode
"""For bytes whose checksum was right: they are ours."""

ArchivedRecord: TypeAlias = tuple[int, int, int, bytes]
"""(lsn, time_us, kind, payload) of a log record, as a backup has it."""

_decode_records = msgspec.msgpack.Decoder(list[ArchivedRecord]).decode
_decode_effects = msgspec.msgpack.Decoder(dict[bytes, bytes | None]).decode


def decode(data: bytes) -> Any:
    try:
        return decode_unchecked(data)
    except (msgspec.MsgspecError, OverflowError, RecursionError, ValueError) as error:
        raise CorruptionError(f"not msgpack: {error}") from error


def map_decoder(kind: type[T]) -> Callable[[bytes], T]:
    """A decoder of maps with the fields of a msgspec.Struct. It raises CorruptionError."""
    decode_map = msgspec.msgpack.Decoder(kind).decode

    def decoded(data: bytes) -> T:
        try:
            return decode_map(data)
        except (msgspec.MsgspecError, OverflowError, RecursionError, ValueError) as error:
            raise CorruptionError(
                f"unknown or missing field, or wrong type (written by a newer version?): {error}"
            ) from error

    return decoded


def decode_document(data: bytes) -> Document:
    document = decode(data)
    if type(document) is not dict:
        raise CorruptionError("a stored document is not a map")
    return cast(Document, document)


def decode_records(payload: bytes) -> list[ArchivedRecord]:
    """A block of a backup that has records of the log."""
    try:
        return _decode_records(payload)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptionError(f"no list of records: {error}") from error


def decode_effects(payload: bytes) -> dict[bytes, bytes | None]:
    """The payload of a log record: a map of keys to values, nil for what is gone."""
    try:
        return _decode_effects(payload)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptionError(f"a log record's payload is damaged: {error}") from error


KIND_COMMIT: Final = 1


KIND_EXPIRY: Final = 2
"""A commit of the reaper, or of db.expire(): its deletes are removals of the expired."""
