"""Automatic compaction: the file stays under about twice the live data, and blocks no caller."""

import os
import shutil
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import Database
from amberdb.engine.maintenance import auto_compaction
from amberdb.engine.storage.store import Store
from support.databases import OpenDatabase, audited
from support.places import Places

WAIT_S = 60


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Generator[Places]:
    monkeypatch.setattr(auto_compaction, "BYTES_MIN", 100_000)
    with Places.watched() as found:
        yield found


def half_free(db: Database) -> None:
    """Deletes most documents, in LMDB too."""
    notes = db.collection("n")
    for start in range(0, 400, 100):
        notes.put_many({"id": str(n), "text": "x" * 3000} for n in range(start, start + 100))
        db.checkpoint()
    notes.delete_many({"id": {"$ne": "7"}})
    db.checkpoint()


def test_it_is_compacted_when_half_of_it_is_free(open_db: OpenDatabase, places: Places) -> None:
    db = open_db(background=True)
    half_free(db)
    assert places.of("compact.old-removed").wait(WAIT_S)
    db.close()
    db = open_db(background=True)
    store = db.stats()["store"]
    assert store["file_bytes"] <= max(100_000, 2 * store["used_bytes"])
    assert not db.stats()["compaction"]["is_due"]
    assert db.collection("n").get("7") is not None


def test_over_and_over_the_file_stays_under_twice_the_live_data(
    open_db: OpenDatabase, places: Places
) -> None:
    db = open_db(background=True)
    for _ in range(4):
        places.of("compact.old-removed").clear()
        half_free(db)
        assert places.of("compact.old-removed").wait(WAIT_S)
    db.close()
    assert [name for name in os.listdir(db.path) if name.startswith("data-")] == ["data-5"]


def test_a_chain_of_backups_goes_on_and_broken_files_stay(
    open_db: OpenDatabase, places: Places, tmp_path: Path
) -> None:
    db = open_db(background=True)
    db.backup(tmp_path / "full")
    broken = Path(db.path, "MANIFEST.broken")
    broken.write_bytes(b"kept")
    subscriber = db.subscriber("s")
    half_free(db)
    assert places.of("compact.old-removed").wait(WAIT_S)
    db.collection("n").put({"id": "8"})
    db.backup(tmp_path / "more", base=tmp_path / "full")
    assert len(list(subscriber.changes())) == 400 + 399 + 1
    assert broken.exists()
    amberdb.restore([tmp_path / "full", tmp_path / "more"], tmp_path / "again.amber")
    with audited(tmp_path / "again.amber") as again:
        assert len(again.collection("n")) == 2


@pytest.mark.parametrize("options", [{"compact": "manual"}, {"background": False}])
def test_off_it_is_only_told(open_db: OpenDatabase, places: Places, options: Any) -> None:
    settings: dict[str, Any] = {"background": True, **options}
    db = open_db(**settings)
    half_free(db)
    found = db.stats()["compaction"]
    assert (found["is_automatic"], found["is_due"], found["runs"]) == (False, True, 0)
    db.close()
    assert not places.of("compact.copied").is_set()


def test_a_file_of_up_to_16_mib_is_left_alone(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    floor = 16 * 1024 * 1024

    stats = Store.stats

    def is_due(file_bytes: int, used_bytes: int) -> bool:
        def found(store: Store) -> dict[str, Any]:
            return {**stats(store), "file_bytes": file_bytes, "used_bytes": used_bytes}

        monkeypatch.setattr(Store, "stats", found)
        return bool(db.stats()["compaction"]["is_due"])

    assert not is_due(floor, 0)
    assert is_due(floor + 1, 0)
    assert not is_due(2 * floor, floor)
    assert is_due(2 * floor + 1, floor)


def test_another_policy_is_refused(open_db: OpenDatabase) -> None:
    with pytest.raises(ValueError, match="compact='never'"):
        open_db(compact="never")


def test_in_memory_it_is_off() -> None:
    with amberdb.open(":memory:") as db:
        assert not db.stats()["compaction"]["is_automatic"]


def test_without_room_it_is_put_off(
    open_db: OpenDatabase, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")

    def full(_: str) -> Any:
        return usage._replace(free=1000)

    monkeypatch.setattr(shutil, "disk_usage", full)
    db = open_db(background=True)
    half_free(db)
    assert places.put_off.wait(WAIT_S)
    assert "1000 bytes of disk are free" in db.stats()["compaction"]["last_error"]
    db.close()
    assert not places.of("compact.copied").is_set()


def test_it_gives_way_to_writers_and_pauses(open_db: OpenDatabase, places: Places) -> None:
    """Commits that fill half of the memory end it, so that the next checkpoint can run."""
    db = open_db(background=True, memtable_bytes_max=200_000, checkpoint_bytes=1 << 30)

    def write() -> None:
        places.actions.clear()
        db.collection("n").put({"id": "large", "text": "y" * 150_000})

    places.actions["compact.chunk-copied"] = write
    half_free(db)
    assert places.put_off.wait(WAIT_S)
    found = db.stats()["compaction"]
    assert (found["runs"], found["given_up"]) == (0, 1)
    assert "filling the memtable" in found["last_error"]
    assert found["is_due"]
    assert os.listdir(db.path).count("data-2") == 0


def test_closing_does_not_wait_for_it(open_db: OpenDatabase, places: Places) -> None:
    db = open_db(background=True)
    closer = threading.Thread(target=db.close)

    def close() -> None:
        places.actions.clear()
        closer.start()
        stopping.wait(WAIT_S)

    stopping = places.of("close.stopping")
    places.actions["compact.chunk-copied"] = close
    half_free(db)
    assert places.of("compact.chunk-copied").wait(WAIT_S)
    closer.join()
    assert not places.of("compact.copied").is_set()
    db = open_db(background=False)
    assert db.collection("n").get("7") is not None
