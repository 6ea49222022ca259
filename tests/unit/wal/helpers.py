"""Files that fail on demand, and short ways to make logs."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from amberdb._fs import DirLock, File, FileSystem
from amberdb._types import LSN_NUMBER_BITS, NO_LSN, Lsn
from amberdb.wal import Log, LogOptions, Record, Recovery
from amberdb.wal.record import Header, find_headers
from amberdb.wal.segment import RECORDS_START, decode_header

DATABASE_ID = b"0123456789abcdef"
SMALL = LogOptions(segment_bytes_min=4096, segment_bytes_max=16384)


def lsn(number: int, epoch: int = 1) -> Lsn:
    return Lsn(epoch << LSN_NUMBER_BITS | number)


class Partial(Exception):
    """Raised by a hook: write only so many bytes, then fail with the error."""

    def __init__(self, size: int, error: OSError) -> None:
        self.size = size
        self.error = error


Hook = Callable[[str, str], None]


@dataclass
class FaultyFs:
    """Calls `hook(operation, path)` before each change; what it raises is the fault."""

    inner: FileSystem
    hook: Hook | None = None
    calls: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    reads: list[int] = field(default_factory=list[int])  # offsets
    open_files: int = 0

    def before(self, operation: str, path: str) -> None:
        self.calls.append((operation, os.path.basename(path)))
        if self.hook is not None:
            self.hook(operation, path)

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> File:
        if not read_only:
            self.before("open", path)
        return _FaultyFile(self, path, self.inner.open(path, create=create, read_only=read_only))

    def read(self, path: str) -> bytes:
        return self.inner.read(path)

    def exists(self, path: str) -> bool:
        return self.inner.exists(path)

    def is_dir(self, path: str) -> bool:
        return self.inner.is_dir(path)

    def listdir(self, path: str) -> list[str]:
        return self.inner.listdir(path)

    def mkdir(self, path: str) -> None:
        self.inner.mkdir(path)

    def rename(self, source: str, target: str) -> None:
        self.before("rename", target)
        self.inner.rename(source, target)

    def unlink(self, path: str) -> None:
        self.before("unlink", path)
        self.inner.unlink(path)

    def rmdir(self, path: str) -> None:
        self.before("rmdir", path)
        self.inner.rmdir(path)

    def sync_dir(self, path: str) -> None:
        self.before("sync_dir", path)
        self.inner.sync_dir(path)

    def lock(self, path: str, owner: str) -> DirLock:
        return self.inner.lock(path, owner)


class _FaultyFile:
    def __init__(self, fs: FaultyFs, path: str, inner: File) -> None:
        self._fs = fs
        self._path = path
        self._inner = inner
        fs.open_files += 1

    def pread(self, size: int, offset: int) -> bytes:
        self._fs.reads.append(offset)
        return self._inner.pread(size, offset)

    def pwrite(self, data: bytes, offset: int) -> None:
        try:
            self._fs.before("pwrite", self._path)
        except Partial as partial:
            self._inner.pwrite(data[: partial.size], offset)
            raise partial.error from None
        self._inner.pwrite(data, offset)

    def sync(self) -> None:
        self._fs.before("sync", self._path)
        self._inner.sync()

    def truncate(self, size: int) -> None:
        self._fs.before("truncate", self._path)
        self._inner.truncate(size)

    def size(self) -> int:
        return self._inner.size()

    def close(self) -> None:
        self._inner.close()
        self._fs.open_files -= 1


def fail_on(operation: str, suffix: str, error: OSError) -> Hook:
    """Every such operation on a path that ends so fails."""

    def hook(found: str, path: str) -> None:
        if found == operation and path.endswith(suffix):
            raise error

    return hook


@dataclass
class LogDirectory:
    """One directory, and the log in it opened as often as a test likes."""

    fs: FaultyFs
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
