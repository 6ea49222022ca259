"""The tools of layered memory, beyond those of the official memory server.

    remember recall timeline update why forget stats

Invariants:
- A write is durable before it is answered.
- forget() answers when no file of the database holds what it removed.
"""

from datetime import UTC, datetime
from typing import Any, Final

from amberdb import Document, Where
from amberdb.mcp.answers import Answer, ToolError, time_text
from amberdb.mcp.memory_types import (
    OWNER,
    Forget,
    Recall,
    RecallResult,
    Receipt,
    Remember,
    Remembered,
    Stats,
    StatsResult,
    Timeline,
    TimelineResult,
    Update,
    Updated,
    Why,
    WhyResult,
)
from amberdb.mcp.memory_views import name_of, recall, stats, time_given, timeline, why
from amberdb.mcp.store import Store
from amberdb.mcp.tool import Tool
from amberdb.memory import Layer
from amberdb.memory.types import CATEGORIES, LAYERS

_SAME_MAX: Final = 5


def remember(store: Store, given: Remember) -> Answer:
    """Stores a memory, unless the same text is there."""
    entity = name_of(store, given.entity or OWNER)
    expires = time_given("expires", given.expires)
    if expires is not None and expires <= datetime.now(UTC):
        raise ToolError(f"expires {given.expires} is past: give a later time, or none")
    layer: Layer = given.layer or ("event" if expires or _is_of_event(given) else "profile")
    same = store.memory.recall(given.text, entity_id=entity, layers=[layer], limit=_SAME_MAX)
    for memory in same:
        if memory.document["content"] == given.text:
            return _remembered(memory.memory_id, layer, "ignore", memory.document)
    (outcome,) = store.memory.remember(
        entity,
        given.text,
        memory_layer=layer,
        category=given.category,
        expiry_date=expires,
        reason=given.reason,
    )
    stored = store.memory.get(layer, outcome.memory_id) or {}
    return _remembered(outcome.memory_id, layer, outcome.action, stored)


def update(store: Store, given: Update) -> Answer:
    """Changes the text of a memory. Raises ToolError when there is none."""
    layer, _ = _needed(store, given.id)
    done = store.memory.update(layer, given.id, content=given.content, reason=given.reason)
    return Answer(content={"id": given.id, "layer": layer, "action": done.action})


def forget(store: Store, given: Forget) -> Answer:
    """Removes memories by id, or all that is held of an entity, from every file; a receipt. Raises
    ToolError when there is nothing to forget."""
    if (given.ids is None) == (given.entity is None):
        raise ToolError("give ids or entity, one of the two")
    unknown: list[str] = []
    if given.entity is not None:
        wheres = _held(store, given.entity)
    else:
        ids = list(dict.fromkeys(given.ids or ()))
        unknown = [id for id in ids if _found(store, id) is None]
        if len(unknown) == len(ids):
            raise ToolError(f"no memory has one of these ids: {', '.join(unknown) or 'none given'}")
        wheres = {name: [{"id": {"$in": ids}}] for name in store.layers.values()}
        wheres[store.log] = [{"memory_id": {"$in": ids}}]
    receipt = store.db.erase(wheres, reason=given.reason)
    counts = receipt.collections
    content = {
        "reason": receipt.reason,
        "memories": sum(counts.get(name, 0) for name in store.layers.values()),
        "entities": counts.get(store.graph.entities_name, 0),
        "relations": counts.get(store.graph.relations_name, 0),
        "unknown": unknown,
        "lsn": receipt.lsn,
        "backups": [backup.path for backup in receipt.backups],
    }
    return Answer(content=content)


# -- inside ----------------------------------------------------------------------------------


def _is_of_event(given: Remember) -> bool:
    return given.category in CATEGORIES["event"]


def _remembered(id: str, layer: Layer, action: str, memory: Document) -> Answer:
    expires = time_text(memory.get("expiry_date"))
    return Answer(content={"id": id, "layer": layer, "action": action, "expires": expires})


def _found(store: Store, id: str) -> tuple[Layer, Document] | None:
    for layer in LAYERS:
        memory = store.memory.get(layer, id) if id else None
        if memory is not None:
            return layer, memory
    return None


def _needed(store: Store, id: str) -> tuple[Layer, Document]:
    found = _found(store, id)
    if found is None:
        raise ToolError(f"no memory has the id {id!r}: recall() gives ids")
    return found


def _held(store: Store, entity: str) -> dict[str, list[Where]]:
    """Filters for all that is held of an entity in this namespace. Raises ToolError."""
    known = store.graph.entity(entity) if entity else None
    names = {entity} if known is None else {entity, known["name"], *known["aliases"]}
    owned: Where = {"memory_type": "user", "entity_id": {"$in": sorted(names)}}
    wheres: dict[str, list[Where]] = {name: [owned] for name in (*store.layers.values(), store.log)}
    if known is None:
        if not any(store.db[name].find(owned, limit=1, fields=["id"]) for name in wheres):
            raise ToolError(f"nothing is known of {entity!r}: recall() finds names by words")
        return wheres
    name = known["name"]
    wheres[store.graph.entities_name] = [{"id": name}]
    wheres[store.graph.relations_name] = [{"source": name}, {"target": name}]
    return wheres


TOOLS: Final[tuple[Tool[Any], ...]] = (
    Tool(
        name="remember",
        title="Remember",
        description="Store one fact or event about the user or another entity, so that later "
        "sessions recall it. Not for passwords and keys",
        arguments=Remember,
        result=Remembered,
        run=remember,
        writes=True,
        is_idempotent=True,
    ),
    Tool(
        name="recall",
        title="Recall",
        description="Find what was remembered, by words in any order and any language, the best "
        "first, with scores and dates. Call it before answering from what earlier sessions knew",
        arguments=Recall,
        result=RecallResult,
        run=recall,
        is_idempotent=True,
    ),
    Tool(
        name="timeline",
        title="Timeline",
        description="What is known of an entity in the order of time, the newest first",
        arguments=Timeline,
        result=TimelineResult,
        run=timeline,
        is_idempotent=True,
    ),
    Tool(
        name="update",
        title="Update",
        description="Replace the text of a memory that has changed or was wrong; the former text "
        "stays in its log",
        arguments=Update,
        result=Updated,
        run=update,
        writes=True,
        destroys=True,
        is_idempotent=True,
    ),
    Tool(
        name="why",
        title="Why",
        description="How a memory came to be: each change with its time, reason and texts",
        arguments=Why,
        result=WhyResult,
        run=why,
        is_idempotent=True,
    ),
    Tool(
        name="forget",
        title="Forget",
        description="Erase memories by id, or everything about an entity, for good: no file of the "
        "database holds it afterwards. The answer is a receipt",
        arguments=Forget,
        result=Receipt,
        run=forget,
        writes=True,
        destroys=True,
        is_idempotent=True,
    ),
    Tool(
        name="stats",
        title="Stats",
        description="How many memories, entities and relations there are, and how large the "
        "database is",
        arguments=Stats,
        result=StatsResult,
        run=stats,
        is_idempotent=True,
    ),
)
