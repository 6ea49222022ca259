"""check(): every kind of damage to derived data is planted, and reported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import CheckReport, CorruptionError, Database, Ordered, Unique
from amberdb.engine.integrity import check as checks
from amberdb.engine.schema.counters import CollectionCounters
from amberdb.engine.schema.document_format import pack, unpack
from amberdb.engine.schema.keyspace import APPLIED, end_of
from amberdb.engine.schema.ordered_index import LOSSY, MULTI
from amberdb.engine.schema.schema import Schema
from amberdb.engine.storage.store_writer import StoreWriter
from amberdb.wal import Log
from support.databases import SMALL, OpenDatabase
from support.inside import engine_of
from unit.engine.helpers import data_file, raw_store


@pytest.fixture
def made(open_db: OpenDatabase, tmp_path: Path) -> Path:
    """A closed database with indexes of each kind, a list, and a document that will expire."""
    db = open_db()
    notes = db.collection(
        "n",
        indexes=[Ordered("x"), Ordered("tags"), Unique("key", sparse=True)],
        expires_at="until",
    )
    notes.put_many({"id": id, "x": n, "key": id} for n, id in enumerate("abcd"))
    notes.put({"id": "e", "x": 9, "tags": ["p", "q"], "until": 9e9})
    db.close()
    return tmp_path / "t.amber"


def schema_at(path: Path) -> Schema:
    with amberdb.open(path, **SMALL) as db:
        return engine_of(db).committer.state.catalog.schemas["n"]


def first_entry(txn: StoreWriter, prefix: bytes) -> tuple[bytes, bytes]:
    return next(txn.scan(prefix, end_of(prefix)))


def flip(txn: StoreWriter, key: bytes, at: int) -> None:
    value = bytearray(txn.get(key) or b"")
    value[at] ^= 1
    txn.put(key, bytes(value))


def remove_first(txn: StoreWriter, prefix: bytes) -> None:
    txn.delete(first_entry(txn, prefix)[0])


def repoint_first(txn: StoreWriter, prefix: bytes) -> None:
    key, _ = first_entry(txn, prefix)
    txn.put(key, b"c")


def stray(txn: StoreWriter, prefix: bytes) -> None:
    key, value = first_entry(txn, prefix)
    txn.put(key[:-1] + bytes([key[-1] ^ 0x40]), value)


def set_counters(txn: StoreWriter, schema: Schema, documents: int, rowid: int) -> None:
    txn.put(schema.counters_key, CollectionCounters(documents, rowid).pack())


def misplace(txn: StoreWriter, schema: Schema) -> None:
    """Stores the document of b under the key of z, with a correct checksum."""
    stored = unpack(schema.key("b"), txn.get(schema.key("b")) or b"")
    txn.put(schema.key("z"), pack(schema.key("z"), *stored))


def from_the_future(txn: StoreWriter, schema: Schema) -> None:
    stored = unpack(schema.key("b"), txn.get(schema.key("b")) or b"")
    changed = stored._replace(version=1 << 60)
    txn.put(schema.key("b"), pack(schema.key("b"), *changed))


Plant = Callable[[StoreWriter, Schema], object]
DAMAGE: dict[str, tuple[Plant, str]] = {
    "document value": (lambda t, s: flip(t, s.key("b"), 50), "'b'.*checksum"),
    "document header": (lambda t, s: flip(t, s.key("b"), 3), "'b'.*checksum"),
    "document seal": (lambda t, s: flip(t, s.key("b"), -1), "'b'.*checksum"),
    "document cut": (lambda t, s: t.put(s.key("b"), b"x"), "'b'.*checksum"),
    "document under another key": (
        lambda t, s: t.put(s.key("b"), t.get(s.key("a")) or b""),
        "'b'.*checksum",
    ),
    "document with another id": (misplace, "b'z' has a document with the id 'b'"),
    "document lost": (lambda t, s: t.delete(s.key("b")), "counter says 5 documents, there are 4"),
    "version from the future": (from_the_future, "version 1152921504606846976 above"),
    "entry lost": (lambda t, s: remove_first(t, s.indexes[0].prefix), "no entry in ordered:x"),
    "entry of another": (
        lambda t, s: repoint_first(t, s.indexes[0].prefix),
        "no entry in ordered:x",
    ),
    "entry too many": (lambda t, s: stray(t, s.indexes[0].prefix), "has 6 entries, .* make 5"),
    "unique entry lost": (lambda t, s: remove_first(t, s.indexes[2].prefix), "in unique:key"),
    "unique entry too many": (lambda t, s: stray(t, s.indexes[2].prefix), "5 entries, .* make 4"),
    "list entry lost": (lambda t, s: remove_first(t, s.indexes[1].prefix), "in ordered:tags"),
    "mark of lists lost": (
        lambda t, s: t.delete(MULTI + s.indexes[1].prefix),
        "ordered:tags",
    ),
    "mark of lost values lost": (
        lambda t, s: t.delete(LOSSY + s.indexes[1].prefix),
        "ordered:tags",
    ),
    "expiry entry lost": (lambda t, s: remove_first(t, s.expiry_prefix), "in the expiry index"),
    "expiry entry too many": (lambda t, s: stray(t, s.expiry_prefix), "has 2 entries, .* make 1"),
    "document counter": (
        lambda t, s: set_counters(t, s, 4, 6),
        "counter says 4 documents, there are 5",
    ),
    "next rowid": (lambda t, s: set_counters(t, s, 5, 5), "rowid 5 is in use"),
    "counters lost": (lambda t, s: t.delete(s.counters_key), "counter says 0 documents"),
    "counters damaged": (lambda t, s: t.put(s.counters_key, b"abc"), "n: "),
}


def report_after(path: Path, plant: Plant) -> CheckReport:
    schema = schema_at(path)
    with raw_store(path) as txn:
        plant(txn, schema)
    with amberdb.open(path, **SMALL) as db:
        return db.check()


@pytest.mark.parametrize(("plant", "problem"), DAMAGE.values(), ids=DAMAGE.keys())
def test_every_kind_of_damage_is_reported(made: Path, plant: Plant, problem: str) -> None:
    report = report_after(made, plant)
    assert not report.ok
    with pytest.raises(AssertionError, match=problem):
        raise AssertionError("\n".join(report.problems))


def test_store_ahead_of_the_log_is_never_opened_in_silence(made: Path) -> None:
    schema_at(made)
    with raw_store(made) as txn:
        txn.put(APPLIED, (1 << 50).to_bytes(8))
    with pytest.raises(CorruptionError):
        amberdb.open(made, **SMALL)


READS: dict[str, Callable[[Database], object]] = {
    "get": lambda db: db.collection("n").get("b"),
    "record": lambda db: db.collection("n").record("b"),
    "in": lambda db: "b" in db.collection("n"),
    "find": lambda db: db.collection("n").find(),
    "find by index": lambda db: db.collection("n").find({"x": {"$gte": 1}}),
    "find by id": lambda db: db.collection("n").find({"id": "b"}),
    "documents": lambda db: list(db.collection("n").documents()),
    "update": lambda db: db.collection("n").update("b", {}),
    "put": lambda db: db.collection("n").put({"id": "b"}),
    "delete": lambda db: db.collection("n").delete("b"),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
def test_damaged_document_is_an_error_and_the_others_are_read(
    made: Path, read: Callable[[Database], object]
) -> None:
    schema = schema_at(made)
    with raw_store(made) as txn:
        flip(txn, schema.key("b"), 50)
    with amberdb.open(made, **SMALL) as db:
        with pytest.raises(CorruptionError, match="'b'") as caught:
            read(db)
        assert caught.value.key == schema.key("b")
        assert caught.value.path == str(data_file(made))
        assert (db.collection("n").get("a") or {})["x"] == 0
        db.collection("n").put({"id": "new"})


def test_entry_without_its_document_is_an_error(made: Path) -> None:
    schema = schema_at(made)
    with raw_store(made) as txn:
        txn.delete(schema.key("b"))
    with amberdb.open(made, **SMALL) as db:
        with pytest.raises(CorruptionError, match="which is missing"):
            db.collection("n").find({"x": {"$gte": 0}})
        assert db.collection("n").get("b") is None


def test_expiry_entry_without_its_document_is_an_error(made: Path) -> None:
    schema = schema_at(made)
    with raw_store(made) as txn:
        txn.delete(schema.key("e"))
    with amberdb.open(made, clock=lambda: 9.1e9, **SMALL) as db:
        with pytest.raises(CorruptionError, match="is missing"):
            db.expire()
        db.collection("n").put({"id": "new"})


def test_damaged_document_stops_a_build_and_is_named(made: Path) -> None:
    schema = schema_at(made)
    with raw_store(made) as txn:
        flip(txn, schema.key("b"), 50)
    with amberdb.open(made, **SMALL) as db:
        db.collection("n", indexes=[Ordered("y")])
        with pytest.raises(CorruptionError, match="'b'"):
            db.build_indexes()


def test_damage_in_the_log_is_reported(open_db: OpenDatabase) -> None:
    db = open_db()
    db.collection("n").put_many({"id": str(n), "x": b"rotten" * 30} for n in range(5))
    (segment,) = [p for p in (Path(db.path) / "wal").iterdir() if p.suffix == ".wal"]
    data = bytearray(segment.read_bytes())
    at = data.index(b"rotten" * 30)
    data[at] ^= 1
    kept = segment.read_bytes()
    with segment.open("r+b") as file:
        file.write(data)
    report = db.check()
    assert [problem for problem in report.problems if "log" in problem]
    with segment.open("r+b") as file:
        file.write(kept)
    assert db.check().ok


def test_report_counts_what_it_read(db: Database) -> None:
    notes = db.collection("n", indexes=[Ordered("x"), Ordered("tags", sparse=True)])
    db.collection("m")
    notes.put_many({"x": n, "tags": [n, n + 1]} for n in range(10))
    report = db.check()
    assert report.ok
    assert (report.collections, report.documents, report.entries) == (2, 10, 30)
    assert report.log_records == 3
    assert report.lsn == db.stats()["last_lsn"]
    assert report.problems == []


def test_progress_is_told_every_thousand_documents(db: Database) -> None:
    db.collection("n").put_many({"x": n} for n in range(2500))
    told: list[tuple[str, int]] = []
    db.check(lambda name, count: told.append((name, count)))
    assert told == [("n", 1000), ("n", 2000)]


def test_report_stops_listing_at_its_limit(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "PROBLEMS_MAX", 3)

    def plant(txn: Any, schema: Schema) -> None:
        for id in "abcde":
            flip(txn, schema.key(id), 50)

    assert len(report_after(made, plant).problems) == 3


def test_writers_go_on_beside_a_check(db: Database) -> None:
    notes = db.collection("n", indexes=[Ordered("x")])
    notes.put_many({"id": f"{n:04d}", "x": n} for n in range(1500))

    def meanwhile(name: str, count: int) -> None:
        notes.delete("0001")
        notes.put({"id": "1400", "x": -1})
        db.checkpoint()

    assert db.check(meanwhile).ok


def test_index_in_the_making_is_not_damage(db: Database) -> None:
    db.collection("n").put_many({"x": n} for n in range(10))
    db.collection("n", indexes=[Ordered("x")])
    assert db.check().ok


def lose_pages(path: Path) -> None:
    """Makes inner pages refer to pages that do not exist: LMDB reports that without a crash."""
    data = bytearray(data_file(path).read_bytes())
    inner = [start for start in range(2 * 4096, len(data), 4096) if data[start + 10] == 1]
    assert inner
    for start in inner:
        lower = int.from_bytes(data[start + 12 : start + 14], "little")
        for place in range(start + 16, start + lower, 2):
            node = start + int.from_bytes(data[place : place + 2], "little")
            data[node + 2] = 0x70
    data_file(path).write_bytes(data)


def in_transaction(read: Callable[[Any], object]) -> Callable[[Database], object]:
    def run(db: Database) -> None:
        with db.transaction() as tx:
            with pytest.raises(CorruptionError) as caught:  # at the read itself
                read(tx["n"])
            raise caught.value

    return run


def build(db: Database) -> None:
    db.collection("n", indexes=[Ordered("y")])
    db.build_indexes()


PAGE_READS: dict[str, Callable[[Database], object]] = {
    **READS,
    "count": lambda db: db.collection("n").count({"x": {"$lt": 300}}),
    "delete_many": lambda db: db.collection("n").delete_many({"x": 1}),
    "snapshot get": lambda db: db.snapshot()["n"].get("b"),
    "snapshot find": lambda db: db.snapshot()["n"].find(),
    "transaction get": in_transaction(lambda notes: notes.get("b")),
    "transaction put": in_transaction(lambda notes: notes.put({"id": "b"})),
    "expire": lambda db: db.expire(),
    "build": build,
    "unique": lambda db: db.collection("n", indexes=[Unique("x")]),
}


@pytest.mark.parametrize("read", PAGE_READS.values(), ids=PAGE_READS.keys())
def test_damaged_page_is_a_typed_error_with_its_file(
    open_db: OpenDatabase, read: Callable[[Database], object]
) -> None:
    db = open_db()
    notes = db.collection("n", indexes=[Ordered("x")], expires_at="until")
    notes.put_many({"id": f"{n:04}", "x": n, "text": "y" * 200, "until": 9e9} for n in range(500))
    db.close()
    path = Path(db.path)
    kept = data_file(path).read_bytes()
    with amberdb.open(path, **SMALL) as db:  # reads the catalog before its page is lost
        lose_pages(path)
        try:
            with pytest.raises(CorruptionError) as caught:
                read(db)
            assert caught.value.path == str(data_file(path))
            report = db.check()
            assert report.problems
            assert str(data_file(path)) in report.problems[0]
        finally:
            data_file(path).write_bytes(kept)


def test_log_that_is_recycled_when_it_is_about_to_be_read_is_no_damage(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = open_db(segment_bytes_max=4096)
    notes = db.collection("n")
    for n in range(60):
        notes.put({"n": n, "text": "x" * 300})
    first = db.stats()["last_lsn"] - 50
    db.checkpoint()
    monkeypatch.setattr(Log, "first_lsn", first)
    assert db.check().problems == []
