"""Import of conversations from a Redis dump, a SQLite table, JSON or rows; export to JSON Lines.

    sources.py: rows -> turns -> stored in batches, pending -> read back and compared

Invariants:
- No row is skipped silently. The report counts each turn as imported, the same as one that is
  there, or broken with the reason, and names the keys of a dump that hold no turns. One that is
  broken costs no other.
- An interrupted import can be run again: turns that are stored stay as they are.
- Turns keep their times, which order them among those that are there. They are pending: flush()
  sends them to the sink, and they expire after that.
- import(export(x)) is x. An exported file is replaced atomically.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from itertools import islice
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote

from amberdb import Document, DocumentError, DuplicateKeyError, Transaction
from amberdb._jsonl.text import dumps, loads
from amberdb._shared.files import whole_file
from amberdb.chat.buffer import ChatBuffer
from amberdb.chat.delivery import AT_ONCE
from amberdb.chat.redis_dump import entries, maps_in
from amberdb.chat.sources import SAID, Broken, Reader, Row, turns_of
from amberdb.chat.turns import microseconds, sent

BATCH: Final = 200


@dataclass(slots=True)
class TransferReport:
    """What an import did with each row of the source."""

    found: int = 0
    """Rows that were read: turns, or messages of them."""
    imported: int = 0
    """Turns that were stored, pending."""
    same: int = 0
    """Turns that were stored already."""
    untimed: int = 0
    """Rows without a time; they come last, in the order of the source, with the time of the
    import."""
    skipped: list[str] = field(default_factory=list[str])
    """Keys of a dump that hold no turns."""
    broken: list[Broken] = field(default_factory=list[Broken])
    verified: int = 0
    """Turns that were read back and compared equal."""


Progress = Callable[[TransferReport], None]


def import_redis(
    buffer: ChatBuffer,
    path: str | os.PathLike[str],
    *,
    columns: Mapping[str, str] | None = None,
    user_id: str | None = None,
    dry_run: bool = False,
    zone: tzinfo = UTC,
    progress: Progress | None = None,
) -> TransferReport:
    """Imports the turns and messages of a Redis dump in JSON, whatever the types of its keys. A row
    without a conversation is of that which its key ends in: of `c7` in `chat:c7`. Otherwise as
    import_rows(). Raises OSError, ValueError."""
    report = TransferReport()
    reader = Reader(columns, user_id, zone)
    rows: list[Row] = []
    for key, value in entries(Path(path).read_bytes()):
        maps = list(maps_in(value, reader.is_row))
        if not maps:
            report.skipped.append(key)
        of_key = {"conversation_id": key.rpartition(":")[2]}
        for given in maps:
            _read(reader, key, {**of_key, **given}, rows, report)
    return _store(buffer, rows, report, dry_run, progress)


def import_sqlite(
    buffer: ChatBuffer,
    path: str | os.PathLike[str],
    *,
    table: str,
    columns: Mapping[str, str] | None = None,
    user_id: str | None = None,
    dry_run: bool = False,
    zone: tzinfo = UTC,
    progress: Progress | None = None,
) -> TransferReport:
    """Imports every row of a table, as import_rows(). Raises sqlite3.Error, ValueError."""
    name = table.replace('"', '""')
    with closing(sqlite3.connect(f"file:{quote(os.fspath(path))}?mode=ro", uri=True)) as source:
        source.row_factory = sqlite3.Row
        rows = map(dict[str, Any], source.execute(f'SELECT * FROM "{name}"'))
        return import_rows(
            buffer,
            rows,
            columns=columns,
            user_id=user_id,
            dry_run=dry_run,
            zone=zone,
            progress=progress,
        )


def import_json(
    buffer: ChatBuffer,
    path: str | os.PathLike[str],
    *,
    columns: Mapping[str, str] | None = None,
    user_id: str | None = None,
    dry_run: bool = False,
    zone: tzinfo = UTC,
    progress: Progress | None = None,
) -> TransferReport:
    """Imports a file of JSON Lines, or a JSON list: what export_jsonl() wrote, and rows of tables.
    Otherwise as import_rows(). Raises OSError, ValueError."""
    report = TransferReport()
    reader = Reader(columns, user_id, zone)
    rows: list[Row] = []
    values: Iterable[tuple[int, Any]]
    data = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf")
    if data.lstrip()[:1] == b"[":
        values = enumerate(cast(list[Any], loads(data)), 1)
    else:
        values = ((n, line) for n, line in enumerate(data.splitlines(), 1) if line.strip())
    for number, value in values:
        _read(reader, f"{number}", value, rows, report)
    return _store(buffer, rows, report, dry_run, progress)


def import_rows(
    buffer: ChatBuffer,
    rows: Iterable[Mapping[str, Any]],
    *,
    columns: Mapping[str, str] | None = None,
    user_id: str | None = None,
    dry_run: bool = False,
    zone: tzinfo = UTC,
    progress: Progress | None = None,
) -> TransferReport:
    """Imports rows, such as those of a database driver or of csv.DictReader.

    columns   the names of columns, where they are not the usual ones (sources.NAMES): {"content":
              "body"}; the fields are id, conversation_id, user_id, created_at, and user_message and
              assistant_message, or role and content
    user_id   of rows without one
    dry_run   store nothing; the report shows what would be
    zone      of times without a zone

    All rows are in memory at once. Raises ValueError for wrong columns.
    """
    report = TransferReport()
    reader = Reader(columns, user_id, zone)
    found: list[Row] = []
    for number, given in enumerate(rows, 1):
        _read(reader, f"{number}", given, found, report)
    return _store(buffer, found, report, dry_run, progress)


def export_jsonl(
    buffer: ChatBuffer,
    path: str | os.PathLike[str],
    *,
    conversation_id: str | None = None,
    user_id: str | None = None,
) -> int:
    """Writes the turns of a conversation, of a user, or all, a line each; how many. Raises OSError,
    QueryError, and what the sink raises."""
    count = 0
    with whole_file(os.fspath(path)) as file:
        for turn in buffer.export(conversation_id=conversation_id, user_id=user_id):
            file.write(f"{dumps(sent(turn))}\n")
            count += 1
    return count


# -- storing -------------------------------------------------------------------------------------


def _read(reader: Reader, source: str, given: Any, rows: list[Row], report: TransferReport) -> None:
    try:
        given = loads(given) if isinstance(given, bytes) else given
        if not isinstance(given, Mapping):
            raise ValueError(f"a row is a map, and not {given!r:.80}")
        parts = list(reader.expanded(cast(Mapping[str, Any], given)))
    except ValueError as error:
        report.found += 1
        report.broken.append(Broken(source, str(error)))
        return
    for part in parts:
        report.found += 1
        try:
            rows.append(reader.read(source, part))
            report.untimed += "created_at" not in rows[-1].fields
        except ValueError as error:
            report.broken.append(Broken(source, str(error)))


def _store(
    buffer: ChatBuffer,
    rows: list[Row],
    report: TransferReport,
    dry_run: bool,
    progress: Progress | None,
) -> TransferReport:
    turns = iter(turns_of(rows, buffer.now(), buffer.count_tokens, report.broken))
    places: dict[str, int] = {}
    while batch := list(islice(turns, BATCH)):
        _store_batch(buffer, batch, places, dry_run, report)
        if progress is not None:
            progress(report)
    return report


class _DryRun(Exception):
    """Rolls a transaction back whose outcome is known."""


def _store_batch(
    buffer: ChatBuffer,
    batch: list[tuple[str, Document]],
    places: dict[str, int],
    dry_run: bool,
    report: TransferReport,
) -> None:
    stored: list[Document] = []
    with suppress(_DryRun), buffer.db.transaction() as tx:
        buffer.records.lock(tx, *{turn["conversation_id"] for _, turn in batch})
        for source, turn in batch:
            try:
                if _import(buffer, tx, turn, places):
                    stored.append(turn)
                else:
                    report.same += 1
            except DocumentError as error:
                report.broken.append(Broken(source, error.message))
        if dry_run:
            raise _DryRun
    report.imported += len(stored)
    if not dry_run:
        buffer.positions.next(max((turn["position"] for turn in stored), default=0))
        kept = buffer.db[buffer.name].get_many([turn["id"] for turn in stored])
        report.verified += sum(
            found is not None and sent(found) == sent(turn)
            for found, turn in zip(kept, stored, strict=True)
        )


def _import(buffer: ChatBuffer, tx: Transaction, turn: Document, places: dict[str, int]) -> bool:
    """Whether the turn was stored; it gets its place. Raises DocumentError for one that cannot be
    stored."""
    hot = tx[buffer.name]
    there = hot.get(turn["id"])
    if there is not None:
        if any(there.get(name) != turn[name] for name in SAID):
            raise DuplicateKeyError(f"another turn has the id {turn['id']!r}: give rows other ids")
        return False
    conversation_id = turn["conversation_id"]
    place = turn.get("position")
    if place is None:
        place = microseconds(turn["created_at"])
        place = max(place, places.get(conversation_id, place - 1) + 1)
    while buffer.records.is_taken(tx, buffer.name, conversation_id, place):
        place += 1
    turn["position"] = places[conversation_id] = place
    hot.put({**turn, "retry_at": AT_ONCE, "attempts": 0})
    return True
