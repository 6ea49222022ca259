"""The database for an event loop: the API of `amberdb` with `await`.

    async with aio.open("memory.amber") as db:
        events = await db.collection("event", indexes=[Ordered("created_at")])
        await events.put({"content": "..."})
        async with db.transaction() as tx:
            await tx["event"].put({"content": "..."})

Invariants:
- Every call that may wait for a disk or a lock runs in a thread (aio/threads.py).
- Wherever its task is cancelled, a transaction is committed whole or rolled back, and the writer
  lock is released.
- A task that writes to the database while its own transaction is open gets an error: it would wait
  for itself.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from functools import partial
from operator import methodcaller
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, Unpack, final

import amberdb
from amberdb import BusyError, Change, Isolation, Lsn, OpenOptions, Sync, TransactionError, _connect
from amberdb._attempts import ATTEMPTS, Overtaken, pauses_s
from amberdb.aio.collections import Collection
from amberdb.aio.face import Face, detached, opens_face, reads, writes
from amberdb.aio.feed import Subscriber, stream_changes
from amberdb.aio.threads import READ_THREADS, WRITE_THREADS, Threads
from amberdb.aio.transaction import Snapshot, Transaction

P = ParamSpec("P")
R = TypeVar("R")

_CLOSE = methodcaller("close")
"""Of the object's own class: a shared database closes more than its handle."""

check = detached(amberdb.check)
repair = detached(amberdb.repair)
restore = detached(amberdb.restore)
verify_backup = detached(amberdb.verify_backup)


class Closable(Protocol):
    """An object that an Opening opens and closes."""

    async def close(self) -> None: ...


C = TypeVar("C", bound=Closable)


@final
class Opening(Generic[C]):
    """Use it with `async with`, or `await` it and close the result."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, C]]) -> None:
        self._make = make

    def __await__(self) -> Generator[Any, Any, C]:
        return self._make().__await__()

    async def __aenter__(self) -> C:
        self._made = await self
        return self._made

    async def __aexit__(self, *_: object) -> None:
        await self._made.close()


def open(
    path: str | os.PathLike[str],
    *,
    create: bool = True,
    read_only: bool = False,
    read_threads: int = READ_THREADS,
    write_threads: int = WRITE_THREADS,
    **settings: Unpack[OpenOptions],
) -> "Opening[Database]":
    """amberdb.open(), to be awaited or used with `async with`.

    read_threads    how many reads run at once
    write_threads   how many writes run at once, and share a sync

    Further calls wait for a thread. Raises as amberdb.open().
    """
    call = partial(amberdb.open, path, create=create, read_only=read_only, **settings)
    return _opening(call, read_threads, write_threads)


def connect(
    path: str | os.PathLike[str],
    *,
    create: bool = True,
    read_threads: int = READ_THREADS,
    write_threads: int = WRITE_THREADS,
    **settings: Unpack[OpenOptions],
) -> "Opening[Database]":
    """amberdb.connect(), to be awaited or used with `async with`; threads as for open(). Raises as
    amberdb.connect()."""
    call = partial(amberdb.connect, path, create=create, **settings)
    return _opening(call, read_threads, write_threads)


def connect_or_open(
    path: str | os.PathLike[str], *, create: bool = True, **settings: Unpack[OpenOptions]
) -> "Opening[Database]":
    """connect() where a database can be shared, else open(): for servers of amberdb's own."""
    return _opening(
        partial(_connect.connect_or_open, path, create=create, **settings),
        READ_THREADS,
        WRITE_THREADS,
    )


def _opening(
    call: Callable[[], amberdb.Database], read_threads: int, write_threads: int
) -> "Opening[Database]":
    async def opened() -> Database:
        threads = Threads(read_threads, write_threads)
        try:
            return Database(threads, await threads.run("write", call, undo=_CLOSE))
        except BaseException:
            threads.close()
            raise

    return Opening(opened)


def _collection(db: "Database", blocking: amberdb.Collection) -> Collection:
    return Collection(blocking.name, db.threads, lambda: blocking)


def _subscriber(db: "Database", blocking: amberdb.Subscriber) -> Subscriber:
    return Subscriber(db.threads, blocking, db.blocking.changes)


@final
class Database(Face):
    """An open database, from aio.open(). Tasks of one event loop may share it."""

    def __init__(self, threads: Threads, blocking: amberdb.Database) -> None:
        super().__init__(threads, lambda: blocking)
        self.blocking = blocking
        """The same database as an amberdb.Database, for code that runs in its own threads."""
        self.path = blocking.path
        self.options = blocking.options
        self.recovery = blocking.recovery
        self.rescue = blocking.rescue

    def __getitem__(self, name: str) -> Collection:
        """The collection as the catalog declares it. Its methods raise CollectionMissingError."""

        def existing() -> amberdb.Collection:
            self.blocking.definition(name)
            return self.blocking.collection(name)

        return Collection(name, self.threads, existing)

    def transaction(
        self,
        *,
        sync: Sync | None = None,
        timeout_ms: int | None = None,
        isolation: Isolation | None = None,
    ) -> Transaction:
        """`async with db.transaction() as tx:` writes to several collections in one commit, or to
        none. It waits up to `timeout_ms` for transactions of other tasks, and then up to
        `timeout_ms` for the writer lock."""
        wait_ms = self.options.busy_timeout_ms if timeout_ms is None else timeout_ms
        blocking = self.blocking.transaction(sync=sync, timeout_ms=timeout_ms, isolation=isolation)
        return Transaction(self.threads, blocking, wait_ms)

    async def run(
        self,
        work: Callable[[Transaction], Awaitable[R]],
        *,
        sync: Sync | None = None,
        isolation: Isolation | None = None,
        attempts: int = ATTEMPTS,
    ) -> R:
        """Awaits `work` with a transaction, commits, and returns its result; on a server it is
        awaited again where another transaction was in the way. As amberdb.Database.run()."""
        for pause_s in pauses_s(attempts):
            try:
                async with self.transaction(sync=sync, isolation=isolation) as tx:
                    return await work(tx)
            except Overtaken:
                if pause_s is None:
                    raise
                await asyncio.sleep(pause_s)
        raise AssertionError("unreachable")

    def snapshot(self, *, max_age_ms: int | None = None) -> Opening[Snapshot]:
        """`async with db.snapshot() as at:` reads several collections at one Lsn."""

        async def taken() -> Snapshot:
            take = partial(self.blocking.snapshot, max_age_ms=max_age_ms)
            blocking = await self.threads.run("read", take, undo=_CLOSE)
            return Snapshot(self.threads, blocking)

        return Opening(taken)

    def changes(
        self, since: Lsn | None = None, *, follow: bool = False, timeout_s: float | None = None
    ) -> AsyncIterator[Change]:
        """Durable changes after `since`, in order, as amberdb.Database.changes(). With `follow` the
        iterator has its own thread and ends when its task is cancelled."""
        return stream_changes(self.threads, self.blocking.changes, since, follow, timeout_s)

    @property
    def archived_lsn(self) -> Lsn | None:
        """The Lsn of the newest backup, while the log still allows an incremental one after it."""
        return self.blocking.archived_lsn

    async def in_thread(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs your own blocking function in one of the threads for writes; its result."""
        return await self.threads.run("write", lambda: function(*args, **kwargs))

    async def close(self) -> None:
        """Checkpoints, syncs and releases the directory; a second call does nothing.

        Raises BusyError while a transaction is open, CommitUnknownError when the last sync failed.
        """
        if not self.threads.is_closed:
            await self.threads.run("write", self._end, must=True)

    def _end(self) -> None:
        try:
            self.blocking.close()
        except (BusyError, TransactionError):
            raise  # the database is still open
        except BaseException:
            self.threads.close()
            raise
        self.threads.close()

    collection = opens_face(amberdb.Database.collection, _collection)
    subscriber = opens_face(amberdb.Database.subscriber, _subscriber)
    rename_collection = writes(amberdb.Database.rename_collection)
    drop_collection = writes(amberdb.Database.drop_collection)
    collections = reads(amberdb.Database.collections)
    definition = reads(amberdb.Database.definition)
    migrate = writes(amberdb.Database.migrate)
    build_indexes = writes(amberdb.Database.build_indexes)
    refresh = reads(amberdb.Database.refresh)
    expire = writes(amberdb.Database.expire)
    accept_clock = writes(amberdb.Database.accept_clock)
    sync = writes(amberdb.Database.sync)
    checkpoint = writes(amberdb.Database.checkpoint)
    compact = writes(amberdb.Database.compact)
    upgrade = writes(amberdb.Database.upgrade)
    erase = writes(amberdb.Database.erase)
    erasures = reads(amberdb.Database.erasures)
    backups = reads(amberdb.Database.backups)
    check = reads(amberdb.Database.check)
    backup = writes(amberdb.Database.backup)
    stats = reads(amberdb.Database.stats)
