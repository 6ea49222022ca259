"""A session: one connection that the leader serves, in a thread of its own, since a transaction
belongs to a thread.

Invariants:
- A transaction whose client is silent for IDLE_S, or gone, is rolled back.
"""

import logging
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol, final

from amberdb._errors import AmberError, QueryError
from amberdb.engine.database.database import Database
from amberdb.engine.database.transaction import Transaction
from amberdb.remote import place
from amberdb.remote.calls import READS, WRITES
from amberdb.remote.connection import Connection
from amberdb.remote.greeting import HELLO_S, check_hello
from amberdb.remote.messages import LeaderGoneError, Progressed, answer_of, error_answer
from amberdb.remote.requests import is_client, record

logger = logging.getLogger("amberdb.remote")

IDLE_S: Final = 30.0
_PROGRESS_S: Final = 0.1


class Served(Protocol):
    """What a session needs of its leader."""

    path: str
    db: Database
    hello: dict[str, Any]

    def write(self, client: bytes, number: int, request: Mapping[str, Any]) -> Any:
        """Does a write of a client, once; its result."""
        ...

    def do(self, request: Mapping[str, Any], progress: Progressed | None) -> Any:
        """Does a call that has the same effect when it is done twice."""
        ...

    def was_committed(self, client: bytes, number: int) -> Any:
        """The Lsn of a transaction whose commit was sent; None if it was not committed."""
        ...


@final
class Session:
    """One connection."""

    def __init__(self, leader: Served, connected: socket.socket) -> None:
        self._leader = leader
        self._connected = connected
        self._connection = Connection(connected)

    def end(self) -> None:
        """Lets run() return after the request that is under way."""
        self._connection.end_receiving()

    def forget(self) -> None:
        """In a forked child: closes its copy of the socket."""
        self._connection.close()

    def run(self) -> None:
        """Answers requests until the connection ends."""
        connection = self._connection
        try:
            place.check_peer(self._connected)
            connection.settimeout(HELLO_S)
            self._greet(connection.receive())
            connection.settimeout(None)
            while True:
                request = connection.receive()
                if request.get("call") == "begin":
                    self._transaction(request)
                else:
                    self._reply(partial(self._done, request))
        except (LeaderGoneError, TimeoutError):
            return
        except PermissionError as error:
            logger.warning("a connection was refused: %s", error)
        finally:
            connection.close()

    def _greet(self, hello: dict[str, Any]) -> None:
        leader = self._leader
        try:
            protocol = check_hello(hello, leader.hello, leader.path)
        except AmberError as error:
            self._connection.send(error_answer(error))
            raise LeaderGoneError(f"refused: {error}") from error
        self._connection.send({"value": {"protocol": protocol}})

    def _reply(self, work: Callable[[], Any]) -> None:
        """Sends the result of some work, or its error."""
        try:
            answer = answer_of(work())
        except Exception as error:
            answer = error_answer(error)
        try:
            self._connection.send(answer)
        except (TypeError, ValueError) as error:  # a result that cannot be sent
            self._connection.send(error_answer(error))

    def _done(self, request: dict[str, Any]) -> Any:
        if request.get("call") not in ("write", "committed"):
            return self._leader.do(request, self._progress())
        client, number = request["client"], request["number"]
        if not is_client(client):
            raise QueryError("a client has a name of 16 bytes")
        if request["call"] == "write":
            return self._leader.write(client, number, request)
        return self._leader.was_committed(client, number)

    def _progress(self) -> Progressed:
        """Tells the client of progress, a few times a second. It ends the work when the client has
        gone."""
        told = 0.0

        def progress(*values: Any) -> None:
            nonlocal told
            now = time.monotonic()
            if now - told > _PROGRESS_S:
                told = now
                self._connection.send({"progress": values})

        return progress

    def _transaction(self, begin: dict[str, Any]) -> None:
        """Everything from a begin to its commit or rollback."""
        connection, db = self._connection, self._leader.db
        tx = db.transaction(sync=begin["sync"], timeout_ms=begin["timeout_ms"])
        try:
            tx.__enter__()
        except Exception as error:
            connection.send(error_answer(error))
            return
        connection.settimeout(IDLE_S)
        try:
            connection.send({"value": None})
            while (request := connection.receive()).get("call") == "in":
                self._reply(partial(_inside, tx, request))
            if request.get("call") == "commit":
                lsn = int(tx.writer().lsn)
                record(tx.writer(), request["client"], request["number"], {"value": lsn})
        except BaseException as error:
            tx.__exit__(type(error), error, None)
            raise
        finally:
            connection.settimeout(None)
        if request.get("call") == "commit":
            self._reply(lambda: _commit(tx))
        else:
            tx.__exit__(_RolledBack, _RolledBack(), None)
            connection.send({"value": None})


class _RolledBack(Exception):
    """Ends a transaction that its client has rolled back."""


def _commit(tx: Transaction) -> int:
    tx.__exit__(None, None, None)
    return int(tx.lsn)


def _inside(tx: Transaction, request: dict[str, Any]) -> Any:
    method = request["method"]
    if method not in READS and method not in WRITES:
        raise QueryError(f"no such call: {method!r}")
    collection = tx[request["collection"]]
    return getattr(collection, method)(*request["args"], **request["kwargs"])
