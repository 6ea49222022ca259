"""Renaming and dropping collections: the effect on open handles, snapshots, subscribers, files and
a process that dies. tests/crash/test_sweep.py tests power loss at every step."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import amberdb
from amberdb import (
    Collection,
    CollectionError,
    CollectionMissingError,
    Database,
    Ordered,
    Text,
    TransactionError,
    Unique,
    Vector,
)
from amberdb import _failpoints as failpoints
from support.databases import SMALL, OpenDatabase, assert_sound
from support.remains import files_of
from unit.engine.helpers import abandon, damage_inner_pages, ids
from unit.engine.test_feed import told

INDEXES: list[Any] = [Ordered("n"), Unique("key"), Text("text"), Vector("v", dim=4)]
VECTOR = np.array([1, 0, 0, 0], np.float32)


def filled(db: Database, name: str = "old", count: int = 20) -> Collection:
    """Half of it in LMDB."""
    notes = db.collection(name, indexes=INDEXES, expires_at="dies")
    for number in range(count):
        doc = {"id": f"d{number:02}", "n": number % 3, "key": number, "text": f"tea word{number}"}
        notes.put({**doc, "v": VECTOR + number, "dies": 9e9 if number % 2 else None})
        if number == count // 2:
            db.checkpoint()
    return notes


def state_of(notes: Any) -> Any:
    return (
        ids(notes.find({"n": 1}, order_by="-n")),
        len(notes),
        [(hit.id, hit.score) for hit in notes.search("tea", limit=50)],
        [hit.id for hit in notes.search(vector=VECTOR, limit=5)],
    )


# -- renaming ----------------------------------------------------------------------------------


def test_the_same_collection_under_another_name(open_db: OpenDatabase) -> None:
    db = open_db()
    notes = filled(db)
    before = state_of(notes)
    page = notes.find(order_by="n", limit=5)
    db.rename_collection("old", "new")
    assert db.collections() == ["new"]
    renamed = db.collection("new")
    assert state_of(renamed) == before
    assert len(renamed.find(order_by="n", limit=5, after=page.cursor)) == 5
    renamed.put({"id": "late", "n": 1, "key": "late", "text": "tea", "v": VECTOR})
    assert_sound(db)
    after = state_of(renamed)
    for _ in range(2):  # out of the log, then out of LMDB
        copy = abandon(db, Path(f"{db.path}.copy"))
        db.close()
        db = open_db(str(copy))
        assert db.collections() == ["new"]
        assert state_of(db.collection("new")) == after
        db.checkpoint()


def test_open_handles_of_the_old_name_are_told(db: Database) -> None:
    notes = filled(db)
    with db.snapshot() as at:
        db.rename_collection("old", "new")
        assert len(at["old"]) == 20
        assert at["old"].get("d01")
        with pytest.raises(CollectionMissingError):
            at["new"]
    for call in (
        lambda: notes.get("d01"),
        lambda: notes.find(),
        lambda: notes.put({"id": "x"}),
        lambda: notes.update("d01", {}),
        lambda: notes.delete("d01"),
        lambda: notes.search("tea"),
        lambda: len(notes),
        lambda: list(notes),
        lambda: notes.embed_missing(),
    ):
        with pytest.raises(CollectionMissingError, match="'old'"):
            call()
    with pytest.raises(CollectionMissingError), db.transaction() as tx:
        tx["old"]
    assert len(db.collection("old")) == 0  # another one, made by this call
    assert notes.get("d01") is None


def test_what_cannot_be_renamed(db: Database) -> None:
    filled(db)
    db.collection("other")
    with pytest.raises(CollectionError, match="already"):
        db.rename_collection("old", "other")
    with pytest.raises(CollectionError, match="already"):
        db.rename_collection("old", "old")
    with pytest.raises(CollectionError, match="name of a collection"):
        db.rename_collection("old", "")
    with pytest.raises(CollectionMissingError):
        db.rename_collection("nothing", "new")
    with pytest.raises(TransactionError), db.transaction():
        db.rename_collection("old", "new")
    assert db.collections() == ["old", "other"]


def test_two_names_are_exchanged(db: Database) -> None:
    db.collection("a").put({"id": "of a"})
    db.collection("b").put({"id": "of b"})
    for old, new in (("a", "c"), ("b", "a"), ("c", "b")):
        db.rename_collection(old, new)
    assert list(db.collection("a")) == ["of b"]
    assert list(db.collection("b")) == ["of a"]


def test_an_embedder_goes_with_its_collection(db: Database) -> None:
    def embed(texts: list[str]) -> Any:
        return np.ones((len(texts), 4), np.float32)

    vector = Vector("v", dim=4, source="text", embed=embed)
    db.collection("old", indexes=[vector]).put({"id": "a", "text": "tea"})
    db.rename_collection("old", "new")
    db.collection("new").put({"id": "b", "text": "tea"})
    assert len(db.collection("new").search(vector=VECTOR)) == 2


# -- dropping ----------------------------------------------------------------------------------


def test_it_is_gone_at_once_and_its_bytes_after_compact(db: Database) -> None:
    notes = filled(db)
    kept = filled(db, "kept")
    before = state_of(kept)
    word, vector = b"word13", (VECTOR + 13).tobytes()
    notes.search(vector=VECTOR)
    db.build_indexes()
    kept.delete("d13")
    db.drop_collection("old")
    assert db.collections() == ["kept"]
    with pytest.raises(CollectionMissingError):
        notes.get("d01")
    assert_sound(db)
    db.compact()
    assert_sound(db)
    for path, data in files_of(db.path):
        assert word not in data, path
        assert vector not in data, path
    kept.put({"id": "d13", "n": 1, "key": 13, "text": "tea word13", "v": VECTOR + 13, "dies": 9e9})
    assert state_of(kept)[1] == before[1]


def test_its_space_is_given_back_in_bounded_batches(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amberdb.engine.commit.index_chunks.CHUNK", 7)
    filled(db)
    db.checkpoint()
    entries = db.stats()["store"]["entries"]
    db.drop_collection("old")
    batches: list[str] = []
    failpoints.install(lambda name: batches.append(name))
    try:
        db.build_indexes()
    finally:
        failpoints.install(None)
    assert batches.count("purge.chunk-committed") > 10
    assert entries > 100
    assert db.stats()["store"]["entries"] < 8  # facts about the file, and counters
    number = db.collection("old").put({"id": "another"})
    assert number == "another"
    assert list(db.collection("old")) == ["another"]


def test_snapshots_keep_what_was_dropped(db: Database) -> None:
    notes = filled(db)
    before = state_of(notes)
    with db.snapshot() as at:
        db.drop_collection("old")
        db.build_indexes()
        assert state_of(at["old"]) == before
        assert not list(Path(db.path, "cache").glob("*"))
    db.collection("old").put({"id": "x"})
    assert len(db.collection("old")) == 1


def test_what_is_not_there_is_not_dropped(db: Database) -> None:
    with pytest.raises(CollectionMissingError):
        db.drop_collection("nothing")
    filled(db)
    with pytest.raises(TransactionError), db.transaction():
        db.drop_collection("old")
    db.drop_collection("old")
    with pytest.raises(CollectionMissingError):
        db.drop_collection("old")


def test_a_drop_while_its_index_is_built_and_others_write(open_db: OpenDatabase) -> None:
    db = open_db(background=True)
    db.collection("old").put_many({"id": str(n), "n": n} for n in range(3000))
    over = threading.Event()
    errors: list[BaseException] = []

    def write() -> None:
        notes = db.collection("old")
        for number in range(100_000):
            try:
                notes.put({"id": f"late{number}"}, sync="os")
            except CollectionMissingError:
                break
            except BaseException as error:
                errors.append(error)
                break
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    db.collection("old", indexes=[Ordered("n"), Text("id")])
    db.drop_collection("old")
    writer.join()
    assert over.is_set()
    assert not errors
    db.build_indexes()
    assert_sound(db)
    assert db.collections() == []


# -- the feed ----------------------------------------------------------------------------------


def test_subscribers_are_told(db: Database) -> None:
    reader = db.subscriber("s")
    notes = db.collection("old")
    notes.put({"id": "a"})
    db.rename_collection("old", "new")
    db.collection("new").put({"id": "b"})
    db.collection("brief").put({"id": "c"})
    db.rename_collection("brief", "briefer")
    db.drop_collection("briefer")
    db.collection("old").put({"id": "d"})
    db.rename_collection("new", "newest")
    changes = list(reader.changes())
    assert told(iter(changes)) == [
        ("put", "old", "a"),
        ("rename", "old", ""),
        ("put", "new", "b"),
        ("rename", "brief", ""),
        ("drop", "briefer", ""),
        ("put", "old", "d"),
        ("rename", "new", ""),
    ]
    assert [c.new_name for c in changes if c.op == "rename"] == ["new", "briefer", "newest"]
    assert all(change.document is None for change in changes if change.op in ("rename", "drop"))


# -- repair, backup ----------------------------------------------------------------------------


@pytest.mark.parametrize("is_checkpointed", [True, False])
def test_repair_brings_no_dropped_collection_back(tmp_path: Path, is_checkpointed: bool) -> None:
    path = tmp_path / "t.amber"
    with amberdb.open(path, **SMALL) as db:
        filled(db, count=400)
        filled(db, "former", count=300)
        db.checkpoint()
        db.rename_collection("former", "latter")
        db.drop_collection("old")
        if is_checkpointed:
            db.checkpoint()
        copy = abandon(db, tmp_path / "copy.amber")
    damage_inner_pages(copy)
    report = amberdb.repair(copy, apply=True, **SMALL)
    assert report.is_needed
    with amberdb.open(copy, **SMALL) as db:
        assert db.collections() == ["latter"]
        assert len(db.collection("latter")) == 300
        assert_sound(db)


def test_restores_before_and_after(db: Database, tmp_path: Path) -> None:
    filled(db)
    db.backup(tmp_path / "full")
    lsns = [db.stats()["last_lsn"]]
    for step in (
        lambda: db.rename_collection("old", "new"),
        lambda: db.drop_collection("new"),
        lambda: db.build_indexes(),
        lambda: db.collection("last").put({"id": "x"}),
    ):
        step()
        lsns.append(db.stats()["last_lsn"])
    db.backup(tmp_path / "rest", base=tmp_path / "full")
    wanted = [["old"], ["new"], [], [], ["last"]]
    for number, (lsn, names) in enumerate(zip(lsns, wanted, strict=True)):
        target = tmp_path / f"{number}.amber"
        amberdb.restore([tmp_path / "full", tmp_path / "rest"], target, until=lsn, **SMALL)
        with amberdb.open(target, **SMALL) as restored:
            assert restored.collections() == names
            for name in {"old", "new"} & set(names):
                assert len(state_of(restored.collection(name))[0]) == 7
            restored.build_indexes()
            assert_sound(restored)
            if not names:
                assert restored.stats()["store"]["entries"] < 9
