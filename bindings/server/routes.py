"""The routes of the HTTP server: layered memory, its search and its log, the chat buffer.

Invariants:
- A memory is changed or deleted under the path of its owner; under another owner the status is 404.
- A write that is answered with 200 is committed, with the durability that the database was opened
  with.
"""

from dataclasses import dataclass
from typing import Annotated, Any, final

import msgspec
from fastapi import APIRouter, Depends, Path, Query
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

import amberdb
from amberdb import aio
from amberdb.chat.aio import ChatBuffer
from amberdb.memory import Action, Decision, Layer, MemoryType
from amberdb.memory.aio import Memory
from amberdb.memory.types import LAYERS, MEMORY_TYPES
from amberdb.server import models

LIMIT_MAX = 1_000


class _Names(Convertor[str]):
    """A path segment that is one of a few names, so that it does not match other paths."""

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _MemoryTypes(_Names):
    regex = "|".join(MEMORY_TYPES)


class _Layers(_Names):
    regex = "|".join(LAYERS)


register_url_convertor("memory_type", _MemoryTypes())
register_url_convertor("memory_layer", _Layers())

OWNER = "/memory/{memory_type:memory_type}/{entity_id}"
MEMORY = OWNER + "/{memory_layer:memory_layer}/{memory_id}"
router = APIRouter()


@final
@dataclass(frozen=True, slots=True)
class Service:
    """The database and its systems, for the routes."""

    db: aio.Database
    memory: Memory
    buffer: ChatBuffer


def service(request: Request) -> Service:
    """The service of the application."""
    found: Service = request.app.state.service
    return found


Served = Annotated[Service, Depends(service)]
Name = Annotated[str, Path(min_length=1, max_length=480)]
Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX)]


def answer(value: Any) -> Response:
    """A JSON response; times are in UTC."""
    return Response(msgspec.json.encode(value), media_type="application/json")


# -- layered memory ------------------------------------------------------------------------------


@router.post(OWNER, response_model=models.Outcomes)
async def remember(
    served: Served, memory_type: MemoryType, entity_id: Name, given: models.Remember
) -> Response:
    """Stores a memory in a layer, or with `auto_extract` applies the extractor's decisions."""
    outcomes = await served.memory.remember(
        entity_id, memory_type=memory_type, **given.model_dump()
    )
    return answer({"outcomes": outcomes})


@router.get(OWNER + "/profile", response_model=models.Memories)
async def profile(
    served: Served,
    memory_type: MemoryType,
    entity_id: Name,
    category: str | None = None,
    limit: Limit = 100,
    after: str | None = None,
) -> Response:
    """Facts about an entity, the last changed first."""
    page = await served.memory.profile(
        entity_id, memory_type=memory_type, category=category, limit=limit, after=after
    )
    return answer({"memories": page, "cursor": page.cursor})


@router.get(OWNER + "/events", response_model=models.Memories)
async def events(
    served: Served,
    memory_type: MemoryType,
    entity_id: Name,
    limit: Limit = 50,
    since: models.Moment | None = None,
    until: models.Moment | None = None,
    category: str | None = None,
    after: str | None = None,
) -> Response:
    """Events of an entity with `since <= created_at < until`, the newest first."""
    page = await served.memory.events(
        entity_id,
        memory_type=memory_type,
        limit=limit,
        since=since,
        until=until,
        category=category,
        after=after,
    )
    return answer({"memories": page, "cursor": page.cursor})


@router.put(
    MEMORY,
    response_model=models.Done,
)
async def update(
    served: Served,
    memory_type: MemoryType,
    entity_id: Name,
    memory_layer: Layer,
    memory_id: Name,
    given: models.Change,
) -> Response:
    """Changes the given fields of a memory."""
    decision = Decision(
        action="update", memory_layer=memory_layer, memory_id=memory_id, **given.model_dump()
    )
    (outcome,) = await served.memory.apply(entity_id, [decision], memory_type=memory_type)
    return answer(outcome)


@router.delete(
    MEMORY,
    response_model=models.Done,
)
async def delete(
    served: Served,
    memory_type: MemoryType,
    entity_id: Name,
    memory_layer: Layer,
    memory_id: Name,
    reason: str = "",
) -> Response:
    """Deletes a memory; its log stays readable."""
    decision = Decision(
        action="delete", memory_layer=memory_layer, memory_id=memory_id, reason=reason
    )
    (outcome,) = await served.memory.apply(entity_id, [decision], memory_type=memory_type)
    return answer(outcome)


@router.delete(OWNER, response_model=models.Receipt)
async def forget(
    served: Served, memory_type: MemoryType, entity_id: Name, compact: bool = True
) -> Response:
    """Deletes the memories of an entity, with `compact` also their bytes in every file."""
    return answer(await served.memory.forget(entity_id, memory_type=memory_type, compact=compact))


@router.get("/memory/search", response_model=models.Hits)
async def search(
    served: Served,
    text: Annotated[str | None, Query(max_length=10_000)] = None,
    query: Annotated[str | None, Query(max_length=10_000)] = None,
    entity_id: Annotated[str | None, Query(min_length=1, max_length=480)] = None,
    memory_type: MemoryType = "user",
    memory_layer: Layer | None = None,
    limit: Limit = 10,
    neighbors: bool = False,
    group_by: Annotated[str | None, Query(max_length=480)] = None,
    after: str | None = None,
) -> Response:
    """Full-text or vector search of memories by the words of a text, or full-text search by a query
    in the query language, the best first. With `neighbors` an event is ranked with the events
    before and after it; with `group_by` only the best memory of each value of a field is found."""
    page = await served.memory.recall(
        text,
        query=query,
        entity_id=entity_id,
        memory_type=memory_type,
        layers=LAYERS if memory_layer is None else (memory_layer,),
        limit=limit,
        neighbors=neighbors,
        group_by=group_by,
        after=after,
    )
    return answer({"hits": page, "cursor": page.cursor})


@router.get("/memory/{memory_id}/logs", response_model=models.Entries)
async def logs(
    served: Served,
    memory_id: Name,
    memory_layer: Layer | None = None,
    action: Action | None = None,
    limit: Limit = 100,
    after: str | None = None,
) -> Response:
    """The log of a memory, the newest entry first, also after it was deleted."""
    page = await served.memory.logs(
        memory_id, memory_layer=memory_layer, action=action, limit=limit, after=after
    )
    return answer({"logs": page, "cursor": page.cursor})


# -- the chat buffer -----------------------------------------------------------------------------


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
    return answer({"turns": await served.buffer.load_recent_context(conversation_id, limit)})


# -- operations ----------------------------------------------------------------------------------


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
