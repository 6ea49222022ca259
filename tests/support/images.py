"""What a power loss can leave: images of a disk, by mode.

What is pending of a file is cut into units, pages of 4 KiB or sectors of 512 bytes. A unit goes to
the device whole, as it was at some moment: with the first so many of the writes that touched it.

Invariants:
- What was synced is in every image, name and content.
- A mode gives images only where something is pending that it can take away, so each image of a
  mode differs from the running system's view in the way that the mode says.
- "ext4 ordered" is what that file system does with data=ordered: names and truncations in the order
  of its journal, a file that grows with the data in it, old pages overwritten in any order. The
  other modes go beyond it.
- A file that is stored to through memory may have any of its pages, in all modes but the first.
- Images depend on the disk, the mode and the generator of random numbers alone.
"""

import random
from collections.abc import Iterator, Mapping
from typing import Final, Literal, TypeAlias, get_args

from support.disk import PAGE, Disk, FileState, NameChange, put, resize
from support.trace import Image, Truncate

Mode: TypeAlias = Literal[
    "clean prefix",
    "drop unsynced",
    "random subset",
    "torn sector",
    "reordered",
    "size without data",
    "data without size",
    "rename lost",
    "directory entry lost",
    "ext4 ordered",
]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
SECTOR = 512

_Unit: TypeAlias = tuple[int, int]
"""(inode, number of the page or sector)"""
_Piece: TypeAlias = tuple[int, int, bytes]
"""(index of the operation, offset, data within one unit)"""


def images(disk: Disk, mode: Mode, rng: random.Random, variants: int = 1) -> Iterator[Image]:
    """Up to so many images for the modes that draw, one for the others."""
    pending = Pending(disk)
    renames = [change for change in disk.changes if change.is_rename]
    entries = [change for change in disk.changes if not change.is_rename]
    if mode == "clean prefix":
        yield disk.image(disk.changes, {})
    elif mode == "drop unsynced":
        if pending.inodes or disk.changes:
            yield disk.image([], pending.contents({}, rng, sizes=False))
    elif mode == "size without data" or mode == "data without size":
        if pending.grown:
            with_size = mode == "size without data"
            pages = {} if with_size else pending.units(PAGE)
            yield disk.image(disk.changes, pending.contents(pages, rng, sizes=with_size))
    elif mode == "rename lost":
        yield from _without(disk, pending, renames, rng, variants)
    elif mode == "directory entry lost":
        yield from _without(disk, pending, entries, rng, variants)
    elif mode == "ext4 ordered":
        for _ in range(variants if pending.inodes or disk.changes else 0):
            cut = rng.randint(disk.journal, disk.applied)
            kept = [change for change in disk.changes if change.index < cut]
            yield disk.image(kept, pending.ordered(cut, rng))
    else:
        draw = {
            "random subset": pending.subset,
            "torn sector": pending.torn,
            "reordered": pending.reordered,
        }[mode]
        for _ in range(variants):
            units = draw(rng)
            if units is not None:
                yield disk.image(disk.changes, pending.contents(units, rng))


class Pending:
    """The writes that no sync has covered, by unit."""

    def __init__(self, disk: Disk) -> None:
        self._mapped = {inode: file for inode, file in disk.files.items() if file.is_mapped}
        self._files = {
            inode: file for inode, file in disk.files.items() if file.pending and not file.is_mapped
        }
        self.inodes = list(self._files)
        self.grown = any(file.size != len(file.durable) for file in self._files.values())

    def units(self, size: int) -> dict[_Unit, list[_Piece]]:
        return {
            (inode, number): pieces
            for inode, file in self._files.items()
            for number, pieces in _units(file, size).items()
        }

    def subset(self, rng: random.Random) -> dict[_Unit, list[_Piece]] | None:
        """Each page as it was before, now, or at some moment in between."""
        share = rng.random()
        units = self.units(PAGE)
        return {
            unit: pieces if rng.random() < share else pieces[: rng.randrange(len(pieces) + 1)]
            for unit, pieces in units.items()
        } or None

    def torn(self, rng: random.Random) -> dict[_Unit, list[_Piece]] | None:
        """All but some sectors of the last write."""
        units = self.units(SECTOR)
        if not units:
            return None
        last = max(pieces[-1][0] for pieces in units.values())
        torn = [unit for unit, pieces in units.items() if pieces[-1][0] == last]
        whole = torn[: rng.randrange(len(torn))]  # from the front, or any of them
        if rng.random() < 0.5:
            whole = [unit for unit in torn if rng.random() < 0.5]
        lost = set(torn) - set(whole)
        return {u: pieces[:-1] if u in lost else pieces for u, pieces in units.items()}

    def reordered(self, rng: random.Random) -> dict[_Unit, list[_Piece]] | None:
        """A later sector is there, and an earlier one is not."""
        units = sorted(self.units(SECTOR).items(), key=lambda pair: pair[1][-1][0])
        if len(units) < 2:
            return None
        first = rng.randrange(1, len(units))
        return {
            unit: pieces
            for number, (unit, pieces) in enumerate(units)
            if number >= first or (number < first - 1 and rng.random() < 0.5)
        }

    def contents(
        self,
        kept: Mapping[_Unit, list[_Piece]],
        rng: random.Random,
        *,
        sizes: bool | None = None,
    ) -> dict[int, bytes]:
        """Of every file with something pending. With `sizes` as large as the running system saw
        it, with False as before, and by lot when None, but never shorter than what is kept."""
        found: dict[int, bytes] = {}
        for inode, file in self._files.items():
            data = bytearray(file.durable)
            for (owner, _), pieces in kept.items():
                if owner == inode:
                    for _, offset, piece in pieces:
                        put(data, offset, piece)
            if sizes is False:
                resize(data, len(file.durable))
            elif sizes or (rng.random() < 0.5 and len(data) < file.size):
                resize(data, file.size)
            found[inode] = bytes(data)
        return found | self._stored(rng)

    def ordered(self, cut: int, rng: random.Random) -> dict[int, bytes]:
        """With the truncations before operation `cut`. Of what a file grew by, a part is there,
        from the front and with some data of each page; the other pages are as they happen to be."""
        found: dict[int, bytes] = {}
        for inode, file in self._files.items():
            data = bytearray(file.durable)
            for index, op in file.pending:
                if isinstance(op, Truncate) and index < cut:
                    resize(data, op.size)
            size = len(data)
            if file.size > size:
                pages = rng.randint(size // PAGE, -(-file.size // PAGE))
                size = min(max(size, pages * PAGE), file.size)
            for number, pieces in _units(file, PAGE).items():
                if number * PAGE < size:
                    is_old = number * PAGE < len(file.durable)
                    for _, offset, piece in pieces[: rng.randint(not is_old, len(pieces))]:
                        put(data, offset, piece)
            resize(data, size)
            found[inode] = bytes(data)
        return found | self._stored(rng)

    def _stored(self, rng: random.Random) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        for inode, file in self._mapped.items():
            data = bytearray(file.durable)
            resize(data, rng.choice((len(data), file.size)))
            for pieces in _units(file, PAGE).values():
                for _, offset, piece in pieces[: rng.randint(0, len(pieces))]:
                    put(data, offset, piece)
            found[inode] = bytes(data)
        return found


def _units(file: FileState, size: int) -> dict[int, list[_Piece]]:
    """What is pending of one file, by number of the page or sector."""
    found: dict[int, list[_Piece]] = {}
    for index, op in file.pending:
        if isinstance(op, Truncate):
            continue
        at, end = op.offset, op.offset + len(op.data)
        while at < end:
            number = at // size
            stop = min(end, (number + 1) * size)
            found.setdefault(number, []).append(
                (index, at, op.data[at - op.offset : stop - op.offset])
            )
            at = stop
    return found


def _without(
    disk: Disk, pending: Pending, lost: list[NameChange], rng: random.Random, variants: int
) -> Iterator[Image]:
    """All of them lost with all data there; then some of them, with some of the data."""
    if not lost:
        return
    for number in range(variants):
        gone = lost if number == 0 else rng.sample(lost, rng.randint(1, len(lost)))
        pages = (pending.subset(rng) if number else pending.units(PAGE)) or {}
        kept = [change for change in disk.changes if change not in gone]
        yield disk.image(kept, pending.contents(pages, rng, sizes=None if number else True))
