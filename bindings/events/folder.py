"""The files of a FileEventStore, and where each event is in them.

    session_<id>.jsonl, or events.jsonl -> <name>.<time>.jsonl when larger than rotate_size

Each row is an event with its `position`, a number that grows from event to event: microseconds of
the clock, or one more than the last, so that a clock that is set back reverses nothing.

Invariants:
- A row that cannot be read is logged, passed over and kept: clearing rewrites it as it is, and an
  array that is damaged is set aside under another name.
- Memory holds a few numbers of each event; events are read from the files one by one.
- Calls of all folders of one directory take turns, in whichever thread or event loop they are.
  Files that other programs change, add or remove are read anew.
"""

import logging
import os
import threading
import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import Final, TypeAlias, final
from urllib.parse import quote

from amberdb._jsonl.text import dumps, iso
from amberdb._shared.files import append_lines, remove_staged, rename_file, replace_file
from amberdb.events.event import AgentEvent
from amberdb.events.event_file import (
    BOM,
    EventFile,
    array_rows,
    event_of,
    last_position,
    microseconds,
)
from amberdb.events.store import Filters

logger = logging.getLogger("amberdb.events")

NAME_MAX: Final = 200
"""Characters of a quoted session id in the name of a file; a longer one ends in a digest."""
OPEN_MAX: Final = 64

_ROW_BITS: Final = 40
"""Of the number of a row beside that of its file, in one int: a tuple takes three times as much."""
_ROW_MASK: Final = (1 << _ROW_BITS) - 1

Place: TypeAlias = tuple[int, str, int, EventFile]
"""Where an event is: its position, the name of its file, its number in the file, the file."""


@final
class _Directory:
    """What all folders of a directory have in common."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.last: dict[str, int] = {}
        """The last position given to a file with each ending, once there is one."""


_directories: Final[dict[str, _Directory]] = {}
_directories_mutex: Final = threading.Lock()


@final
class EventFolder:
    """The files below a directory. Its methods block, and are called within `lock`."""

    def __init__(
        self, base: Path, *, is_lines: bool, file_per_session: bool, rotate_size: int
    ) -> None:
        self._base = base
        self._is_lines = is_lines
        self._ending = ".jsonl" if is_lines else ".json"
        self._file_per_session = file_per_session
        self._rotate_size = rotate_size
        self._files: dict[str, EventFile] = {}
        self._last_copies: dict[int, int] = {}
        """Of each event, by the hash of its id, the place of its last copy: see _note_copies()."""
        self._noted: dict[int, int] = {}
        """Of each file, by its number, how many rows are noted there."""
        self._has_last = False
        """Whether the last positions in the files are in those of the directory."""

    @property
    def lock(self) -> threading.RLock:
        """The lock of the directory, of all folders of this process."""
        return self._directory.lock

    @property
    def _directory(self) -> _Directory:
        path = os.path.realpath(self._base)
        with _directories_mutex:
            return _directories.setdefault(path, _Directory())

    # -- reading -----------------------------------------------------------------------------

    def newest(self, filters: Filters) -> Iterator[AgentEvent]:
        """The events that match, the newest first."""
        places = merge(*(_reversed(file) for file in self._refreshed(filters)), reverse=True)
        for _, event in self._matching(places, filters):
            yield event

    def oldest(
        self, filters: Filters, after: tuple[int, str] = (-1, "")
    ) -> Iterator[tuple[tuple[int, str], AgentEvent]]:
        """The events that match, the oldest first, each with its place; those behind a place."""
        places = merge(*(_from(file, after[0]) for file in self._refreshed(filters)))
        behind = (place for place in places if place[:2] > after)
        for place, event in self._matching(behind, filters):
            yield place[:2], event

    def page(
        self, filters: Filters, after: tuple[int, str], limit: int
    ) -> list[tuple[tuple[int, str], AgentEvent]]:
        """The first of oldest()."""
        return list(islice(self.oldest(filters, after), limit))

    def stored(self, ids: Set[str]) -> list[AgentEvent]:
        """The events that have these ids."""
        files = {file.number: file for file in self._refreshed(Filters())}
        found = [self._last_copies.get(hash(event_id)) for event_id in ids]
        events: list[AgentEvent] = []
        with closing(_OpenFiles()) as opened:
            for copy in sorted(copy for copy in found if copy is not None):  # a file is opened once
                event = opened.event(files[copy >> _ROW_BITS], copy & _ROW_MASK)
                if event is not None and event.event_id in ids:
                    events.append(event)
        return events

    def _matching(
        self, places: Iterable[Place], filters: Filters
    ) -> Iterator[tuple[Place, AgentEvent]]:
        start = None if filters.start_time is None else microseconds(filters.start_time)
        end = None if filters.end_time is None else microseconds(filters.end_time)
        with closing(_OpenFiles()) as opened:
            for place in places:
                _, _, at, file = place
                if self._last_copies[file.ids[at]] != _copy(file, at):
                    continue  # stored again since
                moment = file.times[at]
                if (start is not None and moment < start) or (end is not None and moment >= end):
                    continue
                event = opened.event(file, at)
                if event is not None and filters.matches(event):
                    yield place, event

    def _refreshed(self, filters: Filters) -> list[EventFile]:
        """The files that may hold matching events, as they are now. All are looked at: the last
        copy of an event may be in the file of another session."""
        files: dict[str, EventFile] = {}
        for path in self._paths():
            file = self._files.get(path.name) or EventFile(path)
            try:
                file.refresh()
                files[path.name] = file
            except FileNotFoundError:  # removed meanwhile
                pass
        self._files = files
        self._note_copies()
        if filters.session_id is None:
            return list(files.values())
        return [file for name, file in files.items() if self._may_hold(name, filters.session_id)]

    def _paths(self) -> list[Path]:
        try:
            names = sorted(os.listdir(self._base))
        except FileNotFoundError:
            return []
        return [
            self._base / name
            for name in names
            if name.endswith(self._ending) and not name.startswith(".")
        ]

    def _may_hold(self, name: str, session_id: str) -> bool:
        if not self._file_per_session or not name.startswith("session_"):
            return True
        stems = (file_name(session_id), f"session_{quote(session_id, safe='')}")
        ends = (self._ending, ".", "_")  # LightAgent writes an underscore before the time
        return any(name.startswith(stem + end) for stem in stems for end in ends)

    def _note_copies(self) -> None:
        """Finds the last copy of each event, in the rows that are new; in all of them when a file
        is gone or was read anew."""
        files = {file.number: file for file in self._files.values()}
        if self._noted.keys() - files.keys():
            self._noted, self._last_copies = {}, {}
        copies = self._last_copies
        for number, file in files.items():
            noted = self._noted.get(number, 0)
            for at in range(noted, len(file.ids)):
                last = copies.get(key := file.ids[at])
                if last is not None:
                    other = files[last >> _ROW_BITS]
                    place = other.positions[last & _ROW_MASK], other.path.name
                    if place > (file.positions[at], file.path.name):
                        continue
                copies[key] = _copy(file, at)
            self._noted[number] = len(file.ids)

    # -- writing -----------------------------------------------------------------------------

    def add(self, events: Sequence[AgentEvent]) -> None:
        """Appends events. Raises OSError."""
        by_file: dict[str, list[bytes]] = {}
        directory = self._directory
        for event in events:
            name = file_name(event.session_id) if self._file_per_session else "events"
            by_file.setdefault(name, []).append(self._row(event, directory.last))
        self._base.mkdir(parents=True, exist_ok=True)
        for name, rows in by_file.items():
            path = self._base / (name + self._ending)
            if self._is_lines:
                append_lines(path, b"".join(row + b"\n" for row in rows))
            else:
                replace_file(path, self._text([*self._array(path), *rows]))
            try:
                if path.stat().st_size > self._rotate_size:
                    rename_file(path, _free_name(path, self._ending))
            except FileNotFoundError:  # moved by another program, with the events
                pass

    def clear(self, filters: Filters) -> int:
        """Deletes the events that match, with their older copies; how many."""
        cleared = {event.event_id for _, event in self.oldest(filters)}
        hashes = set(map(hash, cleared))
        for name, file in self._files.items():
            has_older_copies = not hashes.isdisjoint(file.ids)
            is_asked = filters.session_id is None or self._may_hold(name, filters.session_id)
            if not has_older_copies and not is_asked:
                continue
            try:
                rows = self._all_rows(file.path)
            except (FileNotFoundError, ValueError):
                continue  # gone meanwhile; or an array that is damaged, which refresh() has logged
            kept: list[bytes] = []
            for row in rows:
                event = event_of(row)
                if event is not None and (event.event_id in cleared or filters.matches(event)):
                    continue
                if row.strip():
                    kept.append(row.strip())
            if not kept:
                file.path.unlink(missing_ok=True)
            elif len(kept) < len(rows):
                replace_file(file.path, self._text(kept))
        if self._base.is_dir():
            remove_staged(self._base, self._ending)  # a killed process left events there too
        return len(cleared)

    def _row(self, event: AgentEvent, last: dict[str, int]) -> bytes:
        if not self._has_last:
            ours = max(map(last_position, self._paths()), default=0)
            last[self._ending] = max(ours, last.get(self._ending, 0))
            self._has_last = True
        position = max(last[self._ending] + 1, time.time_ns() // 1000)
        last[self._ending] = position
        timestamp = iso(event.timestamp)
        return dumps({**event.to_map(), "timestamp": timestamp, "position": position}).encode()

    def _text(self, rows: Sequence[bytes]) -> bytes:
        if self._is_lines:
            return b"".join(row + b"\n" for row in rows)
        return b"[\n  " + b",\n  ".join(rows) + b"\n]\n"

    def _all_rows(self, path: Path) -> list[bytes]:
        """Raises ValueError for a damaged array, OSError."""
        data = path.read_bytes()
        if self._is_lines:
            return data.removeprefix(BOM).split(b"\n")
        return [row for _, row in array_rows(data)]

    def _array(self, path: Path) -> list[bytes]:
        """The rows of an array that is about to be replaced; one that is damaged is set aside."""
        try:
            return self._all_rows(path)
        except FileNotFoundError:
            return []
        except ValueError as error:
            aside = _free_name(path, f"{self._ending}.damaged")
            logger.error("%s cannot be read, and is kept as %s: %s", path, aside.name, error)
            rename_file(path, aside)
            return []


@final
class _OpenFiles:
    """The files that one call reads, a bounded number of them open."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, int] = OrderedDict()

    def event(self, file: EventFile, at: int) -> AgentEvent | None:
        name = file.path.name
        try:
            if name not in self._open:
                self._open[name] = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
                if len(self._open) > OPEN_MAX:
                    os.close(self._open.popitem(last=False)[1])
            self._open.move_to_end(name)
            row = file.row(self._open[name], at)
        except FileNotFoundError:
            return None
        event = event_of(row)
        if event is None:
            logger.warning("%s: event %d cannot be read", file.path, at + 1)
        return event

    def close(self) -> None:
        for file in self._open.values():
            os.close(file)


def file_name(session_id: str) -> str:
    """The name of a session's file, without its ending: any text has one, and no other has it but
    where letters differ in case alone, which events tell apart."""
    name = quote(session_id, safe="")
    if len(name) > NAME_MAX:
        name = f"{name[: NAME_MAX // 2]}~{sha256(session_id.encode()).hexdigest()[:40]}"
    return f"session_{name}"


def _copy(file: EventFile, at: int) -> int:
    return file.number << _ROW_BITS | at


def _reversed(file: EventFile) -> Iterator[Place]:
    name = file.path.name
    for at in range(len(file.positions) - 1, -1, -1):
        yield file.positions[at], name, at, file


def _from(file: EventFile, position: int) -> Iterator[Place]:
    name = file.path.name
    for at in range(bisect_left(file.positions, position), len(file.positions)):
        yield file.positions[at], name, at, file


def _free_name(path: Path, ending: str) -> Path:
    """A name for an archive of the file, with the time, that no file has."""
    stem = path.name.removesuffix(path.suffix)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    number = 0
    while True:
        suffix = f".{stamp}" if not number else f".{stamp}-{number}"
        target = path.with_name(stem + suffix + ending)
        if not target.exists():
            return target
        number += 1
