"""MANIFEST: the identity and the state of a database's directory.

    magic 8 | format u32 | flags u32 | database_id 16 | generation u64 | epoch u64 |
    clean_lsn u64 | created_us i64 | lmdb u32 | zero u32 | crc u32

Invariants:
- It is written to a temporary file and renamed, so it is never partly written.
- Magic, format, checksum and flags are checked in this order, each with its own error. A flag that
  is not known here, or a byte where zero belongs, is another release's: it is never ignored.
- `clean_lsn` is the last Lsn of a database that was closed cleanly and got no record since. From
  before the next record until the next close it is NO_LSN, and the flag CLEAN is not set.
- `epoch` grows at every open that follows an unclean end, before anything is written.
"""

import os
from dataclasses import dataclass
from struct import Struct

from amberdb._bytes import CRC_SIZE, append_crc, crc_matches
from amberdb._errors import CorruptionError, FormatError, NotADatabaseError
from amberdb._fs import FileSystem, replace_file
from amberdb._types import NO_LSN, Lsn

NAME = "MANIFEST"
MAGIC = b"AMBERDB\n"
FORMAT_VERSION = 2
"""The one that is written. Format 1 is read too: opening such a database for writing writes this
one, so that a program that knows only format 1 refuses the directory from then on."""
_CLEAN = 1
_FIELDS = Struct("<8sII16sQQQqII")
SIZE = 72 + CRC_SIZE
assert _FIELDS.size + CRC_SIZE == SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The fields of MANIFEST."""

    database_id: bytes
    generation: int
    epoch: int
    clean_lsn: Lsn | None
    created_us: int
    lmdb_version: int
    """major << 16 | minor << 8 | patch of the LMDB library that wrote data.mdb."""
    format: int = FORMAT_VERSION
    """As it was read; write() writes FORMAT_VERSION."""

    def write(self, fs: FileSystem, directory: str) -> None:
        """Replaces MANIFEST; it is durable when this returns."""
        data = _FIELDS.pack(
            MAGIC,
            FORMAT_VERSION,
            _CLEAN if self.clean_lsn is not None else 0,
            self.database_id,
            self.generation,
            self.epoch,
            self.clean_lsn or NO_LSN,
            self.created_us,
            self.lmdb_version,
            0,
        )
        replace_file(fs, os.path.join(directory, NAME), data + append_crc(data))


def read(fs: FileSystem, directory: str) -> Manifest:
    """Reads MANIFEST. Raises NotADatabaseError, FormatError, CorruptionError."""
    path = os.path.join(directory, NAME)
    data = fs.read(path)
    if not data.startswith(MAGIC):
        if len(data) == SIZE and crc_matches(MAGIC + data[len(MAGIC) :]):
            raise CorruptionError(f"{path}: damaged magic: restore a backup", path=path, offset=0)
        raise NotADatabaseError(f"{path} is not AmberDB's: choose another directory", path=path)
    version = int.from_bytes(data[8:12], "little")
    if version > FORMAT_VERSION and (len(data) != SIZE or crc_matches(data)):
        raise FormatError(
            f"{path}: format {version}, and this AmberDB reads up to {FORMAT_VERSION}: update it",
            path=path,
            version=version,
        )
    if len(data) != SIZE or not crc_matches(data):
        raise CorruptionError(
            f"{path} fails its checksum ({len(data)} bytes): restore a backup",
            path=path,
            offset=0,
        )
    fields = _FIELDS.unpack_from(data)
    _, version, flags, database_id, generation, epoch = fields[:6]
    clean_lsn, created_us, lmdb_version, zero = fields[6:]
    if not version:
        raise FormatError(
            f"{path} has the unknown format {version}: restore a backup", path=path, version=version
        )
    if flags & ~_CLEAN or zero:
        raise FormatError(
            f"{path} has flags that this AmberDB does not know ({flags:#x}, {zero:#x}): open it "
            "with the release that wrote it, or a later one",
            path=path,
            version=version,
        )
    return Manifest(
        database_id=database_id,
        generation=generation,
        epoch=epoch,
        clean_lsn=Lsn(clean_lsn) if flags & _CLEAN else None,
        created_us=created_us,
        lmdb_version=lmdb_version,
        format=version,
    )
