"""Recovery: which records of a log directory are valid, and where the next one goes.

Invariants:
- Records are accepted in order, without gaps, each one chained to the one before.
- Only the end of the newest segment can be torn. It is damage, which is never cut here, when
  anything shows that a record after it was durable: a later record with a higher durable Lsn, a
  later segment, a clean close, an applied Lsn.
- Bytes are stored in a `.broken` file before they are cut.
- A record that may not have reached the device is written again before it is used. One that a later
  record shows to be durable, or that was applied, is only read.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from amberdb import _failpoints as failpoints
from amberdb._errors import CorruptionError
from amberdb._fs import File, FileSystem, first_free_name, replace_file, staged_for
from amberdb._types import NO_LSN, Lsn
from amberdb.wal.record import (
    END_SIZE,
    HEADER_SIZE,
    Header,
    Record,
    find_headers,
    read_header,
    scan,
)
from amberdb.wal.segment import RECORDS_START, Segment, load_segment, parse_name, scan_file
from amberdb.wal.segment_pool import is_spare

_OLD_STAGED = re.compile(
    r"(free-[0-9]+\.seg|[0-9a-f]{16}\.wal(\.broken(\.[0-9]+)?|\.new)?)(\.tmp)+"
)
"""Files that an earlier version did not complete."""
_WINDOW_SIZE = 1 << 20
"""What is read at once of the bytes after the last record: mostly zeros, which are not kept."""


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
    synced: Lsn = NO_LSN
    """What was durable when the last record was appended."""
    starts: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """By record that was read of the last segment, without gaps up to `last_lsn`: its offset, and
    the chain before it."""

    @classmethod
    def before(cls, segment: Segment) -> "ScanPosition":
        """The position before the first record of `segment`."""
        header = segment.header
        return cls(header.previous_last, header.previous_crc, RECORDS_START)

    def begin(self, segment: Segment) -> None:
        """Goes to the first record of `segment`, the one after those that were read."""
        self.end = RECORDS_START
        self.chain = segment.header.salt.chain  # appending continues without records, too
        self.starts = []


def recover(
    fs: FileSystem,
    directory: str,
    segments: list[Segment],
    *,
    applied: Lsn,
    clean_last: Lsn | None,
    replay: Callable[[Record], None],
    applied_offset: int | None = None,
) -> tuple[ScanPosition, Recovery]:
    """Replays the records after `applied`; cuts a torn tail, unless the log was closed cleanly at
    `clean_last`. `applied_offset`: where the applied record is. Raises CorruptionError, OSError."""
    records = 0

    def count(record: Record) -> None:
        nonlocal records
        records += 1
        replay(record)

    cut = None
    if not segments:
        if clean_last != applied:
            raise CorruptionError(f"the log in {directory} is missing", path=directory, offset=0)
        tail = ScanPosition(applied, 0, 0)
    else:
        needed = segments[first_needed(segments, applied) :]
        tail = read_segments(fs, needed, count, applied, applied_offset)
        if failpoints.on:
            failpoints.reach("recovery.log-read")
        is_clean = tail.last_lsn == clean_last
        rest = b"" if is_clean else read_rest(fs, segments[-1], tail)
        check_tail(segments[-1], tail, rest, applied=applied, clean_last=clean_last)
        if clean_last is None:
            cut = secure_tail(fs, segments[-1], tail, rest, applied)
            # The newest segment may have got its name just before a kill: were that lost with power
            # after an older segment was removed, there would be no log.
            fs.sync_dir(directory)
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
    fs: FileSystem,
    segments: list[Segment],
    replay: Callable[[Record], None],
    applied: Lsn,
    applied_offset: int | None = None,
) -> ScanPosition:
    """Replays the records after `applied`, in order, up to the first invalid one of the newest
    segment.

    `segments` begins with the one that holds `applied + 1`. `applied_offset` is a hint: if the
    header of the applied record is there in that segment, reading begins after it. Raises
    CorruptionError when an older segment ends before the next one begins.
    """
    known = None
    if applied_offset is not None:
        known = after_applied(fs, segments[0], applied_offset, applied)
    tail = known or ScanPosition.before(segments[0])
    before: Segment | None = None
    for segment in segments:
        if before is not None:
            check_reaches(before, tail, segment)
        if before is not None or known is None:
            records = read_segment(fs, segment, tail)
        else:
            records = read_on(fs, segment, tail, tail.last_lsn + 1)
        for record in records:
            if record.lsn > applied:
                replay(record)
        before = segment
    return tail


def after_applied(
    fs: FileSystem, segment: Segment, offset: int, applied: Lsn
) -> ScanPosition | None:
    """The position after the applied record; None unless its header is at the offset. (The header's
    checksum is salted, so an offset in another use of the file, or in another segment, does not
    pass.) The rest of the record is not needed any more."""
    if offset >= segment.size:
        return None
    file = fs.open(segment.path, read_only=True)
    try:
        header = read_header(file.pread(HEADER_SIZE, offset), 0, segment.header.salt)
    finally:
        file.close()
    if header is None or header.lsn != applied or offset + header.end > segment.size:
        return None
    return ScanPosition(applied, header.crc, offset + header.end, header.synced)


def read_segment(fs: FileSystem, segment: Segment, tail: ScanPosition) -> Iterator[Record]:
    """The valid records of one segment; `tail` advances with them."""
    tail.begin(segment)
    return read_on(fs, segment, tail, segment.header.first_lsn)


def read_on(fs: FileSystem, segment: Segment, tail: ScanPosition, lsn: int) -> Iterator[Record]:
    """The valid records of one segment after `tail`, of which the first must be `lsn`."""
    file = fs.open(segment.path, read_only=True)
    try:
        for record in scan_file(file, tail.end, segment.header.salt, tail.chain, lsn):
            tail.starts.append((tail.end, tail.chain))
            tail.last_lsn, _, _, _, tail.synced, tail.chain, tail.end = record
            yield record
    finally:
        file.close()


def read_rest(fs: FileSystem, segment: Segment, tail: ScanPosition) -> bytes:
    """The bytes of a segment after the last accepted record, without the zeros at their end."""
    windows: list[bytes] = []
    zeros = bytes(_WINDOW_SIZE)
    size = offset = 0
    file = fs.open(segment.path, read_only=True)
    try:
        while window := file.pread(_WINDOW_SIZE, tail.end + offset):
            offset += len(window)
            if window != zeros[: len(window)]:
                windows += [bytes(offset - len(window) - size), window]
                size = offset
    finally:
        file.close()
    return _without_zeros(b"".join(windows))


def _without_zeros(data: bytes) -> bytes:
    """`data` without the zeros at its end. (rstrip() takes 20 times as long: a byte at a time.)"""
    low, high = 0, len(data)
    while low < high:
        middle = (low + high) // 2
        if data[middle:high] == bytes(high - middle):
            high = middle
        else:
            low = middle + 1
    return data[:high]


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
    segment: Segment, tail: ScanPosition, rest: bytes, *, applied: Lsn, clean_last: Lsn | None
) -> None:
    """Raises CorruptionError if anything shows that a later record was durable."""
    last = tail.last_lsn
    for header in headers_after(segment, tail, rest):
        if header.synced > last:
            raise damage(
                segment.path,
                tail,
                f"the record at {tail.end + header.offset} shows that later records were durable",
            )
    if clean_last is not None and last != clean_last:
        raise damage(segment.path, tail, f"the database was closed at Lsn {clean_last}")
    if last < applied:
        raise damage(segment.path, tail, f"Lsn {applied} was applied")


def headers_after(segment: Segment, tail: ScanPosition, rest: bytes) -> Iterator[Header]:
    """The headers of later records of the segment, by their offsets in `rest`."""
    return find_headers(rest, 0, segment.header.salt, tail.last_lsn)


def damage(path: str, tail: ScanPosition, evidence: str) -> CorruptionError:
    return CorruptionError(
        f"the log is damaged at {path} offset {tail.end}, after Lsn {tail.last_lsn}: {evidence}",
        path=path,
        offset=tail.end,
        last_lsn=tail.last_lsn,
    )


def torn_bytes(segment: Segment, tail: ScanPosition, rest: bytes) -> bytes:
    """What of `rest`, the bytes after the last record, is part of a record that is not whole."""
    if not rest or not segment.header.recycled:
        return rest
    # The zero word after the last record is intact: the rest is from an earlier use of the file,
    # unless it holds records of this segment.
    if any(rest[:END_SIZE]):
        return rest
    return rest if any(True for _ in headers_after(segment, tail, rest)) else b""


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


def secure_tail(
    fs: FileSystem, segment: Segment, tail: ScanPosition, rest: bytes, applied: Lsn
) -> CutReport | None:
    """Makes the accepted records durable, and cuts what is left of a record after them.

    The records that may not be durable are written again: after a failed sync the page cache may
    hold bytes that never reached the device, and a sync alone would not write them.
    """
    torn = torn_bytes(segment, tail, rest)
    not_durable = max(0, tail.last_lsn - max(tail.synced, applied))
    safe = max(0, len(tail.starts) - not_durable)  # the number of records that are
    if not torn and safe >= len(tail.starts):
        return None
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
        if safe < len(tail.starts):
            data = _read_again(file, segment, tail, safe)
            if not torn and tail.end + END_SIZE <= segment.size:
                data += bytes(END_SIZE)
            file.pwrite(data, tail.starts[safe][0])
        if failpoints.on:
            failpoints.reach("recovery.tail-rewritten")
        if torn:
            file.truncate(tail.end)
        if failpoints.on:
            failpoints.reach("recovery.tail-truncated")
        file.sync()
        if failpoints.on:
            failpoints.reach("recovery.tail-synced")
    finally:
        file.close()
    return cut


def _read_again(file: File, segment: Segment, tail: ScanPosition, index: int) -> bytes:
    """The accepted records from the one with this index on. They are checked once more: what is
    read now may not be what was read before."""
    start, chain = tail.starts[index]
    first_lsn = tail.last_lsn + 1 - (len(tail.starts) - index)
    data = file.pread(tail.end - start, start)
    end = 0
    for record in scan(data, 0, segment.header.salt, chain, first_lsn):
        end = record.end
    if start + end != tail.end:
        raise CorruptionError(
            f"{segment.path} has changed while it was read: open it again",
            path=segment.path,
            offset=start + end,
        )
    return data
