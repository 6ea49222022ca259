"""Reads archives from a target, and decrypts them.

Invariants:
- A file that was fetched has the size that the target told; what it has inside is judged by
  whoever reads the archive.
"""

from collections.abc import Iterator
from typing import BinaryIO, Final, final

from amberdb import BackupDamagedError
from amberdb._shared.files import private_file
from amberdb.ship.archives import Shipped
from amberdb.ship.errors import ArchiveKeyError
from amberdb.ship.sealed import CHUNK_SIZE, unsealed
from amberdb.ship.target import Target

_PIECE: Final = 8 * CHUNK_SIZE


@final
class Source:
    """The archives of a target. Threads may share it."""

    def __init__(self, target: Target, key: bytes | None) -> None:
        self._target = target
        self._key = key

    def fetch(self, archive: Shipped, path: str) -> None:
        """Writes a whole archive to a new file. Raises ArchiveKeyError, BackupDamagedError,
        TargetMissingError and the other errors of targets."""
        with private_file(path) as file:
            self._write(archive, file, None)

    def fetch_head(self, archive: Shipped, path: str, size: int) -> None:
        """Writes at least `size` bytes of an archive, or all of it, to a new file. Raises as
        fetch() does."""
        with private_file(path) as file:
            self._write(archive, file, size)

    def _write(self, archive: Shipped, file: BinaryIO, size: int | None) -> None:
        if not archive.is_encrypted:
            end = archive.size_bytes if size is None else min(size, archive.size_bytes)
            for offset in range(0, end, _PIECE):
                file.write(self._read(archive, offset, min(_PIECE, end - offset)))
            return
        for part in self._unsealed(archive, None if size is None else -(-size // CHUNK_SIZE)):
            file.write(part)

    def _unsealed(self, archive: Shipped, chunks: int | None) -> Iterator[bytes]:
        where = f"{self._target.url}/{archive.name}"
        if self._key is None:
            raise ArchiveKeyError(f"{where} is encrypted: give its key")

        def read(offset: int, length: int) -> bytes:
            return self._read(archive, offset, length)

        return unsealed(read, archive.size_bytes, self._key, where, chunks)

    def _read(self, archive: Shipped, offset: int, length: int) -> bytes:
        data = self._target.read(archive.name, offset, length)
        if len(data) != length:
            where = f"{self._target.url}/{archive.name}"
            end = offset + len(data)
            raise BackupDamagedError(f"{where} is cut at offset {end}", path=where, offset=end)
        return data
