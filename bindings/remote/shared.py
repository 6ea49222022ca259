"""A database that several processes write.

Invariants:
- A process reads for itself: its reads see every commit that was acknowledged, its own first.
- The place of the leader is taken by the first that gets the lock; every other one finds it then.
"""

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast, final

from amberdb._errors import (
    ClosedError,
    CollectionMissingError,
    DatabaseMissingError,
    LockedError,
    ReadOnlyError,
    TransactionError,
)
from amberdb._types import Lsn, Sync
from amberdb.engine.database.database import Database
from amberdb.engine.database.handle import Handle
from amberdb.engine.database.open import open_database, open_to_follow
from amberdb.engine.database.transaction import Transaction
from amberdb.engine.options import OpenOptions, Options
from amberdb.engine.schema.migration import Upgrade
from amberdb.index.registry import IndexSpec
from amberdb.remote import place
from amberdb.remote.collection import SharedCollection
from amberdb.remote.declaration import sent_declaration
from amberdb.remote.lane import Lane
from amberdb.remote.leader import Leader
from amberdb.remote.messages import LeaderGoneError
from amberdb.remote.transaction import SharedTransaction

TAKEOVER_S: Final = 20.0
"""How long a call looks for the next leader."""
EXCLUSIVE_S: Final = 2.0
"""How long connect() looks for the socket of a process that holds the lock."""
_PAUSE_S: Final = 0.005

_leaders: dict[str, Leader] = {}
_leaders_mutex = threading.Lock()


@final
class SharedDatabase(Database):
    """A database that connect() has opened. Threads may share it.

    It has the methods of a Database. Those that look after files (compact, backup, erase, ...) run
    in the process that leads, and raise ReadOnlyError in any other.
    """

    def __init__(self, path: str, *, create: bool, settings: OpenOptions) -> None:
        # Not that of Database: its handle changes with the leader.
        self.path = path
        self.options = Options(**settings)
        self.recovery = None
        self.rescue = None
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

    def __repr__(self) -> str:
        role = "closed" if self._is_closed else "leads" if self.leads else "follows"
        return f"<amberdb.SharedDatabase {self.path!r} {role}>"

    @property
    def leads(self) -> bool:
        """Whether this process has the database open."""
        return self._leader is not None

    @property
    def _handle(self) -> Handle:  # type: ignore[override]
        return self.handle()

    def handle(self) -> Handle:
        """The handle of the database that this process reads."""
        return self.reading()._handle

    # -- collections -------------------------------------------------------------------------

    def __getitem__(self, name: str) -> "SharedCollection":
        """The existing collection of this name. Raises CollectionMissingError."""
        self.reading()[name]
        return SharedCollection(name, self)

    def collection(
        self,
        name: str,
        *,
        indexes: Sequence[IndexSpec] | None = None,
        expires_at: str | None = None,
        required: Mapping[str, type | None] | Sequence[str] | None = None,
        version: int | None = None,
        migrate: Mapping[int, Upgrade] | None = None,
        owner: str | None = None,
    ) -> "SharedCollection":
        """Creates or declares a collection, as Database.collection() does. Where another process
        leads, it raises CollectionError also for embed=, and for stored documents that are to be
        upgraded: their functions are in this process."""
        declared: dict[str, Any] = {
            "indexes": indexes,
            "expires_at": expires_at,
            "required": required,
            "version": version,
            "migrate": migrate,
            "owner": owner,
        }
        leader = self._leader
        if leader is not None:
            leader.db.collection(name, **declared)
            return SharedCollection(name, self)
        sent = sent_declaration(name, declared)
        try:
            self.reading().collection(name, **declared)
        except (ReadOnlyError, CollectionMissingError):
            self._ask({"call": "declare", "name": name, "declaration": sent})
            self.reading().collection(name, **declared)
        return SharedCollection(name, self)

    def drop_collection(self, name: str) -> None:
        """As Database.drop_collection()."""
        self._ask({"call": "drop", "name": name})

    def rename_collection(self, old: str, new: str) -> None:
        """As Database.rename_collection()."""
        self._ask({"call": "rename", "old": old, "new": new})

    def expire(self) -> int:
        """As Database.expire()."""
        return cast(int, self._ask({"call": "expire"}))

    # -- transactions and snapshots ------------------------------------------------------------

    def transaction(
        self, *, sync: Sync | None = None, timeout_ms: int | None = None
    ) -> Transaction:
        """A transaction, as Database.transaction(). Where another process leads, each call inside
        is a round trip, and it raises TransactionError when that process ends before the commit:
        nothing was stored, run it again."""
        leader = self._leader
        if leader is not None:
            return leader.db.transaction(sync=sync, timeout_ms=timeout_ms)
        return SharedTransaction(self, sync, timeout_ms)

    def begun(self, sync: Sync | None, timeout_ms: int | None) -> Lane | Transaction:
        """A lane with a transaction that was begun; or, once this process leads, one that is not
        begun yet."""
        lane = self._lane()
        while True:
            generation = self._generation
            try:
                lane.begin(sync, timeout_ms)
                return lane
            except LeaderGoneError:
                leader = self._found(generation)
                if leader is not None:
                    self._keep(lane)
                    return leader.db.transaction(sync=sync, timeout_ms=timeout_ms)
            except BaseException:
                self._keep(lane)
                raise

    def committed(self, lane: Lane) -> Lsn:
        """Commits the transaction of a lane."""
        try:
            return Lsn(lane.commit(self._finder()))
        finally:
            self._keep(lane)

    def rolled_back(self, lane: Lane) -> None:
        """Rolls the transaction of a lane back."""
        lane.roll_back()
        self._keep(lane)

    def check_transaction(self, tx: Transaction) -> None:
        """Raises TransactionError unless `tx` is an open transaction of this database."""
        if not isinstance(tx, SharedTransaction):
            super().check_transaction(tx)
        elif not tx.is_of(self):
            raise TransactionError("the transaction is of another database, or has ended")

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
            self._keep(lane)

    def _ask(self, request: Mapping[str, Any]) -> Any:
        """A call that has the same effect when it is done twice."""
        while True:
            leader, generation = self._leader, self._generation
            if leader is not None:
                return leader.do(request)
            lane = self._lane()
            try:
                return lane.ask(request)
            except LeaderGoneError:
                self._found(generation)
            finally:
                self._keep(lane)

    def _lane(self) -> Lane:
        if self._is_closed:
            raise ClosedError("the database is closed: connect again")
        try:
            return self._lanes.pop()
        except IndexError:
            return Lane(self.path)

    def _keep(self, lane: Lane) -> None:
        """Keeps a lane for the next call."""
        self._lanes.append(lane)
        if self._is_closed:
            lane.drop()

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


# -- leaders of this process ---------------------------------------------------------------------


def _own_leader(path: str) -> Leader | None:
    """The leader, if this process leads already; one more share of it."""
    with _leaders_mutex:
        return _shared_leader(path)


def _lead(path: str, create: bool, settings: OpenOptions) -> Leader:
    """Opens the database and serves it; a share of the leader, if another thread was faster. Raises
    LockedError and what open() raises."""
    with _leaders_mutex:
        leader = _shared_leader(path)
        if leader is not None:
            return leader
        db = open_database(path, create=create, **settings)
        try:
            leader = _leaders[path] = Leader(path, db)
        except BaseException:
            db.close()
            raise
        return leader


def _shared_leader(path: str) -> Leader | None:
    """One more share of the leader; None where there is none. The caller holds the mutex."""
    leader = _leaders.get(path)
    if leader is not None:
        leader.handles += 1
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
