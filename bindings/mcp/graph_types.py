"""The arguments and results of the tools of the official memory server, with its descriptions.

Invariants:
- Names and descriptions are those of @modelcontextprotocol/server-memory: the schemas that are
  made of these types are its own.
"""

from typing import Annotated

import msgspec


class Entity(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(description="The name of the entity")]
    entity_type: Annotated[str, msgspec.Meta(description="The type of the entity")] = msgspec.field(
        name="entityType"
    )
    observations: Annotated[
        list[str],
        msgspec.Meta(description="An array of observation contents associated with the entity"),
    ]


class Relation(msgspec.Struct):
    source: Annotated[
        str, msgspec.Meta(description="The name of the entity where the relation starts")
    ] = msgspec.field(name="from")
    target: Annotated[
        str, msgspec.Meta(description="The name of the entity where the relation ends")
    ] = msgspec.field(name="to")
    relation_type: Annotated[str, msgspec.Meta(description="The type of the relation")] = (
        msgspec.field(name="relationType")
    )


class Additions(msgspec.Struct):
    entity_name: Annotated[
        str, msgspec.Meta(description="The name of the entity to add the observations to")
    ] = msgspec.field(name="entityName")
    contents: Annotated[
        list[str], msgspec.Meta(description="An array of observation contents to add")
    ]


class Deletions(msgspec.Struct):
    entity_name: Annotated[
        str, msgspec.Meta(description="The name of the entity containing the observations")
    ] = msgspec.field(name="entityName")
    observations: Annotated[
        list[str], msgspec.Meta(description="An array of observations to delete")
    ]


class Entities(msgspec.Struct):
    entities: list[Entity]


class Relations(msgspec.Struct):
    relations: list[Relation]


class OldRelations(msgspec.Struct):
    relations: Annotated[
        list[Relation], msgspec.Meta(description="An array of relations to delete")
    ]


class NewObservations(msgspec.Struct):
    observations: list[Additions]


class OldObservations(msgspec.Struct):
    deletions: list[Deletions]


class OldEntities(msgspec.Struct):
    names: Annotated[list[str], msgspec.Meta(description="An array of entity names to delete")] = (
        msgspec.field(name="entityNames")
    )


class Nothing(msgspec.Struct):
    pass


class Query(msgspec.Struct):
    query: Annotated[
        str,
        msgspec.Meta(
            description="The search query to match against entity names, types, and observation "
            "content"
        ),
    ]


class Names(msgspec.Struct):
    names: Annotated[list[str], msgspec.Meta(description="An array of entity names to retrieve")]


class Added(msgspec.Struct):
    entity_name: str = msgspec.field(name="entityName")
    observations: list[str] = msgspec.field(name="addedObservations")


class AddedObservations(msgspec.Struct):
    results: list[Added]


class Done(msgspec.Struct):
    success: bool
    message: str


class Graph(msgspec.Struct):
    entities: list[Entity]
    relations: list[Relation]
