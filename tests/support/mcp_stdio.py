"""A client of MCP servers over stdio, in lines of JSON: for the official server and ours, without
the SDK, which would stay in the memory of a worker.

Invariants:
- A server ends with the block, whatever happens in it.
- Whatever a server writes to stdout is a message of the protocol, or the test fails.
"""

import json
import os
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

AMBERDB: Final = (sys.executable, "-m", "amberdb.cli", "mcp")
VERSION: Final = "2025-06-18"


class StdioClient:
    """One session with a server."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.notifications: list[Any] = []
        self._id = 0
        self.server = self.request(
            "initialize",
            protocolVersion=VERSION,
            capabilities={},
            clientInfo={"name": "tests", "version": "1"},
        )
        self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def request(self, method: str, **params: Any) -> Any:
        """The result of a request. Raises ServerGone, and AssertionError for an error."""
        answer = self.answer(method, **params)
        assert "result" in answer, answer
        return answer["result"]

    def answer(self, method: str, **params: Any) -> Any:
        """The whole answer of a request. Raises ServerGone."""
        self._id += 1
        self._send({"jsonrpc": "2.0", "id": self._id, "method": method, "params": params})
        while True:
            message = self._message()
            if message.get("id") == self._id:
                return message
            self.notifications.append(message)

    def call(self, tool: str, **arguments: Any) -> Any:
        """The result of a tool."""
        return self.request("tools/call", name=tool, arguments=arguments)

    def told(self) -> Any:
        """The next notification."""
        return self.notifications.pop(0) if self.notifications else self._message()

    def send_raw(self, line: bytes) -> None:
        """Bytes that are no message, say."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            self.send_raw(json.dumps(message).encode())
        except BrokenPipeError:
            raise ServerGone from None

    def _message(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.endswith(b"\n"):
            raise ServerGone
        message = json.loads(line)
        assert message["jsonrpc"] == "2.0"
        return message


class ServerGone(Exception):
    """The server has ended."""


@contextmanager
def talking(
    command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, log: Path | None = None
) -> Generator[StdioClient]:
    """A session with the server that a command starts; its stderr goes to `log`."""
    with open(log or os.devnull, "ab") as errors:
        process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **(env or {})},
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield StdioClient(process)
        process.stdin.close()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        with suppress(BrokenPipeError):  # it holds what a server that was killed did not take
            process.stdin.close()
        process.stdout.close()
