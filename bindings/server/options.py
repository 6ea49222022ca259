"""Options of the HTTP server, checked before the database is opened.

Invariants:
- Without a token the server binds only to a loopback address.
"""

import ipaddress
from dataclasses import dataclass, field
from typing import Final, final

TOKEN_CHARS_MIN: Final = 16


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Options of serve() and application(). Raises ValueError."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0: a free port."""
    token: str | None = field(default=None, repr=False)
    """Clients send it as `Authorization: Bearer <token>`."""
    body_bytes_max: int = 1 << 20
    requests_per_s: float = 500.0
    """The rate limit of one client address; `burst` requests at once."""
    burst: int = 1_000
    connections_per_address: int = 100
    """Open connections of one client address, a proxy among them. For one more, the one that has
    waited longest for a request is closed."""
    flush_every_s: float = 300.0
    """How often the chat buffer is flushed."""

    def __post_init__(self) -> None:
        if self.token is None:
            if not is_loopback(self.host):
                raise ValueError(
                    f"other machines can reach {self.host}: set a token, or bind to 127.0.0.1"
                )
        elif len(self.token) < TOKEN_CHARS_MIN or not self.token.isascii():
            raise ValueError(f"a token must have at least {TOKEN_CHARS_MIN} ASCII characters")
        elif self.token != self.token.strip():
            raise ValueError("a token must not begin or end with a space")
        if not 0 <= self.port < 1 << 16:
            raise ValueError(f"port={self.port!r}: give a number from 0 to 65535")
        for name in (
            "body_bytes_max",
            "requests_per_s",
            "burst",
            "connections_per_address",
            "flush_every_s",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)!r}: give a number above 0")


def is_loopback(host: str) -> bool:
    """Whether a name or address always means this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
