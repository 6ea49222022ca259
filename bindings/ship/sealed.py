"""The sealed archive: the bytes of an archive, encrypted with AES-256-GCM in chunks.

    head    magic 8 | format u32 | salt 16 | check 16 | crc u32          48 bytes
    chunk   1 MiB of the archive, the last one less | tag 16

The key of a file and its check value are HKDF-SHA256(key, salt, "amberdb sealed archive"), 32 and
16 bytes. The nonce of a chunk is its number u64 | 1 in the last chunk, else 0 | three zeros; the
head is the associated data of every chunk.

Invariants:
- No byte is given out whose tag was not compared. A chunk that is missing, duplicated, out of
  order, cut or of another file is a BackupDamagedError with its offset.
- A wrong key is told from damage: it does not give the check value of a head that is sound.
- No key is used with a nonce twice: each file has a key of its own.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from struct import Struct
from typing import Any, Final
from zlib import crc32

from amberdb import BackupDamagedError, FormatError
from amberdb.ship.errors import ArchiveKeyError, ShipExtraError

MAGIC: Final = b"AMBERSEA"
FORMAT_VERSION: Final = 1
_HEAD: Final = Struct(">8sI16s16s")
_CRC: Final = Struct(">I")
_NONCE: Final = Struct(">QB3x")
HEAD_SIZE: Final = 48
CHUNK_SIZE: Final = 1 << 20
TAG_SIZE: Final = 16
STORED_SIZE: Final = CHUNK_SIZE + TAG_SIZE
assert _HEAD.size + _CRC.size == HEAD_SIZE
assert _NONCE.size == 12
_INFO: Final = b"amberdb sealed archive"


def sealed_size(size: int) -> int:
    """The size of the sealed archive of an archive."""
    chunks = max(1, -(-size // CHUNK_SIZE))
    return HEAD_SIZE + size + chunks * TAG_SIZE


def sealed(parts: Iterable[bytes], key: bytes) -> Iterator[bytes]:
    """The sealed archive. Each part but the last has CHUNK_SIZE bytes. Raises ShipExtraError."""
    salt = os.urandom(16)
    cipher, check = _derived(key, salt)
    head = _HEAD.pack(MAGIC, FORMAT_VERSION, salt, check)
    head += _CRC.pack(crc32(head))
    yield head
    number, before = 0, b""
    for number, part in enumerate(parts):
        if number:
            yield cipher.encrypt(_NONCE.pack(number - 1, 0), before, head)
        before = part
    yield cipher.encrypt(_NONCE.pack(number, 1), before, head)


def unsealed(
    read: Callable[[int, int], bytes], size: int, key: bytes, where: str, chunks: int | None = None
) -> Iterator[bytes]:
    """The archive, or its first `chunks` ones. `read(offset, length)` gives bytes of the sealed
    one, which has `size`; `where` names it in errors. Raises ArchiveKeyError, BackupDamagedError,
    FormatError, ShipExtraError."""
    head = read(0, min(HEAD_SIZE, size))
    cipher = _checked_head(head, size, key, where)
    number, offset = 0, HEAD_SIZE
    while (number == 0 or offset < size) and number != chunks:
        stored = read(offset, min(STORED_SIZE, size - offset)) if offset < size else b""
        is_last = offset + STORED_SIZE >= size
        yield _opened(cipher, _NONCE.pack(number, is_last), stored, head, where, offset)
        number, offset = number + 1, offset + STORED_SIZE


def _checked_head(head: bytes, size: int, key: bytes, where: str) -> Any:
    """The cipher of a file with this head."""
    if len(head) != HEAD_SIZE or not head.startswith(MAGIC):
        raise BackupDamagedError(
            f"{where}: it is not a sealed archive of {size} bytes", path=where, offset=0
        )
    crc = _CRC.unpack_from(head, _HEAD.size)[0]
    if crc32(head[: _HEAD.size]) != crc:
        raise BackupDamagedError(f"{where}: its head fails its checksum", path=where, offset=0)
    _, version, salt, check = _HEAD.unpack_from(head)
    if version != FORMAT_VERSION:
        raise FormatError(
            f"{where} has sealed format {version}, and this version of AmberDB reads "
            f"{FORMAT_VERSION}: update AmberDB",
            path=where,
            version=version,
        )
    cipher, own_check = _derived(key, salt)
    if own_check != check:
        raise ArchiveKeyError(f"{where} was encrypted with another key: give that one")
    return cipher


def _opened(
    cipher: Any, nonce: bytes, stored: bytes, head: bytes, where: str, offset: int
) -> bytes:
    from cryptography.exceptions import InvalidTag

    try:
        return bytes(cipher.decrypt(nonce, stored, head))
    except (InvalidTag, ValueError):  # ValueError: shorter than a tag
        raise BackupDamagedError(
            f"{where} is damaged or cut at offset {offset}", path=where, offset=offset
        ) from None


def _derived(key: bytes, salt: bytes) -> tuple[Any, bytes]:
    """The cipher of a file, and the check value of its key."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    except ImportError:
        raise ShipExtraError(
            'a key needs the package cryptography: pip install "amberdb[crypto]"'
        ) from None
    derived = HKDF(algorithm=SHA256(), length=48, salt=salt, info=_INFO).derive(key)
    return AESGCM(derived[:32]), derived[32:]
