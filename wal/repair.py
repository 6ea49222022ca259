"""The way out when a log is damaged: keep all that is readable before the damage.

Invariants:
- Nothing is destroyed: what is cut, and every segment set aside, is kept under a `.broken` name.
- Afterwards the log opens as one that was not closed cleanly.
- Stopped half way and run again, it ends in the same place.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from amberdb._errors import CorruptionError
from amberdb._fs import FileSystem
from amberdb._types import NO_LSN, Lsn
from amberdb.wal.record import find_headers
from amberdb.wal.recovery import (
    Tail,
    broken_path,
    check_follows,
    check_reaches,
    list_directory,
    read_segment,
    seal_tail,
)
from amberdb.wal.segment import (
    BLOCK_SIZE,
    FOREIGN_OFFSET,
    Segment,
    SegmentHeader,
    create_zeroed,
    load_segment,
    new_salt,
    segment_name,
    write_header,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairCut:
    """What was taken out of one file."""

    segment: str
    offset: int
    """Where the cut begins; 0 when the whole file was set aside."""
    size: int
    """In bytes."""
    broken: str
    """The file that keeps them."""
    first_lost: Lsn | None
    """Of the records there whose headers can still be read; None when there are none."""
    last_lost: Lsn | None


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What repair did. No cuts: the files were whole."""

    last_lsn: Lsn
    """Of the last record kept."""
    cuts: Sequence[RepairCut]


def repair(
    fs: FileSystem, directory: str, database_id: bytes, *, applied: Lsn | None = None
) -> RepairReport:
    """Cuts the log at the last record before the damage and sets later segments aside.

    `applied` says from where on records are needed, so that damage in older ones costs none;
    None: all that are kept are. Raises CorruptionError when every segment belongs to another
    database, FormatError when one is of a newer format, OSError.
    """
    names, _ = list_directory(fs, directory)
    loaded = _load(fs, names, database_id)
    cuts: list[RepairCut] = []
    start = _find_start(loaded, applied)
    if start is None:
        for _, path in names:
            cuts.append(_set_aside(fs, path, None))
        last_lsn = applied or NO_LSN
        _start_anew(fs, directory, database_id, last_lsn)
        return RepairReport(last_lsn, cuts)
    oldest = start
    while oldest > 0 and _is_next(loaded[oldest - 1], loaded[oldest]):
        oldest -= 1
    newest, tail = _read_forward(fs, loaded, start)
    for index, (_, path) in enumerate(names):
        if index < oldest or index > newest:
            cuts.append(_set_aside(fs, path, loaded[index]))
    fs.sync_dir(directory)
    segment = loaded[newest]
    assert segment is not None
    first_lost, last_lost = _lost(segment, tail.data, tail.end, tail.last_lsn)
    cut = seal_tail(fs, directory, segment, tail)
    if cut is not None:
        cuts.append(
            RepairCut(
                segment=cut.segment,
                offset=cut.offset,
                size=cut.size,
                broken=cut.broken,
                first_lost=first_lost,
                last_lost=last_lost,
            )
        )
    return RepairReport(tail.last_lsn, sorted(cuts, key=lambda c: c.segment))


def _load(fs: FileSystem, names: list[tuple[Lsn, str]], database_id: bytes) -> list[Segment | None]:
    """The segments, None for those whose header is no use."""
    loaded: list[Segment | None] = []
    foreign: CorruptionError | None = None
    for first_lsn, path in names:
        try:
            loaded.append(load_segment(fs, path, first_lsn, database_id))
        except CorruptionError as error:
            if error.offset == FOREIGN_OFFSET:
                foreign = error
            loaded.append(None)
    if foreign is not None and not any(loaded):
        raise foreign  # the wrong id rather than the wrong files
    return loaded


def _find_start(loaded: list[Segment | None], applied: Lsn | None) -> int | None:
    """The index of the first segment that is needed."""
    readable = [i for i, segment in enumerate(loaded) if segment is not None]
    if applied is None:
        return readable[0] if readable else None
    for index in reversed(readable):
        segment = loaded[index]
        if segment is not None and segment.header.previous_last <= applied:
            return index
    return None


def _is_next(before: Segment | None, segment: Segment | None) -> bool:
    if before is None or segment is None:
        return False
    try:
        check_follows(before, segment)
    except CorruptionError:
        return False
    return True


def _read_forward(fs: FileSystem, loaded: list[Segment | None], start: int) -> tuple[int, Tail]:
    """The index of the last segment that can be kept, and where its good part ends."""
    before = loaded[start]
    assert before is not None
    tail = Tail.before(before)
    for index in range(start, len(loaded)):
        segment = loaded[index]
        if index > start:
            if segment is None or not _is_next(before, segment):
                return index - 1, tail
            try:
                check_reaches(before, tail, segment)
            except CorruptionError:
                return index - 1, tail
            before = segment
        for _ in read_segment(fs, before, tail):
            pass
    return len(loaded) - 1, tail


def _lost(segment: Segment, data: bytes, start: int, after: int) -> tuple[Lsn | None, Lsn | None]:
    found = [h.lsn for h in find_headers(data, start, segment.header.salt, after)]
    return (min(found), max(found)) if found else (None, None)


def _set_aside(fs: FileSystem, path: str, segment: Segment | None) -> RepairCut:
    data = fs.read(path)
    first_lost, last_lost = _lost(segment, data, 0, 0) if segment else (None, None)
    broken = broken_path(fs, path)
    fs.rename(path, broken)
    return RepairCut(
        segment=path,
        offset=0,
        size=len(data),
        broken=broken,
        first_lost=first_lost,
        last_lost=last_lost,
    )


def _start_anew(fs: FileSystem, directory: str, database_id: bytes, last_lsn: Lsn) -> None:
    """Leaves an empty segment where no file could be kept: a log is never an empty directory."""
    header = SegmentHeader(
        database_id=database_id,
        salt=new_salt(),
        first_lsn=Lsn(last_lsn + 1),
        previous_first=NO_LSN,
        previous_last=last_lsn,
        previous_crc=0,
        size=BLOCK_SIZE,
    )
    path = os.path.join(directory, segment_name(header.first_lsn))
    create_zeroed(fs, path + ".new.tmp", BLOCK_SIZE)
    write_header(fs, path + ".new.tmp", header)
    fs.rename(path + ".new.tmp", path)
    fs.sync_dir(directory)
