"""The relations of a graph: facts, each between two entities.

    source -relation_type-> target, fact, properties,
    valid_from, valid_to, told_at, ended_at, ended_by, former_ends, told_by, provenance

Invariants:
- A relation is identified by its ends, its type and `valid_from`: told again, it is changed, not
  duplicated. One that proved wrong is not told again, but anew.
- `fact` is the text that is searched: the caller's, or the ends and the type as words. Its vector
  goes when the text changes.
- What another program put is read with defaults.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, final

from amberdb import Database, Document, Ordered, Snapshot, Text, Transaction
from amberdb._shared.checks import check_map, check_name, check_optional_name, check_optional_text
from amberdb._shared.embedder import Embedder
from amberdb._shared.queries import all_pages
from amberdb.graph import provenance, slots
from amberdb.graph.entities import Reader
from amberdb.graph.validity import check_span, ended, ends_of, is_wrong, with_ends

OUT: Final = ("source", "relation_type", "target", "valid_from")
IN: Final = ("target", "relation_type", "source", "valid_from")
TYPE: Final = ("relation_type", "source", "target", "valid_from")
FIELDS: Final = (
    "id",
    "source",
    "relation_type",
    "target",
    "fact",
    "properties",
    "valid_from",
    "valid_to",
    "told_at",
    "ended_at",
    "ended_by",
    "former_ends",
    "told_by",
    "provenance",
)
"""The fields of a relation that are returned: all but its vector."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What somebody tells of a relation."""

    source: str
    relation_type: str
    target: str
    properties: Mapping[str, Any] = field(default_factory=dict[str, Any])
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    fact: str | None = None
    told_by: str | None = None
    vector: Any = None

    def check(self) -> None:
        """Raises InvalidDocumentError."""
        check_name("relation_type", self.relation_type)
        check_optional_text("fact", self.fact)
        check_optional_name("told_by", self.told_by)
        check_map("properties", self.properties)
        check_span(self.valid_from, self.valid_to)

    @property
    def text(self) -> str:
        """The text to search."""
        return self.fact or in_words(self.source, self.relation_type, self.target)


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
            migrate={2: _of_version_2},
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
        new = _with_told(relation, told, now, is_new=known is None)
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
        taken: set[str] = set()
        for relation in self._of(tx, old):
            ends = {end: new if relation[end] == old else relation[end] for end in _ENDS}
            type_ = relation["relation_type"]
            twin = self._known(tx, {**ends, "relation_type": type_}, relation["valid_from"])
            moved = {**relation, **ends}
            if relation["fact"] == _words_of(relation):
                moved["fact"] = _words_of(moved)
            if twin is not None and not is_wrong(relation):
                tx[self.name].delete(relation["id"])
                moved = _united(twin, moved)
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
        for relation in self.find(tx, {"told_by": told_by}):
            remaining, gone = provenance.without(relation, told_by)
            if not remaining["told_by"]:
                relations.delete(relation["id"])
                count += 1
                continue
            if remaining["fact"] in gone:
                remaining["fact"] = _words_of(remaining)
            self._put(tx, remaining)
        for relation in self.find(tx, {"$or": [{name: told_by} for name in _ENDED_BY]}):
            ends = [end for end in ends_of(relation) if end["ended_by"] != told_by]
            slot = self._slot(tx, relation["source"], relation["relation_type"])
            self._put(tx, slots.reopened(relation, ends, slot))
        return count

    def restore(self, tx: Transaction, relation: Document) -> bool:
        """Adds a relation as it was exported, between entities that exist; whether it changed
        anything."""
        relation = complete(relation)
        ends = {name: relation[name] for name in ("source", "relation_type", "target")}
        stored = tx[self.name].get(relation["id"])
        known = None if stored is None else complete(stored)
        if known is None and not is_wrong(relation):
            known = self._known(tx, ends, relation["valid_from"])
        new = relation if known is None else _united(known, relation)
        if new == known:
            return False
        slot = self._slot(tx, relation["source"], relation["relation_type"])
        changed = slots.make_room(slot, new, self._clock(), None)
        for each in (new, *changed):
            self._put(tx, each)
        return True

    # -- inside ------------------------------------------------------------------------------

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


_ENDS: Final = ("source", "target")
_ENDED_BY: Final = ("ended_by", "former_ends.ended_by")


def complete(relation: Mapping[str, Any]) -> Document:
    """The document with the fields that another program left out, and without its vector."""
    whole: Document = {name: value for name, value in relation.items() if name != "embedding"}
    for name in FIELDS:
        whole.setdefault(name, None)
    whole["properties"] = dict(whole["properties"] or {})
    whole["told_by"] = whole["told_by"] or [None]
    for name in ("former_ends", "provenance"):
        whole[name] = whole[name] or []
    whole["fact"] = whole["fact"] or _words_of(whole)
    return whole


def in_words(source: str, relation_type: str, target: str) -> str:
    """The relation as a text that can be searched."""
    return f"{source} {relation_type.replace('_', ' ')} {target}"


def _words_of(relation: Mapping[str, Any]) -> str:
    return in_words(relation["source"], relation["relation_type"], relation["target"])


def _with_told(relation: Document, told: Told, now: datetime, *, is_new: bool) -> Document:
    """The relation with what is told of it."""
    new = {**relation, "properties": {**relation["properties"], **told.properties}}
    known = [relation["fact"]]
    if told.fact is not None:
        new["fact"] = told.fact
    end_known = (relation["valid_to"], relation["ended_by"]) == (told.valid_to, told.told_by)
    if told.valid_to is not None and (is_new or not end_known):
        check_span(relation["valid_from"], told.valid_to)
        ends = [] if is_new else ends_of(relation)
        end = {"valid_to": told.valid_to, "ended_at": now, "ended_by": told.told_by}
        new = with_ends(new, [*ends, end])
    said = [] if told.fact is None else [told.fact]
    return provenance.told(new, told.told_by, said, told.properties, known=[] if is_new else known)


def _united(into: Document, one: Document) -> Document:
    """A relation with what is known of another one that says the same. Of a property that both
    have, the value is that of `into`."""
    told = [each["told_at"] for each in (into, one) if each["told_at"] is not None]
    return {
        **with_ends(into, ends_of(into) or ends_of(one)),
        "properties": {**one["properties"], **into["properties"]},
        "told_at": min(told, default=None),
        **provenance.joined(into, one),
    }


def _of_version_2(relation: Document) -> Document:
    """A relation of before facts had a text, a teller and the time of telling."""
    return {
        **{name: value for name, value in relation.items() if name != "created_at"},
        "fact": _words_of(relation),
        "told_at": relation.get("created_at"),
        "ended_at": None,
        "ended_by": None,
        "former_ends": [],
        "told_by": [None],
        "provenance": [],
    }
