"""Connections to one SQL database: for event loops, and for threads.

    AsyncConnections    of a store of events
    Connections         of a sink
    both run `work(connection)`, a function over SQLAlchemy's blocking Connection

Invariants:
- Connections are in autocommit mode: a single statement is one round trip. transaction() sends
  BEGIN and COMMIT itself, and leaves no transaction open in the pool. Where Address.is_whole asks
  for it, all work is in a transaction of SQLAlchemy's.
- All work may run twice: it is run again on another connection when the first one was lost, and
  when another writer was in the way. So it writes by ids.
- Errors of drivers are raised as typed errors.
- A call that has begun ends, also when the task that awaits it is cancelled: a connection that is
  cut off in the middle is lost, and a database in memory with it.
- A database in memory has one connection, which is kept.
"""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias, TypeVar, final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from amberdb import AmberError
from amberdb.sql.address import BUSY_S, CONNECT_S, Address
from amberdb.sql.errors import Cause, Reporter, cause_of

_T = TypeVar("_T")
Work: TypeAlias = Callable[[sa.Connection], _T]

LOST_ATTEMPTS: Final = 2
"""A server that was started again has closed all connections of a pool: the second is new."""
CONFLICT_ATTEMPTS: Final = 10
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
    """How often one call was tried, and whether to try it again."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._lost = 0
        self._conflicts = 0

    def pause_s(self, error: Exception) -> float:
        """The pause before the next attempt. Raises the typed error when there is none."""
        cause = cause_of(error)
        if cause is Cause.UNREACHABLE:
            self._lost += 1
            if self._lost < LOST_ATTEMPTS:
                return 0.0
        if cause is Cause.CONFLICT:
            self._conflicts += 1
            if self._conflicts < CONFLICT_ATTEMPTS:
                return random.uniform(0, min(0.01 * 2**self._conflicts, PAUSE_MAX_S))
        raise self._reporter.typed(error) from error


def _engine_args(address: Address) -> dict[str, Any]:
    """Arguments of both kinds of engines."""
    args: dict[str, Any] = {
        "hide_parameters": True,
        "connect_args": address.connect_args,
        "pool_timeout": CONNECT_S + BUSY_S,
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
    if address.kind != "sqlite":
        return

    def on_connect(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA journal_mode = {'WAL' if wal_mode else 'DELETE'}")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA recursive_triggers = ON")  # REPLACE fires the triggers of deletes
        cursor.close()

    event.listen(engine, "connect", on_connect)


@final
class AsyncConnections:
    """Connections for the tasks of one event loop."""

    def __init__(self, address: Address, *, wal_mode: bool = True) -> None:
        self.address = address
        self._wal_mode = wal_mode
        self._reporter = Reporter(address.shown, address.secrets)
        self._engine: AsyncEngine | None = None
        self._running: set[asyncio.Task[Any]] = set()

    def _opened(self) -> AsyncEngine:
        if self._engine is None:
            args = _engine_args(self.address)
            if self.address.is_in_memory:
                args["poolclass"] = sa.AsyncAdaptedQueuePool
            self._engine = create_async_engine(self.address.url, **args)
            _listen(self._engine.sync_engine, self.address, wal_mode=self._wal_mode)
        return self._engine

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
        """Closes all connections; a later call opens new ones."""
        if self._running:
            await asyncio.wait(self._running)
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.dispose()


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
