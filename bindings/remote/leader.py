"""The leader: the process that has the database open, and does what clients send.

    a thread accepts; each connection has a thread, since a transaction belongs to one

Invariants:
- Requests are of the calls that are listed here, and nothing else is looked up by name.
- A transaction whose client is silent for IDLE_S, or gone, is rolled back.
- close() ends requests that are under way before it closes the database; a client that waits for an
  answer then has it, and every other one goes to the next leader.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, final

from amberdb._errors import AmberError, QueryError
from amberdb.engine.database.database import Database
from amberdb.engine.database.transaction import Transaction
from amberdb.remote import place
from amberdb.remote.declaration import received_declaration
from amberdb.remote.embedded import with_vectors
from amberdb.remote.greeting import HELLO_S, check_hello
from amberdb.remote.messages import (
    LeaderGoneError,
    Progressed,
    answer_of,
    error_answer,
    receive,
    result_of,
    send,
)
from amberdb.remote.requests import KEPT_US, forget_old, is_client, record, recorded

logger = logging.getLogger("amberdb.remote")

IDLE_S: Final = 30.0
_PROGRESS_S: Final = 0.1
WRITES: Final = frozenset({"put", "insert", "put_many", "update", "delete", "delete_many", "touch"})
READS: Final = frozenset(
    {
        *("get", "get_many", "record", "find", "count", "distinct", "count_by", "min", "max"),
        *("search", "explain", "__contains__", "__len__"),
    }
)

CARE: Final = frozenset({"compact", "upgrade", "erase", "backup", "migrate", "build_indexes"})
"""Methods of a Database that take `progress=`."""
_BRIEF: Final = frozenset(
    {"drop_collection", "rename_collection", "expire", "accept_clock", "sync", "checkpoint"}
)


@final
class Leader:
    """Serves one open database."""

    def __init__(self, path: str, db: Database, hello: dict[str, Any]) -> None:
        """`db` is the leader's to close. Raises OpenError."""
        self.hello = hello
        self.path = path
        self.db = db
        self.handles = 1
        """How many connect() of this process share it."""
        self._sessions: dict[_Session, threading.Thread] = {}
        self._mutex = threading.Lock()
        self._is_closing = False
        self._swept_at = 0.0
        self._served = place.listening(path)
        self._accepting = threading.Thread(target=self._accept, name="amberdb leader", daemon=True)
        self._accepting.start()

    def write(self, client: bytes, number: int, request: Mapping[str, Any]) -> Any:
        """Does a write of a client, once; its result. Raises what the call raises."""
        method = request["method"]
        if method not in WRITES:
            raise QueryError(f"no such call: {method!r}")
        name = request["collection"]
        transaction = self.db.transaction(sync=request["sync"])
        args = with_vectors(transaction.embedders, name, method, request["args"])
        with transaction as tx:
            batch = tx.writer()
            if request["is_again"]:
                answer = recorded(batch, client, number)
                if answer is not None:
                    return result_of(answer)
            value = getattr(tx[name], method)(*args, **request["kwargs"])
            record(batch, client, number, {"value": value})
        return value

    def do(self, request: Mapping[str, Any], progress: Progressed | None) -> Any:
        """Does a call that has the same effect when it is done twice. Raises what the call
        raises."""
        match request.get("call"):
            case "declare":
                declared = received_declaration(request["declaration"])
                self.db.collection(request["name"], **declared)
                return None
            case "expire_collection":
                return self.db[request["name"]].expire()
            case "subscriber":
                return self.db.subscriber(request["name"], since=request["since"]).name
            case "acknowledge":
                subscriber, lsn = self.db.subscriber(request["name"]), request["lsn"]
                return subscriber.remove() if lsn is None else subscriber.acknowledge(lsn)
            case str() as method if method in CARE:
                return getattr(self.db, method)(
                    *request["args"], **request["kwargs"], progress=progress
                )
            case str() as method if method in _BRIEF:
                return getattr(self.db, method)(*request["args"], **request["kwargs"])
            case call:
                raise QueryError(f"no such call: {call!r}")

    def was_committed(self, client: bytes, number: int) -> Any:
        """The Lsn of a transaction whose commit was sent; None if it was not committed."""
        with self.db.transaction() as tx:
            answer = recorded(tx.writer(), client, number)
        return None if answer is None else result_of(answer)

    def close(self) -> None:
        """Ends the requests that are under way, and closes the database. A second call does
        nothing."""
        with self._mutex:
            if self._is_closing:
                return
            self._is_closing = True
            sessions = list(self._sessions.items())
        place.remove(self.path)
        self._served.shutdown(socket.SHUT_RDWR)  # close() alone would not wake accept()
        self._served.close()
        self._accepting.join()
        for session, thread in sessions:
            session.end()
            thread.join()
        self.db.close()

    # -- threads -----------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._served.accept()
            except OSError:  # closed
                return
            session = _Session(self, connection)
            thread = threading.Thread(target=self._run, args=(session,), daemon=True)
            with self._mutex:
                if self._is_closing:
                    connection.close()
                    return
                self._sessions[session] = thread
            thread.start()
            self._sweep()

    def _run(self, session: "_Session") -> None:
        try:
            session.run()
        except Exception:
            logger.exception("a connection ended by an error of its own")
        finally:
            with self._mutex:
                self._sessions.pop(session, None)

    def _sweep(self) -> None:
        """Drops what ended clients have left, now and then."""
        now = time.monotonic()
        if now - self._swept_at > KEPT_US / 1e6 or not self._swept_at:
            self._swept_at = now
            try:
                forget_old(self.db)
            except AmberError as error:
                logger.warning("requests of ended clients were not dropped: %s", error)


@final
class _Session:
    """One connection."""

    def __init__(self, leader: Leader, connection: socket.socket) -> None:
        self._leader = leader
        self._connection = connection

    def end(self) -> None:
        """Lets run() return after the request that is under way."""
        try:
            self._connection.shutdown(socket.SHUT_RD)
        except OSError:
            pass

    def run(self) -> None:
        """Answers requests until the connection ends."""
        with self._connection as connection:
            try:
                place.check_peer(connection)
                connection.settimeout(HELLO_S)
                self._greet(receive(connection))
                connection.settimeout(None)
                while True:
                    request = receive(connection)
                    if request.get("call") == "begin":
                        self._transaction(request)
                    else:
                        self._reply(partial(self._done, request))
            except (LeaderGoneError, TimeoutError):
                return
            except PermissionError as error:
                logger.warning("a connection was refused: %s", error)

    def _greet(self, hello: dict[str, Any]) -> None:
        leader = self._leader
        try:
            protocol = check_hello(hello, leader.hello, leader.path)
        except AmberError as error:
            send(self._connection, error_answer(error))
            raise LeaderGoneError(f"refused: {error}") from error
        send(self._connection, {"value": {"protocol": protocol}})

    def _reply(self, work: Callable[[], Any]) -> None:
        """Sends the result of some work, or its error."""
        try:
            answer = answer_of(work())
        except Exception as error:
            answer = error_answer(error)
        try:
            send(self._connection, answer)
        except (TypeError, ValueError) as error:  # a result that cannot be sent
            send(self._connection, error_answer(error))

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
                send(self._connection, {"progress": values})

        return progress

    def _transaction(self, begin: dict[str, Any]) -> None:
        """Everything from a begin to its commit or rollback."""
        connection, db = self._connection, self._leader.db
        tx = db.transaction(sync=begin["sync"], timeout_ms=begin["timeout_ms"])
        try:
            tx.__enter__()
        except Exception as error:
            send(connection, error_answer(error))
            return
        connection.settimeout(IDLE_S)
        try:
            send(connection, {"value": None})
            while (request := receive(connection)).get("call") == "in":
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
            send(connection, {"value": None})


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
