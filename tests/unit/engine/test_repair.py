"""repair(): readable documents are kept, losses are reported, and no file is destroyed."""

import os
import shutil
from pathlib import Path

import pytest

import amberdb
from amberdb import Ordered, RepairReport, StorageError, Unique
from amberdb._fs import OsFileSystem
from amberdb.engine.integrity.lmdb_pages import Gap, Pages
from amberdb.engine.schema.document_format import pack, unpack
from amberdb.engine.storage.data_file import Tree
from support import slices
from support.databases import SMALL, assert_sound
from support.inside import engine_of
from support.reference import Doc
from unit.engine.helpers import data_file, raw_store
from unit.engine.test_offline import content
from unit.wal.helpers import join_preparation

Documents = dict[str, Doc]
COUNT = 1200


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A closed database with inner pages, indexes, free pages with older versions, and deleted
    documents."""
    path = tmp_path / "t.amber"
    with amberdb.open(path, **SMALL) as db:
        notes = db.collection(
            "n", indexes=[Ordered("x", "-text"), Unique("key")], expires_at="until"
        )
        other = db.collection("other")
        for turn in range(3):
            notes.put_many(
                {
                    "id": f"{n:04}",
                    "x": n + turn,
                    "key": n,
                    "text": "t" * (5000 if n % 200 == 7 else 80),
                    "until": 9e9 if n % 3 else None,
                }
                for n in range(COUNT)
            )
            db.checkpoint()
        notes.delete_many({"x": {"$lt": 100}})
        other.put_many({"id": str(n)} for n in range(5))
    join_preparation()
    return path


def documents(path: Path, name: str = "n") -> Documents:
    """The documents of a database that passes check()."""
    with amberdb.open(path, create=False, **SMALL) as db:
        assert_sound(db)
        return {doc["id"]: doc for doc in db.collection(name).documents()}


def repaired(path: Path) -> RepairReport:
    """Repairs; before that a run without `apply` changes nothing and reports the same."""
    before = content(path)
    plan = amberdb.repair(path, **SMALL)
    assert content(path) == before
    assert not plan.applied
    report = amberdb.repair(path, apply=True, **SMALL)
    assert report.applied
    for name in ("problems", "lost_lsns", "documents", "missing", "lost_ids", "doubtful"):
        assert getattr(plan, name) == getattr(report, name), name
    assert all(os.path.exists(broken) for broken in report.broken)
    assert not amberdb.repair(path, **SMALL).is_needed
    return report


def tree_pages(path: Path) -> tuple[list[int], list[int]]:
    """(inner pages, leaf pages) of the trees in use."""
    file = OsFileSystem().open(str(data_file(path)), read_only=True)
    pages = Pages(file)
    levels: list[list[int]] = [[], []]
    tree = pages.metas[0].main
    found: list[Gap] = []
    for _ in pages.walk(tree, found):
        pass
    assert not found
    for number in range(2, pages.count):
        flags = int.from_bytes(file.pread(2, number * 4096 + 10), "little")
        if pages.reached[number] and flags in (1, 2):
            levels[flags - 1].append(number)
    file.close()
    assert len(levels[0]) > 2
    return levels[0], levels[1]


def zero(path: Path, *pages: int) -> None:
    with data_file(path).open("r+b") as file:
        for page in pages:
            file.seek(page * 4096)
            file.write(bytes(4096))


def test_a_sound_database_is_not_touched(made: Path) -> None:
    before = content(made)
    report = amberdb.repair(made, apply=True, **SMALL)
    assert not report.is_needed
    assert content(made) == before


@pytest.mark.slow
@pytest.mark.parametrize("how", ["missing", "zeros", "directory"])
def test_manifest_is_made_again(made: Path, how: str) -> None:
    wanted = documents(made)
    join_preparation()
    manifest = made / "MANIFEST"
    if how == "zeros":
        manifest.write_bytes(bytes(76))
    else:
        manifest.unlink()
        if how == "directory":
            manifest.mkdir()
    report = repaired(made)
    assert documents(made) == wanted
    assert len(report.broken) == (how != "missing")
    with amberdb.open(made, create=False, **SMALL) as db:
        newest = max(db.collection("n").record(id).version for id in list(wanted)[:50])
        db.collection("n").put({"id": "0500", "key": -1})
        assert db.collection("n").record("0500").version > newest


@pytest.mark.slow
@pytest.mark.sliced
def test_a_lost_leaf_page_costs_what_is_said_and_no_more(made: Path) -> None:
    wanted = documents(made)
    join_preparation()
    lost_somewhere = False
    for page in tree_pages(made)[1][:: slices.size(9, 27)]:
        copy = made.with_name("copy.amber")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(made, copy)
        zero(copy, page)
        report = repaired(copy)
        found = documents(copy)
        assert {id: wanted[id] for id in found} == found
        lost = wanted.keys() - found.keys()
        assert sorted(lost) == sorted(id for name, id in report.lost_ids if name == "n")
        assert len(lost) == report.missing.get("n", 0)
        assert report.doubtful == 0
        lost_somewhere = lost_somewhere or bool(lost)
        assert data_file_of_broken(report).stat().st_size
    assert lost_somewhere


def data_file_of_broken(report: RepairReport) -> Path:
    return next(Path(broken) / "data.mdb" for broken in report.broken if "data-" in broken)


@pytest.mark.slow
def test_a_lost_inner_page_costs_nothing(made: Path) -> None:
    """The leaf pages below it are found; stale pages are excluded by LMDB's list of free pages."""
    wanted = documents(made), documents(made, "other")
    join_preparation()
    inner = tree_pages(made)[0]
    zero(made, *inner)
    report = repaired(made)
    assert (documents(made), documents(made, "other")) == wanted
    assert (report.missing, report.lost_ids, report.doubtful) == ({}, [], 0)


@pytest.mark.slow
def test_without_any_meta_page_the_newest_versions_are_kept_and_called_doubtful(
    made: Path,
) -> None:
    wanted = documents(made)
    join_preparation()
    zero(made, 0, 1)
    report = repaired(made)
    found = documents(made)
    assert wanted.items() <= found.items()
    assert report.doubtful >= len(found) - len(wanted)


@pytest.mark.slow
def test_a_damaged_document_is_lost_by_name(made: Path) -> None:
    wanted = documents(made)
    join_preparation()
    with amberdb.open(made, **SMALL) as db:
        schemas = engine_of(db).committer.state.catalog.schemas
        key = schemas["n"].key("0500")
    with raw_store(made) as txn:
        value = bytearray(txn.get(key) or b"")
        value[50] ^= 1
        txn.put(key, bytes(value))
    report = repaired(made)
    assert report.lost_ids == [("n", "0500")]
    assert report.missing == {"n": 1}
    assert documents(made) == {id: doc for id, doc in wanted.items() if id != "0500"}


def test_a_document_that_the_log_still_has_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    with amberdb.open(path, background=False) as db:
        db.collection("n").put_many({"id": f"{n:03}", "x": n} for n in range(100))
    join_preparation()
    data_file(path).unlink()
    report = repaired(path)
    assert (report.documents, report.lost_lsns) == ({"n": 100}, [])
    assert len(documents(path)) == 100


def test_without_data_what_the_log_lacks_is_lost_and_said(made: Path) -> None:
    with amberdb.open(made, **SMALL) as db:
        lsns = db.stats()["last_lsn"]
    join_preparation()
    data_file(made).unlink()
    segments = sorted((made / "wal").glob("*.wal"))
    for segment in segments[:-1]:
        segment.unlink()
    report = repaired(made)
    assert report.lost_lsns
    assert report.lost_lsns[0][0] == (1 << 40) + 1
    assert report.lost_lsns[0][1] <= lsns
    with amberdb.open(made, create=False, **SMALL) as db:
        assert set(db.collections()) == set(report.documents)


@pytest.mark.slow
@pytest.mark.parametrize("is_older_there", [True, False])
def test_documents_without_a_catalog_get_it_from_an_older_page_or_a_name_of_their_own(
    made: Path, is_older_there: bool
) -> None:
    wanted = documents(made)
    join_preparation()
    data = data_file(made).read_bytes()
    key = b"\0\0\0\0cn"
    with raw_store(made) as txn:
        value = txn.get(key) or b""
    pages = [n for n in range(len(data) // 4096) if value in data[n * 4096 : (n + 1) * 4096]]
    assert len(pages) > 1
    used = set(tree_pages(made)[1])
    zero(made, *(page for page in pages if page in used or not is_older_there))
    for segment in (made / "wal").glob("*.wal"):
        segment.unlink()
    report = repaired(made)
    name = "n" if is_older_there else "recovered-16"
    assert name in report.renamed
    found = documents(made, name)
    lost = wanted.keys() - found.keys()  # documents of the same page
    assert found == {id: wanted[id] for id in found}
    assert len(lost) < 20
    assert sorted(lost) == sorted(id for _, id in report.lost_ids) or not is_older_there
    with amberdb.open(made, create=False, **SMALL) as db:
        assert len(db.definition(name).indexes) == (2 if is_older_there else 0)


@pytest.mark.slow
def test_an_index_that_the_rest_does_not_allow_is_dropped_and_named(made: Path) -> None:
    """A document with the value of another: both have the same key in a Unique index."""
    with amberdb.open(made, **SMALL) as db:
        schema = engine_of(db).committer.state.catalog.schemas["n"]
    with raw_store(made) as txn:
        stored = unpack(schema.key("0500"), txn.get(schema.key("0500")) or b"")
        body = stored.body.replace(b"0500", b"9999")
        twin = stored._replace(rowid=1 << 40, body=body)
        txn.put(schema.key("9999"), pack(schema.key("9999"), *twin))
    report = repaired(made)
    assert report.dropped_indexes == [("n", "unique:key")]
    with amberdb.open(made, create=False, **SMALL) as db:
        assert [i.spec.name for i in db.definition("n").indexes] == ["ordered:x,-text"]
        assert db.collection("n").get("9999")


@pytest.mark.slow
def test_a_log_cut_by_repair_says_which_commits_are_gone(made: Path) -> None:
    with amberdb.open(made, **SMALL) as db:
        for n in range(5):
            db.collection("n").put({"id": f"late{n}", "key": -n - 1})
        copy = made.with_name("copy.amber")
        join_preparation()
        shutil.copytree(made, copy)
        last = db.stats()["last_lsn"]
    segment = max((copy / "wal").glob("*.wal"))
    data = bytearray(segment.read_bytes())
    data[data.index(b"late2")] ^= 1
    segment.write_bytes(data)
    report = repaired(copy)
    assert report.lost_lsns == [(last - 2, last)]
    found = documents(copy)
    assert {"late0", "late1"} == {id for id in found if id.startswith("late")}
    assert report.broken == [f"{segment}.broken"]


def test_nothing_readable_is_refused(made: Path) -> None:
    shutil.rmtree(made / "wal")
    data_file(made).write_bytes(b"")
    (made / "MANIFEST").write_bytes(b"")
    before = content(made)
    with pytest.raises(StorageError, match="restore a backup"):
        amberdb.repair(made, apply=True, **SMALL)
    assert content(made) == before


def test_a_tree_that_says_it_is_deeper_than_any_is_a_gap(made: Path) -> None:
    root = tree_pages(made)[0][0]
    file = OsFileSystem().open(str(data_file(made)), read_only=True)
    pages = Pages(file)
    for depth in (3000, 40, 0):
        gaps: list[Gap] = []
        assert list(pages.walk(Tree(depth, 0, 0, 0, 0, root), gaps)) == []
        assert [gap.page for gap in gaps] == [root]
    file.close()
