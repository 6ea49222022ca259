"""The routes of the HTTP server, a module for each system.

Invariants:
- A write that is answered with 200 is committed, with the durability that the database was opened
  with.
"""

from collections.abc import Sequence
from typing import Final

from fastapi import APIRouter
from starlette.routing import BaseRoute

from amberdb.server.routes import (
    chat,
    context,
    events,
    graph,
    memory,
    operations,
    privacy,
    profiles,
)

ROUTERS: Final[Sequence[APIRouter]] = (
    memory.router,
    chat.router,
    profiles.router,
    context.router,
    events.router,
    graph.router,
    privacy.router,
    operations.router,
)


def all_routes() -> list[BaseRoute]:
    """The routes of all routers."""
    return [route for router in ROUTERS for route in router.routes]
