"""The chat buffer: turns of conversations."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from amberdb.server import models
from amberdb.server.service import Limit, Name, Served, answer

router = APIRouter()


@router.post("/memory/flush", response_model=models.FlushedTurns)
async def flush(
    served: Served, batch_size: Annotated[int, Query(ge=1, le=10_000)] = 200
) -> Response:
    """Sends all pending turns to the sink, in batches."""
    return answer(await served.buffer.flush(batch_size))


@router.post("/chat", response_model=models.SavedTurn)
async def save_chat(served: Served, given: models.Turn) -> Response:
    """Stores one turn of a conversation."""
    return answer(await served.buffer.save_chat(**given.model_dump()))


@router.get("/chat/{conversation_id}", response_model=models.Turns)
async def load_recent_context(served: Served, conversation_id: Name, limit: Limit = 20) -> Response:
    """The last turns of a conversation, the oldest first."""
    turns = await served.buffer.load_recent_context(conversation_id, limit)
    return answer({"turns": turns, "is_complete": turns.is_complete})
