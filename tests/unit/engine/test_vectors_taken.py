"""Vectors are taken into memory after the commits that store them, before anything is searched."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import amberdb
from amberdb import Collection, Database, Vector
from amberdb.engine.search import searchers
from amberdb.engine.search.row_reader import RowReader
from amberdb.engine.search.vector import cache as vector_cache
from amberdb.engine.search.vector import file as vector_file

DIM = 8
V = Vector("v", dim=DIM)


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searchers, "TAKEN_ROWS", 10)
    monkeypatch.setattr(vector_file, "GROWN_ROWS", 20)
    monkeypatch.setattr(vector_file, "UNSAVED_ROWS", 20)


def _vectors(count: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


def _put(notes: Collection, vectors: NDArray[np.float32], first: int = 0) -> None:
    notes.put_many({"id": str(first + n), "v": each} for n, each in enumerate(vectors))


def _rows(db: Database, name: str = "notes") -> int:
    stats: Any = db.stats()
    rows: int = stats["collections"][name]["search"]["vector:v"].get("rows", 0)
    return rows


def _open(path: Path) -> tuple[Database, Collection]:
    db = amberdb.open(path, background=False)
    return db, db.collection("notes", indexes=[V])


def test_a_first_search_reads_no_vector_back(tmp_path: Path, monkeypatch: Any) -> None:
    db, notes = _open(tmp_path)
    with db:
        vectors = _vectors(60)
        _put(notes, vectors[:30])
        db.checkpoint()
        _put(notes, vectors[30:], 30)
        assert _rows(db) == 60
        read: list[int] = []
        original = RowReader.vectors

        def counted(self: RowReader, rowids: Any, index: Any) -> Any:
            read.extend(rowids.tolist())
            return original(self, rowids, index)

        monkeypatch.setattr(RowReader, "vectors", counted)
        assert notes.search(vector=vectors[41], limit=1)[0].id == "41"
        assert read == []
        notes.put({"id": "last", "v": -vectors[41]})
        assert notes.search(vector=-vectors[41], limit=1)[0].id == "last"
        assert len(read) == 1  # one alone is read by the search that needs it
        db.check()


def test_only_what_was_committed_and_lives_is_taken(tmp_path: Path) -> None:
    db, notes = _open(tmp_path)
    with db:
        vectors = _vectors(90)

        def roll_back() -> None:
            with db.transaction() as tx:
                tx["notes"].put_many({"id": str(n), "v": v} for n, v in enumerate(vectors[:30]))
                raise KeyError

        with pytest.raises(KeyError):
            roll_back()
        assert _rows(db) == 0
        _put(notes, vectors[30:60])  # the same rowids
        notes.delete_many({"id": {"$lt": "15"}})
        _put(notes, vectors[60:], 100)
        left = {document["id"]: document["v"] for document in notes.find()}
        assert _rows(db) <= 60
        for query in vectors[::7]:
            best = max(left, key=lambda id: float(left[id] @ query / np.linalg.norm(left[id])))
            assert notes.search(vector=query, limit=1)[0].id == best
        db.check()


def test_rows_of_an_earlier_process_are_not_read_by_a_commit(tmp_path: Path) -> None:
    """Whether there is a file or none."""
    vectors = _vectors(90)
    db, notes = _open(tmp_path)
    with db:
        _put(notes, vectors[:15])
    assert not (tmp_path / "cache").exists()
    db, notes = _open(tmp_path)
    with db:
        _put(notes, vectors[15:60], 15)
        assert _rows(db) == 45
        assert notes.search(vector=vectors[3], limit=1)[0].id == "3"
        assert _rows(db) == 60
        db.build_indexes()
        assert [file.name for file in (tmp_path / "cache").iterdir()]
    db, notes = _open(tmp_path)
    with db:
        _put(notes, vectors[60:], 60)
        assert _rows(db) == 0  # the commit does not read the file
        db.build_indexes()  # the background does
        assert _rows(db) == 90
        for at in (3, 33, 63):
            assert notes.search(vector=vectors[at], limit=1)[0].id == str(at)
        db.check()


def test_what_nobody_searches_takes_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_cache, "TAKEN_BYTES_MAX", 1)
    db, notes = _open(tmp_path)
    with db:
        for start in range(0, 90, 30):
            _put(notes, _vectors(30, start), start)
        db.build_indexes()
        assert _rows(db) == 0
        assert notes.search(vector=_vectors(1, 60)[0], limit=1)[0].id == "60"
        assert _rows(db) == 90
        _put(notes, _vectors(30, 90), 90)
        assert _rows(db) == 120
        db.check()


def test_the_file_is_written_while_rows_are_added(tmp_path: Path) -> None:
    """Before any search, and so a kill leaves few rows to read back."""
    db, notes = _open(tmp_path)
    with db:
        vectors = _vectors(60)
        for start in range(0, 60, 30):
            _put(notes, vectors[start : start + 30], start)
            db.build_indexes()
        (file,) = (tmp_path / "cache").iterdir()
        assert file.stat().st_size > 60 * 4 * DIM
        written = file.stat().st_mtime_ns
        _put(notes, vectors[:10], 60)
        db.build_indexes()
        assert file.stat().st_mtime_ns == written
        db.check()


def test_several_indexes_declared_and_dropped(tmp_path: Path) -> None:
    db = amberdb.open(tmp_path, background=False)
    with db:
        several = Vector("several", dim=DIM, multi=True)
        notes = db.collection("notes", indexes=[V, several, amberdb.Text("t")])
        vectors = _vectors(40)
        notes.put_many(
            {"id": str(n), "v": v, "several": [v, -v], "t": "a"} for n, v in enumerate(vectors)
        )
        stats: Any = db.stats()
        search = stats["collections"]["notes"]["search"]
        assert (search["vector:v"]["rows"], search["vector:several"]["rows"]) == (40, 80)
        assert notes.search(vector={"several": -vectors[7]}, limit=1)[0].id == "7"
        notes = db.collection("notes", indexes=[several])
        _put(notes, vectors, 40)
        notes = db.collection("notes", indexes=[V, several])
        db.build_indexes()
        _put(notes, _vectors(40, 2), 80)
        assert _rows(db) == 40
        assert notes.search(vector={"v": vectors[7]}, limit=2)[0].id in ("7", "47")
        assert _rows(db) == 120
        db.check()
