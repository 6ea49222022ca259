"""Checking a whole log that is not open: every header and every record, without changing files.

Invariants:
- Each problem is noted, and reading continues after it.
- Everything that open() refuses is a problem here; a torn tail, which open() cuts, is a note.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from amberdb._errors import CorruptionError
from amberdb._fs import FileSystem
from amberdb._types import NO_LSN, Lsn
from amberdb.wal.record import Record
from amberdb.wal.recovery import (
    ScanPosition,
    check_follows,
    check_reaches,
    check_tail,
    damage,
    first_needed,
    headers_after,
    list_directory,
    read_rest,
    read_segment,
    torn_bytes,
)
from amberdb.wal.segment import Segment, load_segment, read_database_id


@dataclass(slots=True)
class LogCheck:
    """The contents of a log, and its problems."""

    problems: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    """A torn tail, which open() will cut."""
    records: int = 0
    last_lsn: Lsn = NO_LSN
    """The highest Lsn of any header, also one whose record is not whole."""


def check_log(
    fs: FileSystem,
    directory: str,
    database_id: bytes | None,
    *,
    applied: Lsn | None,
    clean_last: Lsn | None,
    replay: Callable[[Record], None],
) -> LogCheck:
    """Reads the whole log and calls `replay` with each whole record, in order.

    `database_id` and `applied` are None when they are unknown. Raises FormatError, OSError.
    """
    report = LogCheck()
    if not fs.is_dir(directory):
        report.problems.append(f"{directory} is missing: run `amberdb repair`")
        return report
    names, _ = list_directory(fs, directory, clean=False)
    segments = _load(fs, names, database_id, report)
    before: Segment | None = None
    tail: ScanPosition | None = None
    rest = b""
    for segment in segments:
        if before is None or tail is None:
            tail = ScanPosition.before(segment)
        else:
            _note(report, partial(check_follows, before, segment))
            _note(report, partial(check_reaches, before, tail, segment))
        rest = _read(fs, segment, tail, replay, report)
        before = segment
    if before is not None and tail is not None:
        known = tail.last_lsn if applied is None else applied
        _note(report, partial(first_needed, segments, known))
        problems = len(report.problems)
        _note(report, partial(check_tail, before, tail, rest, applied=known, clean_last=clean_last))
        torn = torn_bytes(before, tail, rest)
        if torn and len(report.problems) == problems:
            report.notes.append(
                f"{before.path} offset {tail.end}: a torn tail of {len(torn)} bytes, after Lsn "
                f"{tail.last_lsn}: open() keeps it as .broken and cuts it"
            )
    elif not names and (clean_last is None or clean_last != applied):
        report.problems.append(f"the log in {directory} is missing")
    return report


def _load(
    fs: FileSystem, names: list[tuple[Lsn, str]], database_id: bytes | None, report: LogCheck
) -> list[Segment]:
    segments: list[Segment] = []
    for first_lsn, path in names:
        try:
            segments.append(
                load_segment(fs, path, first_lsn, database_id or read_database_id(fs, path))
            )
        except CorruptionError as error:
            report.problems.append(str(error))
        except OSError as error:
            report.problems.append(f"{path} cannot be read: {error.strerror}")
    return segments


def _read(
    fs: FileSystem,
    segment: Segment,
    tail: ScanPosition,
    replay: Callable[[Record], None],
    report: LogCheck,
) -> bytes:
    """Reads one segment, and returns the bytes after its last valid record."""
    if tail.last_lsn < segment.header.previous_last:  # after a hole, which was noted
        tail.last_lsn = segment.header.previous_last
    for record in read_segment(fs, segment, tail):
        report.records += 1
        try:
            replay(record)
        except CorruptionError as error:
            report.problems.append(str(damage(segment.path, tail, error.message)))
    rest = read_rest(fs, segment, tail)
    later = headers_after(segment, tail, rest)
    report.last_lsn = max(report.last_lsn, tail.last_lsn, *(header.lsn for header in later))
    return rest


def _note(report: LogCheck, check: Callable[[], object]) -> None:
    """Calls `check` and notes the CorruptionError that it raises."""
    try:
        check()
    except CorruptionError as error:
        report.problems.append(str(error))


def log_begins(fs: FileSystem, directory: str, database_id: bytes) -> Lsn | None:
    """The Lsn after which the log has records; None when there is no log."""
    names = list_directory(fs, directory, clean=False)[0] if fs.is_dir(directory) else []
    segments = _load(fs, names, database_id, LogCheck())
    return segments[0].header.previous_last if segments else None


def segment_ids(fs: FileSystem, directory: str) -> list[bytes]:
    """The database id in each readable header, oldest first."""
    ids: list[bytes] = []
    if fs.is_dir(directory):
        for first_lsn, path in list_directory(fs, directory, clean=False)[0]:
            try:
                own = read_database_id(fs, path)
                ids.append(load_segment(fs, path, first_lsn, own).header.database_id)
            except (CorruptionError, OSError):
                continue
    return ids
