"""distinct(), count_by(), min() and max(): what an index reads for them, and cannot tell."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from amberdb import Collection, Database, FullScanWarning, Ordered, QueryError, Vector
from amberdb.engine.query import field_values, scan
from amberdb.engine.query.field_values import STEPS_MAX
from support.databases import FakeClock, OpenDatabase

LONG = "long " * 200
"""Beyond the length of a key: entries that differ only after the cut."""


@pytest.fixture(params=["memtable", "store", "both"])
def fill(request: pytest.FixtureRequest) -> Callable[[Database, list[dict[str, Any]]], Collection]:
    """Puts documents into "note", which was declared, or is declared as without indexes."""

    def filled(db: Database, documents: list[dict[str, Any]]) -> Collection:
        notes = db.collection("note")
        half = len(documents) // 2 if request.param == "both" else len(documents)
        notes.put_many(documents[:half])
        if request.param != "memtable":
            db.checkpoint()
        notes.put_many(documents[half:])
        return notes

    return filled


Fill = Callable[[Database, list[dict[str, Any]]], Collection]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The ids of the documents that index entries were followed to."""
    followed: list[bytes] = []
    live = field_values._Skip._live  # pyright: ignore[reportPrivateUsage]

    def counted(self: Any, id_bytes: bytes) -> bytes | None:
        followed.append(id_bytes)
        return live(self, id_bytes)

    monkeypatch.setattr(field_values._Skip, "_live", counted)  # pyright: ignore[reportPrivateUsage]
    return followed


@pytest.mark.parametrize("index", ["kind", "-kind"])
def test_one_document_is_read_for_each_value(
    db: Database, fill: Fill, reads: list[bytes], index: str
) -> None:
    db.collection("note", indexes=[Ordered(index, "n")])
    many = 3 * STEPS_MAX
    notes = fill(db, [{"kind": f"k{n % 4}", "n": n} for n in range(4 * many)])
    assert notes.distinct("kind") == ["k0", "k1", "k2", "k3"]
    assert len(reads) == 4
    assert notes.count_by("kind") == dict.fromkeys(["k0", "k1", "k2", "k3"], many)
    assert len(reads) == 8
    assert (notes.min("kind"), notes.max("kind")) == ("k0", "k3")
    assert len(reads) == 10
    assert notes.distinct("n", {"kind": "k1", "n": {"$lt": 9}}) == [1, 5]
    assert (notes.min("n", {"kind": "k1"}), notes.max("n", {"kind": "k1"})) == (1, 4 * many - 3)


@pytest.mark.parametrize("index", ["x", "-x"])
def test_values_of_every_class(db: Database, fill: Fill, index: str) -> None:
    db.collection("note", indexes=[Ordered(index)])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    scalars: list[Any] = [2, 2.0, True, None, "a", b"a", now]
    values: list[Any] = [*scalars, {"k": 1}, {"k": 2}, [[1]], [[2], 3], []]
    notes = fill(db, [*({"x": value} for value in values), {}])
    found = notes.distinct("x")
    assert found[:3] == [None, True, 2]
    assert found[2:7] == [2, 3, "a", b"a", now]
    assert sorted(map(repr, found[7:])) == sorted(map(repr, [[1], [2], {"k": 1}, {"k": 2}]))
    assert notes.min("x") is True
    assert notes.max("x") in ({"k": 1}, {"k": 2})
    assert notes.max("x", {"x": {"$lt": 9}}) == [2], "of the document that has 3 too"
    with pytest.raises(QueryError, match="key of a dict"):
        notes.count_by("x")


def test_true_and_one_are_no_keys_of_one_dict(db: Database) -> None:
    notes = db.collection("note", indexes=[Ordered("x")])
    notes.put_many([{"x": 1}, {"x": True}])
    assert notes.distinct("x") == [True, 1]
    with pytest.raises(QueryError, match="count"):
        notes.count_by("x")


def test_an_empty_list_has_no_value(db: Database, fill: Fill) -> None:
    db.collection("note", indexes=[Ordered("x")])
    notes = fill(db, [{"x": []}, {"x": [1]}, {"x": []}])
    assert notes.distinct("x") == [1]
    assert notes.count_by("x") == {1: 1}
    notes.put_many([{"x": None}, {}, {"x": [None, 1]}, {"x": []}])
    assert notes.distinct("x") == [None, 1]
    assert notes.count_by("x") == {None: 3, 1: 2}


def test_values_that_are_longer_than_a_key(db: Database, fill: Fill, reads: list[bytes]) -> None:
    db.collection("note", indexes=[Ordered("x", "n")])
    notes = fill(
        db, [{"x": f"{LONG}{n % 3}", "n": n} for n in range(6 * STEPS_MAX)] + [{"x": "short"}]
    )
    assert notes.distinct("x") == [f"{LONG}0", f"{LONG}1", f"{LONG}2", "short"]
    assert len(reads) == 4
    assert notes.count_by("x")[f"{LONG}1"] == 2 * STEPS_MAX
    assert (notes.min("x"), notes.max("x")) == (f"{LONG}0", "short")
    assert notes.max("n", {"x": f"{LONG}1"}) == 6 * STEPS_MAX - 2


def test_expired_documents_have_no_values(open_db: OpenDatabase) -> None:
    clock = FakeClock()
    notes = open_db(clock=clock).collection("note", indexes=[Ordered("x")], expires_at="until")
    soon, late = clock.now + 1, clock.now + 100
    notes.put_many({"x": n // 2, "until": late if n in (3, 4) else soon} for n in range(8))
    clock.advance(10)
    assert notes.distinct("x") == [1, 2]
    assert notes.count_by("x") == {1: 1, 2: 1}
    assert (notes.min("x"), notes.max("x")) == (1, 2)


def test_a_sparse_index_has_not_every_value(db: Database) -> None:
    notes = db.collection(
        "note", indexes=[Ordered("x", sparse=True), Ordered("y", "z", sparse=True)]
    )
    notes.put_many([{"x": 1, "y": 1, "z": 1}, {"y": 2}, {"x": 3, "y": 3, "z": 3}])
    assert notes.distinct("x") == [None, 1, 3]
    assert notes.explain(distinct="x")["skip"] is False
    assert notes.distinct("x", {"x": {"$gt": 0}}) == [1, 3]
    assert notes.explain({"x": {"$gt": 0}}, distinct="x")["skip"] is True
    assert notes.max("y") == 3
    assert notes.distinct("y") == [1, 2, 3]
    assert notes.min("z", {"y": 2}) is None


def test_a_filter_on_lists_is_asked_of_documents(db: Database) -> None:
    notes = db.collection("note", indexes=[Ordered("x", "y")])
    notes.put_many([{"x": [1, 2], "y": 1}, {"x": 2, "y": 2}, {"x": [2], "y": [7, 8]} | {"y": 3}])
    assert notes.distinct("y", {"x": {"$in": [1, 2]}}) == [1, 2, 3]
    assert notes.count_by("y", {"x": {"$in": [1, 2]}}) == {1: 1, 2: 1, 3: 1}
    assert notes.distinct("x", {"x": {"$gt": 1}}) == [1, 2]
    assert notes.min("x", {"x": {"$gt": 1}}) == 1, "of a document that matches by another element"


def test_a_document_with_several_entries_counts_once(db: Database) -> None:
    notes = db.collection("note", indexes=[Ordered("kind", "tags")])
    notes.put_many([{"kind": "a", "tags": [1, 2, 3]}, {"kind": "a", "tags": []}, {"kind": "b"}])
    assert notes.count_by("kind") == {"a": 2, "b": 1}
    assert notes.distinct("kind") == ["a", "b"]
    assert (notes.min("kind"), notes.max("kind")) == ("a", "b")


def test_vectors_have_no_order(db: Database) -> None:
    notes = db.collection("note", indexes=[Vector("v", dim=2)])
    with pytest.raises(QueryError, match="vectors"):
        notes.distinct("v")


def test_many_documents_without_an_index_warn(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "FULL_SCAN_MAX", 10)
    notes = db.collection("unindexed")
    notes.put_many({"kind": "a"} for _ in range(20))
    with pytest.warns(FullScanWarning, match="values of kind"):
        notes.distinct("kind")
