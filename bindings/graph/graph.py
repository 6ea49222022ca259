"""A knowledge graph: entities with observations, and relations that are valid for a time.

    <name>_entities    id = name: entity_type, observations, properties
    <name>_relations   source -relation_type-> target, properties, valid_from <= t < valid_to

Invariants:
- Both ends of a relation exist: the commit that adds it checks that, and deleting an entity deletes
  its relations in the same commit.
- A relation is identified by its ends, its type and `valid_from`: added again, it is changed, not
  duplicated. Without valid_from it was always valid, without valid_to it still is.
- A traversal reads one snapshot and is deterministic: names are visited in sorted order.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias, final

from amberdb import (
    CursorError,
    Database,
    Document,
    Hit,
    InvalidDocumentError,
    MissingKeyError,
    Ordered,
    Page,
    QueryError,
    Snapshot,
    Text,
    Transaction,
)
from amberdb._shared.checks import check_name, check_optional_time, check_str
from amberdb._shared.clock import SteadyClock
from amberdb._shared.queries import all_pages, having
from amberdb.graph.walks import Direction, levels

AsOf: TypeAlias = datetime | Literal["now", "ever"]
"""Relations that were valid at a time, that are valid now, or all of them ("ever")."""

_SEPARATOR: Final = "/"
"""In a cursor, between the time of "now" and the cursor of the collection."""
_PAGE: Final = 1_000
_OUT: Final = ("source", "relation_type", "target", "valid_from")
_IN: Final = ("target", "relation_type", "source", "valid_from")
_TYPE: Final = ("relation_type", "source", "target", "valid_from")


@final
class KnowledgeGraph:
    """A graph in an open database; threads may share it.

    name    name of the graph; a database may hold several
    clock   function that returns epoch seconds

    Raises CollectionError.
    """

    def __init__(
        self, db: Database, *, name: str = "graph", clock: Callable[[], float] = time.time
    ) -> None:
        self.db = db
        self.entities_name = f"{name}_entities"
        self.relations_name = f"{name}_relations"
        self._clock = SteadyClock(clock)
        db.collection(
            self.entities_name,
            indexes=[Ordered("entity_type", "name"), Text("name", "entity_type", "observations")],
            required={"name": str, "entity_type": str},
        )
        db.collection(
            self.relations_name,
            indexes=[Ordered(*_OUT), Ordered(*_IN), Ordered(*_TYPE)],
            required={"source": str, "target": str, "relation_type": str},
        )

    # -- entities ----------------------------------------------------------------------------

    def add_entity(
        self,
        name: str,
        entity_type: str,
        *,
        observations: Iterable[str] = (),
        properties: Mapping[str, Any] | None = None,
    ) -> Document:
        """Creates an entity, or adds observations and properties to it; the entity after that.
        Raises InvalidDocumentError."""
        with self.db.transaction() as tx:
            self.put_entity(tx, name, entity_type, list(observations), properties or {})
            return tx[self.entities_name].record(name).document

    def entity(self, name: str) -> Document | None:
        """The entity, or None: name, entity_type, observations, properties."""
        entity: Document | None = self.db.collection(self.entities_name).get(name)
        return entity

    def entities(
        self, entity_type: str | None = None, *, limit: int | None = 100, after: str | None = None
    ) -> Page:
        """Entities, or those of one type, by type and name."""
        where = having(entity_type=entity_type)
        return self.db.collection(self.entities_name).find(
            where, order_by=["entity_type", "name"], limit=limit, after=after
        )

    def search(
        self, text: str | None = None, *, query: str | None = None, limit: int = 10
    ) -> Sequence[Hit]:
        """Full-text search of names, types and observations of entities, the best first: by the
        words of a text, or by a query in the query language. Raises QueryError."""
        return self.db.collection(self.entities_name).search(text, query=query, limit=limit)

    def remove_observations(self, name: str, observations: Iterable[str]) -> int:
        """Removes observations of an entity; how many. Raises MissingKeyError."""
        removed: set[str] = set()
        for observation in observations:
            check_str("observations", observation)
            removed.add(observation)
        with self.db.transaction() as tx:
            entity = self._needed(tx, name)
            kept = [text for text in entity["observations"] if text not in removed]
            count = len(entity["observations"]) - len(kept)
            if count:
                tx[self.entities_name].update(name, {"observations": kept})
        return count

    def delete_entity(self, name: str) -> int:
        """Deletes an entity with its relations, in one commit; how many relations. Raises
        MissingKeyError, and TransactionTooLargeError for some hundred thousand relations: call
        delete_relations() first."""
        with self.db.transaction() as tx:
            self._needed(tx, name)
            tx[self.entities_name].delete(name)
            relations = tx[self.relations_name]
            return relations.delete_many({"source": name}) + relations.delete_many({"target": name})

    # -- relations ---------------------------------------------------------------------------

    def relate(
        self,
        source: str,
        relation_type: str,
        target: str,
        *,
        properties: Mapping[str, Any] | None = None,
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
    ) -> str:
        """Adds a relation, or changes the one with the same ends, type and valid_from; its id.
        Raises MissingKeyError when an end is missing, and InvalidDocumentError."""
        with self.db.transaction() as tx:
            ends = source, relation_type, target
            id, _ = self.put_relation(tx, *ends, properties or {}, valid_from, valid_to)
            return id

    def end_relation(self, relation_id: str, valid_to: datetime | None = None) -> None:
        """Ends the validity of a relation at `valid_to`, by default now. Raises MissingKeyError,
        InvalidDocumentError."""
        valid_to = self._now() if valid_to is None else valid_to
        with self.db.transaction() as tx:
            relation = tx[self.relations_name].record(relation_id).document
            _check_span(relation["valid_from"], valid_to)
            tx[self.relations_name].update(relation_id, {"valid_to": valid_to})

    def delete_relation(self, relation_id: str) -> None:
        """Deletes a relation. Raises MissingKeyError."""
        del self.db.collection(self.relations_name)[relation_id]

    def delete_relations(
        self,
        *,
        source: str | None = None,
        relation_type: str | None = None,
        target: str | None = None,
    ) -> int:
        """Deletes all relations that match, in commits of 1,000; how many. Raises QueryError
        without any argument."""
        where, _ = _pattern(source, relation_type, target)
        if not where:
            raise QueryError("give source, relation_type or target")
        count = 0
        while True:
            with self.db.transaction() as tx:
                relations = tx[self.relations_name]
                page = relations.find(where, limit=_PAGE, fields=["id"])
                for relation in page:
                    relations.delete(relation["id"])
            count += len(page)
            if len(page) < _PAGE:
                return count

    def relation(self, relation_id: str) -> Document | None:
        """The relation, or None: source, relation_type, target, properties, valid_from,
        valid_to."""
        relation: Document | None = self.db.collection(self.relations_name).get(relation_id)
        return relation

    def relations(
        self,
        *,
        source: str | None = None,
        relation_type: str | None = None,
        target: str | None = None,
        as_of: AsOf = "now",
        limit: int | None = 100,
        after: str | None = None,
    ) -> "Relations":
        """Relations that match, ordered by the given fields first. With `as_of="now"` the following
        pages use the time of the first one. Raises QueryError, CursorError."""
        where, order = _pattern(source, relation_type, target)
        if as_of == "now":
            as_of = self._now() if after is None else _moment(after)
        page = self.db.collection(self.relations_name).find(
            {**where, **self._valid(as_of)},
            order_by=order,
            limit=limit,
            after=None if after is None else after.partition(_SEPARATOR)[2],
        )
        moment = as_of.isoformat() if isinstance(as_of, datetime) else ""
        return Relations(page, page.cursor and moment + _SEPARATOR + page.cursor)

    def facts(self, name: str, *, as_of: AsOf = "now") -> list[Document]:
        """All relations of an entity, outgoing ones first. Raises MissingKeyError, QueryError."""
        valid = self._valid(as_of)
        with self.db.snapshot() as at:
            self._needed(at, name)
            relations = at[self.relations_name]
            out = relations.find({"source": name, **valid}, order_by=_OUT)
            into = relations.find({"target": name, **valid}, order_by=_IN)
        return [*out, *(relation for relation in into if relation["source"] != name)]

    # -- traversals --------------------------------------------------------------------------

    def neighbours(
        self,
        name: str,
        *,
        relation_type: str | None = None,
        direction: Direction = "both",
        as_of: AsOf = "now",
    ) -> list[str]:
        """Names of the entities one relation away. Raises MissingKeyError, QueryError."""
        return list(
            self.k_hop(name, 1, relation_type=relation_type, direction=direction, as_of=as_of)
        )

    def k_hop(
        self,
        name: str,
        hops: int,
        *,
        relation_type: str | None = None,
        direction: Direction = "both",
        as_of: AsOf = "now",
    ) -> dict[str, int]:
        """Names of the entities up to `hops` relations away, with their distance, the nearest
        first. Raises MissingKeyError, QueryError (also for more than WALK_MAX entities)."""
        if type(hops) is not int or hops < 1:
            raise QueryError(f"hops must be at least 1, not {hops!r}")
        distances: dict[str, int] = {}
        with self.db.snapshot() as at:
            self._needed(at, name)
            levels = self._levels(at, name, relation_type, direction, as_of)
            for distance, level in zip(range(1, hops + 1), levels, strict=False):
                distances.update(dict.fromkeys(sorted(level), distance))
        return distances

    def shortest_path(
        self,
        source: str,
        target: str,
        *,
        relation_type: str | None = None,
        direction: Direction = "both",
        as_of: AsOf = "now",
    ) -> list[str] | None:
        """Names on a path with the fewest relations, from source to target, both included; None
        when there is no path. Raises as k_hop()."""
        came_from: dict[str, str] = {}
        with self.db.snapshot() as at:
            self._needed(at, source)
            self._needed(at, target)
            if source == target:
                return [source]
            for level in self._levels(at, source, relation_type, direction, as_of):
                came_from.update(level)
                if target in level:
                    break
            else:
                return None
        path = [target]
        while path[-1] != source:
            path.append(came_from[path[-1]])
        return path[::-1]

    # -- for imports and exports -------------------------------------------------------------

    def put_entity(
        self,
        tx: Transaction,
        name: str,
        entity_type: str,
        observations: Sequence[str],
        properties: Mapping[str, Any],
    ) -> bool:
        """add_entity() inside a transaction; whether it changed anything. Raises
        InvalidDocumentError."""
        check_name("name", name)
        check_name("entity_type", entity_type)
        for observation in observations:
            check_str("observations", observation)
        entities = tx[self.entities_name]
        now = self._now()
        old = entities.get(name)
        entity: Document = old or {
            "id": name,
            "name": name,
            "entity_type": entity_type,
            "observations": [],
            "properties": {},
            "created_at": now,
            "updated_at": now,
        }
        new = {
            **entity,
            "entity_type": entity_type,
            "observations": list(dict.fromkeys((*entity["observations"], *observations))),
            "properties": {**entity["properties"], **properties},
        }
        if new == old:
            return False
        entities.put({**new, "updated_at": now})
        return True

    def put_relation(
        self,
        tx: Transaction,
        source: str,
        relation_type: str,
        target: str,
        properties: Mapping[str, Any],
        valid_from: datetime | None,
        valid_to: datetime | None,
    ) -> tuple[str, bool]:
        """relate() inside a transaction; the id, and whether it changed anything. Raises as
        relate()."""
        check_name("relation_type", relation_type)
        check_optional_time("valid_from", valid_from)
        check_optional_time("valid_to", valid_to)
        _check_span(valid_from, valid_to)
        for name in (source, target):
            self._needed(tx, name)
        relations = tx[self.relations_name]
        ends = {"source": source, "relation_type": relation_type, "target": target}
        matches = relations.find({**ends, "valid_from": valid_from}, limit=1)
        old = matches[0] if matches else None
        relation: Document = old or {
            **ends,
            "properties": {},
            "valid_from": valid_from,
            "valid_to": None,
            "created_at": self._now(),
        }
        new = {**relation, "properties": {**relation["properties"], **properties}}
        if valid_to is not None:
            new["valid_to"] = valid_to
        if old is not None and new == old:
            return old["id"], False
        return relations.put(new), True

    def snapshot_relations(self, at: Snapshot, as_of: AsOf) -> Iterator[Document]:
        """All relations of a snapshot, by source, type and target. Raises QueryError."""
        return all_pages(at[self.relations_name].find, self._valid(as_of), order_by=_OUT)

    # -- inside ------------------------------------------------------------------------------

    def _now(self) -> datetime:
        return self._clock()

    def _needed(self, reader: Transaction | Snapshot, name: str) -> Document:
        """The entity. Raises MissingKeyError, InvalidDocumentError."""
        check_name("the name of an entity", name)
        entity = reader[self.entities_name].get(name)
        if entity is None:
            raise MissingKeyError(
                f"the graph has no entity {name!r}: call add_entity() first",
                collection=self.entities_name,
                key=name,
            )
        return entity

    def _levels(
        self,
        at: Snapshot,
        start: str,
        relation_type: str | None,
        direction: Direction,
        as_of: AsOf,
    ) -> Iterator[dict[str, str]]:
        where = {**self._valid(as_of), **having(relation_type=relation_type)}
        return levels(at[self.relations_name].find, start, where, direction)

    def _valid(self, as_of: AsOf) -> dict[str, Any]:
        """The filter for relations that are valid as of this time. Raises QueryError."""
        if as_of == "ever":
            return {}
        at = self._now() if as_of == "now" else as_of
        _check_moment(at)
        has_begun = {"$or": [{"valid_from": None}, {"valid_from": {"$lte": at}}]}
        has_not_ended = {"$or": [{"valid_to": None}, {"valid_to": {"$gt": at}}]}
        return {"$and": [has_begun, has_not_ended]}


@final
class Relations(list[Document]):
    """A page of relations. `cursor` is for the next page; None when this page was not filled."""

    __slots__ = ("cursor",)

    def __init__(self, relations: Iterable[Document], cursor: str | None) -> None:
        super().__init__(relations)
        self.cursor = cursor


def _moment(cursor: str) -> datetime:
    """The time of the first page, from a cursor. Raises CursorError."""
    try:
        return datetime.fromisoformat(cursor.partition(_SEPARATOR)[0])
    except ValueError:
        raise CursorError("the cursor belongs to another query: start again without it") from None


def _pattern(
    source: str | None, relation_type: str | None, target: str | None
) -> tuple[dict[str, Any], Sequence[str]]:
    """A filter, and the order in which an index has its matches. Raises QueryError."""
    where = having(source=source, relation_type=relation_type, target=target)
    if source is None and target is not None:
        return where, _IN
    return where, _TYPE if source is None and relation_type is not None else _OUT


def _check_moment(as_of: object) -> None:
    """Raises QueryError unless it is a datetime with a time zone."""
    if not isinstance(as_of, datetime) or as_of.tzinfo is None:
        raise QueryError(f'as_of must be "now", "ever" or an aware datetime, not {as_of!r}')


def _check_span(valid_from: datetime | None, valid_to: datetime | None) -> None:
    """Raises InvalidDocumentError unless valid_to is after valid_from."""
    check_optional_time("valid_to", valid_to)
    if valid_from is not None and valid_to is not None and valid_to <= valid_from:
        raise InvalidDocumentError(
            f"a relation that is valid from {valid_from} cannot end at {valid_to}",
            field="valid_to",
        )
