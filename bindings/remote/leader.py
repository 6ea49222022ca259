"""The leader: the process that has the database open, and does what clients send.

    a thread accepts; each connection has a session, with a thread of its own

Invariants:
- Requests are of the calls that are listed in calls.py, and nothing else is looked up by name.
- close() ends requests that are under way before it closes the database; a client that waits for an
  answer then has it, and every other one goes to the next leader.
"""

import logging
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, final

from amberdb._errors import AmberError, QueryError
from amberdb.engine.database.collection import Collection
from amberdb.engine.database.database import Database
from amberdb.remote import place
from amberdb.remote.calls import BRIEF, CARE, WRITES
from amberdb.remote.declaration import received_declaration
from amberdb.remote.messages import Progressed, result_of
from amberdb.remote.requests import (
    KEPT_US,
    DoneBeforeError,
    OnceCollection,
    forget_old,
    record,
    recorded,
    refuse_again,
)
from amberdb.remote.session import Session

logger = logging.getLogger("amberdb.remote")


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
        self._collections: dict[str, Collection] = {}
        self._sessions: dict[Session, threading.Thread] = {}
        self._mutex = threading.Lock()
        self._is_closing = False
        self._swept_at = 0.0
        self._served = place.listening(path)
        self._accepting = threading.Thread(target=self._accept, name="amberdb leader", daemon=True)
        self._accepting.start()

    def write(self, client: bytes, number: int, request: Mapping[str, Any]) -> Any:
        """Does a write of a client, once; its result. Raises what the call raises."""
        method, name = request["method"], request["collection"]
        args, kwargs, sync = request["args"], request["kwargs"], request["sync"]
        try:
            if method in OnceCollection.METHODS:
                collection = self._collections.get(name)
                if collection is None:
                    collection = self._collections[name] = self.db[name]
                once = OnceCollection(collection, client, number, request["is_again"])
                return getattr(once, method)(*args, sync=sync, **kwargs)
            if method not in WRITES:
                raise QueryError(f"no such call: {method!r}")
            transaction = self.db.transaction(sync=sync)
            if method == "put_many":
                args = [transaction.embedders.with_vectors(name, args[0])]
            with transaction as tx:
                if request["is_again"]:
                    refuse_again(tx.writer(), client, number)
                value = getattr(tx[name], method)(*args, **kwargs)
                record(tx.writer(), client, number, {"value": value})
            return value
        except DoneBeforeError as done:
            return result_of(done.answer)

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
            case str() as method if method in BRIEF:
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

    def forget(self) -> None:
        """In a forked child: closes its copies of the sockets, and nothing of the parent's."""
        self._served.close()
        for session in self._sessions:
            session.forget()

    # -- threads -----------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._served.accept()
            except OSError:  # closed
                return
            session = Session(self, connection)
            thread = threading.Thread(target=self._run, args=(session,), daemon=True)
            with self._mutex:
                if self._is_closing:
                    connection.close()
                    return
                self._sessions[session] = thread
            thread.start()
            self._sweep()

    def _run(self, session: Session) -> None:
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
