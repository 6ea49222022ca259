"""Recovery: which records of a log directory are valid, and where the next one goes.

Invariants:
- Records are accepted in order, without gaps, each one chained to the one before.
- Only the end of the newest segment can be torn. It is damage, which is never cut here, when
  anything shows that a record after it was durable: a later record with a higher durable Lsn, a
  later segment, a clean close, an applied Lsn.
- Bytes are stored in a `.broken` file before they are cut.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from amberdb import _failpoints as failpoints
from amberdb._errors import CorruptionError
from amberdb._fs import FileSystem, first_free_name, replace_file, staged_for
from amberdb._types import Lsn
from amberdb.wal.record import Record, find_headers, scan
from amberdb.wal.segment import RECORDS_START, Segment, load_segment, parse_name
from amberdb.wal.segment_pool import is_spare

_OLD_STAGED = re.compile(
    r"(free-[0-9]+\.seg|[0-9a-f]{16}\.wal(\.broken(\.[0-9]+)?|\.new)?)(\.tmp)+"
)
"""Files that an earlier version did not complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutReport:
    """A torn tail that was cut: records whose sync never returned."""

    segment: str
    offset: int
    size: int
    """Bytes cut, up to the last one that is not 0."""
    broken: str
    """The file that keeps them."""
    last_lsn: Lsn
    """Of the last record before the cut."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """The result of opening a log."""

    last_lsn: Lsn
    records: int
    """The number of replayed records."""
    cut: CutReport | None


@dataclass(slots=True)
class ScanPosition:
    """How far a scan has read: the position after the last accepted record."""

    last_lsn: Lsn
    chain: int
    end: int
    data: bytes
    """The whole content of the segment that was read last."""

    @classmethod
    def before(cls, segment: Segment) -> "ScanPosition":
        """The position before the first record of `segment`."""
        header = segment.header
        return cls(header.previous_last, header.previous_crc, RECORDS_START, b"")


def recover(
    fs: FileSystem,
    directory: str,
    segments: list[Segment],
    *,
    applied: Lsn,
    clean_last: Lsn | None,
    replay: Callable[[Record], None],
) -> tuple[ScanPosition, Recovery]:
    """Replays the records after `applied`; cuts a torn tail, unless the log was closed cleanly at
    `clean_last`. Raises CorruptionError, OSError."""
    records = 0

    def count(record: Record) -> None:
        nonlocal records
        records += 1
        replay(record)

    cut = None
    if segments:
        tail = read_segments(fs, segments[first_needed(segments, applied) :], count, applied)
        if failpoints.on:
            failpoints.reach("recovery.log-read")
        check_tail(segments[-1], tail, applied=applied, clean_last=clean_last)
        if clean_last is None:
            cut = rewrite_and_truncate_tail(fs, directory, segments[-1], tail)
    elif clean_last == applied:
        tail = ScanPosition(applied, 0, 0, b"")
    else:
        raise CorruptionError(f"the log in {directory} is missing", path=directory, offset=0)
    return tail, Recovery(max(tail.last_lsn, applied), records, cut)


def list_directory(
    fs: FileSystem, directory: str, *, clean: bool = True
) -> tuple[list[tuple[Lsn, str]], list[str]]:
    """Segments as (first lsn, path) in order, and the names of the spare files.

    `clean` removes files that were not completed. Other files are ignored.
    """
    segments: list[tuple[Lsn, str]] = []
    spare: list[str] = []
    for name in fs.listdir(directory):
        if staged_for(name) is not None or _OLD_STAGED.fullmatch(name):
            if clean:
                fs.unlink(os.path.join(directory, name))
        elif is_spare(name):
            spare.append(name)
        elif (first := parse_name(name)) is not None:
            segments.append((first, os.path.join(directory, name)))
    return sorted(segments), spare


def load_segments(
    fs: FileSystem, names: list[tuple[Lsn, str]], database_id: bytes
) -> list[Segment]:
    """Reads and checks all headers, and that each segment follows the one before.

    Raises CorruptionError or FormatError, naming the file.
    """
    segments: list[Segment] = []
    for first_lsn, path in names:
        segment = load_segment(fs, path, first_lsn, database_id)
        if segments:
            check_follows(segments[-1], segment)
        segments.append(segment)
    return segments


def check_follows(before: Segment, segment: Segment) -> None:
    """Raises CorruptionError unless `segment` follows `before` directly."""
    header = segment.header
    if header.previous_first != before.header.first_lsn:
        raise CorruptionError(
            f"{segment.path} does not follow {before.path}: a log segment is missing, or one of "
            "them belongs to another log",
            path=segment.path,
            offset=48,
        )


def first_needed(segments: list[Segment], applied: Lsn) -> int:
    """The index of the segment that holds the record after `applied`.

    Raises CorruptionError when the log begins later.
    """
    for index in range(len(segments) - 1, -1, -1):
        if segments[index].header.previous_last <= applied:
            return index
    first = segments[0]
    raise CorruptionError(
        f"the log begins with {first.path}, but only commits up to Lsn {applied} were applied: "
        "segments are missing",
        path=first.path,
        offset=0,
    )


def read_segments(
    fs: FileSystem, segments: list[Segment], replay: Callable[[Record], None], applied: Lsn
) -> ScanPosition:
    """Replays the records after `applied`, in order, up to the first invalid one of the newest
    segment.

    `segments` begins with the one that holds `applied + 1`. Raises CorruptionError when an older
    segment ends before the next one begins.
    """
    tail = ScanPosition.before(segments[0])
    before: Segment | None = None
    for segment in segments:
        if before is not None:
            check_reaches(before, tail, segment)
        for record in read_segment(fs, segment, tail):
            if record.lsn > applied:
                replay(record)
        before = segment
    return tail


def read_segment(fs: FileSystem, segment: Segment, tail: ScanPosition) -> Iterator[Record]:
    """The valid records of one segment; `tail` advances with them."""
    header = segment.header
    tail.data = fs.read(segment.path)
    tail.end = RECORDS_START
    tail.chain = header.salt.chain  # appending continues in a segment without records, too
    for record in scan(tail.data, RECORDS_START, header.salt, header.salt.chain, header.first_lsn):
        tail.last_lsn, _, _, _, _, tail.chain, tail.end = record
        yield record


def check_reaches(before: Segment, tail: ScanPosition, segment: Segment) -> None:
    """Raises CorruptionError unless the records of `before` end where `segment` begins."""
    header = segment.header
    if tail.last_lsn < header.previous_last:
        raise damage(
            before.path, tail, f"{segment.path} shows that Lsn {header.previous_last} was durable"
        )
    if tail.last_lsn > header.previous_last or tail.chain != header.previous_crc:
        raise CorruptionError(
            f"{segment.path} was not written after {before.path}",
            path=segment.path,
            offset=56,
        )


def check_tail(
    segment: Segment, tail: ScanPosition, *, applied: Lsn, clean_last: Lsn | None
) -> None:
    """Raises CorruptionError if anything shows that a later record was durable."""
    last = tail.last_lsn
    for header in find_headers(tail.data, tail.end, segment.header.salt, last):
        if header.synced > last:
            raise damage(
                segment.path,
                tail,
                f"the record at {header.offset} shows that later records were durable",
            )
    if clean_last is not None and last != clean_last:
        raise damage(segment.path, tail, f"the database was closed at Lsn {clean_last}")
    if last < applied:
        raise damage(segment.path, tail, f"Lsn {applied} was applied")


def damage(path: str, tail: ScanPosition, evidence: str) -> CorruptionError:
    return CorruptionError(
        f"the log is damaged at {path} offset {tail.end}, after Lsn {tail.last_lsn}: {evidence}",
        path=path,
        offset=tail.end,
        last_lsn=tail.last_lsn,
    )


def torn_bytes(segment: Segment, tail: ScanPosition) -> bytes:
    """The bytes after the last record that are part of a record that is not whole."""
    rest = tail.data[tail.end :].rstrip(b"\0")
    if not rest or not segment.header.recycled:
        return rest
    # The zero word after the last record is intact: the rest is from an earlier use of the file,
    # unless it holds records of this segment.
    if any(tail.data[tail.end : tail.end + 8]):
        return rest
    later = find_headers(tail.data, tail.end, segment.header.salt, tail.last_lsn)
    return rest if any(True for _ in later) else b""


def keep_broken(fs: FileSystem, segment_path: str, data: bytes) -> str:
    """Stores bytes that are about to be cut and returns the path. Overwrites no other file."""
    path = broken_path(fs, segment_path, data)
    if not fs.exists(path):
        replace_file(fs, path, data)
    return path


def broken_path(fs: FileSystem, segment_path: str, data: bytes | None = None) -> str:
    """A free name, or the name of a file with the same bytes, left by an interrupted cut."""
    return first_free_name(
        fs,
        segment_path + ".broken",
        fits=lambda path: data is not None and fs.read(path) == data,
    )


def rewrite_and_truncate_tail(
    fs: FileSystem, directory: str, segment: Segment, tail: ScanPosition
) -> CutReport | None:
    """Makes the accepted records durable and cuts the bytes after them.

    The records are written again: after a failed sync the page cache may hold bytes that never
    reached the device, and a sync alone would not write them.
    """
    torn = torn_bytes(segment, tail)
    cut = None
    if torn:
        broken = keep_broken(fs, segment.path, torn)
        cut = CutReport(
            segment=segment.path,
            offset=tail.end,
            size=len(torn),
            broken=broken,
            last_lsn=tail.last_lsn,
        )
    file = fs.open(segment.path)
    try:
        file.pwrite(tail.data[: tail.end], 0)
        if failpoints.on:
            failpoints.reach("recovery.tail-rewritten")
        file.sync()
        if failpoints.on:
            failpoints.reach("recovery.tail-synced")
        file.truncate(tail.end)
        if failpoints.on:
            failpoints.reach("recovery.tail-truncated")
        file.sync()
    finally:
        file.close()
    fs.sync_dir(directory)
    return cut
