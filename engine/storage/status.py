"""STATUS: the visible and the durable Lsn of the writing process, and what it did in each of the
last 60 minutes, in memory shared with readers.

    magic 8 | format u32 | zero u32 | database_id 16 | boot 16 | zero u32 | crc u32 |
    visible u64 | durable u64        the two words in the byte order of the machine
    60 slots, one for a minute:
        minute u64 | commits u64 | log_bytes u64 | data_bytes u64 |
        syncs u32 | sync_us_mean u32 | sync_us_max u32 |
        checkpoints u32 | checkpoint_us_max u32 | crc u32

Minutes are counted since 1970; the slot of a minute is `minute % 60`.

Invariants:
- A word is stored and loaded by one instruction: a reader gets the old value or the new one.
- `visible` is stored after the records up to it were written and have met their durability class,
  `durable` after their sync: every record up to a word is in the log, or in LMDB, before the word
  is stored.
- It is never synced, and is valid until the machine is restarted: after that the content on disk is
  older than the log. A file of another boot, or of another database, is ignored.
- A writer stores valid words before MANIFEST marks the database as in use.
- A slot that is being stored, or was never stored, has no valid CRC, and is no sample. Processes
  that write one after the other continue the ring.
"""

import os
from dataclasses import dataclass
from datetime import datetime
from struct import Struct
from typing import Final, final

from amberdb._bytes import CRC_SIZE, append_crc, crc_matches
from amberdb._fs import FileSystem, boot_id
from amberdb._public import public
from amberdb._time import time_of
from amberdb._types import Lsn

NAME: Final = "STATUS"
MAGIC: Final = b"AMBERST\n"
FORMAT_VERSION: Final = 2
_FIELDS = Struct("<8sII16s16s4x")
_WORDS_START: Final = 56
MINUTES: Final = 60
MINUTE_US: Final = 60_000_000
_SLOT = Struct("<4Q5I")
_SLOT_SIZE: Final = 56
assert _SLOT.size + CRC_SIZE == _SLOT_SIZE
RING_SIZE: Final = MINUTES * _SLOT_SIZE
_U32_MAX: Final = 2**32 - 1
_RING_START: Final = 72
SIZE: Final = _RING_START + RING_SIZE
assert _FIELDS.size + CRC_SIZE == _WORDS_START
assert _WORDS_START % 8 == 0
assert _RING_START == _WORDS_START + 2 * 8
assert SIZE <= 4096, "one page"
_VISIBLE: Final = 0
_DURABLE: Final = 1


@final
class Status:
    """The mapped file. One process stores the words, any number read them."""

    __slots__ = ("_words", "minutes")

    def __init__(self, shared: memoryview) -> None:
        self._words = shared[_WORDS_START:_RING_START].cast("Q")
        self.minutes = MinuteRing(shared[_RING_START:SIZE])

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
            shared[:] = bytes(SIZE)  # ignored until the words are valid
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
        self.minutes.close()


@public
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Minute:
    """What a database did in one minute, and the sizes of its files at the end of it."""

    time: datetime
    """The beginning of the minute, in UTC."""
    commits: int
    syncs: int
    """Syncs of the log."""
    sync_mean_ms: float
    sync_max_ms: float
    checkpoints: int
    checkpoint_max_ms: float
    log_bytes: int
    data_bytes: int


@final
@dataclass(slots=True)
class Sample:
    """A minute as it is counted and stored, with times in microseconds."""

    minute: int
    commits: int = 0
    log_bytes: int = 0
    data_bytes: int = 0
    syncs: int = 0
    sync_us_total: float = 0.0
    sync_us_max: float = 0.0
    checkpoints: int = 0
    checkpoint_us_max: float = 0.0

    def shown(self) -> Minute:
        """The public form."""
        return Minute(
            time=time_of(self.minute * MINUTE_US),
            commits=self.commits,
            syncs=self.syncs,
            sync_mean_ms=self.sync_us_mean / 1000,
            sync_max_ms=self.sync_us_max / 1000,
            checkpoints=self.checkpoints,
            checkpoint_max_ms=self.checkpoint_us_max / 1000,
            log_bytes=self.log_bytes,
            data_bytes=self.data_bytes,
        )

    @property
    def sync_us_mean(self) -> float:
        return self.sync_us_total / self.syncs if self.syncs else 0.0


@final
class MinuteRing:
    """The slots in shared memory. One process stores, any number read."""

    __slots__ = ("_slots",)

    def __init__(self, shared: memoryview) -> None:
        self._slots = shared

    def close(self) -> None:
        """Leaves the shared memory. The samples stay readable; what is stored from now on is seen
        by nobody."""
        self._slots = memoryview(bytearray(self._slots))

    def store(self, sample: Sample) -> None:
        """Puts a sample in place of the one of an hour before."""
        fields = _SLOT.pack(
            sample.minute,
            sample.commits,
            sample.log_bytes,
            sample.data_bytes,
            *(
                min(int(value), _U32_MAX)
                for value in (
                    sample.syncs,
                    sample.sync_us_mean,
                    sample.sync_us_max,
                    sample.checkpoints,
                    sample.checkpoint_us_max,
                )
            ),
        )
        start = sample.minute % MINUTES * _SLOT_SIZE
        self._slots[start : start + _SLOT_SIZE] = fields + append_crc(fields)

    def sample(self, minute: int) -> Sample | None:
        """The sample of one minute; None when there is none."""
        start = minute % MINUTES * _SLOT_SIZE
        slot = bytes(self._slots[start : start + _SLOT_SIZE])
        if not crc_matches(slot):
            return None
        stored, commits, log_bytes, data_bytes, syncs, mean, longest, checkpoints, checkpoint = (
            _SLOT.unpack_from(slot)
        )
        if stored != minute:
            return None
        return Sample(
            minute, commits, log_bytes, data_bytes,
            syncs, mean * syncs, longest, checkpoints, checkpoint,
        )  # fmt: skip

    def last_hour(self, now_us: int) -> tuple[Minute, ...]:
        """The samples of the 60 minutes up to `now_us`, the oldest first."""
        last = now_us // MINUTE_US
        samples = map(self.sample, range(max(0, last - MINUTES + 1), last + 1))
        return tuple(sample.shown() for sample in samples if sample is not None)


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
