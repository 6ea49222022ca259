"""Every way to change a file that the recorder of system calls understands, once.

Invariants:
- Each call leaves something behind, so a recording without it does not lead to the same files.
"""

import mmap
import os
from pathlib import Path


def every_call(root: Path) -> None:
    """Below an empty directory."""
    _contents(str(root / "contents"))
    _sizes(str(root / "sizes"))
    _descriptors(str(root / "descriptors"))
    _mapped(str(root / "mapped"))
    _names(root)


def _contents(path: str) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    os.write(fd, b"one ")
    os.writev(fd, [b"two ", b"", b"three "])
    os.pwrite(fd, b"four", 20)
    os.pwritev(fd, [b"fi", b"ve"], 5000)
    os.lseek(fd, 100, os.SEEK_SET)
    os.write(fd, b"six")
    os.fsync(fd)
    os.close(fd)
    with open(path, "ab") as file:
        file.write(b"seven")


def _sizes(path: str) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.write(fd, b"x" * 9000)
    os.ftruncate(fd, 5000)
    os.posix_fallocate(fd, 4000, 2000)
    os.fdatasync(fd)
    os.close(fd)
    os.truncate(path, 7000)
    with open(path + "-emptied", "wb") as file:
        file.write(b"long")
    with open(path + "-emptied", "wb") as file:
        file.write(b"x")


def _descriptors(path: str) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DSYNC)
    copy = os.dup(fd)
    other = os.dup2(fd, copy + 1)
    os.close(fd)
    os.write(copy, b"by a copy, ")
    os.write(other, b"by another")
    os.close(copy)
    os.close(other)


def _mapped(path: str) -> None:
    with open(path, "w+b") as file:
        file.truncate(10_000)
        with mmap.mmap(file.fileno(), 0) as memory:
            memory[4000:4200] = b"m" * 200
            file.write(b"front")
            file.flush()
            memory[9999] = 1


def _names(root: Path) -> None:
    (root / "old").mkdir()
    (root / "old" / "file").write_bytes(b"moved")
    (root / "old" / "gone").write_bytes(b"")
    (root / "old").rename(root / "new")
    (root / "new" / "gone").unlink()
    (root / "empty").mkdir()
    (root / "empty").rmdir()
    (root / "aside").write_bytes(b"later")
    (root / "aside").replace(root / "new" / "file")
    directory = os.open(root / "new", os.O_RDONLY)
    at = os.open("relative", os.O_WRONLY | os.O_CREAT, dir_fd=directory)
    os.write(at, b"to a directory")
    os.close(at)
    os.rename("relative", "renamed", src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)
    os.close(directory)
