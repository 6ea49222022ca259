"""The checkpoint: writes a frozen memtable to LMDB, then recycles the log.

Invariants:
- No commit after the durable Lsn is written to LMDB.
- A memtable is written by the catalog as of its last Lsn: the rows of an index that was dropped
  since get their postings and bits, for a database that loses the drop, and for backups.
- The effects and `applied_lsn` are one LMDB transaction, which is synced before a log segment is
  recycled.
- Keys are sorted, written and freed a few at a time; writers get the interpreter in between, unless
  a checkpoint is due again already.
- All writes to LMDB (checkpoints, index builds, purges) hold one mutex.
- A checkpoint starts before the memtables are full: no writer waits for one that is not due.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import chain
from typing import NoReturn, TypeVar

from amberdb import _failpoints as failpoints
from amberdb._call_lock import NestedCallLock
from amberdb._errors import StorageError, StorageFullError
from amberdb._types import Lsn
from amberdb.engine.commit.committer import Committer, ignore
from amberdb.engine.commit.document_flush import flush_documents
from amberdb.engine.commit.retention import LogRetention
from amberdb.engine.jobs import Turns
from amberdb.engine.options import Options
from amberdb.engine.schema.catalog import Catalog
from amberdb.engine.schema.keyspace import APPLIED, LAST_TIME, LOG_OFFSET
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.storage.memtable import Memtable
from amberdb.engine.storage.store_writer import StoreWriter

logger = logging.getLogger("amberdb.engine")

T = TypeVar("T")
_CHUNK = 500
"""Versions that are freed at once."""


class Checkpointer:
    """Writes memtables to LMDB, one at a time, and recycles the log that is no longer needed."""

    def __init__(self, committer: Committer, retention: LogRetention, options: Options) -> None:
        self.mutex = NestedCallLock()
        self.start_bytes = min(options.checkpoint_bytes, options.memtable_bytes_max // 2)
        """Estimated memory of the memtable at which a checkpoint starts."""
        self.count = 0
        self.last_ms = self.max_ms = self.total_ms = 0.0
        self.applied: Lsn = committer.store.applied_lsn
        self.enlarge: Callable[[StorageFullError], None] = _cannot
        """Continues in a data file with a larger map, or raises the error."""
        self.on_done: Callable[[], None] = ignore
        """Called after each checkpoint."""
        self._committer = committer
        self._retention = retention
        self._turns = Turns()
        self._unmerged = dict.fromkeys(committer.state.catalog.row_indexes)
        """The keyspaces of search indexes that got rows since their segments were last merged, or
        that no merge has looked at yet."""

    def run(self) -> None:
        """Writes every commit so far to LMDB.

        Raises StorageError (DiskFullError among them). No commit is lost then, and it can be run
        again.
        """
        with self.mutex:
            if self._committer.state.frozen is not None:  # an earlier run failed
                self._apply()
            if self._committer.freeze() is not None:
                self._apply()
            self._merge()
            self._committer.measure()

    def with_room(self, job: Callable[[], T]) -> T:
        """Does a job that writes to LMDB; when the map is full, once more with a larger one."""
        try:
            return job()
        except StorageFullError as full:
            with self.mutex:
                self.enlarge(full)
            return job()

    def relieve(self) -> None:
        """Runs a checkpoint if the memtable is large enough for one. Called by long work, which
        may be in the thread that runs checkpoints. Raises StorageError."""
        if self._committer.memtable_bytes >= self.start_bytes:
            self.run()

    def _apply(self) -> None:
        committer = self._committer
        memtable = committer.state.frozen
        assert memtable is not None
        assert memtable.catalog is not None
        start = time.perf_counter()
        last = Lsn(memtable.last_lsn)
        try:
            if failpoints.on:
                failpoints.reach("checkpoint.frozen")
            committer.log.wait(last)
            if failpoints.on:
                failpoints.reach("checkpoint.waited")
            committer.make_visible(last)
            if committer.store.applied_lsn < last:  # else an interrupted call has written it
                self.with_room(partial(self._write, memtable))
        except StorageError as error:
            committer.checkpoint_failed(error)
            raise
        if failpoints.on:
            failpoints.reach("checkpoint.committed")
        committer.checkpoint_applied(committer.state.built, applied=True)
        self.note_rows(memtable.rows)
        self.applied = last
        self.count += 1
        self.last_ms = (time.perf_counter() - start) * 1000
        self.max_ms = max(self.max_ms, self.last_ms)
        self.total_ms += self.last_ms
        committer.minutes.checkpointed(self.last_ms, committer.store.file_bytes)
        if failpoints.on:
            failpoints.reach("checkpoint.before-release")
        self.release_log()
        self.on_done()
        keys, versions = list(memtable.entries), list(memtable.entries.values())
        del memtable
        while keys:  # freed at once, they would hold the interpreter for 18 ms
            del keys[-_CHUNK:], versions[-_CHUNK:]
            self._offer()

    def _offer(self) -> None:
        """Lets writers run between steps, as long as the checkpoint keeps up with them."""
        if self._committer.state.active.size_bytes < self.start_bytes:
            self._turns.offer()

    def _write(self, memtable: Memtable) -> None:
        assert memtable.catalog is not None, "it is frozen"
        with self._committer.store.write() as store:
            if failpoints.on:
                failpoints.reach("checkpoint.in-transaction")
            catalog = memtable.catalog
            apply_memtable(store, memtable, catalog, catalog.row_indexes, self._offer)
            if failpoints.on:
                failpoints.reach("checkpoint.before-commit")

    def _merge(self) -> None:
        """Merges segments of the text indexes that got rows, each in one LMDB transaction. A
        failure is only logged: the next checkpoint tries again, and only speed and size depend on
        it."""
        committer = self._committer
        row_indexes = committer.state.catalog.row_indexes
        for prefix in [*self._unmerged]:
            index = row_indexes.get(prefix)
            if index is None:  # dropped meanwhile
                self._unmerged.pop(prefix, None)
                continue
            try:
                while self.with_room(partial(self._merge_one, index)):
                    committer.checkpoint_applied(committer.state.built)
                    if failpoints.on:
                        failpoints.reach("merge.committed")
                self._unmerged.pop(prefix, None)
            except Exception as error:
                logger.warning(
                    "%s: a merge failed and will be tried again: %s", index.spec.name, error
                )

    def note_rows(self, keyspaces: Iterable[bytes]) -> None:
        """Lets the next checkpoint look for segments to merge. The caller holds the mutex."""
        self._unmerged.update(dict.fromkeys(keyspaces))

    def _merge_one(self, index: RowIndex) -> bool:
        """One merge; False when none is due."""
        from amberdb.engine.search.flush import merge_due  # imports numpy

        return merge_due(self._committer.store, index)

    def release_log(self, *, keep_unread: bool = True) -> None:
        """Recycles log that is applied and not held; without `keep_unread` held log too."""
        below = self._retention.recyclable(self.applied) if keep_unread else self.applied
        self._committer.log.recycle(below)


def _cannot(full: StorageFullError) -> NoReturn:
    raise full


def apply_memtable(
    store: StoreWriter,
    memtable: Memtable,
    catalog: Catalog,
    row_indexes: Mapping[bytes, RowIndex],
    offer: Callable[[], None] = ignore,
) -> None:
    """Writes all keys of a frozen memtable, and its last Lsn and time, by the catalog as of that.
    Search indexes that are not among `row_indexes` get their entries alone. `offer` is called
    often, and may let other threads run."""
    schemas = catalog.by_keyspace()
    for keyspace, parts in memtable.sorted_keyspaces(offer):
        index, schema = row_indexes.get(keyspace), schemas.get(keyspace)
        if index is not None:
            from amberdb.engine.search.flush import flush_rows  # imports numpy

            flush_rows(store, memtable, list(chain.from_iterable(parts)), index)
        elif schema is not None and schema.vector_prefix:
            flush_documents(store, memtable.entries, parts, schema, offer)
        else:
            for keys in parts:
                _apply_keys(store, memtable, keys)
    store.put(APPLIED, memtable.last_lsn.to_bytes(8))
    store.put(LAST_TIME, memtable.last_us.to_bytes(8))
    if memtable.log_offset is not None:
        store.put(LOG_OFFSET, memtable.log_offset.to_bytes(8))


def _apply_keys(store: StoreWriter, memtable: Memtable, keys: list[bytes]) -> None:
    entries = memtable.entries
    pairs = [(key, value) for key in keys if (value := entries[key][1]) is not None]
    if len(pairs) < len(keys):
        for key in keys:
            if entries[key][1] is None:
                store.delete(key)
    store.put_sorted(pairs)
