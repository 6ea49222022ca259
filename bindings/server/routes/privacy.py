"""What all systems hold of somebody: shown, and forgotten."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from amberdb import MissingKeyError
from amberdb.privacy import aio as privacy
from amberdb.server import models
from amberdb.server.service import Name, Served, answer

router = APIRouter(prefix="/privacy")
Reason = Annotated[str, Query(min_length=1, max_length=240)]


@router.get("/{entity_id}", response_model=models.Held)
async def export(served: Served, entity_id: Name) -> Response:
    """By collection all documents of a person or an agent."""
    return answer({"collections": await privacy.export(served.db, entity_id)})


@router.delete("/{entity_id}", response_model=models.Erased)
async def forget(served: Served, entity_id: Name, reason: Reason) -> Response:
    """Removes all documents of a person or an agent from the database and from its files; the
    receipt. Of somebody of whom nothing is held, nothing is rewritten."""
    if not await privacy.is_held(served.db, entity_id):
        raise MissingKeyError(f"nothing is held of {entity_id!r}", key=entity_id)
    erasure = await privacy.forget(served.db, entity_id, reason=reason)
    return answer(erasure)
