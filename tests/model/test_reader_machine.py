"""A database opened read-only answers as the writing one does at the same Lsn, whatever happens
to the files between its reads."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import amberdb
from amberdb import (
    Database,
    Ordered,
    QueryError,
    ReadableCollection,
    Snapshot,
    Text,
    Unique,
    Vector,
)
from amberdb.index.registry import IndexSpec
from support import slices
from support.databases import SMALL, FakeClock, assert_sound
from support.reference import same

WORDS = ["umbrella", "meetings", "car", "rain", "下午", "会议"]
NAMES = ("a", "b")
INDEXES: tuple[IndexSpec, ...] = (
    Ordered("n", "-text"),
    Ordered("tags"),
    Unique("only", sparse=True),
    Text("text"),
    Vector("v", dim=2),
)

names = st.sampled_from(NAMES)
ids = st.sampled_from([f"d{number}" for number in range(6)])
texts = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)
pairs = st.lists(st.sampled_from([-1.0, 0.5, 2.0]), min_size=2, max_size=2)
documents = st.fixed_dictionaries(
    {"id": ids},
    optional={
        "n": st.integers(-2, 2) | st.none(),
        "text": texts,
        "tags": st.lists(st.integers(0, 3), max_size=3),
        "v": pairs,
        "days": st.integers(-2, 5),
    },
)
filters = st.sampled_from(
    [None, {"n": 1}, {"n": {"$gt": -1}}, {"tags": {"$in": [1, 2]}}, {"text": {"$exists": False}}]
)
orders = st.sampled_from([None, "n", "-n", ["n", "-text"], "-id"])


class ReaderMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.clock = FakeClock()
        self.at: tuple[Snapshot, Snapshot] | None = None
        self.seen = 0
        self.db = self.opened()
        for name in NAMES:
            self.db.collection(name, indexes=INDEXES, expires_at="t")
        self.reader = self.opened(read_only=True)

    def opened(self, **options: Any) -> Database:
        path = Path(self.directory.name) / "t.amber"
        small: dict[str, Any] = {**SMALL, "segment_bytes_max": 4096}
        return amberdb.open(path, clock=self.clock, sync="os", **small, **options)

    def teardown(self) -> None:
        assert_sound(self.reader)
        self.reader.close()
        assert_sound(self.db)
        self.db.close()
        self.directory.cleanup()

    # -- what the writer does ----------------------------------------------------------------

    @rule(name=names, drawn=st.lists(documents, min_size=1, max_size=5))
    def put(self, name: str, drawn: list[dict[str, Any]]) -> None:
        made: dict[str, dict[str, Any]] = {}
        for each in drawn:
            days = each.pop("days", None)
            if days is not None:
                each["t"] = datetime.fromtimestamp(self.clock(), UTC) + timedelta(days=days)
            made[each["id"]] = {**each, "only": each["id"]}
        self.db.collection(name).put_many(made.values())

    @rule(id=ids, text=texts)
    def put_in_both(self, id: str, text: str) -> None:
        with self.db.transaction() as tx:
            for name in NAMES:
                tx[name].put({"id": id, "text": text, "only": id, "padding": "x" * 900})

    @rule(name=names, id=ids)
    def delete(self, name: str, id: str) -> None:
        self.db.collection(name).delete(id)

    @rule(name=names, some=st.sets(st.sampled_from(INDEXES)))
    def declare(self, name: str, some: set[IndexSpec]) -> None:
        self.db.collection(name, indexes=[index for index in INDEXES if index in some])

    @rule()
    def build_indexes(self) -> None:
        self.db.build_indexes()

    @rule(days=st.integers(-1, 3))
    def time_passes(self, days: int) -> None:
        self.clock.advance(days * 86_400)

    @rule()
    def expire(self) -> None:
        self.db.expire()

    @rule()
    def checkpoint(self) -> None:
        self.db.checkpoint()

    @rule()
    def compact(self) -> None:
        self.db.compact()

    @rule()
    def reopen(self) -> None:
        self.forget_snapshots()
        self.db.close()
        self.db = self.opened()

    # -- what the reader does ----------------------------------------------------------------

    @rule()
    def open_another_reader(self) -> None:
        self.forget_snapshots()
        self.reader.close()
        self.reader = self.opened(read_only=True)

    @rule()
    def keep_snapshots(self) -> None:
        self.forget_snapshots()
        self.at = self.reader.snapshot(), self.db.snapshot()

    def forget_snapshots(self) -> None:
        for snapshot in self.at or ():
            snapshot.close()
        self.at = None

    @rule(where=filters, order=orders, limit=st.integers(1, 4), text=texts, vector=pairs)
    def ask(self, **question: Any) -> None:
        with self.reader.snapshot() as ours, self.db.snapshot() as theirs:
            self.compare(ours, theirs, **question)

    @precondition(lambda self: self.at is not None)
    @rule(where=filters, order=orders, limit=st.integers(1, 4), text=texts, vector=pairs)
    def ask_snapshots(self, **question: Any) -> None:
        assert self.at is not None
        self.compare(*self.at, **question)

    def compare(
        self,
        ours: Snapshot,
        theirs: Snapshot,
        where: Any,
        order: Any,
        limit: int,
        text: str,
        vector: list[float],
    ) -> None:
        assert ours.lsn == theirs.lsn
        for name in NAMES:
            mine, other = ours[name], theirs[name]
            assert same(list(mine.documents()), list(other.documents()))
            mine_page = mine.find(where, order_by=order, limit=limit)
            other_page = other.find(where, order_by=order, limit=limit)
            assert same(list(mine_page), list(other_page))
            assert mine_page.cursor == other_page.cursor
            assert mine.count(where) == other.count(where)
            assert mine.explain(where, order_by=order) == other.explain(where, order_by=order)
            for document in mine_page:
                assert mine.record(document["id"]).version == other.record(document["id"]).version
            if text:
                same_hits(mine, other, text, where=where, limit=limit)
            same_hits(mine, other, vector=vector, where=where, limit=limit)

    @rule()
    def compare_feeds(self) -> None:
        self.db.sync()
        ours, theirs = map(list, (self.reader.changes(), self.db.changes()))
        assert same(list(map(asdict, ours)), list(map(asdict, theirs)))

    @rule()
    def check(self) -> None:
        assert_sound(self.reader)

    @invariant()
    def sees_the_newest(self) -> None:
        assert self.reader.refresh() == self.db.refresh() >= self.seen
        self.seen = self.db.refresh()
        assert self.reader.collections() == self.db.collections()
        mine, other = self.reader.stats(), self.db.stats()
        for name, facts in mine["collections"].items():
            assert facts.items() <= other["collections"][name].items()


def same_hits(
    mine: ReadableCollection, other: ReadableCollection, *question: str, **more: Any
) -> None:
    """The same hits, or the same refusal: an index may be missing, or not built yet."""
    found: list[object] = []
    for collection in (mine, other):
        try:
            found.append([(hit.id, hit.score) for hit in collection.search(*question, **more)])
        except QueryError as error:
            found.append(str(error))
    assert found[0] == found[1]


TestReader = ReaderMachine.TestCase
TestReader.settings = settings(max_examples=slices.examples(1, 0.35), stateful_step_count=30)
TestReader = pytest.mark.sliced(pytest.mark.slow(TestReader))
