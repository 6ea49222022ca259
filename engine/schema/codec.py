"""The codec: documents and log payloads to msgpack and back. The one place that calls msgspec.

A vector, a numpy array of float32, is a msgpack extension of type 1: its elements, little-endian.
Several vectors of one field, an array of shape (n, dim), are one of type 2: dim, and all elements.
One of type 3 stands for either in LMDB: the place of the vectors (vector_block.py).

Invariants:
- `decode(encode(x)) == x` for every normalised document: datetimes as aware UTC (msgpack
  timestamps), bytes as bytes, ints within 64 bits.
- Bytes that encode() did not write raise CorruptionError and nothing else.
"""

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

import msgspec

from amberdb._errors import CorruptionError
from amberdb._types import Document
from amberdb.engine.schema.vector_block import PLACE_BYTES, StoredVector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T", bound=msgspec.Struct)

VECTOR: Final = 1
VECTORS: Final = 2
STORED: Final = 3
DIM_BYTES: Final = 4
_IS_LITTLE = sys.byteorder == "little"


def _encode_vector(value: Any) -> msgspec.msgpack.Ext:
    """Encodes a value that msgspec does not know. In a normalised document that is an array."""
    data: bytes = value.astype("<f4", copy=False).tobytes()
    if value.ndim == 1:
        return msgspec.msgpack.Ext(VECTOR, data)
    return msgspec.msgpack.Ext(VECTORS, value.shape[1].to_bytes(DIM_BYTES, "little") + data)


def decode_extension(code: int, data: memoryview) -> "NDArray[np.float32] | StoredVector":
    """The value of an extension. Raises ValueError."""
    if code == STORED:
        return place_in(data)
    if code == VECTORS:
        return _decode_vectors(data)
    if code != VECTOR or len(data) % 4:
        raise ValueError(f"an extension of type {code} and {len(data)} bytes")
    # A copy: read-only, aligned, and it does not keep the rest of the document in memory.
    return vector_array(bytes(data))


def vector_array(data: bytes, dim: int = 0) -> "NDArray[np.float32]":
    """The vector in these bytes, or with `dim` several, read-only, without a copy."""
    import numpy as np  # a database without vectors never needs it

    array: NDArray[np.float32] = np.frombuffer(data, "<f4")
    array = array if _IS_LITTLE else array.astype(np.float32)
    return array.reshape(-1, dim) if dim else array


def _decode_vectors(data: memoryview) -> "NDArray[np.float32]":
    dim = int.from_bytes(data[:DIM_BYTES], "little")
    if len(data) < DIM_BYTES or not dim or (len(data) - DIM_BYTES) % (4 * dim):
        raise ValueError(f"an extension of type {VECTORS}, {len(data)} bytes and dim {dim}")
    return vector_array(bytes(data[DIM_BYTES:]), dim)


def place_in(data: "bytes | memoryview") -> StoredVector:
    """The place in an extension of type 3. Raises ValueError."""
    if len(data) != PLACE_BYTES:
        raise ValueError(f"an extension of type {STORED} and {len(data)} bytes")
    return StoredVector(data)


Extension: TypeAlias = msgspec.msgpack.Ext
"""A value of an extension that is left as it is: `code` and `data`."""

encode = msgspec.msgpack.Encoder(enc_hook=_encode_vector).encode
encode_sorted = msgspec.msgpack.Encoder(order="sorted").encode
decode_unchecked = msgspec.msgpack.Decoder(ext_hook=decode_extension).decode
"""decode() for bytes whose checksum was correct: no error is turned into CorruptionError."""
decode_raw = msgspec.msgpack.Decoder().decode
"""decode_unchecked(), each extension left as an Extension."""


@lru_cache(maxsize=64)
def vector_decoder(field: str) -> "Callable[[bytes], tuple[int, memoryview] | None]":
    """A decoder of one vector field at the top of a document, for bytes whose checksum was correct,
    that skips all others: its dim, 0 for one vector alone, and its numbers as they are stored. None
    when the field is missing or has something else."""
    kind = msgspec.defstruct("_", [("value", Any, None)], rename={"value": field})

    def vector_hook(code: int, data: memoryview) -> "tuple[int, memoryview] | None":
        if code == VECTOR:
            return 0, data
        if code == VECTORS:
            return int.from_bytes(data[:DIM_BYTES], "little"), data[DIM_BYTES:]
        return None

    decode = msgspec.msgpack.Decoder(kind, ext_hook=vector_hook).decode

    def decoded(data: bytes) -> "tuple[int, memoryview] | None":
        found = cast(Any, decode(data)).value
        return cast(tuple[int, memoryview], found) if type(found) is tuple else None

    return decoded


ArchivedRecord: TypeAlias = tuple[int, int, int, bytes]
"""(lsn, time_us, kind, payload) of a log record in a backup."""

KIND_COMMIT: Final = 1
"""The kind of a log record that is an ordinary commit."""
KIND_EXPIRY: Final = 2
"""The kind of a commit of the reaper, or of db.expire(): its deletes are of expired documents."""

_decode_records = msgspec.msgpack.Decoder(list[ArchivedRecord]).decode
_decode_effects = msgspec.msgpack.Decoder(dict[bytes, bytes | None]).decode


def decode(data: bytes, unchecked: Callable[[bytes], Any] = decode_unchecked) -> Any:
    """The value that was encoded. Raises CorruptionError."""
    try:
        return unchecked(data)
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


def decode_document(data: bytes, unchecked: Callable[[bytes], Any] = decode_unchecked) -> Document:
    """The document, or another map, that was encoded. Raises CorruptionError."""
    document = decode(data, unchecked)
    if type(document) is not dict:
        raise CorruptionError("a stored document is not a map")
    return cast(Document, document)


def decode_records(payload: bytes) -> list[ArchivedRecord]:
    """The log records in a block of a backup. Raises CorruptionError."""
    try:
        return _decode_records(payload)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptionError(f"a backup's block of log records is damaged: {error}") from error


def decode_effects(payload: bytes) -> dict[bytes, bytes | None]:
    """The effects in the payload of a log record: keys and values, nil for a deleted key. Raises
    CorruptionError."""
    try:
        return _decode_effects(payload)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptionError(f"a log record's payload is damaged: {error}") from error
