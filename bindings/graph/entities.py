"""The entities of a graph: documents with the entity's name as id.

    name, entity_type, observations, properties, aliases, told_by, provenance

Invariants:
- A name or an alias leads to one entity: an alias is never the name or the alias of another one.
- What another program put is read with defaults.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, TypeAlias, final

from amberdb import (
    Database,
    Document,
    InvalidDocumentError,
    MissingKeyError,
    Ordered,
    Snapshot,
    Text,
    Transaction,
)
from amberdb._shared.checks import check_map, check_name, check_optional_name, check_strs
from amberdb.graph import provenance

Reader: TypeAlias = Database | Snapshot | Transaction

_DEFAULTS: Final[Mapping[str, Callable[[], Any]]] = {
    "observations": list,
    "properties": dict,
    "aliases": list,
    "told_by": lambda: [None],
    "provenance": list,
}


@final
class EntityCollection:
    """The collection of entities. Writes work inside a transaction, reads anywhere."""

    def __init__(self, name: str, clock: Callable[[], datetime]) -> None:
        self.name = name
        self._clock = clock

    def declare(self, db: Database) -> None:
        """Raises CollectionError."""
        db.collection(
            self.name,
            indexes=[
                Ordered("entity_type", "name"),
                Ordered("aliases", sparse=True),
                Ordered("told_by", sparse=True),
                Text("name", "entity_type", "observations"),
                Text("aliases"),
            ],
            required={"name": str, "entity_type": str},
            owner="graph",
        )

    # -- reading -----------------------------------------------------------------------------

    def get(self, reader: Reader, name: str) -> Document | None:
        """The entity with this name or alias, or None. Raises InvalidDocumentError."""
        check_name("the name of an entity", name)
        entities = reader[self.name]
        entity = entities.get(name)
        if entity is None:
            entity = next(iter(entities.find({"aliases": name}, limit=1)), None)
        return None if entity is None else complete_entity(entity)

    def needed(self, reader: Reader, name: str) -> Document:
        """The entity with this name or alias. Raises MissingKeyError, InvalidDocumentError."""
        entity = self.get(reader, name)
        if entity is None:
            raise MissingKeyError(
                f"the graph has no entity {name!r}: call add_entity() first",
                collection=self.name,
                key=name,
            )
        return entity

    def name_of(self, reader: Reader, name: str) -> str:
        """The name of the entity with this name or alias; of none, the name itself."""
        entity = self.get(reader, name)
        return name if entity is None else entity["id"]

    def told_by(self, tx: Transaction, told_by: str) -> list[Document]:
        """The entities of which this document or conversation told."""
        return list(map(complete_entity, tx[self.name].find({"told_by": told_by})))

    # -- writing -----------------------------------------------------------------------------

    def add(
        self,
        tx: Transaction,
        name: str,
        entity_type: str,
        observations: Iterable[str],
        properties: Mapping[str, Any],
        aliases: Iterable[str],
        told_by: str | None,
    ) -> tuple[Document, bool]:
        """Creates an entity or adds to it; the entity, and whether it was changed. Raises
        InvalidDocumentError."""
        check_name("name", name)
        check_name("entity_type", entity_type)
        check_optional_name("told_by", told_by)
        check_map("properties", properties)
        observations = check_strs("observations", observations)
        now = self._clock()
        old = self.get(tx, name)
        entity: Document = old or {
            "id": name,
            "name": name,
            "entity_type": entity_type,
            "observations": [],
            "properties": {},
            "aliases": [],
            "told_by": [],
            "provenance": [],
            "created_at": now,
            "updated_at": now,
        }
        new = {
            **entity,
            "entity_type": entity_type,
            "observations": list(dict.fromkeys((*entity["observations"], *observations))),
            "properties": {**entity["properties"], **properties},
            "aliases": self._aliases(tx, entity, aliases),
        }
        new = provenance.told(new, told_by, observations, properties, known=entity["observations"])
        if new == old:
            return new, False
        new["updated_at"] = now
        tx[self.name].put(new)
        return new, True

    def remove_observations(self, tx: Transaction, name: str, observations: Iterable[str]) -> int:
        """How many were there. Raises MissingKeyError."""
        removed = set(check_strs("observations", observations))
        entity = self.needed(tx, name)
        kept = [text for text in entity["observations"] if text not in removed]
        count = len(entity["observations"]) - len(kept)
        if count:
            records = provenance.without_observations(entity, removed)
            self._put(tx, {**entity, "observations": kept, "provenance": records})
        return count

    def add_aliases(self, tx: Transaction, name: str, aliases: Iterable[str]) -> Document:
        """Raises MissingKeyError, InvalidDocumentError."""
        entity = self.needed(tx, name)
        return self._put(tx, {**entity, "aliases": self._aliases(tx, entity, aliases)})

    def remove_aliases(self, tx: Transaction, name: str, aliases: Iterable[str]) -> Document:
        """Raises MissingKeyError, InvalidDocumentError."""
        removed = set(check_strs("aliases", aliases))
        entity = self.needed(tx, name)
        kept = [alias for alias in entity["aliases"] if alias not in removed]
        return self._put(tx, {**entity, "aliases": kept})

    def rename(self, tx: Transaction, old: Document, name: str, *, keep_alias: bool) -> Document:
        """The entity under its new name. Raises InvalidDocumentError when another one has it."""
        self._check_free(tx, old, name)
        tx[self.name].delete(old["id"])
        aliases = [alias for alias in old["aliases"] if alias != name]
        if keep_alias and name != old["id"]:
            aliases.append(old["id"])
        return self._put(tx, {**old, "id": name, "name": name, "aliases": aliases})

    def merge(self, tx: Transaction, one: Document, into: Document) -> Document:
        """`into`, with what is known of `one`, whose name becomes an alias. Of a property that both
        have, the value is that of `into`."""
        tx[self.name].delete(one["id"])
        return self._put(tx, _united(into, one))

    def forget(self, tx: Transaction, entity: Document, told_by: str) -> tuple[Document, int]:
        """The entity as the others have told it, and how many observations it lost; stored, if
        anybody else told of it."""
        remaining, gone = provenance.without(entity, told_by)
        lost = set(gone)
        remaining["observations"] = [text for text in entity["observations"] if text not in lost]
        return self._put(tx, remaining), len(gone)

    def restore(self, tx: Transaction, entity: Document) -> bool:
        """Adds what was exported of an entity; whether it changed anything. Of a property that is
        there, the value stays. Raises InvalidDocumentError."""
        check_name("name", entity["id"])
        entity = complete_entity(entity)
        old = self.get(tx, entity["id"])
        new = entity if old is None else _united(old, entity)
        if new == old:
            return False
        tx[self.name].put({**new, "aliases": self._aliases(tx, new, new["aliases"])})
        return True

    # -- inside ------------------------------------------------------------------------------

    def _put(self, tx: Transaction, entity: Document) -> Document:
        entity = {**entity, "updated_at": self._clock()}
        tx[self.name].put(entity)
        return entity

    def _aliases(self, tx: Transaction, entity: Document, more: Iterable[str]) -> list[str]:
        """The aliases of an entity with some more. Raises InvalidDocumentError when another entity
        has one of them."""
        aliases = list(entity["aliases"])
        for alias in check_strs("aliases", more):
            self._check_free(tx, entity, alias)
            if alias != entity["id"] and alias not in aliases:
                aliases.append(alias)
        return aliases

    def _check_free(self, tx: Transaction, entity: Document, name: str) -> None:
        other = self.get(tx, name)
        if other is not None and other["id"] != entity["id"]:
            raise InvalidDocumentError(
                f"{name!r} is the entity {other['id']!r}: call merge_entities() if it is the same",
                field="aliases",
            )


def complete_entity(entity: Mapping[str, Any]) -> Document:
    """The document with the fields that another program left out."""
    whole: Document = dict(entity)
    for name, default in _DEFAULTS.items():
        if whole.get(name) is None:
            whole[name] = default()
    return whole


def _united(into: Document, one: Document) -> Document:
    """An entity with what is known of another one. Of a property that both have, the value is that
    of `into`."""
    names = [name for name in (one["id"], *one["aliases"]) if name != into["id"]]
    return {
        **into,
        "observations": list(dict.fromkeys((*into["observations"], *one["observations"]))),
        "properties": {**one["properties"], **into["properties"]},
        "aliases": list(dict.fromkeys((*into["aliases"], *names))),
        **provenance.joined(into, one),
    }
