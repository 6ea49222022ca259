"""What every Vector index keeps: a search finds the nearest documents by the definition, whatever
holds them. A declaration inherits the suite, with one vector per document or several."""

import contextlib
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import amberdb
from amberdb import Collection, Database, Document, Fusion, IndexSpec, Ordered, Text, Vector
from amberdb.index.vector.hnsw import library
from support.databases import FakeClock, OpenDatabase, assert_sound
from support.ranking import agree, nearest
from support.searches import small_limits

DIM = 4
COUNT = 40
WHERES: list[dict[str, Any]] = [{}, {"group": "a"}, {"rest": 1}, {"id": "d03"}, {"group": "none"}]


class VectorContract:
    """The suite. Documents without a vector are among the others."""

    spec: ClassVar[Vector]

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def db(self, open_db: OpenDatabase, clock: FakeClock) -> Database:
        return open_db(clock=clock)

    @pytest.fixture
    def rng(self) -> random.Random:
        return random.Random(5)

    @pytest.fixture
    def notes(self, db: Database, rng: random.Random) -> Collection:
        notes = self.declared(db)
        notes.put_many(self.drawn(rng, f"d{n:02}") for n in range(COUNT))
        return notes

    def declared(self, db: Database, *specs: Vector) -> Collection:
        indexes: list[IndexSpec] = [Ordered("group"), Text("text"), *(specs or (self.spec,))]
        return db.collection("notes", indexes=indexes, expires_at="until")

    def value(self, rng: random.Random) -> Any:
        """Of the vector field; one whose numbers float32 holds as they are."""
        count = rng.randrange(4) if self.spec.multi else 1
        vectors = [[rng.randrange(1, 64) / 16 - 2 for _ in range(DIM)] for _ in range(count)]
        return vectors if self.spec.multi else vectors[0]

    def drawn(self, rng: random.Random, id: str) -> Document:
        document = {"id": id, "group": rng.choice("ab"), "rest": rng.randrange(3), "text": "tea"}
        return {**document, "v": self.value(rng)} if rng.random() < 0.9 else document

    def assert_found(self, notes: Any, rng: random.Random, known: list[Document]) -> None:
        """Searches of `notes`, a collection in any view, against its documents."""
        for where in WHERES:
            passed = [d for d in known if all(d.get(name) == v for name, v in where.items())]
            query = [rng.randrange(1, 64) / 16 - 2 for _ in range(DIM)]
            scores = nearest(passed, query, "v", self.spec.metric, self.spec.mean_of)
            for limit in (1, 7, 100):
                agree(notes.search(vector=query, where=where, limit=limit), scores, limit)

    def assert_all_found(self, db: Database, rng: random.Random) -> None:
        notes = db.collection("notes")
        self.assert_found(notes, rng, list(notes.documents()))
        assert_sound(db)

    # -- the suite ---------------------------------------------------------------------------

    def test_what_is_put_is_found_and_comes_back(
        self, db: Database, notes: Collection, rng: random.Random
    ) -> None:
        document = {**self.drawn(rng, "own"), "v": self.value(rng)}
        notes.put(document)
        for _ in range(2):
            stored = notes["own"]
            assert amberdb.equal(stored, document)
            assert stored["v"].dtype == np.float32
            assert not stored["v"].flags.writeable
            assert stored["v"].shape == ((len(document["v"]), DIM) if self.spec.multi else (DIM,))
            self.assert_all_found(db, rng)
            db.checkpoint()

    def test_changes(
        self,
        db: Database,
        notes: Collection,
        rng: random.Random,
        settle: Callable[[Database], None],
    ) -> None:
        self.assert_all_found(db, rng)
        settle(db)
        for n in range(0, COUNT, 2):
            notes.put(self.drawn(rng, f"d{n:02}"))
        for n in range(0, COUNT, 3):
            notes.update(f"d{n:02}", {"rest": 1})
        for n in range(0, COUNT, 5):
            notes.update(f"d{n:02}", {"v": self.value(rng)})
        for n in range(0, COUNT, 7):
            notes.delete(f"d{n:02}")
        self.assert_all_found(db, rng)
        settle(db)
        notes.update("d01", {"v": amberdb.REMOVE})
        self.assert_all_found(db, rng)

    def test_a_change_of_another_field_keeps_the_row(
        self, db: Database, notes: Collection, rng: random.Random
    ) -> None:
        notes.search(vector=[1.0] * DIM)
        before = db.stats()["collections"]["notes"]["search"][self.spec.name]["rows"]
        for id in list(notes):
            notes.update(id, {"rest": 2})
        notes.search(vector=[1.0] * DIM)
        assert db.stats()["collections"]["notes"]["search"][self.spec.name]["rows"] == before

    def test_views(
        self,
        db: Database,
        notes: Collection,
        rng: random.Random,
        settle: Callable[[Database], None],
    ) -> None:
        known = list(notes.documents())
        with db.snapshot() as snapshot:
            notes.delete_many({"group": "a"})
            notes.put_many(self.drawn(rng, f"n{n}") for n in range(5))
            settle(db)
            self.assert_all_found(db, rng)
            self.assert_found(snapshot["notes"], rng, known)
        with contextlib.suppress(KeyError), db.transaction() as tx:
            tx["notes"].put_many(self.drawn(rng, f"t{n}") for n in range(5))
            tx["notes"].put(self.drawn(rng, "d01"))
            tx["notes"].delete("d02")
            self.assert_found(tx["notes"], rng, list(tx["notes"].documents()))
            raise KeyError
        self.assert_all_found(db, rng)

    def test_expiry_erasure_and_compaction(
        self, db: Database, notes: Collection, rng: random.Random, clock: FakeClock
    ) -> None:
        until = datetime.fromtimestamp(clock.now + 60, UTC)
        notes.put_many({**self.drawn(rng, f"e{n}"), "until": until} for n in range(5))
        self.assert_all_found(db, rng)
        clock.advance(120)
        self.assert_all_found(db, rng)
        db.erase("notes", {"group": "a"}, reason="asked")
        self.assert_all_found(db, rng)
        db.compact()
        self.assert_all_found(db, rng)

    def test_another_open_and_a_restore(
        self, open_db: OpenDatabase, db: Database, notes: Collection, rng: random.Random,
        tmp_path: Path,
    ) -> None:  # fmt: skip
        known = list(notes.documents())
        db.backup(tmp_path / "one.bak")
        db.close()
        self.assert_found(open_db()["notes"], rng, known)
        amberdb.restore(tmp_path / "one.bak", tmp_path / "again.amber")
        self.assert_found(open_db("again.amber")["notes"], rng, known)

    @pytest.mark.skipif(library() is None, reason="needs the extra hnsw")
    def test_the_graph_and_its_file(
        self, open_db: OpenDatabase, db: Database, notes: Collection, rng: random.Random
    ) -> None:
        """Under small limits the answers of a graph are exact."""
        with small_limits():
            for turn in range(4):
                self.assert_all_found(db, rng)
                db.build_indexes()
                assert notes.search(vector=[1.0] * DIM, limit=3).how["indexes"][self.spec.name][
                    "search"
                ] == "graph"  # fmt: skip
                self.assert_all_found(db, rng)
                notes.put_many(self.drawn(rng, f"d{n:02}") for n in range(turn, COUNT, 4))
            self.assert_all_found(db, rng)
            db.close()
            db = open_db()
            self.assert_all_found(db, rng)
            db.build_indexes()
            self.assert_all_found(db, rng)

    def test_an_index_that_is_built_later(self, db: Database, rng: random.Random) -> None:
        """Over documents that were stored under the other form, and under none."""
        other = Vector("v", dim=DIM, metric=self.spec.metric, multi=not self.spec.multi)
        notes = self.declared(db, other)
        one = [[1.0, 2.0, 0.5, 0.25]]
        notes.put({"id": "one", "v": one if other.multi else one[0]})
        notes = self.declared(db)
        notes.put_many(self.drawn(rng, f"d{n:02}") for n in range(COUNT))
        db.build_indexes()
        known = [d for d in notes.documents() if self.spec.multi or d["id"] != "one"]
        self.assert_found(notes, rng, known)
        db.collection("notes", indexes=[Ordered("group")])
        stored = notes["d01"]
        notes.put(stored)
        assert amberdb.equal(notes["d01"], stored)
        self.declared(db)
        db.build_indexes()
        self.assert_found(notes, rng, known)

    def test_with_text_and_diversity(self, notes: Collection) -> None:
        query = [1.0, 0.5, -1.0, 0.25]
        for fusion in (Fusion(), Fusion(method="reciprocal_rank")):
            assert len(notes.search("tea", vector=query, limit=100, fusion=fusion)) == COUNT
        scores = nearest(list(notes.documents()), query, "v", self.spec.metric, self.spec.mean_of)
        alike = notes.search(vector=query, limit=100, diversity=0.5)
        assert {hit.id for hit in alike} == set(scores)


class TestOne(VectorContract):
    spec = Vector("v", dim=DIM, metric="l2")


class TestOneByCosine(VectorContract):
    spec = Vector("v", dim=DIM)


class TestSeveral(VectorContract):
    spec = Vector("v", dim=DIM, multi=True)


class TestSeveralByDistance(VectorContract):
    spec = Vector("v", dim=DIM, metric="l2", multi=True)


class TestMeanOfTheBestTwo(VectorContract):
    spec = Vector("v", dim=DIM, metric="ip", multi=True, mean_of=2)
