"""The file seam: every file that AmberDB writes itself goes through these few methods.

Tests put a faulty file system here; LMDB's own file is behind engine/storage/store.py. Nothing
else in the package imports fcntl or calls fsync.

Invariants:
- `pwrite` writes all bytes or raises; `sync` returns only after the device has the data.
- A created, renamed or removed name is durable only after `sync_dir` of its directory.
- `replace_file` leaves either the old or the new content under the name, never a mix.
"""

import errno
import mmap
import os
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_POSIX = fcntl is not None

_BINARY: int = getattr(os, "O_BINARY", 0)
_CLOEXEC: int = getattr(os, "O_CLOEXEC", 0)


def _cheapest_sync() -> Callable[[int], object]:
    full: int | None = getattr(fcntl, "F_FULLFSYNC", None)
    if fcntl is not None and full is not None:  # macOS: fsync leaves it in the drive's cache
        return partial(_full_sync, fcntl.fcntl, full)
    return getattr(os, "fdatasync", os.fsync)


def _full_sync(control: Callable[[int, int], object], command: int, fd: int) -> None:
    control(fd, command)


_sync = _cheapest_sync()


class File(Protocol):
    """One open file, addressed by offset."""

    def pread(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes; fewer only at the end of the file."""
        ...

    def pwrite(self, data: bytes, offset: int) -> None:
        """Writes all of `data`, or raises OSError."""
        ...

    def sync(self) -> None:
        """Returns when everything written to this file survives power loss."""
        ...

    def truncate(self, size: int) -> None: ...

    def size(self) -> int: ...

    def close(self) -> None: ...


class DirLock(Protocol):
    """A lock that the kernel lets go of when its process dies."""

    def moved(self, path: str) -> None:
        """The lock file is at `path` now: its directory was renamed."""
        ...

    def close(self) -> None: ...


class FileSystem(Protocol):
    """What the engine and the log need of a file system."""

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> File:
        """Opens an existing file, or with `create` a new one (FileExistsError if it is there)."""
        ...

    def read(self, path: str) -> bytes: ...

    def map(self, path: str) -> memoryview:
        """The whole of a file that nobody writes any more, read-only; in memory only as far as it
        is touched, where the platform lets a mapped file be replaced."""
        ...

    def share(self, path: str, *, writable: bool = False) -> memoryview:
        """The whole of a small file, as all processes have it that share it: what one stores in
        it the others see. Whoever replaces the file under this name leaves them behind."""
        ...

    def stamp(self, path: str) -> tuple[int, ...]:
        """Another one after the file under this name was replaced. Raises FileNotFoundError."""
        ...

    def exists(self, path: str) -> bool: ...

    def is_dir(self, path: str) -> bool: ...

    def listdir(self, path: str) -> list[str]:
        """The names inside a directory, sorted."""
        ...

    def mkdir(self, path: str) -> None: ...

    def rmdir(self, path: str) -> None:
        """An empty directory."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Atomic; replaces a file at `target`."""
        ...

    def unlink(self, path: str) -> None: ...

    def sync_dir(self, path: str) -> None:
        """Makes the names inside the directory durable, where the platform knows how."""
        ...

    def lock(self, path: str, owner: str) -> DirLock:
        """Takes the lock file and writes `owner`, whose first word is a pid, into it.

        Raises BlockingIOError, its `filename2` the other owner's text, when another process or
        another handle of this one has it.
        """
        ...

    def lock_shared(self, path: str) -> DirLock:
        """As long as it is held nobody takes the lock file, which is there and is only read; other
        readers share it. Raises BlockingIOError as lock() does, FileNotFoundError."""
        ...

    def is_read_only(self, path: str) -> bool:
        """Whether the file system below takes no changes, as it is mounted there."""
        ...


class _OsFile:
    """Positioned reads and writes, and the cheapest sync that keeps the data."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def pread(self, size: int, offset: int) -> bytes:
        data = os.pread(self._fd, size, offset)
        if len(data) == size or not data:
            return data
        parts = [data]  # cut short by a signal, or by the end of the file
        got = len(data)
        while got < size:
            data = os.pread(self._fd, size - got, offset + got)
            if not data:
                break
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def pwrite(self, data: bytes, offset: int) -> None:
        written = os.pwrite(self._fd, data, offset)
        while written < len(data):
            written += os.pwrite(self._fd, data[written:], offset + written)

    def sync(self) -> None:
        _sync(self._fd)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _SeekFile(_OsFile):
    """Where there is no pread, pwrite and fdatasync."""

    __slots__ = ("_mutex",)

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._mutex = threading.Lock()

    def pread(self, size: int, offset: int) -> bytes:
        with self._mutex:
            os.lseek(self._fd, offset, os.SEEK_SET)
            parts: list[bytes] = []
            while size > 0 and (data := os.read(self._fd, size)):
                parts.append(data)
                size -= len(data)
        return b"".join(parts)

    def pwrite(self, data: bytes, offset: int) -> None:
        with self._mutex:
            os.lseek(self._fd, offset, os.SEEK_SET)
            written = 0
            while written < len(data):
                written += os.write(self._fd, data[written:])

    def sync(self) -> None:
        os.fsync(self._fd)


class _OsLock:
    """An flock: it goes with its last descriptor, so with the process at the latest."""

    __slots__ = ("_fd",)

    def __init__(self, path: str, owner: str) -> None:
        assert fcntl is not None
        fd = _locked(path, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX)
        os.ftruncate(fd, 0)
        os.pwrite(fd, owner.encode(), 0)
        self._fd = fd

    def moved(self, path: str) -> None: ...

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _OsSharedLock(_OsLock):
    """The same, shared, through a descriptor that only reads."""

    __slots__ = ()

    def __init__(self, path: str) -> None:
        assert fcntl is not None
        self._fd = _locked(path, os.O_RDONLY, fcntl.LOCK_SH)


def _locked(path: str, flags: int, operation: int) -> int:
    """A descriptor that has the lock. Raises BlockingIOError with what the owner wrote."""
    assert fcntl is not None
    fd = os.open(path, flags | _CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        other = os.pread(fd, 4096, 0).decode("utf-8", "replace")
        os.close(fd)
        raise BlockingIOError(errno.EWOULDBLOCK, "locked", path, None, other) from None
    except BaseException:
        os.close(fd)
        raise
    return fd


class _PidLock:
    """Where there is no flock: a file made exclusively, whose first word is the owner's pid.

    A file left by a dead process is taken over; a pid in use again by another program would
    keep it, which is why flock is preferred wherever it exists.
    """

    def __init__(self, path: str, owner: str) -> None:
        other = self._create(path, owner)
        if other is not None and not _is_alive(other):
            os.unlink(path)
            other = self._create(path, owner)
        if other is not None:
            raise BlockingIOError(errno.EWOULDBLOCK, "locked", path, None, other)
        self._path = path
        self._pid = os.getpid()

    @staticmethod
    def _create(path: str, owner: str) -> str | None:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CLOEXEC, 0o644)
        except FileExistsError:
            with open(path, encoding="utf-8") as file:
                return file.read()
        os.write(fd, owner.encode())
        os.close(fd)
        return None

    def moved(self, path: str) -> None:
        self._path = path

    def close(self) -> None:
        if self._path and self._pid == os.getpid():
            os.unlink(self._path)
        self._path = ""


def _is_alive(owner: str) -> bool:
    word = owner.split(" ", 1)[0]
    if not word.isdigit():
        return False
    try:
        os.kill(int(word), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


class OsFileSystem:
    """The real one. `portable=True` uses only what every platform has (no fcntl, fdatasync,
    pread or directory sync), so that this path can be tested anywhere."""

    def __init__(self, *, portable: bool = not _POSIX) -> None:
        self._portable = portable

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> File:
        flags = os.O_RDONLY if read_only else os.O_RDWR
        if create:
            flags |= os.O_CREAT | os.O_EXCL
        fd = os.open(path, flags | _BINARY | _CLOEXEC, 0o644)
        return _SeekFile(fd) if self._portable else _OsFile(fd)

    def read(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def map(self, path: str) -> memoryview:
        if self._portable or not os.path.getsize(path):
            return memoryview(self.read(path))
        with open(path, "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def share(self, path: str, *, writable: bool = False) -> memoryview:
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        with open(path, "r+b" if writable else "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=access))

    def stamp(self, path: str) -> tuple[int, ...]:
        found = os.stat(path)
        return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def is_dir(self, path: str) -> bool:
        return os.path.isdir(path)

    def listdir(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def mkdir(self, path: str) -> None:
        os.mkdir(path)

    def rmdir(self, path: str) -> None:
        os.rmdir(path)

    def rename(self, source: str, target: str) -> None:
        os.replace(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def sync_dir(self, path: str) -> None:
        if self._portable:
            return
        fd = os.open(path, os.O_RDONLY | _CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def lock(self, path: str, owner: str) -> DirLock:
        return _PidLock(path, owner) if self._portable else _OsLock(path, owner)

    def lock_shared(self, path: str) -> DirLock:
        return _OsSharedLock(path)

    def is_read_only(self, path: str) -> bool:
        return not self._portable and bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def remove_directory(fs: FileSystem, path: str) -> None:
    """A directory of files, and them. Its own name is durable only with `sync_dir`."""
    while True:
        for name in fs.listdir(path):
            fs.unlink(os.path.join(path, name))
        try:
            return fs.rmdir(path)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:  # by a process that reads: LMDB's lock file
                raise


def first_free_name(
    fs: FileSystem, path: str, suffix: str = "", *, fits: Callable[[str], bool] | None = None
) -> str:
    """`path` + `suffix`, or the first of path.1, path.2 ... + `suffix` that does not exist. A name
    that exists is returned when `fits(name)`."""
    name, number = path + suffix, 0
    while fs.exists(name) and not (fits is not None and fits(name)):
        number += 1
        name = f"{path}.{number}{suffix}"
    return name


def boot_id() -> bytes:
    """16 bytes that are others after each start of the machine; zeros where no one tells."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return bytes.fromhex(file.read().strip().replace("-", ""))
    except (OSError, ValueError):
        return bytes(16)


STAGING_SUFFIX = ".tmp"
"""Behind the name of what is not whole yet."""
_SYNC_BYTES = 16 << 20


def append_lines(fs: FileSystem, path: str, lines: bytes) -> None:
    """Adds whole lines to a file of lines, which is made when missing, and syncs. They begin anew
    behind a line that a crash cut short. One writer at a time. Raises OSError."""
    is_new = not fs.exists(path)
    file = fs.open(path, create=is_new)
    try:
        size = file.size()
        if size and file.pread(1, size - 1) != b"\n":
            lines = b"\n" + lines
        file.pwrite(lines, size)
        file.sync()
    finally:
        file.close()
    if is_new:
        fs.sync_dir(os.path.dirname(os.path.abspath(path)))


def replace_file(
    fs: FileSystem,
    path: str,
    data: bytes,
    more: Iterable[bytes] = (),
    *,
    verify: Callable[[str], None] | None = None,
) -> None:
    """Puts `data`, and what `more` gives, under the name for good: written aside, synced, renamed,
    directory synced. Much is synced in parts, so that another file's sync never waits for all.
    `verify` is called before the rename with the name aside, and may raise."""
    aside = path + STAGING_SUFFIX
    if fs.exists(aside):
        fs.unlink(aside)
    file = fs.open(aside, create=True)
    try:
        file.pwrite(data, 0)
        end = synced = len(data)
        for part in more:
            file.pwrite(part, end)
            end += len(part)
            if end - synced >= _SYNC_BYTES:
                file.sync()
                synced = end
        file.sync()
    finally:
        file.close()
    if verify is not None:
        verify(aside)
    fs.rename(aside, path)
    fs.sync_dir(os.path.dirname(path) or ".")
