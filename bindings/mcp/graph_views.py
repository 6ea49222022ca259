"""The reading tools of the official memory server: the whole graph, or the entities of a query.

Invariants:
- Entities and relations are listed in the order in which they were told; entities that are found
  by the words of a query, the best first.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from amberdb import Document, MissingKeyError
from amberdb.mcp.answers import Answer, Budget, Item, left_out
from amberdb.mcp.graph_types import Names, Nothing, Query
from amberdb.mcp.store import Store

INDENT: Final = 2
WORD_HITS_MAX: Final = 10
"""Entities that are found by the words of a query, when none contains it as it is."""
_FACTS_MAX: Final = 50
"""Up to so many entities have their relations looked up one by one."""
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
_CUT: Final = (
    "narrow it with search_nodes or open_nodes, or read memory://knowledge-graph, which is whole"
)


def whole_graph(store: Store) -> dict[str, list[Item]]:
    """All entities and the relations that are valid now, in the order in which they were told."""
    with store.db.snapshot() as at:
        entities = list(store.graph.snapshot_entities(at))
        relations = list(store.graph.snapshot_relations(at, "now"))
    return _graph(entities, relations)


def read_graph(store: Store, _: Nothing) -> Answer:
    """The whole graph."""
    return _shown(store, whole_graph(store))


def search_nodes(store: Store, given: Query) -> Answer:
    """Entities that contain the query in a name, a type or an observation, in any case; when there
    are none, those with its words, the best first."""
    query = given.query.lower()
    with store.db.snapshot() as at:
        found = [each for each in store.graph.snapshot_entities(at) if _contains(each, query)]
    if found:
        return _shown(store, _graph(found, _relations_of(store, found)))
    hits = store.graph.search(given.query, limit=WORD_HITS_MAX)
    found = [entity for hit in hits if (entity := store.graph.entity(hit.id)) is not None]
    graph = _graph([], _relations_of(store, found))
    return _shown(store, {**graph, "entities": list(map(entity_item, found))})


def open_nodes(store: Store, given: Names) -> Answer:
    """Entities by name or alias, with their relations; names that are not there are ignored."""
    opened: dict[str, Document] = {}
    for name in given.names:
        entity = store.graph.entity(name) if name else None
        if entity is not None:
            opened[entity["name"]] = entity
    found = list(opened.values())
    return _shown(store, _graph(found, _relations_of(store, found)))


def entity_item(entity: Document) -> Item:
    """An entity as the official server shows it."""
    return {
        "name": entity["name"],
        "entityType": entity["entity_type"],
        "observations": entity["observations"],
    }


# -- inside ----------------------------------------------------------------------------------


def _contains(entity: Document, query: str) -> bool:
    texts = (entity["name"], entity["entity_type"], *entity["observations"])
    return any(query in text.lower() for text in texts)


def _relations_of(store: Store, entities: Sequence[Document]) -> Iterable[Document]:
    """The relations that are valid now and have one of the entities at an end."""
    names = {entity["name"] for entity in entities}
    if len(names) <= _FACTS_MAX:
        found: dict[str, Document] = {}
        for name in names:
            try:
                found |= {each["id"]: each for each in store.graph.facts(name)}
            except MissingKeyError:
                pass  # deleted meanwhile
        return found.values()
    with store.db.snapshot() as at:
        return [
            each
            for each in store.graph.snapshot_relations(at, "now")
            if each["source"] in names or each["target"] in names
        ]


def _graph(entities: Iterable[Document], relations: Iterable[Document]) -> dict[str, list[Item]]:
    ends: dict[tuple[str, str, str], Item] = {}
    for each in sorted(relations, key=_told_at):
        # a relation with several validity intervals is shown once
        key = each["source"], each["target"], each["relation_type"]
        ends.setdefault(key, dict(zip(("from", "to", "relationType"), key, strict=True)))
    return {
        "entities": [entity_item(each) for each in sorted(entities, key=_created_at)],
        "relations": list(ends.values()),
    }


def _created_at(entity: Document) -> tuple[datetime, str]:
    return entity.get("created_at") or _EARLIEST, entity["name"]


def _told_at(relation: Document) -> tuple[datetime, str]:
    return relation["told_at"] or _EARLIEST, relation["id"]


def _shown(store: Store, graph: dict[str, list[Item]]) -> Answer:
    kept, count = Budget(store.options.chars_max, indent=INDENT).fitted(graph)
    return Answer(content=kept, indent=INDENT, note=left_out(count, _CUT))
