"""check() of a closed database: finds damage in every file, and changes none."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import amberdb
from amberdb import (
    DatabaseMissingError,
    FormatError,
    LockedError,
    NotADatabaseError,
    Ordered,
    Text,
    Vector,
)
from amberdb._bytes import append_crc
from amberdb.engine.schema.keyspace import APPLIED, BUILT, LAST_TIME
from amberdb.engine.storage.data_file import read_metas
from support.analyzers import older_analyzer
from support.databases import SMALL
from support.inside import engine_of
from unit.engine.helpers import abandon, data_file, raw_store
from unit.wal.helpers import join_preparation


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A closed database with the record of a put at the end of its log."""
    path = tmp_path / "t.amber"
    with amberdb.open(path, **SMALL) as db:
        notes = db.collection("n", indexes=[Ordered("x")])
        notes.put_many({"id": f"{n:03}", "x": n, "text": "y" * 100} for n in range(200))
        db.checkpoint()
        for n in range(3):
            notes.put({"id": f"late{n}", "x": n})
    join_preparation()
    return path


def content(path: Path) -> dict[str, bytes]:
    return {
        str(found.relative_to(path)): found.read_bytes()
        for found in path.rglob("*")
        if found.is_file() and found.name != "LOCK"
    }


def problems(path: Path) -> str:
    """The problems that check() reports; it changes nothing."""
    before = content(path)
    report = amberdb.check(path, **SMALL)
    assert content(path) == before
    assert not report.ok
    return "\n".join(report.problems)


def test_a_sound_database_is_left_as_it_is(made: Path) -> None:
    before = content(made)
    report = amberdb.check(made, **SMALL)
    assert (report.ok, report.notes) == (True, [])
    assert (report.documents, report.entries) == (203, 203)
    assert content(made) == before
    with amberdb.open(made, create=False, **SMALL) as db:
        assert db.recovery is None
        assert db.check().ok


def test_what_a_dead_process_left_is_checked_with_its_log(made: Path, tmp_path: Path) -> None:
    with amberdb.open(made, **SMALL) as db:
        db.collection("n").put({"id": "fresh", "x": 1})
        copy = abandon(db, tmp_path / "copy.amber")
    before = content(copy)
    report = amberdb.check(copy, **SMALL)
    assert report.ok
    assert report.documents == 204
    assert content(copy) == before


def test_a_torn_tail_is_a_note_and_stays(made: Path, tmp_path: Path) -> None:
    with amberdb.open(made, **SMALL) as db:
        db.collection("n").put({"id": "torn", "x": 1, "mark": "unmistakable"})
        copy = abandon(db, tmp_path / "copy.amber")
    segment = max((copy / "wal").glob("*.wal"))
    data = segment.read_bytes()
    at = data.rindex(b"unmistakable")
    segment.write_bytes(data[:at] + b"X" + data[at + 1 :])
    before = content(copy)
    report = amberdb.check(copy, **SMALL)
    assert report.ok
    assert [str(segment) in note and "torn tail" in note for note in report.notes] == [True]
    assert content(copy) == before


def test_an_open_database_is_not_looked_into(made: Path) -> None:
    with amberdb.open(made, **SMALL):
        with pytest.raises(LockedError):
            amberdb.check(made, **SMALL)
        with pytest.raises(LockedError):
            amberdb.repair(made, **SMALL)


def test_what_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(DatabaseMissingError):
        amberdb.check(tmp_path / "none")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"jpeg")
    with pytest.raises(NotADatabaseError):
        amberdb.check(tmp_path / "photos")
    with pytest.raises(NotADatabaseError):
        amberdb.repair(tmp_path / "photos" / "a.jpg")
    assert os.listdir(tmp_path / "photos") == ["a.jpg"]


def test_a_newer_format_is_no_damage(made: Path) -> None:
    manifest = made / "MANIFEST"
    data = bytearray(manifest.read_bytes()[:-4])
    data[8] = 99
    manifest.write_bytes(bytes(data) + append_crc(bytes(data)))
    for look in (amberdb.check, amberdb.repair):
        with pytest.raises(FormatError):
            look(made, **SMALL)


def segment_flip(path: Path) -> None:
    segment = min((path / "wal").glob("*.wal"))
    data = bytearray(segment.read_bytes())
    data[700] ^= 1
    segment.write_bytes(data)


def page_zeroed(path: Path) -> None:
    """Zeroes the root page of the tree."""
    data = bytearray(data_file(path).read_bytes())
    root = max(read_metas(bytes(data[: 1 << 16]))).main.root
    data[root * 4096 : (root + 1) * 4096] = bytes(4096)
    data_file(path).write_bytes(data)


PLANTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no MANIFEST": (lambda p: (p / "MANIFEST").unlink(), "MANIFEST is missing"),
    "MANIFEST cut": (lambda p: os.truncate(p / "MANIFEST", 40), "MANIFEST.*checksum"),
    "MANIFEST empty": (lambda p: (p / "MANIFEST").write_bytes(b""), "MANIFEST offset 0"),
    "no data": (lambda p: data_file(p).unlink(), "data.mdb is missing"),
    "data empty": (lambda p: data_file(p).write_bytes(b""), "data.mdb.*no LMDB meta page"),
    "data cut": (lambda p: os.truncate(data_file(p), 20480), "data.mdb.*truncated"),
    "a page of zeros": (page_zeroed, r"data.mdb offset \d+: main DB: page \d+"),
    "no wal": (lambda p: shutil.rmtree(p / "wal"), "wal is missing"),
    "a record": (segment_flip, r"wal.*offset \d+"),
}


@pytest.mark.parametrize(("plant", "said"), PLANTS.values(), ids=PLANTS.keys())
def test_damage_is_named_with_file_and_place(
    made: Path, plant: Callable[[Path], object], said: str
) -> None:
    plant(made)
    found = problems(made)
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(found)


def test_damage_in_two_files_is_named_twice(made: Path) -> None:
    (made / "MANIFEST").unlink()
    segment_flip(made)
    page_zeroed(made)
    found = problems(made)
    assert all(name in found for name in ("MANIFEST", ".wal", "data.mdb"))


LOCAL: dict[str, tuple[bytes, bytes, str]] = {
    "too low": (APPLIED, bytes(8), "above 0"),
    "too high": (APPLIED, (1 << 50).to_bytes(8), "was applied"),
    "another time": (LAST_TIME, bytes(8), "the time 0000000000000000"),
}


@pytest.mark.parametrize(("key", "value", "said"), LOCAL.values(), ids=LOCAL.keys())
def test_facts_without_a_checksum_are_compared(
    made: Path, key: bytes, value: bytes, said: str
) -> None:
    if said == "above 0":  # with the log the wrong Lsn would be harmless
        min((made / "wal").glob("*.wal")).unlink()
    with raw_store(made) as txn:
        txn.put(key, value)
    assert said in problems(made)


def test_an_applied_lsn_that_hides_a_record_is_found(made: Path, tmp_path: Path) -> None:
    """LMDB claims the next Lsn as applied: its record is in the log, its document not in LMDB."""
    with amberdb.open(made, **SMALL) as db:
        db.collection("n").put({"id": "hidden", "x": 1})
        copy = abandon(db, tmp_path / "copy.amber")
        last = db.stats()["last_lsn"]
    with raw_store(copy) as txn:
        txn.put(APPLIED, last.to_bytes(8))
    assert "'hidden'" in problems(copy)
    amberdb.repair(copy, apply=True, **SMALL)
    with amberdb.open(copy, create=False, **SMALL) as db:
        assert db.collection("n").get("hidden") == {"id": "hidden", "x": 1}
        assert db.check().ok


def test_a_mark_that_an_index_is_built_is_compared(made: Path) -> None:
    with amberdb.open(made, **SMALL) as db:
        db.collection("n", indexes=[Ordered("x"), Ordered("y")])
        schemas = engine_of(db).committer.state.catalog.schemas
        number = schemas["n"].indexes[1].prefix
    with raw_store(made) as txn:
        txn.put(BUILT + number, b"1")
    assert "has no entry in ordered:y" in problems(made)


def test_rows_of_search_indexes_that_only_the_log_has_are_checked(tmp_path: Path) -> None:
    with amberdb.open(tmp_path / "t.amber", **SMALL) as db:
        notes = db.collection("n", indexes=[Text("text"), Vector("v", dim=2)])
        notes.put({"id": "a", "text": "amber", "v": [1, 2]})
        db.checkpoint()
        notes.put({"id": "a", "text": "bee", "v": [2, 1]})
        notes.put({"id": "b", "text": "owl", "v": [1, 1]})
        copy = abandon(db, tmp_path / "copy.amber")
    report = amberdb.check(copy, **SMALL)
    assert report.ok, report
    assert report.documents == 2


def test_terms_of_another_analyzer_are_no_damage(tmp_path: Path) -> None:
    with older_analyzer(), amberdb.open(tmp_path / "t.amber", **SMALL) as db:
        db.collection("n", indexes=[Text("text")]).put({"id": "a", "text": "amber"})
        db.checkpoint()
        copy = abandon(db, tmp_path / "copy.amber")
    assert amberdb.check(copy, **SMALL).ok
    with amberdb.open(copy, **SMALL, read_only=True) as reader:
        assert reader.check().ok
