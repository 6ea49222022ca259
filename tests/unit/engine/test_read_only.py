"""A database opened read-only, in the process of its writer or without one. Other processes are
in crash/test_readers.py, and that the answers are the writer's in model/test_reader_machine.py."""

import inspect
import os
import threading
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

import amberdb
from amberdb import (
    ClosedError,
    CollectionMissingError,
    CorruptionError,
    Database,
    DatabaseMissingError,
    ForkedError,
    Hits,
    NotADatabaseError,
    OpenError,
    Ordered,
    ReadOnlyError,
    SnapshotExpiredError,
    Text,
    Vector,
)
from amberdb.engine.commit.committer import Committer
from amberdb.engine.storage import manifest, status
from support.damage import with_last_bit_flipped
from support.databases import SMALL, FakeClock, OpenDatabase, assert_sound
from support.inside import following_of
from unit.engine.helpers import abandon, ids


@pytest.fixture
def writer(open_db: OpenDatabase) -> Database:
    db = open_db()
    db.collection("a", indexes=[Ordered("n"), Text("text")]).put_many(
        {"id": str(n), "n": n, "text": f"word{n} umbrella"} for n in range(5)
    )
    return db


def reading(path: Path | str, **options: Any) -> Database:
    return amberdb.open(path, read_only=True, **{**SMALL, **options})


def files(path: Path | str) -> dict[str, bytes]:
    found = (file for file in Path(path).rglob("*") if file.is_file())
    return {str(f): f.read_bytes() for f in found if f.name != "lock.mdb"}


def found(hits: Hits) -> list[str]:
    return [hit.id for hit in hits]


# -- opening -----------------------------------------------------------------------------------


def test_nothing_is_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"x")
    for name, error in (
        ("missing", DatabaseMissingError),
        ("file", NotADatabaseError),
        ("photos", NotADatabaseError),
    ):
        with pytest.raises(error):
            reading(tmp_path / name)
    with pytest.raises(DatabaseMissingError):
        reading(":memory:")
    assert sorted(os.listdir(tmp_path)) == ["file", "photos"]


def test_a_closed_database_is_read_and_not_changed(writer: Database) -> None:
    writer.close()
    before = files(writer.path)
    with reading(writer.path) as db:
        assert ids(db.collection("a").find(order_by="-n", limit=2)) == ["4", "3"]
        assert found(db.collection("a").search("word2")) == ["2"]
        assert_sound(db)
    assert files(writer.path) == before


@pytest.mark.parametrize("knows_boot", [True, False])
@pytest.mark.parametrize("checkpointed", [True, False])
def test_left_by_a_dead_writer_it_is_read_up_to_what_counts(
    writer: Database,
    tmp_path: Path,
    checkpointed: bool,
    knows_boot: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the same boot STATUS has the acknowledged Lsn; after a power loss the whole log counts."""
    a = writer.collection("a")
    a.put({"id": "5", "n": 5})
    if checkpointed:
        writer.checkpoint()
        a.put({"id": "6", "n": 6})
    writer.sync()
    with patch.object(Committer, "make_visible"):
        a.put({"id": "never acknowledged", "n": 7})
    left = abandon(writer, tmp_path / "left.amber")
    if not knows_boot:
        monkeypatch.setattr(status, "boot_id", lambda: b"x" * 16)
    before = files(left)
    wanted = [*map(str, range(7 if checkpointed else 6))]
    with reading(left) as db:
        assert list(db.collection("a")) == wanted + ["never acknowledged"] * (not knows_boot)
        assert_sound(db)
        assert [change.id for change in db.changes()][-1] == list(db.collection("a"))[-1]
        lsn = db.refresh()
    assert files(left) == before
    with amberdb.open(left, **SMALL) as db:
        assert db.refresh() >= lsn
        assert list(db.collection("a")) == [*wanted, "never acknowledged"]


def test_a_torn_tail_is_left_to_the_next_writer(
    writer: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = abandon(writer, tmp_path / "left.amber")
    monkeypatch.setattr(status, "boot_id", lambda: b"x" * 16)
    (segment,) = (left / "wal").glob("*.wal")
    data = segment.read_bytes()
    end = len(data.rstrip(b"\0"))
    segment.write_bytes(data[: end - 9] + bytes(len(data) - end + 9))
    before = files(left)
    with reading(left) as db:
        assert list(db.collection("a")) == []
    assert files(left) == before


def test_damage_is_an_error(writer: Database) -> None:
    writer.close()
    data = Path(writer.path, "data-1", "data.mdb")
    whole = data.read_bytes()
    for damaged in (b"", whole[:5000]):
        data.write_bytes(damaged)
        with pytest.raises(CorruptionError):
            reading(writer.path)
    data.write_bytes(whole)
    manifest = Path(writer.path, "MANIFEST")
    manifest.write_bytes(with_last_bit_flipped(manifest.read_bytes()))
    with pytest.raises(CorruptionError):
        reading(writer.path)


# -- one process -------------------------------------------------------------------------------


def test_a_writer_and_readers_in_one_process(writer: Database, open_db: OpenDatabase) -> None:
    readers = [reading(writer.path) for _ in range(3)]
    for n in range(20):
        writer.collection("a").put({"id": f"x{n}"})
        if n % 5 == 4:
            writer.checkpoint()
        for db in readers:
            assert len(db.collection("a")) == 6 + n
    writer.compact()
    writer.close()
    again = open_db()
    again.collection("a").put({"id": "y"})
    for db in readers:
        assert len(db.collection("a")) == 26
        db.close()


def test_a_compaction_between_two_looks_at_the_files(
    writer: Database, open_db: OpenDatabase
) -> None:
    with reading(writer.path) as reader:
        assert len(reader["a"]) == 5
        writer.close()  # MANIFEST is written anew, of the same generation
        again = open_db()
        again["a"].put({"id": "6"})
        real_read = manifest.read

        def read_and_compact(*args: Any) -> Any:
            read = real_read(*args)
            if patched.call_count == 1:
                again.compact()
            return read

        with patch.object(manifest, "read", side_effect=read_and_compact) as patched:
            assert len(reader["a"]) == 6
        assert patched.call_count > 1


def test_a_reader_without_a_writer_has_to_go_before_one_comes(
    writer: Database, open_db: OpenDatabase
) -> None:
    writer.close()
    db = reading(writer.path)
    with pytest.raises(OpenError, match="open read-only"):
        open_db()
    db.close()
    open_db().collection("a").put({"id": "x"})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_is_told(writer: Database) -> None:
    db = reading(writer.path)
    a = db.collection("a")
    assert len(a) == 5
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            for call in (lambda: len(a), db.snapshot, db.refresh, db.stats):
                with pytest.raises(ForkedError):
                    call()
            db.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert len(a) == 5
    db.close()


def test_use_after_close_is_an_error(writer: Database) -> None:
    db = reading(writer.path)
    a = db.collection("a")
    at = db.snapshot()
    db.close()
    db.close()
    for call in (
        lambda: a.get("1"),
        lambda: db.collection("a"),
        lambda: at["a"],
        lambda: list(db.changes()),
        db.collections,
        db.refresh,
        db.check,
        db.stats,
    ):
        with pytest.raises(ClosedError):
            call()
    assert "closed" in repr(db)


# -- what is served ----------------------------------------------------------------------------


def test_every_write_is_refused_and_says_where_to_go(writer: Database) -> None:
    reads = {"collection", "collections", "definition", "snapshot", "refresh", "changes"}
    reads |= {"check", "erasures", "backups", "stats", "archived_lsn", "close"}
    with reading(writer.path) as db:
        assert (db.recovery, db.rescue) == (None, None)
        for name in dir(Database):
            is_method = callable(getattr(Database, name))
            if is_method and not name.startswith("_") and name not in reads:
                call = getattr(db, name)
                given = {
                    parameter.name: "x"
                    for parameter in inspect.signature(call).parameters.values()
                    if parameter.default is parameter.empty
                }
                with pytest.raises(ReadOnlyError, match="process that writes"):
                    call(**given)
        a = db.collection("a")
        for call in (
            lambda: a.put({}),
            lambda: a.insert({}),
            lambda: a.put_many([{}]),
            lambda: a.update("1", {}),
            lambda: a.delete("1"),
            lambda: a.delete_many({}),
            lambda: a.__delitem__("1"),
            a.embed_missing,
        ):
            with pytest.raises(ReadOnlyError, match="read-only"):
                call()
    assert len(writer.collection("a")) == 5


def test_a_declaration_is_compared_with_the_catalog(writer: Database) -> None:
    with reading(writer.path) as db:
        assert len(db.collection("a", indexes=[Ordered("n"), Text("text")])) == 5
        assert db.definition("a") == writer.definition("a")
        wrongs: list[dict[str, Any]] = [{"indexes": []}, {"expires_at": "t"}, {"required": ["n"]}]
        for wrong in wrongs:
            with pytest.raises(ReadOnlyError, match="declared differently"):
                db.collection("a", **wrong)
        with pytest.raises(CollectionMissingError):
            db.collection("b")
        writer.collection("b")
        assert len(db.collection("b")) == 0


@pytest.mark.parametrize("interval_ms", [None, 3_600_000])
def test_it_can_stay_where_it_is_until_it_is_told(
    writer: Database, interval_ms: int | None
) -> None:
    a = writer.collection("a")
    with reading(writer.path, refresh_interval_ms=interval_ms) as db:
        a.put({"id": "x"})
        assert len(db.collection("a")) == 5
        assert db.refresh() == writer.refresh()
        assert len(db.collection("a")) == 6
        a.put({"id": "y"})
        assert len(db.collection("a")) == 6
        writer.checkpoint()  # past the Lsn that the reader has
        assert len(db.collection("a")) == 7
        a.put({"id": "z"})
        writer.compact()
        assert list(db.changes(since=db.refresh())) == []
        assert len(db.collection("a")) == 8


def test_an_interval_that_is_over_looks(writer: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    now = FakeClock()
    with reading(writer.path, refresh_interval_ms=500) as db:
        monkeypatch.setattr("amberdb.engine.commit.follower.time.monotonic", now)
        db.refresh()
        writer.collection("a").put({"id": "x"})
        assert len(db.collection("a")) == 5
        now.advance(0.51)
        assert len(db.collection("a")) == 6


def test_snapshots_end_at_their_age_limit_by_themselves(writer: Database) -> None:
    with reading(writer.path, background=True) as db:
        kept = db.snapshot()
        at = db.snapshot(max_age_ms=1)
        (watch,) = (t for t in threading.enumerate() if t.name == "amberdb-snapshots")
        kept.close()
        watch.join(60)
        assert not watch.is_alive()
        with pytest.raises(SnapshotExpiredError):
            at["a"]
        with db.snapshot() as again:  # which is watched as well
            assert len(again["a"]) == 5


def test_vectors_are_read_from_the_writers_file(open_db: OpenDatabase, tmp_path: Path) -> None:
    db = open_db()
    v = db.collection("v", indexes=[Vector("v", dim=2)])
    v.put_many({"id": str(n), "v": [n, 1]} for n in range(1500))
    nearest = found(v.search(vector=[3, 1], limit=3))
    db.close()
    (file,) = Path(db.path, "cache").iterdir()
    whole = file.read_bytes()
    for content in (whole, whole[:-8], b"x"):
        file.write_bytes(content)
        with reading(db.path) as reader:
            assert found(reader.collection("v").search(vector=[3, 1], limit=3)) == nearest
            following_of(reader).follower.searchers.save()
        assert file.read_bytes() == content
