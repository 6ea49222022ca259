"""Archives that are sent away: the place in the history, and no effect on other chains."""

from pathlib import Path

import pytest

import amberdb
from amberdb import BackupChainError, Database
from support.databases import OpenDatabase
from support.faulty_fs import FaultyFileSystem

PLACE = "s3://bucket/chain/"


def names(db: Database) -> list[str]:
    """What a receipt says of backups."""
    return [backup.path for backup in db.erase("n", {"id": "none"}, reason="test").backups]


def test_a_chain_is_in_the_history_once_as_its_place(db: Database, tmp_path: Path) -> None:
    db.collection("n").put({"id": "a"})
    db.backup(tmp_path / "own")
    base = db.backup(tmp_path / "0", sent_to=PLACE)
    for name in "12":
        db["n"].put({"id": name})
        before = db.refresh()
        base = db.backup(tmp_path / name, base=base.path, sent_to=PLACE)
        assert base.lsn == before
        assert db.refresh() == before, "an archive that continues a place commits nothing"
    assert names(db) == [str(tmp_path / "own"), PLACE]


def test_a_restored_database_names_the_place(db: Database, tmp_path: Path) -> None:
    db.collection("n").put({"id": "a"})
    full = db.backup(tmp_path / "0", sent_to=PLACE)
    more = db.backup(tmp_path / "1", base=full.path, sent_to=PLACE)
    assert full.database == more.database
    amberdb.restore([full.path, more.path], tmp_path / "r.amber", came_from=PLACE)
    with amberdb.open(tmp_path / "r.amber") as copy:
        assert names(copy) == [PLACE]


def fill_and_recycle(db: Database) -> None:
    """Commits more than the log keeps by itself."""
    for round_ in range(30):
        db.collection("n").put_many({"id": f"{round_}.{n}", "t": "x" * 1000} for n in range(50))
        db.checkpoint()


def test_the_log_is_kept_for_the_chain_of_others_alone(db: Database, tmp_path: Path) -> None:
    own = db.backup(tmp_path / "own")
    sent = db.backup(tmp_path / "0", sent_to=PLACE)
    fill_and_recycle(db)
    assert not db.backup(tmp_path / "more", base=own.path).is_full
    fill_and_recycle(db)
    with pytest.raises(BackupChainError):
        db.backup(tmp_path / "1", base=sent.path, sent_to=PLACE)


def test_the_first_after_a_compaction_is_full(db: Database, tmp_path: Path) -> None:
    db.collection("n").put({"id": "a"})
    base = db.backup(tmp_path / "0", sent_to=PLACE)
    db.compact()
    with pytest.raises(BackupChainError):
        db.backup(tmp_path / "1", base=base.path, sent_to=PLACE)
    base = db.backup(tmp_path / "2", sent_to=PLACE)
    assert not db.backup(tmp_path / "3", base=base.path, sent_to=PLACE).is_full


def test_nothing_is_synced_for_it(open_db: OpenDatabase, tmp_path: Path) -> None:
    synced: list[str] = []

    def note(kind: str, path: str) -> None:
        if "sync" in kind:
            synced.append(path)

    disk = FaultyFileSystem(hook=note)
    db = open_db(fs=disk)
    db.collection("n").put({"id": "a"})
    synced.clear()
    base = db.backup(tmp_path / "0", sent_to=PLACE)
    db.backup(tmp_path / "1", base=base.path, sent_to=PLACE)
    assert not [path for path in synced if "t.amber" not in path]
    db.backup(tmp_path / "2")
    assert [path for path in synced if "t.amber" not in path]


def test_a_place_is_a_text_of_some_length(db: Database, tmp_path: Path) -> None:
    for place in ("", "x" * 2001):
        with pytest.raises(ValueError, match="sent_to"):
            db.backup(tmp_path / "0", sent_to=place)


def test_a_long_increment_has_the_time_of_its_last_commit(db: Database, tmp_path: Path) -> None:
    base = db.backup(tmp_path / "0")
    notes = db.collection("n")
    for number in range(4200):
        notes.put({"id": f"{number}"})
    more = db.backup(tmp_path / "1", base=base.path)
    (last,) = db.changes(since=amberdb.Lsn(more.lsn - 1))
    assert more.time == last.time
    assert amberdb.verify_backup([base.path, more.path])[1] == more
