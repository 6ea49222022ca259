"""Options of the HTTP server, checked before the database is opened.

Invariants:
- Without a token the server binds only to a loopback address.
- A client's address is that of its connection, unless a proxy that was named says another one.
"""

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, final

from amberdb import Database, Embed, OpenOptions
from amberdb._shared.local_http import is_loopback
from amberdb.chat import Sink
from amberdb.memory import Extractor, Layer, Retention

TOKEN_CHARS_MIN: Final = 16
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class ServiceOptions(OpenOptions, total=False):
    """Options of open_service() and serve(): those of the systems, beside those of aio.open()."""

    name: str | None
    """A prefix of the names of all collections, for a database that has some of these names."""
    embed: Embed | None
    """Vectors for layered memory and agent context, with `dim`, their length."""
    dim: int | None
    model: str | None
    """The name of the embedder."""
    extract: Extractor | None
    """For auto_extract; by default RuleExtractor."""
    retention: Retention | None
    categories: Mapping[Layer, Iterable[str]] | None
    sink: Callable[[Database], Sink] | None
    """Makes the sink of the chat buffer; by default CollectionSink."""


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
    trusted_proxies: Sequence[str] = ()
    """Addresses or networks of proxies in front of the server: the client's address is the last one
    in X-Forwarded-For that is none of them. Without any the header is not read."""
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
        for proxy in self.trusted_proxies:
            network(proxy)
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


def network(text: str) -> Network:
    """The network of an address, or of a network such as 10.0.0.0/8. Raises ValueError."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"trusted proxy {text!r}: give an address or a network, {error}") from None
