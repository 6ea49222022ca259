"""The archive: the file that a backup is. A chain of checked blocks, written and read as a stream.

    file head   magic 8 | format u32 | crc u32
    block       kind u8 | packing u8 | zero u16 | size u32 | stored u32 | crc u32 | stored bytes

The first block is the header, the last one the end, which counts and hashes all before it.

Invariants:
- The crc of a block covers its head and its stored bytes, seeded with the crc before: a block that
  is missing, doubled, out of order or of another archive is refused where it stands.
- A stated size is compared with what the file still has, and an unpacked one with a limit, before
  anything is allocated.
- Reading ends well only behind an end that agrees with what was read, at the end of the file.
"""

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass, fields
from enum import IntEnum
from errno import ENOSPC
from hashlib import sha256
from struct import Struct
from typing import Any, Final, NamedTuple, TypeVar, cast, final
from zlib import crc32

from amberdb._bytes import CRC_SIZE, append_crc, crc_matches
from amberdb._errors import (
    AmberError,
    BackupDamagedError,
    BackupError,
    CorruptionError,
    DiskFullError,
    FormatError,
)
from amberdb._fs import File, FileSystem
from amberdb.engine.schema.codec import (
    ArchivedRecord,
    decode,
    decode_effects,
    decode_records,
    encode,
)
from amberdb.engine.schema.keyspace import Effects

T = TypeVar("T", bound=Sized)

MAGIC: Final = b"AMBERBAK"
FORMAT_VERSION: Final = 1
_FILE_HEAD: Final = Struct("<8sI")
_BLOCK_HEAD: Final = Struct("<BBHII")
FILE_HEAD_SIZE: Final = 16
BLOCK_HEAD_SIZE: Final = 16
assert _FILE_HEAD.size + CRC_SIZE == FILE_HEAD_SIZE
assert _BLOCK_HEAD.size + CRC_SIZE == BLOCK_HEAD_SIZE

STORED_BYTES_MAX: Final = (1 << 32) - 1
PACKED_BYTES_MAX: Final = 4 << 20
"""What is larger is not compressed, so that no archive can ask for more memory than it has bytes,
or than this."""
_FACTS_BYTES_MAX: Final = 4 << 20
"""Of header and end."""
LSN_MAX: Final = (1 << 63) - 1
TIME_US_MAX: Final = 253_402_300_799_999_999
"""The end of the year 9999, as far as datetime goes."""


class Kind(IntEnum):
    """What a block is."""

    HEADER = 1
    PAIRS = 2
    """A msgpack map of keys to values, keys ascending over the whole archive."""
    RECORDS = 3
    """A msgpack list of [lsn, time_us, kind, payload]."""
    END = 4


class Packing(IntEnum):
    """How a block is stored."""

    NONE = 0
    ZSTD = 1


class Content(NamedTuple):
    """A block between header and end, unpacked."""

    kind: Kind
    items: int
    """Pairs or records."""
    data: bytes


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What an archive is."""

    id: bytes
    database_id: bytes
    base: bytes = b""
    """The archive that this one goes on from; empty: a full one."""
    after_lsn: int = 0
    """The last Lsn of the base; 0 in a full archive."""
    last_lsn: int
    time_us: int
    """Of the commit `last_lsn`."""
    created_us: int
    documents: dict[str, int]
    """By collection, as of `last_lsn`; empty in an incremental archive. For people."""

    @property
    def is_full(self) -> bool:
        return not self.base

    @classmethod
    def from_map(cls, value: Any) -> "Header":
        """Raises CorruptionError."""
        found = cls(**_checked(value, {field.name: field.type for field in fields(cls)}))
        times = (found.time_us, found.created_us)
        if (
            len(found.id) != 16
            or len(found.database_id) != 16
            or len(found.base) not in (0, 16)
            or not 0 <= found.after_lsn <= found.last_lsn <= LSN_MAX
            or (found.is_full and found.after_lsn)
            or not all(0 <= time <= TIME_US_MAX for time in times)
            or any(type(n) is not str or type(c) is not int for n, c in found.documents.items())
        ):
            raise CorruptionError("its header makes no sense")
        return found

    def to_map(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """What must have been read before it."""

    blocks: int
    items: int
    size: int
    sha256: bytes


_TYPES: Final[dict[Any, type[Any]]] = {bytes: bytes, int: int, dict[str, int]: dict}


def _checked(value: Any, types: dict[str, Any]) -> dict[str, Any]:
    """A map with just these names, and values of these types."""
    found = cast(dict[str, Any], value if type(value) is dict else {})
    if found.keys() != types.keys():
        raise CorruptionError("a block of facts has other names than this version knows")
    if any(type(found[name]) is not _TYPES[kind] for name, kind in types.items()):
        raise CorruptionError("a block of facts has values of other types than this version knows")
    return found


# -- writing -------------------------------------------------------------------------------------


def archive_blocks(
    header: Header, contents: Iterable[Content], *, compress: bool
) -> Iterator[bytes]:
    """The whole file, piece by piece. Raises BackupError when a block is too large."""
    pack = _packer() if compress else None
    head = _FILE_HEAD.pack(MAGIC, FORMAT_VERSION)
    piece = head + append_crc(head)
    chain = crc32(piece)
    digest = sha256(piece)
    size, blocks, items = len(piece), 0, 0
    yield piece
    for kind, count, data in _framed(header, contents):
        packing, stored = Packing.NONE, data
        if pack is not None and len(data) <= PACKED_BYTES_MAX:
            smaller = pack(data)
            if len(smaller) < len(data):
                packing, stored = Packing.ZSTD, smaller
        piece, chain = _block(kind, packing, len(data), stored, chain)
        digest.update(piece)
        size, blocks, items = size + len(piece), blocks + 1, items + count
        yield piece
    facts = {"blocks": blocks, "items": items, "size": size, "sha256": digest.digest()}
    data = encode(facts)
    yield _block(Kind.END, Packing.NONE, len(data), data, chain)[0]


def _framed(header: Header, contents: Iterable[Content]) -> Iterator[Content]:
    yield Content(Kind.HEADER, 0, encode(header.to_map()))
    yield from contents


def _block(kind: Kind, packing: Packing, size: int, stored: bytes, chain: int) -> tuple[bytes, int]:
    if size > STORED_BYTES_MAX:
        raise BackupError(f"a block of {size} bytes is too large for an archive")
    head = _BLOCK_HEAD.pack(kind, packing, 0, size, len(stored))
    crc = crc32(stored, crc32(head, chain))
    return b"".join((head, crc.to_bytes(CRC_SIZE, "little"), stored)), crc


def _packer() -> Any:
    return _zstandard().ZstdCompressor().compress


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError:
        raise BackupError('zstd needs the package zstandard: pip install "amberdb[zstd]"') from None
    return zstandard


# -- reading -------------------------------------------------------------------------------------


@final
class Archive:
    """An archive that is being read, by one thread, once."""

    def __init__(self, file: File, path: str) -> None:
        """Raises BackupDamagedError, FormatError."""
        self.path = path
        self.size_bytes = file.size()
        self._file = file
        self._at = 0
        self._digest = sha256()
        self._blocks = self._items = 0
        head = self._read(FILE_HEAD_SIZE)
        if not head.startswith(MAGIC):
            raise self._damaged("it does not begin as an archive of AmberDB does", 0)
        if not crc_matches(head):
            raise self._damaged("it begins with a head that fails its checksum", 0)
        version = _FILE_HEAD.unpack_from(head)[1]
        if version != FORMAT_VERSION:
            raise FormatError(
                f"{path}: an archive of format {version}, and this AmberDB reads "
                f"{FORMAT_VERSION}: update it",
                path=path,
                version=version,
            )
        self._chain = crc32(head)
        self._digest.update(head)
        kind, data = self._block()
        if kind != Kind.HEADER:
            raise self._damaged("its first block is no header", FILE_HEAD_SIZE)
        self.header = Header.from_map(self._facts(data))

    def pairs(self) -> Iterator[Effects]:
        """Of a full archive, block by block. Raises CorruptionError, at the latest behind the last
        of them."""
        return self._contents(Kind.PAIRS, decode_effects)

    def records(self) -> Iterator[list[ArchivedRecord]]:
        """The same of an incremental one."""
        return self._contents(Kind.RECORDS, decode_records)

    def _contents(self, wanted: Kind, decoded: Callable[[bytes], T]) -> Iterator[T]:
        items = 0
        while True:
            start, digest = self._at, self._digest.digest()
            kind, data = self._block()
            if kind == Kind.END:
                break
            if kind != wanted:
                raise self._damaged(f"a block of kind {kind} among those of {wanted}", start)
            found = decoded(data)
            items += len(found)
            yield found
        end = End(**_checked(self._facts(data), {f.name: f.type for f in fields(End)}))
        seen = End(blocks=self._blocks - 1, items=items, size=start, sha256=digest)
        if end != seen:
            raise self._damaged("its end does not agree with what was read", start)
        if self._at != self.size_bytes:
            raise self._damaged(f"{self.size_bytes - self._at} bytes behind its end", self._at)

    def _facts(self, data: bytes) -> Any:
        if len(data) > _FACTS_BYTES_MAX:
            raise self._damaged(f"{len(data)} bytes of facts", self._at)
        return decode(data)

    def _block(self) -> tuple[int, bytes]:
        start = self._at
        head = self._read(BLOCK_HEAD_SIZE)
        kind, packing, zero, size, length = _BLOCK_HEAD.unpack_from(head)
        is_packed = packing == Packing.ZSTD
        if (
            zero
            or kind not in iter(Kind)
            or packing not in iter(Packing)
            or (size > PACKED_BYTES_MAX if is_packed else size != length)
        ):
            raise self._damaged("a block whose head makes no sense", start)
        stored = self._read(length)
        crc = crc32(stored, crc32(head[:-CRC_SIZE], self._chain))
        if crc.to_bytes(CRC_SIZE, "little") != head[-CRC_SIZE:]:
            raise self._damaged("a block that fails its checksum", start)
        self._chain = crc
        self._digest.update(head)
        self._digest.update(stored)
        self._blocks += 1
        return kind, self._unpacked(stored, size, start) if is_packed else stored

    def _unpacked(self, stored: bytes, size: int, start: int) -> bytes:
        zstd = _zstandard()
        try:
            if zstd.frame_content_size(stored) == size:
                return bytes(zstd.ZstdDecompressor().decompress(stored, allow_extra_data=False))
        except zstd.ZstdError as error:
            raise self._damaged(f"a block that zstd refuses ({error})", start) from error
        raise self._damaged("a packed block of another size than its head says", start)

    def _read(self, size: int) -> bytes:
        if size > self.size_bytes - self._at:
            raise self._damaged("the file is cut short", self._at)
        data = self._file.pread(size, self._at)
        if len(data) != size:
            raise self._damaged("the file is cut short", self._at)
        self._at += size
        return data

    def _damaged(self, what: str, offset: int) -> BackupDamagedError:
        return damaged(self.path, what, offset)

    @property
    def offset(self) -> int:
        """How far it was read."""
        return self._at


@contextmanager
def opened_archive(fs: FileSystem, path: str) -> Generator[Archive]:
    """Raises BackupDamagedError with the place for all damage that the block meets, BackupError
    when the file cannot be read, FormatError for a newer one."""
    with file_errors(path):
        if fs.is_dir(path):
            raise BackupError(f"{path} is a directory, and a backup is a file", path=path)
        file = fs.open(path, read_only=True)
        offset = FILE_HEAD_SIZE
        try:
            archive = Archive(file, path)
            try:
                yield archive
            finally:
                offset = archive.offset
        except BackupError:
            raise
        except CorruptionError as error:  # of the content of a block that was read whole
            raise damaged(path, error.message, offset) from error
        finally:
            file.close()


def damaged(path: str, what: str, offset: int) -> BackupDamagedError:
    """The error for an archive."""
    return BackupDamagedError(f"{path} offset {offset}: {what}", path=path, offset=offset)


@contextmanager
def file_errors(path: str) -> Generator[None]:
    """What a file system refuses is a BackupError, or a DiskFullError."""
    try:
        yield
    except AmberError:
        raise
    except OSError as error:
        where = error.filename or path
        if error.errno == ENOSPC:
            raise DiskFullError(f"{where}: no space is left: free some", path=where) from error
        raise BackupError(f"{where}: {error.strerror or error}", path=where) from error


def archive_path(path: str | os.PathLike[str]) -> str:
    """Absolute, so that an error names the file wherever it is read."""
    return os.path.abspath(os.fspath(path))
