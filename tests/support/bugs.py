"""Deliberate bugs: patches that break one promise each. A campaign that misses one proves little.

Each is a context manager that changes the product while it is open, and nothing else. They are
listed with what must catch them in docs/crash-tests.md.
"""

# These patches reach into the product on purpose.
# pyright: reportPrivateUsage=false

import os
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, TypeAlias
from unittest.mock import patch

import lmdb

from amberdb._fs import FileSystem, OsFileSystem
from amberdb._types import Lsn
from amberdb.engine.commit import checkpoint, recovery
from amberdb.engine.schema.catalog import Catalog
from amberdb.engine.schema.codec import decode_effects
from amberdb.engine.schema.keyspace import APPLIED, Effects
from amberdb.engine.search.vector import searcher as vector_searcher
from amberdb.engine.storage import cache_file, manifest
from amberdb.engine.storage.memtable import Memtable
from amberdb.engine.storage.store import Store
from amberdb.engine.storage.store_writer import StoreWriter
from amberdb.engine.storage.view import State
from amberdb.wal import Log, log
from amberdb.wal import recovery as wal_recovery
from amberdb.wal.group_commit import GroupCommit
from amberdb.wal.recovery import load_segments
from amberdb.wal.segment import SegmentHeader, write_header

Bug: TypeAlias = Callable[[], AbstractContextManager[Any]]


def _nothing(*_: object) -> None: ...


def skip_the_sync_of_the_log() -> Any:
    def pretend(self: GroupCommit) -> None:
        self.durable_lsn = self.last_lsn

    return patch.object(GroupCommit, "sync_file", pretend)


def acknowledge_before_the_sync() -> Any:
    return patch.object(GroupCommit, "wait", _nothing)


def forget_the_last_record_of_a_group() -> Any:
    """The sync is over before the newest record was written: as if it covered that too."""
    append = Log.append

    def late(
        self: Log, payload: bytes, time_us: int, kind: int, sync: Any, lsn: int | None = None
    ) -> Lsn:
        group = self._group
        if group.file is not None and group.durable_lsn < group.last_lsn:
            group.sync_file()
        group.durable_lsn = appended = append(self, payload, time_us, kind, sync, lsn=lsn)
        return appended

    return patch.object(Log, "append", late)


def drop_the_directory_sync_of_the_log() -> Any:
    return patch.object(log, "sync_names", _nothing)


def rename_manifest_before_its_sync() -> Any:
    def replace(fs: FileSystem, path: str, data: bytes) -> None:
        _write_aside(fs, path, data, sync=False)
        fs.sync_dir(os.path.dirname(path))

    return patch.object(manifest, "replace_file", replace)


def drop_the_directory_sync_of_manifest() -> Any:
    def replace(fs: FileSystem, path: str, data: bytes) -> None:
        _write_aside(fs, path, data, sync=True)

    return patch.object(manifest, "replace_file", replace)


def _write_aside(fs: FileSystem, path: str, data: bytes, *, sync: bool) -> None:
    if fs.exists(path + ".tmp"):
        fs.unlink(path + ".tmp")
    file = fs.open(path + ".tmp", create=True)
    file.pwrite(data, 0)
    if sync:
        file.sync()
    file.close()
    fs.rename(path + ".tmp", path)


def recycle_before_the_checkpoint() -> Any:
    apply = checkpoint.Checkpointer._apply

    def early(self: checkpoint.Checkpointer) -> None:
        frozen = self._committer.state.frozen
        assert frozen is not None
        self._committer.log.wait(frozen.last_lsn)
        self._committer.log.recycle(Lsn(frozen.last_lsn))
        apply(self)

    return patch.object(checkpoint.Checkpointer, "_apply", early)


def checkpoint_half_of_it() -> Any:
    apply_keys = checkpoint._apply_keys

    def half(store: StoreWriter, memtable: Memtable, keys: list[bytes]) -> None:
        apply_keys(store, memtable, keys[: len(keys) - len(keys) // 2])

    return patch.object(checkpoint, "_apply_keys", half)


def ignore_tombstones_at_the_checkpoint() -> Any:
    apply_keys = checkpoint._apply_keys

    def kept(store: StoreWriter, memtable: Memtable, keys: list[bytes]) -> None:
        apply_keys(store, memtable, [k for k in keys if memtable.entries[k][1] is not None])

    return patch.object(checkpoint, "_apply_keys", kept)


def checkpoint_without_the_applied_lsn() -> Any:
    """Which is the last but two or three that it stores."""
    apply_memtable = checkpoint.apply_memtable

    def applied(*args: Any) -> None:
        with patch.object(StoreWriter, "put", unless_applied):
            apply_memtable(*args)

    def unless_applied(self: StoreWriter, key: bytes, value: bytes) -> None:
        if key != APPLIED:
            put(self, key, value)

    put = StoreWriter.put
    return patch.object(checkpoint, "apply_memtable", applied)


def ignore_tombstones_in_replay() -> Any:
    return _replayed(lambda effects: {k: v for k, v in effects.items() if v is not None})


def replay_half_a_transaction() -> Any:
    return _replayed(lambda effects: dict(list(effects.items())[: (len(effects) + 1) // 2]))


def _replayed(change: Callable[[Effects], Effects]) -> Any:
    def changed(data: bytes) -> Effects:
        return change(decode_effects(data))

    return patch.object(recovery, "decode_effects", changed)


def keep_the_epoch() -> Any:
    opened = Log.open.__func__  # type: ignore[attr-defined]

    def same(cls: type[Log], *args: Any, **named: Any) -> Any:
        named["epoch"] = max(1, named["epoch"] - (named["clean_last"] is None))
        return opened(cls, *args, **named)

    return patch.object(Log, "open", classmethod(same))


def accept_the_tail_without_rewriting_it() -> Any:
    return patch.object(wal_recovery, "secure_tail", _nothing)


def always_mark_clean() -> Any:
    """MANIFEST says at once that the database was closed."""
    write = manifest.Manifest.write

    def clean(self: manifest.Manifest, fs: FileSystem, directory: str) -> None:
        if self.clean_lsn is None:
            return
        write(self, fs, directory)

    return patch.object(manifest.Manifest, "write", clean)


def use_a_spare_without_its_header() -> Any:
    """A recycled file keeps the header of its former life."""

    def kept(fs: FileSystem, path: str, header: SegmentHeader) -> None:
        if not header.recycled:
            write_header(fs, path, header)

    return patch.object(log, "write_header", kept)


def forget_the_newest_segment() -> Any:
    def fewer(*args: Any) -> Any:
        found = load_segments(*args)
        return found[:-1] if len(found) > 1 else found

    return patch.object(log, "load_segments", fewer)


def ignore_the_class_of_a_commit() -> Any:
    append = Log.append

    def weak(
        self: Log, payload: bytes, time_us: int, kind: int, sync: Any, lsn: int | None = None
    ) -> Lsn:
        return append(self, payload, time_us, kind, "os", lsn=lsn)

    return patch.object(Log, "append", weak)


def label_a_cache_file_without_syncing_the_log() -> Any:
    """Its rows may be above the Lsn that it bears."""

    def unsynced(self: vector_searcher._CacheSource) -> Lsn:
        return self._source.log.durable_lsn

    return patch.object(vector_searcher._CacheSource, "sync", unsynced)


@contextmanager
def believe_a_cache_file_that_was_not_synced() -> Generator[None]:
    """Renamed before its sync, and read without its checksums."""

    def replace(fs: FileSystem, path: str, data: bytes, more: Iterable[bytes]) -> None:
        _write_aside(fs, path, data + b"".join(more), sync=False)
        fs.sync_dir(os.path.dirname(path))

    def section(self: cache_file.Cached, number: int) -> memoryview:
        start, end, _ = self._sections[number]
        return self._data[start:end]

    with (
        patch.object(cache_file, "replace_file", replace),
        patch.object(cache_file.Cached, "section", section),
    ):
        yield


def leave_the_file_of_a_dropped_index() -> Any:
    def unlisted(self: cache_file.CacheFolder, *_: object) -> None: ...

    return patch.multiple(cache_file.CacheFolder, _sweep=unlisted, drop=unlisted)


def open_lmdb_without_sync() -> Any:
    return _lmdb_opened(sync=False)


def open_lmdb_without_metasync() -> Any:
    return _lmdb_opened(metasync=False)


@contextmanager
def sync_the_pages_of_lmdb_after_its_meta() -> Generator[None]:
    """Its commit writes without syncing, and then all is synced at once."""
    write = Store.write

    @contextmanager
    def late(self: Store) -> Generator[StoreWriter, None, None]:
        with write(self) as writer:
            yield writer
        self._live().sync(True)

    with _lmdb_opened(sync=False), patch.object(Store, "write", late):
        yield


def drop_the_directory_sync_of_the_store() -> Any:
    def unsynced(fs: OsFileSystem, path: str) -> None:
        if not os.path.basename(path).startswith("data-"):
            sync_dir(fs, path)

    sync_dir = OsFileSystem.sync_dir
    return patch.object(OsFileSystem, "sync_dir", unsynced)


def _lmdb_opened(**changed: Any) -> Any:
    real = lmdb.open

    def opened(path: str, **options: Any) -> Any:
        return real(path, **{**options, **changed})

    return patch.object(lmdb, "open", opened)


def checkpoint_by_the_newest_catalog() -> Any:
    """A declaration reaches the memtable that was frozen before it."""

    def late(self: State, catalog: Catalog, lsn: int, visible: int) -> State:
        if self.frozen is not None:
            self.frozen.catalog = catalog
        return with_catalog(self, catalog, lsn, visible)

    with_catalog = State.with_catalog
    return patch.object(State, "with_catalog", late)


SWEPT: Final[dict[str, Bug]] = {
    bug.__name__: bug
    for bug in (
        skip_the_sync_of_the_log,
        acknowledge_before_the_sync,
        forget_the_last_record_of_a_group,
        drop_the_directory_sync_of_the_log,
        rename_manifest_before_its_sync,
        drop_the_directory_sync_of_manifest,
        recycle_before_the_checkpoint,
        checkpoint_half_of_it,
        ignore_tombstones_at_the_checkpoint,
        checkpoint_without_the_applied_lsn,
        ignore_tombstones_in_replay,
        replay_half_a_transaction,
        keep_the_epoch,
        accept_the_tail_without_rewriting_it,
        always_mark_clean,
        use_a_spare_without_its_header,
        forget_the_newest_segment,
        ignore_the_class_of_a_commit,
        label_a_cache_file_without_syncing_the_log,
        believe_a_cache_file_that_was_not_synced,
        leave_the_file_of_a_dropped_index,
        checkpoint_by_the_newest_catalog,
    )
}
"""What a crash sweep must catch."""

INSIDE_LMDB: Final[dict[str, Bug]] = {
    bug.__name__: bug
    for bug in (
        open_lmdb_without_sync,
        open_lmdb_without_metasync,
        sync_the_pages_of_lmdb_after_its_meta,
        drop_the_directory_sync_of_the_store,
    )
}
"""What only a sweep that sees the system calls can catch, and must."""
