"""A lane: one connection of a client to whoever leads, for one call or one transaction at a time.

Invariants:
- A write has a number. It is sent again after the connection was lost, to the leader of then, which
  knows whether it was done.
- A transaction that was not committed when its leader ended has done nothing, and says so.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, Final, final

from amberdb._errors import CommitUnknownError, TransactionError
from amberdb.remote.connection import Connection
from amberdb.remote.greeting import greeted
from amberdb.remote.leader import Leader
from amberdb.remote.messages import LeaderGoneError, Progressed, framed, result_of
from amberdb.remote.requests import CLIENT_BYTES

ANSWER_S: Final = 60.0
"""How long a call waits for an answer. A leader that is stopped answers late."""


@final
class Lane:
    """Used by one thread at a time."""

    def __init__(self, path: str, hello: dict[str, Any]) -> None:
        self._path = path
        self._hello = hello
        self._client = os.urandom(CLIENT_BYTES)
        self._number = 0
        self._connection: Connection | None = None

    def write(self, request: dict[str, Any], leader: Callable[[bool], Leader | None]) -> Any:
        """The result of a write. `leader(is_lost)` gives the leader if it is in this process; with
        `is_lost` it first finds the next one, or becomes it. Raises what the call raises, and
        CommitUnknownError."""
        self._number += 1
        request = {**request, "client": self._client, "number": self._number, "is_again": False}
        own = leader(False)
        while own is None:
            try:
                return self.ask(request)
            except LeaderGoneError:
                request["is_again"] = True
                own = leader(True)
        return own.write(self._client, self._number, request)

    def ask(
        self,
        request: Mapping[str, Any],
        progress: Progressed | None = None,
        *,
        is_long: bool = False,
    ) -> Any:
        """The result of a request. Raises what it raises; LeaderGoneError, and CommitUnknownError
        for one that is not `is_long`. What `progress` raises ends the request in the leader
        too."""
        data = framed(request)
        try:
            connection = self._connection
            if connection is None:
                connection = self._connection = greeted(self._path, self._hello, ANSWER_S)
            connection.settimeout(None if is_long else ANSWER_S)
            connection.send_frame(data)
            while "progress" in (answer := connection.receive()):
                if progress is not None:
                    progress(*answer["progress"])
        except BaseException as error:  # an answer may come that nobody reads
            self.drop()
            if isinstance(error, TimeoutError) and not is_long:
                raise CommitUnknownError(
                    f"the process that leads has not answered for {ANSWER_S:g} s: look whether the "
                    "write is there before you repeat it"
                ) from None
            raise
        return result_of(answer)

    def begin(self, sync: str | None, timeout_ms: int | None) -> None:
        """Begins a transaction. Raises LeaderGoneError, BusyError."""
        self.ask({"call": "begin", "sync": sync, "timeout_ms": timeout_ms})

    def inside(self, request: Mapping[str, Any]) -> Any:
        """The result of a call inside the transaction. Raises what it raises; TransactionError when
        the transaction is lost."""
        if self._connection is None:  # it ended with its connection
            raise lost_transaction()
        try:
            return self.ask({"call": "in", **request})
        except LeaderGoneError as error:
            raise lost_transaction() from error

    def commit(self, leader: Callable[[bool], Leader | None]) -> int:
        """The Lsn of the commit. Raises what a commit raises; TransactionError when nothing was
        committed, since the leader has ended."""
        if self._connection is None:
            raise lost_transaction()
        self._number += 1
        name = {"client": self._client, "number": self._number}
        try:
            lsn: int = self.ask({"call": "commit", **name})
            return lsn
        except LeaderGoneError:
            pass
        while True:  # of the next leader
            own = leader(True)
            try:
                if own is not None:
                    found = own.was_committed(self._client, self._number)
                else:
                    found = self.ask({"call": "committed", **name})
            except LeaderGoneError:
                continue
            if found is None:
                raise lost_transaction()
            return int(found)

    def roll_back(self) -> None:
        """Ends the transaction without a commit."""
        if self._connection is None:
            return
        try:
            self.ask({"call": "rollback"})
        except (LeaderGoneError, CommitUnknownError):
            pass  # the leader does it when the connection ends

    def drop(self) -> None:
        """Closes the connection; the next call makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def lost_transaction() -> TransactionError:
    """The error of a transaction whose leader has ended."""
    return TransactionError(
        "the process that leads has ended, and nothing of the transaction was stored: run it again"
    )
