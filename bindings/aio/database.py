"""The database for the tasks of an event loop: `await` before what `amberdb` has.

    async with aio.open("memory.amber") as db:
        events = await db.collection("event", indexes=[Ordered("created_at")])
        await events.put({"content": "..."})
        async with db.transaction() as tx:
            await tx["event"].put({"content": "..."})

Invariants:
- Every call that may wait for a disk or a lock runs in a thread (aio_threads).
- A transaction is committed whole or not at all, wherever its task is cancelled, and then nothing
  holds the writer lock.
- A write from within the own open transaction is refused, as it is among threads: it would wait for
  itself.
"""

import os
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from functools import partial
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, final

import amberdb
from amberdb import BusyError, Change, Lsn, Sync, TransactionError
from amberdb.aio.collections import Collection
from amberdb.aio.face import Face, detached, gives, reads, writes
from amberdb.aio.feed import Subscriber, told
from amberdb.aio.threads import READ_THREADS, WRITE_THREADS, Threads
from amberdb.aio.transaction import Snapshot, Transaction

P = ParamSpec("P")
R = TypeVar("R")

check = detached(amberdb.check)
repair = detached(amberdb.repair)
restore = detached(amberdb.restore)
verify_backup = detached(amberdb.verify_backup)


class Closable(Protocol):
    """What an Opening gives."""

    async def close(self) -> None: ...


C = TypeVar("C", bound=Closable)


@final
class Opening(Generic[C]):
    """`async with` it, or `await` it and close what it gave."""

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
    **settings: Any,
) -> "Opening[Database]":
    """amberdb.open(), to be awaited or entered. So many reads run at once, and so many writes wait
    for one sync; further ones wait for a thread. Raises what amberdb.open() raises."""

    async def opened() -> Database:
        threads = Threads(read_threads, write_threads)
        make = partial(amberdb.open, path, create=create, read_only=read_only, **settings)
        try:
            return Database(threads, await threads.run("write", make, undo=amberdb.Database.close))
        except BaseException:
            threads.close()
            raise

    return Opening(opened)


def _collection(db: "Database", found: amberdb.Collection) -> Collection:
    return Collection(found.name, db.threads, lambda: found)


def _subscriber(db: "Database", found: amberdb.Subscriber) -> Subscriber:
    return Subscriber(db.threads, found, db.blocking.changes)


@final
class Database(Face):
    """An open database; made by aio.open(). Tasks of one event loop share it."""

    def __init__(self, threads: Threads, blocking: amberdb.Database) -> None:
        super().__init__(threads, lambda: blocking)
        self.blocking = blocking
        """The same database, for code that runs in threads of its own."""
        self.path = blocking.path
        self.options = blocking.options
        self.recovery = blocking.recovery
        self.rescue = blocking.rescue

    def __getitem__(self, name: str) -> Collection:
        """A collection as the catalog has it. Its calls raise CollectionMissingError."""

        def existing() -> amberdb.Collection:
            self.blocking.definition(name)
            return self.blocking.collection(name)

        return Collection(name, self.threads, existing)

    def transaction(
        self, *, sync: Sync | None = None, timeout_ms: int | None = None
    ) -> Transaction:
        """`async with db.transaction() as tx:` writes several collections in one commit, or none.
        `timeout_ms` is for the other tasks' turns, and again for the writer lock."""
        wait_ms = self.options.busy_timeout_ms if timeout_ms is None else timeout_ms
        blocking = self.blocking.transaction(sync=sync, timeout_ms=timeout_ms)
        return Transaction(self.threads, blocking, wait_ms)

    def snapshot(self, *, max_age_ms: int | None = None) -> Opening[Snapshot]:
        """`async with db.snapshot() as at:` reads several collections at one Lsn."""

        async def taken() -> Snapshot:
            take = partial(self.blocking.snapshot, max_age_ms=max_age_ms)
            found = await self.threads.run("read", take, undo=amberdb.Snapshot.close)
            return Snapshot(self.threads, found)

        return Opening(taken)

    def changes(
        self, since: Lsn | None = None, *, follow: bool = False, timeout_s: float | None = None
    ) -> AsyncIterator[Change]:
        """Changes of documents behind `since`, durable ones only, in order; as the blocking one. A
        follower has a thread of its own, and is cancelled like any other task."""
        return told(self.threads, self.blocking.changes, since, follow, timeout_s)

    @property
    def archived_lsn(self) -> Lsn | None:
        """Where the newest backup ends, while an incremental one can go on from there."""
        return self.blocking.archived_lsn

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What a function of your own gives, in one of the threads for writes."""
        return await self.threads.run("write", lambda: function(*args, **kwargs))

    async def close(self) -> None:
        """Checkpoints, syncs and lets go of the directory; a second call does nothing.

        Raises BusyError while a transaction is open, CommitUnknownError when the last sync failed.
        """
        if not self.threads.is_closed:
            await self.threads.run("write", self._end, must=True)

    def _end(self) -> None:
        try:
            self.blocking.close()
        except (BusyError, TransactionError):
            raise  # it is still open
        except BaseException:
            self.threads.close()
            raise
        self.threads.close()

    collection = gives(amberdb.Database.collection, _collection)
    subscriber = gives(amberdb.Database.subscriber, _subscriber)
    rename_collection = writes(amberdb.Database.rename_collection)
    drop_collection = writes(amberdb.Database.drop_collection)
    collections = reads(amberdb.Database.collections)
    definition = reads(amberdb.Database.definition)
    migrate = writes(amberdb.Database.migrate)
    build_indexes = writes(amberdb.Database.build_indexes)
    refresh = reads(amberdb.Database.refresh)
    expire = writes(amberdb.Database.expire)
    sync = writes(amberdb.Database.sync)
    checkpoint = writes(amberdb.Database.checkpoint)
    compact = writes(amberdb.Database.compact)
    erase = writes(amberdb.Database.erase)
    erasures = reads(amberdb.Database.erasures)
    check = reads(amberdb.Database.check)
    backup = writes(amberdb.Database.backup)
    stats = reads(amberdb.Database.stats)
