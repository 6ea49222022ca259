"""The reading tools of layered memory: recall, timeline, why, stats.

Invariants:
- An entity is named by its name in the graph or an alias; memories are kept under its name.
- Times are ISO 8601 in UTC.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Final

from amberdb import Document, MissingKeyError
from amberdb._shared.times import time_of
from amberdb.mcp.answers import Answer, Budget, Item, ToolError, json_text, left_out, time_text
from amberdb.mcp.memory_types import Recall, Stats, Timeline, Why
from amberdb.mcp.store import Store
from amberdb.memory import Layer

_MOMENTS_MAX: Final = 200
_ENTITY_HITS_MAX: Final = 100


def recall(store: Store, given: Recall) -> Answer:
    """Memories and entities of the graph that match, the best first."""
    since = time_given("since", given.since)
    name = None if given.entity is None else name_of(store, given.entity)
    found = store.memory.recall(
        given.query,
        entity_id=name,
        limit=given.limit,
        where=None if since is None else {"updated_at": {"$gte": since}},
    )
    memories = [
        {**memory_item(each.document, each.memory_layer), "score": round(each.score, 4)}
        for each in found
    ]
    hits = store.graph.search(given.query, limit=_ENTITY_HITS_MAX)
    entities: list[Item] = []
    for hit in hits:
        entity = hit.document
        is_wanted = name in (None, entity["name"]) and (since is None or _changed(entity) >= since)
        if is_wanted and len(entities) < given.limit:
            entities.append(_entity_item(entity, hit.score))
    kept, count = Budget(store.options.chars_max).fitted(
        {"memories": memories, "entities": entities}
    )
    return Answer(content=kept, note=left_out(count, "ask with a smaller limit, or for less"))


def timeline(store: Store, given: Timeline) -> Answer:
    """What is known of an entity with times, the newest first: memories, and relations from their
    beginning. Raises ToolError when nothing is."""
    name = name_of(store, given.entity)
    begin, end = time_given("from", given.begin), time_given("to", given.end)
    moments = [*_memory_moments(store, name, begin, end), *_relation_moments(store, name)]
    if not moments and store.graph.entity(given.entity) is None:
        raise ToolError(f"nothing is known of {given.entity!r}: recall() finds names by words")
    times = "" if begin is None else time_text(begin), "~" if end is None else time_text(end)
    wanted = [each for each in moments if (times[0] or "") <= each["time"] < (times[1] or "~")]
    wanted.sort(key=lambda each: each["time"], reverse=True)
    fits, count = Budget(store.options.chars_max).fitted(
        {"moments": wanted[:_MOMENTS_MAX]}, used_chars=len(json_text({"entity": name}))
    )
    count += max(0, len(wanted) - _MOMENTS_MAX)
    content = {"entity": name, "moments": fits["moments"]}
    return Answer(content=content, note=left_out(count, "give from and to"))


def why(store: Store, given: Why) -> Answer:
    """The changes of a memory with their reasons, the oldest first. Raises ToolError when no memory
    had this id."""
    entries = store.memory.history(given.id)
    if not entries:
        raise ToolError(f"the log has nothing of {given.id!r}: give an id from recall()")
    changes = [change_item(entry) for entry in entries]
    fits, count = Budget(store.options.chars_max).fitted(
        {"changes": changes}, used_chars=len(json_text({"id": given.id}))
    )
    content = {"id": given.id, "changes": fits["changes"]}
    return Answer(content=content, note=left_out(count, "they are the newest ones"))


def stats(store: Store, _: Stats) -> Answer:
    """How much is stored."""
    db, graph = store.db, store.graph
    measured = db.stats()
    content = {
        "namespace": store.options.namespace,
        "read_only": store.options.read_only,
        "entities": db[graph.entities_name].count(),
        "relations": db[graph.relations_name].count(),
        "profile": db[store.layers["profile"]].count(),
        "event": db[store.layers["event"]].count(),
        "log": db[store.log].count(),
        "bytes": measured.bytes.total,
        "lsn": measured.last_lsn,
        "version": version("amberdb"),
    }
    return Answer(content=content)


def name_of(store: Store, entity: str) -> str:
    """The name under which memories of an entity are kept."""
    known = store.graph.entity(entity) if entity else None
    return entity if known is None else known["name"]


def time_given(field: str, text: str | None) -> datetime | None:
    """A time of the arguments. Raises ToolError."""
    if text is None:
        return None
    try:
        return time_of(field, text, UTC)
    except ValueError as error:
        raise ToolError(str(error)) from None


def change_item(entry: Document) -> Item:
    """An entry of the log."""
    before, after = entry.get("before"), entry.get("after")
    return {
        "time": time_text(entry.get("created_at")),
        "action": entry["action"],
        "reason": entry.get("reason"),
        "before": None if before is None else before["content"],
        "after": None if after is None else after["content"],
    }


def memory_item(memory: Document, layer: Layer) -> Item:
    """A memory."""
    return {
        "id": memory["id"],
        "layer": layer,
        "entity": memory["entity_id"],
        "text": memory["content"],
        "category": memory.get("category"),
        "told": time_text(memory.get("created_at")),
        "changed": time_text(memory.get("updated_at")),
        "expires": time_text(memory.get("expiry_date")),
    }


# -- inside ----------------------------------------------------------------------------------


def _entity_item(entity: Document, score: float) -> Item:
    return {
        "name": entity["name"],
        "entityType": entity["entity_type"],
        "observations": entity.get("observations") or [],
        "score": round(score, 4),
        "changed": time_text(entity.get("updated_at")),
    }


def _changed(entity: Document) -> datetime:
    return entity.get("updated_at") or datetime.min.replace(tzinfo=UTC)


def _memory_moments(
    store: Store, name: str, begin: datetime | None, end: datetime | None
) -> Iterator[Item]:
    events = store.memory.events(name, since=begin, until=end, limit=_MOMENTS_MAX)
    for layer, page in (
        ("event", events),
        ("profile", store.memory.profile(name, limit=_MOMENTS_MAX)),
    ):
        for memory in page:
            time, expires = time_text(memory["created_at"]), time_text(memory.get("expiry_date"))
            text = memory["content"]
            yield {"time": time, "kind": layer, "id": memory["id"], "text": text, "end": expires}


def _relation_moments(store: Store, name: str) -> Iterator[Item]:
    try:
        facts = store.graph.facts(name, as_of="ever")
    except MissingKeyError:
        return
    for fact in facts:
        time = fact["valid_from"] or fact["told_at"]
        if time is not None:
            yield {
                "time": time_text(time),
                "kind": "relation",
                "id": fact["id"],
                "text": f"{fact['source']} {fact['relation_type']} {fact['target']}",
                "end": time_text(fact["valid_to"]),
            }
