"""Short ways to make logs, in a file system that fails on demand."""

import os
import threading
from dataclasses import dataclass, field

from amberdb._types import LSN_NUMBER_BITS, NO_LSN, Lsn
from amberdb.wal import Log, LogOptions, Record, Recovery
from amberdb.wal.record import Header, find_headers
from amberdb.wal.segment import RECORDS_START, decode_header
from support.faulty_fs import FaultyFileSystem

DATABASE_ID = b"0123456789abcdef"
SMALL = LogOptions(segment_bytes_min=4096, segment_bytes_max=16384)


def lsn(number: int, epoch: int = 1) -> Lsn:
    return Lsn(epoch << LSN_NUMBER_BITS | number)


@dataclass
class LogDirectory:
    """One directory, and the log in it opened as often as a test likes."""

    fs: FaultyFileSystem
    path: str
    options: LogOptions = SMALL
    epoch: int = 1
    replayed: list[Record] = field(default_factory=list[Record])

    def create(self, options: LogOptions | None = None) -> Log:
        self.options = options or self.options
        return Log.create(self.fs, self.path, database_id=DATABASE_ID, options=self.options)

    def reopen(
        self,
        *,
        clean: Lsn | None = None,
        applied: Lsn = NO_LSN,
        database_id: bytes = DATABASE_ID,
        applied_offset: int | None = None,
    ) -> tuple[Log, Recovery]:
        """Opens as after a crash, or with `clean` as after a clean close."""
        join_preparation()  # of the log whose process this stands for the end of
        if clean is None:
            self.epoch += 1
        self.replayed = []
        return Log.open(
            self.fs,
            self.path,
            database_id=database_id,
            options=self.options,
            applied=applied,
            clean_last=clean,
            epoch=self.epoch,
            replay=self.replayed.append,
            applied_offset=applied_offset,
        )

    def payloads(self) -> list[bytes]:
        return [record.payload for record in self.replayed]

    def segments(self) -> list[str]:
        names = self.fs.listdir(self.path)
        return [os.path.join(self.path, name) for name in names if name.endswith(".wal")]

    def names(self, part: str) -> list[str]:
        return [name for name in self.fs.listdir(self.path) if part in name]

    def headers(self, path: str) -> list[Header]:
        """The headers of all records in a segment file."""
        data = self.fs.read(path)
        return list(find_headers(data, RECORDS_START, decode_header(data, path).salt, 0))

    def damage(self, path: str, offset: int, data: bytes | None = None) -> None:
        """Overwrites bytes; without `data` flips one."""
        with open(path, "r+b") as file:
            if data is None:
                file.seek(offset)
                data = bytes([file.read(1)[0] ^ 0x40])
            file.seek(offset)
            file.write(data)


def join_preparation() -> None:
    """Waits for the short-lived threads that prepare segments."""
    for thread in threading.enumerate():
        if thread.name == "amberdb-wal-prepare":
            thread.join()


def fill(log: Log, numbers: range, *, sync: bool = True, size: int = 0) -> list[bytes]:
    """Appends one payload per number."""
    payloads: list[bytes] = []
    for number in numbers:
        payload = b"%06d" % number + bytes(size)
        log.append(payload, number, 1, "always" if sync else "os")
        payloads.append(payload)
    if sync:
        log.wait(log.required_lsn)
    return payloads


def rotate(log: Log) -> None:
    """Starts a new segment, as the append of a record does that no longer fits."""
    log._start_segment(0)  # pyright: ignore[reportPrivateUsage]
