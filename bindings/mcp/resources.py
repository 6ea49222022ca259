"""The resources of a store, as JSON text, and which of them a change touches.

    memory://knowledge-graph    the graph, as the official server shows it, whole
    memory://entity/{name}      an entity, and its relations with their times
    memory://recent             the memories that were told last
    memory://log                the changes of memories that were made last, with their reasons

Invariants:
- A change touches every resource whose text it may have changed.
"""

from collections.abc import Iterable, Set
from typing import Any, Final
from urllib.parse import quote, unquote

from amberdb import Change, Document, MissingKeyError
from amberdb.mcp.answers import Item, ToolError, json_text, time_text
from amberdb.mcp.graph_views import INDENT, entity_item, whole_graph
from amberdb.mcp.memory_views import change_item, memory_item
from amberdb.mcp.store import Store
from amberdb.memory.types import LAYERS

GRAPH: Final = "memory://knowledge-graph"
RECENT: Final = "memory://recent"
LOG: Final = "memory://log"
ENTITY: Final = "memory://entity/"
MEDIA_TYPE: Final = "application/json"

RESOURCES: Final = (
    (
        GRAPH,
        "knowledge-graph",
        "Knowledge Graph",
        "The full knowledge graph with all entities and relations",
    ),
    (RECENT, "recent", "Recent memories", "The memories that were told last"),
    (LOG, "log", "Log", "The last changes of memories, with their reasons"),
)
"""Uri, name, title and description."""

RECENT_MAX: Final = 20
LOG_MAX: Final = 50


def entity_uri(name: str) -> str:
    """The uri of an entity."""
    return ENTITY + quote(name, safe="")


def read(store: Store, uri: str) -> str:
    """The text of a resource. Raises ToolError when there is none."""
    if uri == GRAPH:
        return json_text(whole_graph(store), indent=INDENT)
    if uri == RECENT:
        return json_text({"memories": _recent(store)}, indent=INDENT)
    if uri == LOG:
        return json_text({"changes": _log(store)}, indent=INDENT)
    if uri.startswith(ENTITY):
        return json_text(_entity(store, unquote(uri.removeprefix(ENTITY))), indent=INDENT)
    raise ToolError(f"there is no resource {uri}")


def touched(store: Store, change: Change, uris: Iterable[str]) -> Set[str]:
    """Those of the resources that a change may have changed."""
    name, graph = change.collection, store.graph
    if name in store.layers.values():
        return {RECENT}.intersection(uris)
    if name == store.log:
        return {LOG}.intersection(uris)
    if name not in (graph.entities_name, graph.relations_name):
        return set()
    names = _names_in(change, is_entity=name == graph.entities_name)
    return {uri for uri in uris if uri == GRAPH or _is_of(uri, names)}


# -- inside ----------------------------------------------------------------------------------


def _names_in(change: Change, *, is_entity: bool) -> Set[str] | None:
    """The entities of a change; None when it does not say."""
    document: Document | None = change.document
    if is_entity:
        aliases: list[str] = [] if document is None else document.get("aliases") or []
        return {change.id, *aliases} if change.id else None
    return None if document is None else {document["source"], document["target"]}


def _is_of(uri: str, names: Set[str] | None) -> bool:
    if not uri.startswith(ENTITY):
        return False
    return names is None or unquote(uri.removeprefix(ENTITY)) in names


def _recent(store: Store) -> list[Item]:
    found: list[tuple[Any, Item]] = []
    for layer in LAYERS:
        page = store.db[store.layers[layer]].find({}, order_by="-created_at", limit=RECENT_MAX)
        found += [(memory["created_at"], memory_item(memory, layer)) for memory in page]
    found.sort(key=lambda each: each[0], reverse=True)
    return [item for _, item in found[:RECENT_MAX]]


def _log(store: Store) -> list[Item]:
    return [
        {"id": entry["memory_id"], "layer": entry["memory_layer"], **change_item(entry)}
        for entry in store.memory.logs(limit=LOG_MAX)
    ]


def _entity(store: Store, name: str) -> Item:
    entity = store.graph.entity(name) if name else None
    try:
        facts = [] if entity is None else store.graph.facts(entity["name"])
    except MissingKeyError:  # deleted meanwhile
        entity, facts = None, []
    if entity is None:
        raise ToolError(f"Entity with name {name} not found")
    return {
        **entity_item(entity),
        "aliases": entity["aliases"],
        "changed": time_text(entity.get("updated_at")),
        "relations": [
            {
                "from": fact["source"],
                "to": fact["target"],
                "relationType": fact["relation_type"],
                "validFrom": time_text(fact["valid_from"]),
                "validTo": time_text(fact["valid_to"]),
                "told": time_text(fact["told_at"]),
            }
            for fact in facts
        ],
    }
