"""Repair of a damaged log: keep every record before the damage.

Invariants:
- Nothing is destroyed: bytes that are cut, and segments that are set aside, are kept in `.broken`
  files.
- Afterwards the log opens as after a crash.
- Interrupted and run again, repair has the same result.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from amberdb._errors import CorruptionError
from amberdb._fs import FileSystem, staging_name
from amberdb._types import NO_LSN, Lsn
from amberdb.wal.record import Record, find_headers
from amberdb.wal.recovery import (
    ScanPosition,
    broken_path,
    check_follows,
    check_reaches,
    list_directory,
    read_rest,
    read_segment,
    secure_tail,
    torn_bytes,
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
    """The bytes that were cut from one file."""

    segment: str
    offset: int
    """Where the cut begins; 0 when the whole file was set aside."""
    size: int
    """In bytes."""
    broken: str
    """The file that keeps them."""
    first_lost: Lsn | None
    """The first cut record whose header is readable; None when no header is."""
    last_lost: Lsn | None


@dataclass(frozen=True, slots=True)
class LogRepair:
    """The result of repair(). Without cuts the files were whole."""

    last_lsn: Lsn
    """The last record that was kept, or the Lsn after which an empty log begins."""
    cuts: Sequence[RepairCut]
    is_restarted: bool = False
    """Whether no file could be kept, so that the log begins empty."""


def repair(
    fs: FileSystem,
    directory: str,
    database_id: bytes,
    *,
    applied: Lsn | None = None,
    apply: bool = True,
    replay: Callable[[Record], None] | None = None,
) -> LogRepair:
    """Cuts the log at the last record before the damage and sets later segments aside.

    Only records after `applied` are needed, so damage in older ones cuts nothing; None needs all.
    When the readable records end before `applied`, an empty log begins there: nothing reads over
    the hole. Without `apply` nothing is changed, only reported. `replay` is called with the kept
    records, without a hole, from the oldest on. Raises CorruptionError when every segment belongs
    to another database, FormatError when one has a newer format, OSError.
    """
    names, _ = list_directory(fs, directory, clean=apply)
    loaded = _load(fs, names, database_id)
    cuts: list[RepairCut] = []
    start = _find_start(loaded, applied)
    kept = None if start is None else _read_forward(fs, loaded, start, lambda record: None)
    if start is None or kept is None or kept[1].last_lsn < (applied or NO_LSN):
        for (_, path), segment in zip(names, loaded, strict=True):
            cuts.append(_set_aside(fs, path, segment, apply))
        last_lsn = applied or NO_LSN
        if apply:
            _restart(fs, directory, database_id, last_lsn)
        return LogRepair(last_lsn, cuts, is_restarted=True)
    newest, tail = kept
    oldest = start
    while oldest > 0 and _is_next(loaded[oldest - 1], loaded[oldest]):
        oldest -= 1
    while start > oldest and _is_whole(fs, loaded[start - 1], loaded[start]):
        start -= 1
    if replay is not None:
        _read_forward(fs, loaded, start, replay)
    for index, (_, path) in enumerate(names):
        if index < oldest or index > newest:
            cuts.append(_set_aside(fs, path, loaded[index], apply))
    segment = loaded[newest]
    assert segment is not None
    rest = read_rest(fs, segment, tail)
    torn = torn_bytes(segment, tail, rest)
    if torn:
        first_lost, last_lost = _lost(segment, rest, tail.last_lsn)
        cuts.append(
            RepairCut(
                segment=segment.path,
                offset=tail.end,
                size=len(torn),
                broken=broken_path(fs, segment.path, torn),
                first_lost=first_lost,
                last_lost=last_lost,
            )
        )
    if apply:
        fs.sync_dir(directory)
        secure_tail(fs, segment, tail, rest, applied or NO_LSN)
    return LogRepair(tail.last_lsn, sorted(cuts, key=lambda c: c.segment))


def sound_records(
    fs: FileSystem, directory: str, database_id: bytes, after: Lsn
) -> Iterator[Record]:
    """The records after `after` that repair() would keep, without a hole, read from a directory
    that is not changed. None when the log does not reach back to `after`. Raises as repair()."""
    names, _ = list_directory(fs, directory, clean=False)
    loaded = _load(fs, names, database_id)
    start = _find_start(loaded, after)
    before = None if start is None else loaded[start]
    if start is None or before is None:
        return
    tail = ScanPosition.before(before)
    for segment in loaded[start:]:
        if segment is not before and not _goes_on(before, tail, segment):
            return
        assert segment is not None
        before = segment
        yield from (record for record in read_segment(fs, segment, tail) if record.lsn > after)


def _load(fs: FileSystem, names: list[tuple[Lsn, str]], database_id: bytes) -> list[Segment | None]:
    """The segments; None for one with an unreadable header."""
    loaded: list[Segment | None] = []
    foreign: CorruptionError | None = None
    for first_lsn, path in names:
        try:
            loaded.append(load_segment(fs, path, first_lsn, database_id))
        except CorruptionError as error:
            if error.offset == FOREIGN_OFFSET:
                foreign = error
            loaded.append(None)
        except IsADirectoryError:
            loaded.append(None)
    if foreign is not None and not any(loaded):
        raise foreign  # likely the wrong id, not the wrong files
    return loaded


def _find_start(loaded: list[Segment | None], applied: Lsn | None) -> int | None:
    """The index of the first segment that is needed; None when it is not readable."""
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


def _goes_on(before: Segment, tail: ScanPosition, segment: Segment | None) -> bool:
    """Whether `segment` follows the last record of `before`, where `tail` is."""
    if segment is None or not _is_next(before, segment):
        return False
    try:
        check_reaches(before, tail, segment)
    except CorruptionError:
        return False
    return True


def _is_whole(fs: FileSystem, before: Segment | None, segment: Segment | None) -> bool:
    """Whether all records of `before` are readable, up to the beginning of `segment`."""
    assert before is not None
    assert segment is not None
    tail = ScanPosition.before(before)
    for _ in read_segment(fs, before, tail):
        pass
    return _goes_on(before, tail, segment)


def _read_forward(
    fs: FileSystem, loaded: list[Segment | None], start: int, replay: Callable[[Record], None]
) -> tuple[int, ScanPosition]:
    """The index of the last segment that can be kept, and the end of its valid records."""
    before = loaded[start]
    assert before is not None
    tail = ScanPosition.before(before)
    for index in range(start, len(loaded)):
        segment = loaded[index]
        if index > start and not _goes_on(before, tail, segment):
            return index - 1, tail
        assert segment is not None
        before = segment
        for record in read_segment(fs, before, tail):
            replay(record)
    return len(loaded) - 1, tail


def _lost(segment: Segment, data: bytes, after: int) -> tuple[Lsn | None, Lsn | None]:
    """The first and last Lsn above `after` with a readable header."""
    lsns = [header.lsn for header in find_headers(data, 0, segment.header.salt, after)]
    return (min(lsns), max(lsns)) if lsns else (None, None)


def _set_aside(fs: FileSystem, path: str, segment: Segment | None, apply: bool) -> RepairCut:
    data = b"" if fs.is_dir(path) else fs.read(path)
    first_lost, last_lost = _lost(segment, data, 0) if segment else (None, None)
    broken = broken_path(fs, path)
    if apply:
        fs.rename(path, broken)
    return RepairCut(
        segment=path,
        offset=0,
        size=len(data),
        broken=broken,
        first_lost=first_lost,
        last_lost=last_lost,
    )


def _restart(fs: FileSystem, directory: str, database_id: bytes, last_lsn: Lsn) -> None:
    """Makes an empty segment when no file could be kept: a log is never an empty directory."""
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
    staged = staging_name(path)
    create_zeroed(fs, staged, BLOCK_SIZE)
    write_header(fs, staged, header)
    fs.rename(staged, path)
    fs.sync_dir(directory)
