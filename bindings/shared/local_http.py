"""What the HTTP servers of amberdb have in common: names of this machine, the bearer token, and the
end by SIGTERM.

Invariants:
- Tokens are compared in constant time.
"""

import hmac
import ipaddress
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any


def is_loopback(host: str) -> bool:
    """Whether a name or address always means this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def name_of(host: str) -> str:
    """The name in a Host header, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def has_token(authorization: str, token: str) -> bool:
    """Whether an Authorization header has the bearer token."""
    scheme, _, given = authorization.partition(" ")
    is_bearer = scheme.lower() == "bearer"
    return hmac.compare_digest(given.strip().encode(), token.encode()) and is_bearer


@contextmanager
def ended_by_sigterm(server: Any) -> Generator[None]:
    """Handles SIGTERM for a uvicorn server before it installs its handler, and after it, when it
    raises the signal again: what the program closes at its end is closed."""

    def end(*_: object) -> None:
        server.should_exit = True

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
