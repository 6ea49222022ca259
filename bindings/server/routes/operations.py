"""Health and statistics of the server."""

from fastapi import APIRouter
from starlette.responses import Response

import amberdb
from amberdb.server import models
from amberdb.server.service import Served, answer

router = APIRouter()


@router.get("/health", response_model=models.Health)
async def health(served: Served) -> Response:
    """Checks that the database answers. Needs no token."""
    await served.db.collections()
    return answer({"status": "ok", "version": amberdb.__version__})


@router.get("/stats", response_model=models.Statistics)
async def stats(served: Served) -> Response:
    """Statistics of the database and of the chat buffer."""
    database = (await served.db.stats()).to_map()
    return answer({"database": database, "chat": await served.buffer.get_stats()})
