"""What a run did to its files, operation by operation: a Trace.

Two recorders make traces (support/recorder.py at the file seam, support/preload at the system
calls), one model of a disk replays them (support/disk.py), one generator turns a crash point into
images of what a power loss can leave (support/images.py).

Invariants:
- Operations stand in the order in which they took effect; each took effect whole, or was
  recorded as the part that did.
- Paths are relative to the recorded root, with "/" between names; "" is the root itself.
- An inode is a file's identity, whatever it is called; numbers are never given twice in a trace.
- A sync stands where it returned. Only what had taken effect when it began, `covers` operations
  of the trace, is durable by it.
"""

from pathlib import Path

import msgspec


class Create(msgspec.Struct, frozen=True, tag=True):
    """A new, empty file."""

    path: str
    inode: int


class Mkdir(msgspec.Struct, frozen=True, tag=True):
    path: str


class Write(msgspec.Struct, frozen=True, tag=True):
    inode: int
    offset: int
    data: bytes


class Truncate(msgspec.Struct, frozen=True, tag=True):
    """To a smaller size or, with zeros, to a larger one."""

    inode: int
    size: int


class Sync(msgspec.Struct, frozen=True, tag=True):
    """fsync or fdatasync: content and size of one file."""

    inode: int
    covers: int


class Content(msgspec.Struct, frozen=True, tag=True):
    """The whole content of a file, durable at once: a commit of a store that is not looked into."""

    inode: int
    data: bytes


class Rename(msgspec.Struct, frozen=True, tag=True):
    """Of a file or a directory; what was at `target` loses that name."""

    path: str
    target: str


class Unlink(msgspec.Struct, frozen=True, tag=True):
    path: str


class Rmdir(msgspec.Struct, frozen=True, tag=True):
    path: str


class SyncDir(msgspec.Struct, frozen=True, tag=True):
    """The names inside one directory."""

    path: str
    covers: int


class Note(msgspec.Struct, frozen=True, tag=True):
    """What the application did or was told here: an acknowledgement, a phase of the workload."""

    data: bytes


Op = Create | Mkdir | Write | Truncate | Sync | Content | Rename | Unlink | Rmdir | SyncDir | Note


class Image(msgspec.Struct):
    """The directories and files below one root, as a mount after the crash would show them."""

    directories: set[str] = msgspec.field(default_factory=set[str])
    """Without the root."""
    files: dict[str, bytes] = msgspec.field(default_factory=dict[str, bytes])

    def write_to(self, root: Path) -> None:
        """`root` is a directory, empty or not there yet."""
        root.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.directories):
            (root / path).mkdir()
        for path, data in self.files.items():
            (root / path).write_bytes(data)

    @classmethod
    def read_from(cls, root: Path) -> "Image":
        image = cls()
        for found in root.rglob("*"):
            path = found.relative_to(root).as_posix()
            if found.is_dir():
                image.directories.add(path)
            else:
                image.files[path] = found.read_bytes()
        return image


class Trace(msgspec.Struct):
    """A base, all of it durable, and what was done to it."""

    base: Image = msgspec.field(default_factory=Image)
    inodes: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    """Of the files of the base, by path."""
    ops: list[Op] = msgspec.field(default_factory=list[Op])

    def continued(self, at: int, later: list[Op]) -> "Trace":
        """The first `at` operations, the death of the process, and what the next one did."""
        moved: list[Op] = [
            msgspec.structs.replace(op, covers=op.covers + at)
            if isinstance(op, Sync | SyncDir)
            else op
            for op in later
        ]
        return Trace(self.base, self.inodes, self.ops[:at] + moved)

    def save(self, path: Path) -> None:
        path.write_bytes(msgspec.msgpack.encode(self))

    @staticmethod
    def load(path: Path) -> "Trace":
        return msgspec.msgpack.decode(path.read_bytes(), type=Trace)
