"""`amberdb serve`: layered memory and the chat buffer over HTTP: docs/server.md.

Needs the extra `server`.
"""

from amberdb.server.app import (
    application,
    open_service,
    serve,
)
from amberdb.server.options import (
    ServerOptions,
)

__all__ = [
    "application",
    "open_service",
    "serve",
    "ServerOptions",
]
