"""The part of one connect() in a shared database: it leads, or it follows whoever does.

    no leader            the first that gets the lock leads: it opens the database and serves it
    another process's    it reads the files for itself, and sends requests over lanes
    the leader ends      whoever notices joins again

Invariants:
- A process has one leader at most, which all its connections share.
- A call that meets a leader that has ended goes on with the next one, whoever that is.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, final

from amberdb._errors import ClosedError, DatabaseMissingError, ForkedError, LockedError
from amberdb._types import Sync
from amberdb.engine.database.database import Database
from amberdb.engine.database.open import open_to_follow, open_to_share
from amberdb.engine.options import OpenOptions, Options
from amberdb.remote.greeting import hello_of, is_served
from amberdb.remote.lane import Lane
from amberdb.remote.leader import Leader
from amberdb.remote.messages import LeaderGoneError, Progressed

WAIT_S: Final = 60.0
"""How long a call looks for the next leader, which may have a long log to read."""
EXCLUSIVE_S: Final = 0.5
"""How long LOCK has to say that its owner does not share. One that has just taken the lock has yet
to write its name over that of the owner before it."""
_PAUSE_S: Final = 0.005

_leaders: dict[str, Leader] = {}
_leaders_mutex = threading.Lock()
_forks = 0
"""Of this process since it was first forked."""


@final
class Membership:
    """Threads may share it."""

    def __init__(
        self,
        path: str,
        settings: OpenOptions,
        on_leading: Callable[[Database], None],
        *,
        create: bool,
    ) -> None:
        """`on_leading` is called with the database when this process begins to lead. Raises as
        connect()."""
        self.path = path
        self.leader: Leader | None = None
        """Of this process; None while another one leads. From then on it leads until close()."""
        self.own: Database | None = None
        """The open database of a process that leads."""
        self.is_closed = False
        self._settings = settings
        self._hello = hello_of(settings)
        self._on_leading = on_leading
        self._mutex = threading.Lock()
        self._lanes: list[Lane] = []
        self._reader: Database | None = None
        self._generation = 0
        """Counts the leaders that this process has known."""
        self._forks = _forks
        self._join(create=create)

    @property
    def reading(self) -> Database:
        """The database that this process reads: its own, or one that follows the leader's. Raises
        ClosedError."""
        reading = self.own or self._reader
        if reading is None:
            raise _closed()
        return reading

    def close(self) -> None:
        """Closes it; the last of a process that leads lets another process lead. A second call does
        nothing. In a forked child it closes what it has of the parent's connections. Raises as
        Database.close() does, and then it is open."""
        if self._forks != _forks:
            self.is_closed, self.leader = True, None
            for lane in self._lanes:
                lane.drop()
            return
        if self.own is not None:
            self.own.close()
        with self._mutex:
            if self.is_closed:
                return
            self.is_closed = True
            leader, self.leader = self.leader, None
            reader, self._reader = self._reader, None
            self.own = None
            for lane in self._lanes:
                lane.drop()
        if reader is not None:
            reader.close()
        if leader is not None:
            _give_back(leader)

    # -- requests ----------------------------------------------------------------------------

    def ask(self, request: Mapping[str, Any], progress: Progressed | None = None) -> Any:
        """The result of a request that has the same effect when it is done twice, however long it
        takes. Raises what it raises."""
        while True:
            leader, generation = self.leader, self._generation
            if leader is not None:
                return leader.do(request, progress)
            lane = self._lane()
            try:
                return lane.ask(request, progress, is_long=True)
            except LeaderGoneError:
                self._found(generation)
            finally:
                self._keep(lane)

    def write(self, request: dict[str, Any]) -> Any:
        """The result of a write, which is done once. Raises what it raises."""
        lane = self._lane()
        try:
            return lane.write(request, self._finder())
        finally:
            self._keep(lane)

    def begun(self, sync: Sync | None, timeout_ms: int | None) -> Lane | Leader:
        """A lane with a transaction that was begun; or, once this process leads, its leader."""
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
                    return leader
            except BaseException:
                self._keep(lane)
                raise

    def committed(self, lane: Lane) -> int:
        """Commits the transaction of a lane; its Lsn."""
        try:
            return lane.commit(self._finder())
        finally:
            self._keep(lane)

    def rolled_back(self, lane: Lane) -> None:
        """Rolls the transaction of a lane back."""
        lane.roll_back()
        self._keep(lane)

    def _lane(self) -> Lane:
        if self.is_closed:
            raise _closed()
        if self._forks != _forks:
            raise ForkedError(
                f"{self.path} was connected to before this process was forked: connect in the "
                "child",
                path=self.path,
            )
        try:
            return self._lanes.pop()
        except IndexError:
            return Lane(self.path, self._hello)

    def _keep(self, lane: Lane) -> None:
        """Keeps a lane for the next call."""
        self._lanes.append(lane)
        if self.is_closed:
            lane.drop()

    # -- joining -----------------------------------------------------------------------------

    def _finder(self) -> Callable[[bool], Leader | None]:
        """For one call of a lane: the leader of this process, with True after the one that it
        spoke with is gone."""
        generation = self._generation

        def find(is_lost: bool) -> Leader | None:
            nonlocal generation
            if is_lost:
                self._found(generation)
                generation = self._generation
            return self.leader

        return find

    def _found(self, generation: int) -> Leader | None:
        """The leader of this process after the one of a generation is gone; None when another
        process leads. Raises LockedError when there is none."""
        with self._mutex:
            if self.is_closed:
                raise _closed()
            if self._generation == generation:
                self._join(create=False)
        return self.leader

    def _join(self, *, create: bool) -> None:
        """Finds the leader, or becomes it. Raises LockedError when a process has the database open
        that does not share it."""
        began = time.monotonic()
        while True:
            leader = _own_leader(self.path)
            if leader is None and not is_served(self.path, self._hello):
                try:
                    leader = _lead(self.path, create, self._settings)
                except LockedError as error:
                    wait_s = WAIT_S if error.facts["is_shared"] else EXCLUSIVE_S
                    if time.monotonic() - began > wait_s:
                        raise _not_shared(error) from None
                    time.sleep(random.uniform(_PAUSE_S, 4 * _PAUSE_S))  # it is about to serve
                    continue
            if leader is None and self._reader is None:
                self._reader = _follow(self.path, self._settings)
                if self._reader is None:
                    continue
            if leader is not None:
                self.own = open_to_share(self.path, create=False, settings={})
                self._on_leading(self.own)
            self.leader = leader
            self._generation += 1
            return


def _closed() -> ClosedError:
    return ClosedError("the database is closed: connect again")


def _not_shared(error: LockedError) -> LockedError:
    what = error.message.split(": ")[0]
    if error.facts["is_shared"]:
        what += f", which has not answered for {WAIT_S:g} s: end it, or wait for it"
    else:
        what += ", which does not share it: open it there with amberdb.connect() too"
    return LockedError(what, **error.facts)


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
        db = open_to_share(path, create=create, settings=settings)
        try:
            leader = _leaders[path] = Leader(path, db, hello_of(settings))
        except BaseException:
            db.close()
            raise
        return leader


def _forget_after_fork() -> None:
    """In a forked child: the leaders are the parent's, which a socket that stays open here would
    outlive."""
    global _forks, _leaders_mutex
    _forks += 1
    _leaders_mutex = threading.Lock()
    for leader in _leaders.values():
        leader.forget()
    _leaders.clear()


os.register_at_fork(after_in_child=_forget_after_fork)


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
