"""Automatic restore of a database that is damaged beyond recovery, and the error without it. Power
loss and kills at every step are in tests/crash/test_rescue.py."""

import logging
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import CorruptionError, Database, LockedError, Ordered, RollingBackups
from amberdb._fs import OsFileSystem
from support.databases import SMALL, FakeClock, OpenDatabase, assert_sound

SCHEDULE = RollingBackups()


def made(open_db: OpenDatabase, **options: Any) -> Path:
    """A database of twelve documents; a chain of two backups has ten of them."""
    settings: dict[str, Any] = {"clock": FakeClock(), "backups": SCHEDULE, **options}
    db = open_db(**settings)
    notes = db.collection("n")
    for n in range(12):
        notes.put({"id": str(n), "text": "x" * 300})
        if n in (7, 9):
            db.backup()
    db.close()
    return Path(db.path)


def cut_data(path: Path) -> None:
    (data,) = path.glob("data-*/data.mdb")
    data.write_bytes(data.read_bytes()[:5000])


def lose_manifest(path: Path) -> None:
    (path / "MANIFEST").unlink()


def spoil_manifest(path: Path) -> None:
    data = (path / "MANIFEST").read_bytes()
    (path / "MANIFEST").write_bytes(data[:16] + bytes(len(data) - 16))


def lose_log(path: Path) -> None:
    shutil.rmtree(path / "wal")
    (path / "wal").mkdir()
    (path / "wal" / "junk").touch()
    cut_data(path)


def spoil_log(path: Path) -> None:
    for segment in path.glob("wal/*.wal"):
        data = bytearray(segment.read_bytes())
        data[600:700] = bytes(100)
        segment.write_bytes(bytes(data))
    cut_data(path)


DAMAGES: list[Callable[[Path], None]] = [
    cut_data, lose_manifest, spoil_manifest, lose_log, spoil_log,
]  # fmt: skip


def contents(path: Path) -> dict[str, bytes]:
    return {
        str(each.relative_to(path)): each.read_bytes()
        for each in path.rglob("*")
        if each.is_file() and each.name != "LOCK"
    }


def rescued(open_db: OpenDatabase, **options: Any) -> Database:
    settings: dict[str, Any] = {"backups": SCHEDULE, "on_damage": "restore", **options}
    return open_db(**settings)


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_newest_backup_takes_its_place_and_what_is_damaged_is_kept(
    open_db: OpenDatabase, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    path = made(open_db)
    damage(path)
    before = contents(path)
    with caplog.at_level(logging.WARNING, "amberdb.engine"):
        db = rescued(open_db)
    kept = 10 if damage in (lose_log, spoil_log) else 12  # a sound log has what no backup has
    assert {doc["id"] for doc in db.collection("n").documents()} == set(map(str, range(kept)))
    assert_sound(db)
    found = db.rescue
    assert found is not None
    assert contents(Path(found.damaged)) == before
    assert [os.path.basename(each).split("-")[-1] for each in found.chain] == [
        "full.amberbak", "more.amberbak",
    ]  # fmt: skip
    if kept == 12:
        assert found.lost == 0
    else:
        assert found.lost in (None, 3), "two documents, and the commit of backup() itself"
    assert found.problem
    assert "is restored from" in caplog.text
    assert sorted(each.name for each in path.parent.glob("t.amber*")) == [
        "t.amber", "t.amber.backups", os.path.basename(found.damaged),
    ]  # fmt: skip
    db.collection("n").put({"id": "after"})
    db.backup()
    db.close()
    db = rescued(open_db)
    assert db.rescue is None
    assert len(db.collection("n")) == kept + 1


def test_the_error_says_which_backup_what_would_be_lost_and_how(open_db: OpenDatabase) -> None:
    path = made(open_db)
    spoil_log(path)
    before = contents(path)
    with pytest.raises(CorruptionError, match="would be lost") as caught:
        open_db()
    error = caught.value
    newest = max((path.parent / "t.amber.backups").iterdir())
    assert error.backup == str(newest)
    assert str(newest) in error.message
    assert error.lost == 3
    assert f"`{shlex.join(['amberdb', 'rescue', str(path)])}`" in error.message
    assert error.path.endswith("data.mdb"), "the path of the original error"
    assert contents(path) == before


def test_the_error_counts_what_the_log_still_has(open_db: OpenDatabase) -> None:
    path = made(open_db)
    cut_data(path)
    with pytest.raises(CorruptionError, match="the log has sound commits up to Lsn") as caught:
        open_db()
    assert caught.value.lost == 0


def test_a_restore_goes_on_with_the_log_up_to_its_first_damage(open_db: OpenDatabase) -> None:
    """Its backups have 8 and 10 documents, its log all 40, and is damaged in the last third."""
    db = open_db(clock=FakeClock(), backups=SCHEDULE)
    notes = db.collection("n", indexes=[Ordered("group")])
    for n in range(40):
        notes.put({"id": f"{n:02}", "group": n % 3, "text": "x" * 300})
        if n in (7, 9):
            db.backup()
    last = db.stats().last_lsn
    db.close()
    path = Path(db.path)
    cut_data(path)
    for segment in path.glob("wal/*.wal"):
        data = segment.read_bytes()
        place = data.find(b"30", data.find(b"id")) if b"\xa230" in data else -1
        if place >= 0:
            segment.write_bytes(data[:place] + b"99" + data[place + 2 :])
    db = rescued(open_db)
    notes = db.collection("n", indexes=[Ordered("group")])
    kept = sorted(doc["id"] for doc in notes.documents())
    assert kept == [f"{n:02}" for n in range(30)]
    db.build_indexes()
    assert notes.count({"group": 1}) == 10
    assert db.rescue is not None
    assert db.rescue.last_lsn == last
    assert db.rescue.lost == last - db.rescue.lsn
    notes.put({"id": "after"})
    assert_sound(db)


def test_backups_elsewhere_are_named_in_the_command(open_db: OpenDatabase, tmp_path: Path) -> None:
    schedule = RollingBackups(directory=tmp_path / "else where")
    path = made(open_db, backups=schedule)
    cut_data(path)
    with pytest.raises(CorruptionError, match=r"rescue .*t\.amber --backups '.*else where'`"):
        open_db(backups=schedule)
    with pytest.raises(CorruptionError) as caught:
        open_db()
    assert "backup" not in caught.value.facts
    db = rescued(open_db, backups=schedule)
    assert len(db.collection("n")) == 12


def test_without_backups_the_error_is_as_ever(open_db: OpenDatabase) -> None:
    path = made(open_db)
    shutil.rmtree(f"{path}.backups")
    cut_data(path)
    before = contents(path)
    with pytest.raises(CorruptionError) as caught:
        open_db()
    assert "backup " not in caught.value.message
    with pytest.raises(CorruptionError, match="No backup can be restored: there is none in"):
        rescued(open_db)
    assert contents(path) == before
    assert [each.name for each in path.parent.iterdir()] == ["t.amber"]


def spoil(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(bytes(data))


def test_a_damaged_backup_is_passed_over_for_the_one_before(open_db: OpenDatabase) -> None:
    path = made(open_db)
    lose_log(path)
    full, more = sorted((path.parent / "t.amber.backups").iterdir(), key=lambda p: p.name[-13:])
    spoil(more)
    db = rescued(open_db)
    assert len(db.collection("n")) == 8
    assert db.rescue is not None
    assert db.rescue.chain == (str(full),)
    db.close()
    shutil.rmtree(path)
    os.rename(db.rescue.damaged, path)
    spoil(full)
    before = contents(path)
    with pytest.raises(CorruptionError, match="No backup can be restored"):
        rescued(open_db)
    assert contents(path) == before
    assert not Path(f"{path}.restored").exists()


def test_backups_of_another_database_never_take_its_place(
    open_db: OpenDatabase, tmp_path: Path
) -> None:
    other = open_db("other.amber", backups=RollingBackups(directory=tmp_path / "shared"))
    other.collection("n").put({"id": "other"})
    other.backup()
    schedule = RollingBackups(directory=tmp_path / "shared")
    path = made(open_db, backups=schedule)
    cut_data(path)
    db = rescued(open_db, backups=schedule)
    assert len(db.collection("n")) == 12
    db.close()
    lose_manifest(path)
    shutil.rmtree(path / "wal")
    with pytest.raises(CorruptionError, match="No backup can be restored"):
        rescued(open_db, backups=schedule)


def test_a_sound_database_and_a_locked_one_are_left_alone(open_db: OpenDatabase) -> None:
    path = made(open_db)
    with amberdb.open(path, **SMALL, backups=SCHEDULE, on_damage="restore") as db:
        assert db.rescue is None
        assert len(db.collection("n")) == 12
        with amberdb.open(path, on_damage="restore") as again:
            assert again.rescue is None
    with pytest.raises(ValueError, match="on_damage"):
        open_db(on_damage="ignore")


def test_damage_while_nobody_can_restore_twice_at_once(open_db: OpenDatabase) -> None:
    """The process that has the lock of the damaged directory restores; the other gets
    LockedError."""
    path = made(open_db)
    cut_data(path)
    lock = OsFileSystem().lock(str(path / "LOCK"), "1 here")
    try:
        with pytest.raises(LockedError):
            rescued(open_db)
    finally:
        lock.close()
    assert rescued(open_db).rescue is not None


def test_the_names_of_what_is_set_aside_do_not_collide(open_db: OpenDatabase) -> None:
    path = made(open_db)
    clock = FakeClock()
    kept: set[str] = set()
    for number in range(3):
        cut_data(path)
        db = rescued(open_db, clock=clock)
        assert db.rescue is not None
        kept.add(db.rescue.damaged)
        db.backup()
        db.close()
        assert len(kept) == number + 1
    assert all(Path(each, "wal").is_dir() for each in kept)
