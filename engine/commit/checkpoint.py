"""The checkpoint: moves a frozen memtable into LMDB, then lets the log go.

Invariants:
- Nothing above the durable Lsn reaches LMDB.
- The effects and `applied_lsn` are one LMDB transaction, committed with sync, before any segment
  is recycled.
- It works in chunks, so that writers never wait for the interpreter longer than one chunk takes.
- All LMDB writing (checkpoints, index builds, purges) goes through one mutex.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping

from amberdb import _failpoints as failpoints
from amberdb._errors import StorageError
from amberdb._types import Lsn
from amberdb.engine.commit.committer import Committer
from amberdb.engine.commit.retention import LogRetention
from amberdb.engine.schema.keyspace import APPLIED, LAST_TIME
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.storage.memtable import Memtable
from amberdb.engine.storage.store import StoreWriter
from amberdb.index.ordered.keys import KEYSPACE_BYTES

logger = logging.getLogger("amberdb.engine")

_CHUNK = 500


class Checkpointer:
    """Applies memtables to LMDB, one at a time, and recycles the log below."""

    def __init__(self, committer: Committer, retention: LogRetention) -> None:
        self.mutex = threading.RLock()
        self.count = 0
        self.last_ms = self.max_ms = self.total_ms = 0.0
        self.applied: Lsn = committer.store.applied_lsn
        self.on_done: Callable[[], None] = _ignore
        """Called after each checkpoint."""
        self._committer = committer
        self._retention = retention

    def run(self) -> None:
        """Everything committed before the call is in LMDB when it returns.

        Raises StorageError (DiskFullError among them); then nothing is lost, and it can be run
        again.
        """
        with self.mutex:
            if self._committer.state.frozen is not None:  # an earlier try failed
                self._apply()
            if self._committer.freeze() is not None:
                self._apply()
            self._merge()

    def _apply(self) -> None:
        committer = self._committer
        memtable = committer.state.frozen
        assert memtable is not None
        start = time.perf_counter()
        last = Lsn(memtable.last_lsn)
        try:
            if failpoints.on:
                failpoints.reach("checkpoint.frozen")
            committer.log.wait(last)
            if failpoints.on:
                failpoints.reach("checkpoint.waited")
            committer.make_visible(last)
            with committer.store.write() as store:
                if failpoints.on:
                    failpoints.reach("checkpoint.in-transaction")
                apply_memtable(store, memtable, committer.state.catalog.row_indexes)
                if failpoints.on:
                    failpoints.reach("checkpoint.before-commit")
        except StorageError as error:
            committer.checkpoint_failed(error)
            raise
        if failpoints.on:
            failpoints.reach("checkpoint.committed")
        committer.checkpoint_applied(committer.state.built, applied=True)
        self.applied = last
        self.count += 1
        self.last_ms = (time.perf_counter() - start) * 1000
        self.max_ms = max(self.max_ms, self.last_ms)
        self.total_ms += self.last_ms
        if failpoints.on:
            failpoints.reach("checkpoint.before-release")
        self.release_log()
        self.on_done()

    def _merge(self) -> None:
        """Segments of text indexes, one LMDB transaction each. What fails is tried again later:
        nothing depends on it but speed and size."""
        committer = self._committer
        for index in committer.state.catalog.row_indexes.values():
            from amberdb.engine.search.flush import merge_due

            try:
                while merge_due(committer.store, index):
                    committer.checkpoint_applied(committer.state.built)
                    if failpoints.on:
                        failpoints.reach("merge.committed")
            except StorageError as error:
                logger.warning(
                    "%s: a merge failed and will be tried again: %s", index.spec.name, error
                )

    def release_log(self, *, keep_unread: bool = True) -> None:
        """Recycles log that is applied and not held; without `keep_unread` held log too."""
        below = self._retention.recyclable(self.applied) if keep_unread else self.applied
        self._committer.log.recycle(below)


def apply_memtable(
    store: StoreWriter, memtable: Memtable, row_indexes: Mapping[bytes, RowIndex]
) -> None:
    """Everything that a frozen memtable has, and how far it goes."""
    for keys in memtable.sorted_keyspaces():
        index = row_indexes.get(keys[0][:KEYSPACE_BYTES])
        if index is None:
            _apply_keyspace(store, memtable, keys)
        else:
            from amberdb.engine.search.flush import flush_rows  # brings numpy

            flush_rows(store, memtable, keys, index)
    store.put(APPLIED, memtable.last_lsn.to_bytes(8))
    store.put(LAST_TIME, memtable.last_us.to_bytes(8))


def _apply_keyspace(store: StoreWriter, memtable: Memtable, keys: list[bytes]) -> None:
    entries = memtable.entries
    delete = store.delete
    for start in range(0, len(keys), _CHUNK):
        pairs: list[tuple[bytes, bytes]] = []
        for key in keys[start : start + _CHUNK]:
            value = entries[key][1]
            if value is None:
                delete(key)
            else:
                pairs.append((key, value))
        if pairs:
            store.put_sorted(pairs)


def _ignore() -> None:
    pass
