"""The format of a stored document: a fixed header, the msgpack body, and a checksum.

    version u64 | created_us i64 | updated_us i64 | expires_us i64 | rowid u64 | body | crc u32

Invariants:
- The checksum is a CRC-32 that starts from the CRC-32 of the document's key, so a value under the
  key of another document fails it. LMDB has no checksums: this one detects damage on read.
- `version` is the Lsn of the last write. The rowid changes only when the content of a search index
  does.
"""

from collections.abc import Callable
from struct import Struct
from typing import Final, NamedTuple, TypeAlias, cast
from zlib import crc32

from amberdb._bytes import CRC_RESIDUE, CRC_SIZE
from amberdb._errors import CorruptionError

_HEADER = Struct("<QqqqQ")
_CRC = Struct("<I")
HEADER_SIZE = 40
assert _HEADER.size == HEADER_SIZE
assert _CRC.size == CRC_SIZE
_VERSION = Struct("<Q")
_EXPIRES = Struct("<24xq")
assert _EXPIRES.size == 32
unpack_expires: Final[Callable[["bytes | memoryview"], tuple[int]]] = _EXPIRES.unpack_from
"""(expires_us,): expires_us() for loops over documents, where its call costs as much again."""
_ROWID = Struct("<Q")
_ROWID_OFFSET = 32

NEVER = (1 << 63) - 1
"""`expires_us` of a permanent document."""

BODY = slice(HEADER_SIZE, -CRC_SIZE)


class StoredDocument(NamedTuple):
    """A stored document, its body still encoded."""

    version: int
    created_us: int
    updated_us: int
    expires_us: int
    rowid: int
    body: bytes


# Not the class's own constructor, which costs as much as the rest of unpack().
_Make: TypeAlias = Callable[[type[StoredDocument], tuple[object, ...]], StoredDocument]
_stored = cast(_Make, tuple.__new__)  # pyright: ignore[reportUnknownMemberType]


def pack(
    key: bytes,
    version: int,
    created_us: int,
    updated_us: int,
    expires_us: int,
    rowid: int,
    body: bytes,
) -> bytes:
    """The value of a document under its key."""
    data = _HEADER.pack(version, created_us, updated_us, expires_us, rowid) + body
    return data + _CRC.pack(crc32(data, crc32(key)))


def repack(key: bytes, value: bytes, body: bytes) -> bytes:
    """The value of a document with another body."""
    data = value[:HEADER_SIZE] + body
    return data + _CRC.pack(crc32(data, crc32(key)))


def is_sound(key: bytes, value: bytes) -> bool:
    """Whether the checksum of a document is right."""
    return crc32(value, crc32(key)) == CRC_RESIDUE and len(value) > HEADER_SIZE + CRC_SIZE


def unpack(key: bytes, value: bytes) -> StoredDocument:
    """The document in the value of a key. Raises CorruptionError when the checksum fails."""
    if not is_sound(key, value):
        raise damaged(key)
    version, created, updated, expires, rowid = _HEADER.unpack_from(value)
    return _stored(StoredDocument, (version, created, updated, expires, rowid, value[BODY]))


def header_of(value: bytes) -> tuple[int, int, int, int, int]:
    """(version, created_us, updated_us, expires_us, rowid), of a value that was checked."""
    return _HEADER.unpack_from(value)


def version_of(value: bytes) -> int:
    """Only the version, of a value whose checksum was checked."""
    return int(_VERSION.unpack_from(value)[0])


def expires_us(value: bytes) -> int:
    """Only the time of expiry, of a value whose checksum was checked."""
    return unpack_expires(value)[0]


def rowid_of(value: bytes) -> int:
    """Only the rowid, of a value whose checksum was checked."""
    return int(_ROWID.unpack_from(value, _ROWID_OFFSET)[0])


def damaged(key: bytes, path: str | None = None) -> CorruptionError:
    """The error of a document that fails its checksum. Without a path, the view adds it."""
    error = CorruptionError(
        f"the document {key[4:].decode('utf-8', 'replace')!r} in keyspace "
        f"{int.from_bytes(key[:4])} fails its checksum: restore a backup, or delete it",
        key=key,
    )
    return error if path is None else error.at(path)
