"""The model of a disk: replays a trace, and knows at each point what a power loss may take.

Invariants:
- A file's content is its durable bytes and the pending writes and truncations behind them; a sync
  moves those that it covers from one to the other.
- A name is an entry (directory, name) -> object, and a change of names is pending until one of
  the directories that it touches is synced. A rename is one change: all of it or nothing.
- What is pending may be on the disk or not, in any combination: POSIX promises no more. A file
  system with a journal has all changes of names and all truncations before `journal`.
"""

import itertools
from dataclasses import dataclass, field
from typing import TypeAlias

from support.trace import (
    Content,
    Create,
    Image,
    Mkdir,
    Op,
    Rename,
    Rmdir,
    Sync,
    SyncDir,
    Trace,
    Truncate,
    Unlink,
    Write,
)

Entry: TypeAlias = tuple[int, str]
"""(directory, name)"""
Object: TypeAlias = tuple[bool, int]
"""(is a directory, its number: of a file the inode)"""

PAGE = 4096
_ROOT = 0


@dataclass
class FileState:
    """One inode."""

    durable: bytes = b""
    pending: list[tuple[int, Write | Truncate]] = field(
        default_factory=list[tuple[int, Write | Truncate]]
    )
    is_new: bool = False
    """Nothing has synced it since it was made."""

    @property
    def is_mapped(self) -> bool:
        """Stored to through memory."""
        return any(isinstance(op, Write) and op.is_mapped for _, op in self.pending)

    @property
    def size(self) -> int:
        """As the running system sees it."""
        size = len(self.durable)
        for _, op in self.pending:
            size = op.size if isinstance(op, Truncate) else max(size, op.offset + len(op.data))
        return size


@dataclass
class NameChange:
    """One create, mkdir, rename, unlink or rmdir that no directory sync has covered."""

    index: int
    op: Create | Mkdir | Rename | Unlink | Rmdir
    entries: dict[Entry, Object | None]

    @property
    def is_rename(self) -> bool:
        return isinstance(self.op, Rename)


class Disk:
    """The state after the first operations of a trace."""

    def __init__(self, trace: Trace) -> None:
        self.files: dict[int, FileState] = {}
        self.names: dict[Entry, Object] = {}
        """The durable ones."""
        self.changes: list[NameChange] = []
        self.applied = 0
        self.journal = 0
        """Of the operations, those before this one are in the journal as far as they concern it:
        a sync that had to wait for the journal took all before it along."""
        self._live: dict[Entry, Object] = {}
        self._next_directory = 1
        for path in sorted(trace.base.directories):
            self._live[self._entry(path)] = (True, self._new_directory())
        for path, data in trace.base.files.items():
            self._live[self._entry(path)] = (False, trace.inodes[path])
            self.files[trace.inodes[path]] = FileState(data)
        self.names = dict(self._live)

    @classmethod
    def after(cls, trace: Trace) -> "Disk":
        """All of it."""
        disk = cls(trace)
        for op in trace.ops:
            disk.apply(op)
        return disk

    def apply(self, op: Op) -> None:
        index = self.applied
        self.applied += 1
        match op:
            case Write() | Truncate():
                self.files[op.inode].pending.append((index, op))
            case Sync():
                self._sync(self.files[op.inode], op)
            case Content():
                self.files[op.inode] = FileState(op.data)
            case Create():
                self.files[op.inode] = FileState(is_new=True)
                self._change(index, op, {self._entry(op.path): (False, op.inode)})
            case Mkdir():
                self._change(index, op, {self._entry(op.path): (True, self._new_directory())})
            case Unlink() | Rmdir():
                self._change(index, op, {self._entry(op.path): None})
            case Rename():
                source = self._entry(op.path)
                found = self._live[source]
                self._change(index, op, {source: None, self._entry(op.target): found})
            case SyncDir():
                self._sync_names(self._directory(op.path), op.covers)
            case _:
                pass  # a note

    def image(self, kept: list[NameChange], contents: dict[int, bytes]) -> Image:
        """The tree with these pending changes of names and these contents; of files that are not
        among `contents`, what the running system saw."""
        entries = dict(self.names)
        for change in kept:
            _update(entries, change.entries)
        below: dict[int, list[tuple[str, Object]]] = {}
        for (directory, name), found in entries.items():
            below.setdefault(directory, []).append((name, found))
        image = Image()
        todo = [(_ROOT, "")]
        while todo:
            directory, prefix = todo.pop()
            for name, (is_directory, number) in below.get(directory, ()):
                if is_directory:
                    image.directories.add(prefix + name)
                    todo.append((number, f"{prefix}{name}/"))
                elif number in contents:
                    image.files[prefix + name] = contents[number]
                else:
                    image.files[prefix + name] = content(self.files[number])
        return image

    def live_files(self) -> dict[str, int]:
        """Path to inode, as the running system saw it."""
        found: dict[str, int] = {}
        for (directory, name), (is_directory, inode) in self._live.items():
            path = self._path(directory) + name
            if not is_directory:
                found[path] = inode
        return found

    # -- inside ------------------------------------------------------------------------------

    def _path(self, directory: int) -> str:
        """With a slash at its end; of the root nothing."""
        for (parent, name), found in self._live.items():
            if found == (True, directory):
                return f"{self._path(parent)}{name}/"
        return ""

    def _sync(self, file: FileState, sync: Sync) -> None:
        covered = [pair for pair in file.pending if pair[0] < sync.covers]
        left = [pair for pair in file.pending if pair[0] >= sync.covers]
        if file.is_new or any(grows(op, len(file.durable)) for _, op in covered):
            self.journal = max(self.journal, sync.covers)
        file.is_new = False
        if sync.pages is not None:
            first, count = sync.pages
            inside, outside = _split(covered, first * PAGE, (first + count) * PAGE)
            covered, left = inside, outside + left
        file.durable = content(FileState(file.durable, covered))
        file.pending = left

    def _sync_names(self, directory: int, covers: int) -> None:
        kept: list[NameChange] = []
        for change in self.changes:
            if change.index < covers and any(place == directory for place, _ in change.entries):
                _update(self.names, change.entries)
                self.journal = max(self.journal, covers)
                for earlier in kept:  # in another directory: what is durable now was later
                    for entry in change.entries:
                        earlier.entries.pop(entry, None)
            else:
                kept.append(change)
        self.changes = [change for change in kept if change.entries]

    def _change(
        self,
        index: int,
        op: Create | Mkdir | Rename | Unlink | Rmdir,
        entries: dict[Entry, Object | None],
    ) -> None:
        _update(self._live, entries)
        self.changes.append(NameChange(index, op, entries))

    def _new_directory(self) -> int:
        self._next_directory += 1
        return self._next_directory

    def _directory(self, path: str) -> int:
        found = _ROOT
        for name in path.split("/") if path else ():
            found = self._live[found, name][1]
        return found

    def _entry(self, path: str) -> Entry:
        directory, _, name = path.rpartition("/")
        return self._directory(directory), name


def content(file: FileState) -> bytes:
    """With all that is pending: what the running system sees."""
    if not file.pending:
        return file.durable
    data = bytearray(file.durable)
    for _, op in file.pending:
        if isinstance(op, Truncate):
            resize(data, op.size)
        else:
            put(data, op.offset, op.data)
    return bytes(data)


def grows(op: Write | Truncate, size: int) -> bool:
    """Whether it changes the size of a file with this size, and not its content alone."""
    return isinstance(op, Truncate) or op.offset + len(op.data) > size


def put(data: bytearray, offset: int, piece: bytes) -> None:
    """Writes a piece, with zeros in front of it where the file was shorter."""
    if len(data) < offset:
        resize(data, offset)
    data[offset : offset + len(piece)] = piece


def resize(data: bytearray, size: int) -> None:
    if len(data) > size:
        del data[size:]
    else:
        data.extend(bytes(size - len(data)))


_Pending: TypeAlias = list[tuple[int, Write | Truncate]]


def _split(pending: _Pending, low: int, high: int) -> tuple[_Pending, _Pending]:
    """What of it is in low <= offset < high, and what is not."""
    inside: _Pending = []
    outside: _Pending = []
    for index, op in pending:
        if isinstance(op, Truncate):
            outside.append((index, op))
            continue
        start, end = op.offset, op.offset + len(op.data)
        cuts = sorted({start, end, min(max(low, start), end), max(min(high, end), start)})
        for at, stop in itertools.pairwise(cuts):
            piece = Write(op.inode, at, op.data[at - start : stop - start], op.is_mapped)
            (inside if low <= at < high else outside).append((index, piece))
    return inside, outside


def _update(names: dict[Entry, Object], entries: dict[Entry, Object | None]) -> None:
    for entry, found in entries.items():
        if found is None:
            names.pop(entry, None)
        else:
            names[entry] = found
