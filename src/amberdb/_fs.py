"""The file system interface: AmberDB reads and writes its own files only through it.

Tests substitute a faulty file system. LMDB accesses its file itself (engine/storage/store.py). No
other module imports fcntl or calls fsync.

Invariants:
- `pwrite` writes all bytes or raises; `sync` returns only after the device has the data.
- A created, renamed or removed name is durable only after `sync_dir` of its directory.
- After `replace_file` a name has either the old or the new content, never a mix.
- The name of a file or directory that is still being made has a mark and a random id: no other
  program's file is taken for one, overwritten or removed.
- A directory is made for its owner alone. A file in it gets the permissions of the directory, so
  one that a user has opened to a group stays open to it; a file beside others' is private.
"""

import errno
import fcntl
import io
import mmap
import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

from amberdb._errors import AmberError


def _cheapest_sync() -> Callable[[int], object]:
    full: int | None = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:  # macOS: fsync leaves the data in the drive's cache
        return lambda fd: fcntl.fcntl(fd, full)
    return getattr(os, "fdatasync", os.fsync)


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
        """Returns once everything written to this file survives power loss."""
        ...

    def truncate(self, size: int) -> None: ...

    def size(self) -> int: ...

    def close(self) -> None: ...


class DirLock(Protocol):
    """A lock that the kernel releases when its process dies."""

    def is_in_place(self) -> bool:
        """Whether the path still leads to the file that is locked: False when it, or a directory
        on the way to it, was removed, renamed or replaced."""
        ...

    def close(self) -> None: ...


class FileSystem(Protocol):
    """The operations of a file system that the engine and the log need."""

    def open(
        self, path: str, *, create: bool = False, read_only: bool = False, private: bool = False
    ) -> File:
        """Opens an existing file, or with `create` a new one (FileExistsError if it exists), with
        the permissions of its directory; with `private` for its owner alone."""
        ...

    def read(self, path: str) -> bytes: ...

    def map(self, path: str) -> memoryview:
        """A read-only mapping of a whole file that is not written any more."""
        ...

    def map_shared(self, path: str, *, writable: bool = False) -> memoryview:
        """A mapping of a whole small file that processes share: each sees what the others store.
        After the file is replaced, the mapping still shows the old one."""
        ...

    def file_identity(self, path: str) -> tuple[int, ...]:
        """A value that changes when the file under this name is replaced. Raises
        FileNotFoundError."""
        ...

    def exists(self, path: str) -> bool: ...

    def is_dir(self, path: str) -> bool: ...

    def listdir(self, path: str) -> list[str]:
        """The names inside a directory, sorted."""
        ...

    def mkdir(self, path: str, *, like: str | None = None) -> None:
        """Makes a directory for its owner alone, or with the permissions of the directory `like`,
        within the umask."""
        ...

    def copy_access(self, source: str, target: str) -> None:
        """Gives a directory the owner, group, permissions and ACL of another one, as far as this
        process may."""
        ...

    def rmdir(self, path: str) -> None:
        """Removes an empty directory."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Atomic; replaces a file at `target`."""
        ...

    def unlink(self, path: str) -> None: ...

    def sync_dir(self, path: str) -> None:
        """Makes the names inside the directory durable."""
        ...

    def lock(self, path: str, owner: str) -> DirLock:
        """Takes the lock file and writes `owner`, whose first word is a pid, into it.

        Raises BlockingIOError, its `filename2` the other owner's text, when another process or
        another handle of this process holds the lock.
        """
        ...

    def lock_shared(self, path: str) -> DirLock:
        """Takes the existing lock file shared, without writing to it: other readers may hold it
        too, an owner may not. Raises BlockingIOError as lock() does, FileNotFoundError."""
        ...

    def is_read_only(self, path: str) -> bool:
        """Whether the file system at this path is mounted read-only."""
        ...

    def check_lock(self) -> None:
        """Raises ReplacedError when this is the file system of an open database, and the path of
        that database no longer leads to the directory that was opened."""
        ...

    def check_directory(self) -> None:
        """check_lock(), and the directory still has the MANIFEST that this process knows."""
        ...


class _Descriptor(io.FileIO):
    """A file descriptor that is closed once: close() is one step of the interpreter, which no
    interruption divides, and what is garbage is closed. Raises IsADirectoryError."""

    def __init__(self, fd: int, path: str) -> None:
        try:
            super().__init__(fd)
        except OSError as error:
            os.close(fd)
            error.filename = path
            raise

    def __del__(self) -> None:  # FileIO itself would warn
        self.close()


class _OsFile:
    """Positioned reads and writes, and the cheapest sync that makes data durable."""

    __slots__ = ("_descriptor", "_fd")

    def __init__(self, fd: int, path: str) -> None:
        self._descriptor = _Descriptor(fd, path)
        self._fd = fd

    def pread(self, size: int, offset: int) -> bytes:
        data = os.pread(self._fd, size, offset)
        if len(data) == size or not data:
            return data
        parts = [data]  # cut short by a signal, or by the end of the file
        done = len(data)
        while done < size:
            data = os.pread(self._fd, size - done, offset + done)
            if not data:
                break
            parts.append(data)
            done += len(data)
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
        self._descriptor.close()
        self._fd = -1


class _OsLock:
    """An flock: released with its last descriptor, so at the latest when the process ends."""

    __slots__ = ("_descriptor", "_identity", "_path")

    def __init__(self, path: str, owner: str) -> None:
        fd = self._lock(path, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX)
        text = owner.encode()
        os.pwrite(fd, text, 0)
        # Not to 0 before: ext4 takes that for a replacement of the file, and writes it at once.
        os.ftruncate(fd, len(text))

    def _lock(self, path: str, flags: int, operation: int) -> int:
        self._path = path
        fd = _locked(path, flags, operation)
        self._descriptor = _Descriptor(fd, path)
        self._identity = _inode(os.fstat(fd))
        return fd

    def is_in_place(self) -> bool:
        try:
            return _inode(os.stat(self._path)) == self._identity
        except OSError as error:  # others, such as EACCES, do not show that it has gone
            return error.errno not in _GONE

    def close(self) -> None:
        self._descriptor.close()


class _OsSharedLock(_OsLock):
    """A shared flock, through a read-only descriptor."""

    __slots__ = ()

    def __init__(self, path: str) -> None:
        self._lock(path, os.O_RDONLY, fcntl.LOCK_SH)


_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _locked(path: str, flags: int, operation: int) -> int:
    """A descriptor that holds the lock of the file at the path. Raises BlockingIOError with the
    text of the owner."""
    mode = _lock_mode(os.path.dirname(path))
    while True:
        fd = os.open(path, flags | os.O_NOFOLLOW, mode)
        try:
            fcntl.flock(fd, operation | fcntl.LOCK_NB)
            status = os.fstat(fd)
            if _is_at(path, status):
                if flags & os.O_CREAT and stat.S_IMODE(status.st_mode) & ~mode:
                    with suppress(PermissionError):  # it belongs to another user of the directory
                        os.fchmod(fd, mode)
                return fd
        except BlockingIOError:
            other = os.pread(fd, 4096, 0).decode("utf-8", "replace")
            os.close(fd)
            raise BlockingIOError(errno.EWOULDBLOCK, "locked", path, None, other) from None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # its owner has removed it meanwhile: a lock of it keeps nobody out


def _is_at(path: str, status: os.stat_result) -> bool:
    try:
        return _inode(os.stat(path)) == _inode(status)
    except FileNotFoundError:
        return False


def _lock_mode(directory: str) -> int:
    """The permissions of a lock file: whoever can open it can hold it, reading is enough. So it is
    for those who may write to the directory."""
    writers = os.stat(directory or ".").st_mode & 0o022
    return 0o600 | writers | writers << 1


class OsFileSystem:
    """The file system of the operating system."""

    def open(
        self, path: str, *, create: bool = False, read_only: bool = False, private: bool = False
    ) -> File:
        flags = os.O_RDONLY if read_only else os.O_RDWR
        mode = 0o600
        if create:
            flags |= os.O_CREAT | os.O_EXCL
            if not private:
                mode = file_mode(os.path.dirname(path))
        return _OsFile(os.open(path, flags, mode), path)

    def read(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def map(self, path: str) -> memoryview:
        if not os.path.getsize(path):  # mmap refuses an empty file
            return memoryview(b"")
        with open(path, "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def map_shared(self, path: str, *, writable: bool = False) -> memoryview:
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        with open(path, "r+b" if writable else "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=access))

    def file_identity(self, path: str) -> tuple[int, ...]:
        status = os.stat(path)
        return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def is_dir(self, path: str) -> bool:
        return os.path.isdir(path)

    def listdir(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def mkdir(self, path: str, *, like: str | None = None) -> None:
        os.mkdir(path, 0o700 if like is None else stat.S_IMODE(os.stat(like).st_mode))

    def copy_access(self, source: str, target: str) -> None:
        import shutil  # imported on demand: few programs need it

        status = os.stat(source)
        with suppress(PermissionError):
            os.chown(target, status.st_uid, status.st_gid)
        shutil.copystat(source, target)  # with the ACL, which is an extended attribute

    def rmdir(self, path: str) -> None:
        os.rmdir(path)

    def rename(self, source: str, target: str) -> None:
        os.replace(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def sync_dir(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def lock(self, path: str, owner: str) -> DirLock:
        return _OsLock(path, owner)

    def lock_shared(self, path: str) -> DirLock:
        return _OsSharedLock(path)

    def is_read_only(self, path: str) -> bool:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)

    def check_lock(self) -> None: ...

    def check_directory(self) -> None: ...


def file_mode(directory: str) -> int:
    """The permissions of a new file in a directory: the directory's own, without execution."""
    return os.stat(directory or ".").st_mode & 0o666 | 0o600


def remove_directory(fs: FileSystem, path: str) -> None:
    """Removes a directory and the files in it. The removal is durable after `sync_dir`."""
    while True:
        for name in fs.listdir(path):
            fs.unlink(os.path.join(path, name))
        try:
            return fs.rmdir(path)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:  # a reading process made LMDB's lock file
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


def what_is_full(path: str) -> str:
    """What a file system lacks that has refused a write for lack of space."""
    with suppress(OSError):
        status = os.statvfs(path if os.path.exists(path) else os.path.dirname(path) or ".")
        if status.f_files and not status.f_favail:
            return "no inode is left (the number of files is limited): remove files"
    return "no space is left: free some"


def boot_id() -> bytes:
    """16 bytes that change with each boot of the machine; zeros when they are unknown."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return bytes.fromhex(file.read().strip().replace("-", ""))
    except (OSError, ValueError):
        return bytes(16)


_STAGED = re.compile(r"(.+)\.amber-[0-9a-f]{16}\.tmp", re.DOTALL)


def staging_name(path: str) -> str:
    """A new name beside `path` for a file or directory that is still being made."""
    return f"{path}.amber-{os.urandom(8).hex()}.tmp"


def staged_for(name: str) -> str | None:
    """The name for which a staging name was made; None for another name."""
    match = _STAGED.fullmatch(name)
    return match[1] if match else None


_SYNC_BYTES = 16 << 20


def append_lines(fs: FileSystem, path: str, lines: bytes) -> None:
    """Appends whole lines to a file, which is made if missing, and syncs. After a line that a crash
    cut short, they begin on a new line. One writer at a time. Raises OSError."""
    is_new = not fs.exists(path)
    file = fs.open(path, create=is_new, private=True)
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
    private: bool = False,
    verify: Callable[[str], None] | None = None,
    durable: bool = True,
) -> None:
    """Replaces the file durably with `data` and the parts of `more`: writes a staging file, syncs
    it, renames it, syncs the directory. Large data is synced in parts, so that syncs of other
    files never wait for all of it. `verify` is called with the staging file before the rename, and
    may raise. A failure before the rename leaves no staging file. Without `durable` nothing is
    synced: a power loss may leave the file empty."""
    staged = staging_name(path)
    file = fs.open(staged, create=True, private=private)
    try:
        try:
            file.pwrite(data, 0)
            end = synced = len(data)
            for part in more:
                file.pwrite(part, end)
                end += len(part)
                if durable and end - synced >= _SYNC_BYTES:
                    file.sync()
                    synced = end
            if durable:
                file.sync()
        finally:
            file.close()
        if verify is not None:
            verify(staged)
        fs.rename(staged, path)
    except BaseException:
        with suppress(OSError, AmberError):
            fs.unlink(staged)
        raise
    if durable:
        fs.sync_dir(os.path.dirname(path) or ".")


def replace_files(
    fs: FileSystem,
    files: Sequence[tuple[str, bytes]],
    *,
    private: bool = False,
    verify: Callable[[str, str], None] | None = None,
) -> None:
    """Replaces files of one directory durably, each as replace_file() does, in the time of a few
    syncs: all are written before the first of them is synced. `verify` is called with the path and
    the staging file. A failure leaves no staging file, and may leave some of the files replaced."""
    staged = {path: staging_name(path) for path, _ in files}
    try:
        for path, data in files:
            _write_new(fs, staged[path], data, private)
        os.sync()  # each sync below then finds little to do, and is what makes its file durable
        for path in staged:
            file = fs.open(staged[path])
            try:
                file.sync()
            finally:
                file.close()
        for path in list(staged):
            if verify is not None:
                verify(path, staged[path])
            fs.rename(staged[path], path)
            del staged[path]
    except BaseException:
        for name in staged.values():
            with suppress(OSError, AmberError):
                fs.unlink(name)
        raise
    for directory in {os.path.dirname(path) or "." for path, _ in files}:
        fs.sync_dir(directory)


def _write_new(fs: FileSystem, path: str, data: bytes, private: bool) -> None:
    file = fs.open(path, create=True, private=private)
    try:
        file.pwrite(data, 0)
    finally:
        file.close()
