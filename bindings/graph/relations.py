"""The relations of a graph: facts, each between two entities.

Invariants:
- A relation is identified by its ends, its type and `valid_from`: told again, it is changed, not
  duplicated. One that proved wrong is not told again, but anew.
- Its vector goes when its text changes.
- Who changes what a source has holds the source: find() misses a relation that another transaction
  is adding.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, Final, final

from amberdb import Database, Document, Ordered, Snapshot, Text, Transaction
from amberdb._shared.checks import check_optional_name
from amberdb._shared.embedder import Embedder
from amberdb._shared.queries import all_pages
from amberdb.graph import provenance, slots
from amberdb.graph.entities import Reader
from amberdb.graph.relation import (
    Told,
    complete,
    of_version_2,
    united,
    with_told,
    words_of,
)
from amberdb.graph.validity import check_span, ended, ends_of, is_wrong

OUT: Final = ("source", "relation_type", "target", "valid_from")
IN: Final = ("target", "relation_type", "source", "valid_from")
TYPE: Final = ("relation_type", "source", "target", "valid_from")
_ENDS: Final = ("source", "target")
_ENDED_BY: Final = ("ended_by", "former_ends.ended_by")


@final
class RelationCollection:
    """The collection of relations. Writes work inside a transaction, reads anywhere."""

    def __init__(
        self, name: str, functional: frozenset[str], clock: Callable[[], datetime]
    ) -> None:
        self.name = name
        self._functional = functional
        self._clock = clock

    def declare(self, db: Database, embedder: Embedder) -> None:
        """Raises CollectionError."""
        embedder.declare(
            db,
            self.name,
            owner="graph",
            indexes=[
                Ordered(*OUT),
                Ordered(*IN),
                Ordered(*TYPE),
                Ordered("told_by", sparse=True),
                Ordered("ended_by", sparse=True),
                Ordered("former_ends.ended_by", sparse=True),
                Text("source", "relation_type", "target", "fact", "properties"),
            ],
            required={"source": str, "target": str, "relation_type": str},
            version=2,
            migrate={2: of_version_2},
        )

    # -- reading -----------------------------------------------------------------------------

    def find(
        self, reader: Reader, where: Mapping[str, Any], order: Sequence[str] = OUT
    ) -> list[Document]:
        """All relations that match. Raises QueryError."""
        return list(map(complete, reader[self.name].find(where, order_by=order)))

    def all(self, at: Snapshot, where: Mapping[str, Any]) -> Iterator[Document]:
        """All relations of a snapshot that match, by source, type and target, one page in
        memory. Raises QueryError."""
        return map(complete, all_pages(at[self.name].find, where, order_by=OUT))

    def has(self, tx: Transaction, name: str) -> bool:
        """Whether an entity has any relation."""
        relations = tx[self.name]
        return any(relations.find({end: name}, limit=1) for end in _ENDS)

    def is_told(self, tx: Transaction, told: Told) -> bool:
        """Whether there is a relation with these ends and this type, of whatever time."""
        ends = {"source": told.source, "relation_type": told.relation_type, "target": told.target}
        return bool(tx[self.name].find(ends, limit=1))

    def needed(self, tx: Transaction, relation_id: str) -> Document:
        """Raises MissingKeyError."""
        return complete(tx[self.name].record(relation_id).document)

    # -- writing -----------------------------------------------------------------------------

    def tell(self, tx: Transaction, told: Told) -> tuple[str, bool]:
        """Adds or changes a relation between entities that exist; its id, and whether anything was
        changed. Relations of a slot whose time it takes end in the same commit."""
        ends = {
            "source": told.source,
            "relation_type": told.relation_type,
            "target": told.target,
        }
        self._lock(tx, told.source)
        now = self._clock()
        is_functional = told.relation_type in self._functional
        slot = self._slot(tx, told.source, told.relation_type)
        known: Document | None = None
        if not is_functional or told.valid_from is not None:
            known = self._known(tx, ends, told.valid_from)
        if known is None and is_functional:
            known = slots.known_as(slot, told.target, told.valid_from, now)
        relation: Document = known or {
            **ends,
            "fact": told.text,
            "properties": {},
            "valid_from": told.valid_from,
            "valid_to": told.valid_to,
            "told_at": now,
            "ended_at": None,
            "ended_by": None,
            "former_ends": [],
            "told_by": [],
            "provenance": [],
        }
        claimed = told.valid_from or now
        if known is None:
            relation = slots.placed(relation, slot, now) if is_functional else relation
            claimed = relation["valid_from"]
        new = with_told(relation, told, now, is_new=known is None)
        changed = slots.make_room(slot, {**new, "valid_from": claimed}, now, told.told_by)
        if new == known and not changed:
            return new["id"], False
        id = self._put(tx, new, told.vector)
        for each in changed:
            self._put(tx, each)
        return id, True

    def end(
        self,
        tx: Transaction,
        relation_id: str,
        valid_to: datetime | None,
        told_by: str | None,
    ) -> None:
        """Raises MissingKeyError, InvalidDocumentError."""
        check_optional_name("told_by", told_by)
        relation = self.needed(tx, relation_id)
        now = self._clock()
        begin = relation["valid_from"]
        if valid_to is None:
            # What begins later, by its own time or by a clock that was set back, is never true.
            valid_to = now if begin is None else max(now, begin)
        else:
            check_span(begin, valid_to)
        if (relation["valid_to"], relation["ended_by"]) == (valid_to, told_by):
            return
        self._put(tx, ended(relation, valid_to, now, told_by))

    def move(self, tx: Transaction, old: str, new: str) -> None:
        """Gives the relations of one entity to another one. Those that then say the same become
        one; in a slot, what was told last counts."""
        self._lock(tx, old, new)
        taken: set[str] = set()
        for relation in self._of(tx, old):
            ends = {end: new if relation[end] == old else relation[end] for end in _ENDS}
            type_ = relation["relation_type"]
            twin = self._known(tx, {**ends, "relation_type": type_}, relation["valid_from"])
            moved = {**relation, **ends}
            if relation["fact"] == words_of(relation):
                moved["fact"] = words_of(moved)
            if twin is not None and not is_wrong(relation):
                tx[self.name].delete(relation["id"])
                moved = united(twin, moved)
            self._put(tx, moved)
            if ends["source"] == new:
                taken.add(type_)
        for type_ in taken:
            slot = self._slot(tx, new, type_)
            before = {each["id"]: each for each in slot}
            for each in slots.settled(slot, self._clock()):
                if each != before.get(each.get("id", "")):
                    self._put(tx, each)

    def forget(self, tx: Transaction, told_by: str) -> int:
        """Deletes the relations that nobody else told, takes from the others what only `told_by`
        told, and takes back the ends that it told; how many were deleted."""
        relations = tx[self.name]
        count = 0
        while found := self.find(tx, {"told_by": told_by}):  # again: as forget_source() does
            for relation in found:
                remaining, gone = provenance.without(relation, told_by)
                if not remaining["told_by"]:
                    relations.delete(relation["id"])
                    count += 1
                    continue
                if remaining["fact"] in gone:
                    remaining["fact"] = words_of(remaining)
                self._put(tx, remaining)
        ended_by = [self.find(tx, {name: told_by}) for name in _ENDED_BY]  # an index has no $or
        ended = {each["id"]: each for each in chain.from_iterable(ended_by)}
        self._lock(tx, *(each["source"] for each in ended.values()))
        for relation in ended.values():
            ends = [end for end in ends_of(relation) if end["ended_by"] != told_by]
            slot = self._slot(tx, relation["source"], relation["relation_type"])
            self._put(tx, slots.reopened(relation, ends, slot))
        return count

    def restore(self, tx: Transaction, relation: Document) -> bool:
        """Adds a relation as it was exported, between entities that exist; whether it changed
        anything."""
        relation = complete(relation)
        self._lock(tx, relation["source"])
        ends = {name: relation[name] for name in ("source", "relation_type", "target")}
        stored = tx[self.name].get(relation["id"])
        known = None if stored is None else complete(stored)
        if known is None and not is_wrong(relation):
            known = self._known(tx, ends, relation["valid_from"])
        new = relation if known is None else united(known, relation)
        if new == known:
            return False
        slot = self._slot(tx, relation["source"], relation["relation_type"])
        changed = slots.make_room(slot, new, self._clock(), None)
        for each in (new, *changed):
            self._put(tx, each)
        return True

    # -- inside ------------------------------------------------------------------------------

    def _lock(self, tx: Transaction, *sources: str) -> None:
        """Holds the relations of these entities, also those that are not there yet."""
        tx.lock(*(f"{self.name}/{source}" for source in sources))

    def _known(
        self, tx: Transaction, ends: Mapping[str, str], valid_from: datetime | None
    ) -> Document | None:
        """The relation with these ends and type that is told to begin then."""
        found = self.find(tx, {**ends, "valid_from": valid_from})
        return next((each for each in found if not is_wrong(each)), None)

    def _slot(self, tx: Transaction, source: str, relation_type: str) -> list[Document]:
        """The relations that exclude one another; none when the type is not functional."""
        if relation_type not in self._functional:
            return []
        found = self.find(tx, {"source": source, "relation_type": relation_type})
        return [relation for relation in found if not is_wrong(relation)]

    def _of(self, tx: Transaction, name: str) -> list[Document]:
        """All relations of an entity."""
        into = self.find(tx, {"target": name})
        return [*self.find(tx, {"source": name}), *(e for e in into if e["source"] != name)]

    def _put(self, tx: Transaction, relation: Document, vector: Any = None) -> str:
        """Stores a relation. It keeps its vector while it has the same text."""
        if vector is None and "id" in relation:
            stored = tx[self.name].get(relation["id"])
            if stored is not None and stored.get("fact") == relation["fact"]:
                vector = stored.get("embedding")
        return tx[self.name].put(relation if vector is None else {**relation, "embedding": vector})
