"""Connections to one SQL database: for event loops, and for threads.

    AsyncConnections    of a store of events; each event loop has its own
    Connections         of a sink
    both run `work(connection)`, a function over SQLAlchemy's blocking Connection

Invariants:
- Connections are in autocommit mode: a single statement is one round trip. transaction() sends
  BEGIN and COMMIT itself, and leaves no transaction open in the pool. Where Address.is_whole asks
  for it, all work is in a transaction of SQLAlchemy's.
- All work may run twice: it is run again on another connection when the first one was lost, and
  when another writer was in the way. So it writes by ids. It waits for a server whose connections
  are all taken.
- Errors of drivers are raised as typed errors.
- A call that has begun ends, also when the task that awaits it is cancelled: a connection that is
  cut off in the middle is lost, and a database in memory with it.
- A database in memory lasts until close(), whichever event loops use it.
- Nobody waits for a server that accepts a connection and does not answer for longer than CONNECT_S.
"""

import asyncio
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final, TypeAlias, TypeVar, final
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from amberdb import AmberError
from amberdb.sql.address import BUSY_S, CONNECT_S, Address
from amberdb.sql.errors import Cause, Reporter, SqlUnreachableError, cause_of

_T = TypeVar("_T")
Work: TypeAlias = Callable[[sa.Connection], _T]

LOST_ATTEMPTS: Final = 2
"""A server that was started again has closed all connections of a pool: the second is new."""
PAUSE_MAX_S: Final = 0.5
RECYCLE_S: Final = 1800
"""Idle connections are closed by servers and by firewalls between."""
POOL_SIZE: Final = 5

_WHOLE: Final = "amberdb_is_whole"
"""An option of connections that are in a transaction already."""
_BEGIN: Final = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "BEGIN"}


@contextmanager
def transaction(connection: sa.Connection) -> Generator[None]:
    """A transaction of one connection; an exception rolls it back."""
    if connection.get_execution_options().get(_WHOLE):
        yield
        return
    connection.exec_driver_sql(_BEGIN.get(connection.dialect.name, "START TRANSACTION"))
    try:
        yield
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        try:
            connection.exec_driver_sql("ROLLBACK")
        except BaseException:  # the connection is lost, or the task was cancelled
            connection.invalidate()
        raise


class _Retry:
    """How often one call was tried, and whether to try it again: for BUSY_S while other writers are
    in the way, or have all connections of the server."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._until = time.monotonic() + BUSY_S
        self._lost = 0
        self._conflicts = 0

    def pause_s(self, error: Exception) -> float:
        """The pause before the next attempt. Raises the typed error when there is none."""
        cause = cause_of(error)
        if cause is Cause.UNREACHABLE:
            self._lost += 1
            if self._lost < LOST_ATTEMPTS:
                return 0.0
        if cause in (Cause.CONFLICT, Cause.FULL):
            self._conflicts += 1
            if time.monotonic() < self._until:
                return random.uniform(0, min(0.01 * 2**self._conflicts, PAUSE_MAX_S))
        raise self._reporter.typed(error) from error


def _engine_args(address: Address) -> dict[str, Any]:
    """Arguments of both kinds of engines."""
    args: dict[str, Any] = {
        "hide_parameters": True,
        "connect_args": address.connect_args,
        "pool_timeout": None,  # those that wait are served in turn, however many they are
    }
    if address.is_whole:
        args["execution_options"] = {_WHOLE: True}
    else:
        args["isolation_level"] = "AUTOCOMMIT"
        args["skip_autocommit_rollback"] = True
        args["pool_reset_on_return"] = None
    if address.is_in_memory:
        return {**args, "pool_size": 1, "max_overflow": 0}
    return {**args, "pool_size": POOL_SIZE, "max_overflow": POOL_SIZE, "pool_recycle": RECYCLE_S}


def _listen(engine: sa.Engine, address: Address, *, wal_mode: bool) -> None:
    """Sets up each new connection."""

    def on_sqlite(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        try:
            cursor.execute(f"PRAGMA journal_mode = {'WAL' if wal_mode else 'DELETE'}")
        except Exception as error:  # the file is in use in the other mode, which is as good
            if cause_of(error) is not Cause.CONFLICT:
                raise
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA recursive_triggers = ON")  # REPLACE fires the triggers of deletes
        cursor.close()

    def on_mysql(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute("SHOW STATUS LIKE 'Ssl_cipher'")
        if not cursor.fetchone()[1]:  # aiomysql goes on in plain text with a server without TLS
            raise SqlUnreachableError(
                f"{address.shown} does not encrypt connections, as the URL asks for: set up TLS "
                "there, or leave the option out"
            )
        cursor.close()

    if address.kind == "sqlite":
        event.listen(engine, "connect", on_sqlite)
    elif address.kind == "mysql" and "ssl" in address.connect_args:
        event.listen(engine, "connect", on_mysql)


def _connecting(driver: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    """The driver's connect(), whose own timeout may end before the server has said anything."""
    connect = import_module(driver).connect

    async def within(*args: Any, **given: Any) -> Any:
        async with asyncio.timeout(CONNECT_S):
            return await connect(*args, **given)

    return within


@final
class AsyncConnections:
    """Connections for the tasks of event loops."""

    def __init__(self, address: Address, *, wal_mode: bool = True) -> None:
        self.address = address
        self._wal_mode = wal_mode
        self._reporter = Reporter(address.shown, address.secrets)
        self._mutex = threading.Lock()
        self._engines: dict[asyncio.AbstractEventLoop, AsyncEngine] = {}
        self._memory_name = f"file:amberdb-{uuid4().hex}?mode=memory&cache=shared"
        self._memory: sqlite3.Connection | None = None
        self._running: set[asyncio.Task[Any]] = set()

    def _opened(self) -> AsyncEngine:
        """The engine of this event loop: a connection can be used in its own alone."""
        loop = asyncio.get_running_loop()
        with self._mutex:
            if loop not in self._engines:
                self._forget_closed_loops()
                self._engines[loop] = self._made()
            return self._engines[loop]

    def _made(self) -> AsyncEngine:
        address, args = self.address, _engine_args(self.address)
        url = address.url
        if address.kind == "mysql":
            creator = _connecting(url.get_driver_name())
            args["connect_args"] = {**address.connect_args, "async_creator_fn": creator}
        elif address.is_in_memory:
            args["poolclass"] = sa.AsyncAdaptedQueuePool
            if self._memory is None:  # the database is there while this connection is
                self._memory = sqlite3.connect(self._memory_name, uri=True, check_same_thread=False)
            url = url.set(database=self._memory_name, query={"uri": "true"})
        engine = create_async_engine(url, **args)
        _listen(engine.sync_engine, address, wal_mode=self._wal_mode)
        return engine

    def _forget_closed_loops(self) -> None:
        """Their connections cannot be closed any more; they end with their objects."""
        for loop in [each for each in self._engines if each.is_closed()]:
            self._engines.pop(loop).sync_engine.dispose(close=False)

    async def run(self, work: Work[_T]) -> _T:
        """The result of `work(connection)`. Raises SqlError, InvalidDocumentError."""
        task = asyncio.create_task(self._run(work))
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # known: it was raised, or the caller was cancelled

    async def _run(self, work: Work[_T]) -> _T:
        retry = _Retry(self._reporter)
        while True:
            try:
                engine = self._opened()
                opened = engine.begin() if self.address.is_whole else engine.connect()
                async with opened as connection:
                    return await connection.run_sync(work)
            except AmberError:
                raise
            except Exception as error:
                pause_s = retry.pause_s(error)
            await asyncio.sleep(pause_s)

    async def close(self) -> None:
        """Closes the connections of this event loop; a later call opens new ones."""
        loop = asyncio.get_running_loop()
        if running := {task for task in self._running.copy() if task.get_loop() is loop}:
            await asyncio.wait(running)
        with self._mutex:
            self._forget_closed_loops()
            engine = self._engines.pop(loop, None)
            memory = None
            if not self._engines:
                memory, self._memory = self._memory, None
        if engine is not None:
            await engine.dispose()
        if memory is not None:
            memory.close()


@final
class Connections:
    """Connections for threads."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._reporter = Reporter(address.shown, address.secrets)
        self._engine: sa.Engine | None = None
        self._mutex = threading.Lock()

    def _opened(self) -> sa.Engine:
        with self._mutex:
            if self._engine is None:
                args = _engine_args(self.address)
                if self.address.is_in_memory:
                    args["poolclass"] = sa.QueuePool
                    args["connect_args"] = {**self.address.connect_args, "check_same_thread": False}
                self._engine = sa.create_engine(self.address.url, **args)
                _listen(self._engine, self.address, wal_mode=True)
            return self._engine

    def run(self, work: Work[_T]) -> _T:
        """The result of `work(connection)`. Raises SqlError, InvalidDocumentError."""
        retry = _Retry(self._reporter)
        while True:
            try:
                with self._opened().connect() as connection:
                    return work(connection)
            except AmberError:
                raise
            except Exception as error:
                pause_s = retry.pause_s(error)
            time.sleep(pause_s)

    def reason(self, error: Exception) -> str:
        """Why a value was refused."""
        return str(self._reporter.typed(error))

    def close(self) -> None:
        """Closes all connections; a later call opens new ones."""
        with self._mutex:
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()
