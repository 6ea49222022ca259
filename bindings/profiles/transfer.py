"""Import of user profiles from JSON files or a SQLite table.

    sources.py: documents -> stored in batches -> read back and compared

Invariants:
- No profile is skipped silently. The report counts each as imported, unchanged, older than the
  stored profile, or broken with the reason. One that cannot be stored costs no other.
- The newest profile of a user stays, whatever the order of the files.
- An interrupted import can be run again: stored profiles stay as they are.
"""

import codecs
import os
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

from amberdb import Document, DocumentError, Transaction
from amberdb._jsonl.text import dumps
from amberdb.profiles.profiles import UserProfiles
from amberdb.profiles.sources import Found, JsonFiles, of_rows, utf8

BATCH: Final = 200
BATCH_CHARS: Final = 8 << 20
"""Text of the profiles that are stored in one commit, about."""


class Broken(NamedTuple):
    """A profile that could not be read, or not be stored."""

    source: str
    reason: str


@dataclass(slots=True)
class TransferReport:
    """What an import did with each profile of the source."""

    found: int = 0
    imported: int = 0
    same: int = 0
    """Profiles that were stored already, with the same content."""
    newer: list[str] = field(default_factory=list[str])
    """Users whose stored profile is newer than the file; it was not changed."""
    recovered: list[str] = field(default_factory=list[str])
    """Files that were broken or missing, and were read from a backup beside them."""
    broken: list[Broken] = field(default_factory=list[Broken])
    verified: int = 0
    """Profiles that were read back and compared equal."""


Progress = Callable[[TransferReport], None]


def import_json(
    profiles: UserProfiles,
    path: str | os.PathLike[str],
    *,
    dry_run: bool = False,
    zone: tzinfo = UTC,
    encoding: str | None = None,
    progress: Progress | None = None,
) -> TransferReport:
    """Imports every `<user_id>.json` of a directory and its subfolders, or one file of many users:
    a map, a list, or JSON lines. Times without a zone are read as times in `zone`; `encoding`, such
    as "gb18030", is that of files that are not UTF-8. With `dry_run` nothing is stored; the report
    shows what would be. Raises OSError, LookupError for an unknown encoding."""
    if encoding is not None:
        codecs.lookup(encoding)
    report = TransferReport()
    files = JsonFiles(Path(path), zone, encoding, report.recovered.append)
    _Import(profiles, report, dry_run).run(files.profiles(), progress)
    return report


def import_sqlite(
    profiles: UserProfiles,
    path: str | os.PathLike[str],
    *,
    table: str = "user_memories",
    dry_run: bool = False,
    zone: tzinfo = UTC,
    progress: Progress | None = None,
) -> TransferReport:
    """Imports every row of a table with the columns of a profile, where maps are JSON text. Raises
    sqlite3.Error."""
    report = TransferReport()
    name = table.replace('"', '""')
    with closing(sqlite3.connect(f"file:{quote(os.fspath(path))}?mode=ro", uri=True)) as source:
        source.row_factory, source.text_factory = sqlite3.Row, utf8
        rows = source.execute(f'SELECT * FROM "{name}"')
        _Import(profiles, report, dry_run).run(of_rows(rows, table, zone), progress)
    return report


class _DryRun(Exception):
    """Rolls a transaction back whose outcome is known."""


class _Met(NamedTuple):
    """What an import has done with the profile of a user."""

    source: str
    last_updated: datetime | None
    content: int
    """The hash of its JSON text."""
    is_imported: bool


class _Import:
    """One run of an import."""

    def __init__(self, profiles: UserProfiles, report: TransferReport, dry_run: bool) -> None:
        self._profiles = profiles
        self._report = report
        self._dry_run = dry_run
        self._met: dict[str, _Met] = {}

    def run(self, found: Iterable[Found], progress: Progress | None) -> None:
        report = self._report
        batch: list[tuple[str, Document, int]] = []
        chars = 0
        for source, outcome in found:
            report.found += 1
            if isinstance(outcome, str):
                report.broken.append(Broken(source, outcome))
                continue
            text = dumps({name: outcome[name] for name in sorted(outcome)})
            batch.append((source, outcome, hash(text)))
            chars += len(text)
            if len(batch) >= BATCH or chars >= BATCH_CHARS:
                self._store(batch)
                batch, chars = [], 0
                if progress is not None:
                    progress(report)
        self._store(batch)
        if progress is not None:
            progress(report)

    def _store(self, batch: list[tuple[str, Document, int]]) -> None:
        stored: dict[str, Document] = {}
        with suppress(_DryRun), self._profiles.db.transaction() as tx:
            for source, document, content in batch:
                try:
                    if self._take(tx, source, document, content):
                        stored[document["id"]] = document
                except DocumentError as error:
                    self._report.broken.append(Broken(source, error.message))
            if self._dry_run:
                raise _DryRun
        if not self._dry_run:
            self._report.verified += sum(
                self._profiles.get(user_id) == document for user_id, document in stored.items()
            )

    def _take(self, tx: Transaction, source: str, document: Document, content: int) -> bool:
        """Stores a profile unless a newer one is there; whether it is stored now. Raises
        DocumentError for one that cannot be."""
        report, user_id, time = self._report, document["id"], document["last_updated"]
        stored, met = tx[self._profiles.name].get(user_id), self._met.get(user_id)
        if stored == document or (met is not None and met.content == content):
            report.same += 1
            self._met.setdefault(user_id, _Met(source, time, content, False))
            return True
        if (stored is not None and _is_newer(stored.get("last_updated"), time)) or (
            met is not None and _is_newer(met.last_updated, time)
        ):
            report.newer.append(user_id)
            return False
        if met is not None:
            if not _is_newer(time, met.last_updated):
                problem = f"{met.source} has another profile of {user_id!r}, as new: keep one"
                report.broken.append(Broken(source, problem))
                return False
            if met.is_imported:  # and is older than the one that is stored now
                report.imported -= 1
                report.newer.append(user_id)
        self._profiles.put(document, tx=tx)
        self._met[user_id] = _Met(source, time, content, True)
        report.imported += 1
        return True


def _is_newer(mine: datetime | None, theirs: datetime | None) -> bool:
    return mine is not None and (theirs is None or mine > theirs)
