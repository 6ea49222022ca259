"""Shipping to a folder: what arrives, what is restored, and what an outage does."""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import amberdb
from amberdb import BackupDamagedError, RestorePointError
from amberdb.ship import (
    ArchiveKeyError,
    Shipped,
    Shipper,
    TargetInUseError,
    TargetMissingError,
    prune,
    restore_from,
    ship,
    shipped,
)
from support.sharing import child_leads

if TYPE_CHECKING:
    from support.databases import FakeClock, OpenDatabase

NEVER_MS = 1e9
"""Nothing is shipped by itself: the test says when."""
KEY = bytes(range(32))


@pytest.fixture
def target(tmp_path: Path) -> str:
    (tmp_path / "away").mkdir()
    return f"file://{tmp_path}/away"


@pytest.fixture
def read_back(tmp_path: Path) -> Callable[..., list[str]]:
    """The ids of a collection `x` that is restored from a target."""

    def read(target: str, **given: Any) -> list[str]:
        path = tmp_path / f"again-{os.urandom(4).hex()}.amber"
        restore_from(target, path, **given)
        with amberdb.open(path) as db:
            assert db.check().ok
            return sorted(document["id"] for document in db["x"].find())

    return read


def begun(db: amberdb.Database, target: str, key: bytes | None = None) -> Shipper:
    return ship(db, target, every_ms=NEVER_MS, key=key)


def kinds(target: str) -> list[str]:
    return [archive.kind for archive in shipped(target)]


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "sealed"])
@pytest.mark.parametrize("compress", [None, "zstd"])
def test_what_was_shipped_is_restored(
    db: amberdb.Database,
    target: str,
    read_back: Callable[..., list[str]],
    key: bytes | None,
    compress: None,
) -> None:
    documents = db.collection("x")
    with ship(db, target, every_ms=NEVER_MS, key=key, compress=compress) as shipper:
        for name in "abc":
            documents.put({"id": name})
            shipper.ship_now()
        documents.put({"id": "late"})
    assert read_back(target, key=key) == ["a", "b", "c", "late"]
    assert {archive.is_encrypted for archive in shipped(target)} == {key is not None}


def test_it_ships_by_itself(db: amberdb.Database, target: str) -> None:
    with ship(db, target, every_ms=5) as shipper:
        for number in range(5):
            db.collection("x").put({"id": f"{number}"})
            assert shipper.wait_for(db.refresh(), 30)
        status = shipper.status()
    assert status.last_error is None
    assert status.archives > 1
    assert status.size_bytes > 0


def test_every_commit_is_a_point(
    db: amberdb.Database, target: str, read_back: Callable[..., list[str]]
) -> None:
    points: list[tuple[int, datetime]] = []
    with begun(db, target) as shipper:
        for name in ("first", "b", "c"):
            db.collection("x").put({"id": name})
            if name != "b":  # two commits in one archive
                shipper.ship_now()
        points += [(change.lsn, change.time) for change in db.changes()]
    (_, _), (lsn, time), _ = points
    assert read_back(target, until=lsn) == ["b", "first"]
    assert read_back(target, until=time) == ["b", "first"]
    assert len(read_back(target, until=datetime.now(UTC) + timedelta(days=1))) == 3
    for early in (1, time - timedelta(days=1)):
        with pytest.raises(RestorePointError):
            read_back(target, until=early)
    with pytest.raises(RestorePointError):
        read_back(target, until=1 << 60)
    with pytest.raises(ValueError, match="zone"):
        read_back(target, until=datetime(2026, 1, 1))


def test_it_goes_on_where_the_target_is(
    open_db: "OpenDatabase", target: str, read_back: Callable[..., list[str]]
) -> None:
    for key in (None, KEY):  # also when archives are encrypted from now on
        for name in "ab":
            db = open_db()
            db.collection("x").put({"id": f"{name} {key is None}"})
            begun(db, target, key).close()
            db.close()
    assert kinds(target).count("full") == 1
    assert len(read_back(target, key=KEY)) == 4


def test_an_idle_database_ships_nothing(db: amberdb.Database, target: str) -> None:
    db.collection("x").put({"id": "a"})
    with begun(db, target) as shipper:
        for _ in range(2):  # the first one commits the place of the chain
            shipper.ship_now()
        before = kinds(target)
        for _ in range(3):
            shipper.ship_now()
        assert kinds(target) == before


def test_many_archives_are_joined(
    db: amberdb.Database, target: str, read_back: Callable[..., list[str]]
) -> None:
    with begun(db, target) as shipper:
        for number in range(150):
            db.collection("x").put({"id": f"{number:03}"})
            shipper.ship_now()
            assert len(kinds(target)) < 70
    assert kinds(target).count("join") == 2
    assert read_back(target) == [f"{number:03}" for number in range(150)]
    middle = shipped(target)[1]
    assert middle.kind == "join"
    assert len(read_back(target, until=middle.lsn - 20)) > 30


def fill_and_recycle(db: amberdb.Database) -> None:
    """Commits more than the log keeps by itself."""
    for round_ in range(30):
        db.collection("x").put_many({"id": f"{round_}.{n}", "t": "x" * 1000} for n in range(50))
        db.checkpoint()


def test_the_log_is_held_for_the_next_archive_and_let_go(db: amberdb.Database, target: str) -> None:
    feed = db.subscriber(f"ship {target}")
    with begun(db, target) as shipper:
        db.collection("x").put({"id": "a"})
        shipper.ship_now()
        first = feed.position
        fill_and_recycle(db)
        shipper.ship_now()
        assert kinds(target).count("full") == 1
        for number in range(66):
            db["x"].put({"id": f"{number}"})
            shipper.ship_now()
        assert feed.position > first
        assert feed.position == shipped(target)[1].lsn
        assert shipped(target)[1].kind == "join"


def test_a_writer_does_not_hold_up_ship_now(db: amberdb.Database, target: str) -> None:
    documents = db.collection("x")
    ends = threading.Event()

    def put() -> None:
        number = 0
        while not ends.is_set():
            documents.put({"id": f"{(number := number + 1)}"})

    writer = threading.Thread(target=put)
    writer.start()
    try:
        with begun(db, target) as shipper:
            shipper.ship_now()
            shipper.ship_now()
    finally:
        ends.set()
        writer.join()


def test_a_long_chain_is_followed_by_another(
    open_db: "OpenDatabase", clock: "FakeClock", target: str
) -> None:
    db = open_db(clock=clock)
    with ship(db, target, every_ms=NEVER_MS, clock=clock) as shipper:
        for _ in range(3):
            db.collection("x").put({"id": "a"})
            shipper.ship_now()
            clock.advance(16 * 3600)
    assert kinds(target).count("full") == 2


# -- outages -------------------------------------------------------------------------------------


def test_an_outage_harms_nobody_and_is_caught_up(
    db: amberdb.Database, tmp_path: Path, target: str, read_back: Callable[..., list[str]]
) -> None:
    documents = db.collection("x")
    with ship(db, target, every_ms=5) as shipper:
        documents.put({"id": "before"})
        assert shipper.wait_for(db.refresh(), 30)
        (tmp_path / "away").rename(tmp_path / "unplugged")
        for number in range(20):
            documents.put({"id": f"during {number:02}"})
        with pytest.raises(TargetMissingError, match="mount its disk"):
            shipper.ship_now()
        (waits,) = tmp_path.glob("t.amber.ship-*")
        assert len(list(waits.iterdir())) <= 3  # one that waits, and two heads
        (tmp_path / "unplugged").rename(tmp_path / "away")
        assert shipper.wait_for(db.refresh(), 60)
        assert shipper.status().last_error is None
    assert len(read_back(target)) == 21
    assert not list(tmp_path.glob("t.amber.ship-*"))


class Heard(logging.Handler):
    """Keeps what is logged, and tells of the first record."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.first = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.first.set()


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler = Heard()
    logger = logging.getLogger("amberdb.ship")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def test_a_failure_is_told_once(
    db: amberdb.Database, tmp_path: Path, target: str, heard: Heard
) -> None:
    with ship(db, target, every_ms=1) as shipper:
        (tmp_path / "away").rename(tmp_path / "unplugged")
        db.collection("x").put({"id": "a"})
        assert heard.first.wait(30)
        with pytest.raises(TargetMissingError):
            shipper.ship_now()
        (tmp_path / "unplugged").rename(tmp_path / "away")
        assert shipper.wait_for(db.refresh(), 60)
        assert shipper.status().failed > 0
        assert shipper.status().last_error is None
    assert len([line for line in heard.lines if "failed, and is tried again" in line]) == 1


def test_the_folder_of_a_killed_shipper_is_removed(
    db: amberdb.Database, tmp_path: Path, target: str
) -> None:
    gone = tmp_path / "t.amber.ship-4194305-x"  # above every pid
    other = tmp_path / f"t.amber.ship-{os.getpid()}-x"
    for folder in (gone, other):
        folder.mkdir()
    begun(db, target).close()
    assert not gone.exists()
    assert other.exists()


def test_a_shipper_of_a_closed_database_ends(open_db: "OpenDatabase", target: str) -> None:
    db = open_db()
    shipper = begun(db, target)
    db.close()
    with pytest.raises(amberdb.ClosedError):
        shipper.close()
    shipper.close()


# -- chains --------------------------------------------------------------------------------------


def test_a_damaged_end_begins_a_new_chain(
    open_db: "OpenDatabase", tmp_path: Path, target: str, read_back: Callable[..., list[str]]
) -> None:
    db = open_db()
    db.collection("x").put({"id": "a"})
    begun(db, target).close()
    newest = shipped(target)[-1]
    path = tmp_path / "away" / newest.name
    path.write_bytes(b"\0" * newest.size_bytes)
    with begun(db, target) as shipper:
        shipper.ship_now()
    assert kinds(target).count("full") == 2
    assert read_back(target) == ["a"]


def test_what_is_missing_in_a_chain_is_not_skipped(
    db: amberdb.Database, tmp_path: Path, target: str, read_back: Callable[..., list[str]]
) -> None:
    with begun(db, target) as shipper:
        for name in "abcd":
            db.collection("x").put({"id": name})
            shipper.ship_now()
    third = shipped(target)[2]
    (tmp_path / "away" / third.name).unlink()
    found = read_back(target)
    assert found == list("abcd")[: len(found)]
    assert len(found) < 4


def test_two_shippers_of_one_database_break_no_chain(
    db: amberdb.Database, target: str, read_back: Callable[..., list[str]]
) -> None:
    with begun(db, target) as one, begun(db, target) as other:
        for name in "abcd":
            db.collection("x").put({"id": name})
            one.ship_now()
            other.ship_now()
            assert read_back(target)[-1] == name


def test_other_backups_go_on_beside_it(db: amberdb.Database, tmp_path: Path, target: str) -> None:
    db.collection("x").put({"id": "a"})
    base = db.backup(tmp_path / "0")
    with begun(db, target) as shipper:
        for name in "bc":
            db.collection("x").put({"id": name})
            shipper.ship_now()
            db.checkpoint()
            base = db.backup(tmp_path / name, base=base.path)
            assert not base.is_full
    assert kinds(target).count("full") == 1


def test_another_database_is_refused_and_a_restored_one_goes_on(
    open_db: "OpenDatabase", tmp_path: Path, target: str, read_back: Callable[..., list[str]]
) -> None:
    db = open_db()
    db.collection("x").put({"id": "a"})
    begun(db, target).close()
    with amberdb.open(tmp_path / "other.amber") as other:
        other.collection("x").put({"id": "foreign"})
        shipper = begun(other, target)
        with pytest.raises(TargetInUseError, match="another database"):
            shipper.ship_now()
        shipper.close()
    assert read_back(target) == ["a"]
    restore_from(target, tmp_path / "again.amber")
    with amberdb.open(tmp_path / "again.amber") as again:
        again["x"].put({"id": "b"})
        begun(again, target).close()
    assert read_back(target) == ["a", "b"]


@pytest.mark.slow
def test_it_ships_beside_the_process_that_leads(
    tmp_path: Path, target: str, read_back: Callable[..., list[str]]
) -> None:
    path = tmp_path / "t.amber"
    with (
        child_leads(path) as child,
        ship(path, target, every_ms=NEVER_MS) as shipper,
        amberdb.connect(path) as db,
    ):
        assert not db.leads
        db.collection("x").put({"id": "a"})
        shipper.ship_now()
        db["x"].put({"id": "b"})
        shipper.ship_now()
        child.kill()
        db["x"].put({"id": "c"})
        shipper.ship_now()
    assert read_back(target) == ["a", "b", "c"]


# -- erasing -------------------------------------------------------------------------------------


def test_a_receipt_names_what_was_shipped_and_prune_removes_it(
    db: amberdb.Database, tmp_path: Path, target: str, read_back: Callable[..., list[str]]
) -> None:
    documents = db.collection("x")
    with begun(db, target) as shipper:
        documents.put_many([{"id": "secret", "t": "topsecretword"}, {"id": "other"}])
        shipper.ship_now()
        documents.put({"id": "more", "t": "topsecretword"})
        shipper.ship_now()
        receipt = db.erase("x", {"t": "topsecretword"}, reason="asked")
        chain = shipped(target)[0].chain
        assert [backup.path for backup in receipt.backups] == [f"{target}/{chain}/"]
        assert receipt.completed is not None
        assert prune(target, receipt.completed) == []  # the newest chain stays
        shipper.ship_now()
        removed = prune(target, receipt.completed)
        assert {archive.chain for archive in removed} == {chain}
        left = [path.read_bytes() for path in tmp_path.rglob("*.amberbak")]
        assert left
        assert not any(b"topsecretword" in data for data in left)
    assert read_back(target) == ["other"]
    restore_from(target, tmp_path / "again.amber")
    with amberdb.open(tmp_path / "again.amber") as again:
        known = again.erase("x", {"id": "other"}, reason="asked").backups
    assert f"{target}/{shipped(target)[-1].chain}/" in [backup.path for backup in known]
    assert not any("fetch" in backup.path for backup in known)


def test_pruning_keeps_what_later_archives_continue(db: amberdb.Database, target: str) -> None:
    with begun(db, target) as shipper:
        ends: list[Shipped] = []
        for name in "abc":
            db.collection("x").put({"id": name})
            shipper.ship_now()
            db["x"].put({"id": name, "n": 1})
            shipper.ship_now()
            ends.append(shipped(target)[-1])
            db.compact()  # ends the chain
    every = shipped(target)
    assert prune(target, ends[1].created) == [each for each in every if each.lsn <= ends[0].lsn]
    assert kinds(target).count("full") == 3  # of b, c, and what compact() has committed
    with pytest.raises(ValueError, match="zone"):
        prune(target, datetime(2026, 1, 1))


# -- encryption ----------------------------------------------------------------------------------


@pytest.fixture
def sealed(db: amberdb.Database, tmp_path: Path, target: str) -> Path:
    """The one archive at the target, encrypted."""
    db.collection("x").put({"id": "a", "t": "topsecretword"})
    shipper = begun(db, target, KEY)
    shipper.ship_now()
    shipper.close()
    every = [tmp_path / "away" / archive.name for archive in shipped(target)]
    assert not any(b"topsecretword" in path.read_bytes() for path in every)
    for path in every[1:]:
        path.unlink()
    return every[0]


def test_a_wrong_or_missing_key_is_told(
    sealed: Path, target: str, read_back: Callable[..., list[str]]
) -> None:
    assert read_back(target, key=KEY) == ["a"]
    with pytest.raises(ArchiveKeyError, match="another key"):
        read_back(target, key=KEY[::-1])
    with pytest.raises(ArchiveKeyError, match="is encrypted"):
        read_back(target)
    with pytest.raises(ArchiveKeyError, match="openssl"):
        read_back(target, key=b"short")


def test_every_flipped_or_cut_byte_is_damage(
    sealed: Path, tmp_path: Path, target: str, read_back: Callable[..., list[str]]
) -> None:
    whole = sealed.read_bytes()
    for place in range(0, len(whole), 1 if len(whole) < 300 else 7):
        sealed.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(BackupDamagedError, match="file://"):
            read_back(target, key=KEY)
        sealed.write_bytes(whole[:place])
        with pytest.raises(BackupDamagedError, match="file://"):
            read_back(target, key=KEY)
    sealed.write_bytes(whole + b"x")
    with pytest.raises(BackupDamagedError):
        read_back(target, key=KEY)
    assert not list(tmp_path.glob("again-*"))


def test_chunks_are_told_from_each_other(
    db: amberdb.Database, tmp_path: Path, target: str, read_back: Callable[..., list[str]]
) -> None:
    db.collection("x").put_many({"id": f"{n}", "t": os.urandom(200_000)} for n in range(20))
    shipper = begun(db, target, KEY)
    shipper.ship_now()
    shipper.close()
    head, chunk = 48, (1 << 20) + 16
    full = tmp_path / "away" / shipped(target)[0].name
    whole = full.read_bytes()
    assert len(whole) > head + 3 * chunk
    one, two = whole[head : head + chunk], whole[head + chunk : head + 2 * chunk]
    rest = whole[head + 2 * chunk :]
    for content in (two + one + rest, one + rest, one + one + two + rest, one + two, one):
        full.write_bytes(whole[:head] + content)
        with pytest.raises(BackupDamagedError):
            read_back(target, key=KEY)
    full.write_bytes(whole)
    assert len(read_back(target, key=KEY)) == 20
