"""stats(): typed and as a map; its counts; it loads nothing and changes nothing."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import amberdb
from amberdb import Database, Lsn, Ordered, Stats, Text, Vector
from amberdb._fs import OsFileSystem
from amberdb._jsonl.text import dumps
from amberdb.engine.search.vector import cache as vector_cache
from amberdb.engine.search.vector import file as vector_file
from amberdb.index.vector.hnsw import library
from support.databases import SMALL, OpenDatabase


def test_as_attributes_as_a_map_and_as_json(db: Database) -> None:
    db.collection("n", indexes=[Ordered("x")], version=3).put({"id": "a"})
    stats = db.stats()
    assert isinstance(stats, Stats)
    assert stats.last_lsn == stats["last_lsn"] == stats.visible_lsn
    assert set(stats) == set(stats.to_map()) == set(stats.keys())
    assert len(stats) == len(list(stats))
    with pytest.raises(KeyError):
        stats["nothing"]
    with pytest.raises(KeyError):
        stats["to_map"]
    assert '"version": 3' in dumps(stats.to_map())


def test_latencies_are_counted(db: Database) -> None:
    notes = db.collection("n")
    before = db.stats()
    for number in range(5):
        notes.put({"id": str(number)}, sync="always")
    db.checkpoint()
    notes.put({"id": "x"})
    db.checkpoint()
    after = db.stats()
    assert after.sync.count >= before.sync.count + 6
    assert 0 < after.sync.mean_ms <= after.sync.max_ms
    assert 0 < after.sync.last_ms <= after.sync.max_ms
    assert after.checkpoint.count == after.checkpoints == before.checkpoints + 2
    assert 0 < after.checkpoint.mean_ms <= after.checkpoint.max_ms
    assert after.checkpoint.last_ms == after.checkpoint_ms_last


def test_bytes_by_kind(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_file, "UNSAVED_ROWS", 10)
    for name in ("GRAPH_ROWS", "FRESH_ROWS", "DEAD_ROWS"):
        monkeypatch.setattr(vector_cache, name, 10)
    notes = db.collection("n", indexes=[Vector("v", dim=4)])
    notes.put_many({"id": str(n), "v": np.eye(4, dtype=np.float32)[n % 4]} for n in range(400))
    notes.search(vector=[1, 0, 0, 0])
    db.build_indexes()
    db.checkpoint()
    full = db.stats()
    assert full.bytes.cache == sum(path.stat().st_size for path in Path(db.path).glob("cache/*"))
    assert library() is None or full.bytes.cache > 0  # without graphs it is written at the close
    assert full.bytes.log == full.log["bytes"]
    assert full.bytes.data_used + full.bytes.data_free == full.store["file_bytes"]
    kinds = full.to_map()["bytes"]
    assert full.bytes.total == sum(kinds.values())
    notes.delete_many({})
    db.checkpoint()
    db.checkpoint()
    assert db.stats().live_share < full.live_share <= 1


def test_bytes_of_each_collection(open_db: OpenDatabase) -> None:
    db = open_db()
    large = db.collection("large", indexes=[Ordered("x")])
    large.put_many({"id": f"{n:04}", "x": n, "text": "y" * 200} for n in range(1000))
    db.collection("small").put({"id": "a"})
    db.collection("none")
    db.checkpoint()
    with amberdb.open(db.path, read_only=True) as reader:
        read = reader.stats()
    for stats in (db.stats(), read):
        sizes = {name: facts["bytes"] for name, facts in stats.collections.items()}
        assert sizes["large"] > 200_000 > sizes["small"] > sizes["none"] == 0
        assert sum(sizes.values()) < stats.bytes.data_used


def test_subscribers_that_lag(db: Database) -> None:
    notes = db.collection("n")
    reader = db.subscriber("s")
    for number in range(3):
        notes.put({"id": str(number)})
    assert db.stats().subscriber_lag["s"] == 4  # and the commit of the position itself
    reader.acknowledge(Lsn(db.stats().last_lsn))
    assert db.stats().subscriber_lag["s"] == 1


def test_a_search_index_that_nobody_has_asked_is_not_loaded(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_file, "UNSAVED_ROWS", 10)
    for name in ("GRAPH_ROWS", "FRESH_ROWS", "DEAD_ROWS"):
        monkeypatch.setattr(vector_cache, name, 10)
    db = open_db()
    notes = db.collection("n", indexes=[Vector("v", dim=4), Text("text")])
    notes.put_many(
        {"id": str(n), "text": "tea", "v": np.eye(4, dtype=np.float32)[n % 4]} for n in range(40)
    )
    notes.search("tea", vector=[1, 0, 0, 0])
    db.build_indexes()
    assert db.stats()["collections"]["n"]["search"]["vector:v"]["rows"] == 40
    db.close()
    read: list[str] = []
    original = OsFileSystem.open

    def note(self: OsFileSystem, path: str, **options: Any) -> Any:
        read.append(path)
        return original(self, path, **options)

    db = open_db()
    monkeypatch.setattr(OsFileSystem, "open", note)
    for _ in range(2):
        found = db.stats()["collections"]["n"]["search"]
        assert found == {"vector:v": {"loaded": False}, "text:text": {"loaded": False}}
    assert not [path for path in read if "cache" in path]
    db.collection("n").search(vector=[1, 0, 0, 0])
    found = db.stats()["collections"]["n"]["search"]
    assert found["vector:v"]["loaded"]
    assert found["vector:v"]["rows"] == 40
    assert not found["text:text"]["loaded"]


def test_a_migration_is_told(db: Database) -> None:
    notes = db.collection("n", indexes=[Ordered("x")])
    notes.put_many({"id": str(n)} for n in range(10))
    assert db.stats()["collections"]["n"]["migrating"] is None
    db.collection("n", version=2, migrate={2: lambda document: document})
    found = db.stats()["collections"]["n"]
    assert found["version"] == 2
    assert found["indexes"] == {"ordered:x": "migrating"}
    with amberdb.open(db.path, read_only=True, **SMALL) as reader:
        assert reader.stats()["collections"]["n"]["indexes"] == {"ordered:x": "migrating"}
    assert found["migrating"]["from_version"] == 1
    assert found["migrating"]["functions_missing"] == []
    told: list[int] = []
    db.migrate(
        lambda name, count: told.append(
            db.stats()["collections"]["n"]["migrating"]["documents_read"]
        )
    )
    assert told[-1] == 10
    assert db.stats()["collections"]["n"]["indexes"] == {"ordered:x": "ready"}


def test_where_only_reading_is_done(db: Database) -> None:
    db.collection("n").put({"id": "a"})
    with amberdb.open(db.path, read_only=True, **SMALL) as reader:
        stats = reader.stats()
        assert stats.read_only
        assert stats.last_lsn == db.stats().last_lsn
        assert stats.bytes.data_used == db.stats().bytes.data_used
        assert reader.archived_lsn is None
        assert dumps(stats.to_map())


def test_slow_syncs_are_logged_but_not_one_by_one(
    open_db: OpenDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    db = open_db(slow_sync_ms=0)
    with caplog.at_level(logging.WARNING, "amberdb.wal"):
        for number in range(20):
            db.collection("n").put({"id": str(number)}, sync="always")
    said = [record for record in caplog.records if "slow sync" in record.getMessage()]
    assert len(said) == 1
