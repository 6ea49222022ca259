"""The connections of one database to its server, and transactions on them.

Invariants:
- A connection is in one hand at a time, and in no transaction when it is given back; one in
  another state is closed.
- BEGIN is sent again on another connection when the first was lost: nothing was done by then.
- A forked child uses no connection of its parent.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, TypeVar, final

import psycopg
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool

from amberdb._errors import ClosedError, ForkedError, FormatError, TransactionError
from amberdb.postgres.address import Address
from amberdb.postgres.errors import STALE, Reporter, is_lost

SERVER_VERSION_MIN: Final = 150000
Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
_T = TypeVar("_T")
Rows: TypeAlias = list[tuple[Any, ...]]


@final
class Connections:
    """A pool of them."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        """Raises ServerUnreachableError, ServerAccessError, FormatError."""
        self.reporter = Reporter(address)
        self._attempts = address.connections + 1
        self._pid = os.getpid()
        self.is_closed = False
        settings: dict[str, Any] = {
            "autocommit": True,
            "prepare_threshold": 5 if address.prepares else None,
        }
        try:  # by itself: a pool does not tell why it has no connection
            with psycopg.connect(address.conninfo, **settings) as first:
                version = first.info.server_version
        except psycopg.Error as error:
            raise self.reporter.typed(error) from None
        if version < SERVER_VERSION_MIN:
            raise FormatError(
                f"{address.where} is PostgreSQL {version // 10000}: use 15 or a newer one",
                version=version,
            )
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            address.conninfo,
            kwargs=settings,
            min_size=1,
            max_size=address.connections,
            timeout=timeout_s,
            name="amberdb",
            open=True,
        )

    def begun(self, begin: str) -> tuple[Connection, tuple[Any, ...]]:
        """A connection on which these statements, the first of them BEGIN, were executed, and the
        row of the last. Raises ClosedError, ForkedError, BusyError, ServerUnreachableError."""

        def begun(connection: Connection) -> tuple[Any, ...]:
            cursor = execute(connection, begin)
            while cursor.nextset():
                pass
            row = cursor.fetchone()
            assert row is not None
            return row

        return self._first(begun)

    def read(self, statement: str, values: list[Any]) -> tuple[Any, ...] | None:
        """The first row of a statement that reads, in a transaction of its own. Raises what begun()
        raises."""

        def read(connection: Connection) -> tuple[Any, ...] | None:
            return execute(connection, statement, values, binary=True).fetchone()

        connection, row = self._first(read)
        self.give(connection)
        return row

    def check_sound(self, connection: Connection) -> None:
        """Raises TransactionError when a statement has failed, since COMMIT would then end the
        transaction without an error."""
        if connection.info.transaction_status is TransactionStatus.INERROR:
            raise TransactionError("a call of this transaction failed, and nothing is stored")

    def roll_back(self, connection: Connection) -> None:
        """Ends a transaction that has failed; the connection can be used again."""
        if connection.info.transaction_status is not TransactionStatus.IDLE:
            connection.execute("ROLLBACK")

    def give(self, connection: Connection) -> None:
        """Takes a connection back; a transaction on it is rolled back."""
        try:
            status = connection.info.transaction_status
            if status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
                connection.execute("ROLLBACK")
            elif status is not TransactionStatus.IDLE:
                connection.close()
        except psycopg.Error:
            connection.close()
        finally:
            self._pool.putconn(connection)

    def close(self) -> None:
        """Closes all of them; those in use when they are given back."""
        self.is_closed = True
        if self._pid == os.getpid():
            self._pool.close()

    def check_open(self) -> None:
        """Raises ClosedError, ForkedError."""
        if self.is_closed:
            raise ClosedError("the database is closed: connect() again")
        if self._pid != os.getpid():
            raise ForkedError("this process was forked: connect() in the child, after the fork")

    def _first(self, work: Callable[[Connection], _T]) -> tuple[Connection, _T]:
        """Does the first work on a connection, on another one when that was lost meanwhile."""
        for left in reversed(range(self._attempts)):
            connection = self._taken()
            try:
                return connection, work(connection)
            except BaseException as error:
                self.give(connection)
                if not isinstance(error, psycopg.Error) or isinstance(error, STALE):
                    raise
                if not left or not is_lost(error):
                    raise self.reporter.typed(error) from None
        raise AssertionError("unreachable")

    def _taken(self) -> Connection:
        self.check_open()
        try:
            return self._pool.getconn()
        except psycopg.Error as error:
            self.check_open()
            raise self.reporter.typed(error) from None


def execute(
    connection: Connection, statement: str, values: Any = None, *, binary: bool = False
) -> psycopg.Cursor[tuple[Any, ...]]:
    """Executes a statement that this package has made: of its own words and of names that it has
    checked, every value being a parameter."""
    return connection.execute(statement.encode(), values, binary=binary)


def execute_each(connection: Connection, statement: str, values: Sequence[Sequence[Any]]) -> None:
    """Executes a statement once for each list of values."""
    if len(values) == 1:
        execute(connection, statement, values[0])
    else:
        with connection.cursor() as cursor:
            cursor.executemany(statement.encode(), values)
