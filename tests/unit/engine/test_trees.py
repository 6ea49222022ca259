"""Each keyspace has a tree of its own in data.mdb, whoever makes it and whoever looks."""

import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

import amberdb
from amberdb import CorruptionError, Ordered
from amberdb._fs import OsFileSystem
from amberdb.engine.integrity.lmdb_pages import Gap, Pages
from amberdb.engine.schema.keyspace import APPLIED, end_of, prefix_of
from amberdb.engine.storage import store_writer
from amberdb.engine.storage.store import Store
from amberdb.engine.storage.trees import Trees, name_of, prefix_in, scan
from support.databases import OpenDatabase
from support.inside import environment_of, names_in
from unit.engine.helpers import all_pairs, data_file, raw_store

FS = OsFileSystem()
A, B, C = (prefix_of(number) for number in (16, 17, 300))
Pairs = list[tuple[bytes, bytes]]


@pytest.fixture
def directory(tmp_path: Path) -> str:
    path = tmp_path / "data-1"
    path.mkdir()
    return str(path)


def made(directory: str, *, create: bool = True, follows: bool = False) -> Store:
    return Store(directory, fs=FS, create=create, map_bytes=1 << 26, beside=follows)


def put(store: Store, *pairs: tuple[bytes, bytes]) -> None:
    with store.write() as writer:
        writer.put_sorted(pairs)


def all_of(store: Store) -> Pairs:
    txn = store.begin()
    pairs: Pairs = []
    for prefix in store.trees.keyspaces(txn):
        pairs += scan(store.trees.cursor(txn, prefix), prefix, end_of(prefix))
    txn.abort()
    return pairs


def unused() -> NoReturn:
    raise AssertionError("released")


def test_names() -> None:
    assert name_of(A) == b"00000010"
    assert prefix_in(b"00000010") == A
    for name in (b"0000000f", b"0000001", b"000000100", b"0000001G", b"000000AB", b"\xff" * 8):
        assert prefix_in(name) is None


def test_a_pair_goes_to_the_tree_of_its_keyspace(directory: str) -> None:
    store = made(directory)
    pairs = [(APPLIED, b"1"), (A + b"k", b"a"), (B + b"k", b"b"), (C + b"k", b"c")]
    put(store, *pairs)
    assert all_of(store) == pairs
    assert [store.get(key) for key, _ in pairs] == [b"1", b"a", b"b", b"c"]
    assert names_in(store) == [b"00000010", b"00000011", b"0000012c"]
    assert store.stats()["entries"] == len(pairs)
    with store.write() as writer:
        writer.delete(A + b"k")
        assert writer.get(A + b"k") is None
        assert writer.keyspaces() == [APPLIED[:4], B, C]
        assert writer.last_before(B + b"z") == B + b"k"
        assert writer.delete_range(C, end_of(C), 10) == 1
    assert all_of(store) == [pairs[0], pairs[2]]
    store.close()
    again = made(directory, create=False)
    assert all_of(again) == [pairs[0], pairs[2]]
    again.close()


def test_an_older_transaction_has_nothing_of_a_newer_tree(directory: str) -> None:
    store = made(directory)
    put(store, (A + b"k", b"a"))
    trees = store.trees
    before = store.begin()
    put(store, (B + b"k", b"b"))
    assert trees.get(before, B + b"k") is None
    assert trees.getter_of(before, B)(B + b"k") is None
    assert list(scan(trees.cursor(before, B), B, end_of(B))) == []
    assert trees.keyspaces(before) == [A]
    assert trees.get(before, A + b"k") == b"a"
    assert len(trees.stats(before)) == 2
    before.abort()
    assert store.get(B + b"k") == b"b"
    store.close()


class Torn:
    """A read transaction that LMDB begins while a commit ends: it has the commit, and may not use
    the trees that this has made."""

    def __init__(self, before: Any, commit: int) -> None:
        self.stat, self.abort = before.stat, before.abort
        self.id = lambda: commit


def test_a_transaction_begun_while_a_commit_ends_is_begun_again(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = made(directory)
    env = environment_of(store)
    before = env.begin()
    put(store, (A + b"k", b"a"))
    commit = env.info()["last_txnid"]
    begun: list[Any] = [Torn(before, commit), env.begin()]
    monkeypatch.setattr(store, "_begin", lambda: begun.pop(0))
    txn = store.begin()
    assert begun == []
    assert store.trees.get(txn, A + b"k") == b"a"
    txn.abort()
    store.close()


def test_trees_of_a_commit_that_fails_are_forgotten(directory: str) -> None:
    store = made(directory)
    put(store, (A + b"k", b"a"))
    tree = store.trees.all()[A]
    store.trees.publish({B: tree}, 99)
    assert store.trees.of(B) is tree
    store.trees.retract({B: tree})
    assert store.trees.all() == {A: tree}
    assert store.get(B + b"k") is None
    store.close()


def test_an_aborted_write_leaves_no_tree(directory: str) -> None:
    store = made(directory)
    with suppress(ZeroDivisionError), store.write() as writer:
        writer.put(A + b"k", b"a")
        raise ZeroDivisionError
    assert store.get(A + b"k") is None
    assert all_of(store) == []
    put(store, (B + b"k", b"b"))
    assert store.get(A + b"k") is None
    put(store, (A + b"k", b"a"))
    assert all_of(store) == [(A + b"k", b"a"), (B + b"k", b"b")]
    store.close()


def test_a_keyspace_in_the_unnamed_tree_stays_there(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of a file of format 1, and one for which there was no room."""
    monkeypatch.setattr(store_writer, "TREES_MAX", 1)
    store = made(directory)
    put(store, (A + b"1", b"a"), (B + b"1", b"b"), (C + b"1", b"c"))
    assert names_in(store) == [b"00000010"]
    monkeypatch.undo()
    put(store, (B + b"2", b"b"), (C + b"0", b"c"))
    expected = [(A + b"1", b"a"), (B + b"1", b"b"), (B + b"2", b"b")]
    expected += [(C + b"0", b"c"), (C + b"1", b"c")]
    assert all_of(store) == expected
    assert store.stats()["entries"] == len(expected)
    store.close()
    again = made(directory, create=False)
    assert all_of(again) == expected
    again.close()


@pytest.mark.parametrize("order", ["ascending", "with some before", "descending"])
def test_runs_of_keys_are_all_stored(directory: str, order: str) -> None:
    """Some past the end of the tree are appended, the others are put in."""
    store = made(directory)
    runs = [[(A + b"%04d" % n, b"v%d" % n) for n in range(at, at + 50)] for at in range(0, 500, 50)]
    if order == "descending":
        runs.reverse()
    elif order == "with some before":
        for n, run in enumerate(runs[1:], 1):
            run += [(A + b"%04dx" % (n * 50 - 7), b"between"), (A + b"0003", b"again %d" % n)]
            run.sort()
    expected: dict[bytes, bytes] = {}
    for run in runs:
        put(store, *run)
        expected.update(run)
    assert all_of(store) == sorted(expected.items())
    store.close()


def test_ascending_keys_fill_their_pages(directory: str) -> None:
    """Beside those of the next keyspace, where one tree for both leaves pages half empty."""
    store = made(directory)
    for at in range(0, 10_000, 100):
        run = [(A + b"%08d" % n, b"v" * 20) for n in range(at, at + 100)]
        put(store, *run, (B + b"%08d" % at, b"b"))
    assert store.used_bytes < 1.05 * 10_000 * (12 + 20 + 10)
    store.close()


def test_who_follows_finds_trees_that_were_made_since(directory: str) -> None:
    store = made(directory)
    put(store, (A + b"k", b"a"))
    reader = made(directory, create=False, follows=True)
    assert all_of(reader) == [(A + b"k", b"a")]
    txn = reader.begin()
    put(store, (B + b"k", b"b"))
    assert reader.trees.get(txn, B + b"k") is None
    txn.abort()
    txn = reader.begin()
    assert reader.trees.get(txn, B + b"k") == b"b"
    txn.abort()
    store.release(unused)
    reader.release(unused)


def test_trees_that_threads_open_at_the_same_time_are_all_kept(directory: str) -> None:
    store = made(directory)
    put(store, *[(prefix_of(number) + b"k", b"v") for number in range(16, 80)])
    trees = store.trees.all()
    together = Trees(environment_of(store))
    threads = [
        threading.Thread(target=together.publish, args=({prefix: tree}, 1))
        for prefix, tree in trees.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together.all() == trees
    store.close()


def test_a_snapshot_sees_no_tree_of_later(open_db: OpenDatabase) -> None:
    db = open_db()
    notes = db.collection("n")
    notes.put({"id": "a", "x": 1})
    with db.snapshot() as at:
        db.collection("n", indexes=[Ordered("x")])
        db.build_indexes()
        notes.put({"id": "b", "x": 1})
        db.checkpoint()
        assert [document["id"] for document in at["n"].find({"x": 1})] == ["a"]
    assert len(notes.find({"x": 1})) == 2


def filled(open_db: OpenDatabase) -> Path:
    """The data file of a closed database with 90 documents and as many entries."""
    db = open_db()
    db.collection("n", indexes=[Ordered("x")]).put_many({"id": str(n), "x": n} for n in range(90))
    db.close()
    return data_file(db.path)


def pairs_in(path: Path) -> tuple[Pairs, list[Gap], int]:
    """What can be read without LMDB, what may be missing, and the root of the unnamed tree."""
    file = FS.open(str(path), read_only=True)
    pages = Pages(file)
    gaps: list[Gap] = []
    pairs = list(pages.pairs(pages.metas[0], gaps))
    file.close()
    return pairs, gaps, pages.metas[0].main.root


def test_where_names_are_lost_every_keyspace_may_be(open_db: OpenDatabase) -> None:
    path = filled(open_db)
    whole = path.read_bytes()
    pairs, gaps, root = pairs_in(path)
    assert len(pairs) > 180
    assert pairs == sorted(pairs)
    assert gaps == []
    path.write_bytes(whole[: root * 4096] + bytes(4096) + whole[(root + 1) * 4096 :])
    pairs, gaps, _ = pairs_in(path)
    assert pairs == []
    assert Gap(prefix_of(16), None, root) in gaps
    report = amberdb.repair(path.parents[1])
    assert report.documents == {"recovered-16": 90}  # the catalog was in that page too
    path.write_bytes(whole)


@pytest.mark.parametrize("name", [b"00000010", b"00000012"])
@pytest.mark.parametrize("part", ["name", "root", "size"])
def test_a_tree_that_cannot_be_is_a_gap(open_db: OpenDatabase, name: bytes, part: str) -> None:
    path = filled(open_db)
    whole = path.read_bytes()
    _, _, root = pairs_in(path)
    at = whole.index(name, root * 4096)
    place, changed = {"name": (at, b"z"), "root": (at + 8 + 40, b"\xff"), "size": (at - 8, b"\1")}[
        part
    ]
    path.write_bytes(whole[:place] + changed + whole[place + 1 :])
    _, gaps, _ = pairs_in(path)
    assert gaps
    assert amberdb.check(path.parents[1]).problems
    assert amberdb.repair(path.parents[1]).documents == {"n": 90}
    path.write_bytes(whole)


def test_more_keyspaces_than_trees(open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_writer, "TREES_MAX", 5)
    db = open_db()
    for number in range(6):
        notes = db.collection(f"n{number}", indexes=[Ordered("x")])
        notes.put_many({"id": f"{n}", "x": n % 3} for n in range(30))
        db.checkpoint()
    db.compact()
    for number in range(6):
        db[f"n{number}"].delete("7")
        assert db[f"n{number}"].count({"x": 1}) == 9
    db.close()
    with raw_store(db.path) as writer:
        assert len({key[:4] for key, _ in all_pairs(writer)}) == 2 + 6 * 2
    assert open_db()["n5"].find({"x": 2}, limit=1)[0]["id"] == "2"


def test_an_error_of_a_damaged_tree_names_the_file(open_db: OpenDatabase) -> None:
    db = open_db()
    db.collection("n").put_many({"id": f"{n:03}", "t": "x" * 300} for n in range(200))
    db.close()
    path = data_file(db.path)
    whole = path.read_bytes()
    data = bytearray(whole)
    for start in range(8192, len(data), 4096):
        if data[start + 10] == 1:  # an inner page: its children are past the end of the file
            lower = int.from_bytes(data[start + 12 : start + 14], "little")
            for place in range(start + 16, start + lower, 2):
                data[start + int.from_bytes(data[place : place + 2], "little") + 2] = 0x70
    path.write_bytes(data)
    with amberdb.open(db.path) as db, pytest.raises(CorruptionError, match=r"data\.mdb"):
        db["n"].get("007")
    path.write_bytes(whole)
