"""The change feed of a database on a server: readers of the outbox, outbox.py.

    commit -> a row without a position -> the next reader numbers all rows that it sees, in the
    order of their locks -> every reader goes by these positions

Invariants:
- A position is given once, under a lock that readers have one at a time, and after every position
  that was given before. So each change comes once, and those of one document in the order of its
  commits: what a commit has waited for is seen, and numbered, before it or with it.
- Positions are durable before a change is told, and with them every commit before them.
- The sequence of positions is that of versions: a position is larger than each Lsn that the commit
  could have read.
- Nobody waits between two batches: no transaction is open then.
"""

import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any, Final, TypeVar, final

from amberdb._attempts import Overtaken
from amberdb._errors import ClosedError, LogTruncatedError, QueryError
from amberdb._time import time_of
from amberdb._types import NO_LSN, Lsn
from amberdb.engine.commit.change_feed import Change, Op, Subscriber, subscriber_name
from amberdb.engine.storage.readable import Owner
from amberdb.postgres.connections import Rows
from amberdb.postgres.declarations import Declarations
from amberdb.postgres.feed.outbox import Outbox
from amberdb.postgres.json_text import loads
from amberdb.postgres.session import Sessions
from amberdb.postgres.table import lock_number

_T = TypeVar("_T")
POLL_S: Final = 0.05
"""Between two looks of a reader that follows."""
_COMMITS: Final = 500
_BYTES: Final = 4 << 20
"""Commits are read in batches of so many, and of about so many bytes."""
_PRUNED: Final = 5000
"""Commits that one transaction prunes."""
_KEPT_US: Final = 600_000_000
"""How long changes are there that no subscriber waits for."""
_ATTEMPTS: Final = 5


@final
class Feed:
    """The feed of one database, and the positions of its subscribers."""

    def __init__(self, sessions: Sessions, declarations: Declarations) -> None:
        self._sessions = sessions
        self._connections = sessions.connections
        self._declarations = declarations
        database = sessions.catalogues.database
        self._outbox = outbox = Outbox(database)
        self._closed = Event()
        self.on_acknowledged: Callable[[], None] = _nothing
        """Called when there may be something to prune."""
        lock = lock_number(f"{database}.feed".encode())
        self._alone = (
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = on; "
            f"SET LOCAL lock_timeout = {max(1, sessions.options.busy_timeout_ms)}; "
            f"SELECT 1 FROM pg_advisory_xact_lock({lock})"
        )
        self._numbered = (
            f"UPDATE {outbox.commits} c SET position = o.position FROM (SELECT number, "
            f"nextval('{outbox.lsn}') AS position FROM (SELECT number FROM {outbox.commits} "
            "WHERE position IS NULL ORDER BY number) n) o WHERE c.number = o.number "
            "RETURNING 1"
        )
        self._read = (
            f"SELECT s.position, r.* FROM {outbox.start} s LEFT JOIN LATERAL ("
            "SELECT n.position, n.time_us, h.name, h.op, h.key, h.document, h.new_name "
            "FROM (SELECT *, sum(bytes) OVER (ORDER BY position) - bytes AS before FROM ("
            f"SELECT * FROM {outbox.commits} WHERE position > %s ORDER BY position "
            f"LIMIT {_COMMITS}) c) n JOIN {outbox.changes} h USING (number) "
            f"WHERE n.before < {_BYTES} ORDER BY n.position, h.place) r ON true"
        )
        self._pruned = (
            "WITH floor AS (SELECT greatest("
            f"coalesce((SELECT min(position) FROM {outbox.subscribers}), "
            f"(SELECT max(position) FROM {outbox.commits} WHERE time_us < %s)), "
            "(SELECT max(position) FROM (SELECT position, sum(bytes) OVER (ORDER BY position DESC) "
            f"AS newer FROM {outbox.commits} WHERE position IS NOT NULL) c WHERE newer > %s)"
            f") AS position), gone AS (DELETE FROM {outbox.commits} WHERE number IN ("
            f"SELECT number FROM {outbox.commits} WHERE position <= (SELECT position FROM floor) "
            f"ORDER BY position LIMIT {_PRUNED}) RETURNING number, position), "
            f"changes AS (DELETE FROM {outbox.changes} h USING gone g WHERE h.number = g.number), "
            f"start AS (UPDATE {outbox.start} SET position = (SELECT max(position) FROM gone) "
            "WHERE EXISTS (SELECT 1 FROM gone)) SELECT count(*) FROM gone"
        )

    def close(self) -> None:
        """Ends the iterations that wait for changes."""
        self._closed.set()

    def start(self) -> None:
        """Lets writers fill the outbox from now on. Raises TransactionError, BusyError."""
        sessions = self._sessions
        if sessions.catalogues.known.catalogue.outbox is None:
            sessions.reading().close()  # the newest catalog
        if sessions.catalogues.known.catalogue.outbox is None:
            sessions.check_outside()
            self._declarations.start_feed()

    def subscriber(self, name: str, owner: Owner, since: Lsn | None) -> Subscriber:
        """The subscriber with this name, created at `since` (None: at the newest commit). Raises
        QueryError."""
        name = subscriber_name(name)

        def create() -> None:
            self._order()
            last = self._last()
            start = last if since is None else since
            _check_there(start, last)
            sql = f"INSERT INTO {self._outbox.subscribers} VALUES (%s, %s) ON CONFLICT DO NOTHING"
            self._write(f"{sql} RETURNING 1", [name.encode(), start])

        self._started(create)
        return Subscriber(self, name, owner)

    def positions(self) -> dict[str, Lsn]:
        """The positions of the subscribers, by name."""
        try:
            rows = self._connections.read(f"SELECT * FROM {self._outbox.subscribers}", [])
        except Overtaken:
            return {}
        return {name.decode(): Lsn(position) for name, position in sorted(rows)}

    def position(self, name: str) -> Lsn:
        """The last Lsn that a subscriber has acknowledged; NO_LSN of one that was removed."""
        return self.positions().get(name, NO_LSN)

    def move(self, name: str, lsn: Lsn | None) -> None:
        """Stores a position; with None removes the subscriber, and with the last one the outbox.
        Raises QueryError for an Lsn that no change has yet."""
        subscribers = self._outbox.subscribers

        def move() -> None:
            assert lsn is not None
            _check_there(lsn, self._last())
            self._write(
                f"INSERT INTO {subscribers} AS s VALUES (%s, %s) ON CONFLICT (name) DO UPDATE "
                "SET position = excluded.position RETURNING 1",
                [name.encode(), lsn],
            )

        if lsn is not None:
            self._started(move)
            self.on_acknowledged()
            return
        self._sessions.check_outside()
        try:
            self._write(f"DELETE FROM {subscribers} WHERE name = %s RETURNING 1", [name.encode()])
        except Overtaken:
            return
        self._declarations.stop_feed()

    def changes(
        self, owner: Owner, since: Lsn | None, follow: bool, timeout_s: float | None
    ) -> Iterator[Change]:
        """The changes after `since` (None: from the oldest one that is there). With `follow` it
        looks for more, each time up to `timeout_s`, until the owner is closed. Raises
        LogTruncatedError with `resume`."""
        last = since
        waits_from = time.monotonic()
        while not self._closed.is_set():
            try:
                batch = self._batch(last)
            except ClosedError:
                return
            for change in batch:
                owner.check_open()
                last = change.lsn
                yield change
            if batch:
                waits_from = time.monotonic()
                continue
            left_s = POLL_S
            if timeout_s is not None:
                left_s = min(left_s, waits_from + timeout_s - time.monotonic())
            if not follow or left_s <= 0 or self._closed.wait(left_s):
                return

    def settle(self) -> None:
        """Gives positions to all commits so far: those after the newest Lsn are of later ones."""
        if self._sessions.catalogues.known.catalogue.outbox is not None:
            try:
                self._order()
            except Overtaken:
                pass  # there is no outbox

    def prune(self) -> None:
        """Removes what every subscriber has acknowledged, and what is more than
        `subscriber_log_bytes_max`."""
        options = self._sessions.options
        now_us = self._sessions.catalogues.now_us(time.time_ns() // 1000)
        values = [now_us - _KEPT_US, options.subscriber_log_bytes_max]
        count = _PRUNED
        try:
            while count == _PRUNED and not self._closed.is_set():
                self._order()
                count = self._write(self._pruned, values)[0][0]
        except Overtaken:
            pass  # there is no outbox

    # -- inside ------------------------------------------------------------------------------

    def _batch(self, after: Lsn | None) -> list[Change]:
        """The next changes, of whole commits."""

        def batch() -> Rows:
            self._order()
            return self._connections.read(self._read, [-1 if after is None else after])

        rows = self._started(batch)
        start = rows[0][0]
        if after is not None and after < start:
            raise LogTruncatedError(
                f"the outbox no longer has the changes after Lsn {after}: go on from Lsn {start}, "
                "and read the documents for what is before it",
                resume=Lsn(start),
            )
        return [_change(*row[1:]) for row in rows if row[1] is not None]

    def _order(self) -> None:
        """Gives positions to the commits that have none."""
        waiting = f"SELECT 1 FROM {self._outbox.commits} WHERE position IS NULL LIMIT 1"
        if self._connections.read(waiting, []):
            self._write(self._numbered, [])

    def _last(self) -> Lsn:
        """The newest Lsn that was given; positions that are given later are larger."""
        return Lsn(self._connections.read(f"SELECT last_value FROM {self._outbox.lsn}", [])[0][0])

    def _started(self, call: Callable[[], _T]) -> _T:
        """Makes a call that needs the outbox, which another process may remove or make anew."""
        for left in reversed(range(_ATTEMPTS)):
            self.start()
            try:
                return call()
            except Overtaken:
                if not left:
                    raise
                self._sessions.reading().close()  # the newest catalog
        raise AssertionError("unreachable")

    def _write(self, statement: str, values: list[Any]) -> Rows:
        return self._connections.write(self._alone, statement, values)


def _change(
    position: int,
    time_us: int,
    name: bytes,
    op: Op,
    key: bytes,
    document: bytes | None,
    new_name: bytes | None,
) -> Change:
    return Change(
        Lsn(position),
        time_of(time_us),
        name.decode(),
        op,
        key.decode(),
        None if document is None else loads(document),
        None if new_name is None else new_name.decode(),
    )


def _check_there(lsn: Lsn, last: Lsn) -> None:
    if lsn > last:
        raise QueryError(f"there is no Lsn {lsn} yet: acknowledge the lsn of a change")


def _nothing() -> None: ...
