"""Profiles as other programs keep them: JSON files, one file of many users, a table of SQLite.

    <user_id>.json, <user_id>/profile.json   one user, in a directory or a folder inside it
    users.json                               a map of user ids to profiles, or a list of profiles
    users.jsonl                              a profile on each line
    a table                                  a row for each user

Invariants:
- Each profile of a source is found once: as a document, or with the reason why there is none.
- A backup of a file is read in place of one that cannot be read, the newest of several.
"""

import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from json import detect_encoding
from pathlib import Path
from typing import Any, Final, NamedTuple, cast, final
from urllib.parse import unquote

from amberdb import Document
from amberdb._jsonl.reader import numbered_lines, open_input, parse_line
from amberdb._jsonl.text import loads
from amberdb.profiles.values import document_of, is_profile

_COPY: Final = re.compile(
    r"(.+?)(?:\.json)?(?:\.amber-[0-9a-f]{16})?\.(?:bak|tmp)|(.+)\.json~", re.IGNORECASE
)
"""Names of the copies that writers of JSON files leave beside a file."""
_OF_FOLDER: Final = frozenset({"profile", "user_profile", "memory", "user_memory", "user", "data"})
"""Files for the user whose name their folder has."""
_OF_MANY: Final = frozenset({"users", "profiles", "memories", "user_memories", "user_profiles"})
_JSON: Final = ".json"
LINES: Final = (".jsonl", ".ndjson")
_OLDEST: Final = datetime.min.replace(tzinfo=UTC)


class Found(NamedTuple):
    """A profile of a source: its document, or the reason why there is none."""

    source: str
    outcome: Document | str


@final
@dataclass(frozen=True, slots=True)
class JsonFiles:
    """The profiles of a directory, or of one file.

    zone        that of times without one
    encoding    that of files that are neither UTF-8 nor begin with a byte order mark
    recovered   is called with each file that is read in place of another, and why
    """

    top: Path
    zone: tzinfo
    encoding: str | None
    recovered: Callable[[str], object]

    def profiles(self) -> Iterator[Found]:
        """Raises OSError."""
        if self.top.is_dir():
            return self._of_directory()
        return self._of_lines() if self.top.suffix in LINES else iter(self._of_users())

    def _of_users(self) -> list[Found]:
        try:
            return self._read(self.top, _user_of(self.top), is_of_many=True)
        except ValueError as error:
            return [Found(self.top.name, str(error))]

    def _of_lines(self) -> Iterator[Found]:
        with open_input(os.fspath(self.top)) as given:
            for number, line in numbered_lines(given.stream):
                if line.strip():
                    source = f"{self.top.name}: line {number}"
                    try:
                        value = parse_line(line)
                    except ValueError as error:
                        yield Found(source, str(error))
                    else:
                        yield _found(source, None, value, self.zone)

    def _of_directory(self) -> Iterator[Found]:
        for name, folders, names in os.walk(self.top, onerror=_raise):
            folders.sort()
            for files in _files(names):
                yield from self._of_file(Path(name), files)

    def _of_file(self, folder: Path, names: list[str]) -> list[Found]:
        """The profiles of the first file, or of its newest copy that can be read."""
        main = names[0]
        user = _user_of(folder / main)
        if user in _OF_FOLDER and folder != self.top:
            user = unquote(folder.name)
        reasons: list[str] = []
        read: list[tuple[datetime, float, str, list[Found]]] = []
        for name in names:
            path = folder / name
            try:
                found = self._read(path, user, is_of_many=user is None)
                if name == main:
                    return found
                read.append((_newest(found), path.stat().st_mtime, self._source(path), found))
            except FileNotFoundError:
                reasons.append(f"{self._source(path)}: is missing")
            except (OSError, ValueError) as error:
                reasons.append(f"{self._source(path)}: {error}")
        why = "; ".join(reasons)
        if not read:
            return [Found(self._source(folder / main), why)]
        *_, source, found = max(read, key=lambda each: each[:2])
        self.recovered(f"{source} ({why})")
        return found

    def _read(self, path: Path, user: str | None, *, is_of_many: bool) -> list[Found]:
        """The profiles of one file. Raises OSError, and ValueError when it holds none."""
        source = self._source(path)
        value = loads(self._text(path.read_bytes()))
        many = _many(value, is_of_many)
        if many is None:
            return [Found(source, document_of(user, value, self.zone))]
        if not many:
            raise ValueError("it holds no profile")
        return [_found(f"{source}: {at!r}", own, each, self.zone) for at, own, each in many]

    def _text(self, data: bytes) -> str | bytes:
        """Raises ValueError."""
        if self.encoding is not None and detect_encoding(data) == "utf-8":
            try:
                return data.decode()
            except UnicodeDecodeError:
                return data.decode(self.encoding)
        return data

    def _source(self, path: Path) -> str:
        """The name of a file in the report."""
        return path.name if path == self.top else os.path.relpath(path, self.top)


def of_rows(rows: Iterable[sqlite3.Row], table: str, zone: tzinfo) -> Iterator[Found]:
    """The profiles of a table. Raises sqlite3.Error."""
    for row in rows:
        given: Document = dict(row)
        source = f"{table}: {given.get('user_id', given.get('id'))!r}"
        yield _found(source, None, given, zone)


def utf8(text: bytes) -> str:
    """The text of a column, as sqlite3's text_factory: a byte that is not UTF-8 becomes half of a
    pair, which no document may have, and is so refused with its field."""
    return text.decode("utf-8", "surrogateescape")


def _files(names: Iterable[str]) -> Iterator[list[str]]:
    """The JSON files of a folder, each with its copies; also one that has only copies."""
    files: dict[str, list[str]] = {}
    copies: dict[str, list[str]] = {}
    for name in sorted(names):
        if name.lower().endswith(_JSON):
            files.setdefault(name[: -len(_JSON)], []).append(name)
        elif match := _COPY.fullmatch(name):
            copies.setdefault(match[1] or match[2], []).append(name)
    for stem in sorted(files.keys() | copies.keys()):
        first, *others = files.get(stem, [stem + _JSON])
        yield [first, *copies.get(stem, ())]
        yield from ([other] for other in others)  # that differ in capitals of the ending alone


def _many(value: Any, is_of_many: bool) -> list[tuple[int | str, str | None, Any]] | None:
    """The profiles of a map of users or a list: its place, its user if known, and the profile. None
    for the profile of one user."""
    if isinstance(value, list):
        listed = cast(Sequence[Any], value)
        return [(at, None, each) for at, each in enumerate(listed)]
    if not isinstance(value, dict):
        return None
    users = cast(dict[str, Any], value)
    if is_profile(users):
        return None
    if is_of_many:
        for name in sorted(_OF_MANY & users.keys()):
            if isinstance(users[name], dict | list):
                return _many(users[name], True)
    maps = [cast(Document, each) for each in users.values() if isinstance(each, dict)]
    are_profiles = len(maps) == len(users) and any(map(is_profile, maps))
    if maps if is_of_many else are_profiles:
        return [(user, user, each) for user, each in users.items()]
    return None


def _user_of(path: Path) -> str | None:
    """The user whose name a file has; None for a file of many users."""
    return None if path.stem in _OF_MANY else unquote(path.stem)


def _found(source: str, user: str | None, value: Any, zone: tzinfo) -> Found:
    try:
        return Found(source, document_of(user, value, zone))
    except ValueError as error:
        return Found(source, str(error))


def _newest(found: Iterable[Found]) -> datetime:
    """The time of the last change of several profiles."""
    documents = (each.outcome for each in found if isinstance(each.outcome, Mapping))
    return max((each["last_updated"] or _OLDEST for each in documents), default=_OLDEST)


def _raise(error: OSError) -> None:
    raise error
