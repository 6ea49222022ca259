"""One end of a connection between a client and the leader.

Invariants:
- It is used by one thread at a time. A message is sent whole or the connection is of no more use.
"""

import socket
from collections.abc import Mapping
from typing import Any, Final, final

from amberdb.remote.messages import SIZE_BYTES, LeaderGoneError, framed, unframed

_PART_BYTES: Final = 1 << 16
_LARGE_PART_BYTES: Final = 1 << 20


@final
class Connection:
    """Sends and receives messages."""

    __slots__ = ("_received", "_socket")

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._received = bytearray()

    def settimeout(self, seconds: float | None) -> None:
        """How long receive() waits, and send()."""
        self._socket.settimeout(seconds)

    def send(self, message: Mapping[str, Any]) -> None:
        """Sends one message. Raises LeaderGoneError; TypeError and ValueError for a value that
        cannot be sent, and then nothing was sent."""
        self.send_frame(framed(message))

    def send_frame(self, frame: bytes) -> None:
        """Sends a framed message. Raises LeaderGoneError, TimeoutError."""
        try:
            self._socket.sendall(frame)
        except TimeoutError:
            raise
        except OSError as error:
            raise LeaderGoneError(str(error)) from error

    def receive(self) -> dict[str, Any]:
        """The next message. Raises LeaderGoneError, also for what is no message; TimeoutError."""
        received = self._received
        self._fill(SIZE_BYTES)
        end = SIZE_BYTES + int.from_bytes(received[:SIZE_BYTES])
        self._fill(end)
        data = bytes(received[SIZE_BYTES:end])  # decoded values may refer to it
        del received[:end]
        return unframed(data)

    def end_receiving(self) -> None:
        """A receive() that waits, in another thread, raises LeaderGoneError."""
        try:
            self._socket.shutdown(socket.SHUT_RD)
        except OSError:
            pass

    def close(self) -> None:
        self._socket.close()

    def _fill(self, size: int) -> None:
        """Receives until there are so many bytes. A frame is mostly there at the first call."""
        received = self._received
        while len(received) < size:
            left = size - len(received)
            try:
                part = self._socket.recv(_PART_BYTES if left < _PART_BYTES else _LARGE_PART_BYTES)
            except TimeoutError:
                raise
            except OSError as error:
                raise LeaderGoneError(str(error)) from error
            if not part:
                raise LeaderGoneError("the connection was closed")
            received += part
