"""Compaction: the LMDB file written anew, without free pages and without what is dead.

    rewrite   checkpoint -> data-<n+1>, every pair in the order of its key -> MANIFEST names it
              -> in use -> data-<n> removed
    run       dropped indexes purged -> rewrite -> .broken and temporary files removed
              -> the log begun anew -> checkpoint -> what is behind it removed
              -> files in cache/ removed

Invariants:
- Both files hold the same until MANIFEST is replaced, and no checkpoint comes between: a crash at
  any step opens one of them, and what is left of the other goes at that open.
- Readers and writers go on. A reader of the old file keeps it, without a name, until it is done.
- The new file has no dead rows: of each text index one segment is left. Nothing of what was
  deleted before is in it; nor, after `run`, in the log that no subscriber holds, nor in cache/.
- The log is begun anew before the checkpoint that lets all of the old one go: what is committed
  meanwhile keeps no segment with what was deleted.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Final, NoReturn, final

from amberdb import _failpoints as failpoints
from amberdb._errors import DiskFullError, StorageError
from amberdb._fs import STAGING_SUFFIX, remove_directory
from amberdb.engine.backup.history import BackupHistory
from amberdb.engine.commit.checkpoint import Checkpointer
from amberdb.engine.commit.committer import Committer
from amberdb.engine.commit.recovery import Opened
from amberdb.engine.maintenance.index_build import Indexer
from amberdb.engine.options import Options
from amberdb.engine.schema.keyspace import KEY_END, end_of
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.search.searchers import Searchers
from amberdb.engine.storage import manifest as manifests
from amberdb.engine.storage.directory import WAL, data_directory, remove_generation
from amberdb.engine.storage.store import Store
from amberdb.engine.storage.view import View

CompactProgress = Callable[[int, int], None]
"""Called with the pairs written so far, and how many there were."""

_Pairs = Iterator[tuple[bytes, bytes]]

_CHUNK: Final = 500
_TRANSACTION_BYTES: Final = 8 << 20
"""So that memory stays bounded, whatever the size of the file."""
_BROKEN: Final = re.compile(r".+\.broken(\.[0-9]+)?")


@final
@dataclass(frozen=True, slots=True)
class CompactReport:
    """What a compaction has done; bytes are those of data.mdb."""

    bytes_before: int
    bytes_after: int
    pairs_before: int
    pairs_after: int
    removed: tuple[str, ...] = ()
    """Names within the directory of `.broken` and temporary files."""


@final
class Compactor:
    """Owned by the Database."""

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

    def run(self, progress: CompactProgress | None, *, keep_unread: bool = True) -> CompactReport:
        """Nothing deleted before is in any file when it returns. With `keep_unread` log stays that
        a subscriber has yet to read.

        Raises DiskFullError before anything is written when it would not fit, StorageError.
        """
        committer = self._committer
        self._history.end_chain()
        self._indexer.purge()
        with self._checkpointer.mutex:
            report = self.rewrite(progress)
            removed = self._remove_left()
            try:
                committer.renew_log()
                self._checkpointer.run()
                self._checkpointer.release_log(keep_unread=keep_unread)
            finally:
                committer.log.reuse()
            if failpoints.on:
                failpoints.reach("compact.log-renewed")
            self._searchers.forget_dead()
        return replace(report, removed=tuple(removed))

    def rewrite(self, progress: CompactProgress | None) -> CompactReport:
        """data.mdb alone. Raises as `run` does, and what `progress` raises: nothing has changed."""
        committer, opened = self._committer, self._opened
        with self._checkpointer.mutex:
            self._checkpointer.run()
            before = committer.store.stats()
            _check_space(opened.directory, before["used_bytes"])
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

    def _to_next_generation(self, pairs: int, progress: CompactProgress | None) -> None:
        fs, directory = self._fs, self._opened.directory
        generation = self._opened.manifest.generation + 1
        data = data_directory(directory, generation)
        store: Store | None = None
        try:
            remove_generation(fs, directory, generation)  # of a try that failed
            fs.mkdir(data)
            store = Store(data, fs=fs, create=True, map_bytes=self._map_bytes)
            with self._committer.view() as view:
                _copy(_pairs(view), store, pairs, progress)
            if failpoints.on:
                failpoints.reach("compact.copied")
            self._switch(store, generation)
        except BaseException as error:
            says = "and has changed nothing"
            if manifests.read(fs, directory).generation == generation:
                # Which of the two the next open takes is unknown: nothing may get into one alone.
                self._committer.log.poison(error)
                says = "at the last step: close and reopen the database; nothing is lost"
            else:
                if store is not None:
                    store.release(_unused)
                remove_generation(fs, directory, generation)
            if isinstance(error, OSError) and not isinstance(error, StorageError):
                raise StorageError(
                    f"{data}: compacting failed {says}: {error}", path=data
                ) from error
            raise

    def _switch(self, store: Store, generation: int) -> None:
        """The new file in place of the old one, for the next open and for this process."""
        opened = self._opened
        manifest = replace(opened.manifest, generation=generation)
        self._fs.sync_dir(opened.directory)  # before MANIFEST names what is there
        if failpoints.on:
            failpoints.reach("compact.before-manifest")
        manifest.write(self._fs, opened.directory)
        if failpoints.on:
            failpoints.reach("compact.manifest-written")
        opened.manifest = manifest
        opened.store = store
        self._committer.switch_store(store)

    def _remove_left(self) -> list[str]:
        """What recovery or repair has cut or set aside, and what a crash has left unfinished."""
        fs, removed = self._fs, list[str]()
        try:
            for folder in (WAL, ""):
                where = os.path.join(self._opened.directory, folder)
                names = [
                    name
                    for name in fs.listdir(where)
                    if _BROKEN.fullmatch(name) or (name.endswith(STAGING_SUFFIX) and not folder)
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
                f"{error.filename}: what was left there could not be removed: {error}",
                path=error.filename,
            ) from error
        return removed


def _copy(pairs: _Pairs, store: Store, total: int, progress: CompactProgress | None) -> None:
    done = 0
    more = True
    while more:
        with store.write() as writer:
            size = 0
            while size < _TRANSACTION_BYTES:
                block = list(islice(pairs, _CHUNK))
                if not block:
                    more = False
                    break
                writer.append_sorted(block)
                size += sum(len(key) + len(value) for key, value in block)
                done += len(block)
        if failpoints.on:
            failpoints.reach("compact.chunk-copied")
        if progress is not None:
            progress(done, total)


def _pairs(view: View) -> _Pairs:
    """All that the view's LMDB transaction holds, ascending, of text indexes one segment each."""
    low = b""
    for index in sorted(view.catalog.row_indexes.values(), key=lambda found: found.prefix):
        if index.is_text:
            from amberdb.engine.search.segments import LIST, SEGMENT  # brings numpy

            yield from view.scan_stored(low, index.prefix + LIST)
            merged = _merged(view, index)
            yield from islice(merged, 1)
            yield from view.scan_stored(end_of(index.prefix + LIST), index.prefix + SEGMENT)
            yield from merged
            low = end_of(index.prefix + SEGMENT)
    yield from view.scan_stored(low, KEY_END)


def _merged(view: View, index: RowIndex) -> _Pairs:
    """The list of segments, and then the pairs of the only one."""
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


def _check_space(directory: str, wanted: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < wanted:
        raise DiskFullError(
            f"{directory}: compacting takes {wanted} bytes until it is done, and {free} are free: "
            "free some; nothing has changed",
            path=directory,
        )


def _unused() -> NoReturn:
    raise AssertionError("this store was never in use")
