"""Cache files: derived data of a search index, one file per keyspace in the folder cache/.

    header 192: magic 8 | format u32 | keyspace u32 | database_id 16 | configuration 16 | lsn u64 |
                floor u64 | 7 times: size u64, two times crc u32 | zero 12 | crc u32
    sections    each at the next multiple of 64, an empty one takes no bytes; a checksum for each
                half, so two threads can check a large one

Invariants:
- A file holds no commit after `lsn`, which was durable before the file was written. A file whose
  Lsn is after the last one that recovery found is removed at open, before a later commit gets the
  same Lsn with other content.
- After an open the folder holds no cache file but those of existing indexes. Files that have no
  name of a cache file are left alone.
- A section is checked against its checksum before any byte of it is used.
- A file that is missing, damaged or of another configuration raises nothing: a warning is logged,
  the file is removed, and the index is built again. Only a file with lost commits that cannot be
  removed raises.
"""

import logging
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from struct import Struct
from typing import Final, final
from zlib import crc32

from amberdb._bytes import CRC_SIZE, append_crc, crc_matches
from amberdb._errors import ReplacedError, StorageError
from amberdb._fs import FileSystem, replace_file, staged_for
from amberdb._types import NO_LSN, Lsn
from amberdb._worker import in_parallel

logger = logging.getLogger("amberdb.engine")

FOLDER: Final = "cache"
MAGIC: Final = b"AMBERVC\n"
FORMAT_VERSION: Final = 4
_VERSIONS: Final = (3, 4)
"""Version 3 has six sections, and zeros for the seventh."""
SECTIONS_MAX: Final = 7
ALIGNMENT: Final = 64
_FIELDS = Struct("<8sII16s16sQQ" + "QII" * SECTIONS_MAX + "12x")
HEADER_SIZE: Final = 188 + CRC_SIZE
assert _FIELDS.size + CRC_SIZE == HEADER_SIZE
_PART_BYTES: Final = 1 << 20
_THREAD_BYTES: Final = 1 << 22
"""The size of a half from which a second thread pays: checksums are most of the time of an open."""
_SUFFIX: Final = ".cache"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """The content of a file: which index, up to which Lsn."""

    keyspace: int
    configuration: bytes
    """16 bytes: a digest of everything that the content depends on besides the documents."""
    lsn: Lsn
    floor: int


class Unusable(Exception):
    """A cache file cannot be used; its message says why."""


@final
class Cached:
    """An open cache file."""

    def __init__(self, data: memoryview, database_id: bytes) -> None:
        """Checks the header. Raises Unusable."""
        header = bytes(data[:HEADER_SIZE])
        if len(header) < HEADER_SIZE or not crc_matches(header):
            raise Unusable("its header is damaged")
        magic, version, keyspace, owner, configuration, lsn, floor, *rest = _FIELDS.unpack_from(
            header
        )
        if magic != MAGIC or version not in _VERSIONS:
            raise Unusable("it has another format")
        if owner != database_id:
            raise Unusable("it belongs to another database")
        self.label = Label(
            keyspace=keyspace, configuration=configuration, lsn=Lsn(lsn), floor=floor
        )
        self._data = data
        self._sections: list[tuple[int, int, tuple[int, int]]] = []
        end = HEADER_SIZE
        for size, *crcs in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
            start = _aligned(end) if size else end
            end = start + size
            self._sections.append((start, end, (crcs[0], crcs[1])))
        if len(data) != end:
            raise Unusable(f"it has {len(data)} bytes instead of {end}")

    def section(self, number: int) -> memoryview:
        """The bytes of a section, checked. Raises Unusable."""
        start, end, crcs = self._sections[number]
        section = self._data[start:end]
        if _checksums(section) != crcs:
            raise Unusable(f"its section {number} is damaged")
        return section


@final
class CacheFolder:
    """The cache folder of an open database."""

    def __init__(
        self,
        fs: FileSystem,
        directory: str,
        database_id: bytes,
        last_lsn: Lsn,
        keyspaces: Collection[int],
        *,
        read_only: bool = False,
    ) -> None:
        """`last_lsn` is the last Lsn that recovery found, `keyspaces` are those of the search
        indexes. With `read_only`, for a process that does not write, no file is changed. Raises
        StorageError."""
        self.path = os.path.join(directory, FOLDER)
        self.is_read_only = read_only
        self._fs = fs
        self._database_id = database_id
        if not read_only:
            self._sweep(last_lsn, keyspaces)

    def read(self, keyspace: int, configuration: bytes) -> Cached | None:
        """The file of a keyspace; None when it is missing or unusable. Its sections are not checked
        yet."""
        path = self._file(keyspace)
        try:
            if not self._fs.exists(path):
                return None
            cached = Cached(self._fs.map(path), self._database_id)
            if cached.label.configuration != configuration:
                raise Unusable("it was made for another declaration of the index")
        except (OSError, Unusable) as error:
            self.drop(keyspace, error)
            return None
        return cached

    def has(self, keyspace: int) -> bool:
        """Whether a keyspace has a file."""
        return self._fs.exists(self._file(keyspace))

    def write(self, label: Label, sections: Sequence[Sequence[memoryview]]) -> None:
        """Replaces the file of a keyspace, durably; each section is given in pieces. Raises
        OSError."""
        if not self._fs.is_dir(self.path):
            self._fs.mkdir(self.path, like=os.path.dirname(self.path))
            self._fs.sync_dir(os.path.dirname(self.path))
        flat = [[piece.cast("B") for piece in pieces if piece.nbytes] for pieces in sections]
        flat += [[]] * (SECTIONS_MAX - len(flat))
        table: list[int] = []
        for pieces in flat:
            table += (sum(map(len, pieces)), *_checksums_of(pieces))
        header = _FIELDS.pack(
            MAGIC,
            FORMAT_VERSION,
            label.keyspace,
            self._database_id,
            label.configuration,
            label.lsn,
            label.floor,
            *table,
        )
        parts = _parts(flat)
        replace_file(self._fs, self._file(label.keyspace), header + append_crc(header), parts)

    def drop(self, keyspace: int, why: object = None) -> None:
        """Removes the file of a keyspace; `why` is logged."""
        if self.is_read_only:
            return
        path = self._file(keyspace)
        if why is not None:
            logger.warning("%s is removed and will be built again: %s", path, why)
        self._remove(path)

    def drop_all(self) -> None:
        """Removes every file. Raises StorageError."""
        try:
            names = self._fs.listdir(self.path) if self._fs.is_dir(self.path) else []
        except OSError as error:
            raise StorageError(f"{self.path} cannot be listed: {error}", path=self.path) from error
        for name in filter(_is_own, names):
            self._remove(os.path.join(self.path, name), must=True)

    def _file(self, keyspace: int) -> str:
        return os.path.join(self.path, f"{keyspace}{_SUFFIX}")

    def _sweep(self, last_lsn: Lsn, keyspaces: Collection[int]) -> None:
        try:
            names = self._fs.listdir(self.path) if self._fs.is_dir(self.path) else []
        except OSError as error:
            logger.warning("%s cannot be listed: %s", self.path, error)
            return
        for name in filter(_is_own, names):
            path = os.path.join(self.path, name)
            lsn = NO_LSN
            try:
                if name.endswith(".tmp"):
                    raise Unusable("it was not completed")
                label = Cached(self._fs.map(path), self._database_id).label
                lsn = label.lsn
                if lsn > last_lsn:
                    raise Unusable(f"it holds Lsn {lsn}, and the log ends at Lsn {last_lsn}")
                if label.keyspace not in keyspaces or path != self._file(label.keyspace):
                    raise Unusable("it belongs to another index or to a dropped one")
            except (OSError, Unusable) as error:
                logger.warning("%s is removed and will be built again: %s", path, error)
                self._remove(path, must=lsn > last_lsn)

    def _remove(self, path: str, *, must: bool = False) -> None:
        """Removes a file. With `must` a failure raises StorageError, otherwise it is logged."""
        try:
            if self._fs.exists(path):
                self._fs.unlink(path)
                self._fs.sync_dir(self.path)
        except (OSError, ReplacedError) as error:
            if must:
                raise StorageError(
                    f"{path} holds data that the database no longer has, and cannot be removed "
                    f"({error}): remove it and open the database again",
                    path=path,
                ) from error
            logger.warning("%s cannot be removed: %s", path, error)


def _is_own(name: str) -> bool:
    """Whether it is the name of a cache file, or of one that was not completed."""
    base = staged_for(name) or name.removesuffix(".tmp")  # earlier versions made no mark
    return base.endswith(_SUFFIX) and base.removesuffix(_SUFFIX).isdecimal()


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _checksums(data: memoryview) -> tuple[int, int]:
    """The checksums of both halves."""
    half = len(data) // 2
    if half < _THREAD_BYTES:
        return _checksums_of([data])
    sums = [0, 0]

    def sum_of(place: int) -> None:
        sums[place] = crc32(data[half:] if place else data[:half])

    in_parallel([partial(sum_of, 1), partial(sum_of, 0)], "amberdb-checksum")
    return sums[0], sums[1]


def _checksums_of(pieces: Sequence[memoryview]) -> tuple[int, int]:
    """The checksums of both halves of bytes in pieces."""
    left = sum(map(len, pieces)) // 2
    first = second = 0
    for piece in pieces:
        first = crc32(piece[:left], first)
        second = crc32(piece[left:], second)
        left = max(left - len(piece), 0)
    return first, second


def _parts(sections: Iterable[Sequence[memoryview]]) -> Iterator[bytes]:
    """The bytes after the header: each section that is not empty, after zeros up to its start."""
    end = HEADER_SIZE
    for pieces in sections:
        if pieces:
            yield bytes(_aligned(end) - end)
            end = _aligned(end)
        for piece in pieces:
            for start in range(0, len(piece), _PART_BYTES):
                yield bytes(piece[start : start + _PART_BYTES])
            end += len(piece)
