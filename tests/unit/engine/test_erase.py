"""erase(): documents removed from every file, and the receipt of it. Power loss at every step is in
tests/crash/test_sweep.py."""

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import (
    CollectionMissingError,
    Database,
    DiskFullError,
    Erasure,
    LogTruncatedError,
    Ordered,
    QueryError,
    TransactionError,
)
from amberdb import _failpoints as failpoints
from support.databases import SMALL, FakeClock, OpenDatabase, audited
from support.remains import INDEXES, document, filled, left_of, looked, state_of, vector

WHERE = {"n": {"$gte": 20}}
GONE = range(20, 40)
PLACES = [name for name in failpoints.NAMES if name.startswith(("compact.", "erase."))]


def erase(db: Database) -> Erasure:
    return db.erase("memory", WHERE, reason="asked by the user")


@pytest.mark.parametrize("reopened", [False, True])
def test_nothing_erased_is_left_in_any_file(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch, reopened: bool
) -> None:
    monkeypatch.setattr("amberdb.engine.search.vector.file.UNSAVED_ROWS", 10)
    for name in ("GRAPH_ROWS", "FRESH_ROWS", "DEAD_ROWS"):
        monkeypatch.setattr(f"amberdb.engine.search.vector.cache.{name}", 10)
    db = filled(open_db())
    db.collection("memory").search(vector=vector(1))
    db.build_indexes()
    if reopened:
        db.close()
        db = open_db()
    assert all(looked(db.path, GONE).values()), "or this test sees nothing"
    receipt = erase(db)
    assert receipt.documents == len(GONE)
    assert len(db.collection("memory")) == 20
    assert not any(looked(db.path, range(20, 100)).values())
    assert left_of(db.path, 7)
    db.collection("memory").search(vector=vector(1))
    db.build_indexes()
    db.close()
    assert not any(looked(db.path, range(20, 100)).values())


def test_a_search_in_a_snapshot_from_before_brings_nothing_back(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amberdb.engine.search.vector.file.UNSAVED_ROWS", 10)
    db = filled(open_db())
    with db.snapshot() as before:
        erase(db)
        assert before["memory"].search(vector=vector(GONE[0]))[0].document["n"] == GONE[0]
    db.close()
    assert not any(looked(db.path, range(20, 100)).values())
    assert left_of(db.path, 7)


def test_the_receipt_says_what_was_done_and_nothing_of_what_was_erased(
    open_db: OpenDatabase,
) -> None:
    clock = FakeClock()
    db = filled(open_db(clock=clock))
    before = db.stats()["last_lsn"]
    receipt = erase(db)
    assert receipt.collection == "memory"
    assert receipt.reason == "asked by the user"
    assert receipt.lsn == before + 1
    assert receipt.time.timestamp() == clock.now
    assert receipt.completed == receipt.time
    assert (receipt.backups, receipt.subscribers) == ((), ())
    clock.advance(5)
    second = db.erase("memory", {"content": "keptunique7word tea"}, reason="one of them")
    assert second.documents == 1
    assert not left_of(db.path, 7), "in the receipt, say"
    assert db.erasures() == [receipt, second]
    with amberdb.open(db.path, read_only=True) as reader:
        assert reader.erasures() == [receipt, second]
    db.close()
    assert open_db().erasures() == [receipt, second]


def test_expired_documents_are_erased_too(open_db: OpenDatabase) -> None:
    clock = FakeClock()
    db = open_db(clock=clock)
    memory = db.collection("memory", indexes=INDEXES, expires_at="dies")
    memory.put({**document(1), "dies": clock.now + 5})
    memory.put({**document(2), "dies": clock.now + 5})
    memory.put(document(3))
    clock.advance(10)
    assert len(memory) == 1
    receipt = db.erase("memory", {"n": 1}, reason="x")
    assert receipt.documents == 1
    assert not left_of(db.path, 1)
    assert left_of(db.path, 2)


def test_subscribers_move_on(db: Database) -> None:
    filled(db)
    reader, done = db.subscriber("reader", since=amberdb.Lsn(0)), db.subscriber("done")
    receipt = erase(db)
    assert receipt.subscribers == ("done", "reader"), "neither was told of the deletes"
    with pytest.raises(LogTruncatedError) as caught:
        list(reader.changes())
    for subscriber in (reader, done):
        subscriber.acknowledge(caught.value.resume)
    db.collection("memory").put(document(300))
    assert [change.id for change in reader.changes()] == ["300"]
    assert not any(looked(db.path, GONE).values())


def test_backups_taken_before_are_named(open_db: OpenDatabase, tmp_path: Path) -> None:
    db = filled(open_db())
    db.backup(tmp_path / "full", hold_log=True)
    db.collection("memory").put(document(300))
    db.backup(tmp_path / "more", base=tmp_path / "full")
    receipt = erase(db)
    assert [Path(each.path).name for each in receipt.backups] == ["full", "more"]
    assert [each.is_full for each in receipt.backups] == [True, False]
    db.close()
    amberdb.restore([tmp_path / "full", tmp_path / "more"], tmp_path / "again", **SMALL)
    with audited(tmp_path / "again") as again:
        receipt = erase(again)
        assert [Path(each.path).name for each in receipt.backups] == ["full", "more"]
        assert receipt.documents == 21


def test_a_backup_that_runs_is_waited_for_and_named(db: Database, tmp_path: Path) -> None:
    filled(db)
    erased: list[Erasure] = []
    eraser = threading.Thread(target=lambda: erased.append(erase(db)))
    deleted = threading.Event()

    def reach(name: str) -> None:
        if name == "erase.deleted":
            deleted.set()

    def progress(path: str, size: int) -> None:
        if not deleted.is_set():
            eraser.start()
            assert deleted.wait(60)

    failpoints.install(reach)
    try:
        db.backup(tmp_path / "full", progress=progress)
    finally:
        failpoints.install(None)
    eraser.join()
    assert [Path(each.path).name for each in erased[0].backups] == ["full"]
    assert not any(looked(db.path, GONE).values())


def test_what_makes_no_sense_is_refused_and_erases_nothing(open_db: OpenDatabase) -> None:
    db = filled(open_db(transaction_bytes_max=100_000))
    before = state_of(db)
    with pytest.raises(CollectionMissingError):
        db.erase("other", {}, reason="x")
    with pytest.raises(QueryError):
        db.erase("memory", {"n": {"$near": 1}}, reason="x")
    for reason in ("", "x" * 1001, None):
        with pytest.raises(ValueError, match="give a text"):
            db.erase("memory", {}, reason=reason)  # type: ignore[arg-type]
    with db.transaction(), pytest.raises(TransactionError):
        db.erase("memory", {}, reason="x")
    with pytest.raises(CollectionMissingError):
        db.erase({"memory": {}, "other": {}}, reason="x")
    for missing in ("memory", dict[str, Any]()):
        with pytest.raises(QueryError):
            db.erase(missing, reason="x")
    assert state_of(db) == before
    assert db.erasures() == []


def test_one_receipt_is_of_several_collections(open_db: OpenDatabase) -> None:
    db = filled(open_db())
    db.collection("other").put({"id": "o", "who": "lin", "content": "unmistakable"})
    db.collection("other").put({"id": "p", "who": "wu"})
    receipt = db.erase({"memory": WHERE, "other": {"who": "lin"}}, reason="asked")
    assert receipt.collections == {"memory": len(GONE), "other": 1}
    assert (receipt.collection, receipt.documents) == ("memory, other", len(GONE) + 1)
    assert list(db["other"]) == ["p"]
    assert db.erasures() == [receipt]
    db.close()
    assert open_db().erasures() == [receipt]
    assert not any(looked(db.path, GONE).values())


def test_more_than_fits_into_a_commit_is_deleted_in_several(open_db: OpenDatabase) -> None:
    db = filled(open_db(transaction_bytes_max=100_000))
    db.collection("memory", indexes=[Ordered("n"), Ordered("list")])
    for number in range(10):
        db["memory"].put({"id": f"l{number}", "n": 100, "list": list(range(100))})
    db.build_indexes()
    receipt = db.erase("memory", {}, reason="x")
    assert receipt.documents == 50
    assert len(db["memory"]) == 0


@pytest.mark.parametrize("stopped_at", [1, 2, 3, 4])
@pytest.mark.parametrize("renamed", [False, True])
def test_an_erasure_goes_on_at_the_batch_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_at: int, renamed: bool
) -> None:
    monkeypatch.setattr("amberdb.engine.maintenance.erasure.BATCH", 6)
    batches = 0

    def stop(name: str) -> None:
        nonlocal batches
        batches += name == "erase.deleted"
        if batches == stopped_at:
            raise Stopped(name)

    path = tmp_path / "t.amber"
    db = filled(amberdb.open(path, **SMALL))
    db.collection("other").put({"id": "o", "n": 20})
    failpoints.install(stop)
    try:
        with pytest.raises(Stopped):
            db.erase({"memory": WHERE, "other": WHERE}, reason="asked")
    finally:
        failpoints.install(None)
    copy = shutil.copytree(path, tmp_path / "crashed.amber")
    db.close()
    with audited(copy, background=False) as db:
        assert len(db["memory"]) == max(20, 40 - 6 * stopped_at)
        (waiting,) = db.erasures()
        assert waiting.completed is None
        if renamed:
            db.rename_collection("memory", "memories")
            db.drop_collection("other")
        db.compact()
        (done,) = db.erasures()
        assert done.completed is not None
        assert done.collections["memory"] == len(GONE)
        assert len(db["memories" if renamed else "memory"]) == 20
        assert not any(looked(db.path, GONE).values())


def test_a_filter_that_is_still_needed_is_not_left_in_a_file(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amberdb.engine.maintenance.erasure.BATCH", 6)
    filled(db)
    where = {"$and": [WHERE, {"content": {"$ne": "unmistakable"}}]}
    assert db.erase("memory", where, reason="asked").documents == len(GONE)
    db.checkpoint()
    for file in Path(db.path).rglob("*"):
        assert not file.is_file() or b"unmistakable" not in file.read_bytes()


def test_a_full_disk_leaves_it_to_be_completed(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(db)
    usage = shutil.disk_usage(db.path)

    def full(_: str) -> Any:
        return usage._replace(free=1000)

    monkeypatch.setattr(shutil, "disk_usage", full)
    with pytest.raises(DiskFullError):
        erase(db)
    assert len(db.collection("memory")) == 20
    (waiting,) = db.erasures()
    assert waiting.completed is None
    assert db.stats()["erasures_waiting"] == [waiting.id]
    monkeypatch.undo()
    db.compact()
    (done,) = db.erasures()
    assert done.completed is not None
    assert (done.id, done.documents) == (waiting.id, len(GONE))
    assert not any(looked(db.path, GONE).values())
    assert db.stats()["erasures_waiting"] == []


def test_receipts_are_forgotten_past_a_limit_and_unfinished_erasures_are_not(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amberdb.engine.maintenance.erasure.RECEIPTS_MAX", 3)
    filled(db)
    usage = shutil.disk_usage(db.path)
    with monkeypatch.context() as full:

        def nearly_full(_: str) -> Any:
            return usage._replace(free=1000)

        full.setattr(shutil, "disk_usage", nearly_full)
        for number in range(5):
            with pytest.raises(DiskFullError):
                db.erase("memory", {"n": number}, reason=str(number))
    assert [each.reason for each in db.erasures()] == ["0", "1", "2", "3", "4"]
    db.compact()
    assert [each.completed is None for each in db.erasures()] == [False] * 5
    assert not any(looked(db.path, range(5)).values())
    db.erase("memory", {"n": 5}, reason="5")
    assert [each.reason for each in db.erasures()] == ["3", "4", "5"]


class Stopped(Exception):
    """Raised at a named place."""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("background", [False, True])
def test_stopped_at_any_place_it_is_completed_after_the_next_open(
    tmp_path: Path, place: str, background: bool
) -> None:
    def stop(name: str) -> None:
        if name == place:
            raise Stopped(name)

    path = tmp_path / "t.amber"
    db = filled(amberdb.open(path, **SMALL))
    failpoints.install(stop)
    try:
        with pytest.raises(Stopped):
            erase(db)
    finally:
        failpoints.install(None)
    copy = shutil.copytree(path, tmp_path / "crashed.amber")
    db.close()
    for crashed in (path, copy):
        is_deleted = place != "erase.before-commit"
        with audited(crashed, background=background) as db:
            if is_deleted and not background and place != "erase.completed":
                assert db.stats()["erasures_waiting"]
            db.compact()
            assert len(db.collection("memory")) == (20 if is_deleted else 40)
            assert db.stats()["erasures_waiting"] == []
            assert [each.documents for each in db.erasures()] == [20] * is_deleted
            assert not is_deleted or not any(looked(db.path, GONE).values())


def test_the_background_completes_it_after_the_next_open(tmp_path: Path) -> None:
    def stop(name: str) -> None:
        if name == "compact.copied":
            raise Stopped(name)

    path = tmp_path / "t.amber"
    completed = threading.Event()

    def tell(name: str) -> None:
        if name == "erase.completed":
            completed.set()

    with audited(path) as db:
        filled(db)
        failpoints.install(stop)
        try:
            with pytest.raises(Stopped):
                erase(db)
            failpoints.install(None)
            db.close()
            failpoints.install(tell)
            with audited(path, background=True) as db:
                assert completed.wait(60)
                assert db.stats()["erasures_waiting"] == []
                assert not any(looked(db.path, GONE).values())
        finally:
            failpoints.install(None)


def test_a_repair_keeps_receipts(open_db: OpenDatabase) -> None:
    db = filled(open_db())
    receipt = erase(db)
    db.close()
    (data,) = Path(db.path).glob("data-*/data.mdb")
    data.write_bytes(data.read_bytes().replace(b"keptunique7word", b"keptUNIQUE7word"))
    assert amberdb.repair(db.path, apply=True, **SMALL).is_needed
    db = open_db()
    assert db.erasures() == [receipt]
    assert len(db.collection("memory")) == 19
