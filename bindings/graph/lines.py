"""Lines of the MCP memory server's file, and those of a lossless export.

    {"type": "entity", "name": ..., "entityType": ..., "observations": [...]}
    {"type": "relation", "from": ..., "to": ..., "relationType": ...}

A line of a lossless export has one more key: "amberdb", the other fields of what is stored.

Invariants:
- A line that was parsed has fields of the right types, those below "amberdb" too.
"""

from datetime import datetime
from typing import Annotated, Any, TypeAlias

import msgspec

from amberdb import Document
from amberdb._jsonl.reader import parse_line
from amberdb.graph.relation import Told

_Time: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]


class _Record(msgspec.Struct):
    told_by: str | None
    observations: list[str] = []
    properties: list[str] = []


class _End(msgspec.Struct):
    valid_to: _Time
    ended_at: _Time | None = None
    ended_by: str | None = None


class _Entity(msgspec.Struct):
    """The other fields of an entity."""

    properties: dict[str, Any] = {}
    aliases: list[str] = []
    told_by: list[str | None] = msgspec.field(default_factory=lambda: [None])
    provenance: list[_Record] = []
    created_at: _Time | None = None
    updated_at: _Time | None = None


class _Relation(msgspec.Struct):
    """The other fields of a relation."""

    id: str
    fact: str | None = None
    properties: dict[str, Any] = {}
    valid_from: _Time | None = None
    valid_to: _Time | None = None
    told_at: _Time | None = None
    ended_at: _Time | None = None
    ended_by: str | None = None
    former_ends: list[_End] = []
    told_by: list[str | None] = msgspec.field(default_factory=lambda: [None])
    provenance: list[_Record] = []


class EntityLine(msgspec.Struct, tag_field="type", tag="entity"):
    name: str
    observations: list[str]
    entity_type: str = msgspec.field(name="entityType")
    document: dict[str, Any] | None = msgspec.field(name="amberdb", default=None)

    def whole(self) -> Document:
        """The stored entity. Raises ValueError."""
        named = {"id": self.name, "name": self.name, "entity_type": self.entity_type}
        rest = _checked(self.document, _Entity)
        return {**rest, **named, "observations": self.observations}


class RelationLine(msgspec.Struct, tag_field="type", tag="relation"):
    source: str = msgspec.field(name="from")
    target: str = msgspec.field(name="to")
    relation_type: str = msgspec.field(name="relationType")
    document: dict[str, Any] | None = msgspec.field(name="amberdb", default=None)

    def told(self) -> Told:
        return Told(source=self.source, relation_type=self.relation_type, target=self.target)

    def whole(self) -> Document:
        """The stored relation. Raises ValueError."""
        ends = {"source": self.source, "relation_type": self.relation_type, "target": self.target}
        return {**_checked(self.document, _Relation), **ends}


Line: TypeAlias = EntityLine | RelationLine


def parsed(text: bytes) -> Line:
    """Raises ValueError."""
    value = parse_line(text)
    try:
        line: Line = msgspec.convert(value, Line)
        if line.document is not None:
            line.whole()
    except msgspec.ValidationError as error:
        raise ValueError(f"neither an entity nor a relation: {error}") from None
    return line


def _checked(document: dict[str, Any] | None, kind: type[_Entity | _Relation]) -> Document:
    """The other fields of a line, with defaults. Raises ValueError."""
    fields = msgspec.to_builtins(msgspec.convert(document, kind), builtin_types=(datetime,))
    return {**(document or {}), **fields}


def entity_line(entity: Document) -> dict[str, Any]:
    return {
        "type": "entity",
        "name": entity["name"],
        "entityType": entity["entity_type"],
        "observations": entity["observations"],
    }


def relation_line(relation: Document) -> dict[str, Any]:
    return {
        "type": "relation",
        "from": relation["source"],
        "to": relation["target"],
        "relationType": relation["relation_type"],
    }
