"""What a run did to its files, operation by operation: a Trace.

Two recorders make traces (support/recorder.py at the file seam, support/preload.py at the system
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

import os
from pathlib import Path
from typing import final

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
    is_mapped: bool = False
    """Stored through memory, and noticed when something else was done."""


class Truncate(msgspec.Struct, frozen=True, tag=True):
    """To a smaller size or, with zeros, to a larger one."""

    inode: int
    size: int


class Sync(msgspec.Struct, frozen=True, tag=True):
    """fsync or fdatasync: content and size of one file; with `pages`, that many behind the first
    number, only of these, as a write through O_DSYNC does."""

    inode: int
    covers: int
    pages: tuple[int, int] | None = None


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


@final
class TraceBuilder:
    """A trace in the making, and what the files are called by now."""

    def __init__(
        self, root: Path, inodes: dict[str, int] | None = None, next_inode: int = 1
    ) -> None:
        """`inodes` names the files that are there as an earlier trace did, which had given all
        numbers below `next_inode`."""
        self._root = str(root)
        base = Image.read_from(root)
        if inodes is None:
            inodes = {path: next_inode + n for n, path in enumerate(sorted(base.files))}
        self._next = max([next_inode - 1, *inodes.values()]) + 1
        self.inodes = dict(inodes)
        self.trace = Trace(base, inodes, [])

    def name(self, path: str) -> str:
        """As the trace has it."""
        found = os.path.relpath(path, self._root)
        return "" if found == "." else found

    def add(self, op: Op) -> None:
        self.trace.ops.append(op)

    def created(self, path: str) -> int:
        """The inode of the new file."""
        inode = self.inodes[self.name(path)] = self._next
        self._next += 1
        self.add(Create(self.name(path), inode))
        return inode

    def renamed(self, path: str, target: str) -> None:
        old, new = self.name(path), self.name(target)
        for found in [p for p in self.inodes if p == old or p.startswith(old + "/")]:
            self.inodes[new + found[len(old) :]] = self.inodes.pop(found)
        self.add(Rename(old, new))

    def unlinked(self, path: str) -> None:
        if self.inodes.pop(self.name(path), None) is not None:
            self.add(Unlink(self.name(path)))
