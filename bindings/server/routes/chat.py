"""The chat buffer: turns of conversations."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from amberdb.server import models
from amberdb.server.service import Id, Limit, Name, Served, Words, answer, listed

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


@router.get("/chat", response_model=models.Turns)
async def search(
    served: Served,
    text: Words = None,
    query: Words = None,
    user_id: Id = None,
    conversation_id: Id = None,
    limit: Limit = 10,
) -> Response:
    """Turns by the words of a text or by a query, the best first."""
    turns = await served.buffer.search(
        text, query=query, user_id=user_id, conversation_id=conversation_id, limit=limit
    )
    return answer({"turns": turns, "is_complete": turns.is_complete})


@router.get("/chat/user/{user_id}/conversations", response_model=models.Documents)
async def conversations(served: Served, user_id: Name, limit: Limit = 100) -> Response:
    """The conversations of a user, that with the newest turn first."""
    return listed(await served.buffer.conversations(user_id, limit), None)


@router.delete("/chat/{conversation_id}", response_model=models.DeletedTurns)
async def delete_conversation(served: Served, conversation_id: Name) -> Response:
    """Deletes a conversation from the buffer and the sink."""
    return answer(await served.buffer.delete_conversation(conversation_id))


@router.delete("/chat/user/{user_id}", response_model=models.DeletedTurns)
async def delete_user(served: Served, user_id: Name) -> Response:
    """Deletes all turns of a user from the buffer and the sink."""
    return answer(await served.buffer.delete_user(user_id))


@router.get("/memory/dead_letters", response_model=models.Documents)
async def dead_letters(served: Served, limit: Limit = 100) -> Response:
    """The turns that were set aside after the sink had refused them, with the error."""
    return listed(await served.buffer.dead_letters(limit), None)


@router.post("/memory/dead_letters", response_model=models.FlushedTurns)
async def retry_dead_letters(served: Served) -> Response:
    """Sends the turns that were set aside to the sink again."""
    return answer(await served.buffer.retry_dead_letters())
