"""A database that is only read, beside the process that writes it or without one.

Invariants:
- Every read that a Database and its collections have, and no write: those raise ReadOnlyError.
- No file of the database is made or changed, but LMDB's own table of readers.
- Pages are kept from being reused by calls that are running, and by snapshots up to their age
  limit; nothing else of this process holds the writer up.
"""

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NoReturn, final

from amberdb._errors import ClosedError, CorruptionError, ForkedError, ReadOnlyError
from amberdb._types import Lsn, Progress, Sync
from amberdb.engine.backup.rescue import explain
from amberdb.engine.commit.change_feed import Change, archive_of, changes, positions_of
from amberdb.engine.commit.follower import Follower
from amberdb.engine.commit.recovery import is_there, missing_database
from amberdb.engine.database.collection import Collection, ReadableCollection, schema_of
from amberdb.engine.database.database import Database, open_databases
from amberdb.engine.database.declarations import declaration_of
from amberdb.engine.database.stats import Stats, bytes_of, facts_of, lag_of, live_share
from amberdb.engine.database.transaction import Snapshot, held
from amberdb.engine.integrity.check import CheckReport, check
from amberdb.engine.maintenance.erasure import Erasure, receipts_of
from amberdb.engine.options import Options
from amberdb.engine.schema.migration import Upgrade
from amberdb.engine.schema.schema import CollectionDef
from amberdb.engine.search.searchers import Searchers
from amberdb.engine.storage.view import View
from amberdb.index.registry import IndexSpec


@final
class ReadOnlyDatabase(Database):
    """What amberdb.open(path, read_only=True) gives: the reading half of a Database. What it does
    not define here raises ReadOnlyError."""

    def __init__(self, path: str, options: Options) -> None:
        # Not super(): a Database owns its directory.
        self.path = path
        self.options = options
        self.recovery = None
        self._follower = Follower(path, options)
        self._watch = _SnapshotWatch(background=options.background)
        self._is_closed = False

    # -- reading -----------------------------------------------------------------------------

    def collection(
        self,
        name: str,
        *,
        indexes: Sequence[IndexSpec] | None = None,
        expires_at: str | None = None,
        required: Mapping[str, type | None] | Sequence[str] | None = None,
        version: int | None = None,
        migrate: Mapping[int, Upgrade] | None = None,
    ) -> "ReadOnlyCollection":
        """As the catalog has it. What is declared is only compared with that, so that programs can
        share a declaration; the functions of `migrate` upgrade what is read. Raises
        CollectionMissingError, CollectionVersionError; ReadOnlyError when it differs."""
        declaration = declaration_of(indexes, expires_at, required, version, migrate)
        with self._follower.view() as view:
            catalog, known = view.catalog, schema_of(view, name).definition
        wanted = catalog.wanted(name, declaration, 1, is_empty=True)
        if wanted is not None and _declaration(wanted[0]) != _declaration(known):
            raise ReadOnlyError(
                f"collection {name!r} is declared otherwise in the catalog: declare it in the "
                "process that writes, or leave the declaration out",
                collection=name,
            )
        self._follower.register_upgrades(name, declaration.upgrades)
        return ReadOnlyCollection(name, self._follower)

    def collections(self) -> list[str]:
        with self._follower.view() as view:
            return sorted(view.catalog.schemas)

    def definition(self, name: str) -> CollectionDef:
        with self._follower.view() as view:
            return schema_of(view, name).definition

    def refresh(self) -> Lsn:
        return self._follower.refresh()

    def snapshot(self, *, max_age_ms: int | None = None) -> Snapshot:
        limit = self.options.snapshot_max_age_ms if max_age_ms is None else max_age_ms
        return self._watch.add(Snapshot(self._follower, limit, self._watch.discard))

    def changes(
        self, since: Lsn | None = None, *, follow: bool = False, timeout_s: float | None = None
    ) -> Iterator[Change]:
        """With `follow` it looks for more fifty times a second."""
        self._follower.refresh()
        return changes(self._follower, since, follow, timeout_s)

    # -- care --------------------------------------------------------------------------------

    def check(self, progress: Progress | None = None) -> CheckReport:
        """As long as it takes, pages that the writer has given up stay as they are."""
        return check(self._follower, progress)

    def erasures(self) -> list[Erasure]:
        with self._follower.view() as view:
            return receipts_of(view)

    @property
    def archived_lsn(self) -> Lsn | None:
        with self._follower.view() as view:
            archived = archive_of(view, self._follower.manifest.database_id)
        return None if archived is None else archived[0]

    def stats(self) -> Stats:
        follower = self._follower
        with follower.view() as view:
            collections = {
                name: facts_of(view, schema) for name, schema in view.catalog.schemas.items()
            }
            applied = view.applied_lsn
            archived = archive_of(view, follower.manifest.database_id)
            positions = positions_of(view)
            memtable_bytes = sum(memtable.size_bytes for memtable in view.memtables)
        ages = self._watch.ages_ms()
        segments = follower.tail.segments()
        log = {"segments": len(segments), "bytes": sum(one.size for one in segments)}
        store, last_lsn = follower.store.stats(), Lsn(follower.visible)
        return Stats(
            path=self.path,
            read_only=True,
            last_lsn=last_lsn,
            visible_lsn=last_lsn,
            durable_lsn=follower.log.durable_lsn,
            applied_lsn=Lsn(applied),
            archived_lsn=archived[0] if archived is not None else None,
            memtable_bytes=memtable_bytes,
            bytes=bytes_of(log, store, self.path, self.options.fs),
            live_share=live_share(store),
            log=log,
            store=dict(store),
            collections=collections,
            snapshots=len(ages),
            oldest_snapshot_ms=max(ages, default=0.0),
            subscribers=positions,
            subscriber_lag=lag_of(positions, last_lsn),
        )

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._watch.close()
            self._follower.close(ClosedError("the database is closed: open it again"))

    def _abandon(self) -> None:
        """In a forked child: every call raises."""
        error = ForkedError(
            f"{self.path} was opened before this process was forked: open it in the child, "
            "or start children with the spawn method",
            path=self.path,
        )
        self._is_closed = True
        self._follower.close(error, forked=True)


@final
class ReadOnlyCollection(Collection):
    """The reading half of a Collection. Threads may share it."""

    def __init__(self, name: str, follower: Follower) -> None:
        # Not super(): there is no committer.
        self.name = name
        self._follower = follower

    def get(self, id: str, default: Any = None) -> Any:
        return ReadableCollection.get(self, id, default)

    def _reading(self) -> AbstractContextManager[View]:
        return self._follower.view()

    def _searchers(self) -> Searchers:
        return self._follower.searchers

    def _finish_indexes(self, *, for_text: bool, for_vector: bool) -> None:
        """Another process builds them; a search that cannot be answered yet says so."""

    # Every write begins with one of these.

    def _schema(self) -> NoReturn:
        self._refuse()

    def _writing(self, sync: Sync | None, key: bytes | None = None) -> NoReturn:
        self._refuse()

    def _embedded(self, documents: Sequence[Mapping[str, Any]]) -> NoReturn:
        self._refuse()

    def _embedders(self) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ReadOnlyError(
            f"collection {self.name!r} is only read here: write in the process that owns the "
            "database",
            collection=self.name,
        )


def open_to_read(path: str, options: Options) -> ReadOnlyDatabase:
    """Raises DatabaseMissingError, NotADatabaseError, FormatError, OpenError, and CorruptionError,
    which names the newest backup if there is one."""
    path = os.path.abspath(path)
    try:
        if not is_there(path, options):
            raise missing_database(path)
        database = ReadOnlyDatabase(path, options)
    except CorruptionError as error:
        explain(path, options, error)
    open_databases.add(database)
    return database


def _declaration(definition: CollectionDef) -> tuple[object, ...]:
    """What a program says of a collection: no numbers, no versions of analyzers."""
    specs = [index.spec for index in definition.indexes]
    return specs, definition.version, definition.expires_at, definition.required, definition.vectors


@final
class _SnapshotWatch:
    """Ends snapshots at their age limit, in a thread that runs only while there are some."""

    def __init__(self, *, background: bool) -> None:
        self._background = background
        self._snapshots: weakref.WeakSet[Snapshot] = weakref.WeakSet()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False
        self.discard = self._snapshots.discard

    def add(self, snapshot: Snapshot) -> Snapshot:
        self._snapshots.add(snapshot)
        if self._background:
            with self._wake:
                self._wake.notify()
                if self._thread is None and not self._closing:
                    self._thread = threading.Thread(
                        target=self._run, name="amberdb-snapshots", daemon=True
                    )
                    self._thread.start()
        return snapshot

    def ages_ms(self) -> list[float]:
        return [snapshot.age_ms for snapshot in held(self._snapshots)]

    def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()
            thread = self._thread
        if thread is not None:
            thread.join()
        for snapshot in held(self._snapshots):
            snapshot.close()

    def _run(self) -> None:
        while True:
            for snapshot in held(self._snapshots):
                snapshot.expire()
            with self._wake:
                left_s = [snapshot.left_s for snapshot in held(self._snapshots)]
                if self._closing or not left_s:
                    self._thread = None
                    return
                self._wake.wait(max(0.0, min(left_s)))


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(self: ReadOnlyDatabase, *_: object, **__: object) -> NoReturn:
        raise ReadOnlyError(
            f"{self.path} was opened with read_only=True: call {name}() in the process that "
            "writes, or open it to write",
            path=self.path,
        )

    return refuse


for _name in set(vars(Database)) - set(vars(ReadOnlyDatabase)):
    if not _name.startswith("_") and callable(getattr(Database, _name)):
        setattr(ReadOnlyDatabase, _name, _refusal(_name))
