"""A knowledge graph against dictionaries: facts at any time, neighbours, walks, and deletions that
leave no relation without its ends."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import amberdb
from amberdb import Database, InvalidDocumentError, MissingKeyError
from amberdb.graph import AsOf, Direction, KnowledgeGraph
from support import slices
from support.databases import SMALL, FakeClock, assert_sound

START = datetime(2026, 1, 1, tzinfo=UTC)
names = st.sampled_from(["a", "b", "c", "d", "e"])
pairs = st.tuples(names, names)
kinds = st.sampled_from(["knows", "likes"])
days = st.integers(0, 6)
spans = st.tuples(st.none() | days, st.none() | days)
directions: st.SearchStrategy[Direction] = st.sampled_from(["out", "in", "both"])


@dataclass
class Link:
    """What is known of a relation."""

    source: str
    kind: str
    target: str
    begin: datetime | None
    end: datetime | None

    def is_valid(self, as_of: datetime | Literal["ever"]) -> bool:
        return as_of == "ever" or (
            (self.begin is None or self.begin <= as_of) and (self.end is None or as_of < self.end)
        )


def day(number: int | None) -> datetime | None:
    return None if number is None else START + timedelta(days=number)


class GraphMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.clock = FakeClock(START.timestamp())
        self.entities: dict[str, list[str]] = {}
        self.links: dict[str, Link] = {}
        self.db, self.graph = self.opened()

    def opened(self) -> tuple[Database, KnowledgeGraph]:
        path = Path(self.directory.name) / "g.amber"
        db = amberdb.open(path, clock=self.clock, sync="os", **SMALL)
        return db, KnowledgeGraph(db, clock=self.clock)

    def teardown(self) -> None:
        assert_sound(self.db)
        self.db.close()
        self.directory.cleanup()

    # -- steps -------------------------------------------------------------------------------

    @rule(name=names, said=st.lists(st.sampled_from(["x", "y", "z"]), max_size=2))
    def add(self, name: str, said: list[str]) -> None:
        self.graph.add_entity(name, "thing", observations=said)
        known = self.entities.setdefault(name, [])
        known += [each for each in dict.fromkeys(said) if each not in known]

    @rule(ends=pairs, kind=kinds, span=spans)
    def relate(self, ends: tuple[str, str], kind: str, span: tuple[int | None, int | None]) -> None:
        source, target = ends
        begin, end = map(day, span)
        try:
            id = self.graph.relate(source, kind, target, valid_from=begin, valid_to=end)
        except InvalidDocumentError:
            assert begin is not None
            assert end is not None
            assert end <= begin
            return
        except MissingKeyError:
            assert not {source, target} <= self.entities.keys()
            return
        link = Link(source, kind, target, begin, end)
        if id in self.links:
            old = self.links[id]
            assert (old.source, old.kind, old.target, old.begin) == (source, kind, target, begin)
            link.end = end or old.end
        else:
            twins = [(each.source, each.kind, each.target, each.begin) for each in self.known()]
            assert (source, kind, target, begin) not in twins
        self.links[id] = link

    @rule(data=st.data(), end=days)
    def end(self, data: st.DataObject, end: int) -> None:
        if not self.links:
            return
        id = data.draw(st.sampled_from(sorted(self.links)))
        link, at = self.links[id], START + timedelta(days=end)
        if link.begin is not None and at <= link.begin:
            with pytest.raises(InvalidDocumentError):
                self.graph.end_relation(id, at)
        else:
            self.graph.end_relation(id, at)
            link.end = at

    @rule(data=st.data())
    def delete_relation(self, data: st.DataObject) -> None:
        if self.links:
            id = data.draw(st.sampled_from(sorted(self.links)))
            self.graph.delete_relation(id)
            del self.links[id]

    @rule(name=names)
    def delete_entity(self, name: str) -> None:
        if name not in self.entities:
            with pytest.raises(MissingKeyError):
                self.graph.delete_entity(name)
            return
        gone = [id for id, link in self.links.items() if name in (link.source, link.target)]
        assert self.graph.delete_entity(name) == len(gone)
        del self.entities[name]
        for id in gone:
            del self.links[id]

    @rule(kind=kinds)
    def delete_kind(self, kind: str) -> None:
        kept = {id: link for id, link in self.links.items() if link.kind != kind}
        assert self.graph.delete_relations(relation_type=kind) == len(self.links) - len(kept)
        self.links = kept

    @rule()
    def checkpoint(self) -> None:
        self.db.checkpoint()

    @rule()
    def reopen(self) -> None:
        self.db.close()
        self.db, self.graph = self.opened()

    @rule(number=days)
    def time_passes(self, number: int) -> None:
        self.clock.advance(number * 86_400)

    # -- questions ---------------------------------------------------------------------------

    @rule(ends=pairs, direction=directions, kind=st.none() | kinds, at=days)
    def walk(self, ends: tuple[str, str], direction: Direction, kind: str | None, at: int) -> None:
        source, target = ends
        if not {source, target} <= self.entities.keys():
            return
        as_of = START + timedelta(days=at)
        distances = self.distances(source, direction, kind, as_of)
        graph = self.graph
        others = {name: far for name, far in distances.items() if far}
        for hops in (1, 2, 9):
            found = graph.k_hop(source, hops, relation_type=kind, direction=direction, as_of=as_of)
            assert found == {name: far for name, far in others.items() if far <= hops}
            assert list(found.values()) == sorted(found.values())
        near = graph.neighbours(source, relation_type=kind, direction=direction, as_of=as_of)
        assert near == sorted(name for name, far in others.items() if far == 1)
        path = graph.shortest_path(
            source, target, relation_type=kind, direction=direction, as_of=as_of
        )
        if path is None:
            assert target not in distances
        else:
            assert (path[0], path[-1]) == (source, target)
            assert [distances[name] for name in path] == list(range(distances[target] + 1))

    @rule(name=names, at=st.sampled_from(["now", "ever"]) | days)
    def ask_facts(self, name: str, at: Literal["now", "ever"] | int) -> None:
        if name not in self.entities:
            return
        as_of: AsOf = START + timedelta(days=at) if isinstance(at, int) else at
        found = [each["id"] for each in self.graph.facts(name, as_of=as_of)]
        moment = datetime.fromtimestamp(self.clock(), UTC) if as_of == "now" else as_of
        wanted = {
            id
            for id, link in self.links.items()
            if name in (link.source, link.target) and link.is_valid(moment)
        }
        assert len(found) == len(set(found))
        assert set(found) == wanted

    @invariant()
    def all_is_there(self) -> None:
        entities = self.graph.entities(limit=None)
        assert {each["name"]: each["observations"] for each in entities} == self.entities
        found = {
            each["id"]: Link(
                each["source"],
                each["relation_type"],
                each["target"],
                each["valid_from"],
                each["valid_to"],
            )
            for each in self.graph.relations(as_of="ever", limit=None)
        }
        assert found == self.links

    # -- what is right -----------------------------------------------------------------------

    def known(self) -> list[Link]:
        return list(self.links.values())

    def distances(
        self, start: str, direction: Direction, kind: str | None, as_of: datetime
    ) -> dict[str, int]:
        """By trying every relation until nothing gets nearer."""
        pairs: list[tuple[str, str]] = []
        for link in self.known():
            if link.is_valid(as_of) and kind in (None, link.kind):
                pairs += [(link.source, link.target)] if direction != "in" else []
                pairs += [(link.target, link.source)] if direction != "out" else []
        found = {start: 0}
        for _ in self.entities:
            for near, far in pairs:
                if near in found:
                    found[far] = min(found.get(far, 99), found[near] + 1)
        return found


TestGraph = GraphMachine.TestCase
TestGraph.settings = settings(max_examples=slices.examples(1, 0.35), stateful_step_count=40)
TestGraph = pytest.mark.sliced(pytest.mark.slow(TestGraph))
