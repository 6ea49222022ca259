"""Erasure: removes documents from every file of the database, and keeps a receipt.

    documents deleted and the receipt stored as pending, in one commit -> compact(), which also
    removes the log that subscribers have yet to read -> the receipt is completed

    META e | the commit's Lsn, u64  ->  the map of _StoredErasure, with a checksum

Invariants:
- A receipt without a time of completion is an erasure that was interrupted by a crash or a full
  disk: the next open, compact() or erase() completes it.
- No backup runs while an erasure is completed: its receipt names all backups that may hold the
  documents.
- A receipt contains nothing of the documents, nor of the filter.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, final

import msgspec

from amberdb import _failpoints as failpoints
from amberdb._call_lock import NestedCallLock
from amberdb._errors import QueryError
from amberdb._plain import plain_text
from amberdb._time import microseconds, time_of
from amberdb._types import Lsn, Where
from amberdb._worker import long_work
from amberdb.engine.backup.backup import Backups
from amberdb.engine.backup.history import KnownBackup, StoredBackup, known_backups
from amberdb.engine.commit.change_feed import Feed
from amberdb.engine.commit.committer import Committer, OneCommit
from amberdb.engine.jobs import Stop, check_stop
from amberdb.engine.maintenance.compaction import Compactor, CompactProgress, CompactReport
from amberdb.engine.query.query import Query
from amberdb.engine.schema.catalog import entry_data, sealed_entry
from amberdb.engine.schema.codec import map_decoder
from amberdb.engine.schema.keyspace import ERASURES, end_of
from amberdb.engine.schema.schema import Schema
from amberdb.engine.storage.view import View, schema_of

logger = logging.getLogger("amberdb.engine")

RECEIPTS_MAX: Final = 1000
"""Past this number the oldest completed receipts are removed."""
REASON_BYTES_MAX: Final = 1000
_BEFORE_ALL_TIME: Final = -(1 << 62)


@final
@dataclass(frozen=True, slots=True)
class Erasure:
    """The receipt of db.erase(), without any content of the erased documents."""

    id: str
    collection: str
    reason: str
    documents: int
    """The number of documents deleted, including expired ones that were still on the disk."""
    lsn: Lsn
    """The commit that deleted them."""
    time: datetime
    """The time of that commit."""
    completed: datetime | None = None
    """When no file of the directory contained the documents any more; None: pending."""
    backups: tuple[KnownBackup, ...] = ()
    """Backups taken before, outside the database's control: they may contain the documents."""
    subscribers: tuple[str, ...] = ()
    """Subscribers whose unread part of the log was removed."""


class _StoredErasure(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt as it is stored."""

    id: str
    collection: str
    reason: str
    documents: int
    lsn: int
    time_us: int
    completed_us: int | None
    backups: list[StoredBackup]
    subscribers: list[str]


_decode = map_decoder(_StoredErasure)


class Erasures:
    """Erases documents, and completes erasures that were interrupted."""

    def __init__(
        self,
        committer: Committer,
        compactor: Compactor,
        backups: Backups,
        feed: Feed,
        is_pruned: Callable[[str], bool],
    ) -> None:
        self._committer = committer
        self._compactor = compactor
        self._backups = backups
        self._feed = feed
        self._is_pruned = is_pruned
        """Whether the database itself has removed this backup."""
        self._mutex = NestedCallLock()

    def receipts(self) -> list[Erasure]:
        """All receipts, the oldest first. Raises CorruptionError."""
        with self._committer.view() as view:
            return receipts_of(view)

    def run(
        self, collection: str, where: Where, reason: str, progress: CompactProgress | None
    ) -> Erasure:
        """See Database.erase()."""
        text = plain_text(reason)
        if text is None or not 0 < len(text.encode("utf-8", "replace")) <= REASON_BYTES_MAX:
            raise QueryError(f"reason={reason!r}: give a text of 1 to {REASON_BYTES_MAX} bytes")
        with long_work(), self._mutex:
            erasure = self._delete(collection, where, text)
            self.compact(progress)
        return next(receipt for receipt in self.receipts() if receipt.id == erasure.id)

    def compact(self, progress: CompactProgress | None = None) -> CompactReport:
        """See Database.compact(). Also completes pending erasures."""
        with long_work(), self._mutex:
            pending = self.pending()
            if not pending:
                return self._compactor.run(progress)
            with self._backups.mutex:
                report = self._compactor.run(progress, keep_unread=False)
                if failpoints.on:
                    failpoints.reach("erase.compacted")
                self._complete(pending)
        return report

    def resume(self, stop: Stop) -> None:
        """The background job after an open: completes erasures that were interrupted."""
        with self._mutex:
            if self.pending():
                self.compact(lambda done, of: check_stop(stop))

    def pending(self) -> list[Erasure]:
        """Receipts of erasures that are not completed."""
        return [receipt for receipt in self.receipts() if receipt.completed is None]

    def _delete(self, collection: str, where: Where, reason: str) -> Erasure:
        committer = self._committer
        with OneCommit(committer, "always") as writer:
            schema = schema_of(writer.view, collection)
            ids = _ids(writer.view, schema, where)
            for id in ids:
                writer.delete(schema, id)
            erasure = Erasure(
                os.urandom(8).hex(), schema.name, reason, len(ids), Lsn(writer.lsn),
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
            truncated = tuple(self._feed.truncated_subscribers())
            for erasure in pending:
                done = replace(
                    erasure,
                    completed=time_of(writer.now_us),
                    backups=known,
                    subscribers=truncated,
                )
                writer.set(_key(done), _entry(done))
        if failpoints.on:
            failpoints.reach("erase.completed")


def receipts_of(view: View) -> list[Erasure]:
    """All receipts, the oldest first. Raises CorruptionError."""
    entries = view.scan(ERASURES, end_of(ERASURES))
    return [_receipt(_decode(entry_data(key, value))) for key, value in entries]


def _key(erasure: Erasure) -> bytes:
    return ERASURES + erasure.lsn.to_bytes(8)


def _entry(erasure: Erasure) -> bytes:
    stored = _StoredErasure(
        id=erasure.id,
        collection=erasure.collection,
        reason=erasure.reason,
        documents=erasure.documents,
        lsn=erasure.lsn,
        time_us=microseconds(erasure.time),
        completed_us=None if erasure.completed is None else microseconds(erasure.completed),
        backups=list(map(StoredBackup.of, erasure.backups)),
        subscribers=list(erasure.subscribers),
    )
    return sealed_entry(_key(erasure), stored)


def _receipt(stored: _StoredErasure) -> Erasure:
    completed_us = stored.completed_us
    return Erasure(
        id=stored.id,
        collection=stored.collection,
        reason=stored.reason,
        documents=stored.documents,
        lsn=Lsn(stored.lsn),
        time=time_of(stored.time_us),
        completed=None if completed_us is None else time_of(completed_us),
        backups=tuple(backup.known() for backup in stored.backups),
        subscribers=tuple(stored.subscribers),
    )


def _ids(view: View, schema: Schema, where: Where) -> list[str]:
    """The ids of all documents that match, including expired ones that are still on the disk, and
    with a filter of the id alone those that cannot be upgraded to a newer version."""
    now_us = view.now_us
    view.now_us = _BEFORE_ALL_TIME
    try:
        query = Query.of(schema, where)
        if schema.migration is not None and query.filter.is_by_id:
            query = Query.of(schema.redefined(replace(schema.definition, steps=())), where)
        return query.ids(view)
    finally:
        view.now_us = now_us
