"""Full backups of leaf pages: what is in them, what is not, and the files that are made of them."""

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import amberdb
from amberdb import CorruptionError, Database, Ordered
from amberdb._fs import OsFileSystem
from amberdb.engine.backup.archive import Content, Header, Kind, archive_blocks, opened_archive
from amberdb.engine.backup.pages import pairs_of
from amberdb.engine.schema.keyspace import APPLIED, BUILT, LAST_TIME, LOCAL, META, end_of, prefix_of
from amberdb.engine.storage import store_writer, tree_file
from amberdb.engine.storage.data_file import read_metas, verify_file
from amberdb.engine.storage.leaves import Leaves, node_bytes_max
from amberdb.engine.storage.tree_file import TreeReader, meta_of
from amberdb.engine.storage.trees import scan
from support.damage import with_last_bit_flipped
from support.databases import SMALL, OpenDatabase, audited
from support.inside import engine_of, names_in
from support.reference import Doc
from unit.engine.helpers import all_pairs, data_file, raw_store
from unit.engine.pages import PAGE, leaves_of_pairs

FS = OsFileSystem()


def fill(db: Database, count: int, seed: int = 1) -> None:
    """Documents of all sizes: in a page, of odd and even size, at the limit, and of many pages."""
    rng = random.Random(seed)
    notes = db.collection("n", indexes=[Ordered("n"), Ordered("label", "n")])
    at_limit = node_bytes_max(PAGE)
    sizes = [*range(10), *range(at_limit - 120, at_limit + 10, 3), PAGE, 5 * PAGE, 100_000]
    numbers = list(range(count))
    rng.shuffle(numbers)
    notes.put_many(
        {
            "id": f"{n:04}",
            "n": n,
            "label": f"{rng.random()}" + "l" * rng.randrange(400),
            "text": rng.randbytes(rng.choice(sizes) // 2 + 1).hex(),
        }
        for n in numbers
    )


def documents(db: Database) -> dict[str, Doc]:
    return {doc["id"]: doc for doc in db.collection("n").documents()}


def contents_of(path: Path) -> tuple[Header, list[Content]]:
    """The header and the blocks of an archive with pages."""
    with opened_archive(FS, str(path)) as archive:
        blocks: list[Content] = []
        for block in archive.pages():
            if isinstance(block, bytes):
                blocks.append(Content(Kind.VALUES, 0, block))
            else:
                blocks.append(Content(Kind.PAGES, block.nodes, block.packed()))
        return archive.header, blocks


def stored_pairs(path: Path | str) -> dict[bytes, bytes]:
    with raw_store(path) as txn:
        return dict(all_pairs(txn))


# -- contents ------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [None, "zstd"])
@pytest.mark.parametrize("pages_max", [1, 3, 256])
def test_it_has_all_pairs_but_those_of_this_file(
    db: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    compress: Any,
    pages_max: int,
) -> None:
    if compress:
        pytest.importorskip("zstandard")
    monkeypatch.setattr(tree_file, "PAGES_BYTES", pages_max * PAGE)
    fill(db, 300)
    db.backup(tmp_path / "full", compress=compress, hold_log=False)
    with opened_archive(FS, str(tmp_path / "full")) as archive:
        assert (archive.header.format, archive.header.page_size) == (2, PAGE)
        found = [pair for block in pairs_of(archive) for pair in block]
    keys = [key for key, _ in found]
    assert keys == sorted(set(keys))
    local = {key for key in keys if key.startswith(LOCAL)}
    assert {APPLIED, LAST_TIME} == {key for key in local if not key.startswith(BUILT)}
    db.close()
    stored = stored_pairs(db.path)
    for key in stored.keys() - local:  # META has the commit of the backup itself
        if key[:4] in (META, LOCAL):
            del stored[key]
    assert {key: value for key, value in found if key[:4] != META}.keys() == stored.keys()
    assert all(stored[key] == value for key, value in found if key[:4] not in (META, LOCAL))


def test_a_restored_file_is_as_lmdb_makes_it(open_db: OpenDatabase, tmp_path: Path) -> None:
    db = open_db()
    fill(db, 900)
    wanted = documents(db)
    report = db.backup(tmp_path / "full")
    made = amberdb.restore(tmp_path / "full", tmp_path / "r.amber", **SMALL)
    assert made.pairs == report.items > 2700
    path = str(data_file(tmp_path / "r.amber"))
    assert verify_file(path) == []
    with audited(tmp_path / "r.amber") as copy:
        assert engine_of(copy).committer.store.stats()["depth"] > 2
        assert documents(copy) == wanted
        notes = copy.collection("n")
        for n in range(0, 900, 2):  # of every page
            notes.delete(f"{n:04}")
        copy.checkpoint()
        fill(copy, 1200, seed=2)
        copy.checkpoint()
        for n in range(1200):
            notes.delete(f"{n:04}")
        copy.checkpoint()
        assert documents(copy) == {}
    assert verify_file(path) == []


def test_keyspaces_without_a_tree_of_their_own(
    open_db: OpenDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between others that have one, as in a database that began in format 1, or with too many."""
    db = open_db()
    for number, room in enumerate((0, 1024, 2, 1024, 0)):
        monkeypatch.setattr(store_writer, "TREES_MAX", room)
        notes = db.collection(f"c{number}", indexes=[Ordered("n")], expires_at="until")
        notes.put_many(
            {"id": f"{n}", "n": n, "text": "t" * (n * 40), "until": 9e9} for n in range(300)
        )
        db.checkpoint()
    assert 0 < len(names_in(engine_of(db).committer.store)) < 15
    db.backup(tmp_path / "full")
    for room in (0, 4, 1024):
        monkeypatch.setattr(tree_file, "TREES_MAX", room)
        path = tmp_path / f"{room}.amber"
        amberdb.restore(tmp_path / "full", path, **SMALL)
        assert verify_file(str(data_file(path))) == []
        with audited(path) as copy:
            assert len(names_in(engine_of(copy).committer.store)) == min(room, 15)
            for number in range(5):
                name = f"c{number}"
                assert list(copy[name].documents()) == list(db[name].documents())
                assert copy[name].count({"n": {"$gte": 150}}) == 150
                copy[name].put({"id": "new", "n": 1})
            copy.checkpoint()


def test_a_file_of_one_page_and_every_number_of_pages(tmp_path: Path) -> None:
    """A branch page is divided so that none has a single child."""
    for count in (1, 2, 8, 9, 10, 40, 41, 57, 58, 400):
        path = tmp_path / f"{count}.mdb"
        file = FS.open(str(path), create=True)
        tree = tree_file.TreeWriter(file, PAGE)
        for number in range(count):
            key = b"key %05d " % number + b"k" * 480
            tree.add(leaves_of_pairs([(key, b"v")]), [key], [])
        tree.finish()
        file.close()
        assert verify_file(str(path)) == []
        data = path.read_bytes()
        for start in range(2 * PAGE, len(data), PAGE):
            if data[start + 10] == 1:
                assert int.from_bytes(data[start + 12 : start + 14], "little") >= 16 + 2 * 2


def test_a_damaged_large_document_stops_a_backup(open_db: OpenDatabase, tmp_path: Path) -> None:
    db = open_db()
    db.collection("n").put({"id": "large", "text": "z" * 3 * PAGE})
    key = prefix_of(db.definition("n").keyspace) + b"large"
    db.close()
    with raw_store(db.path) as txn:
        txn.put(key, with_last_bit_flipped(txn.get(key) or b""))
    with amberdb.open(db.path, **SMALL) as db, pytest.raises(CorruptionError, match="checksum"):
        db.backup(tmp_path / "b")
    assert os.listdir(tmp_path) == ["t.amber"]


def test_a_damaged_page_stops_a_backup_with_a_typed_error(db: Database) -> None:
    fill(db, 300)
    db.close()
    whole = data_file(db.path).read_bytes()
    meta = max(read_metas(whole))
    rng = random.Random(3)
    kinds = {
        flags: [at for at in range(2 * PAGE, len(whole), PAGE) if whole[at + 10] == flags]
        for flags in (1, 2, 4)
    }
    refused = dict.fromkeys(kinds, 0)
    for number in range(600):
        flags = (1, 2, 4)[number % 3]
        data = bytearray(whole)
        data[rng.choice(kinds[flags]) + rng.randrange(40)] = rng.choice((0, 1, 2, 4, 255))
        tree = TreeReader(memoryview(data), meta, lambda: False)
        try:
            for leaves in tree.leaves():
                for _, page, size in leaves.large():
                    tree.value(page, size)
        except CorruptionError:
            refused[flags] += 1
    assert min(refused.values()) > 10, refused


# -- nothing that was deleted ----------------------------------------------------------------------


def test_nothing_deleted_is_in_a_backup_or_what_is_made_of_it(
    open_db: OpenDatabase, tmp_path: Path
) -> None:
    db = open_db()
    notes = db.collection("n", indexes=[Ordered("label")])
    for n in range(400):
        secret = f"unspeakable{n:03}"
        notes.put({"id": f"{secret}-id", "label": f"{secret}-label", "text": f"{secret}-text"})
        notes.put({"id": f"{n:03}", "label": f"l{n}", "text": "x" * (n % 50)})
        if n % 40 == 0:
            notes.put({"id": f"{secret}-large", "label": "l", "text": f"{secret}-text" * 800})
            db.checkpoint()
    db.checkpoint()
    notes.delete_many({"id": {"$gte": "unspeakable"}})
    for n in range(0, 400, 2):  # of odd and even sizes, in the place of the old ones
        notes.put({"id": f"{n:03}", "label": f"l{n}", "text": "y" * (n % 60)})
    wanted = documents(db)
    assert len(wanted) == 400
    report = db.backup(tmp_path / "full")
    assert b"unspeakable" in data_file(db.path).read_bytes(), "it was not compacted"
    assert b"unspeakable" not in (tmp_path / "full").read_bytes(), "and not compressed"
    assert report.size_bytes < os.path.getsize(data_file(db.path)) / 2
    amberdb.restore(tmp_path / "full", tmp_path / "r.amber", **SMALL)
    for path in (tmp_path / "r.amber").rglob("*"):
        assert path.is_dir() or b"unspeakable" not in path.read_bytes(), path
    with audited(tmp_path / "r.amber") as copy:
        assert documents(copy) == wanted


def test_every_byte_of_a_packed_page_is_of_a_node(db: Database, tmp_path: Path) -> None:
    """The byte behind a node of odd size, pad and the free space are zeros in a restored file."""
    fill(db, 200)
    db.backup(tmp_path / "full")
    for kind, nodes, data in contents_of(tmp_path / "full")[1]:
        if kind == Kind.PAGES:
            leaves = Leaves.unpacked(data, PAGE)
            assert leaves.nodes == nodes
            assert leaves.packed() == data
            used = bytearray(len(leaves.pages))
            for start, size in _nodes(bytes(leaves.pages)):
                used[start : start + size] = b"\1" * size
            unused = [byte for byte, is_used in zip(leaves.pages, used, strict=True) if not is_used]
            assert not any(unused)


def _nodes(pages: bytes) -> Iterator[tuple[int, int]]:
    """(start, size) of all nodes, and of the filled part of each header."""
    for page in range(0, len(pages), PAGE):
        words = memoryview(pages[page : page + PAGE]).cast("H")
        yield page + 10, words[6] - 10
        for offset in words[8 : words[6] // 2]:
            low, high, flags, key_size = words[offset // 2 : offset // 2 + 4]
            yield page + offset, 8 + key_size + (8 if flags else low | high << 16)


# -- pages of another LMDB -------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"lmdb_version": 0x0A0000}, {"lmdb_version": 0}])
def test_pages_of_another_lmdb_are_restored_as_pairs(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, int]
) -> None:
    fill(db, 300)
    db.backup(tmp_path / "full")
    header, blocks = contents_of(tmp_path / "full")
    other = tmp_path / "other"
    other.write_bytes(b"".join(archive_blocks(replace(header, **change), blocks, compress=False)))
    amberdb.restore(tmp_path / "full", tmp_path / "s.amber", **SMALL)
    monkeypatch.setattr(tree_file, "TreeWriter", None)
    made = amberdb.restore(other, tmp_path / "r.amber", **SMALL)
    assert made.documents == 300
    first, second = stored_pairs(tmp_path / "r.amber"), stored_pairs(tmp_path / "s.amber")
    assert first.keys() == second.keys()
    changed = {key[:5] for key in first if first[key] != second[key]}
    assert changed == {META + b"k", LOCAL + b"d"}, "the path of the backup, and the id"
    with audited(tmp_path / "r.amber") as copy:
        assert documents(copy) == documents(db)


def test_pages_of_another_size_are_restored_as_pairs(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_file, "TreeWriter", None)
    size = 4 * PAGE
    notes = db.collection("n", indexes=[Ordered("n")])
    notes.put_many({"id": f"{n:04}", "n": n, "text": "t" * (n % 300)} for n in range(500))
    db.backup(tmp_path / "full")
    with opened_archive(FS, str(tmp_path / "full")) as archive:
        header = archive.header
        pairs = [pair for block in pairs_of(archive) for pair in block]
    leaves = leaves_of_pairs(pairs, size)
    block = Content(Kind.PAGES, leaves.nodes, leaves.packed())
    parts = archive_blocks(replace(header, page_size=size), [block], compress=False)
    (tmp_path / "other").write_bytes(b"".join(parts))
    assert amberdb.verify_backup(tmp_path / "other")[0].items == len(pairs)
    amberdb.restore(tmp_path / "other", tmp_path / "r.amber", **SMALL)
    with audited(tmp_path / "r.amber") as copy:
        assert documents(copy) == documents(db)


# -- while others write ----------------------------------------------------------------------------


def test_the_meta_page_of_a_read_is_taken_while_it_is_sure_to_be_whole(db: Database) -> None:
    fill(db, 10)
    db.checkpoint()
    store = engine_of(db).committer.store

    def commit() -> None:
        with store.write() as writer:
            writer.put(b"\0\0\0\1p", b"")

    txn = store.begin()
    meta = meta_of(FS, store.path, txn.id())
    assert meta is not None
    tree = TreeReader(FS.map(store.path), meta, lambda: False)
    before = [key for leaves in tree.leaves() for key, _ in leaves.pairs()]
    trees = store.trees
    assert before == [
        key
        for prefix in trees.keyspaces(txn)
        for key, _ in scan(trees.cursor(txn, prefix), prefix, end_of(prefix))
    ]
    commit()
    assert meta_of(FS, store.path, txn.id()) is None, "the next commit but one writes over it"
    commit()
    assert meta_of(FS, store.path, txn.id()) is None
    fill(db, 500)
    db.checkpoint()
    tree = TreeReader(FS.map(store.path), meta, lambda: False)
    assert before == [key for leaves in tree.leaves() for key, _ in leaves.pairs()]
    txn.abort()


def test_a_backup_begins_again_when_its_meta_page_may_be_gone(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = meta_of

    def late(fs: Any, path: str, transaction: int) -> Any:
        asked.append(transaction)
        if len(asked) < 3:
            db.collection("n").put({"id": f"{len(asked)}"})
            db.checkpoint()
        return real(fs, path, transaction)

    monkeypatch.setattr(tree_file, "meta_of", late)
    fill(db, 10)
    report = db.backup(tmp_path / "full")
    assert len(set(asked)) == 3
    assert report.documents == {"n": 12}
    amberdb.restore(tmp_path / "full", tmp_path / "r.amber", **SMALL)
    shutil.rmtree(tmp_path / "r.amber")
