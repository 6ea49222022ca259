"""`amberdb serve`: the memory systems over HTTP: docs/server.md.

Needs the extra `server`.
"""

from amberdb.server.app import (
    application,
    open_service,
    serve,
)
from amberdb.server.options import (
    ServerOptions,
    ServiceOptions,
)

__all__ = [
    "application",
    "open_service",
    "serve",
    "ServerOptions",
    "ServiceOptions",
]
