"""Connections of the HTTP server: how many there may be, and how long each may take to ask.

    a connection is *waiting* until the client has sent a whole request, and again after each answer

Invariants:
- A client that is silent, or sends a request bit by bit, keeps a connection for HEADER_S at most
  (a body for BODY_S, guard.py), and never one that another client needs: where an address, or the
  server, has as many as it may have, the one that has waited longest is closed for the new one.
- A connection whose request is being answered is never closed for another one. Where all are, the
  new one gets a 503.
"""

import asyncio
import resource
from typing import Any, ClassVar, Final, final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS_MAX: Final = 1_000
HEADER_S: Final = 10.0
"""The longest time from the connection, or the last answer, to the end of a request's headers."""


def connections_max() -> int:
    """CONNECTIONS_MAX, or half of the descriptors that this process may open."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS_MAX if descriptors < 0 else min(CONNECTIONS_MAX, max(1, descriptors // 2))


@final
class Connections:
    """The open connections of a server, by the address of the client."""

    def __init__(self, per_address_max: int, total_max: int) -> None:
        self._per_address_max = per_address_max
        self._total_max = total_max
        self._total = 0
        self._by_address: dict[str, set[Connection]] = {}

    def add(self, connection: "Connection") -> bool:
        """Takes in a connection, and closes another one if there are too many; False when none of
        them can be closed."""
        address = connection.address
        own = self._by_address.get(address, set())
        if len(own) >= self._per_address_max:
            crowd = own
        elif self._total >= self._total_max:
            crowd = max(self._by_address.values(), key=len)
        else:
            crowd = None
        if crowd is not None:
            waiting = [each for each in crowd if each.is_waiting]
            if not waiting:
                return False
            oldest = min(waiting, key=_since)
            self.discard(oldest)
            oldest.transport.abort()
        self._by_address.setdefault(address, set()).add(connection)
        self._total += 1
        return True

    def discard(self, connection: "Connection") -> None:
        """Lets go of a connection that has ended; of one that was refused too."""
        own = self._by_address.get(connection.address)
        if own is not None and connection in own:
            own.remove(connection)
            self._total -= 1
            if not own:
                del self._by_address[connection.address]


class Connection(H11Protocol):
    """uvicorn's connection, with a limit of time for each request."""

    limits: ClassVar[Connections]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        self.since = self.loop.time()
        """When it began to wait."""
        self._too_late: asyncio.TimerHandle | None = None
        if self.limits.add(self):
            self._watch()
        else:
            self._refuse(b"503 Service Unavailable")

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        self.since = self.loop.time()
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        self.limits.discard(self)
        super().connection_lost(exc)

    @property
    def is_waiting(self) -> bool:
        """Whether the client has yet to send a whole request."""
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def _watch(self) -> None:
        """Sets the limit of time while the headers of a request are incomplete."""
        if self.transport.is_closing() or self.conn.their_state is not h11.IDLE:
            self._unwatch()
        elif self._too_late is None:
            self._too_late = self.loop.call_later(HEADER_S, self._refuse, b"408 Request Timeout")

    def _unwatch(self) -> None:
        if self._too_late is not None:
            self._too_late.cancel()
            self._too_late = None

    def _refuse(self, status: bytes) -> None:
        if not self.transport.is_closing():
            ending = b"Connection: close\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n"
            self.transport.write(b"HTTP/1.1 " + status + b"\r\n" + ending)
            self.transport.close()


def connection_class(limits: Connections) -> Any:
    """The connections of one server, as uvicorn's Config takes them."""
    return type("Connection", (Connection,), {"limits": limits})


def _since(connection: Connection) -> float:
    return connection.since
