"""Who a client is: the address that rates are counted by, also behind a proxy.

Invariants:
- X-Forwarded-For is read only in a request from a trusted proxy, from the right, where each proxy
  adds the address that it has seen. What a client itself has written there is never taken.
"""

import ipaddress
from collections.abc import Sequence
from typing import TypeAlias, final

from starlette.datastructures import Headers
from starlette.types import Scope

from amberdb.server.options import network

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


@final
class Clients:
    """Tells clients apart, behind these proxies. Raises ValueError."""

    def __init__(self, trusted_proxies: Sequence[str]) -> None:
        self._trusted = [network(proxy) for proxy in trusted_proxies]

    def address(self, scope: Scope, headers: Headers) -> str:
        """The address of the client of a request; "" where the server does not know it."""
        client: tuple[str, int] | None = scope.get("client")
        peer = client[0] if client else ""
        if not self._is_trusted(_address(peer)):
            return peer
        hops = ",".join(headers.getlist("x-forwarded-for")).split(",")
        for hop in reversed(hops):
            address = _address(hop.strip())
            if address is None:
                break
            if not self._is_trusted(address):
                return str(address)
        return peer

    def _is_trusted(self, address: Address | None) -> bool:
        return address is not None and any(address in trusted for trusted in self._trusted)


def _address(text: str) -> Address | None:
    """An address, also with a port; IPv4 within IPv6 as IPv4. None for anything else."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
