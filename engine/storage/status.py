"""STATUS: the visible and the durable Lsn of the writing process, in memory shared with readers.

    magic 8 | format u32 | zero u32 | database_id 16 | boot 16 | zero u32 | crc u32 |
    visible u64 | durable u64        the two words in the byte order of the machine

Invariants:
- A word is stored and loaded by one instruction: a reader gets the old value or the new one.
- `visible` is stored after the records up to it were written and have met their durability class,
  `durable` after their sync: every record up to a word is in the log, or in LMDB, before the word
  is stored.
- It is never synced, and is valid until the machine is restarted: after that the content on disk is
  older than the log. A file of another boot, or of another database, is ignored.
- A writer stores valid words before MANIFEST marks the database as in use.
"""

import os
from struct import Struct
from typing import Final, final

from amberdb._bytes import CRC_SIZE, append_crc
from amberdb._fs import FileSystem, boot_id
from amberdb._types import Lsn

NAME: Final = "STATUS"
MAGIC: Final = b"AMBERST\n"
FORMAT_VERSION: Final = 1
_FIELDS = Struct("<8sII16s16s4x")
_WORDS_START: Final = 56
SIZE: Final = 72
assert _FIELDS.size + CRC_SIZE == _WORDS_START
assert _WORDS_START % 8 == 0
assert SIZE == _WORDS_START + 2 * 8
_VISIBLE: Final = 0
_DURABLE: Final = 1


@final
class Status:
    """The mapped file. One process stores the words, any number read them."""

    __slots__ = ("_words",)

    def __init__(self, shared: memoryview) -> None:
        self._words = shared[_WORDS_START:SIZE].cast("Q")

    @classmethod
    def begin(cls, fs: FileSystem, directory: str, database_id: bytes, last_lsn: Lsn) -> "Status":
        """Opens the file for the writer, before its first commit, with `last_lsn` as the visible
        and the durable Lsn. Raises OSError."""
        path = os.path.join(directory, NAME)
        if not _is_complete(fs, path):
            _create(fs, path)
        shared = fs.map_shared(path, writable=True)
        header = _header(database_id)
        if bytes(shared[:_WORDS_START]) != header:
            shared[:_WORDS_START] = bytes(_WORDS_START)  # ignored until the words are valid
        status = cls(shared)
        status.set_visible(last_lsn)
        status.set_durable(last_lsn)
        shared[:_WORDS_START] = header
        return status

    @classmethod
    def read(cls, fs: FileSystem, directory: str, database_id: bytes) -> "Status | None":
        """Opens the file for a reader; None when it is missing or is to be ignored. Raises
        OSError."""
        path = os.path.join(directory, NAME)
        if not _is_complete(fs, path):
            return None
        shared = fs.map_shared(path)
        if bytes(shared[:_WORDS_START]) != _header(database_id):
            return None
        return cls(shared)

    @property
    def visible(self) -> int:
        return self._words[_VISIBLE]

    @property
    def durable(self) -> int:
        return self._words[_DURABLE]

    def set_visible(self, lsn: int) -> None:
        """Every commit up to `lsn` is acknowledged, or may be."""
        self._words[_VISIBLE] = lsn

    def set_durable(self, lsn: int) -> None:
        """Every commit up to `lsn` survives power loss."""
        self._words[_DURABLE] = lsn

    def close(self) -> None:
        """Unmaps the file. The words stay readable; what is stored from now on is seen by nobody.
        Any thread may be storing one meanwhile."""
        self._words = memoryview(bytearray(self._words)).cast("Q")


def _header(database_id: bytes) -> bytes:
    fields = _FIELDS.pack(MAGIC, FORMAT_VERSION, 0, database_id, boot_id())
    return fields + append_crc(fields)


def _is_complete(fs: FileSystem, path: str) -> bool:
    try:
        return fs.file_identity(path)[-1] == SIZE
    except FileNotFoundError:
        return False


def _create(fs: FileSystem, path: str) -> None:
    """Writes the whole file: on a full disk a page without a block would kill a process that reads
    it through a map."""
    if fs.exists(path):
        fs.unlink(path)
    file = fs.open(path, create=True)
    try:
        file.pwrite(bytes(SIZE), 0)
    finally:
        file.close()
