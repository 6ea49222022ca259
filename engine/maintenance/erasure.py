"""Erasure: removes documents from every file of the database, and keeps a receipt.

    the receipt stored as pending, and a batch of documents deleted, in one commit
        -> more batches, one commit each, until no document matches
        -> compact(), which also removes the log that subscribers have yet to read
        -> the receipt is completed

    META e | the commit's Lsn, u64  ->  the map of _StoredErasure, with a checksum

Invariants:
- A receipt without a time of completion is an erasure that was interrupted by a crash or a full
  disk: the next open, compact() or erase() completes it, from the batch at which it was.
- No backup runs while an erasure is completed: its receipt names all backups that may hold the
  documents.
- A receipt contains nothing of the documents. It has the filters while there is more to delete; the
  last batch removes them, before the files are rewritten.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Any, Final, TypeAlias, cast, final

import msgspec

from amberdb import _failpoints as failpoints
from amberdb._call_lock import NestedCallLock
from amberdb._errors import QueryError, TransactionTooLargeError
from amberdb._plain import plain_text
from amberdb._public import public
from amberdb._time import microseconds, time_of
from amberdb._types import Lsn, Where
from amberdb._worker import long_work
from amberdb.engine.backup.backup import Backups
from amberdb.engine.backup.history import KnownBackup, StoredBackup, known_backups
from amberdb.engine.commit.change_feed import Feed
from amberdb.engine.commit.committer import Committer, OneCommit
from amberdb.engine.commit.write_batch import WriteBatch
from amberdb.engine.jobs import Stop, check_stop
from amberdb.engine.maintenance.compaction import Compactor, CompactProgress, CompactReport
from amberdb.engine.maintenance.sweep import Sweep
from amberdb.engine.schema.catalog import entry_data, sealed_entry
from amberdb.engine.schema.codec import map_decoder
from amberdb.engine.schema.keyspace import ERASURES, end_of
from amberdb.engine.schema.schema import Schema
from amberdb.engine.storage.view import View, schema_of

logger = logging.getLogger("amberdb.engine")

RECEIPTS_MAX: Final = 1000
"""Past this number the oldest completed receipts are removed."""
REASON_BYTES_MAX: Final = 1000
BATCH: Final = 10_000
"""The most documents that one commit deletes."""


Filters: TypeAlias = Mapping[str, Sequence[Where]]
"""By collection the filters of what is to be deleted: all that any of them matches."""
_Sweeps: TypeAlias = dict[tuple[Lsn, str], Sweep]
"""By erasure and collection."""


@public
@final
@dataclass(frozen=True, slots=True)
class Erasure:
    """The receipt of db.erase(), without any content of the erased documents."""

    id: str
    collections: Mapping[str, int]
    """By collection the number of documents deleted, including expired ones that were still on the
    disk."""
    reason: str
    lsn: Lsn
    """The commit that deleted them, or the first batch of them."""
    time: datetime
    """The time of that commit."""
    completed: datetime | None = None
    """When no file of the directory contained the documents any more; None: pending."""
    backups: tuple[KnownBackup, ...] = ()
    """Backups taken before, outside the database's control: they may contain the documents."""
    subscribers: tuple[str, ...] = ()
    """Subscribers whose unread part of the log was removed."""

    @property
    def collection(self) -> str:
        """The names of the collections, with commas between them."""
        return ", ".join(self.collections)

    @property
    def documents(self) -> int:
        """The number of documents deleted, of all collections."""
        return sum(self.collections.values())


class _StoredErasure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
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
    counts: dict[str, int] = {}
    """The documents by collection, where those are several."""
    left: dict[str, Any] = {}
    """By collection the filter of what is still to be deleted."""


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
        self._sweeps: _Sweeps = {}
        """Those that have begun; one that is missing begins anew."""

    def receipts(self) -> list[Erasure]:
        """All receipts, the oldest first. Raises CorruptionError."""
        with self._committer.view() as view:
            return receipts_of(view)

    def run(
        self,
        wheres: Mapping[str, Where | Sequence[Where]],
        reason: str,
        progress: CompactProgress | None,
    ) -> Erasure:
        """See Database.erase()."""
        text = plain_text(reason)
        if text is None or not 0 < len(text.encode("utf-8", "replace")) <= REASON_BYTES_MAX:
            raise QueryError(f"reason={reason!r}: give a text of 1 to {REASON_BYTES_MAX} bytes")
        if not wheres:
            raise QueryError("erase() needs a collection and a filter: {} matches all documents")
        with long_work(), self._mutex:
            id = self._begin({name: _listed(where) for name, where in wheres.items()}, text)
            self.compact(progress)
        return next(receipt for receipt in self.receipts() if receipt.id == id)

    def compact(self, progress: CompactProgress | None = None) -> CompactReport:
        """See Database.compact(). Also completes pending erasures."""
        with long_work(), self._mutex:
            pending = self.pending()
            if not pending:
                return self._compactor.run(progress)
            with self._backups.mutex:
                self._delete_left()
                report = self._compactor.run(progress, keep_unread=False)
                if failpoints.on:
                    failpoints.reach("erase.compacted")
                self._complete()
        return report

    def upgrade(self, progress: CompactProgress | None = None) -> CompactReport | None:
        """See Database.upgrade()."""
        with long_work(), self._mutex:
            return self._compactor.upgrade(progress)

    def resume(self, stop: Stop) -> None:
        """The background job after an open: completes erasures that were interrupted."""
        with self._mutex:
            if self.pending():
                self.compact(lambda done, of: check_stop(stop))

    def pending(self) -> list[Erasure]:
        """Receipts of erasures that are not completed."""
        return [receipt for receipt in self.receipts() if receipt.completed is None]

    def _begin(self, wheres: Filters, reason: str) -> str:
        """Commits the pending receipt with the first batch of deletions; the id."""
        id = os.urandom(8).hex()

        def first(writer: WriteBatch, size: int, sweeps: _Sweeps) -> None:
            for old in receipts_of(writer.view)[: -RECEIPTS_MAX + 1]:
                if old.completed is not None:
                    writer.set(_key(old), None)
            for name in wheres:
                schema_of(writer.view, name)  # raises
            none = dict.fromkeys(wheres, 0)
            erasure = Erasure(id, none, reason, Lsn(writer.lsn), time_of(writer.now_us))
            _delete(writer, size, sweeps, erasure=erasure, wheres=wheres)

        self._commit_batch(first)
        return id

    def _delete_left(self) -> None:
        """Deletes, batch by batch, what pending erasures have left."""
        while left := self._left():
            erasure, wheres = left
            self._commit_batch(partial(_delete, erasure=erasure, wheres=wheres))

    def _left(self) -> tuple[Erasure, Filters] | None:
        """The first erasure that has something left to delete, with its filters."""
        with self._committer.view() as view:
            found = ((_receipt(stored), stored.left) for stored in _stored(view) if stored.left)
            return next(found, None)

    def _commit_batch(self, delete: Callable[[WriteBatch, int, _Sweeps], None]) -> None:
        """One commit of as many deletions as fit."""
        size = BATCH
        # Those of a commit that failed are dropped: they have passed documents that are there.
        sweeps, self._sweeps = self._sweeps, {}
        while True:
            try:
                with OneCommit(self._committer, "always") as writer:
                    delete(writer, size, sweeps)
                    if failpoints.on:
                        failpoints.reach("erase.before-commit")
                break
            except TransactionTooLargeError:
                if size == 1:
                    raise
                size //= 2
                sweeps.clear()
        self._sweeps = sweeps
        if failpoints.on:
            failpoints.reach("erase.deleted")

    def _complete(self) -> None:
        with OneCommit(self._committer, "always") as writer:
            known = tuple(b for b in known_backups(writer.view) if not self._is_pruned(b.path))
            truncated = tuple(self._feed.truncated_subscribers())
            for erasure in self.pending():
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
    return list(map(_receipt, _stored(view)))


def _stored(view: View) -> Iterator[_StoredErasure]:
    for key, value in view.scan(ERASURES, end_of(ERASURES)):
        yield _decode(entry_data(key, value))


def _delete(
    writer: WriteBatch, size: int, sweeps: _Sweeps, *, erasure: Erasure, wheres: Filters
) -> None:
    """Adds up to `size` deletions to a commit, and the receipt after them."""
    counts, left = {**erasure.collections}, {**wheres}
    for name, filters in wheres.items():
        schema = _at(writer.view, name, erasure.lsn)
        if schema is not None:  # it may have been dropped since
            sweep = sweeps.setdefault((erasure.lsn, name), Sweep(filters))
            with writer.view.including_expired() as view:
                count = writer.remove(schema, sweep.batch(view, schema, size))
            counts[name] += count
            size -= count
            if not sweep.has_ended:
                break
            del sweeps[erasure.lsn, name]
        del left[name]
    erasure = replace(erasure, collections=counts)
    writer.set(_key(erasure), _entry(erasure, left))


def _listed(where: Where | Sequence[Where]) -> Sequence[Where]:
    if isinstance(where, (list, tuple)):
        return cast(Sequence[Where], where)
    return [cast(Where, where)]  # what is no filter is refused where it is parsed


def _key(erasure: Erasure) -> bytes:
    return ERASURES + erasure.lsn.to_bytes(8)


def _entry(erasure: Erasure, left: Filters = MappingProxyType({})) -> bytes:
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
        counts={**erasure.collections} if len(erasure.collections) > 1 else {},
        left={**left},
    )
    try:
        return sealed_entry(_key(erasure), stored)
    except (TypeError, ValueError, OverflowError) as error:
        raise QueryError(
            f"the filter is stored until all that match are deleted, and this one cannot be: "
            f"{error}"
        ) from error


def _receipt(stored: _StoredErasure) -> Erasure:
    completed_us = stored.completed_us
    return Erasure(
        id=stored.id,
        collections=stored.counts or {stored.collection: stored.documents},
        reason=stored.reason,
        lsn=Lsn(stored.lsn),
        time=time_of(stored.time_us),
        completed=None if completed_us is None else time_of(completed_us),
        backups=tuple(backup.known() for backup in stored.backups),
        subscribers=tuple(stored.subscribers),
    )


def _at(view: View, name: str, lsn: Lsn) -> Schema | None:
    """The collection that had the name at this Lsn."""
    schemas = view.catalog.schemas.values()
    return next((each for each in schemas if each.definition.name_at(lsn) == name), None)
