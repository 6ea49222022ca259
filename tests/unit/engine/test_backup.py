"""Backups of one Lsn, complete or absent; chains that cannot be applied wrongly; restore."""

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

import amberdb
from amberdb import (
    BackupChainError,
    BackupDamagedError,
    BackupError,
    BackupExistsError,
    BackupReport,
    ClosedError,
    CorruptionError,
    Database,
    LogTruncatedError,
    Ordered,
    RestorePointError,
    Text,
    Unique,
    Vector,
)
from amberdb._types import lsn_epoch
from amberdb.engine.backup import backup, restore
from amberdb.engine.backup.archive import BLOCK_HEAD_SIZE
from amberdb.engine.backup.chain import restore_points
from amberdb.engine.schema.catalog import Catalog
from amberdb.engine.schema.keyspace import BUILT, prefix_of
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.storage import directory, tree_file
from support.analyzers import older_analyzer
from support.damage import with_last_bit_flipped
from support.databases import SMALL, FakeClock, OpenDatabase, audited
from support.inside import engine_of
from support.reference import Doc
from unit.engine.helpers import abandon, all_pairs, damage_inner_pages, raw_store
from unit.engine.pages import PAGE
from unit.wal.helpers import join_preparation

Documents = dict[str, Doc]
INDEXES: list[Any] = [Ordered("n"), Unique("key", sparse=True), Text("text")]


def fill(db: Database, numbers: range, text: str = "umbrella") -> None:
    notes = db.collection("n", indexes=INDEXES)
    notes.put_many(
        {"id": f"{n:03}", "n": n, "key": f"k{n}", "text": f"{text} number{n}"} for n in numbers
    )


def documents(db: Database, name: str = "n") -> Documents:
    return {doc["id"]: doc for doc in db.collection(name).documents()}


def last(db: Database) -> int:
    found: int = db.stats()["last_lsn"]
    return found


def restored(chain: Sequence[Path] | Path, target: Path, **how: Any) -> Documents:
    """The documents after a restore; the database opens, passes check(), and accepts writes."""
    amberdb.restore(chain, target, **how, **SMALL)
    with audited(target) as db:
        found = documents(db)
        assert db.recovery is None
        db.collection("n").put({"id": "one more"})
    with audited(target) as db:
        assert documents(db).keys() == found.keys() | {"one more"}
    shutil.rmtree(target)
    return found


def others(directory: Path) -> list[str]:
    """The names in the directory other than the database."""
    return sorted(name for name in os.listdir(directory) if name != "t.amber")


# -- full ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [None, "zstd"])
def test_a_full_backup_brings_everything_back(db: Database, tmp_path: Path, compress: Any) -> None:
    if compress:
        pytest.importorskip("zstandard")
    fill(db, range(300))
    db.collection("v", indexes=[Vector("v", dim=2)]).put({"id": "a", "v": [1.0, 0.0]})
    db.collection("empty", expires_at="dies")
    lsn = last(db)
    report = db.backup(tmp_path / "full", compress=compress)
    assert (report.lsn, report.is_full, report.documents) == (
        lsn, True, {"n": 300, "v": 1, "empty": 0},
    )  # fmt: skip
    assert report.size_bytes == os.path.getsize(tmp_path / "full")
    assert amberdb.verify_backup(tmp_path / "full") == [report]
    made = amberdb.restore(tmp_path / "full", tmp_path / "r.amber")
    assert (made.lsn, made.time, made.documents) == (lsn, report.time, 301)
    with audited(tmp_path / "r.amber") as copy:
        assert documents(copy) == documents(db)
        assert copy.definition("n").indexes == db.definition("n").indexes
        assert copy.definition("empty").expires_at == "dies"
        found = copy.collection("n").search(query='"umbrella number7"')
        assert [hit.id for hit in found] == ["007"]
        assert [hit.id for hit in copy.collection("v").search(vector=[1.0, 0.1])] == ["a"]
        assert copy.collection("n").explain({"n": {"$lt": 3}})["index"] == "ordered:n"
        assert last(copy) == lsn


def test_a_restored_database_is_another_one_and_gives_no_lsn_twice(
    db: Database, tmp_path: Path
) -> None:
    fill(db, range(3))
    db.backup(tmp_path / "full")
    report = db.backup(tmp_path / "later", base=tmp_path / "full")
    fill(db, range(3, 6))
    amberdb.restore([tmp_path / "full", tmp_path / "later"], tmp_path / "r.amber", **SMALL)
    with audited(tmp_path / "r.amber") as copy:
        fill(copy, range(10, 12))
        assert lsn_epoch(last(copy)) == lsn_epoch(last(db)) + 1
        with pytest.raises(BackupChainError, match="another database"):
            copy.backup(tmp_path / "more", base=report.path)
        assert copy.stats()["archived_lsn"] is None


def test_an_empty_database_and_one_in_memory_can_be_kept(
    open_db: OpenDatabase, tmp_path: Path
) -> None:
    db = open_db(":memory:")
    db.backup(tmp_path / "empty")
    assert amberdb.restore(tmp_path / "empty", tmp_path / "e.amber").documents == 0
    fill(db, range(5))
    db.backup(tmp_path / "full")
    assert restored(tmp_path / "full", tmp_path / "r.amber") == documents(db)
    db.backup(tmp_path / "later", base=tmp_path / "empty")
    chain = [tmp_path / "empty", tmp_path / "later"]
    assert restored(chain, tmp_path / "r.amber") == documents(db)


def test_readers_and_writers_go_on_and_are_not_in_it(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_file, "PAGES_BYTES", PAGE)
    fill(db, range(200))
    before = documents(db)

    def work() -> None:
        fill(db, range(200, 250), "other")
        db.collection("n").delete_many({"n": {"$lt": 50}})
        for n in range(200, 250):  # enough to recycle the log
            db.collection("n").update(f"{n}", {"text": "x" * 1000})
            db.checkpoint()
        assert len(documents(db)) == 200

    def progress(path: str, size: int) -> None:
        calls.append(size)
        if len(calls) == 3:
            worker = threading.Thread(target=work)
            worker.start()
            worker.join()

    calls: list[int] = []
    report = db.backup(tmp_path / "full", progress=progress)
    assert len(calls) > 20
    assert calls[-1] + 16 == report.size_bytes
    assert restored(tmp_path / "full", tmp_path / "r.amber") == before
    db.backup(tmp_path / "later", base=tmp_path / "full")
    chain = [tmp_path / "full", tmp_path / "later"]
    assert restored(chain, tmp_path / "r.amber") == documents(db)


def test_a_rate_is_kept_by_waiting(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def wait(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(backup, "monotonic", lambda: now[0])
    monkeypatch.setattr(backup, "sleep", wait)
    monkeypatch.setattr(tree_file, "PAGES_BYTES", PAGE)
    fill(db, range(100))
    report = db.backup(tmp_path / "full", rate_bytes_s=1000)
    assert now[0] == pytest.approx(2 * report.size_bytes / 1000, rel=0.1)  # written, then read back


def test_what_cannot_be_written_is_refused_and_nothing_is_overwritten(
    db: Database, tmp_path: Path
) -> None:
    (tmp_path / "there").write_bytes(b"mine")
    with pytest.raises(BackupExistsError):
        db.backup(tmp_path / "there")
    assert (tmp_path / "there").read_bytes() == b"mine"
    with pytest.raises(BackupError, match="inside the database"):
        db.backup(Path(db.path) / "wal" / "backup")
    with pytest.raises(BackupError, match="does not exist"):
        db.backup(tmp_path / "no" / "backup")
    with pytest.raises(ValueError, match="compress"):
        db.backup(tmp_path / "b", compress="lzma")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rate_bytes_s"):
        db.backup(tmp_path / "b", rate_bytes_s=0)
    with pytest.raises(BackupError, match="No such file"):
        db.backup(tmp_path / "b", base=tmp_path / "missing")
    assert others(tmp_path) == ["there"]


def test_a_name_that_is_taken_meanwhile_stays_whose_it_is(db: Database, tmp_path: Path) -> None:
    def take(path: str, size: int) -> None:
        (tmp_path / "b").write_bytes(b"mine")

    fill(db, range(3))
    with pytest.raises(BackupExistsError):
        db.backup(tmp_path / "b", progress=take)
    assert (tmp_path / "b").read_bytes() == b"mine"
    assert others(tmp_path) == ["b"]


def test_a_database_that_is_closed_meanwhile_leaves_no_backup(db: Database, tmp_path: Path) -> None:
    def close(path: str, size: int) -> None:
        db.close()

    fill(db, range(3))
    with pytest.raises(ClosedError):
        db.backup(tmp_path / "b", progress=close)
    assert others(tmp_path) == []


def test_a_damaged_document_stops_a_backup(open_db: OpenDatabase, tmp_path: Path) -> None:
    db = open_db()
    fill(db, range(5))
    prefix = prefix_of(db.definition("n").keyspace)
    db.close()
    copy = tmp_path / "copy.amber"
    shutil.copytree(db.path, copy)
    with raw_store(copy) as txn:
        txn.put(prefix + b"003", with_last_bit_flipped(txn.get(prefix + b"003") or b""))
    with amberdb.open(copy, **SMALL) as db, pytest.raises(CorruptionError, match="checksum"):
        db.backup(tmp_path / "b")
    with raw_store(copy) as txn:
        txn.delete(prefix + b"003")
    with (
        amberdb.open(copy, **SMALL) as db,
        pytest.raises(CorruptionError, match="counter says"),
    ):
        db.backup(tmp_path / "b")
    assert others(tmp_path) == ["copy.amber"]


# -- chains --------------------------------------------------------------------------------------


@pytest.fixture
def chain(db: Database, tmp_path: Path) -> list[Path]:
    """A full backup of documents 0 to 9, and two more with ten each, one commit per document."""
    paths = [tmp_path / "b0", tmp_path / "b1", tmp_path / "b2"]
    for number, path in enumerate(paths):
        for n in range(10 * number, 10 * number + 10):
            fill(db, range(n, n + 1))
        db.backup(path, base=paths[number - 1] if number else None)
        db.checkpoint()
    return paths


@pytest.mark.slow
def test_a_chain_brings_back_every_commit(db: Database, tmp_path: Path, chain: list[Path]) -> None:
    fill(db, range(50, 60))
    found = list(restore_points(chain))
    assert len(found) == 1 + 11 + 11  # each increment has the mark of the backup before it
    known: dict[int, list[str]] = {}
    for number, (lsn, time) in enumerate(found):
        target = tmp_path / "r.amber"
        report = amberdb.restore(chain, target, until=lsn, **SMALL)
        assert (report.lsn, report.time) == (lsn, time)
        with audited(target) as copy:
            known[number] = sorted(documents(copy))
        shutil.rmtree(target)
    counts = [len(known[number]) for number in range(len(found))]
    assert counts == [10, *range(10, 21), *range(20, 31)]
    assert sorted(restored(chain[:2], tmp_path / "r.amber")) == known[11]
    assert sorted(restored(chain[0], tmp_path / "r.amber")) == known[0]


def test_the_database_names_its_backups_to_readers_too(
    db: Database, tmp_path: Path, chain: list[Path]
) -> None:
    known = db.backups()
    assert [backup.path for backup in known] == [str(path) for path in chain]
    assert [backup.is_full for backup in known] == [True, False, False]
    with amberdb.open(db.path, read_only=True) as reader:
        assert reader.backups() == known


def test_a_time_is_a_point_as_well(open_db: OpenDatabase, tmp_path: Path) -> None:
    clock = FakeClock()
    db = open_db(clock=clock)
    start = datetime.fromtimestamp(clock.now, UTC)
    fill(db, range(1))
    db.backup(tmp_path / "full")
    for n in range(1, 6):
        clock.advance(60)
        fill(db, range(n, n + 1))
    db.backup(tmp_path / "later", base=tmp_path / "full")
    both = [tmp_path / "full", tmp_path / "later"]
    for minutes, count in ((0, 1), (0.5, 1), (1, 2), (3.9, 4), (100, 6)):
        until = start + timedelta(minutes=minutes)
        assert len(restored(both, tmp_path / "r.amber", until=until)) == count
    with pytest.raises(RestorePointError, match="before them") as caught:
        amberdb.restore(both, tmp_path / "r.amber", until=start - timedelta(seconds=1))
    assert str(caught.value.first_lsn) in str(caught.value)
    with pytest.raises(ValueError, match="zone"):
        amberdb.restore(both, tmp_path / "r.amber", until=datetime(2026, 1, 1))


def test_a_point_outside_of_the_chain_is_refused_with_those_there_are(
    chain: list[Path], tmp_path: Path
) -> None:
    first, end = amberdb.verify_backup(chain)[0].lsn, amberdb.verify_backup(chain)[-1].lsn
    for until in (first - 1, end + 1):
        where = "before them" if until < first else "after them"
        with pytest.raises(RestorePointError, match=where) as caught:
            amberdb.restore(chain, tmp_path / "r.amber", until=until)
        assert (caught.value.first_lsn, caught.value.last_lsn) == (first, end)
    with pytest.raises(ValueError, match="until"):
        amberdb.restore(chain, tmp_path / "r.amber", until="yesterday")  # type: ignore[arg-type]
    assert others(tmp_path) == ["b0", "b1", "b2"]


def test_a_chain_with_a_gap_or_out_of_order_is_refused(
    open_db: OpenDatabase, chain: list[Path], tmp_path: Path
) -> None:
    full, one, two = chain
    other = open_db("other.amber")
    fill(other, range(2))
    other.backup(tmp_path / "foreign")
    wrong = {
        "one is missing": [full, two],
        "order": [full, two, one],
        "another archive": [full, one, one],
        "new chain": [full, full],
        "another database": [full, tmp_path / "foreign"],
        "at least one": [],
    }
    for message, paths in wrong.items():
        with pytest.raises(BackupChainError, match=message):
            amberdb.restore(paths, tmp_path / "r.amber")
        with pytest.raises(BackupChainError, match=message):
            amberdb.verify_backup(paths)
    with pytest.raises(RestorePointError, match="full backup that its chain begins with"):
        amberdb.restore([one, two], tmp_path / "r.amber")
    assert len(amberdb.verify_backup([one, two])) == 2
    assert others(tmp_path) == ["b0", "b1", "b2", "foreign", "other.amber"]


def test_a_restore_overwrites_nothing(chain: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "r.amber"
    target.mkdir()
    (target / "mine").touch()
    with pytest.raises(BackupExistsError):
        amberdb.restore(chain, target)
    with pytest.raises(BackupExistsError):
        amberdb.restore(chain, chain[1])
    with pytest.raises(amberdb.DatabaseMissingError):
        amberdb.restore(chain, tmp_path / "no" / "r.amber")
    assert os.listdir(target) == ["mine"]


def test_a_restore_fills_an_empty_directory_in_place(chain: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "r.amber"
    target.mkdir(0o750)
    inode = target.stat().st_ino
    amberdb.restore(chain, target, **SMALL)
    assert (target.stat().st_ino, target.stat().st_mode & 0o777) == (inode, 0o750)
    with audited(target) as db:
        assert len(documents(db)) == 30


def test_the_log_is_held_for_the_next_backup_up_to_a_limit(
    open_db: OpenDatabase, tmp_path: Path
) -> None:
    def grow(db: Database, name: str) -> BackupReport:
        for n in range(20):
            db.collection("n").put({"id": f"{n}", "text": "x" * 1000})
            db.checkpoint()
        return db.backup(tmp_path / f"{name}-later", base=tmp_path / name)

    held = open_db("held.amber")
    held.backup(tmp_path / "held")
    report = grow(held, "held")
    assert report.items > 20
    assert held.stats()["archived_lsn"] == report.lsn
    for name, options in (("not", {}), ("little", {"subscriber_log_bytes_max": 1})):
        db = open_db(f"{name}.amber", **options)
        db.backup(tmp_path / name, hold_log=name != "not")
        with pytest.raises(BackupChainError, match="no longer reaches back"):
            grow(db, name)
    assert not (tmp_path / "not-later").exists()


def test_the_log_is_held_over_a_reopening(open_db: OpenDatabase, tmp_path: Path) -> None:
    db = open_db()
    fill(db, range(20))
    db.backup(tmp_path / "full")
    for n in range(20, 40):
        fill(db, range(n, n + 1), "x" * 500)
        db.checkpoint()
    db.close()
    db = open_db()
    db.backup(tmp_path / "later", base=tmp_path / "full")
    assert len(restored([tmp_path / "full", tmp_path / "later"], tmp_path / "r.amber")) == 40


def test_a_chain_goes_on_behind_an_unclean_end(open_db: OpenDatabase, tmp_path: Path) -> None:
    db = open_db()
    fill(db, range(5))
    db.backup(tmp_path / "b0")
    fill(db, range(5, 10))
    crashed = abandon(db, tmp_path / "crashed.amber")
    with audited(crashed) as later:
        fill(later, range(10, 15))
        later.backup(tmp_path / "b1", base=tmp_path / "b0")
        wanted = documents(later)
    both = [tmp_path / "b0", tmp_path / "b1"]
    assert len({lsn_epoch(lsn) for lsn, _ in restore_points(both)}) == 2
    assert restored(both, tmp_path / "r.amber") == wanted


def test_a_database_that_lost_commits_does_not_go_on_from_a_backup_of_them(
    open_db: OpenDatabase, tmp_path: Path
) -> None:
    db = open_db()
    fill(db, range(5))
    db.backup(tmp_path / "b0")
    older = abandon(db, tmp_path / "older.amber")
    fill(db, range(5, 9))
    db.backup(tmp_path / "b1", base=tmp_path / "b0")
    with audited(older) as other:
        with pytest.raises(BackupChainError, match="lost commits"):
            other.backup(tmp_path / "b2", base=tmp_path / "b1")
        for n in range(20):
            fill(other, range(n, n + 1), "another")
        with pytest.raises(BackupChainError, match="commits between"):
            other.backup(tmp_path / "b2", base=tmp_path / "b1")
    assert not (tmp_path / "b2").exists()


def test_repair_ends_a_chain(open_db: OpenDatabase, tmp_path: Path) -> None:
    db = open_db()
    fill(db, range(200))
    db.backup(tmp_path / "b0")
    db.close()
    copy = tmp_path / "copy.amber"
    shutil.copytree(db.path, copy)
    damage_inner_pages(copy)
    assert amberdb.repair(copy, apply=True, **SMALL).is_needed
    with audited(copy) as repaired, pytest.raises(BackupChainError, match="rewritten after"):
        repaired.backup(tmp_path / "b1", base=tmp_path / "b0")


def test_compaction_ends_a_chain_and_leaves_nothing_for_it(db: Database, tmp_path: Path) -> None:
    fill(db, range(5))
    db.collection("n").put({"id": "secret", "text": "unspeakable"})
    db.backup(tmp_path / "b0")
    db.collection("n").put({"id": "secret", "text": "unspeakable"})
    db.collection("n").delete("secret")
    db.compact()
    join_preparation()
    files = [path for path in Path(db.path).rglob("*") if path.is_file()]
    assert [path.name for path in files if b"unspeakable" in path.read_bytes()] == []
    with pytest.raises(BackupChainError, match="rewritten after"):
        db.backup(tmp_path / "b1", base=tmp_path / "b0")
    db.backup(tmp_path / "b1")
    db.backup(tmp_path / "b2", base=tmp_path / "b1")
    assert restored([tmp_path / "b1", tmp_path / "b2"], tmp_path / "r.amber") == documents(db)


# -- the rest of a restore -------------------------------------------------------------------------


def test_indexes_that_came_and_went_behind_the_full_backup(db: Database, tmp_path: Path) -> None:
    fill(db, range(30))
    db.collection("n", indexes=[*INDEXES, Ordered("text")])
    db.build_indexes()  # sets the mark BUILT
    db.backup(tmp_path / "full")
    gone = {index.keyspace for index in db.definition("n").indexes}
    db.collection("n", indexes=[Ordered("key"), Text("key")])
    db.build_indexes()
    db.collection("n").put({"id": "late", "key": "k late"})
    db.backup(tmp_path / "later", base=tmp_path / "full")
    amberdb.restore([tmp_path / "full", tmp_path / "later"], tmp_path / "r.amber", **SMALL)
    with raw_store(tmp_path / "r.amber") as txn:
        keys = [key for key, _ in all_pairs(txn)]
    keyspaces = {int.from_bytes(key[:4]) for key in keys}
    keyspaces |= {int.from_bytes(key[-4:]) for key in keys if key.startswith(BUILT)}
    assert gone
    assert not gone & keyspaces, "the log has no purges, so restore has to delete the entries"
    with audited(tmp_path / "r.amber") as copy:
        copy.build_indexes()
        assert copy.stats()["collections"] == db.stats()["collections"]
        assert [hit.id for hit in copy.collection("n").search("late")] == ["late"]


def test_many_small_transactions_make_the_same(
    db: Database, tmp_path: Path, chain: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "_TRANSACTION_BYTES", 1)
    found = restored(chain, tmp_path / "r.amber", checkpoint_bytes=0)
    assert found == documents(db)


def test_subscribers_are_where_they_were_and_told_what_the_log_has_no_more(
    db: Database, tmp_path: Path
) -> None:
    fill(db, range(3))
    subscriber = db.subscriber("s")
    db.backup(tmp_path / "full")
    amberdb.restore(tmp_path / "full", tmp_path / "r.amber", **SMALL)
    with audited(tmp_path / "r.amber") as copy:
        fill(copy, range(3, 5))
        later = copy.subscriber("s")
        assert later.position == subscriber.position
        with pytest.raises(LogTruncatedError) as caught:
            list(later.changes())
        later.acknowledge(caught.value.resume)
        assert [change.id for change in later.changes()] == ["003", "004"]


def test_what_an_interrupted_restore_has_left_is_no_obstacle(
    chain: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(restore, "complete_creation", die)
        patch.setattr(directory, "_discard", die)
        with pytest.raises(KeyboardInterrupt):
            amberdb.restore(chain, tmp_path / "r.amber", **SMALL)
    assert list(tmp_path.glob("r.amber.*.tmp"))
    assert len(restored(chain, tmp_path / "r.amber")) == 30
    assert not list(tmp_path.glob("r.amber*"))


def test_damage_is_named_with_file_and_offset(chain: list[Path], tmp_path: Path) -> None:
    data = bytearray(chain[1].read_bytes())
    data[len(data) // 2] ^= 1
    chain[1].write_bytes(data)
    with pytest.raises(BackupDamagedError) as caught:
        amberdb.restore(chain, tmp_path / "r.amber")
    assert caught.value.path == str(chain[1])
    assert 0 < caught.value.offset < len(data) - BLOCK_HEAD_SIZE
    assert others(tmp_path) == ["b0", "b1", "b2"]


# -- indexes that differ from their documents ------------------------------------------------------


def without_rows(db: Database) -> None:
    """A checkpoint writes the entries of the text index without postings and bits."""
    with patch.object(Catalog, "row_indexes", dict[bytes, RowIndex]()):
        db.checkpoint()


def without_an_entry(db: Database) -> None:
    db.checkpoint()
    ordered = db.definition("n").indexes[0].keyspace
    with engine_of(db).committer.store.write() as writer:
        writer.delete_range(prefix_of(ordered), prefix_of(ordered + 1), 3)


def without_expiry(db: Database) -> None:
    db.checkpoint()
    expiry = db.definition("n").expiry_keyspace
    with engine_of(db).committer.store.write() as writer:
        writer.delete_range(prefix_of(expiry), prefix_of(expiry + 1), 3)


def with_damaged_bits(db: Database) -> None:
    db.checkpoint()
    text = db.definition("n").indexes[2].keyspace
    with engine_of(db).committer.store.write() as writer:
        writer.put(prefix_of(text) + b"a" + bytes(4), bytes(1028))


DAMAGES: dict[str, Callable[[Database], None]] = {
    "n: text:text": without_rows,
    "n: ordered:n": without_an_entry,
    "n: expiry": without_expiry,
    "n: text:text, in the way of a commit": with_damaged_bits,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_documents_are_restored_whatever_is_the_matter_with_an_index(
    open_db: OpenDatabase, tmp_path: Path, name: str
) -> None:
    db = open_db("damaged.amber")
    db.collection("n", indexes=INDEXES, expires_at="until").put_many(
        {"id": f"{n:03}", "n": n, "text": f"umbrella number{n}", "until": 4e9} for n in range(50)
    )
    DAMAGES[name](db)
    db.backup(tmp_path / "full")
    db.collection("n").put({"id": "late", "n": 50, "text": "umbrella late"})
    db.backup(tmp_path / "later", base=tmp_path / "full")
    wanted = documents(db)
    assert not db.check().ok
    db.drop_collection("n")
    report = amberdb.restore([tmp_path / "full", tmp_path / "later"], tmp_path / "r.amber", **SMALL)
    assert report.rebuilt == [name.partition(",")[0]]
    assert report.documents == 51
    with audited(tmp_path / "r.amber") as copy:
        assert documents(copy) == wanted
        notes = copy["n"]
        assert len(notes.search("umbrella", limit=99)) == 51
        assert len(notes.find({"n": {"$gte": 0}})) == 51
        notes.put({"id": "later", "n": 51, "text": "umbrella later"})
        assert len(notes.search("umbrella", limit=99)) == 52


def test_a_restore_rebuilds_what_another_version_of_the_analyzer_has_made(tmp_path: Path) -> None:
    with older_analyzer(), audited(tmp_path / "t.amber") as db:
        fill(db, range(20))
        db.backup(tmp_path / "full")
        fill(db, range(10, 30), "bee")
        db.backup(tmp_path / "later", base=tmp_path / "full")
        keyspace = db.definition("n").indexes[2].keyspace
    report = amberdb.restore([tmp_path / "full", tmp_path / "later"], tmp_path / "r.amber", **SMALL)
    assert report.rebuilt == ["n: text:text"]
    with amberdb.open(tmp_path / "r.amber", **SMALL, read_only=True) as reader:
        assert len(reader["n"].search("umbrella", limit=99)) == 10
    with audited(tmp_path / "r.amber") as copy:
        assert len(copy["n"].search("bee", limit=99)) == 20
        assert copy.definition("n").indexes[2].keyspace == keyspace, "and not declared anew"
