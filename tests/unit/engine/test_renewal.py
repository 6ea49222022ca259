"""A text index that another version of its analyzer made: it answers until it is rebuilt."""

from pathlib import Path

import pytest

import amberdb
from amberdb import Collection, Database, Hits, IndexSpec, Ordered, Text
from amberdb import _failpoints as failpoints
from support.analyzers import older_analyzer
from support.databases import SMALL, assert_sound, audited
from unit.engine.helpers import abandon

COUNT = 20
INDEXES: list[IndexSpec] = [Ordered("n"), Text("text", language=None)]
NAME = "text:text"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a database whose texts have the term `ambers` for amber."""
    with older_analyzer(), audited(tmp_path / "live.amber") as db:
        notes = db.collection("n", indexes=INDEXES)
        notes.put_many({"id": f"d{n:02}", "n": n, "text": f"amber w{n}"} for n in range(COUNT))
        db.checkpoint()
        notes.put({"id": "late", "n": COUNT, "text": "amber late"})
        return abandon(db, tmp_path / "old.amber")


def ids(hits: Hits) -> list[str]:
    return [hit.id for hit in hits]


def steps_of(hits: Hits) -> dict[str, object]:
    steps: dict[str, object] = hits.how["indexes"][NAME]
    return steps


def keyspaces(db: Database) -> list[int]:
    return [index.keyspace for index in db.definition("n").indexes]


def judge_renewed(notes: Collection, count: int) -> None:
    """Each document is found by the terms of this version alone."""
    found = notes.search("amber", limit=99)
    assert len(found) == count
    assert "rebuilding" not in steps_of(found)
    assert not notes.search("ambers")


def test_the_older_postings_answer_until_the_index_is_rebuilt(path: Path) -> None:
    with audited(path) as db:
        notes = db["n"]
        older = notes.search("ambers", limit=99)
        assert len(older) == COUNT  # what only the log had has terms of this version
        assert "another version" in str(steps_of(older)["rebuilding"])
        assert steps_of(notes.search("ambers", where={"n": {"$lt": 3}}))["rebuilding"]
        with db.transaction() as tx:
            tx["n"].put({"id": "new", "n": -1, "text": "amber new"})
            assert ids(tx["n"].search("new")) == ["new"]
        notes.delete("d01")
        assert ids(notes.search("amber", limit=99)) == ["new", "late"]
        assert len(notes.search("ambers", limit=99)) == COUNT - 1
        assert db.stats()["collections"]["n"]["indexes"][NAME] == "rebuilding"
        assert_sound(db)
        with db.snapshot() as before:
            db.build_indexes()
            judge_renewed(notes, COUNT + 1)
            assert len(before["n"].search("ambers", limit=99)) == COUNT - 1
        assert db.stats()["collections"]["n"]["indexes"][NAME] == "ready"
        assert len(db.definition("n").indexes) == len(INDEXES)
        made = keyspaces(db)
    with audited(path) as db:
        assert keyspaces(db) == made
        judge_renewed(db["n"], COUNT + 1)


def test_the_background_rebuilds_it(path: Path) -> None:
    with audited(path, background=True) as db:
        db.build_indexes()
        judge_renewed(db["n"], COUNT + 1)
        assert len(db.definition("n").indexes) == len(INDEXES)


def test_a_reader_asks_the_older_postings_too(path: Path) -> None:
    before = {file: file.read_bytes() for file in path.glob("data-*/data.mdb")}
    with amberdb.open(path, read_only=True, **SMALL) as db:
        hits = db.collection("n", indexes=INDEXES).search("ambers", limit=99)
        assert len(hits) == COUNT
        assert "rebuilding" in steps_of(hits)
        assert db.check().ok
    assert {file: file.read_bytes() for file in before} == before


def test_an_index_of_two_versions_is_never_taken_for_one_of_them(path: Path) -> None:
    with older_analyzer(), amberdb.open(path, **SMALL) as db:
        first = keyspaces(db)
    with amberdb.open(path, **SMALL) as db:
        db["n"].put({"id": "new", "n": 0, "text": "amber"})
        assert keyspaces(db)[: len(first)] == first
        second = keyspaces(db)
    with older_analyzer(), audited(path) as db:
        assert keyspaces(db)[:-1] == first
        assert keyspaces(db)[-1] > second[-1]
        db.build_indexes()
        assert len(db["n"].search("ambers", limit=99)) == COUNT + 2
        assert not set(keyspaces(db)) & {first[-1], second[-1]}


def test_a_dropped_index_is_dropped_with_its_older_one(path: Path) -> None:
    with audited(path) as db:
        db.collection("n", indexes=[Ordered("n")])
        db.build_indexes()
        assert len(keyspaces(db)) == 1
        db.collection("n", indexes=INDEXES)
        judge_renewed(db["n"], COUNT + 1)


def test_an_empty_collection_needs_no_older_index(path: Path) -> None:
    with amberdb.open(path, **SMALL) as db:
        db["n"].delete_many({})
    with older_analyzer(), audited(path) as db:
        assert len(keyspaces(db)) == len(INDEXES)
        assert db.stats()["collections"]["n"]["indexes"][NAME] == "ready"


PLACES = ("index.", "replace.", "purge.", "schema.")


@pytest.mark.parametrize(
    "place",
    [n for n in failpoints.NAMES if n.startswith(PLACES) and n != "index.unique-checked"],
)
def test_a_process_that_dies_anywhere(path: Path, tmp_path: Path, place: str) -> None:
    copies: list[Path] = []

    def reach(name: str) -> None:
        if name == place and len(copies) < 3:
            copies.append(abandon(db, tmp_path / f"{len(copies)}.amber"))

    db = amberdb.open(path, **SMALL)
    try:
        failpoints.install(reach)
        db.collection("n", indexes=[*INDEXES, Text("text", name="other")])
        db.build_indexes()
    finally:
        failpoints.install(None)
        db.close()
    assert copies
    for copy in copies:
        with audited(copy) as found:
            notes = found["n"]
            assert len({*ids(notes.search("amber ambers", limit=99))}) == COUNT + 1
            assert_sound(found)
            found.build_indexes()
            assert len(notes.search("amber", limit=99)) == COUNT + 1
            assert len({index.spec.name for index in found.definition("n").indexes}) == len(
                found.definition("n").indexes
            )
