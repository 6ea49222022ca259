"""Import of memories and their log from Z-Memory's tables and from mem0.

    sources.py: documents -> stored in batches, under their ids and with their times

Invariants:
- Nothing is skipped silently. The report counts each memory and log entry as imported, unchanged,
  older than the stored one, expired, or broken with the reason. One that cannot be stored costs no
  other.
- Imported twice changes nothing; an interrupted import can be run again. A memory that takes the
  place of an older one is logged with the state before.
- A memory without an expiry_date gets none. Log entries are in the order of their times, and those
  of one time in the order of the source.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from re import compile as pattern
from typing import Any, Final, NamedTuple

from amberdb import Document, DocumentError, Transaction
from amberdb.memory.changes import Owner, owner_of
from amberdb.memory.documents import check_layer, state_of
from amberdb.memory.layers import micros
from amberdb.memory.memory import Memory
from amberdb.memory.sources import (
    Found,
    Tables,
    mem0_items,
    of_mem0,
    of_zmemory,
    zmemory_tables,
)
from amberdb.memory.types import Layer

BATCH: Final = 200
BATCH_CHARS: Final = 8 << 20
"""Text of the documents that are stored in one commit, about."""
_MEMORY_ID: Final = pattern(r"(user|agent)_(.+)_\d+(?:\.\d+)?")
"""An id that Z-Memory makes: of the type, the entity and the time."""


class Broken(NamedTuple):
    """A memory or a log entry that could not be read, or not be stored."""

    source: str
    reason: str


class Expired(NamedTuple):
    """A memory that expired before the import; it is not stored."""

    source: str
    expiry_date: datetime


@dataclass(slots=True)
class ImportReport:
    """What an import did with each memory and log entry of the source."""

    found: int = 0
    imported: int = 0
    same: int = 0
    """Those that were stored already."""
    newer: list[str] = field(default_factory=list[str])
    """Memories whose stored state is newer than that of the source; they were not changed."""
    expired: list[Expired] = field(default_factory=list[Expired])
    broken: list[Broken] = field(default_factory=list[Broken])
    unowned: list[str] = field(default_factory=list[str])
    """Log entries of an unknown memory: they are stored, but forget() of an entity does not find
    them."""


Progress = Callable[[ImportReport], None]


def import_zmemory(
    memory: Memory,
    source: str | os.PathLike[str] | sqlite3.Connection | Tables,
    *,
    zone: tzinfo = UTC,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Imports the tables profile_memories, event_memories and memory_logs: of a SQLite file or
    connection, or as a map of their names to rows, which are maps of columns. Times without a zone
    are read as times in `zone`. With `dry_run` nothing is stored; the report shows what would be.
    Raises QueryError, sqlite3.Error."""
    run = _Import(memory, dry_run=dry_run)
    with zmemory_tables(source) as tables:
        if "memory_logs" not in tables:
            run.reason = "imported from Z-Memory"
        return run(of_zmemory(tables, zone, memory.changes.documents.categories), progress)


def import_mem0(
    memory: Memory,
    source: str | os.PathLike[str] | Sequence[Any] | Mapping[str, Any],
    *,
    memory_layer: Layer = "profile",
    entity_id: str | None = None,
    zone: tzinfo = UTC,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Imports the memories that mem0's get_all() gives: a JSON file, a list, or {"results": [...]}.
    They become memories of their user_id, or else agent_id; `entity_id` is the user of those that
    name nobody. Other fields of theirs are in the metadata. `zone` and `dry_run` are those of
    import_zmemory(). Raises QueryError, OSError."""
    check_layer(memory_layer)
    run = _Import(memory, dry_run=dry_run, reason="imported from mem0")
    categories = memory.changes.documents.categories
    items = mem0_items(source)
    return run(of_mem0(items, memory_layer, entity_id, zone, categories), progress)


class _DryRun(Exception):
    """Rolls a transaction back whose outcome is known."""


class _Import:
    """One run of an import."""

    def __init__(self, memory: Memory, *, dry_run: bool, reason: str | None = None) -> None:
        self._db = memory.db
        self._changes = memory.changes
        self._dry_run = dry_run
        self.reason = reason
        """Of the log entry of each memory; None where the source has a log of its own."""
        self._report = ImportReport()
        self._owners: dict[tuple[str, str], Owner] = {}
        """Of the memories that are not stored."""
        self._last = datetime.min.replace(tzinfo=UTC), 0
        """Time and position of the last log entry."""

    def __call__(self, found: Iterable[Found], progress: Progress | None) -> ImportReport:
        batch: list[tuple[Found, Document]] = []
        chars = 0
        for each in found:
            self._report.found += 1
            if isinstance(each.outcome, str):
                self._report.broken.append(Broken(each.source, each.outcome))
                continue
            batch.append((each, each.outcome))
            chars += len(str(each.outcome))
            if len(batch) >= BATCH or chars >= BATCH_CHARS:
                self._store(batch, progress)
                batch, chars = [], 0
        self._store(batch, progress)
        return self._report

    def _store(self, batch: Sequence[tuple[Found, Document]], progress: Progress | None) -> None:
        with suppress(_DryRun), self._db.transaction() as tx:
            for found, document in batch:
                try:
                    if found.kind == "log":
                        self._entry(tx, document)
                    else:
                        self._memory(tx, found.source, found.kind, document)
                except DocumentError as error:
                    self._report.broken.append(Broken(found.source, error.message))
            if self._dry_run:
                raise _DryRun
        if progress is not None:
            progress(self._report)

    def _memory(self, tx: Transaction, source: str, layer: Layer, memory: Document) -> None:
        """Raises DocumentError for one that cannot be stored."""
        report, now = self._report, self._changes.clock()
        expiry = memory["expiry_date"]
        if self._dry_run or expiry is not None:
            self._owners[layer, memory["id"]] = owner_of(memory)
        if expiry is not None and expiry <= now:
            report.expired.append(Expired(source, expiry))
            return
        stored = tx[self._changes.layers[layer]].get(memory["id"])
        for name in ("created_at", "updated_at"):
            if memory[name] is None:
                memory[name] = now if stored is None else stored.get(name)
        if stored is None:
            self._changes.keep(tx, layer, memory, self.reason)
        elif owner_of(stored) != owner_of(memory):
            taken = f"the {layer} layer has a memory {memory['id']!r} of {stored['entity_id']!r}"
            report.broken.append(Broken(source, taken))
            return
        elif state_of(stored) == state_of(memory):
            report.same += 1
            return
        elif _is_newer(stored.get("updated_at"), memory["updated_at"]):
            report.newer.append(memory["id"])
            return
        else:
            self._changes.keep(tx, layer, memory, self.reason)
        report.imported += 1

    def _entry(self, tx: Transaction, entry: Document) -> None:
        """Raises DocumentError for one that cannot be stored."""
        log = tx[self._changes.layers.log]
        (last, position), time = self._last, entry["created_at"]
        if time is None:
            time = self._changes.clock() if position == 0 else last
        position = max(micros(time), position + 1) if time >= last else micros(time)
        self._last = time, position
        if entry["id"] in log:  # as it was imported, or without what was forgotten since
            self._report.same += 1
            return
        owner = self._owner(tx, entry)
        entry |= {"created_at": time, "position": position, "before": None, "after": None}
        if owner is not None:
            entry |= owner.where()
        log.put({**entry, "expiry_date": None})
        if owner is None:
            self._report.unowned.append(entry["id"])
        self._report.imported += 1

    def _owner(self, tx: Transaction, entry: Document) -> Owner | None:
        """Whose memory an entry is about."""
        layer, memory_id = entry["memory_layer"], entry["memory_id"]
        if entry["entity_id"] is not None:
            return owner_of(entry)
        stored = tx[self._changes.layers[layer]].get(memory_id) if memory_id else None
        if stored is not None:
            return owner_of(stored)
        made = _MEMORY_ID.fullmatch(memory_id)
        known = self._owners.get((layer, memory_id))
        if known is None and made is not None:
            known = Owner("agent" if made[1] == "agent" else "user", made[2])
        return known


def _is_newer(mine: Any, theirs: Any) -> bool:
    return mine is not None and (theirs is None or mine > theirs)
