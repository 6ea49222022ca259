"""A database of format 1 is opened, read, written and rewritten; a program that knows only that
format refuses it from then on."""

import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import (
    CompactReport,
    Database,
    DiskFullError,
    FormatError,
    Lsn,
    Ordered,
    Text,
    Unique,
    Vector,
)
from amberdb._fs import OsFileSystem
from amberdb.engine.schema.document_format import unpack
from amberdb.engine.schema.keyspace import end_of, prefix_of
from amberdb.engine.storage import manifest, trees
from amberdb.engine.storage.store import Store
from amberdb.index.registry import IndexSpec
from support.databases import SMALL, OpenDatabase, assert_sound
from support.older_format import older_format
from support.places import Places
from support.reference import same
from unit.engine.helpers import abandon, data_file

WAIT_S = 60
GOLDEN = Path(__file__).parents[2] / "golden"
INDEXES: list[IndexSpec] = [
    Ordered("x"),
    Unique("key", sparse=True),
    Text("text"),
    Vector("v", dim=2),
]
DOCUMENTS = {
    f"d{n:03}": {
        "id": f"d{n:03}",
        "x": n % 7,
        "key": n,
        "text": f"word {n % 5} {'long ' * 40}",
        "v": [1.0, n],
        "deep": {"id": "inside", "n": [n, None]},
    }
    for n in range(300)
}


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A database of format 1, closed."""
    path = tmp_path / "t.amber"
    with older_format(), amberdb.open(path, **SMALL) as db:
        notes = db.collection("n", indexes=INDEXES, expires_at="until")
        notes.put_many(DOCUMENTS.values())
        notes.put({"id": "until", "until": 9e9})
        db.collection("other").put({"id": "o"})
    assert formats(path) == (1, 1)
    return path


def formats(path: Path) -> tuple[int, int]:
    """Of MANIFEST, and of data.mdb."""
    found = manifest.read(OsFileSystem(), str(path)).format
    directory = str(data_file(path).parent)
    store = Store(directory, fs=OsFileSystem(), create=False, map_bytes=1 << 30, read_only=True)
    older = store.is_older
    store.close()
    return found, 1 if older else 2


def assert_whole(db: Database, **changed: dict[str, Any]) -> None:
    wanted = {**DOCUMENTS, **changed, "until": {"id": "until", "until": 9e9}}
    notes = db["n"]
    assert len(notes) == len(wanted)
    for found in notes.documents():
        vector = found.pop("v", None)
        expected = {**wanted[found["id"]]}
        if vector is not None:
            assert vector.tolist() == expected.pop("v")
        assert same(found, expected)
    assert {document["id"] for document in notes.find({"x": 3})} == {
        id for id, document in wanted.items() if document.get("x") == 3
    }
    assert db["other"].get("o") == {"id": "o"}
    assert [hit.id for hit in notes.search("word", vector=[1.0, 5.0], limit=3)]


def test_what_is_written_as_format_1_is_what_such_a_program_wrote(tmp_path: Path) -> None:
    with tarfile.open(GOLDEN / "v1-closed.tar.gz") as archive:
        archive.extractall(tmp_path / "golden.amber", filter="data")
    assert formats(tmp_path / "golden.amber") == (1, 1)
    with amberdb.open(tmp_path / "golden.amber", read_only=True, **SMALL) as db:
        documents = list(db["event"].documents())
    with older_format(), amberdb.open(tmp_path / "t.amber", **SMALL) as db:
        db.collection("event").put_many(documents)
    golden, made = (bodies(tmp_path / name) for name in ("golden.amber", "t.amber"))
    assert made
    assert made.items() <= golden.items()


def bodies(path: Path) -> dict[bytes, bytes]:
    """The documents of the first collection, as they are stored in LMDB's unnamed tree."""
    directory = str(data_file(path).parent)
    store = Store(directory, fs=OsFileSystem(), create=False, map_bytes=1 << 30, read_only=True)
    txn = store.begin()
    prefix = prefix_of(16)
    pairs = list(trees.scan(txn.cursor(), prefix, end_of(prefix)))
    txn.abort()
    store.close()
    return {key: unpack(key, value).body for key, value in pairs}


def test_it_is_read_and_written_as_it_is(older: Path, open_db: OpenDatabase) -> None:
    db = open_db(older, compact="manual")
    assert_whole(db)
    changed = {**DOCUMENTS["d003"], "x": 100}
    db["n"].update("d003", {"x": 100})
    db["n"].put({"id": "new", "x": 3, "key": "new"})
    db.checkpoint()
    db["n"].delete("new")
    assert_whole(db, d003=changed)
    db.collection("late", indexes=[Ordered("y")]).put({"id": "l", "y": 1})
    db.checkpoint()
    assert db["late"].find({"y": 1})[0]["id"] == "l"
    assert_sound(db)
    db.close()
    assert formats(older)[0] == 2
    db = open_db(older, compact="manual")
    assert_whole(db, d003=changed)


def test_upgrade_rewrites_it_once(older: Path, open_db: OpenDatabase) -> None:
    db = open_db(older, compact="manual")
    calls: list[tuple[int, int]] = []
    report = db.upgrade(lambda done, of: calls.append((done, of)))
    assert isinstance(report, CompactReport)
    assert calls
    assert calls[-1][0] == calls[-1][1] > 300
    assert db.upgrade() is None
    assert_whole(db)
    db.close()
    assert formats(older) == (2, 2)
    assert_whole(open_db(older))


def test_the_first_checkpoint_begins_the_upgrade(older: Path, open_db: OpenDatabase) -> None:
    db = open_db(older, background=True)
    assert db.stats()["compaction"]["is_due"]
    with db.snapshot() as before:
        db["n"].put({"id": "new"})
        with Places.watched() as places:
            db.checkpoint()
            assert places.of("compact.old-removed").wait(WAIT_S)
        assert before["n"].get("new") is None
        assert len(before["n"].find({"x": 3})) == 43
    assert not db.stats()["compaction"]["is_due"]
    db["n"].delete("new")
    assert_whole(db)
    db.close()
    assert formats(older) == (2, 2)


def test_with_compact_manual_it_stays_as_it_is(older: Path, open_db: OpenDatabase) -> None:
    db = open_db(older, background=True, compact="manual")
    db["n"].put({"id": "new"})
    db.checkpoint()
    assert db.stats()["compaction"]["runs"] == 0
    db.close()
    assert formats(older) == (2, 1)


@pytest.mark.parametrize("reads_only", [True, False])
def test_a_reader_changes_nothing(older: Path, reads_only: bool) -> None:
    before = contents(older)
    if reads_only:
        with amberdb.open(older, read_only=True, **SMALL) as db:
            assert_whole(db)
    else:
        assert amberdb.check(older).ok
    assert contents(older) == before


def contents(path: Path) -> dict[Path, bytes]:
    files = (each for each in path.rglob("*") if each.is_file() and each.name != "lock.mdb")
    return {each: each.read_bytes() for each in files}


def test_a_reader_follows_through_the_upgrade(older: Path, open_db: OpenDatabase) -> None:
    db = open_db(older)
    with amberdb.open(older, read_only=True, **SMALL) as reader:
        assert_whole(reader)
        db.collection("late").put({"id": "l"})
        db.checkpoint()  # makes a tree
        reader.refresh()
        assert reader["late"].get("l") == {"id": "l"}
        db.upgrade()
        db["late"].put({"id": "m"})
        reader.refresh()
        assert_whole(reader)
        assert len(reader["late"]) == 2


def test_an_older_program_is_told(
    older: Path, open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_db(older).close()
    monkeypatch.setattr(manifest, "FORMAT_VERSION", 1)
    for read_only in (False, True):
        with pytest.raises(FormatError, match="format 2, and this AmberDB reads up to 1: update"):
            amberdb.open(older, **SMALL, read_only=read_only)


def test_an_older_program_that_reads_is_told(older: Path, open_db: OpenDatabase) -> None:
    with older_format():
        writer = amberdb.open(older, **SMALL)
        reader = amberdb.open(older, read_only=True, **SMALL)
        assert len(reader["n"]) > 300
        writer.close()
    db = open_db(older)
    db["n"].put({"id": "new"})
    with older_format(), pytest.raises(FormatError, match="update it"):
        reader.refresh()
    reader.close()


def test_a_full_disk_postpones_it(
    older: Path, open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(older)

    def nearly_full(path: str) -> Any:
        return usage._replace(free=1000)

    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    with Places.watched() as places:
        db = open_db(older, background=True)
        with pytest.raises(DiskFullError, match="compaction needs"):
            db.upgrade()
        db["n"].put({"id": "new"})
        db.checkpoint()
        assert places.put_off.wait(WAIT_S)
    assert db.stats()["compaction"]["given_up"] == 1
    assert "are free" in db.stats()["compaction"]["last_error"]
    monkeypatch.undo()
    db["n"].delete("new")
    assert_whole(db)
    assert db.upgrade() is not None


def test_a_log_of_format_1_is_replayed(tmp_path: Path, open_db: OpenDatabase) -> None:
    with older_format():
        db = amberdb.open(tmp_path / "t.amber", **SMALL)
        notes = db.collection("n", indexes=INDEXES, expires_at="until")
        notes.put_many(DOCUMENTS.values())
        db.checkpoint()
        notes.put({"id": "until", "until": 9e9})
        db.collection("other").put({"id": "o"})
        copy = abandon(db, tmp_path / "copy.amber")
        db.close()
    db = open_db(copy)
    assert_whole(db)
    assert db.upgrade() is not None
    assert_whole(db)
    db["n"].update("until", {"until": 9e9})
    assert_whole(db)


def test_the_feed_reads_records_of_both(tmp_path: Path, open_db: OpenDatabase) -> None:
    with older_format(), amberdb.open(tmp_path / "t.amber", **SMALL) as db:
        db.collection("n").put({"id": "a", "x": 1})
        db["n"].put({"x": 2, "id": "b"})
        subscribed = db.subscriber("s").position
    db = open_db(tmp_path / "t.amber")
    db["n"].put({"id": "a", "x": 3})
    assert subscribed is not None
    documents = [change.document for change in db.changes(since=Lsn(0), follow=False)]
    assert documents == [{"id": "a", "x": 1}, {"id": "b", "x": 2}, {"id": "a", "x": 3}]


def test_a_damaged_document_stays_as_it_is(older: Path, open_db: OpenDatabase) -> None:
    path = data_file(older)
    data = path.read_bytes()
    assert data.count(b"word 3") > 10
    at = data.rindex(b"word 3")
    path.write_bytes(data[: at + 5] + b"4" + data[at + 6 :])
    db = amberdb.open(older, compact="manual", **SMALL)
    assert len(db.check().problems) >= 1
    db.upgrade()
    assert any("checksum" in problem for problem in db.check().problems)
    db.close()
    report = amberdb.repair(older, apply=True, **SMALL)
    assert report.is_needed
    db = open_db(older)
    assert_whole(db)  # its log has them all


def test_repair_reads_both(older: Path, open_db: OpenDatabase) -> None:
    db = amberdb.open(older, compact="manual", **SMALL)
    db["n"].put({"id": "new", "x": 8})
    db.collection("late").put({"id": "l"})
    db.close()
    (older / "MANIFEST").unlink()
    assert amberdb.repair(older, apply=True, **SMALL).is_needed
    db = open_db(older)
    assert db["n"].get("new") == {"id": "new", "x": 8}
    assert db["late"].get("l") == {"id": "l"}
    db["n"].delete("new")
    assert_whole(db)


def test_backups_before_between_and_after(
    older: Path, open_db: OpenDatabase, tmp_path: Path
) -> None:
    """A chain that begins in format 1 and ends after the upgrade."""
    db = open_db(older, compact="manual")
    first = tmp_path / "first.bak"
    db.backup(first)
    db["n"].put({"id": "new", "x": 8})
    db.backup(tmp_path / "second.bak", base=first)
    db.upgrade()
    db["n"].delete("new")
    db.backup(tmp_path / "third.bak", base=tmp_path / "second.bak")
    chain = [tmp_path / f"{name}.bak" for name in ("first", "second", "third")]
    amberdb.restore(chain, tmp_path / "r.amber", **SMALL)
    restored = open_db(tmp_path / "r.amber")
    assert_whole(restored)
    assert restored.upgrade() is not None  # the vectors in its documents are moved
    assert restored.upgrade() is None
    db.backup(tmp_path / "whole.bak")
    amberdb.restore(tmp_path / "whole.bak", tmp_path / "w.amber", **SMALL)
    restored = open_db(tmp_path / "w.amber")
    assert_whole(restored)
    assert restored.upgrade() is None
