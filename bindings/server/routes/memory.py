"""Layered memory: its memories, their search, log, history and undo.

Invariants:
- A memory is read by its id, changed or deleted under the path of its owner; under another owner
  the status is 404.
"""

from typing import Annotated, TypedDict

from fastapi import APIRouter, Query
from starlette.convertors import Convertor, register_url_convertor
from starlette.responses import Response

from amberdb import Document, MissingKeyError
from amberdb.memory import Action, Decision, Layer, MemoryType
from amberdb.memory.types import LAYERS, MEMORY_TYPES
from amberdb.server import models
from amberdb.server.service import Id, Limit, Name, Served, Service, Words, answer


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
    expiring_before: models.Moment | None = None,
    category: str | None = None,
    after: str | None = None,
) -> Response:
    """Events of an entity with `since <= created_at < until`, the newest first; `expiring_before`
    are those that expire before a time."""
    page = await served.memory.events(
        entity_id,
        memory_type=memory_type,
        limit=limit,
        since=since,
        until=until,
        expiring_before=expiring_before,
        category=category,
        after=after,
    )
    return answer({"memories": page, "cursor": page.cursor})


@router.get(MEMORY, response_model=models.MemoryDocument)
async def get(
    served: Served,
    memory_type: MemoryType,
    entity_id: Name,
    memory_layer: Layer,
    memory_id: Name,
) -> Response:
    """One memory."""
    memory = await served.memory.get(memory_layer, memory_id)
    if memory is None or not _is_of(memory, memory_type, entity_id):
        raise _missing("memory", memory_id)
    memory.pop("embedding", None)
    return answer(memory)


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
    """Deletes the memories of an entity, with `compact` also their bytes in every file. Of an
    entity that nothing is known of, nothing is compacted."""
    own = Owner(entity_id=entity_id, memory_type=memory_type)
    is_known = compact and await _is_known(served, own)
    return answer(await served.memory.forget(**own, compact=is_known))


@router.get("/memory/search", response_model=models.Hits)
async def search(
    served: Served,
    text: Words = None,
    query: Words = None,
    entity_id: Id = None,
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


@router.get(MEMORY + "/history", response_model=models.Entries)
async def history(
    served: Served,
    memory_type: MemoryType,
    entity_id: Name,
    memory_layer: Layer,
    memory_id: Name,
) -> Response:
    """The changes of a memory, the oldest first, with its state before and after each; also after
    it was deleted."""
    entries = await served.memory.history(memory_id)
    own = [each for each in entries if _is_of(each, memory_type, entity_id)]
    of_layer = [each for each in own if each["memory_layer"] == memory_layer]
    return answer({"logs": of_layer, "cursor": None})


@router.post(MEMORY + "/undo/{log_id}", response_model=models.Done)
async def undo(
    served: Served,
    memory_type: MemoryType,
    entity_id: Name,
    memory_layer: Layer,
    memory_id: Name,
    log_id: Name,
    given: models.Undo | None = None,
) -> Response:
    """Takes the change of a log entry back, unless the memory was changed since."""
    for entry in await served.memory.history(memory_id):
        if entry["id"] == log_id and _is_of(entry, memory_type, entity_id):
            reason = None if given is None else given.reason or None
            return answer(await served.memory.undo(log_id, reason=reason))
    raise _missing("log entry", log_id)


@router.get(OWNER + "/logs", response_model=models.Entries)
async def owner_logs(
    served: Served,
    memory_type: MemoryType,
    entity_id: Name,
    memory_layer: Layer | None = None,
    action: Action | None = None,
    limit: Limit = 100,
    after: str | None = None,
) -> Response:
    """The log of an entity, the newest entry first."""
    page = await served.memory.logs(
        entity_id=entity_id,
        memory_type=memory_type,
        memory_layer=memory_layer,
        action=action,
        limit=limit,
        after=after,
    )
    return answer({"logs": page, "cursor": page.cursor})


class Owner(TypedDict):
    """Whose memories a request is about."""

    entity_id: str
    memory_type: MemoryType


async def _is_known(served: Service, own: Owner) -> bool:
    """Whether there is anything of an entity, be it the log entries of what has expired."""
    memory = served.memory
    return bool(
        await memory.logs(**own, limit=1)
        or await memory.profile(**own, limit=1)
        or await memory.events(**own, limit=1)
    )


def _is_of(document: Document, memory_type: str, entity_id: str) -> bool:
    owner = (document.get("memory_type"), document.get("entity_id"))
    return owner == (memory_type, entity_id)


def _missing(kind: str, id: str) -> MissingKeyError:
    return MissingKeyError(f"there is no {kind} {id!r} of this owner", key=id)
