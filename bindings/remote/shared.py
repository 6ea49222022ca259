"""amberdb.connect(): a database that several processes write, and the collections of it.

Invariants:
- A process reads for itself: its reads see every commit that was acknowledged, its own first.
- The place of the leader is taken by the first that gets the lock; every other one finds it then.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar, Unpack, cast, final

import amberdb
from amberdb import (
    ClosedError,
    Collection,
    CollectionMissingError,
    Database,
    DatabaseMissingError,
    InvalidDocumentError,
    LockedError,
    OpenOptions,
    ReadOnlyError,
    Snapshot,
    Sync,
    TransactionError,
)
from amberdb.engine.database.open import open_to_follow
from amberdb.engine.options import Options
from amberdb.remote import place
from amberdb.remote.declaration import sent_declaration
from amberdb.remote.lane import Lane
from amberdb.remote.leader import READS, WRITES, Leader
from amberdb.remote.messages import LeaderGoneError, without_remove

TAKEOVER_S: Final = 20.0
"""How long a call looks for the next leader."""
EXCLUSIVE_S: Final = 2.0
"""How long connect() looks for the socket of a process that holds the lock."""
_PAUSE_S: Final = 0.005
_BLOCK: Final = 256
_T = TypeVar("_T")

_leaders: dict[str, Leader] = {}
_leaders_mutex = threading.Lock()


def connect(
    path: str | os.PathLike[str], *, create: bool = True, **settings: Unpack[OpenOptions]
) -> "SharedDatabase":
    """Opens a database that several processes of this machine read and write.

        db = amberdb.connect("memory.amber")

    The first process leads: it has the database open, with these options. Every other one reads for
    itself and sends its writes to it, with options for reading; when the leader ends, also by
    SIGKILL, one of them takes its place. A call that was under way is done once.

    Raises what amberdb.open() raises; LockedError when a process has the database open that does
    not share it.
    """
    return SharedDatabase(os.path.realpath(path), create=create, settings=settings)


@final
class SharedDatabase:
    """A database that connect() has opened. Threads may share it.

    It has the methods of a Database. Those that look after files (compact, backup, erase, ...) run
    in the process that leads, and raise ReadOnlyError in any other.
    """

    def __init__(self, path: str, *, create: bool, settings: OpenOptions) -> None:
        self.path = path
        self._settings = settings
        self._mutex = threading.Lock()
        self._lanes: list[Lane] = []
        self._reader: Database | None = None
        self._leader: Leader | None = None
        self._generation = 0
        """Counts the leaders that this process has known."""
        self._is_closed = False
        self._join(EXCLUSIVE_S, create=create)

    def __enter__(self) -> "SharedDatabase":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        role = "closed" if self._is_closed else "leads" if self.leads else "follows"
        return f"<amberdb.SharedDatabase {self.path!r} {role}>"

    @property
    def leads(self) -> bool:
        """Whether this process has the database open."""
        return self._leader is not None

    # -- collections -------------------------------------------------------------------------

    def __getitem__(self, name: str) -> "SharedCollection":
        """The existing collection of this name. Raises CollectionMissingError."""
        self.reading()[name]
        return SharedCollection(name, self)

    def collection(self, name: str, **declared: Any) -> "SharedCollection":
        """Creates or declares a collection, as Database.collection() does, and returns it. Raises
        CollectionError also for embed= and migrate=, unless this process leads."""
        leader = self._leader
        if leader is not None:
            leader.db.collection(name, **declared)
        else:
            sent = sent_declaration(name, declared)
            try:
                self.reading().collection(name, **declared)
            except (ReadOnlyError, CollectionMissingError):
                self._ask({"call": "declare", "name": name, "declaration": sent})
        return SharedCollection(name, self)

    def drop_collection(self, name: str) -> None:
        """Deletes a collection. Raises CollectionMissingError."""
        self._ask({"call": "drop", "name": name})

    def rename_collection(self, old: str, new: str) -> None:
        """Renames a collection. Raises CollectionMissingError, CollectionError."""
        self._ask({"call": "rename", "old": old, "new": new})

    def expire(self) -> int:
        """Removes the documents that have expired by now; returns how many."""
        return cast(int, self._ask({"call": "expire"}))

    # -- transactions and snapshots ------------------------------------------------------------

    @contextmanager
    def transaction(
        self, *, sync: Sync | None = None, timeout_ms: int | None = None
    ) -> Iterator[Any]:
        """A transaction, as Database.transaction(). Where another process leads, each call inside
        is a round trip, and it raises TransactionError when that process ends before the commit:
        nothing was stored, run it again."""
        leader = self._leader
        if leader is not None:
            with leader.db.transaction(sync=sync, timeout_ms=timeout_ms) as own:
                yield own
            return
        lane = self._lane()
        while True:
            generation = self._generation
            try:
                lane.begin(sync, timeout_ms)
                break
            except LeaderGoneError:
                if (leader := self._found(generation)) is not None:
                    self._lanes.append(lane)
                    with leader.db.transaction(sync=sync, timeout_ms=timeout_ms) as own:
                        yield own
                    return
        tx = SharedTransaction(self, lane)
        try:
            yield tx
        except BaseException:
            lane.roll_back()
            raise
        else:
            tx.lsn = lane.commit(self._finder())
        finally:
            tx.is_open = False
            self._lanes.append(lane)

    def check_transaction(self, tx: object) -> None:
        """Raises TransactionError unless `tx` is an open transaction of this database."""
        if isinstance(tx, SharedTransaction):
            if tx.is_of(self):
                return
            raise TransactionError("the transaction is of another database, or has ended")
        self._leading("check_transaction").check_transaction(cast(Any, tx))

    def snapshot(self, *, max_age_ms: int | None = None) -> Snapshot:
        """A snapshot, as Database.snapshot()."""
        return self.reading().snapshot(max_age_ms=max_age_ms)

    # -- the whole ---------------------------------------------------------------------------

    def reading(self) -> Database:
        """The database that this process reads: its own, or one that follows the leader's. Raises
        ClosedError."""
        leader, reader = self._leader, self._reader
        if leader is not None:
            return leader.db
        if reader is None:
            raise ClosedError("the database is closed: connect again")
        return reader

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in _READ:
            return getattr(self.reading(), name)
        if hasattr(Database, name):
            return getattr(self._leading(name), name)
        raise AttributeError(name)

    def close(self) -> None:
        """Closes it; the last of a process that leads lets another process lead. A second call does
        nothing."""
        with self._mutex:
            if self._is_closed:
                return
            self._is_closed = True
            leader, self._leader = self._leader, None
            reader, self._reader = self._reader, None
            for lane in self._lanes:
                lane.drop()
        if reader is not None:
            reader.close()
        if leader is not None:
            _give_back(leader)

    # -- inside ------------------------------------------------------------------------------

    def write(self, collection: str, method: str, *args: Any, **kwargs: Any) -> Any:
        """Does a write of a collection."""
        sync = kwargs.pop("sync", None)
        leader = self._leader
        if leader is not None:
            return getattr(leader.db[collection], method)(*args, sync=sync, **kwargs)
        request = {
            "call": "write",
            "collection": collection,
            "method": method,
            "args": args,
            "kwargs": kwargs,
            "sync": sync,
        }
        lane = self._lane()
        try:
            return lane.write(request, self._finder())
        finally:
            self._lanes.append(lane)

    def _ask(self, request: Mapping[str, Any]) -> Any:
        """A call that has the same effect when it is done twice."""
        while True:
            leader, generation = self._leader, self._generation
            if leader is not None:
                return _done_here(leader.db, request)
            lane = self._lane()
            try:
                return lane.ask(request)
            except LeaderGoneError:
                self._found(generation)
            finally:
                self._lanes.append(lane)

    def _lane(self) -> Lane:
        if self._is_closed:
            raise ClosedError("the database is closed: connect again")
        try:
            return self._lanes.pop()
        except IndexError:
            return Lane(self.path)

    def _finder(self) -> Callable[[bool], Leader | None]:
        """For one call of a lane: the leader of this process, with True after the one that it
        spoke with is gone."""
        generation = self._generation

        def find(is_lost: bool) -> Leader | None:
            nonlocal generation
            if is_lost:
                self._found(generation)
                generation = self._generation
            return self._leader

        return find

    def _found(self, generation: int) -> Leader | None:
        """The leader of this process after the one of a generation is gone; None when another
        process leads. Raises LockedError when there is none."""
        with self._mutex:
            if self._is_closed:
                raise ClosedError("the database is closed: connect again")
            if self._generation == generation:
                self._join(TAKEOVER_S, create=False)
        return self._leader

    def _join(self, wait_s: float, *, create: bool) -> None:
        """Finds the leader, or becomes it."""
        until = time.monotonic() + wait_s
        while True:
            leader = _own_leader(self.path)
            if leader is None and not self._serves():
                try:
                    leader = _lead(self.path, create, self._settings)
                except LockedError as error:
                    if time.monotonic() > until:
                        raise LockedError(
                            f"{error.message.split(': ')[0]}, which does not share it: open it "
                            "there with amberdb.connect() too",
                            **error.facts,
                        ) from None
                    time.sleep(random.uniform(_PAUSE_S, 4 * _PAUSE_S))
                    continue
            if leader is None and self._reader is None:
                self._reader = _follow(self.path, self._settings)
                if self._reader is None:
                    continue
            self._leader = leader
            self._generation += 1
            return

    def _serves(self) -> bool:
        """Whether a leader takes connections."""
        try:
            place.connected(self.path).close()
        except PermissionError:
            raise
        except OSError:
            return False
        return True

    def _leading(self, verb: str) -> Database:
        if self._is_closed:
            raise ClosedError("the database is closed: connect again")
        if self._leader is None:
            raise ReadOnlyError(
                f"another process leads {self.path}: call {verb}() there, or stop it", path=self.path
            )
        return self._leader.db


_READ: Final = frozenset(
    {"changes", "collections", "definition", "refresh", "stats", "options", "archived_lsn"}
)
"""What a process does for itself, whoever leads."""


@final
class SharedCollection:
    """A collection of a SharedDatabase: the methods of a Collection."""

    def __init__(self, name: str, db: SharedDatabase) -> None:
        self.name = name
        self._db = db
        self._at: tuple[Database, Collection] | None = None

    def __repr__(self) -> str:
        return f"<amberdb.SharedCollection {self.name!r} of {self._db.path!r}>"

    def _reading(self) -> Collection:
        db = self._db.reading()
        at = self._at
        if at is None or at[0] is not db:
            at = self._at = db, db[self.name]
        return at[1]

    def __getattr__(self, name: str) -> Any:
        if name in _READ_METHODS:
            return getattr(self._reading(), name)
        if name in ("embed_missing", "expire"):
            return getattr(self._db.__getattr__("_leading_collection")(self.name), name)
        raise AttributeError(name)

    def __contains__(self, id: object) -> bool:
        return id in self._reading()

    def __len__(self) -> int:
        return len(self._reading())

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._reading())

    def __getitem__(self, id: str) -> amberdb.Document:
        return self._reading()[id]

    def __delitem__(self, id: str) -> None:
        if not self._db.write(self.name, "delete", id):
            del self._reading()[id]  # raises as a collection does

    def put(self, document: Mapping[str, Any], *, sync: Sync | None = None) -> str:
        """As Collection.put()."""
        return cast(str, self._put("put", document, sync))

    def insert(self, document: Mapping[str, Any], *, sync: Sync | None = None) -> str:
        """As Collection.insert()."""
        return cast(str, self._put("insert", document, sync))

    def put_many(
        self,
        documents: Sequence[Mapping[str, Any]],
        *,
        on_conflict: str = "replace",
        sync: Sync | None = None,
    ) -> list[str]:
        """As Collection.put_many()."""
        documents = list(documents)
        return cast(
            list[str], self._put("put_many", documents, sync, on_conflict=on_conflict)
        )

    def update(
        self,
        id: str,
        patch: amberdb.Patch,
        *,
        if_version: int | None = None,
        sync: Sync | None = None,
    ) -> amberdb.Lsn:
        """As Collection.update()."""
        sent = without_remove(patch)
        lsn = self._put("update", id, sync, patch=sent, if_version=if_version)
        return amberdb.Lsn(lsn)

    def delete(self, id: str, *, sync: Sync | None = None) -> bool:
        """As Collection.delete()."""
        return bool(self._db.write(self.name, "delete", id, sync=sync))

    def delete_many(
        self,
        where: amberdb.Where | None = None,
        *,
        ids: Sequence[str] | None = None,
        sync: Sync | None = None,
    ) -> int:
        """As Collection.delete_many()."""
        ids = None if ids is None else list(ids)
        return cast(int, self._db.write(self.name, "delete_many", where, ids=ids, sync=sync))

    def touch(self, ids: Sequence[str], until: Any, *, sync: Sync | None = None) -> int:
        """As Collection.touch()."""
        return cast(int, self._db.write(self.name, "touch", list(ids), until, sync=sync))

    def _put(self, method: str, first: Any, sync: Sync | None, **more: Any) -> Any:
        try:
            return self._db.write(self.name, method, first, sync=sync, **more)
        except TypeError as error:
            raise InvalidDocumentError(str(error)) from None


_READ_METHODS: Final = READS | {"documents", "name"}


@final
class SharedTransaction:
    """A transaction that another process holds."""

    def __init__(self, db: SharedDatabase, lane: Lane) -> None:
        self._db = db
        self._lane = lane
        self.is_open = True
        self.lsn: int = amberdb.NO_LSN if hasattr(amberdb, "NO_LSN") else 0

    def __getitem__(self, name: str) -> "SharedTransactionCollection":
        return SharedTransactionCollection(name, self)

    def collection(self, name: str) -> "SharedTransactionCollection":
        """The same as tx[name]."""
        return self[name]

    def is_of(self, db: SharedDatabase) -> bool:
        """Whether it is an open transaction of this database."""
        return self.is_open and self._db is db

    def call(self, collection: str, method: str, *args: Any, **kwargs: Any) -> Any:
        """The result of a call inside. Raises ClosedError after the end."""
        if not self.is_open:
            raise ClosedError("the transaction is not open: use it inside its `with` block")
        request = {"collection": collection, "method": method, "args": args, "kwargs": kwargs}
        return self._lane.inside(request)


@final
class SharedTransactionCollection:
    """A collection inside a SharedTransaction."""

    def __init__(self, name: str, tx: SharedTransaction) -> None:
        self.name = name
        self._tx = tx

    def __getattr__(self, method: str) -> Any:
        if method not in READS and method not in WRITES:
            raise AttributeError(method)

        def call(*args: Any, **kwargs: Any) -> Any:
            if method == "update":
                args, kwargs = without_remove_in(args, kwargs)
            return self._tx.call(self.name, method, *args, **kwargs)

        return call

    def __contains__(self, id: object) -> bool:
        return bool(self._tx.call(self.name, "__contains__", id))

    def __len__(self) -> int:
        return cast(int, self._tx.call(self.name, "__len__"))

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, id: str) -> amberdb.Document:
        return cast(amberdb.Document, self._tx.call(self.name, "record", id).document)

    def documents(self) -> Iterator[amberdb.Document]:
        """All documents, in blocks."""
        after: str | None = None
        while True:
            page = self._tx.call(self.name, "find", {}, limit=_BLOCK, after=after)
            yield from page
            after = page.cursor
            if after is None:
                return


def without_remove_in(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The arguments of update() as they are sent."""
    return tuple(map(without_remove, args)), {k: without_remove(v) for k, v in kwargs.items()}


# -- leaders of this process ---------------------------------------------------------------------


def _own_leader(path: str) -> Leader | None:
    """The leader, if this process leads already; one more share of it."""
    with _leaders_mutex:
        leader = _leaders.get(path)
        if leader is not None:
            leader.handles += 1
        return leader


def _lead(path: str, create: bool, settings: OpenOptions) -> Leader:
    """Opens the database and serves it. Raises LockedError and what open() raises."""
    with _leaders_mutex:
        db = amberdb.open(path, create=create, **settings)
        try:
            leader = _leaders[path] = Leader(path, db)
        except BaseException:
            db.close()
            raise
        return leader


def _give_back(leader: Leader) -> None:
    with _leaders_mutex:
        leader.handles -= 1
        if leader.handles:
            return
        del _leaders[leader.path]
    leader.close()


def _follow(path: str, settings: OpenOptions) -> Database | None:
    """The database as it is read; None when its leader has not made it yet."""
    try:
        return open_to_follow(path, Options(**settings))
    except DatabaseMissingError:
        time.sleep(_PAUSE_S)
        return None


def _done_here(db: Database, request: Mapping[str, Any]) -> Any:
    call = request["call"]
    if call == "drop":
        return db.drop_collection(request["name"])
    if call == "rename":
        return db.rename_collection(request["old"], request["new"])
    if call == "expire":
        return db.expire()
    from amberdb.remote.declaration import received_declaration

    return db.collection(request["name"], **received_declaration(request["declaration"]))
