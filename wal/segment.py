"""One file of the log: its name, its header, how it is created, and how it is read.

Invariants:
- A name `<first lsn as 16 hex digits>.wal` exists only for a file whose header is durable.
- All bytes of a file in use were written before: appending never needs new space, and a sync has no
  file size to store.
- The header has its own sector, which no write of a record touches.
- Everything up to `previous_last` was durable before the header was written.

Format (little endian), the first HEADER_SIZE bytes; zeros up to RECORDS_START:

    0 magic 8s
    8 version u32
    12 flags u32            1: the file was another segment before
    16 database_id 16s
    32 salt u64             random; its low word is the marker of the records, never 0
    40 first_lsn u64        of the first record here
    48 previous_first u64   first_lsn of the segment before, 0 when this is the first ever
    56 previous_last u64    the last Lsn before this segment
    64 size u64             of the file in bytes
    72 previous_crc u32     checksum of the last record before this segment
    76 checksum u32         CRC of the 76 bytes before
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from amberdb import _failpoints as failpoints
from amberdb._bytes import CRC_SIZE, append_crc, crc_matches
from amberdb._errors import CorruptionError, FormatError, ReplacedError
from amberdb._fs import File, FileSystem, staging_name
from amberdb._types import Lsn
from amberdb.wal.record import (
    ALIGNMENT,
    END_SIZE,
    Record,
    Salt,
    read_header,
    salted,
    scan,
)

MAGIC = b"AMBERWAL"
VERSION = 1  # 1: the first
RECYCLED = 1

_FIELDS = Struct("<8sII16sQQQQQI")
HEADER_SIZE = _FIELDS.size + CRC_SIZE
assert HEADER_SIZE == 80
_PREFIX = Struct("<8sI")
assert _PREFIX.size == 12

RECORDS_START = 512
assert RECORDS_START >= HEADER_SIZE
assert RECORDS_START % ALIGNMENT == 0

FOREIGN_OFFSET = 16
"""The offset of the database id; a CorruptionError with this offset is about a file of another
database."""

BLOCK_SIZE = 4096
_FILL_SIZE = 1 << 20
_WINDOW_SIZE_MIN = 16 << 10
"""Small, so that reading a few new records is cheap; doubled while there are more."""
_WINDOW_SIZE = 1 << 20
_NAME = re.compile(r"([0-9a-f]{16})\.wal")


class SyncFailedError(OSError):
    """The sync of a file without records failed: nothing is lost, but no later sync is trusted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentHeader:
    """The header of a segment: facts about it and about the segment before it."""

    database_id: bytes
    salt: Salt
    first_lsn: Lsn
    previous_first: Lsn
    previous_last: Lsn
    previous_crc: int
    size: int
    recycled: bool = False


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of the log and its checked header."""

    path: str
    header: SegmentHeader
    size: int
    """The size of the file: below the header's once the unwritten rest was cut."""


def new_salt() -> Salt:
    """Random, so that bytes from an earlier use of the file never pass."""
    while True:
        value = int.from_bytes(os.urandom(8), "little")
        if value & 0xFFFFFFFF:
            return salted(value)


def segment_name(first_lsn: int) -> str:
    return f"{first_lsn:016x}.wal"


def parse_name(name: str) -> Lsn | None:
    """The first Lsn in the name of a segment; None for other files."""
    match = _NAME.fullmatch(name)
    return Lsn(int(match[1], 16)) if match else None


def size_for(record_bytes: int, preferred: int) -> int:
    """The size of a segment that holds at least one record of `record_bytes`."""
    needed = RECORDS_START + record_bytes + END_SIZE
    return max(preferred, -(-needed // BLOCK_SIZE) * BLOCK_SIZE)


def encode_header(header: SegmentHeader) -> bytes:
    """The first RECORDS_START bytes, and the zero word that ends the written records."""
    fields = _FIELDS.pack(
        MAGIC,
        VERSION,
        RECYCLED if header.recycled else 0,
        header.database_id,
        header.salt.value,
        header.first_lsn,
        header.previous_first,
        header.previous_last,
        header.size,
        header.previous_crc,
    )
    return (fields + append_crc(fields)).ljust(RECORDS_START + END_SIZE, b"\0")


def decode_header(data: bytes, path: str) -> SegmentHeader:
    """Raises CorruptionError (not a segment, or damaged) or FormatError (a newer version)."""
    if len(data) < RECORDS_START:
        raise CorruptionError(f"{path} is too short for a log segment", path=path, offset=0)
    magic, version = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise CorruptionError(f"{path} is not a log segment", path=path, offset=0)
    if version > VERSION:
        raise FormatError(f"{path} has log format {version}, newer than {VERSION}", path=path)
    if not crc_matches(data[:HEADER_SIZE]) or version != VERSION:
        raise CorruptionError(f"the header of {path} is damaged", path=path, offset=0)
    _, _, flags, database_id, salt, first, previous_first, previous_last, size, crc = (
        _FIELDS.unpack_from(data)
    )
    return SegmentHeader(
        database_id=database_id,
        salt=salted(salt),
        first_lsn=Lsn(first),
        previous_first=Lsn(previous_first),
        previous_last=Lsn(previous_last),
        previous_crc=crc,
        size=size,
        recycled=bool(flags & RECYCLED),
    )


def load_segment(fs: FileSystem, path: str, first_lsn: int, database_id: bytes) -> Segment:
    """Reads and checks a header against the name and the database.

    Raises CorruptionError or FormatError, both naming the file.
    """
    file = fs.open(path, read_only=True)
    try:
        data = file.pread(RECORDS_START, 0)
        size = file.size()
    finally:
        file.close()
    header = decode_header(data, path)
    if header.database_id != database_id:
        raise CorruptionError(
            f"{path} belongs to another database", path=path, offset=FOREIGN_OFFSET
        )
    if header.first_lsn != first_lsn:
        raise CorruptionError(f"{path} has the name of another segment", path=path, offset=40)
    return Segment(path, header, size)


def read_database_id(fs: FileSystem, path: str) -> bytes:
    """The bytes at the place of the database id, unchecked."""
    file = fs.open(path, read_only=True)
    try:
        return file.pread(16, FOREIGN_OFFSET)
    finally:
        file.close()


def scan_file(file: File, start: int, salt: Salt, chain: int, lsn: int) -> Iterator[Record]:
    """record.scan() over a file, one window at a time; ends are offsets in the file."""
    size = _WINDOW_SIZE_MIN
    while True:
        window = file.pread(size, start)
        end = start
        for record in scan(window, 0, salt, chain, lsn, start):
            end, chain, lsn = record.end, record.crc, record.lsn + 1
            yield record
        if end > start:
            start = end
            size = min(2 * size, _WINDOW_SIZE)
            continue
        header = read_header(window, 0, salt)
        if header is None or header.end <= len(window) or header.end > file.size() - start:
            return
        size = header.end


def create_zeroed(fs: FileSystem, path: str, size: int) -> None:
    """Makes a file of zeros under `path`; its data is durable, its name is not.

    The zeros are written: with space that is only reserved (fallocate), every later sync stores
    metadata and is several times slower. Raises OSError (SyncFailedError from the sync).
    """
    staged = staging_name(path)
    file = fs.open(staged, create=True)
    try:
        try:
            fill(file, 0, size)
            sync_fresh(file)
        finally:
            file.close()
        if failpoints.on:
            failpoints.reach("rotation.spare-zeroed")
        fs.rename(staged, path)
    except BaseException:
        discard(fs, staged)
        raise


def fill(file: File, start: int, end: int) -> None:
    """Writes zeros from `start` to `end`. Raises OSError."""
    for offset in range(start, end, _FILL_SIZE):
        file.pwrite(bytes(min(_FILL_SIZE, end - offset)), offset)


def sync_fresh(file: File) -> None:
    """Syncs a file without records. Raises SyncFailedError."""
    try:
        file.sync()
    except OSError as error:
        raise SyncFailedError(error.errno, f"sync failed: {error}") from error


def discard(fs: FileSystem, path: str) -> None:
    """Removes a file that is not needed. Errors are ignored."""
    try:
        fs.unlink(path)
    except (OSError, ReplacedError):
        pass


def write_header(fs: FileSystem, path: str, header: SegmentHeader) -> None:
    """Turns a spare file into the segment that `header` describes, except for its name."""
    file = fs.open(path)
    try:
        file.pwrite(encode_header(header), 0)
        sync_fresh(file)
    finally:
        file.close()


def sync_names(fs: FileSystem, directory: str) -> None:
    """Makes new names durable. Raises SyncFailedError."""
    try:
        fs.sync_dir(directory)
    except OSError as error:
        raise SyncFailedError(error.errno, f"sync of {directory} failed: {error}") from error
