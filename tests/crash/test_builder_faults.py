"""Writing a file in cache/ fails at every call, once or from then on: nobody who reads or writes
notices, a warning says so, searches are right, and the next opening leaves nothing unfinished."""

import errno
import logging
import random
import threading
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import CommitUnknownError, Database, PoisonedError, Text, Vector
from amberdb.index.vector.hnsw import Graph, library
from support import slices
from support.databases import SMALL, assert_sound
from support.faulty_fs import KINDS, FaultyFileSystem
from support.inside import engine_of
from support.searches import DIM, compare_searches, drawn_text, drawn_vector, small_limits

WHERE = "/cache"


@pytest.fixture(autouse=True)
def _small() -> object:
    with small_limits():
        yield


def opened(path: Path, fs: FaultyFileSystem, *, background: bool = False) -> Database:
    options: dict[str, Any] = {**SMALL, "background": background}
    db = amberdb.open(path, **options, fs=fs)
    db.collection("n", indexes=[Text("text"), Vector("v", dim=DIM)])
    return db


def put(db: Database, rng: random.Random, first: int) -> None:
    db.collection("n").put_many(
        {"id": f"{n:03}", "text": drawn_text(rng), "v": drawn_vector(rng).tolist()}
        for n in range(first, first + 12)
    )


def workload(db: Database) -> None:
    """Three files, each in place of the one before; many rows die before the last."""
    rng = random.Random(1)
    for first in (0, 12, 6):
        put(db, rng, first)
        compare_searches(db, rng)
        db.build_indexes()
        compare_searches(db, rng)


def calls_of(tmp_path: Path, kind: str) -> int:
    fs = FaultyFileSystem(where=WHERE)
    db = opened(tmp_path / "count.amber", fs)
    fs.arm((kind,))
    workload(db)
    db.close()
    return fs.counted


def after_it(path: Path) -> None:
    with amberdb.open(path, **SMALL) as again:
        assert again.recovery is None
        assert not [one for one in (path / "cache").glob("*") if one.suffix != ".cache"]
        rng = random.Random(2)
        compare_searches(again, rng)
        again.build_indexes()
        compare_searches(again, rng)
        assert_sound(again)
    assert len(list((path / "cache").glob("*.cache"))) == 1


@pytest.mark.slow
@pytest.mark.sliced
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize(
    ("kind", "code"),
    [
        *((kind, errno.EIO) for kind in ("open", "pwrite", "sync", "rename", "sync_dir")),
        *((kind, errno.ENOSPC) for kind in ("open", "short pwrite")),
    ],
)
def test_every_fault_of_a_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, code: int, lasting: bool
) -> None:
    torn = kind == "short pwrite"
    kind = kind.removeprefix("short ")
    count = calls_of(tmp_path, kind)
    assert count >= (1 if library() is None else 3)  # a graph is written more than once
    for fail_at in slices.every(8, range(1, count + 1)):
        fs = FaultyFileSystem(where=WHERE)
        db = opened(tmp_path / f"{fail_at}.amber", fs)
        fs.arm((kind,), fail_at, code, lasting=lasting, torn=torn)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            workload(db)
            assert "was not written" in caplog.text, fs.failed
        assert_sound(db)
        db.close()
        after_it(tmp_path / f"{fail_at}.amber")


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_a_folder_that_takes_nothing_beside_a_builder_at_work(tmp_path: Path, code: int) -> None:
    fs = FaultyFileSystem(where=WHERE)
    db = opened(tmp_path / "t.amber", fs, background=True)
    fs.arm(KINDS, 1, code, lasting=True)
    workload(db)
    db.close()
    assert fs.failed
    assert not (tmp_path / "t.amber" / "cache").exists()
    after_it(tmp_path / "t.amber")


def test_the_builder_cannot_sync_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It writes no file of rows that may be lost, and the database is as after any failed sync."""
    fs = FaultyFileSystem()
    db = opened(tmp_path / "t.amber", fs)
    rng = random.Random(1)
    with db.transaction(sync="os") as tx:
        tx["n"].put({"id": "unsynced", "text": drawn_text(rng), "v": drawn_vector(rng).tolist()})
    compare_searches(db, rng)
    fs.arm(("sync",), 1)
    with caplog.at_level(logging.WARNING):
        engine_of(db).searchers.save()
    assert fs.failed
    assert "was not written" in caplog.text
    assert not (tmp_path / "t.amber" / "cache").exists()
    compare_searches(db, rng)
    with pytest.raises(PoisonedError):
        put(db, rng, 0)
    with pytest.raises(CommitUnknownError):
        db.sync()
    db.close()
    with amberdb.open(tmp_path / "t.amber", **SMALL) as again:
        assert "unsynced" in again.collection("n")
        compare_searches(again, rng)
        assert_sound(again)


@pytest.mark.skipif(library() is None, reason="needs the extra hnsw")
@pytest.mark.parametrize("error", [MemoryError, RuntimeError, ValueError])
def test_a_graph_that_cannot_be_built(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[Exception],
) -> None:
    """In the builder's thread: searches are exact, and it is tried again."""
    db = opened(tmp_path / "t.amber", FaultyFileSystem(), background=True)
    rng = random.Random(1)

    failed = threading.Event()

    def fail(*_: object) -> None:
        failed.set()
        raise error("deliberate")

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(Graph, "add", fail)
        put(db, rng, 0)
        ways = compare_searches(db, rng)
        assert not ways["graph"]
        assert failed.wait(30)
        engine_of(db).searchers.stop()
        assert "the graph of vector:v failed, and is tried again" in caplog.text
        compare_searches(db, rng)
        db.close()
    db = opened(tmp_path / "t.amber", FaultyFileSystem())
    compare_searches(db, rng)
    db.build_indexes()
    assert compare_searches(db, rng)["graph"]
    db.close()
