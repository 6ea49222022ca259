"""Snapshots of a writer and of a reader, held while collections and indexes come and go, in the
middle of checkpoints too: what a snapshot finds is always what its own documents say.
"""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import amberdb
from amberdb import Database, Document, Ordered, QueryError, Snapshot, Text, Vector
from amberdb.index.registry import IndexSpec
from support import slices
from support.databases import SMALL, OpenDatabase, assert_sound
from support.places import once_at
from support.ranking import nearest
from support.searches import small_limits

WORDS = ("amber", "bee", "owl")
INDEXES: tuple[IndexSpec, ...] = (
    Text("text"),
    Text("title"),
    Vector("v", dim=2, metric="l2"),
    Ordered("n"),
)
PLACES = ("checkpoint.frozen", "checkpoint.waited", "checkpoint.in-transaction")
SEEDS = 60

Seen: TypeAlias = dict[str, tuple[dict[str, Document], list[IndexSpec]]]
"""By collection its documents, by id, and its indexes."""
Search: TypeAlias = Callable[..., list[amberdb.Hit]]


class World:
    """A database, a reader of it, and snapshots of both."""

    def __init__(self, db: Database, reader: Database, rng: random.Random) -> None:
        self.db = db
        self.reader = reader
        self.rng = rng
        self.snapshots: list[tuple[Snapshot, Seen]] = []
        self.hits = 0

    def run(self, steps: int) -> None:
        likely = [self.declare, self.put, self.snapshot, self.beside, self.build]
        others = [self.drop, self.rename, self.delete, self.db.checkpoint, self.close_one]
        for name in "ab":
            self.db.collection(name, indexes=INDEXES)
        for _ in range(steps):
            self.rng.choice((*likely, *likely, self.put, self.put, *others))()
            for snapshot, seen in self.snapshots:
                self.compare(snapshot, seen)
        assert_sound(self.db)
        self.reader.refresh()
        assert_sound(self.reader)
        for snapshot, _ in self.snapshots:
            snapshot.close()

    # -- steps -------------------------------------------------------------------------------

    def declare(self) -> None:
        some = self.rng.sample(INDEXES, self.rng.choice((0, 0, 1, 2, 4)))
        self.db.collection(self.rng.choice("ab"), indexes=some)

    def drop(self) -> None:
        if names := self.db.collections():
            self.db.drop_collection(self.rng.choice(names))

    def rename(self) -> None:
        names = self.db.collections()
        free = sorted({"a", "b", "c"} - set(names))
        if names and free:
            self.db.rename_collection(self.rng.choice(names), self.rng.choice(free))

    def put(self) -> None:
        """Of few ids, so that most documents are replaced."""
        documents: list[dict[str, Any]] = []
        for _ in range(self.rng.randrange(2, 5)):
            document: dict[str, Any] = {
                "id": str(self.rng.randrange(5)),
                "n": self.rng.randrange(3),
                "text": " ".join(self.rng.choices(WORDS, k=self.rng.randrange(3))),
            }
            if self.rng.random() < 0.6:
                document["title"] = self.rng.choice(WORDS)
            if self.rng.random() < 0.6:
                document["v"] = [self.rng.uniform(-1, 1), self.rng.uniform(-1, 1)]
            documents.append(document)
        self.db.collection(self.rng.choice("ab")).put_many(documents)

    def delete(self) -> None:
        self.db.collection(self.rng.choice("ab")).delete(str(self.rng.randrange(5)))

    def build(self) -> None:
        self.db.build_indexes()

    def beside(self) -> None:
        """A change, or a snapshot, in the middle of a checkpoint."""
        changes = (self.declare, self.declare, self.drop, self.rename, self.snapshot)
        self.put()
        with once_at(self.rng.choice(PLACES), self.rng.choice(changes)):
            self.db.checkpoint()

    def snapshot(self) -> None:
        db = self.rng.choice((self.db, self.reader))
        db.refresh()
        snapshot = db.snapshot()
        seen: Seen = {}
        for name in db.collections():
            specs = [index.spec for index in db.definition(name).indexes]
            seen[name] = {doc["id"]: doc for doc in snapshot[name].documents()}, specs
        self.snapshots.append((snapshot, seen))

    def close_one(self) -> None:
        if self.snapshots:
            self.snapshots.pop(self.rng.randrange(len(self.snapshots)))[0].close()

    # -- comparing ---------------------------------------------------------------------------

    def compare(self, snapshot: Snapshot, seen: Seen) -> None:
        for name, (documents, specs) in seen.items():
            notes = snapshot[name]
            assert repr(list(notes.documents())) == repr(list(documents.values()))
            with_n = [id for id, document in documents.items() if document["n"] == 1]
            assert sorted(document["id"] for document in notes.find({"n": 1})) == with_n
            fields = [spec.fields[0] for spec in specs if isinstance(spec, Text)]
            if fields:
                word = self.rng.choice(WORDS)
                self.compare_words(partial(notes.search, word), word, fields, documents)
            if INDEXES[2] in specs:
                self.compare_vectors(partial(notes.search, vector=[1.0, 0.5]), documents)

    def compare_words(
        self,
        search: Search,
        word: str,
        fields: list[str],
        documents: dict[str, Document],
    ) -> None:
        wanted = [
            id
            for id, document in documents.items()
            if any(word in document.get(field, "").split() for field in fields)
        ]
        for where in (None, {"n": 1}):
            hits = found(partial(search, where=where))
            if hits is not None:
                passing = [id for id in wanted if where is None or documents[id]["n"] == 1]
                assert sorted(hit.id for hit in hits) == passing
                assert all(repr(hit.document) == repr(documents[hit.id]) for hit in hits)
                self.hits += len(hits)

    def compare_vectors(self, search: Search, documents: dict[str, Document]) -> None:
        scores = nearest(list(documents.values()), [1.0, 0.5], "v", "l2")
        hits = found(search)
        if hits is not None:
            assert {hit.id: pytest.approx(hit.score, abs=1e-5) for hit in hits} == scores
            self.hits += len(hits)


def found(search: Search) -> list[amberdb.Hit] | None:
    """None when the index was not complete at the time of the snapshot."""
    try:
        return search(limit=9)
    except QueryError as error:
        if "still being built" not in str(error):
            raise
        return None


@pytest.mark.slow
@pytest.mark.sliced
def test_what_a_snapshot_finds_is_what_its_documents_say(
    open_db: OpenDatabase, tmp_path: Path
) -> None:
    hits = 0
    with small_limits():
        for seed in range(slices.size(SEEDS, 4)):
            db = open_db(f"{seed}.amber")
            reader = amberdb.open(tmp_path / f"{seed}.amber", **SMALL, read_only=True)
            with reader:
                world = World(db, reader, random.Random(seed))
                try:
                    world.run(60)
                except BaseException as error:
                    error.add_note(f"seed {seed}")
                    raise
                hits += world.hits
            db.close()
    assert hits > slices.size(10_000, 500)
