"""A database that is moved to another directory: what arrives, and what a move says when it cannot
be done. Moves to servers and back: tests/servers/test_move.py."""

import json
import random
import sys
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import amberdb
from amberdb import Collection, Database, Ordered, Unique
from amberdb.cli.__main__ import app
from amberdb.move import (
    MoveDamagedError,
    MoveReport,
    MoveSourceError,
    MoveTargetError,
    canonical,
    copying,
    move,
)
from amberdb.move.place import Place
from support import slices
from support.databases import FakeClock, OpenDatabase, assert_sound
from support.moving import fill_documents, fill_systems, killed_move, swap, thing, write_on


@pytest.fixture
def target(open_db: OpenDatabase) -> Database:
    return open_db("target.amber")


def is_equal(report: MoveReport) -> bool:
    return report.compared > 0 and report.differences == []


# -- what arrives ----------------------------------------------------------------------------------


def test_documents_of_every_type_arrive_with_their_times(open_db: OpenDatabase) -> None:
    clock = FakeClock()
    db, target = open_db(clock=clock), open_db("target.amber", clock=clock)
    fill_documents(db, 300)
    clock.advance(60)
    db["thing"].update("t000007", {"text": "later"})
    clock.advance(3600)
    report = move(db, target, batch=64, verify=True)
    assert report.documents == 301
    assert is_equal(report)
    assert target.collections() == ["amberdb_move", "thing", "é 𝄞"]
    ours, theirs = db["thing"].record("t000007"), target["thing"].record("t000007")
    assert (ours.created_at, ours.updated_at) == (theirs.created_at, theirs.updated_at)
    assert canonical.canonical(ours) == canonical.canonical(theirs)
    assert target.definition("thing").specs == db.definition("thing").specs
    assert [hit.id for hit in target["thing"].search("later")] == ["t000007"]
    with pytest.raises(amberdb.DuplicateKeyError):
        target["thing"].put({**thing(1), "id": "another"})


def test_the_data_of_all_systems_arrives(db: Database, target: Database) -> None:
    fill_systems(db, 20)
    report = move(db, target, verify=True, finish=True)
    assert is_equal(report)
    assert report.is_finished
    assert report.collections == len(db.collections()) > 8
    assert target.collections() == db.collections()
    assert [target.definition(name).owner for name in target.collections()] == [
        db.definition(name).owner for name in db.collections()
    ]
    assert not db.stats().subscribers


def test_changes_are_followed(db: Database, target: Database) -> None:
    fill_documents(db, 100)
    move(db, target)
    swap(db, 1, 2)
    db["thing"].delete("t000003")
    db["thing"].put(thing(3, 7))  # created anew
    db["thing"].delete("t000004")
    db.collection("new", indexes=[Ordered("x")]).put({"id": "a", "x": 1})
    db.rename_collection("é 𝄞", "renamed")
    db["renamed"].put({"id": "after"})
    report = move(db, target, verify=True)
    assert report.documents == 1  # of the new collection, which is copied
    assert report.changes == 8
    assert is_equal(report)
    db.drop_collection("new")
    report = move(db, target, verify=True, finish=True)
    assert report.changes == 1
    assert is_equal(report)
    assert target.collections() == ["renamed", "thing"]


def test_a_run_begins_behind_a_name_that_changed(db: Database, target: Database) -> None:
    """The source keeps no log before what was acknowledged."""
    fill_documents(db, 10)
    move(db, target)
    db.rename_collection("é 𝄞", "renamed")
    move(db, target)
    (acknowledged,) = db.stats().subscribers.values()
    assert Place(db, target).lsn == acknowledged
    assert move(db, target, verify=True).changes == 0


def test_a_name_that_changes_while_it_is_copied(db: Database, target: Database) -> None:
    fill_documents(db, 200)
    db.collection("z").put({"id": "a"})

    def rename(name: str, count: int) -> None:
        if name == "thing" and "renamed" not in db.collections():
            db.rename_collection("thing", "renamed")
            db.collection("thing").put({"id": "zebra"})
            db.drop_collection("z")

    report = move(db, target, batch=50, progress=rename, verify=True)
    assert is_equal(report)
    assert target["thing"].find() == [{"id": "zebra"}]
    assert len(target["renamed"]) == 200


def test_a_program_writes_meanwhile(db: Database, target: Database) -> None:
    fill_documents(db, 1000)
    rng, ends = random.Random(5), Event()

    def write() -> None:
        while not ends.is_set():
            write_on(db, 1100, rng)

    writer = Thread(target=write)
    writer.start()
    try:
        report = move(db, target, batch=100, verify=True)
    finally:
        ends.set()
        writer.join()
    assert is_equal(report)
    assert report.lag_s < 1
    assert report.changes
    assert is_equal(move(db, target, verify=True, finish=True))


def test_it_follows_until_it_is_told_to_end(db: Database, target: Database) -> None:
    fill_documents(db, 10)
    asked: list[int] = []

    def until() -> bool:
        asked.append(len(target["thing"]))
        if len(asked) == 3:
            return True
        db["thing"].put(thing(100 + len(asked)))
        return False

    assert is_equal(move(db, target, until=until, verify=True))
    assert asked == [10, 11, 12]


def test_what_has_expired_is_not_moved(open_db: OpenDatabase) -> None:
    clock = FakeClock()
    db, target = open_db(clock=clock), open_db("target.amber", clock=clock)
    tokens = db.collection("token", expires_at="until", indexes=[Unique("n")])
    tokens.put_many({"id": f"{n}", "n": n % 5, "until": clock.now - 1} for n in range(5))
    tokens.put({"id": "stays", "n": 1, "until": clock.now + 60})
    assert move(db, target, verify=True).documents == 1
    clock.advance(61)
    assert move(db, target, verify=True).differences == []


# -- ends in the middle ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.sliced
@pytest.mark.skipif(sys.platform != "linux", reason="sharing needs Linux")
def test_a_move_that_was_killed_goes_on(tmp_path: Path) -> None:
    rng = random.Random(11)
    source, target = str(tmp_path / "t.amber"), str(tmp_path / "target.amber")
    with amberdb.connect(Path(source), background=False) as db:
        fill_documents(db, 1000)
        kills = 0
        for _ in range(slices.examples(0.2, 0.04)):
            write_on(db, 1100, rng)
            kills += not killed_move(source, target, rng.randrange(1, 8)).is_done
            write_on(db, 1100, rng)
        assert kills
        with amberdb.open(target, background=False) as copy:
            assert is_equal(move(db, copy, verify=True, finish=True))
            assert_sound(copy)
        assert_sound(db)


def test_an_error_leaves_what_was_moved(db: Database, target: Database) -> None:
    fill_documents(db, 300)

    def interrupt(name: str, count: int) -> None:
        if count == 150:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        move(db, target, batch=50, progress=interrupt)
    report = move(db, target, batch=50, verify=True)
    assert report.documents == 1 + 150
    assert is_equal(report)


# -- verify ----------------------------------------------------------------------------------------


def test_every_difference_is_named(db: Database, target: Database) -> None:
    fill_documents(db, 200)
    move(db, target)
    things = target["thing"]
    things.update("t000010", {"odd": [1, *thing(10)["odd"][1:]]})  # 1 in place of 1.0
    vector = thing(20)["v"]
    vector[3] = np.nextafter(vector[3], np.float32(2))
    record = things.record("t000020")  # its times stay: one bit differs
    things.put_records([replace(record, document={**record.document, "v": vector})])
    things.delete("t000030")
    things.put({**thing(999), "id": "t000030x"})
    target.collection("é 𝄞", indexes=[Ordered("x")])
    target.collection("more")
    report = move(db, target, verify=True, finish=True)
    assert [(each.collection, each.id, each.kind) for each in report.differences] == [
        ("more", "", "declaration"),
        ("thing", "t000010", "changed"),
        ("thing", "t000020", "changed"),
        ("thing", "t000030", "missing"),
        ("thing", "t000030x", "added"),
    ]
    assert not report.is_finished


def test_digests_are_those_of_the_documents(db: Database, open_db: OpenDatabase) -> None:
    fill_documents(db, 50)
    first = move(db, open_db("a.amber"), verify=True).digests
    assert move(db, open_db("b.amber"), verify=True, batch=7).digests == first
    db["thing"].update("t000007", {"text": "another"})
    second = move(db, open_db("c.amber"), verify=True).digests
    assert [name for name in first if first[name] != second[name]] == ["thing"]


def test_a_batch_that_comes_back_otherwise_ends_the_move(
    db: Database, target: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_documents(db, 200)
    put = Collection.put_records

    def put_wrong(self: Collection, records: Any, **options: Any) -> list[str]:
        ids = put(self, records, **options)
        if self.name == "thing":
            self.update("t000120", {"text": "flipped"})
        return ids

    with monkeypatch.context() as wrong:
        wrong.setattr(Collection, "put_records", put_wrong)
        with pytest.raises(MoveDamagedError, match="'t000120'"):
            move(db, target, batch=200)
    assert is_equal(move(db, target, verify=True))


def test_a_batch_is_compared_whole_among_other_documents(
    db: Database, target: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than a batch has: of documents, say, that were followed, and deleted since."""
    fill_documents(db, 20)
    put = Collection.put_records

    def put_more(self: Collection, records: Any, **options: Any) -> list[str]:
        ids = put(self, records, **options)
        if self.name == "thing":
            more: dict[str, Any] = {**thing(1000), "number": None}
            added = [{**more, "id": f"{ids[0]} {n:02}"} for n in range(30)]
            added_ids.update(self.put_many(added))
        return ids

    added_ids: set[str] = set()
    with monkeypatch.context() as changed:
        changed.setattr(Collection, "put_records", put_more)
        report = move(db, target, batch=5, verify=True)
    assert report.documents == 21
    assert added_ids == {each.id for each in report.differences}
    assert len(added_ids) == 30 * 4
    assert {each.kind for each in report.differences} == {"added"}


# -- bad input -------------------------------------------------------------------------------------


def test_the_target_is_new(db: Database, target: Database, open_db: OpenDatabase) -> None:
    db.collection("a")
    target.collection("b")
    with pytest.raises(MoveTargetError, match="'b' already: move into a new database"):
        move(db, target)
    with pytest.raises(MoveTargetError, match="source and target"):
        move(db, db)
    assert db.collections() == ["a"]
    assert not db.stats().subscribers


def test_the_source_is_that_of_the_move(
    db: Database, target: Database, open_db: OpenDatabase
) -> None:
    fill_documents(db, 10)
    move(db, target)
    with pytest.raises(MoveSourceError, match="is not the source of the move"):
        move(open_db("another.amber"), target)


def test_a_source_that_forgot_its_changes(open_db: OpenDatabase) -> None:
    db, target = open_db(subscriber_log_bytes_max=65536), open_db("target.amber")
    fill_documents(db, 10)
    move(db, target)
    for n in range(40):
        db["thing"].put({**thing(n), "large": "x" * 20_000})
        db.checkpoint()
    with pytest.raises(MoveSourceError, match="subscriber_log_bytes_max"):
        move(db, target)


def test_documents_of_an_older_version_are_migrated_first(db: Database, target: Database) -> None:
    notes = db.collection("note")
    notes.put({"id": "a"})
    db.collection("note", version=2, migrate={2: lambda document: {**document, "two": True}})
    with pytest.raises(MoveSourceError, match=r"db\.migrate\(\)"):
        move(db, target)
    db.migrate()
    assert is_equal(move(db, target, verify=True))
    assert target.definition("note").version == 2


def test_a_batch_has_a_document(db: Database, target: Database) -> None:
    with pytest.raises(ValueError, match="batch=0"):
        move(db, target, batch=0)


def test_large_documents_make_small_batches(
    db: Database, target: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "BATCH_BYTES", 100_000)
    db.collection("x").put_many({"id": f"{n:03}", "text": "x" * 30_000} for n in range(30))
    sizes = [len(records) for records in copying.batches(db["x"], 10)]
    assert sizes == [10, *[3] * 6, 2]
    assert is_equal(move(db, target, verify=True))


# -- the command line ------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with amberdb.open("t.amber", background=False) as db:
        fill_documents(db, 30)

    def run(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["move", *arguments])
        assert result.exit_code == code, result.output
        return result.stdout or result.stderr

    found = json.loads(run("t.amber", "to.amber", "--json"))
    assert (found["documents"], found["is_finished"]) == (31, False)
    with amberdb.open("to.amber", background=False) as copy:
        copy["thing"].delete("t000003")
    assert "t000003" in run("t.amber", "to.amber", "--verify", code=1)
    with amberdb.open("t.amber", background=False) as db:
        db["thing"].put(thing(3))
    assert "equal" in run("t.amber", "to.amber", "--verify", "--finish")
    assert "already" in run("t.amber", "to.amber", code=2)
    assert "no database" in run("none.amber", "new.amber", code=3)
