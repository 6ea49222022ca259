"""One file of a FileEventStore: JSON lines, or a JSON array, and where each event is in it.

Invariants:
- A row that cannot be read is logged and passed over; a last line without its end is read again.
- Memory holds five numbers of each event. Positions ascend within a file.
"""

import logging
import os
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BufferedReader
from itertools import count
from pathlib import Path
from typing import Any, Final, final

import msgspec

from amberdb._jsonl.text import loads
from amberdb.events.event import AgentEvent, moment_of

logger = logging.getLogger("amberdb.events")

BOM: Final = b"\xef\xbb\xbf"
TAIL_BYTES: Final = 1 << 16
"""How much of a file last_position() reads."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_numbers: Final = count()


class _Head(msgspec.Struct):
    """What the places of a file are made of."""

    event_id: str
    timestamp: str
    position: Any = None

    def place(self) -> int:
        """The position, or the time of a row that another program has written."""
        if type(self.position) is int and 0 < self.position < 1 << 62:
            return self.position
        return microseconds(moment_of(self.timestamp))


@final
class EventFile:
    """One file: of each row that can be read its place in bytes, and what selects it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.positions = array("q")
        self.times = array("q")
        self.ids = array("q")
        """Hashes of the ids."""
        self.number = next(_numbers)
        """Of this object, and another one when the file is read anew: rows are only appended to
        what was noted under a number."""
        self._offsets = array("q")
        self._sizes = array("q")
        self._seen: tuple[int, int, int] = (-1, 0, 0)
        self._last_row = b""
        self._end = 0
        self._rows = 0

    @property
    def _is_array(self) -> bool:
        return self.path.suffix == ".json"

    def refresh(self) -> None:
        """Reads what is new. Raises OSError."""
        status = self.path.stat()
        seen = (status.st_ino, status.st_size, status.st_mtime_ns)
        if seen == self._seen:
            return
        with self.path.open("rb") as file:
            if self._is_array or seen[0] != self._seen[0] or not self._is_continued(file):
                self._forget()
            for offset, row in self._new_rows(file):
                self._rows += 1
                self._note(offset, row)
        self._seen = seen

    def row(self, file: int, at: int) -> bytes:
        """The row of a number, from the descriptor of the open file. Raises OSError."""
        return os.pread(file, self._sizes[at], self._offsets[at])

    def _is_continued(self, file: BufferedReader) -> bool:
        """Whether what was read is still there: a file that was written anew may have the number of
        an older one, and be larger."""
        return not self._sizes or self.row(file.fileno(), -1) == self._last_row

    def _forget(self) -> None:
        for numbers in (self.positions, self.times, self.ids, self._offsets, self._sizes):
            del numbers[:]
        self._end = self._rows = 0
        self.number = next(_numbers)

    def _new_rows(self, file: BufferedReader) -> Iterator[tuple[int, bytes]]:
        if self._is_array:
            try:
                yield from array_rows(file.read())
            except ValueError as error:
                logger.warning("%s: the array cannot be read: %s", self.path, error)
            return
        file.seek(self._end)
        for line in file:
            # A line without an end may be one that is being written.
            if line.endswith(b"\n") or _head(line) is not None:
                yield self._end, line
                self._end += len(line)
            else:
                logger.warning("%s: the last line is cut short", self.path)

    def _note(self, offset: int, row: bytes) -> None:
        head = _head(row)
        if head is None:
            if row.strip():
                logger.warning("%s: event %d cannot be read", self.path, self._rows)
            return
        moment = microseconds(moment_of(head.timestamp))
        last = self.positions[-1] if self.positions else -1
        self.positions.append(max(last + 1, head.place()))
        self.times.append(moment)
        self.ids.append(hash(head.event_id))
        self._offsets.append(offset)
        self._sizes.append(len(row))
        self._last_row = row


def last_position(path: Path) -> int:
    """The position of the last event of a file that can be read there."""
    try:
        with path.open("rb") as file:
            if path.suffix == ".json":
                rows = [row for _, row in array_rows(file.read())]
            else:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - TAIL_BYTES))
                rows = file.read().splitlines()
    except (OSError, ValueError):
        return 0
    for row in reversed(rows):
        if (head := _head(row)) is not None:
            return head.place()
    return 0


def array_rows(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements of an array, as they are written, with their offsets. Raises ValueError."""
    start = len(BOM) if data.startswith(BOM) else 0
    offset = start
    for element in msgspec.json.decode(data[start:], type=list[msgspec.Raw]):
        row = bytes(element)
        offset = data.index(row, offset)
        yield offset, row
        offset += len(row)


def event_of(row: bytes) -> AgentEvent | None:
    """The event of a row; None for one that is none."""
    try:
        stored: Any = loads(row.removeprefix(BOM))
        return AgentEvent.from_map(stored) if "timestamp" in stored else None
    except (AttributeError, TypeError, ValueError):
        return None


def _head(row: bytes) -> _Head | None:
    try:
        head = msgspec.json.decode(row.removeprefix(BOM), type=_Head)
        moment_of(head.timestamp)
    except (msgspec.MsgspecError, ValueError):
        return None
    return head


def microseconds(moment: datetime) -> int:
    """Since 1970, exactly: as seconds, a float would round the years far from it."""
    return (moment - _EPOCH) // _MICROSECOND
