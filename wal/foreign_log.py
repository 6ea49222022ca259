"""Reading a log that another process appends to, rotates and recycles at the same time.

Invariants:
- Nothing is written, and no file is held open between reads.
- The list of segments may be out of date. Then records are missing, but none is wrong, since
  LogReader checks each one; for missing records the directory is listed again.
"""

from collections.abc import Iterator
from typing import Final

from amberdb._errors import CorruptionError, LogTruncatedError
from amberdb._fs import FileSystem
from amberdb._types import Lsn
from amberdb.wal.reader import LogReader
from amberdb.wal.record import Record
from amberdb.wal.recovery import (
    check_tail,
    first_needed,
    list_directory,
    load_segments,
    read_rest,
    read_segments,
)
from amberdb.wal.segment import Segment

_TRIES_MAX: Final = 100


class ForeignLogReader:
    """The log of another process. Thread-safe."""

    def __init__(self, fs: FileSystem, directory: str, database_id: bytes) -> None:
        self._fs = fs
        self._directory = directory
        self._database_id = database_id
        self._segments: list[Segment] = []
        self._reader = LogReader(fs, lambda: self._segments)

    def read(self, after: Lsn, upto: Lsn) -> Iterator[Record]:
        """The records with `after < lsn <= upto`, which the other process has written.

        Raises LogTruncatedError (at once or while iterating) with `resume` when records were
        recycled; CorruptionError when one is damaged.
        """
        while True:
            known = self._segments
            try:
                for record in self._reader.read(after, upto):
                    yield record
                    after = record.lsn
                return
            except (LogTruncatedError, CorruptionError):
                if self.segments() == known:
                    raise

    def segments(self) -> list[Segment]:
        """The current segments, oldest first. Raises CorruptionError, FormatError."""
        tries = 0
        while True:
            names, _ = list_directory(self._fs, self._directory, clean=False)
            try:
                self._segments = load_segments(self._fs, names, self._database_id)
                return self._segments
            except (CorruptionError, FileNotFoundError):  # possibly recycled in between
                tries += 1
                if tries == _TRIES_MAX:
                    raise

    def end(self, applied: Lsn) -> Lsn:
        """The last record that recovery would accept. Raises CorruptionError as recovery does."""
        segments = self.segments()
        if not segments:
            return applied
        needed = segments[first_needed(segments, applied) :]
        tail = read_segments(self._fs, needed, _ignore, applied)
        rest = read_rest(self._fs, segments[-1], tail)
        check_tail(segments[-1], tail, rest, applied=applied, clean_last=None)
        return max(tail.last_lsn, applied)


def _ignore(record: Record) -> None:
    """Replays nothing: end() needs only the position."""
