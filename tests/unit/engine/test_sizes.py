"""What is full, and what a database does then: the address space, LMDB's map, the file system, the
size that an option allows."""

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import (
    Database,
    DiskFullError,
    Ordered,
    StorageFullError,
    Text,
    Vector,
)
from amberdb._fs import what_is_full
from support.databases import SMALL, OpenDatabase, assert_sound
from support.faulty_fs import FaultyFileSystem, fail_on
from support.inside import engine_of
from support.reading import ReadingProcess

fork = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
MIB = 1 << 20


def in_child(work: Callable[[], None]) -> None:
    """In a process of its own, whose limits it may change."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


def limit_address_space(room: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + room
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def fill(db: Database, numbers: range, size: int = 1000) -> None:
    notes = db.collection("n", indexes=[Ordered("x"), Text("text"), Vector("v", dim=2)])
    notes.put_many(
        {"id": f"{n:05}", "x": n % 7, "text": f"umbrella {n} " + "x" * size, "v": [n, 1.0]}
        for n in numbers
    )


# -- the map ---------------------------------------------------------------------------------


def test_hundreds_of_databases_are_open_at_once(tmp_path: Path) -> None:
    databases = [amberdb.open(tmp_path / str(n), background=False) for n in range(200)]
    databases[-1].collection("n").put({"id": "a"})
    databases[-1].checkpoint()
    assert_sound(databases[-1])
    for db in databases:
        db.close()


@fork
def test_a_map_is_as_large_as_the_address_space_allows(tmp_path: Path) -> None:
    def work() -> None:
        limit_address_space(1 << 30)
        for n in range(3):
            with amberdb.open(tmp_path / str(n), background=False) as db:
                assert MIB <= engine_of(db).committer.store.map_bytes <= 1 << 29
                fill(db, range(10))
                db.checkpoint()
                assert_sound(db)
        with amberdb.open(tmp_path / "0", read_only=True) as reader:
            assert len(reader.collection("n")) == 10

    in_child(work)


@fork
def test_without_address_space_open_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    def work() -> None:
        limit_address_space(MIB // 2)
        with pytest.raises(amberdb.OpenError, match=r"address space .* a smaller map_bytes"):
            amberdb.open(tmp_path / "t.amber", background=False)
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
        assert os.listdir(tmp_path) == []

    in_child(work)


def test_a_map_grows_with_the_data_and_under_a_snapshot(open_db: OpenDatabase) -> None:
    db = open_db(map_bytes=MIB)
    fill(db, range(100))
    db.checkpoint()
    with db.snapshot() as before:
        for start in range(100, 3000, 500):
            fill(db, range(start, start + 500))
            db.checkpoint()
        assert len(before["n"]) == 100
        assert len(before["n"].find({"x": 3})) == 14
    assert engine_of(db).committer.store.map_bytes > MIB
    assert len(db.collection("n")) == 3100
    assert len(db.collection("n").search("umbrella", limit=10)) == 10
    db.compact()
    assert_sound(db)
    db.close()
    db = open_db(map_bytes=MIB)
    fill(db, range(4000, 4500))
    db.checkpoint()
    assert len(db.collection("n")) == 3600
    assert_sound(db)


def test_a_map_grows_while_an_index_is_built_or_merged(open_db: OpenDatabase) -> None:
    db = open_db(map_bytes=3 * MIB)
    notes = db.collection("n")
    notes.put_many({"id": f"{n:05}", "text": f"a{n} b{n} " + "y" * 400} for n in range(3000))
    db.checkpoint()
    size = engine_of(db).committer.store.map_bytes
    notes = db.collection("n", indexes=[Ordered("text"), Text("text"), Ordered("id", "text")])
    db.build_indexes()
    assert engine_of(db).committer.store.map_bytes > size
    assert len(notes.find({"text": {"$gte": "a"}})) == 3000
    assert_sound(db)


@fork
def test_a_map_that_cannot_grow_names_the_option_and_loses_nothing(tmp_path: Path) -> None:
    def work() -> None:
        db = amberdb.open(tmp_path / "t.amber", background=False, map_bytes=MIB)
        fill(db, range(100))
        db.checkpoint()
        fill(db, range(100, 300), size=200_000)  # far more than Python gives back meanwhile
        limit_address_space(3 * MIB)
        with pytest.raises(StorageFullError, match="map_bytes"):
            db.checkpoint()
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
        db.checkpoint()
        assert len(db.collection("n")) == 300
        assert_sound(db)
        db.close()

    in_child(work)


def test_a_reader_follows_a_file_that_outgrows_its_map(open_db: OpenDatabase) -> None:
    db = open_db(map_bytes=64 * MIB)
    fill(db, range(10))
    db.checkpoint()
    with ReadingProcess(db.path, map_bytes=MIB) as reader:
        for end in (1500, 3000):
            fill(db, range(end - 1500, end))
            db.checkpoint()
            assert reader.ask("len(db['n'])") == end
        reader.ask("kept.update(at=db.snapshot())")
        fill(db, range(3000, 9000))
        db.checkpoint()
        with pytest.raises(StorageFullError, match="close snapshots"):
            reader.ask("len(db['n'])")
        assert reader.ask("len(kept['at']['n'])") == 3000
        reader.ask("kept['at'].close()")
        assert reader.ask("len(db['n'])") == 9000


def test_a_restore_of_more_than_the_map_holds(open_db: OpenDatabase, tmp_path: Path) -> None:
    db = open_db()
    fill(db, range(2000))
    db.backup(tmp_path / "b")
    small: dict[str, Any] = {**SMALL, "map_bytes": MIB}
    amberdb.restore(tmp_path / "b", tmp_path / "r", **small)
    with amberdb.open(tmp_path / "r", **small) as made:
        assert len(made.collection("n")) == 2000
        assert_sound(made)


# -- the file system -------------------------------------------------------------------------


class NoInodes:
    f_files, f_favail, f_bavail = 100, 0, 1 << 20


def test_missing_inodes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert what_is_full(str(tmp_path)) == "no space is left: free some"
    monkeypatch.setattr(os, "statvfs", lambda path: NoInodes())  # pyright: ignore
    full = OSError(errno.ENOSPC, "no space", str(tmp_path / "x"))
    with pytest.raises(DiskFullError, match="no inode is left"):
        amberdb.open(tmp_path / "t", **SMALL, fs=FaultyFileSystem(hook=fail_on("open", "t", full)))


# -- size_bytes_max --------------------------------------------------------------------------


def size_of(path: str) -> int:
    return sum(each.stat().st_size for each in Path(path).rglob("*") if each.is_file())


def fill_up(db: Database, start: int = 0) -> list[str]:
    """Puts documents until it is full. Returns the ids of those that were acknowledged."""
    notes, ids = db.collection("n"), list[str]()
    for n in range(start, start + 100_000):
        try:
            ids.append(notes.put({"id": f"{n:06}", "text": f"umbrella {n} " + "x" * 2000}))
        except StorageFullError:
            return ids
    raise AssertionError("it has no limit")


@pytest.mark.parametrize("background", [False, True])
def test_at_the_limit_writes_are_refused_and_deletes_go_on(
    open_db: OpenDatabase, background: bool
) -> None:
    limit = 8 * MIB
    db = open_db(size_bytes_max=limit, sync="os", background=background)
    db.collection("n", indexes=[Text("text")])
    ids = fill_up(db)
    assert limit / 4 < len(ids) * 2000 < limit
    assert size_of(db.path) < 2 * limit
    notes = db.collection("n")
    with pytest.raises(StorageFullError, match="size_bytes_max"):
        notes.put({"id": "more"})
    for write in (
        lambda: notes.put({"id": "more"}),
        lambda: notes.insert({"id": "more"}),
        lambda: notes.update(ids[0], {"x": 1}),
        lambda: notes.put_many([{"id": "more"}]),
    ):
        with pytest.raises(StorageFullError):
            write()
    assert list(notes) == ids
    assert notes.get(ids[0])
    assert notes.delete(ids[0])
    assert db.erase("n", {"id": ids[1]}, reason="asked").completed is not None
    notes.delete_many({"id": {"$lt": ids[len(ids) // 2]}})
    db.compact()
    notes.put({"id": "fits"})
    assert_sound(db)
    db.close()
    db = open_db(size_bytes_max=limit, sync="os", background=background)
    assert "fits" in db.collection("n")
    fill_up(db, start=200_000)
    assert_sound(db)
    db.close()
    db = open_db(size_bytes_max=limit)
    assert len(fill_up(db, start=300_000)) < len(ids) / 4
    db.close()
    db = open_db()
    db.collection("n").put({"id": "without a limit"})
    assert_sound(db)


def test_a_transaction_at_the_limit_stores_nothing(open_db: OpenDatabase) -> None:
    db = open_db(size_bytes_max=2 * MIB, sync="os")
    ids = fill_up(db)
    tx = db.transaction().__enter__()
    tx["n"].delete(ids[0])
    with pytest.raises(StorageFullError) as caught:
        tx["n"].put({"id": "more"})
    tx.__exit__(StorageFullError, caught.value, None)
    assert list(db.collection("n")) == ids
    with db.transaction() as tx:
        tx["n"].delete(ids[0])
    assert list(db.collection("n")) == ids[1:]
    assert_sound(db)


@pytest.mark.parametrize("size", [0, 1, MIB - 1, -1])
def test_a_limit_that_is_too_small_is_refused(open_db: OpenDatabase, size: int) -> None:
    with pytest.raises(ValueError, match="size_bytes_max"):
        open_db(size_bytes_max=size)


def test_restored_and_read_only_databases_have_the_option(
    open_db: OpenDatabase, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"size_bytes_max": 4 * MIB}
    db = open_db(**options)
    db.collection("n").put({"id": "a"})
    db.backup(tmp_path / "b")
    amberdb.restore(tmp_path / "b", tmp_path / "r", **SMALL, **options)
    with amberdb.open(tmp_path / "r", read_only=True, **SMALL, **options) as reader:
        assert list(reader.collection("n")) == ["a"]
    assert_sound(db)
