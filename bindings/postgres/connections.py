"""The connections of one database to its server, and transactions on them.

Invariants:
- A connection is in one hand at a time, and in no transaction when it is given back; one in
  another state is closed. The one that was given back last is taken first.
- BEGIN, and a statement that reads, are sent again on another connection when the first was lost:
  nothing was done by then. A statement that writes is sent once, on a connection that the server
  has not closed.
- A forked child uses no connection of its parent.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from queue import Empty, SimpleQueue
from select import POLLIN, poll
from typing import Any, Final, TypeAlias, TypeVar, final

import psycopg
from psycopg import errors, generators
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.types.string import ByteaBinaryLoader, BytesBinaryDumper

from amberdb._errors import BusyError, ClosedError, ForkedError, FormatError, TransactionError
from amberdb.postgres.address import Address
from amberdb.postgres.errors import Reporter, is_lost

SERVER_VERSION_MIN: Final = 150000
Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
_T = TypeVar("_T")
Rows: TypeAlias = list[tuple[Any, ...]]


@final
class Connections:
    """At most so many as the address says, each opened when it is first needed."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        """Raises ServerUnreachableError, ServerAccessError, FormatError."""
        self.reporter = Reporter(address)
        self.is_closed = False
        self._address = address
        self._timeout_s = timeout_s
        self._pid = os.getpid()
        self._permits: SimpleQueue[None] = SimpleQueue()
        """One for each connection that may be taken. give() may be called by a finalizer, so no
        lock of Python's will do."""
        for _ in range(address.connections):
            self._permits.put(None)
        self._idle: deque[Connection] = deque()
        first = self._taken()
        version = first.info.server_version
        self.give(first)
        if version < SERVER_VERSION_MIN:
            self.close()
            raise FormatError(
                f"{address.where} is PostgreSQL {version // 10000}: use 15 or a newer one",
                version=version,
            )

    def begun(self, begin: str) -> tuple[Connection, list[bytes | None]]:
        """A connection on which these statements, the first of them BEGIN, were executed, and the
        row of the last, each value as text. Raises ClosedError, ForkedError, BusyError,
        ServerUnreachableError, Overtaken."""
        return self._first(lambda connection: execute_together(connection, begin))

    def read(self, statement: str, values: list[Any]) -> Rows:
        """The rows of a statement that reads, in a transaction of its own. Raises what begun()
        raises."""

        def read(connection: Connection) -> Rows:
            return execute(connection, statement, values, binary=True).fetchall()

        connection, rows = self._first(read)
        self.give(connection)
        return rows

    def write(self, begin: str, statement: str, values: list[Any]) -> Rows:
        """The rows of one statement in a transaction that is begun by these, and commits. Raises
        what begun() raises, and CommitUnknownError."""
        connection, is_sent = self.begun(begin)[0], False
        try:
            rows = execute(connection, statement, values, binary=True).fetchall()
            is_sent = True
            connection.commit()
        except psycopg.Error as error:
            raise self.reporter.typed(error, committing=is_sent) from None
        finally:
            self.give(connection)
        return rows

    def written(self, statement: str, values: list[Any]) -> Rows:
        """The rows of a statement that writes, in a transaction of its own. Raises what begun()
        raises, and CommitUnknownError."""
        connection = self._taken(is_open=True)
        try:
            return execute(connection, statement, values, binary=True).fetchall()
        except psycopg.Error as error:
            raise self.reporter.typed(error, committing=True) from None
        finally:
            self.give(connection)

    def check_sound(self, connection: Connection) -> None:
        """Raises TransactionError when a statement has failed, since COMMIT would then end the
        transaction without an error."""
        if connection.info.transaction_status is TransactionStatus.INERROR:
            raise TransactionError("a call of this transaction failed, and nothing is stored")

    def roll_back(self, connection: Connection) -> None:
        """Ends a transaction that has failed; the connection can be used again."""
        connection.rollback()

    def give(self, connection: Connection, *, has_read: bool = False) -> None:
        """Takes a connection back; a transaction on it is rolled back. With `has_read` it commits,
        since it has written nothing: at a rollback the driver drops what it has prepared."""
        try:
            status = connection.pgconn.transaction_status
            if has_read and status == TransactionStatus.INTRANS:
                connection.commit()
            elif status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
                connection.rollback()
            elif status != TransactionStatus.IDLE:
                connection.close()
        except psycopg.Error:
            connection.close()
        finally:
            if not connection.closed:
                self._idle.append(connection)
            self._permits.put(None)
            if self.is_closed:
                self._close_idle()

    def close(self) -> None:
        """Closes all of them; those in use when they are given back."""
        self.is_closed = True
        if self._pid == os.getpid():
            self._close_idle()

    def check_open(self) -> None:
        """Raises ClosedError, ForkedError."""
        if self.is_closed:
            raise ClosedError("the database is closed: connect() again")
        if self._pid != os.getpid():
            raise ForkedError("this process was forked: connect() in the child, after the fork")

    def _first(self, work: Callable[[Connection], _T]) -> tuple[Connection, _T]:
        """Does the first work on a connection, on another one when that was lost meanwhile."""
        for left in reversed(range(self._address.connections + 1)):
            connection = self._taken()
            try:
                return connection, work(connection)
            except BaseException as error:
                self.give(connection)
                if not isinstance(error, psycopg.Error):
                    raise
                if not left or not is_lost(error):
                    raise self.reporter.typed(error) from None
        raise AssertionError("unreachable")

    def _taken(self, *, is_open: bool = False) -> Connection:
        """A connection; with `is_open` none that the server has closed."""
        self.check_open()
        try:
            self._permits.get(timeout=self._timeout_s)
        except Empty:
            raise BusyError(
                f"{self._address.where}: no connection was free: close snapshots and transactions, "
                "or raise connections= in the URL"
            ) from None
        try:
            return self._idle_one(is_open) or self._connected()
        except BaseException as error:
            self._permits.put(None)
            self.reporter.raise_typed(error)
            raise

    def _idle_one(self, is_open: bool) -> Connection | None:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if not is_open or _is_open(connection):
                return connection
            connection.close()
        return None

    def _connected(self) -> Connection:
        connection = psycopg.connect(
            self._address.conninfo,
            autocommit=True,
            client_encoding="utf8",
            prepare_threshold=5 if self._address.prepares else None,
        )
        adapters = connection.adapters
        adapters.register_loader("jsonb", ByteaBinaryLoader)  # json_text.py reads it
        adapters.register_dumper(bytes, BytesBinaryDumper)  # for COPY in place of one in Python
        return connection

    def _close_idle(self) -> None:
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:
                break


def _is_open(connection: Connection) -> bool:
    """Whether a connection that waits for nothing is still there: its end would be readable."""
    readable = poll()
    readable.register(connection.pgconn.socket, POLLIN)
    try:
        while readable.poll(0):
            connection.pgconn.consume_input()  # of the server's own accord, such as a setting
    except psycopg.Error:
        return False
    return True


def execute(
    connection: Connection, statement: str, values: Any = None, *, binary: bool = False
) -> psycopg.Cursor[tuple[Any, ...]]:
    """Executes a statement that this package has made: of its own words and of names that it has
    checked, every value being a parameter."""
    return connection.execute(statement.encode(), values, binary=binary)


def execute_together(connection: Connection, statements: str) -> list[bytes | None]:
    """Executes statements without values, and returns the row of the last, each value as text: in
    half the time of a cursor, as the driver does with its own BEGIN."""
    connection.pgconn.send_query(statements.encode())
    results = connection.wait(generators.execute(connection.pgconn))
    for result in results:
        if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
            raise errors.error_from_result(result)
    last = results[-1]
    return [last.get_value(0, column) for column in range(last.nfields)]


def execute_each(connection: Connection, statement: str, values: Sequence[Sequence[Any]]) -> None:
    """Executes a statement once for each list of values."""
    if len(values) == 1:
        execute(connection, statement, values[0])
    else:
        with connection.cursor() as cursor:
            cursor.executemany(statement.encode(), values)


def copy_each(
    connection: Connection, statement: str, types: Sequence[str], rows: Iterable[list[Any]]
) -> None:
    """Sends rows to a COPY statement in its binary format."""
    with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)
