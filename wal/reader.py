"""Reading the log from any Lsn, concurrently with appends and recycling.

Invariants:
- Records come in order, without gaps, each one checked against the one before.
- A file that is recycled during a read is noticed by its salt; records read before that were
  checked, so they were right.
- A reader holds one file open and one window in memory.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence

from amberdb._errors import CorruptionError, LogTruncatedError
from amberdb._fs import FileSystem
from amberdb._types import Lsn
from amberdb.wal.record import Record
from amberdb.wal.segment import RECORDS_START, Segment, scan_file

_HINTS_MAX = 16


class LogReader:
    """Reads the segments that `segments()` lists; caches where the last reads ended."""

    def __init__(self, fs: FileSystem, segments: Callable[[], Sequence[Segment]]) -> None:
        self._fs = fs
        self._segments = segments
        self._hints: dict[int, tuple[int, int, int]] = {}  # lsn -> first lsn, end, chain

    def read(self, after: Lsn, upto: Lsn) -> Iterator[Record]:
        """The records with `after < lsn <= upto`.

        Raises LogTruncatedError (now or while iterating) when records were recycled, with `resume`,
        the Lsn to read after instead; CorruptionError on damage.
        """
        if after < upto:
            self._locate(after, upto)
        return self._read(after, upto)

    def _read(self, after: Lsn, upto: Lsn) -> Iterator[Record]:
        while after < upto:
            segment, until = self._locate(after, upto)
            try:
                file = self._fs.open(segment.path, read_only=True)
            except FileNotFoundError as error:
                self._check_recycled(segment, error)
                continue
            end = RECORDS_START
            try:
                start, chain, lsn = self._start(segment, after)
                for record in scan_file(file, start, segment.header.salt, chain, lsn):
                    end = record.end
                    if record.lsn > after:
                        yield record
                        after = record.lsn
                        if after >= until:
                            self._remember(segment, record)
                            break
            finally:
                file.close()
            if after < until:
                self._check_recycled(segment, end)

    def _locate(self, after: Lsn, upto: Lsn) -> tuple[Segment, Lsn]:
        """The segment that holds the record after `after`, and the last Lsn to read from it."""
        segments = self._segments()
        index = bisect_right(segments, after, key=lambda s: s.header.previous_last) - 1
        if index < 0:
            resume = segments[0].header.previous_last if segments else upto
            raise LogTruncatedError(
                f"the log no longer reaches back to Lsn {after}; its records begin after {resume}",
                resume=resume,
            )
        if index + 1 < len(segments):
            upto = min(upto, segments[index + 1].header.previous_last)
        return segments[index], upto

    def _start(self, segment: Segment, after: Lsn) -> tuple[int, int, int]:
        """Offset, chain and Lsn of the first record to read."""
        header = segment.header
        hint = self._hints.get(after)
        if hint is not None and hint[0] == header.first_lsn:
            return hint[1], hint[2], after + 1
        return RECORDS_START, header.salt.chain, header.first_lsn

    def _remember(self, segment: Segment, record: Record) -> None:
        while len(self._hints) >= _HINTS_MAX:
            try:
                self._hints.pop(next(iter(self._hints)), None)
            except (RuntimeError, StopIteration):  # another thread removed it first
                pass
        self._hints[record.lsn] = (segment.header.first_lsn, record.end, record.crc)

    def _check_recycled(self, segment: Segment, place: int | OSError) -> None:
        """Raises CorruptionError unless the segment was recycled meanwhile."""
        if segment in self._segments():
            offset = place if isinstance(place, int) else 0
            raise CorruptionError(
                f"the log is damaged at {segment.path} offset {offset}",
                path=segment.path,
                offset=offset,
            ) from (place if isinstance(place, OSError) else None)
