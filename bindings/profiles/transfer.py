"""Import of user profiles from a directory of JSON files or a SQLite table; export to JSON files.

    <user_id>.json, else its .bak or .tmp -> checked -> stored in batches -> compared

Invariants:
- No file is skipped silently. The report counts each as imported, recovered from its backup,
  unchanged, older than the stored profile, or broken with the reason.
- An interrupted import can be run again: stored profiles stay as they are.
- An exported file is replaced atomically; import(export(x)) is x.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any, Final, NamedTuple, cast
from urllib.parse import quote, unquote

from amberdb import Document, DocumentError, WritableCollection
from amberdb._jsonl.text import dumps, iso, loads
from amberdb._shared.files import replace_file
from amberdb.profiles.profiles import MAPS, UserProfiles, empty

BATCH: Final = 200
_SPARES: Final = (".json.bak", ".bak", ".json.tmp", ".tmp", ".json~")
"""Endings of the copies that a writer of JSON files leaves beside a file."""
_TIMES: Final = ("created_at", "last_updated")


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
    directory: str | os.PathLike[str],
    *,
    dry_run: bool = False,
    zone: tzinfo = UTC,
    progress: Progress | None = None,
) -> TransferReport:
    """Imports every `<user_id>.json` of a directory. Times without a zone are read as times in
    `zone`. With `dry_run` nothing is stored; the report shows what would be. Raises OSError."""
    report = TransferReport()
    _store(profiles, _of_files(Path(directory), zone, report), dry_run, report, progress)
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
        source.row_factory = sqlite3.Row
        rows = source.execute(f'SELECT * FROM "{name}" ORDER BY user_id')
        _store(profiles, _of_rows(rows, table, zone, report), dry_run, report, progress)
    return report


def export_json(profiles: UserProfiles, directory: str | os.PathLike[str]) -> int:
    """Writes `<user_id>.json` for every profile of one snapshot; how many. Raises OSError."""
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    count = 0
    with profiles.db.snapshot() as at:
        for document in at[profiles.name].documents():
            _write(target / f"{quote(document['user_id'], safe='')}.json", document)
            count += 1
    return count


# -- reading -------------------------------------------------------------------------------------


def _of_files(directory: Path, zone: tzinfo, report: TransferReport) -> Iterator[Document]:
    names = {path.name for path in directory.iterdir() if path.is_file()}
    stems = {name.removesuffix(".json") for name in names if name.endswith(".json")}
    for name in names:
        for ending in _SPARES:
            if name.endswith(ending):
                stems.add(name.removesuffix(ending))
                break
    for stem in sorted(stems):
        report.found += 1
        spares = [f"{stem}{ending}" for ending in _SPARES if f"{stem}{ending}" in names]
        spares.sort(key=lambda name: (directory / name).stat().st_mtime, reverse=True)
        reasons: list[str] = []
        for name in (f"{stem}.json", *spares):
            try:
                profile = _profile(unquote(stem), loads((directory / name).read_bytes()), zone)
            except FileNotFoundError:
                reasons.append(f"{name}: is missing")
            except (OSError, ValueError) as error:
                reasons.append(f"{name}: {error}")
            else:
                if reasons:
                    report.recovered.append(f"{name} ({'; '.join(reasons)})")
                yield profile
                break
        else:
            report.broken.append(Broken(f"{stem}.json", "; ".join(reasons)))


def _of_rows(
    rows: Iterable[sqlite3.Row], table: str, zone: tzinfo, report: TransferReport
) -> Iterator[Document]:
    for row in rows:
        report.found += 1
        given: dict[str, Any] = dict(row)
        source = f"{table}: {given.get('user_id')!r}"
        try:
            for name in MAPS:
                if isinstance(given.get(name), str):
                    given[name] = loads(given[name])
            yield _profile(str(given["user_id"]), given, zone)
        except (KeyError, ValueError) as error:
            report.broken.append(Broken(source, str(error)))


def _profile(user_id: str, given: Any, zone: tzinfo) -> Document:
    """The document of a profile that was read from a source. Raises ValueError."""
    if not isinstance(given, dict):
        raise ValueError("a profile must be a map")
    fields = cast(dict[str, Any], given)
    user_id = str(fields.get("user_id") or user_id)
    document: Document = {"id": user_id, **empty(user_id)}
    document |= {
        name: value for name, value in fields.items() if value is not None or name not in document
    }
    document["user_id"] = user_id
    document["conversation_count"] = _integer(document["conversation_count"])
    for name in MAPS:
        if not isinstance(document[name], dict | list):
            raise ValueError(f"{name} must be a map or a list, not {document[name]!r}")
    for name in _TIMES:
        document[name] = _time(name, fields.get(name), zone)
    return document


def _integer(value: Any) -> int:
    try:
        return int(value)
    except (OverflowError, TypeError, ValueError):
        raise ValueError(f"conversation_count must be a number, not {value!r}") from None


def _time(name: str, value: Any, zone: tzinfo) -> datetime | None:
    if value is None or isinstance(value, datetime):
        return value
    try:
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
        time = datetime.fromisoformat(value)
    except (OverflowError, OSError, TypeError, ValueError):
        raise ValueError(f"{name} must be ISO 8601 text or epoch seconds, not {value!r}") from None
    return (time if time.tzinfo else time.replace(tzinfo=zone)).astimezone(UTC)


# -- storing -------------------------------------------------------------------------------------


def _store(
    profiles: UserProfiles,
    documents: Iterable[Document],
    dry_run: bool,
    report: TransferReport,
    progress: Progress | None,
) -> None:
    batch: list[Document] = []
    for document in documents:
        batch.append(document)
        if len(batch) == BATCH:
            _store_batch(profiles, batch, dry_run, report)
            batch = []
            if progress is not None:
                progress(report)
    _store_batch(profiles, batch, dry_run, report)
    if progress is not None:
        progress(report)


class _DryRun(Exception):
    """Rolls a transaction back whose outcome is known."""


def _store_batch(
    profiles: UserProfiles, batch: list[Document], dry_run: bool, report: TransferReport
) -> None:
    collection = profiles.db.collection(profiles.name)
    with suppress(_DryRun), profiles.db.transaction() as tx:
        for document in batch:
            try:
                _import(tx[profiles.name], document, report)
            except DocumentError as error:
                report.broken.append(Broken(document["id"], error.message))
        if dry_run:
            raise _DryRun
    if not dry_run:
        left_out = {*report.newer, *(broken.source for broken in report.broken)}
        report.verified += sum(
            collection.get(document["id"]) == document
            for document in batch
            if document["id"] not in left_out
        )


def _import(collection: WritableCollection, document: Document, report: TransferReport) -> None:
    """Raises DocumentError for a profile that cannot be stored."""
    stored = collection.get(document["id"])
    if stored == document:
        report.same += 1
    elif stored is not None and _is_newer(stored, document):
        report.newer.append(document["id"])
    else:
        collection.put(document)
        report.imported += 1


def _is_newer(stored: Mapping[str, Any], document: Mapping[str, Any]) -> bool:
    mine, theirs = stored.get("last_updated"), document.get("last_updated")
    return mine is not None and (theirs is None or mine > theirs)


def _write(path: Path, document: Document) -> None:
    fields = {
        name: iso(value) if name in _TIMES and isinstance(value, datetime) else value
        for name, value in document.items()
        if name != "id"
    }
    text = dumps(fields, indent=2) + "\n"
    replace_file(path, text.encode())
