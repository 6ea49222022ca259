"""The nine tools of the official memory server, over a KnowledgeGraph.

    create_entities create_relations add_observations
    delete_entities delete_observations delete_relations
    read_graph search_nodes open_nodes

Names, schemas, texts and structured content are those of @modelcontextprotocol/server-memory;
docs/mcp.md lists what differs.

Invariants:
- A call is one commit: all of it is stored, or nothing.
- What a call creates is listed in its order.
"""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from amberdb import MissingKeyError, Transaction
from amberdb.graph.relation import Told
from amberdb.mcp.answers import Answer, Item, ToolError
from amberdb.mcp.graph_types import (
    AddedObservations,
    Done,
    Entities,
    Graph,
    Names,
    NewObservations,
    Nothing,
    OldEntities,
    OldObservations,
    OldRelations,
    Query,
    Relations,
)
from amberdb.mcp.graph_views import INDENT, entity_item, open_nodes, read_graph, search_nodes
from amberdb.mcp.store import Store
from amberdb.mcp.tool import Tool

# -- writing ---------------------------------------------------------------------------------


def create_entities(store: Store, given: Entities) -> Answer:
    """Stores the entities that are not there yet; those."""

    def create(tx: Transaction) -> list[Item]:
        created: list[Item] = []
        taken: set[str] = set()
        store.graph.lock(tx, *(each.name for each in given.entities))
        for each in given.entities:
            if each.name in taken or (each.name and store.graph.entity(each.name) is not None):
                continue
            entity = store.graph.add_entity(
                each.name, each.entity_type, observations=each.observations, tx=tx
            )
            taken.add(each.name)
            created.append(entity_item(entity))
        return created

    created = store.db.run(create)
    return Answer(content={"entities": created}, shown=created, indent=INDENT)


def create_relations(store: Store, given: Relations) -> Answer:
    """Stores the relations that are not there yet; those. Raises ToolError when an end is
    missing."""
    told = [
        Told(source=each.source, relation_type=each.relation_type, target=each.target)
        for each in given.relations
    ]
    for each in told:
        each.check()
    told = store.graph.embedded(told)

    def create(tx: Transaction) -> list[Item]:
        created: list[Item] = []
        taken: set[tuple[str, str, str]] = set()
        store.graph.lock(tx, *(name for each in told for name in (each.source, each.target)))
        for each, relation in zip(told, given.relations, strict=True):
            ends = (each.source, each.relation_type, each.target)
            if ends not in taken and _is_told_anew(store, tx, each):
                taken.add(ends)
                created.append(
                    {
                        "from": relation.source,
                        "to": relation.target,
                        "relationType": relation.relation_type,
                    }
                )
        return created

    created = store.db.run(create)
    return Answer(content={"relations": created}, shown=created, indent=INDENT)


def add_observations(store: Store, given: NewObservations) -> Answer:
    """Adds observations to entities. Raises ToolError when one is missing."""

    def add(tx: Transaction) -> list[Item]:
        results: list[Item] = []
        known: dict[str, list[str]] = {}
        store.graph.lock(tx, *(each.entity_name for each in given.observations))
        for each in given.observations:
            entity = store.graph.entity(each.entity_name) if each.entity_name else None
            if entity is None:
                raise _not_found(each.entity_name)
            observations = known.setdefault(entity["name"], entity["observations"])
            new = [text for text in dict.fromkeys(each.contents) if text not in observations]
            observations += new
            store.graph.add_entity(entity["name"], entity["entity_type"], observations=new, tx=tx)
            results.append({"entityName": each.entity_name, "addedObservations": new})
        return results

    results = store.db.run(add)
    return Answer(content={"results": results}, shown=results, indent=INDENT)


def delete_entities(store: Store, given: OldEntities) -> Answer:
    """Deletes entities with their relations; names that are not there are ignored."""

    def delete(tx: Transaction) -> None:
        store.graph.lock(tx, *given.names)
        for name in given.names:
            try:
                store.graph.delete_entity(name, tx=tx)
            except MissingKeyError:
                pass

    store.db.run(delete)
    return _done("Entities deleted successfully")


def delete_observations(store: Store, given: OldObservations) -> Answer:
    """Deletes observations; those that are not there are ignored."""

    def delete(tx: Transaction) -> None:
        store.graph.lock(tx, *(each.entity_name for each in given.deletions))
        for each in given.deletions:
            try:
                store.graph.remove_observations(each.entity_name, each.observations, tx=tx)
            except MissingKeyError:
                pass

    store.db.run(delete)
    return _done("Observations deleted successfully")


def delete_relations(store: Store, given: OldRelations) -> Answer:
    """Deletes relations; those that are not there are ignored."""

    def delete(tx: Transaction) -> None:
        for each in given.relations:
            store.graph.delete_relations(
                source=each.source, relation_type=each.relation_type, target=each.target, tx=tx
            )

    store.db.run(delete)
    return _done("Relations deleted successfully")


# -- inside ----------------------------------------------------------------------------------


def _is_told_anew(store: Store, tx: Transaction, told: Told) -> bool:
    """Tells a relation that is not valid now; whether there was none."""
    graph, source, type_, target = store.graph, told.source, told.relation_type, told.target
    for name in (source, target):
        if not name or graph.entity(name) is None:
            raise _not_found(name)
    if graph.relations(source=source, relation_type=type_, target=target, limit=1):
        return False
    if graph.relations(source=source, relation_type=type_, target=target, as_of="ever", limit=1):
        told = replace(told, valid_from=datetime.now(UTC))  # it was true before, and is again
    return graph.put_relation(tx, told)[1]


def _not_found(name: str) -> ToolError:
    return ToolError(f"Entity with name {name} not found")


def _done(message: str) -> Answer:
    return Answer(content={"success": True, "message": message}, shown=message)


TOOLS: Final[tuple[Tool[Any], ...]] = (
    Tool(
        name="create_entities",
        title="Create Entities",
        description="Create multiple new entities in the knowledge graph",
        arguments=Entities,
        result=Entities,
        run=create_entities,
        writes=True,
    ),
    Tool(
        name="create_relations",
        title="Create Relations",
        description="Create multiple new relations between entities in the knowledge graph. "
        "Relations should be in active voice",
        arguments=Relations,
        result=Relations,
        run=create_relations,
        writes=True,
    ),
    Tool(
        name="add_observations",
        title="Add Observations",
        description="Add new observations to existing entities in the knowledge graph",
        arguments=NewObservations,
        result=AddedObservations,
        run=add_observations,
        writes=True,
    ),
    Tool(
        name="delete_entities",
        title="Delete Entities",
        description="Delete multiple entities and their associated relations from the knowledge "
        "graph",
        arguments=OldEntities,
        result=Done,
        run=delete_entities,
        writes=True,
        destroys=True,
        is_idempotent=True,
    ),
    Tool(
        name="delete_observations",
        title="Delete Observations",
        description="Delete specific observations from entities in the knowledge graph",
        arguments=OldObservations,
        result=Done,
        run=delete_observations,
        writes=True,
        destroys=True,
        is_idempotent=True,
    ),
    Tool(
        name="delete_relations",
        title="Delete Relations",
        description="Delete multiple relations from the knowledge graph",
        arguments=OldRelations,
        result=Done,
        run=delete_relations,
        writes=True,
        destroys=True,
        is_idempotent=True,
    ),
    Tool(
        name="read_graph",
        title="Read Graph",
        description="Read the entire knowledge graph",
        arguments=Nothing,
        result=Graph,
        run=read_graph,
        is_idempotent=True,
    ),
    Tool(
        name="search_nodes",
        title="Search Nodes",
        description="Search for nodes in the knowledge graph based on a query",
        arguments=Query,
        result=Graph,
        run=search_nodes,
        is_idempotent=True,
    ),
    Tool(
        name="open_nodes",
        title="Open Nodes",
        description="Open specific nodes in the knowledge graph by their names",
        arguments=Names,
        result=Graph,
        run=open_nodes,
        is_idempotent=True,
    ),
)
