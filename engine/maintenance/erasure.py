"""Erasure: documents that are to be gone from every file, and the receipt for it.

    documents deleted and the erasure marked, in one commit -> what compact() does, and the log that
    subscribers have yet to read goes too -> the mark becomes the receipt

    META e | the commit's Lsn, u64 -> a sealed map of the fields of the receipt

Invariants:
- A mark without a time of completion is an erasure that was interrupted, by a crash or a full disk:
  the next open, compact() or erase() goes on with it.
- No backup runs while one is completed: those that hold what was erased are all known by then.
- A receipt holds nothing of a document, nor of the filter.
"""

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, final

from amberdb import _failpoints as failpoints
from amberdb._errors import QueryError
from amberdb._time import microseconds, time_of
from amberdb._types import Lsn, Where
from amberdb.engine.backup.backup import Backups
from amberdb.engine.backup.history import KnownBackup, from_map, known_backups, to_map
from amberdb.engine.commit.change_feed import Feed
from amberdb.engine.commit.committer import Committer, OneCommit
from amberdb.engine.jobs import Stop, check_stop
from amberdb.engine.maintenance.compaction import Compactor, CompactProgress, CompactReport
from amberdb.engine.maintenance.index_build import Indexer
from amberdb.engine.query.query import Query
from amberdb.engine.schema.catalog import open_entry, sealed_entry
from amberdb.engine.schema.keyspace import ERASURES, end_of
from amberdb.engine.schema.schema import Schema
from amberdb.engine.storage.view import View, schema_of

logger = logging.getLogger("amberdb.engine")

RECEIPTS_MAX: Final = 1000
"""Past it the oldest receipts are forgotten."""
REASON_BYTES_MAX: Final = 1000
_BEFORE_ALL_TIME: Final = -(1 << 62)


@final
@dataclass(frozen=True, slots=True)
class Erasure:
    """The receipt of db.erase(): what was done, and nothing of what was erased."""

    id: str
    collection: str
    reason: str
    documents: int
    """How many were deleted, expired ones that were still on the disk among them."""
    lsn: Lsn
    """The commit that deleted them."""
    time: datetime
    """Of that commit."""
    completed: datetime | None = None
    """When nothing of them was in any file of the directory any more; None: not yet."""
    backups: tuple[KnownBackup, ...] = ()
    """Taken before, and out of reach: they may hold what was erased."""
    subscribers: tuple[str, ...] = ()
    """Those for whom the log no longer reaches back to their position."""


class Erasures:
    """Owned by the Database."""

    def __init__(
        self,
        committer: Committer,
        compactor: Compactor,
        indexer: Indexer,
        backups: Backups,
        feed: Feed,
        is_pruned: Callable[[str], bool],
    ) -> None:
        self._committer = committer
        self._compactor = compactor
        self._indexer = indexer
        self._backups = backups
        self._feed = feed
        self._is_pruned = is_pruned
        """Whether a backup was removed by the database itself."""
        self._mutex = threading.RLock()

    def receipts(self) -> list[Erasure]:
        """The oldest first. Raises CorruptionError."""
        with self._committer.view() as view:
            return receipts_of(view)

    def run(
        self, collection: str, where: Where, reason: str, progress: CompactProgress | None
    ) -> Erasure:
        """See Database.erase()."""
        if type(reason) is not str or not 0 < len(reason.encode()) <= REASON_BYTES_MAX:
            raise QueryError(f"reason={reason!r}: say why, in up to {REASON_BYTES_MAX} bytes")
        with self._mutex:
            erasure = self._delete(collection, where, reason)
            self.compact(progress)
        return next(found for found in self.receipts() if found.id == erasure.id)

    def compact(self, progress: CompactProgress | None = None) -> CompactReport:
        """See Database.compact(); and completes what was erased before."""
        with self._mutex:
            pending = self.pending()
            if not pending:
                return self._compactor.run(progress)
            with self._backups.mutex:
                self._indexer.run()  # its place in a build is the key of a document
                report = self._compactor.run(progress, keep_unread=False)
                if failpoints.on:
                    failpoints.reach("erase.compacted")
                self._complete(pending)
        return report

    def resume(self, stop: Stop) -> None:
        """In the background, after an open: completes what was interrupted."""
        with self._mutex:
            if self.pending():
                self.compact(lambda done, of: check_stop(stop))

    def pending(self) -> list[Erasure]:
        """Those that are not complete."""
        return [found for found in self.receipts() if found.completed is None]

    def _delete(self, collection: str, where: Where, reason: str) -> Erasure:
        committer = self._committer
        with OneCommit(committer, "always") as writer:
            schema = schema_of(writer.view, collection)
            ids = _ids(writer.view, schema, where)
            for id in ids:
                writer.delete(schema, id)
            erasure = Erasure(
                os.urandom(8).hex(), collection, reason, len(ids), Lsn(writer.lsn),
                time_of(writer.now_us),
            )  # fmt: skip
            for old in receipts_of(writer.view)[: -RECEIPTS_MAX + 1]:
                if old.completed is not None:
                    writer.set(_key(old), None)
            writer.set(_key(erasure), _entry(erasure))
            if failpoints.on:
                failpoints.reach("erase.before-commit")
        if failpoints.on:
            failpoints.reach("erase.deleted")
        return erasure

    def _complete(self, pending: list[Erasure]) -> None:
        with OneCommit(self._committer, "always") as writer:
            known = tuple(b for b in known_backups(writer.view) if not self._is_pruned(b.path))
            behind = tuple(self._feed.truncated_subscribers())
            for erasure in pending:
                done = replace(
                    erasure,
                    completed=time_of(writer.now_us),
                    backups=known,
                    subscribers=behind,
                )
                writer.set(_key(done), _entry(done))
        if failpoints.on:
            failpoints.reach("erase.completed")


def receipts_of(view: View) -> list[Erasure]:
    """The oldest first. Raises CorruptionError."""
    found = view.scan(ERASURES, end_of(ERASURES))
    return [_receipt(open_entry(key, value)) for key, value in found]


def _key(erasure: Erasure) -> bytes:
    return ERASURES + erasure.lsn.to_bytes(8)


def _entry(erasure: Erasure) -> bytes:
    done = erasure.completed
    found = {
        "id": erasure.id,
        "collection": erasure.collection,
        "reason": erasure.reason,
        "documents": erasure.documents,
        "lsn": erasure.lsn,
        "time_us": microseconds(erasure.time),
        "completed_us": None if done is None else microseconds(done),
        "backups": [to_map(backup) for backup in erasure.backups],
        "subscribers": list(erasure.subscribers),
    }
    return sealed_entry(_key(erasure), found)


def _receipt(found: dict[str, Any]) -> Erasure:
    done_us = found["completed_us"]
    return Erasure(
        id=found["id"],
        collection=found["collection"],
        reason=found["reason"],
        documents=found["documents"],
        lsn=Lsn(found["lsn"]),
        time=time_of(found["time_us"]),
        completed=None if done_us is None else time_of(done_us),
        backups=tuple(map(from_map, found["backups"])),
        subscribers=tuple(found["subscribers"]),
    )


def _ids(view: View, schema: Schema, where: Where) -> list[str]:
    """Of all documents that match, also of those that have expired and are still there."""
    now_us = view.now_us
    view.now_us = _BEFORE_ALL_TIME
    try:
        return Query.of(schema, where).ids(view)
    finally:
        view.now_us = now_us
