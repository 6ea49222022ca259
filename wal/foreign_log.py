"""Reading a log that another process writes: that grows, rotates and is recycled meanwhile.

Invariants:
- Nothing is written, and no file is held open between reads.
- Which segments there are is a guess. One that is out of date misses records and shows no wrong
  ones, since LogReader checks each; what is missed is looked for in a guess made anew.
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
    read_segments,
)
from amberdb.wal.segment import Segment

_TRIES_MAX: Final = 100


class ForeignLogReader:
    """The log in a directory, as another process leaves it. Safe to use from several threads."""

    def __init__(self, fs: FileSystem, directory: str, database_id: bytes) -> None:
        self._fs = fs
        self._directory = directory
        self._database_id = database_id
        self._segments: list[Segment] = []
        self._reader = LogReader(fs, lambda: self._segments)

    def read(self, after: Lsn, upto: Lsn) -> Iterator[Record]:
        """The records with `after < lsn <= upto`, all of which were written once.

        Raises LogTruncatedError (at once or while iterating) with `resume` when they are no
        longer kept; CorruptionError when one is not as it was written.
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
        """Those that there are now, oldest first. Raises CorruptionError, FormatError."""
        tries = 0
        while True:
            names, _ = list_directory(self._fs, self._directory, clean=False)
            try:
                self._segments = load_segments(self._fs, names, self._database_id)
                return self._segments
            except (CorruptionError, FileNotFoundError):  # perhaps one was recycled in between
                tries += 1
                if tries == _TRIES_MAX:
                    raise

    def end(self, applied: Lsn) -> Lsn:
        """The last record that a recovery would accept. Raises CorruptionError, as it would."""
        segments = self.segments()
        if not segments:
            return applied
        needed = segments[first_needed(segments, applied) :]
        tail = read_segments(self._fs, needed, _pass, applied)
        check_tail(segments[-1], tail, applied=applied, clean_last=None)
        return max(tail.last_lsn, applied)


def _pass(record: Record) -> None:
    """Only how far they reach is asked."""
