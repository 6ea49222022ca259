"""A knowledge graph: entities with observations, and relations that are true for a time.

    <name>_entities    entities.py: name, entity_type, observations, properties, aliases
    <name>_relations   relation.py: source -relation_type-> target, valid_from <= t < valid_to

Invariants:
- Both ends of a relation exist: the commit that adds it checks that, and deleting an entity deletes
  its relations in the same commit.
- A source has at most one target of a functional relation at any time: the commit that tells
  another one ends the former.
- Every write is one commit, or a part of the caller's transaction. The embedder is called outside
  transactions.
- A name is that of an entity or one of its aliases, wherever a name is given.
- A traversal reads one snapshot and is deterministic: names are visited in sorted order.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, Literal, final

from amberdb import (
    Database,
    Document,
    Embed,
    Fusion,
    Hit,
    Hits,
    InvalidDocumentError,
    Page,
    QueryError,
    Snapshot,
    Transaction,
)
from amberdb._shared.checks import check_name, check_strs
from amberdb._shared.clock import SteadyClock
from amberdb._shared.embedder import Embedder
from amberdb._shared.queries import having
from amberdb._shared.search_input import asked
from amberdb._shared.systems import in_transaction
from amberdb.graph.entities import EntityCollection, complete_entity
from amberdb.graph.pages import Relations, cursor_of, inner_cursor, moment_of
from amberdb.graph.provenance import ForgottenSource
from amberdb.graph.relation import FIELDS, Told, complete
from amberdb.graph.relations import IN, OUT, TYPE, RelationCollection
from amberdb.graph.validity import AsOf, as_known, valid
from amberdb.graph.walks import Direction, levels

_PAGE: Final = 1_000


@final
class KnowledgeGraph:
    """A graph in an open database; threads may share it.

    name         name of the graph; a database may hold several
    functional   relation types of which a source has one target at a time, as "lives_in"
    embed, dim   list of str -> array of shape (n, dim), for vector search of facts
    model        the name of the embedder. With another name, or another dim, than the stored
                 vectors have, all facts are embedded anew in the background
    fusion       how full-text and vector hits of facts are fused
    clock        function that returns epoch seconds

    Raises CollectionError.
    """

    def __init__(
        self,
        db: Database,
        *,
        name: str = "graph",
        functional: Iterable[str] = (),
        embed: Embed | None = None,
        dim: int | None = None,
        model: str | None = None,
        fusion: Fusion | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.db = db
        self.entities_name = f"{name}_entities"
        self.relations_name = f"{name}_relations"
        self._embedder = Embedder(embed, dim, model, source="fact")
        self._fusion = fusion
        self._clock = SteadyClock(clock)
        types = frozenset(check_strs("functional", functional))
        self._entities = EntityCollection(self.entities_name, self._clock)
        self._relations = RelationCollection(self.relations_name, types, self._clock)
        self._entities.declare(db)
        self._relations.declare(db, self._embedder)

    # -- entities ----------------------------------------------------------------------------

    def add_entity(
        self,
        name: str,
        entity_type: str,
        *,
        observations: Iterable[str] = (),
        properties: Mapping[str, Any] | None = None,
        aliases: Iterable[str] = (),
        told_by: str | None = None,
        tx: Transaction | None = None,
    ) -> Document:
        """Creates an entity, or adds observations, properties and aliases to it; the entity after
        that. `told_by` is the id of the document or the conversation that tells it. Raises
        InvalidDocumentError, also for an alias that is another entity."""
        known: Mapping[str, Any] = {} if properties is None else properties
        texts, others = check_strs("observations", observations), check_strs("aliases", aliases)

        def add(tx: Transaction) -> Document:
            self.lock(tx, name, *others)
            self._entities.add(tx, name, entity_type, texts, known, others, told_by)
            return self._entities.needed(tx, name)

        return in_transaction(self.db, tx, add)

    def entity(self, name: str) -> Document | None:
        """The entity with this name or alias, or None: name, entity_type, observations, properties,
        aliases, told_by, provenance."""
        return self._entities.get(self.db, name)

    def entities(
        self, entity_type: str | None = None, *, limit: int | None = 100, after: str | None = None
    ) -> Page:
        """Entities, or those of one type, by type and name."""
        where = having(entity_type=entity_type)
        page = self.db.collection(self.entities_name).find(
            where, order_by=["entity_type", "name"], limit=limit, after=after
        )
        for entity in page:
            entity |= complete_entity(entity)
        return page

    def search(
        self, text: str | None = None, *, query: str | None = None, limit: int = 10
    ) -> Sequence[Hit]:
        """Full-text search of names, aliases, types and observations of entities, the best first:
        by the words of a text, or by a query in the query language. Raises QueryError."""
        return self.db.collection(self.entities_name).search(text, query=query, limit=limit)

    def remove_observations(
        self, name: str, observations: Iterable[str], *, tx: Transaction | None = None
    ) -> int:
        """Removes observations of an entity; how many. Raises MissingKeyError,
        InvalidDocumentError."""
        texts = check_strs("observations", observations)

        def remove(tx: Transaction) -> int:
            self.lock(tx, name)
            return self._entities.remove_observations(tx, name, texts)

        return in_transaction(self.db, tx, remove)

    def add_aliases(
        self, name: str, aliases: Iterable[str], *, tx: Transaction | None = None
    ) -> Document:
        """Adds other names of an entity, which lead to it wherever a name is given; the entity.
        Raises MissingKeyError, and InvalidDocumentError for the name of another entity."""
        others = check_strs("aliases", aliases)

        def add(tx: Transaction) -> Document:
            self.lock(tx, name, *others)
            return self._entities.add_aliases(tx, name, others)

        return in_transaction(self.db, tx, add)

    def remove_aliases(
        self, name: str, aliases: Iterable[str], *, tx: Transaction | None = None
    ) -> Document:
        """Removes other names of an entity; the entity. Raises MissingKeyError."""
        others = check_strs("aliases", aliases)

        def remove(tx: Transaction) -> Document:
            self.lock(tx, name, *others)
            return self._entities.remove_aliases(tx, name, others)

        return in_transaction(self.db, tx, remove)

    def rename_entity(
        self, name: str, new_name: str, *, keep_alias: bool = True, tx: Transaction | None = None
    ) -> Document:
        """Renames an entity, in its relations too, in one commit; the entity. The former name is an
        alias from then on, unless `keep_alias` is False. Raises MissingKeyError, and
        InvalidDocumentError when another entity has the name: call merge_entities()."""
        check_name("new_name", new_name)
        names = [name, new_name] if tx is not None else self._names(name, new_name)

        def rename(tx: Transaction) -> Document:
            self.lock(tx, *names)
            old = self._entities.needed(tx, name)
            self.lock(tx, *old["aliases"])  # who finds it by one of them waits for its new name
            renamed = self._entities.rename(tx, old, new_name, keep_alias=keep_alias)
            self._relations.move(tx, old["id"], new_name)
            return renamed

        return in_transaction(self.db, tx, rename)

    def merge_entities(self, name: str, into: str, *, tx: Transaction | None = None) -> Document:
        """Makes two entities one, in one commit; that one. It has the observations, properties,
        aliases and relations of both; of a property that both have, the value of `into`. `name`
        is an alias of it from then on. Raises MissingKeyError, InvalidDocumentError."""
        names = [name, into] if tx is not None else self._names(name, into)

        def merge(tx: Transaction) -> Document:
            self.lock(tx, *names)
            one, other = self._entities.needed(tx, name), self._entities.needed(tx, into)
            if one["id"] == other["id"]:
                raise InvalidDocumentError(
                    f"{name!r} and {into!r} are one entity already: name two", field="into"
                )
            self.lock(tx, *one["aliases"])
            merged = self._entities.merge(tx, one, other)
            self._relations.move(tx, one["id"], other["id"])
            return merged

        return in_transaction(self.db, tx, merge)

    def delete_entity(self, name: str, *, tx: Transaction | None = None) -> int:
        """Deletes an entity with its relations, in one commit; how many relations. Raises
        MissingKeyError, and TransactionTooLargeError for some hundred thousand relations: call
        delete_relations() first."""

        def delete(tx: Transaction) -> int:
            self.lock(tx, name)
            id = self._entities.needed(tx, name)["id"]
            tx[self.entities_name].delete(id)
            relations = tx[self.relations_name]
            return relations.delete_many({"source": id}) + relations.delete_many({"target": id})

        return in_transaction(self.db, tx, delete)

    def forget_source(self, told_by: str, *, tx: Transaction | None = None) -> ForgottenSource:
        """Forgets what a document or a conversation told, in one commit; what was deleted. What
        others told too stays, and what it ended goes on. An entity that nobody else told of goes,
        unless relations of others need it. Raises InvalidDocumentError, and
        TransactionTooLargeError for some hundred thousand facts."""
        check_name("told_by", told_by)

        def forget(tx: Transaction) -> ForgottenSource:
            relations = self._relations.forget(tx, told_by)
            entities = observations = 0
            for entity in self._entities.told_by(tx, told_by):
                remaining, lost = self._entities.forget(tx, entity, told_by)
                observations += lost
                if not remaining["told_by"] and not self._relations.has(tx, entity["id"]):
                    tx[self.entities_name].delete(entity["id"])
                    entities += 1
            return ForgottenSource(entities, observations, relations)

        return in_transaction(self.db, tx, forget)

    # -- relations ---------------------------------------------------------------------------

    def relate(
        self,
        source: str,
        relation_type: str,
        target: str,
        *,
        fact: str | None = None,
        properties: Mapping[str, Any] | None = None,
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
        told_by: str | None = None,
        tx: Transaction | None = None,
    ) -> str:
        """Adds a relation, or changes the one with the same ends, type and valid_from; its id.

        `fact` is a sentence that says it, for search. Of a functional type, the target that the
        source had ends in the same commit, and without `valid_from` the new one begins now. Raises
        MissingKeyError when an end is missing, and InvalidDocumentError.
        """
        told = Told(
            source=source,
            relation_type=relation_type,
            target=target,
            fact=fact,
            properties={} if properties is None else properties,
            valid_from=valid_from,
            valid_to=valid_to,
            told_by=told_by,
        )
        told.check()
        if tx is None:
            told = self.embedded([told])[0]

        def relate(tx: Transaction) -> str:
            self.lock(tx, source, target)
            return self.put_relation(tx, told)[0]

        return in_transaction(self.db, tx, relate)

    def end_relation(
        self,
        relation_id: str,
        valid_to: datetime | None = None,
        *,
        told_by: str | None = None,
        tx: Transaction | None = None,
    ) -> None:
        """Ends the validity of a relation at `valid_to`, by default now. Raises MissingKeyError,
        InvalidDocumentError."""

        def end(tx: Transaction) -> None:
            self._relations.end(tx, relation_id, valid_to, told_by)

        in_transaction(self.db, tx, end)

    def delete_relation(self, relation_id: str, *, tx: Transaction | None = None) -> None:
        """Deletes a relation. Raises MissingKeyError."""

        def delete(tx: Transaction) -> None:
            del tx[self.relations_name][relation_id]

        in_transaction(self.db, tx, delete)

    def delete_relations(
        self,
        *,
        source: str | None = None,
        relation_type: str | None = None,
        target: str | None = None,
        tx: Transaction | None = None,
    ) -> int:
        """Deletes all relations that match, in commits of 1,000, or in the given transaction; how
        many. Raises QueryError without any argument."""
        where, _ = self._pattern(source, relation_type, target)
        if not where:
            raise QueryError("give source, relation_type or target")
        if tx is not None:
            return in_transaction(
                self.db, tx, lambda tx: tx[self.relations_name].delete_many(where)
            )

        def delete(tx: Transaction) -> int:
            relations = tx[self.relations_name]
            page = relations.find(where, limit=_PAGE, fields=["id"])
            return sum([relations.delete(relation["id"]) for relation in page])

        count = 0
        while True:
            deleted = self.db.run(delete)
            count += deleted
            if deleted < _PAGE:
                return count

    def relation(self, relation_id: str) -> Document | None:
        """The relation, or None: source, relation_type, target, fact, properties, valid_from,
        valid_to, told_at, ended_at, ended_by, former_ends, told_by, provenance."""
        relation: Document | None = self.db.collection(self.relations_name).get(relation_id)
        return None if relation is None else complete(relation)

    def relations(
        self,
        *,
        source: str | None = None,
        relation_type: str | None = None,
        target: str | None = None,
        as_of: AsOf = "now",
        known_at: datetime | None = None,
        limit: int | None = 100,
        after: str | None = None,
    ) -> Relations:
        """Relations that match, ordered by the given fields first: those that were true `as_of` a
        time. With `known_at`, as the graph was told until then; a page may have fewer. With
        `as_of="now"` the following pages use the time of the first one. Raises QueryError,
        CursorError."""
        where, order = self._pattern(source, relation_type, target)
        if as_of == "now":
            as_of = self._clock() if after is None else moment_of(after)
        page = self.db.collection(self.relations_name).find(
            {**where, **valid(as_of, known_at)},
            order_by=order,
            limit=limit,
            after=None if after is None else inner_cursor(after),
            fields=FIELDS,
        )
        found = as_known(map(complete, page), as_of, known_at)
        return Relations(found, cursor_of(as_of, page.cursor))

    def facts(
        self, name: str, *, as_of: AsOf = "now", known_at: datetime | None = None
    ) -> list[Document]:
        """All relations of an entity, outgoing ones first: those that were true `as_of` a time,
        and as the graph was told until `known_at`. Raises MissingKeyError, QueryError."""
        moment = self._moment(as_of)
        where = valid(moment, known_at)
        with self.db.snapshot() as at:
            name = self._entities.needed(at, name)["id"]
            out = self._relations.find(at, {"source": name, **where}, OUT)
            into = self._relations.find(at, {"target": name, **where}, IN)
        found = [*out, *(relation for relation in into if relation["source"] != name)]
        return list(as_known(found, moment, known_at))

    def search_facts(
        self,
        text: str | None = None,
        *,
        query: str | None = None,
        as_of: AsOf = "now",
        where: Mapping[str, Any] | None = None,
        limit: int = 10,
        after: str | None = None,
    ) -> Hits:
        """Full-text and, with an embedder, vector search of relations, the best first: by their
        sentence, ends, type and properties. `query` in place of a text is in the query language,
        and full-text only. `where` is an additional filter; `after` continues a page: hits.cursor.
        Raises QueryError, CursorError."""
        search: dict[str, Any] = {**asked(text, query)}
        (vector,) = self._embedder.vectors([text])
        if vector is not None:
            search |= {"vector": vector, "fusion": self._fusion}
        conditions = [each for each in (valid(self._moment(as_of), None), where) if each]
        return self.db.collection(self.relations_name).search(
            **search,
            where={"$and": conditions} if conditions else None,
            limit=limit,
            after=after,
            fields=FIELDS,
        )

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
            name = self._entities.needed(at, name)["id"]
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
            source = self._entities.needed(at, source)["id"]
            target = self._entities.needed(at, target)["id"]
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

    def lock(self, tx: Transaction, *names: str) -> None:
        """Holds names of entities, whether these are there or not."""
        tx.lock(*(f"{self.entities_name}/{name}" for name in names))

    def put_entity(
        self,
        tx: Transaction,
        name: str,
        entity_type: str,
        observations: Iterable[str],
        properties: Mapping[str, Any],
    ) -> bool:
        """add_entity() inside a transaction; whether it changed anything. Raises
        InvalidDocumentError."""
        return self._entities.add(tx, name, entity_type, observations, properties, (), None)[1]

    def put_relation(
        self, tx: Transaction, told: Told, *, only_new: bool = False
    ) -> tuple[str, bool]:
        """relate() inside a transaction; the id, and whether it changed anything. With `only_new`
        relations with these ends and this type stay as they are. Raises as relate()."""
        told.check()
        ends = [self._entities.needed(tx, name)["id"] for name in (told.source, told.target)]
        told = replace(told, source=ends[0], target=ends[1])
        if only_new and self._relations.is_told(tx, told):
            return "", False
        return self._relations.tell(tx, told)

    def embedded(self, told: Sequence[Told]) -> list[Told]:
        """What is told, each with the vector of its text, if the embedder can be reached."""
        vectors = self._embedder.vectors([each.text for each in told])
        return [replace(each, vector=vector) for each, vector in zip(told, vectors, strict=True)]

    def restore_entity(self, tx: Transaction, entity: Document) -> bool:
        """Adds an exported entity; whether it changed anything. Raises InvalidDocumentError."""
        return self._entities.restore(tx, entity)

    def restore_relation(self, tx: Transaction, relation: Document) -> bool:
        """Adds an exported relation; whether it changed anything. Raises MissingKeyError when an
        end is missing, InvalidDocumentError."""
        ends = {end: self._entities.needed(tx, relation[end])["id"] for end in ("source", "target")}
        return self._relations.restore(tx, {**relation, **ends})

    def snapshot_entities(self, at: Snapshot) -> Iterator[Document]:
        """All entities of a snapshot."""
        return map(complete_entity, at[self.entities_name].documents())

    def snapshot_relations(self, at: Snapshot, as_of: AsOf) -> Iterator[Document]:
        """All relations of a snapshot, by source, type and target. Raises QueryError."""
        return self._relations.all(at, valid(self._moment(as_of), None))

    # -- inside ------------------------------------------------------------------------------

    def _names(self, *names: str) -> list[str]:
        """These, and the aliases that their entities have for now: names are locked at once, so
        that nobody has to wait in another order."""
        found = [self._entities.get(self.db, name) for name in names]
        return [*names, *(alias for each in found if each for alias in each["aliases"])]

    def _moment(self, as_of: AsOf) -> datetime | Literal["ever"]:
        return self._clock() if as_of == "now" else as_of

    def _levels(
        self,
        at: Snapshot,
        start: str,
        relation_type: str | None,
        direction: Direction,
        as_of: AsOf,
    ) -> Iterator[dict[str, str]]:
        where = {**valid(self._moment(as_of), None), **having(relation_type=relation_type)}
        return levels(at[self.relations_name].find, start, where, direction)

    def _pattern(
        self, source: str | None, relation_type: str | None, target: str | None
    ) -> tuple[dict[str, Any], Sequence[str]]:
        """A filter, and the order in which an index has its matches. Raises QueryError."""
        where = having(source=source, relation_type=relation_type, target=target)
        for end in ("source", "target"):
            if where.get(end):
                where[end] = self._entities.name_of(self.db, where[end])
        if source is None and target is not None:
            return where, IN
        return where, TYPE if source is None and relation_type is not None else OUT
