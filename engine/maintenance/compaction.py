"""Compaction: rewrites the LMDB file without free pages and dead rows.

    rewrite   checkpoint -> data-<n+1>, all pairs in the order of their keys -> MANIFEST names it
              -> in use -> data-<n> removed
    run       dropped indexes purged, positions of builds cleaned -> rewrite
              -> .broken and temporary files removed
              -> new log segment -> checkpoint -> older segments removed -> files in cache/ removed

Invariants:
- Both files have the same content until MANIFEST is replaced, and no checkpoint runs between: after
  a crash at any step the next open uses one of them and removes the other.
- Readers and writers are not blocked. A reader of the old file keeps it, unlinked, until it closes.
- The new file is of the format that is written today, whatever the old one is.
- The new file has no dead rows: each text index has one segment. Documents deleted before are not
  in it; after `run` they are also not in cache/, nor in log that no subscriber holds.
- The new log segment begins before the checkpoint that releases the old ones: commits made
  meanwhile do not keep a segment with deleted documents.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from errno import ENOSPC
from itertools import chain, islice
from typing import Final, NoReturn, final

from amberdb import _failpoints as failpoints
from amberdb._errors import (
    AmberError,
    DiskFullError,
    OpenError,
    ReplacedError,
    StorageError,
    StorageFullError,
)
from amberdb._fs import remove_directory, what_is_full
from amberdb._public import public
from amberdb.engine.backup.history import BackupHistory
from amberdb.engine.commit.checkpoint import Checkpointer
from amberdb.engine.commit.committer import Committer
from amberdb.engine.commit.recovery import Opened
from amberdb.engine.jobs import Turns
from amberdb.engine.maintenance.index_build import Indexer
from amberdb.engine.options import Options
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.search.searchers import Searchers
from amberdb.engine.storage import manifest as manifests
from amberdb.engine.storage.directory import (
    WAL,
    data_directory,
    is_staged,
    remove_generation,
)
from amberdb.engine.storage.store import Store
from amberdb.engine.storage.view import View

logger = logging.getLogger("amberdb.engine")

CompactProgress = Callable[[int, int], None]
"""Called with the number of pairs written so far, and of all pairs in the old file."""

_Pairs = Iterator[tuple[bytes, bytes]]

_CHUNK: Final = 100
"""Pairs that one call into LMDB writes."""
_TRANSACTION_BYTES: Final = 8 << 20
"""The size of the pairs in one LMDB transaction, which bounds the memory."""
_BROKEN: Final = re.compile(r"(MANIFEST|wal|data-[0-9]+|[0-9a-f]{16}\.wal)\.broken(\.[0-9]+)?")


@public
@final
@dataclass(frozen=True, slots=True)
class CompactReport:
    """The result of a compaction; bytes are those of data.mdb."""

    bytes_before: int
    bytes_after: int
    pairs_before: int
    pairs_after: int
    removed: tuple[str, ...] = ()
    """Names of removed `.broken` and temporary files, relative to the database's directory."""


@final
class Compactor:
    """Compacts an open database."""

    def __init__(
        self,
        opened: Opened,
        committer: Committer,
        checkpointer: Checkpointer,
        indexer: Indexer,
        searchers: Searchers,
        history: BackupHistory,
        options: Options,
    ) -> None:
        self._opened = opened
        self._committer = committer
        self._checkpointer = checkpointer
        self._indexer = indexer
        self._searchers = searchers
        self._history = history
        self._fs = options.fs
        self._map_bytes = options.map_bytes
        checkpointer.enlarge = self._enlarge
        self._is_switching = False

    def run(self, progress: CompactProgress | None, *, keep_unread: bool = True) -> CompactReport:
        """Compacts data.mdb, log and cache/. When it returns, no file contains a document that was
        deleted before, except, with `keep_unread`, the log that a subscriber has yet to read.

        Raises DiskFullError, before anything is written, when the new file would not fit;
        StorageError.
        """
        committer = self._committer
        self._fs.check_directory()
        self._history.end_chain()
        self._indexer.forget_dropped()
        with self._checkpointer.mutex:
            report = self.rewrite(progress)
            removed = self._remove_leftovers()
            try:
                committer.log.prepare_renewal()
                committer.renew_log()
                self._checkpointer.run()
                self._checkpointer.release_log(keep_unread=keep_unread)
            finally:
                committer.log.reuse()
            if failpoints.on:
                failpoints.reach("compact.log-renewed")
            self._searchers.forget_dead()
        return replace(report, removed=tuple(removed))

    def upgrade(self, progress: CompactProgress | None) -> CompactReport | None:
        """rewrite(), if data.mdb has something of an older format; vectors are moved out of their
        documents before. Raises CorruptionError."""
        has_split = self._indexer.split()
        with self._checkpointer.mutex:
            is_older = has_split or self._committer.store.is_older
            return self.rewrite(progress) if is_older else None

    def rewrite(self, progress: CompactProgress | None) -> CompactReport:
        """Compacts data.mdb only. Raises the errors of run(), and whatever `progress` raises: then
        nothing has changed."""
        committer, opened = self._committer, self._opened
        self._fs.check_directory()
        with self._checkpointer.mutex:
            self._checkpointer.run()
            before = committer.store.stats()
            self._check_space(before["used_bytes"])
            self._to_next_generation(before["entries"], progress)
            if failpoints.on:
                failpoints.reach("compact.switched")
            remove_generation(self._fs, opened.directory, opened.manifest.generation - 1)
            if failpoints.on:
                failpoints.reach("compact.old-removed")
            after = committer.store.stats()
        return CompactReport(
            before["file_bytes"], after["file_bytes"], before["entries"], after["entries"]
        )

    def _enlarge(self, full: StorageFullError) -> None:
        """Continues in a data file whose map is four times as large. LMDB's map cannot grow under
        readers in other threads, which keep the old file meanwhile. Raises `full` when the address
        space is used up; DiskFullError, StorageError."""
        committer = self._committer
        before = committer.store.stats()
        self._check_space(before["used_bytes"])
        map_bytes = committer.store.map_bytes
        self._map_bytes = 4 * map_bytes
        try:
            self._to_next_generation(before["entries"], None, full)
        except StorageError as error:
            # No address space, or no descriptor.
            if isinstance(error, StorageFullError) or isinstance(error.__cause__, OpenError):
                raise full from error
            raise
        remove_generation(self._fs, self._opened.directory, self._opened.manifest.generation - 1)
        logger.info("%s: the map has grown from %d bytes to %d", committer.store.path, map_bytes,
            committer.store.map_bytes)  # fmt: skip

    def _check_space(self, wanted: int) -> None:
        import shutil  # imported on demand: few programs need it

        directory = self._opened.directory
        try:
            free = shutil.disk_usage(directory).free
        except OSError as error:
            self._fs.check_directory()
            raise StorageError(f"{directory} cannot be read: {error}", path=directory) from error
        if free < wanted:
            raise DiskFullError(
                f"{directory}: compaction needs {wanted} bytes of disk space, and {free} are free: "
                "free some; nothing has changed",
                path=directory,
            )

    def _to_next_generation(
        self, pairs: int, progress: CompactProgress | None, full: StorageFullError | None = None
    ) -> None:
        """With `full` the new map has to be larger than the old one."""
        fs, directory = self._fs, self._opened.directory
        generation = self._opened.manifest.generation + 1
        data = data_directory(directory, generation)
        store: Store | None = None
        self._is_switching = False
        try:
            remove_generation(fs, directory, generation)  # left by an attempt that failed
            fs.mkdir(data, like=directory)
            store = Store(data, fs=fs, create=True, map_bytes=self._map_bytes)
            if full is not None and store.map_bytes <= self._committer.store.map_bytes:
                raise full
            store.grows = True
            with self._committer.view() as view:
                _copy(_pairs(view), store, pairs, progress)
            store.grows = False
            if failpoints.on:
                failpoints.reach("compact.copied")
            self._switch(store, generation)
        except BaseException as error:
            outcome = "and has changed nothing"
            if self._may_be_named(generation):
                # Either generation may be the durable one: a commit could get into the other.
                self._committer.log.poison(error)
                outcome = "at the last step: close and reopen the database; nothing is lost"
            else:
                if store is not None:
                    store.release(_unused)
                with suppress(ReplacedError):  # it is removed at the next open, where it is now
                    remove_generation(fs, directory, generation)
            if isinstance(error, OSError) and error.errno == ENOSPC:
                raise DiskFullError(
                    f"{data}: compaction failed {outcome}: {what_is_full(directory)}", path=data
                ) from error
            if isinstance(error, OSError | OpenError) and not isinstance(error, StorageError):
                raise StorageError(
                    f"{data}: compaction failed {outcome}: {error}", path=data
                ) from error
            raise

    def _may_be_named(self, generation: int) -> bool:
        """Whether MANIFEST names a generation, or may: it cannot be read where it was."""
        try:
            self._fs.check_directory()
            return manifests.read(self._fs, self._opened.directory).generation == generation
        except (OSError, AmberError):
            return self._is_switching

    def _switch(self, store: Store, generation: int) -> None:
        """Makes the new file current, for the next open and for this process."""
        opened = self._opened
        opened.mark_in_use()  # or a first commit could do it at the same time, and name the old one
        manifest = replace(opened.manifest, generation=generation)
        self._fs.sync_dir(opened.directory)  # before MANIFEST names the new generation
        if failpoints.on:
            failpoints.reach("compact.before-manifest")
        self._is_switching = True
        manifest.write(self._fs, opened.directory)
        if failpoints.on:
            failpoints.reach("compact.manifest-written")
        self._is_switching = False
        opened.manifest = manifest
        opened.store = store
        self._committer.switch_store(store)

    def _remove_leftovers(self) -> list[str]:
        """Removes the `.broken` files of recovery and repair, and staging files that a crash left.
        Returns their names."""
        fs, removed = self._fs, list[str]()
        try:
            for folder in (WAL, ""):
                where = os.path.join(self._opened.directory, folder)
                names = [
                    name
                    for name in fs.listdir(where)
                    if _BROKEN.fullmatch(name) or (is_staged(name) and not folder)
                ]
                for name in names:
                    path = os.path.join(where, name)
                    if fs.is_dir(path):
                        remove_directory(fs, path)
                    else:
                        fs.unlink(path)
                if names:
                    fs.sync_dir(where)
                removed += [os.path.join(folder, name) for name in names]
        except OSError as error:
            raise StorageError(
                f"{error.filename}: leftover files could not be removed: {error}",
                path=error.filename,
            ) from error
        return removed


def _copy(pairs: _Pairs, store: Store, total: int, progress: CompactProgress | None) -> None:
    done = 0
    more = True
    turns = Turns()
    while more:
        with store.write() as writer:
            size = 0
            while size < _TRANSACTION_BYTES:
                block = list(islice(pairs, _CHUNK))
                if not block:
                    more = False
                    break
                writer.put_sorted(block)
                size += sum(len(key) + len(value) for key, value in block)
                done += len(block)
                turns.offer()
        if failpoints.on:
            failpoints.reach("compact.chunk-copied")
        if progress is not None:
            progress(done, total)


def _pairs(view: View) -> _Pairs:
    """All pairs in the view's LMDB transaction, keys ascending, each text index merged into one
    segment."""
    row_indexes = view.catalog.row_indexes
    for prefix in view.stored_keyspaces():
        index = row_indexes.get(prefix)
        if index is None or not index.is_text:
            yield from view.scan_stored(prefix, end_of(prefix))
            continue
        from amberdb.engine.search.segments import LIST, SEGMENT  # brings numpy

        merged = _merged(view, index)
        yield from view.scan_stored(prefix, prefix + LIST)
        yield from islice(merged, 1)
        yield from view.scan_stored(end_of(prefix + LIST), prefix + SEGMENT)
        yield from merged
        yield from view.scan_stored(end_of(prefix + SEGMENT), end_of(prefix))


def _merged(view: View, index: RowIndex) -> _Pairs:
    """The list of segments, then the pairs of the one merged segment."""
    from amberdb.engine.search.live_rows import stored_alive
    from amberdb.engine.search.segments import SegmentList, merged_segment

    listed = SegmentList.read(view.get_stored, index)
    numbers = [number for number, _ in listed.items]
    rows, pairs = merged_segment(
        view.get_stored, view.scan_stored, index, numbers, listed.next, stored_alive(view, index)
    )
    listed.items = [(listed.next, rows)] if rows else []
    listed.next += 1
    return chain((listed.pair(index),), pairs)


def _unused() -> NoReturn:
    raise AssertionError("this store was never in use")
