"""The knowledge graph: entities, and relations between them."""

from fastapi import APIRouter
from starlette.responses import Response

from amberdb import MissingKeyError
from amberdb.server import models
from amberdb.server.service import Id, Limit, Name, Served, Words, answer, found, listed

router = APIRouter(prefix="/graph")
ENTITY = "/entities/{name}"
RELATION = "/relations/{relation_id}"


@router.post("/entities", response_model=models.Document)
async def add_entity(served: Served, given: models.Entity) -> Response:
    """Creates an entity, or adds observations and properties to it; the entity after that."""
    return answer(await (await served.graph()).add_entity(**given.model_dump()))


@router.get("/entities", response_model=models.Documents)
async def entities(
    served: Served, entity_type: Id = None, limit: Limit = 100, after: str | None = None
) -> Response:
    """Entities, or those of one type, by type and name."""
    page = await (await served.graph()).entities(entity_type, limit=limit, after=after)
    return listed(page, page.cursor)


@router.get("/search", response_model=models.Found)
async def search(
    served: Served, text: Words = None, query: Words = None, limit: Limit = 10
) -> Response:
    """Entities by the words of their names, types and observations, the best first; `query` in
    place of a text is in the query language."""
    return found(await (await served.graph()).search(text, query=query, limit=limit))


@router.get(ENTITY, response_model=models.Document)
async def entity(served: Served, name: Name) -> Response:
    """One entity."""
    known = await (await served.graph()).entity(name)
    if known is None:
        raise MissingKeyError(f"there is no entity {name!r}", key=name)
    return answer(known)


@router.get(ENTITY + "/facts", response_model=models.Documents)
async def facts(served: Served, name: Name) -> Response:
    """The relations of an entity that hold now, outgoing ones first."""
    return listed(await (await served.graph()).facts(name), None)


@router.delete(ENTITY, response_model=models.Counted)
async def delete_entity(served: Served, name: Name) -> Response:
    """Deletes an entity with its relations; how many relations."""
    return answer({"count": await (await served.graph()).delete_entity(name)})


@router.post("/relations", response_model=models.Identified)
async def relate(served: Served, given: models.Relation) -> Response:
    """Adds a relation, or changes the one with the same ends, type and valid_from."""
    return answer({"id": await (await served.graph()).relate(**given.model_dump())})


@router.get("/relations", response_model=models.Documents)
async def relations(
    served: Served,
    source: Id = None,
    relation_type: Id = None,
    target: Id = None,
    limit: Limit = 100,
    after: str | None = None,
) -> Response:
    """Relations that hold now, of these ends and this type."""
    graph = await served.graph()
    page = await graph.relations(
        source=source, relation_type=relation_type, target=target, limit=limit, after=after
    )
    return listed(page, page.cursor)


@router.delete(RELATION, response_model=models.Counted)
async def delete_relation(served: Served, relation_id: Name) -> Response:
    """Deletes a relation."""
    await (await served.graph()).delete_relation(relation_id)
    return answer({"count": 1})
