"""The archive: the file format of a backup. Blocks with checksums, written and read as a stream.

    file head   magic 8 | format u32 | crc u32
    block       kind u8 | packing u8 | zero u16 | size u32 | stored u32 | crc u32 | stored bytes

The first block is the header, a map; the last block is the end, a map of the count, size and hash
of everything before it. A full archive has leaf pages of LMDB, format 2, or pairs, as programs
before it wrote, format 1; an incremental one has records, format 1.

Invariants:
- The crc of a block covers its head and its stored bytes, seeded with the crc of the block before:
  a block that is missing, duplicated, out of order or from another archive is refused at its
  offset.
- A stored size is compared with the rest of the file, and an unpacked size with a limit, before
  memory is allocated.
- A read succeeds only if the end agrees with everything read and is the end of the file.
"""

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from contextlib import contextmanager
from enum import IntEnum
from errno import ENOSPC
from hashlib import sha256
from struct import Struct
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, TypeAlias, TypeVar, final
from zlib import crc32

import msgspec
from msgspec import Meta

from amberdb._bytes import CRC_SIZE, append_crc, crc_matches
from amberdb._errors import (
    AmberError,
    BackupDamagedError,
    BackupError,
    CorruptionError,
    DiskFullError,
    FormatError,
)
from amberdb._fs import File, FileSystem, what_is_full
from amberdb.engine.backup.ahead import ahead
from amberdb.engine.schema.codec import (
    ArchivedRecord,
    decode_effects,
    decode_records,
    encode,
    map_decoder,
)
from amberdb.engine.schema.keyspace import Effects
from amberdb.engine.storage.data_file import PAGE_SIZE_MAX, PAGE_SIZE_MIN

if TYPE_CHECKING:
    from amberdb.engine.storage.leaves import Leaves

T = TypeVar("T")
Listed = TypeVar("Listed", bound=Sized)

MAGIC: Final = b"AMBERBAK"
FORMAT_VERSION: Final = 2
"""Of an archive with pages; one without them has format 1."""
_FILE_HEAD: Final = Struct("<8sI")
_BLOCK_HEAD: Final = Struct("<BBHII")
FILE_HEAD_SIZE: Final = 16
BLOCK_HEAD_SIZE: Final = 16
assert _FILE_HEAD.size + CRC_SIZE == FILE_HEAD_SIZE
assert _BLOCK_HEAD.size + CRC_SIZE == BLOCK_HEAD_SIZE

STORED_BYTES_MAX: Final = (1 << 32) - 1
PACKED_BYTES_MAX: Final = 4 << 20
"""Larger blocks are not compressed: a block never unpacks to more than this."""
_MAP_BYTES_MAX: Final = 4 << 20
"""Of the maps in header and end."""
LSN_MAX: Final = (1 << 63) - 1
TIME_US_MAX: Final = 253_402_300_799_999_999
"""The last microsecond of the year 9999, the largest datetime."""


class Kind(IntEnum):
    """The content of a block."""

    HEADER = 1
    PAIRS = 2
    """A msgpack map of keys to values, keys ascending over the whole archive."""
    RECORDS = 3
    """A msgpack list of [lsn, time_us, kind, payload]."""
    END = 4
    PAGES = 5
    """Packed leaf pages, as in storage/leaves.py, keys ascending over the whole archive."""
    VALUES = 6
    """Large values of the pages before, in their order, side by side."""


class Packing(IntEnum):
    """How a block is stored."""

    NONE = 0
    ZSTD = 1


class Content(NamedTuple):
    """The unpacked content of a block between header and end."""

    kind: Kind
    items: int
    """The number of pairs or records; 0 of a block of large values, whose keys are counted."""
    data: bytes


_Id = Annotated[bytes, Meta(min_length=16, max_length=16)]
_Time = Annotated[int, Meta(ge=0, le=TIME_US_MAX)]


@final
class Header(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """The first block of an archive."""

    id: _Id
    database_id: _Id
    base: Annotated[bytes, Meta(max_length=16)]
    """The id of the archive that this one continues; empty: a full backup."""
    after_lsn: Annotated[int, Meta(ge=0)]
    """The last Lsn of the base; 0 in a full archive."""
    last_lsn: Annotated[int, Meta(le=LSN_MAX)]
    time_us: _Time
    """The time of the commit `last_lsn`."""
    created_us: _Time
    documents: dict[str, int]
    """By collection, as of `last_lsn`; empty in an incremental archive. For people."""
    page_size: Annotated[int, Meta(ge=0, le=PAGE_SIZE_MAX)] = 0
    """Of its pages; 0 in an archive without pages."""
    lmdb_version: Annotated[int, Meta(ge=0)] = 0
    """Of the program that wrote its pages, as in MANIFEST."""

    @property
    def format(self) -> int:
        return FORMAT_VERSION if self.page_size else 1

    @property
    def is_full(self) -> bool:
        return not self.base


@final
class End(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The last block: the counts, size and hash of everything before it."""

    blocks: int
    items: int
    size: int
    sha256: bytes


_decode_header = map_decoder(Header)
_decode_end = map_decoder(End)


def _checked_header(data: bytes) -> Header:
    """Raises CorruptionError."""
    header = _decode_header(data)
    if len(header.base) not in (0, 16) or (header.is_full and header.after_lsn):
        raise CorruptionError("its header is invalid: `base` and `after_lsn` do not fit together")
    if header.after_lsn > header.last_lsn:
        raise CorruptionError("its header is invalid: `after_lsn` is above `last_lsn`")
    size = header.page_size
    if size and (header.base or size < PAGE_SIZE_MIN or size & (size - 1)):
        raise CorruptionError("its header is invalid: the page size")
    return header


# -- writing -------------------------------------------------------------------------------------


def archive_blocks(
    header: Header, contents: Iterable[Content], *, compress: bool
) -> Iterator[bytes]:
    """The bytes of the file, block by block. Raises BackupError when a block is too large."""
    pack = _packer() if compress else None
    head = _FILE_HEAD.pack(MAGIC, header.format)
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
    data = encode(End(blocks=blocks, items=items, size=size, sha256=digest.digest()))
    yield _block(Kind.END, Packing.NONE, len(data), data, chain)[0]


def _framed(header: Header, contents: Iterable[Content]) -> Iterator[Content]:
    yield Content(Kind.HEADER, 0, encode(header))
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


_Block: TypeAlias = tuple[int, int, int, int | None, bytes]
"""(start, end, kind, size of the content if it is packed, stored bytes)"""


@final
class Archive:
    """A reader of one archive, for one thread; it reads the file once, in order."""

    def __init__(self, file: File, path: str) -> None:
        """Raises BackupDamagedError, FormatError."""
        self.path = path
        with file_errors(path):
            self.size_bytes = file.size()
        self._file = file
        self.offset = 0
        """The end of what was given out: further blocks are read ahead."""
        self.items = 0
        """The number of pairs or records, once all blocks were read."""
        self._at = 0
        self._digest = sha256()
        self._blocks = 0
        self._ahead: Generator[_Block] | None = None
        head = self._read(FILE_HEAD_SIZE)
        if not head.startswith(MAGIC):
            raise self._damaged("it is not an archive of AmberDB", 0)
        if not crc_matches(head):
            raise self._damaged("its file head fails its checksum", 0)
        version = _FILE_HEAD.unpack_from(head)[1]
        if not 1 <= version <= FORMAT_VERSION:
            raise FormatError(
                f"{path} has archive format {version}, and this version of AmberDB reads formats "
                f"up to {FORMAT_VERSION}: update AmberDB",
                path=path,
                version=version,
            )
        self._chain = crc32(head)
        self._digest.update(head)
        start, _, kind, size, stored = self._block()
        if kind != Kind.HEADER:
            raise self._damaged("its first block is not a header", FILE_HEAD_SIZE)
        data = self._unpacked(start, size, stored)
        self._check_map_size(data)
        self.header = _checked_header(data)
        self.offset = self._at
        if version != self.header.format:
            raise self._damaged("its header does not fit its format", FILE_HEAD_SIZE)

    def close(self) -> None:
        """Ends the reading ahead. The file is the caller's."""
        if self._ahead is not None:
            self._ahead.close()

    def pairs(self) -> Iterator[Effects]:
        """The pairs of a full archive without pages, block by block. Raises CorruptionError, at
        the latest after the last block."""
        return self._contents({Kind.PAIRS: _counted(decode_effects)})

    def records(self) -> Iterator[list[ArchivedRecord]]:
        """The records of an incremental archive, block by block. Raises CorruptionError, at the
        latest after the last block."""
        return self._contents({Kind.RECORDS: _counted(decode_records)})

    def pages(self) -> "Iterator[Leaves | bytes]":
        """The leaf pages of a full archive, and the blocks of their large values. Raises
        CorruptionError, at the latest after the last block."""

        from amberdb.engine.storage.leaves import Leaves  # brings numpy

        def leaves(data: bytes) -> "tuple[Leaves | bytes, int]":
            unpacked = Leaves.unpacked(data, self.header.page_size)
            return unpacked, unpacked.nodes

        return self._contents({Kind.PAGES: leaves, Kind.VALUES: lambda data: (data, 0)})

    def compared(self) -> Iterator[None]:
        """Compares the checksums of all blocks, one at each step; contents are not looked at."""
        self._ahead = ahead(self._rest(), "amberdb-archive")
        for start, end, kind, size, stored in self._ahead:
            self.offset = end
            if kind == Kind.END:
                self._check_end(self._unpacked(start, size, stored), start, None)
            yield

    def _contents(self, wanted: dict[int, Callable[[bytes], tuple[T, int]]]) -> Iterator[T]:
        """The blocks between header and end; `wanted` has a decoder for each kind of them, which
        returns the content and the number of its items."""
        items = 0
        self._ahead = ahead(self._rest(), "amberdb-archive")
        for start, end, kind, size, stored in self._ahead:
            self.offset = end
            data = self._unpacked(start, size, stored)
            if kind == Kind.END:
                self._check_end(data, start, items)
            elif kind not in wanted:
                raise self._damaged(f"a block of kind {kind} between those of others", start)
            else:
                content, count = wanted[kind](data)
                items += count
                yield content

    def _rest(self) -> "Generator[_Block]":
        """The blocks after the header, to the end."""
        kind = -1
        while kind != Kind.END:
            block = self._block()
            kind = block[2]
            yield block

    def _check_end(self, data: bytes, start: int, items: int | None) -> None:
        """Raises CorruptionError unless the end agrees with what was read; `items` None: of items
        it knows alone."""
        self._check_map_size(data)
        end = _decode_end(data)
        self.items = end.items if items is None else items
        digest = self._digest.digest()
        if end != End(blocks=self._blocks, items=self.items, size=start, sha256=digest):
            raise self._damaged("its end does not agree with the blocks before it", start)
        if self.offset != self.size_bytes:
            raise self._damaged(f"{self.size_bytes - self.offset} bytes after its end", self.offset)

    def _check_map_size(self, data: bytes) -> None:
        if len(data) > _MAP_BYTES_MAX:
            raise self._damaged(f"a header or end of {len(data)} bytes", self.offset)

    def _block(self) -> "_Block":
        """The next block, whose checksum is right."""
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
            raise self._damaged("a block with an invalid head", start)
        stored = self._read(length)
        crc = crc32(stored, crc32(head[:-CRC_SIZE], self._chain))
        if crc.to_bytes(CRC_SIZE, "little") != head[-CRC_SIZE:]:
            raise self._damaged("a block that fails its checksum", start)
        self._chain = crc
        if kind != Kind.END:
            self._digest.update(head)
            self._digest.update(stored)
            self._blocks += 1
        return start, self._at, kind, size if is_packed else None, stored

    def _unpacked(self, start: int, size: int | None, stored: bytes) -> bytes:
        """The content of a block. One at a time: blocks that are read ahead stay packed."""
        if size is None:
            return stored
        zstd = _zstandard()
        try:
            if zstd.frame_content_size(stored) == size:
                return bytes(zstd.ZstdDecompressor().decompress(stored, allow_extra_data=False))
        except zstd.ZstdError as error:
            raise self._damaged(f"a block that zstd refuses ({error})", start) from error
        raise self._damaged("a packed block whose size is not that in its head", start)

    def _read(self, size: int) -> bytes:
        if size > self.size_bytes - self._at:
            raise self._damaged("the file is truncated", self._at)
        with file_errors(self.path):
            data = self._file.pread(size, self._at)
        if len(data) != size:
            raise self._damaged("the file is truncated", self._at)
        self._at += size
        return data

    def _damaged(self, problem: str, offset: int) -> BackupDamagedError:
        return damaged(self.path, problem, offset)


def _counted(decode: Callable[[bytes], Listed]) -> Callable[[bytes], tuple[Listed, int]]:
    def decoded(data: bytes) -> tuple[Listed, int]:
        block = decode(data)
        return block, len(block)

    return decoded


@contextmanager
def opened_archive(fs: FileSystem, path: str) -> Generator[Archive]:
    """An open archive. Damage found inside the `with` raises BackupDamagedError with its offset, a
    file that cannot be read BackupError, a newer format FormatError."""
    with file_errors(path):
        if fs.is_dir(path):
            raise BackupError(f"{path} is a directory: a backup is a file", path=path)
        file = fs.open(path, read_only=True)
    offset = FILE_HEAD_SIZE
    try:
        archive = Archive(file, path)
        try:
            yield archive
        finally:
            offset = archive.offset
            archive.close()
    except BackupError:
        raise
    except CorruptionError as error:  # in a block whose checksum was right
        raise damaged(path, error.message, offset) from error
    finally:
        file.close()


def damaged(path: str, problem: str, offset: int) -> BackupDamagedError:
    """The error for a damaged archive."""
    return BackupDamagedError(f"{path} offset {offset}: {problem}", path=path, offset=offset)


@contextmanager
def file_errors(path: str) -> Generator[None]:
    """Raises BackupError for an OSError, DiskFullError when no space is left."""
    try:
        yield
    except AmberError:
        raise
    except OSError as error:
        where = error.filename or path
        if error.errno == ENOSPC:
            raise DiskFullError(f"{where}: {what_is_full(where)}", path=where) from error
        raise BackupError(f"{where}: {error.strerror or error}", path=where) from error


def archive_path(path: str | os.PathLike[str]) -> str:
    """The absolute path, so that an error names the file independently of the directory."""
    return os.path.abspath(os.fspath(path))
