"""Records as bytes: equal for records that are equal to type, in any database.

Invariants:
- The version is left out: each database counts its own.
- The order of names in a map does not count, that in a list does. 1, 1.0 and True differ, as 0.0
  and -0.0 do.
"""

from typing import Any, Final

import msgspec

from amberdb import Record

_VECTOR: Final = 1


def _array(value: Any) -> msgspec.msgpack.Ext:
    """A vector, or several: shape and elements."""
    shape = ",".join(map(str, value.shape)).encode()
    return msgspec.msgpack.Ext(_VECTOR, shape + b";" + value.astype("<f4", copy=False).tobytes())


_encode: Final = msgspec.msgpack.Encoder(enc_hook=_array, order="deterministic").encode


def canonical(record: Record) -> bytes:
    """The bytes of a record."""
    return _encode([record.created_at, record.updated_at, record.document])
