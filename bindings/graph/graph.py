"""A knowledge graph: entities with observations, and relations that are true for a time.

    <name>_entities    id = name: entity_type, observations, properties
    <name>_relations   source -relation_type-> target, properties, valid_from <= t < valid_to

Invariants:
- Both ends of a relation are there: they are looked for in the commit that makes it, and an entity
  takes its relations along in the commit that deletes it.
- A relation is known by its ends, its type and when it begins: told again, it is changed, not
  doubled. One without valid_from was always true, one without valid_to still is.
- A walk sees one moment of the database, and answers alike each time: names are taken in order.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
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
from amberdb._shared.checks import check_name, check_str, check_time
from amberdb._shared.pages import all_pages
from amberdb._shared.questions import words
from amberdb.graph.walks import Direction, levels

AsOf: TypeAlias = datetime | Literal["now", "ever"]
"""Relations that were valid at a time, that are now, or all that ever were."""

_SEAM: Final = "/"
"""In a cursor, behind the moment."""
_PAGE: Final = 1_000
_OUT: Final = ("source", "relation_type", "target", "valid_from")
_IN: Final = ("target", "relation_type", "source", "valid_from")
_TYPE: Final = ("relation_type", "source", "target", "valid_from")


@final
class KnowledgeGraph:
    """Over an open database; threads may share it.

    name    of the graph: there may be several in one database
    clock   epoch seconds

    Raises CollectionError.
    """

    def __init__(
        self, db: Database, *, name: str = "graph", clock: Callable[[], float] = time.time
    ) -> None:
        self.db = db
        self.entities_name = f"{name}_entities"
        self.relations_name = f"{name}_relations"
        self._clock = clock
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
        """Creates an entity, or adds to it what it does not have yet; as it is then. Raises
        InvalidDocumentError."""
        with self.db.transaction() as tx:
            self.put_entity(tx, name, entity_type, list(observations), properties or {})
            return tx[self.entities_name].record(name).document

    def entity(self, name: str) -> Document | None:
        """name, entity_type, observations, properties."""
        found: Document | None = self.db.collection(self.entities_name).get(name)
        return found

    def entities(
        self, entity_type: str | None = None, *, limit: int | None = 100, after: str | None = None
    ) -> Page:
        """By type and name."""
        where = {} if entity_type is None else {"entity_type": entity_type}
        return self.db.collection(self.entities_name).find(
            where, order_by=["entity_type", "name"], limit=limit, after=after
        )

    def search(self, query: str, *, limit: int = 10) -> Sequence[Hit]:
        """Entities by the words of their names, types and observations, the best first."""
        text = words(query)
        return self.db.collection(self.entities_name).search(text, limit=limit) if text else []

    def remove_observations(self, name: str, observations: Iterable[str]) -> int:
        """How many there were. Raises MissingKeyError."""
        gone = set(observations)
        with self.db.transaction() as tx:
            entity = self._needed(tx, name)
            kept = [each for each in entity["observations"] if each not in gone]
            count = len(entity["observations"]) - len(kept)
            if count:
                tx[self.entities_name].update(name, {"observations": kept})
        return count

    def delete_entity(self, name: str) -> int:
        """With its relations, in one commit; how many those were. Raises MissingKeyError, and
        TransactionTooLargeError for some hundred thousand of them: delete_relations() first."""
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
        """Adds a relation, or changes the one that begins at the same time; its id. Raises
        MissingKeyError when an end is not there, and InvalidDocumentError."""
        with self.db.transaction() as tx:
            given = (source, relation_type, target, properties or {}, valid_from, valid_to)
            id, _ = self.put_relation(tx, *given)
            return id

    def end_relation(self, relation_id: str, valid_to: datetime | None = None) -> None:
        """It is true no more from `valid_to` on, by default from now. Raises MissingKeyError,
        InvalidDocumentError."""
        valid_to = self._now() if valid_to is None else valid_to
        with self.db.transaction() as tx:
            relation = tx[self.relations_name].record(relation_id).document
            _check_span(relation["valid_from"], valid_to)
            tx[self.relations_name].update(relation_id, {"valid_to": valid_to})

    def delete_relation(self, relation_id: str) -> None:
        """As if it had never been told. Raises MissingKeyError."""
        del self.db.collection(self.relations_name)[relation_id]

    def delete_relations(
        self,
        *,
        source: str | None = None,
        relation_type: str | None = None,
        target: str | None = None,
    ) -> int:
        """All that match, in commits of 1,000; how many there were. Raises QueryError when nothing
        is named."""
        where, _ = _pattern(source, relation_type, target)
        if not where:
            raise QueryError("say which relations: source, relation_type or target")
        count = 0
        while True:
            with self.db.transaction() as tx:
                relations = tx[self.relations_name]
                page = relations.find(where, limit=_PAGE, fields=["id"])
                for each in page:
                    relations.delete(each["id"])
            count += len(page)
            if len(page) < _PAGE:
                return count

    def relation(self, relation_id: str) -> Document | None:
        """source, relation_type, target, properties, valid_from, valid_to."""
        found: Document | None = self.db.collection(self.relations_name).get(relation_id)
        return found

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
        """Those that match, in the order of what is named and of the rest. Pages that follow are
        of the same "now". Raises QueryError, CursorError."""
        where, order = _pattern(source, relation_type, target)
        if as_of == "now":
            as_of = self._now() if after is None else _moment(after)
        page = self.db.collection(self.relations_name).find(
            {**where, **self._valid(as_of)},
            order_by=order,
            limit=limit,
            after=None if after is None else after.partition(_SEAM)[2],
        )
        moment = as_of.isoformat() if isinstance(as_of, datetime) else ""
        return Relations(page, page.cursor and moment + _SEAM + page.cursor)

    def facts(self, name: str, *, as_of: AsOf = "now") -> list[Document]:
        """All relations of an entity, those that begin at it first. Raises MissingKeyError,
        QueryError."""
        valid = self._valid(as_of)
        with self.db.snapshot() as at:
            self._needed(at, name)
            relations = at[self.relations_name]
            out = relations.find({"source": name, **valid}, order_by=_OUT)
            into = relations.find({"target": name, **valid}, order_by=_IN)
        return [*out, *(each for each in into if each["source"] != name)]

    # -- walks -------------------------------------------------------------------------------

    def neighbours(
        self,
        name: str,
        *,
        relation_type: str | None = None,
        direction: Direction = "both",
        as_of: AsOf = "now",
    ) -> list[str]:
        """Other entities one relation away, by name. Raises MissingKeyError, QueryError."""
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
        """Other entities up to so many relations away: name -> how many, the nearest first. Raises
        MissingKeyError, QueryError (also past WALK_MAX entities)."""
        if type(hops) is not int or hops < 1:
            raise QueryError(f"hops is a count from 1 on, not {hops!r}")
        found: dict[str, int] = {}
        with self.db.snapshot() as at:
            self._needed(at, name)
            levels = self._levels(at, name, relation_type, direction, as_of)
            for distance, level in zip(range(1, hops + 1), levels, strict=False):
                found.update(dict.fromkeys(sorted(level), distance))
        return found

    def shortest_path(
        self,
        source: str,
        target: str,
        *,
        relation_type: str | None = None,
        direction: Direction = "both",
        as_of: AsOf = "now",
    ) -> list[str] | None:
        """Names from one entity to the other, both included, over as few relations as can be;
        None when no path leads there. Raises as k_hop()."""
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

    # -- for what brings many at once --------------------------------------------------------

    def put_entity(
        self,
        tx: Transaction,
        name: str,
        entity_type: str,
        observations: Sequence[str],
        properties: Mapping[str, Any],
    ) -> bool:
        """add_entity() inside a transaction; whether anything was new. Raises
        InvalidDocumentError."""
        check_name("name", name)
        check_name("entity_type", entity_type)
        for each in observations:
            check_str("observations", each)
        entities = tx[self.entities_name]
        now = self._now()
        old = entities.get(name)
        known: Document = old or {
            "id": name,
            "name": name,
            "entity_type": entity_type,
            "observations": [],
            "properties": {},
            "created_at": now,
            "updated_at": now,
        }
        said = dict.fromkeys((*known["observations"], *observations))
        told = {**known["properties"], **properties}
        new = {**known, "entity_type": entity_type, "observations": [*said], "properties": told}
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
        """relate() inside a transaction; its id, and whether anything was new. Raises as
        relate()."""
        check_name("relation_type", relation_type)
        check_time("valid_from", valid_from)
        check_time("valid_to", valid_to)
        _check_span(valid_from, valid_to)
        for name in (source, target):
            self._needed(tx, name)
        relations = tx[self.relations_name]
        ends = {"source": source, "relation_type": relation_type, "target": target}
        found = relations.find({**ends, "valid_from": valid_from}, limit=1)
        old = found[0] if found else None
        known: Document = old or {
            **ends,
            "properties": {},
            "valid_from": valid_from,
            "valid_to": None,
            "created_at": self._now(),
        }
        new = {**known, "properties": {**known["properties"], **properties}}
        if valid_to is not None:
            new["valid_to"] = valid_to
        if old is not None and new == old:
            return old["id"], False
        return relations.put(new), True

    def snapshot_relations(self, at: Snapshot, as_of: AsOf) -> Iterator[Document]:
        """All of them in a snapshot, by source, type and target. Raises QueryError."""
        return all_pages(at[self.relations_name].find, self._valid(as_of), order_by=_OUT)

    # -- inside ------------------------------------------------------------------------------

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _needed(self, place: Transaction | Snapshot, name: str) -> Document:
        """Raises MissingKeyError, InvalidDocumentError."""
        check_name("the name of an entity", name)
        found = place[self.entities_name].get(name)
        if found is None:
            raise MissingKeyError(
                f"the graph has no entity {name!r}: add_entity() makes one",
                collection=self.entities_name,
                key=name,
            )
        return found

    def _levels(
        self,
        at: Snapshot,
        start: str,
        relation_type: str | None,
        direction: Direction,
        as_of: AsOf,
    ) -> Iterator[dict[str, str]]:
        where = self._valid(as_of)
        if relation_type is not None:
            where["relation_type"] = relation_type
        return levels(at[self.relations_name].find, start, where, direction)

    def _valid(self, as_of: AsOf) -> dict[str, Any]:
        """Raises QueryError."""
        if as_of == "ever":
            return {}
        at = self._now() if as_of == "now" else as_of
        _check_moment(at)
        begun = {"$or": [{"valid_from": None}, {"valid_from": {"$lte": at}}]}
        lasts = {"$or": [{"valid_to": None}, {"valid_to": {"$gt": at}}]}
        return {"$and": [begun, lasts]}


@final
class Relations(list[Document]):
    """A page of them, and the way to the next one; None when this one was not filled."""

    __slots__ = ("cursor",)

    def __init__(self, relations: Iterable[Document], cursor: str | None) -> None:
        super().__init__(relations)
        self.cursor = cursor


def _moment(cursor: str) -> datetime:
    """When the first page was asked for. Raises CursorError."""
    try:
        return datetime.fromisoformat(cursor.partition(_SEAM)[0])
    except ValueError:
        raise CursorError("the cursor is not of this question: start again without it") from None


def _pattern(
    source: str | None, relation_type: str | None, target: str | None
) -> tuple[dict[str, Any], Sequence[str]]:
    """A filter, and the order that an index has for it."""
    given = {"source": source, "relation_type": relation_type, "target": target}
    where = {name: value for name, value in given.items() if value is not None}
    if source is None and target is not None:
        return where, _IN
    return where, _TYPE if source is None and relation_type is not None else _OUT


def _check_moment(as_of: object) -> None:
    """Raises QueryError."""
    if not isinstance(as_of, datetime) or as_of.tzinfo is None:
        raise QueryError(f'as_of is "now", "ever" or an aware datetime, not {as_of!r}')


def _check_span(valid_from: datetime | None, valid_to: datetime | None) -> None:
    """Raises InvalidDocumentError."""
    check_time("valid_to", valid_to)
    if valid_from is not None and valid_to is not None and valid_to <= valid_from:
        raise InvalidDocumentError(
            f"a relation that is valid from {valid_from} cannot end at {valid_to}",
            field="valid_to",
        )
