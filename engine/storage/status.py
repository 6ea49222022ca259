"""STATUS: what the writing process tells the processes that read beside it, in shared memory.

    magic 8 | format u32 | zero u32 | database_id 16 | boot 16 | zero u32 | crc u32 |
    visible u64 | durable u64        the two words in the byte order of the machine

Invariants:
- A word is stored and loaded by one instruction: who reads it has the old value or the new one.
- `visible` is stored after the records up to it were written and have met their class, `durable`
  after their sync: everything behind a word is in the log, or in LMDB, before the word says so.
- It is never synced, and counts only until the machine starts again: what the disk has of it after
  that is older than the log. A file of another boot, or of another database, says nothing.
- A writer has put it right before MANIFEST says that the database is in use.
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
    """The file, mapped. One process stores, any number read."""

    __slots__ = ("_words",)

    def __init__(self, shared: memoryview) -> None:
        self._words = shared[_WORDS_START:SIZE].cast("Q")

    @classmethod
    def begin(cls, fs: FileSystem, directory: str, database_id: bytes, last_lsn: Lsn) -> "Status":
        """For the writer, as long as nobody commits: up to `last_lsn` all is visible and durable.
        Raises OSError."""
        path = os.path.join(directory, NAME)
        if not _is_there(fs, path):
            _create(fs, path)
        shared = fs.map_shared(path, writable=True)
        header = _header(database_id)
        if bytes(shared[:_WORDS_START]) != header:
            shared[:_WORDS_START] = bytes(_WORDS_START)  # says nothing until the words are right
        status = cls(shared)
        status.set_visible(last_lsn)
        status.set_durable(last_lsn)
        shared[:_WORDS_START] = header
        return status

    @classmethod
    def read(cls, fs: FileSystem, directory: str, database_id: bytes) -> "Status | None":
        """For a reader; None when there is none that counts. Raises OSError."""
        path = os.path.join(directory, NAME)
        if not _is_there(fs, path):
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
        """Everything up to here is acknowledged, or may be."""
        self._words[_VISIBLE] = lsn

    def set_durable(self, lsn: int) -> None:
        """Everything up to here survives power loss."""
        self._words[_DURABLE] = lsn


def _header(database_id: bytes) -> bytes:
    fields = _FIELDS.pack(MAGIC, FORMAT_VERSION, 0, database_id, boot_id())
    return fields + append_crc(fields)


def _is_there(fs: FileSystem, path: str) -> bool:
    return fs.exists(path) and fs.file_identity(path)[-1] == SIZE


def _create(fs: FileSystem, path: str) -> None:
    """Written, not only made longer: a page that has no place on a full disk kills who maps it."""
    if fs.exists(path):
        fs.unlink(path)
    file = fs.open(path, create=True)
    try:
        file.pwrite(bytes(SIZE), 0)
    finally:
        file.close()
