"""Search against its definition, while documents come, change, expire and go: whatever mix of LMDB,
frozen and active memtable and own transaction holds them, and across reopening."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import amberdb
from amberdb import Database, Hit, Ordered, ReadableCollection, Snapshot, Text, Vector
from amberdb.index.registry import IndexSpec
from amberdb.index.text.analyzer import Analyzer
from support import slices
from support.databases import SMALL, FakeClock, assert_sound
from support.ranking import agree, bm25, nearest

DIM = 4
FIELDS = ("content", "title")
WORDS = ["umbrella", "meetings", "meeting", "car", "gen-itgc", "下午", "会议", "下午的会议", "猫"]
ANALYZER = Analyzer.of("english", True, None, False)
INDEXES: list[IndexSpec] = [
    Ordered("entity"),
    Text(*FIELDS),
    Vector("embedding", dim=DIM, metric="l2", source="content"),
    Vector("chunks", dim=DIM, metric="ip", multi=True, mean_of=2),
]

ids = st.sampled_from([f"d{number}" for number in range(8)])
texts = st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join)
numbers = st.sampled_from([-1.0, -0.5, 0.25, 1.0, 2.0])
vectors = st.lists(numbers, min_size=DIM, max_size=DIM)
documents = st.fixed_dictionaries(
    {"id": ids, "entity": st.sampled_from(["lin", "wang"])},
    optional={
        "content": texts,
        "title": texts,
        "embedding": st.none() | vectors,
        "chunks": st.lists(vectors, max_size=3),
        "expires": st.none() | st.integers(-5, 5),
    },
)
queries = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)
filters = st.sampled_from([None, {"entity": "lin"}, {"title": {"$exists": True}}, {"id": "d3"}])
limits = st.integers(1, 10)


class SearchMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.clock = FakeClock()
        self.known: dict[str, dict[str, Any]] = {}
        self.at: tuple[Snapshot, dict[str, dict[str, Any]], float] | None = None
        self.db = self.opened()

    def opened(self) -> Database:
        path = Path(self.directory.name) / "s.amber"
        db = amberdb.open(path, clock=self.clock, sync="os", **SMALL)
        db.collection(
            "memory",
            indexes=INDEXES,
            expires_at="expires_at",
        )
        return db

    def teardown(self) -> None:
        assert_sound(self.db)
        self.db.close()
        self.directory.cleanup()

    def made(self, drawn: dict[str, Any]) -> dict[str, Any]:
        document = dict(drawn)
        days = document.pop("expires", None)
        if days is not None:
            now = datetime.fromtimestamp(self.clock(), UTC)
            document["expires_at"] = now + timedelta(days=days)
        return document

    @rule(drawn=st.lists(documents, min_size=1, max_size=4))
    def put(self, drawn: list[dict[str, Any]]) -> None:
        made = [self.made(each) for each in drawn]
        self.db.collection("memory").put_many(made)
        self.known.update((each["id"], each) for each in made)

    @rule(id=ids, text=texts)
    def change_text(self, id: str, text: str) -> None:
        if self.is_live(id):
            self.db.collection("memory").update(id, {"content": text})
            self.known[id] = {**self.known[id], "content": text}

    @rule(id=ids)
    def change_something_else(self, id: str) -> None:
        if self.is_live(id):
            self.db.collection("memory").update(id, {"done": True})
            self.known[id] = {**self.known[id], "done": True}

    @rule(id=ids)
    def delete(self, id: str) -> None:
        was = self.is_live(id)
        assert self.db.collection("memory").delete(id) == was
        self.known.pop(id, None)

    @rule(id=ids)
    def erase(self, id: str) -> None:
        self.db.erase("memory", {"id": id}, reason="the model")
        self.known.pop(id, None)

    @rule(days=st.integers(0, 3))
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
        self.at = None
        self.db.close()
        self.db = self.opened()

    @rule()
    def index_again(self) -> None:
        self.db.collection("memory", indexes=[Ordered("entity")])
        self.db.collection("memory", indexes=[Text(*FIELDS)])
        self.db.collection(
            "memory",
            indexes=INDEXES,
        )
        self.db.build_indexes()

    @rule()
    def take_snapshot(self) -> None:
        if self.at is not None:
            self.at[0].close()
        self.at = (self.db.snapshot(), dict(self.known), self.clock())

    @rule(query=queries, where=filters, limit=limits, page=limits)
    def search_text(self, query: str, where: Any, limit: int, page: int) -> None:
        hits = paged(self.db.collection("memory"), limit, page, text=query, where=where)
        self.compare_text(hits, query, where, limit, self.live())

    @rule(query=vectors, where=filters, limit=limits, page=limits)
    def search_vector(self, query: list[float], where: Any, limit: int, page: int) -> None:
        memory = self.db.collection("memory")
        self.compare_vectors(memory, query, where, limit, page, self.live())

    @rule(query=queries, limit=limits, page=limits)
    def search_groups(self, query: str, limit: int, page: int) -> None:
        memory = self.db.collection("memory")
        hits = paged(memory, limit, page, text=query, group_by="entity")
        scores = bm25(self.live(), query, FIELDS, ANALYZER)
        best: dict[str, float] = {}
        for id, score in scores.items():
            entity = self.known[id]["entity"]
            best[entity] = max(best.get(entity, 0.0), score)
        assert len(hits) == min(limit, len(best))
        for hit in hits:
            assert hit.score == pytest.approx(best.pop(hit.document["entity"]))

    @precondition(lambda self: self.at is not None)
    @rule(text=queries, vector=vectors, where=filters, limit=limits, page=limits)
    def search_snapshot(
        self, text: str, vector: list[float], where: Any, limit: int, page: int
    ) -> None:
        assert self.at is not None
        at, known, then = self.at
        live = [each for each in known.values() if lives(each, then)]
        hits = paged(at["memory"], limit, page, text=text, where=where)
        self.compare_text(hits, text, where, limit, live)
        self.compare_vectors(at["memory"], vector, where, limit, page, live)

    @rule(drawn=documents, gone=ids, text=queries, vector=vectors, limit=limits, keep=st.booleans())
    def search_in_transaction(
        self,
        drawn: dict[str, Any],
        gone: str,
        text: str,
        vector: list[float],
        limit: int,
        keep: bool,
    ) -> None:
        before = dict(self.known)
        made = self.made(drawn)
        try:
            with self.db.transaction() as tx:
                memory = tx["memory"]
                memory.put(made)
                memory.delete(gone)
                self.known[made["id"]] = made
                self.known.pop(gone, None)
                self.compare_text(memory.search(text, limit=limit), text, None, limit, self.live())
                self.compare_vectors(memory, vector, None, limit, limit, self.live())
                if not keep:
                    raise KeyError("away with it")
        except KeyError:
            self.known = before

    @invariant()
    def counts(self) -> None:
        assert len(self.db.collection("memory")) == len(self.live())

    # -- what is right -----------------------------------------------------------------------

    def is_live(self, id: str) -> bool:
        return id in self.known and lives(self.known[id], self.clock())

    def live(self) -> list[dict[str, Any]]:
        return [each for each in self.known.values() if lives(each, self.clock())]

    def compare_text(
        self, hits: Any, query: str, where: Any, limit: int, live: list[dict[str, Any]]
    ) -> None:
        scores = bm25(live, query, FIELDS, ANALYZER)
        passed = {each["id"] for each in live if passes(each, where)}
        agree(hits, {id: score for id, score in scores.items() if id in passed}, limit)

    def compare_vectors(
        self,
        memory: ReadableCollection,
        query: list[float],
        where: Any,
        limit: int,
        page: int,
        live: list[dict[str, Any]],
    ) -> None:
        passed = [each for each in live if passes(each, where)]
        for field, metric, mean_of in (("embedding", "l2", 1), ("chunks", "ip", 2)):
            hits = paged(memory, limit, page, vector={field: query}, where=where)
            agree(hits, nearest(passed, query, field, metric, mean_of), limit)


def paged(target: ReadableCollection, limit: int, page: int, **search: Any) -> list[Hit]:
    """The first `limit` hits, by pages of at most `page`."""
    found: list[Hit] = []
    after: str | None = None
    while len(found) < limit:
        hits = target.search(**search, limit=min(page, limit - len(found)), after=after)
        found += hits
        after = hits.cursor
        if after is None:
            break
    return found


def lives(document: dict[str, Any], now: float) -> bool:
    expires = document.get("expires_at")
    return expires is None or expires.timestamp() > now


def passes(document: dict[str, Any], where: Any) -> bool:
    if where is None:
        return True
    ((field, wanted),) = where.items()
    return field in document if field == "title" else document.get(field) == wanted


TestSearch = SearchMachine.TestCase
TestSearch.settings = settings(max_examples=slices.examples(1, 0.35), stateful_step_count=30)
TestSearch = pytest.mark.sliced(pytest.mark.slow(TestSearch))
