"""Searches within a filter, again and again, while documents come, go and move between entities:
what is kept of the filter from one search to the next changes no answer."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any
from unittest.mock import patch

import pytest

from amberdb import Database, Ordered, ReadableCollection, Text, Vector
from amberdb.engine.search import candidates, filtered_rows
from amberdb.engine.search.vector import gathered as gathered_vectors
from amberdb.engine.search.vector import index as vector_index
from amberdb.engine.storage.view import View
from amberdb.index.registry import IndexSpec
from support import slices
from support.databases import FakeClock, OpenDatabase
from support.ranking import agree, nearest
from support.searches import DIM, drawn_vector, drawn_vectors, small_limits

ENTITIES = ("lin", "wang", "zhao")
INDEXES: list[IndexSpec] = [
    Ordered("entity"),
    Ordered("-number"),
    Text("text"),
    Vector("v", dim=DIM),
    Vector("chunks", dim=DIM, multi=True, mean_of=2),
]
FILTERS: tuple[tuple[dict[str, Any], Callable[[dict[str, Any]], bool]], ...] = (
    *(({"entity": name}, lambda d, name=name: d["entity"] == name) for name in ENTITIES),
    (
        {"entity": {"$in": ["lin", "zhao"]}},
        lambda d: d["entity"] in ("lin", "zhao"),
    ),
    ({"number": {"$gte": 40}}, lambda d: d["number"] >= 40),
    ({"number": {"$gt": 10, "$lte": 60}}, lambda d: 10 < d["number"] <= 60),
    (
        {"entity": "wang", "number": {"$lt": 50}},
        lambda d: d["entity"] == "wang" and d["number"] < 50,
    ),
)


@pytest.fixture
def limits() -> Iterator[None]:
    """A few rows do what thousands do."""
    with small_limits(), ExitStack() as patches:
        for module, name, value in (
            (vector_index, "UNKNOWN_ROWS", 3),
            (gathered_vectors, "AGAIN_ROWS", 3),
            (filtered_rows, "KEPT_ROWS", 150),
            (filtered_rows, "ADDED_ROWS", 5),
            (candidates, "ENTRIES_MAX", 70),
        ):
            patches.enter_context(patch.object(module, name, value))
        yield


class Life:
    """A collection, and the documents that it should have."""

    def __init__(self, db: Database, clock: FakeClock, seed: int) -> None:
        self.rng = random.Random(seed)
        self.clock = clock
        self.db = db
        self.memory = db.collection("memory", indexes=INDEXES, expires_at="dies")
        self.known: dict[str, dict[str, Any]] = {}
        self.ways: Counter[str] = Counter()

    def drawn(self) -> dict[str, Any]:
        rng = self.rng
        document: dict[str, Any] = {
            "id": f"d{rng.randrange(160)}",
            "entity": rng.choice(ENTITIES),
            "number": rng.randrange(100),
            "text": "umbrella",
        }
        if rng.random() < 0.8:
            document["v"] = drawn_vector(rng)
        if rng.random() < 0.5:
            document["chunks"] = drawn_vectors(rng)
        if rng.random() < 0.1:
            document["dies"] = self.clock() + rng.randrange(1, 30)
        return document

    def put(self, to: Any = None, count: int = 1) -> None:
        made = [self.drawn() for _ in range(count)]
        (self.memory if to is None else to).put_many(made)
        self.known.update((each["id"], each) for each in made)

    def change(self, to: Any = None) -> None:
        """The entity or the number of a document: its vectors, and so its rows, stay."""
        id = self.rng.choice(list(self.known) or ["none"])
        changes = self.rng.choice(
            ({"entity": self.rng.choice(ENTITIES)}, {"number": self.rng.randrange(100)})
        )
        if self.lives(self.known.get(id)):
            (self.memory if to is None else to).update(id, changes)
            self.known[id] = {**self.known[id], **changes}

    def delete(self, to: Any = None) -> None:
        id = self.rng.choice(list(self.known) or ["none"])
        (self.memory if to is None else to).delete(id)
        self.known.pop(id, None)

    def transaction(self) -> None:
        before = dict(self.known)
        is_kept = self.rng.random() < 0.5
        with suppress(InterruptedError), self.db.transaction() as tx:
            for step in (self.put, self.change, self.delete, self.change):
                step(tx["memory"])
            self.compare(tx["memory"], self.live())
            if not is_kept:
                self.known = before
                raise InterruptedError

    def time(self) -> None:
        self.clock.advance(3)

    def lives(self, document: dict[str, Any] | None) -> bool:
        return document is not None and document.get("dies", self.clock() + 1) > self.clock()

    def live(self) -> list[dict[str, Any]]:
        return [document for document in self.known.values() if self.lives(document)]

    def compare(self, memory: ReadableCollection, documents: list[dict[str, Any]]) -> None:
        for where, passes in self.rng.sample(FILTERS, 3):
            passed = [each for each in documents if passes(each)]
            question = drawn_vector(self.rng)
            limit = self.rng.choice((1, 5, 200))
            for field, mean_of in (("v", 1), ("chunks", 2)):
                scores = nearest(passed, question.tolist(), field, "cosine", mean_of)
                hits = memory.search(vector={field: question}, where=where, limit=limit)
                agree(hits, scores, limit)
                self.ways[hits.how["indexes"][f"vector:{field}"]["search"]] += 1
            hits = memory.search("umbrella", where=where, limit=200)
            assert {hit.id for hit in hits} == {each["id"] for each in passed}


@pytest.mark.slow
@pytest.mark.sliced
@pytest.mark.parametrize("seed", slices.parameters(2, range(4)))
@pytest.mark.usefixtures("limits")
def test_what_is_kept_changes_no_answer(seed: int, open_db: OpenDatabase) -> None:
    print(f"seed {seed}")
    clock = FakeClock()
    db = open_db(clock=clock)
    life = Life(db, clock, seed)
    life.put(count=100)
    db.checkpoint()
    snapshot, then = db.snapshot(), life.live()
    steps = [life.put, life.change, life.delete, life.transaction, life.time]
    for turn in range(100):
        life.rng.choice(steps)()
        if turn % 25 == 10:
            db.checkpoint()
        if turn % 25 == 20:
            db.build_indexes()
        if turn == 60:
            db.compact()
        life.compare(life.memory, life.live())
        if turn % 10 == 5:
            life.compare(snapshot["memory"], then)
        if turn == 50:
            snapshot.close()
            snapshot, then = db.snapshot(), life.live()
    snapshot.close()
    assert min(life.ways["codes"], life.ways["exact"], life.ways["graph"]) > 20, life.ways


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The lower bounds of the ranges that were read from LMDB."""
    reads: list[bytes] = []
    read = View.stored_keys

    def noted(self: View, low: bytes, high: bytes, limit: int) -> list[bytes]:
        reads.append(low)
        return read(self, low, high, limit)

    monkeypatch.setattr(View, "stored_keys", noted)
    return reads


def of_entity(memory: ReadableCollection, entity: str) -> set[str]:
    hits = memory.search(vector={"v": [1.0, 1.0, 2.0]}, where={"entity": entity}, limit=1000)
    return {hit.id for hit in hits}


def put_entities(db: Database, count: int) -> None:
    """300 documents, in so many entities, in LMDB."""
    db.collection("memory", indexes=INDEXES).put_many(
        {"id": f"d{n}", "entity": f"e{n % count}", "number": n, "v": [n, 1.0, 2.0]}
        for n in range(300)
    )
    db.checkpoint()


def test_entries_are_read_once_until_a_checkpoint(
    open_db: OpenDatabase, reads: list[bytes]
) -> None:
    db = open_db()
    put_entities(db, 3)
    memory = db.collection("memory")
    wanted = {f"d{n}" for n in range(0, 300, 3)}
    for _ in range(3):
        assert of_entity(memory, "e0") == wanted
    memory.update("d3", {"entity": "e1"})
    memory.put({"id": "new", "entity": "e0", "number": 1, "v": [5.0, 5.0, 5.0]})
    memory.delete("d6")
    wanted = wanted - {"d3", "d6"} | {"new"}
    assert of_entity(memory, "e0") == wanted
    assert len(reads) == 1
    with patch.object(View, "memory_keys", side_effect=AssertionError):  # no commit since
        assert of_entity(memory, "e0") == wanted
    db.checkpoint()
    assert of_entity(memory, "e0") == wanted
    assert len(reads) == 2


@pytest.mark.parametrize(("name", "value"), [("KEPT_ROWS", 95), ("KEPT_RANGES", 3)])
def test_the_ranges_used_last_are_kept(
    name: str,
    value: int,
    open_db: OpenDatabase,
    reads: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(filtered_rows, name, value)
    db = open_db()
    put_entities(db, 10)
    memory = db.collection("memory")
    counts: list[int] = []
    for entity in ("e0", "e1", "e2", "e0", "e3", "e0", "e2", "e1"):
        assert len(of_entity(memory, entity)) == 30
        counts.append(len(reads))
    assert counts == [1, 2, 3, 3, 4, 4, 4, 5]  # e3 took the place of e1


def test_a_range_of_too_many_rows_is_not_read_twice(
    open_db: OpenDatabase, reads: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "ENTRIES_MAX", 90)
    db = open_db()
    put_entities(db, 3)
    memory = db.collection("memory")
    for _ in range(3):
        assert len(of_entity(memory, "e1")) == 100
    assert len(reads) == 1
    hits = memory.search(vector={"v": [1.0, 1.0, 2.0]}, where={"entity": "e1"})
    assert hits.how["where"]["rows"] == "checked one by one"
    memory.delete_many({"number": {"$lt": 60}})
    db.checkpoint()
    assert len(of_entity(memory, "e1")) == 80
    assert len(reads) == 2
    memory.put_many({"id": f"n{n}", "entity": "e1", "number": 99} for n in range(20))
    hits = memory.search(vector={"v": [1.0, 1.0, 2.0]}, where={"entity": "e1"})
    assert hits.how["where"]["rows"] == "checked one by one"
