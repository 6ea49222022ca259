"""The expiry index answers queries of the field that says when documents expire, and nothing is
read twice for a deletion."""

from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pkgutil import resolve_name
from typing import Any
from unittest.mock import patch

import pytest

from amberdb import Collection, Database, Ordered, Text, Vector, Where
from amberdb import _failpoints as failpoints
from amberdb.engine.maintenance import erasure
from amberdb.engine.query import choice
from amberdb.engine.storage.view import View
from support.databases import FakeClock, OpenDatabase
from support.inside import engine_of

START = 1_700_000_000.0
T0 = datetime.fromtimestamp(START, UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture(params=["memtable", "store"])
def sessions(open_db: OpenDatabase, clock: FakeClock, request: pytest.FixtureRequest) -> Collection:
    """Of 100, each fifth never expires; the others each a minute later than the one before."""
    db = open_db(clock=clock)
    sessions = db.collection("s", indexes=[Ordered("k")], expires_at="until")
    sessions.put_many(
        {"id": f"{n:03d}", "k": n % 2, "until": T0 + timedelta(minutes=100 - n) if n % 5 else None}
        for n in range(100)
    )
    if request.param == "store":
        db.checkpoint()
    return sessions


def minutes(count: int) -> datetime:
    return T0 + timedelta(minutes=count)


@contextmanager
def counted(module: str, name: str) -> Generator[list[Any]]:
    """The calls of a function that a module of the engine uses."""
    calls: list[Any] = []
    target = f"amberdb.engine.{module}.{name}"
    function = resolve_name(target)

    def call(*arguments: Any) -> Any:
        calls.append(arguments)
        return function(*arguments)

    with patch(target, call):
        yield calls


def test_a_range_reads_the_documents_in_it(sessions: Collection) -> None:
    where = {"until": {"$lte": minutes(7)}}
    plan = sessions.explain(where)
    assert (plan["index"], plan["range"]) == ("expiry:until", True)
    with counted("query.scan", "crc32") as reads:
        found = sessions.find(where)
    assert [document["id"] for document in found] == ["099", "098", "097", "096", "094", "093"]
    assert len(reads) == 2 * 6


@pytest.mark.parametrize("order", ["until", "-until"])
@pytest.mark.parametrize("limit", [1, 3, None])
def test_a_range_of_datetimes_gives_their_order(
    sessions: Collection, order: str, limit: int | None
) -> None:
    where = {"until": {"$gte": minutes(90)}}
    assert sessions.explain(where, order_by=order)["order"] == "index"
    pages: list[str] = []
    after = None
    while True:
        page = sessions.find(where, order_by=order, limit=limit, after=after)
        pages += [document["id"] for document in page]
        after = page.cursor
        if after is None:
            break
    wanted = ["009", "008", "007", "006", "004", "003", "002", "001"]
    assert pages == (wanted if order == "until" else wanted[::-1])
    assert sessions.find(where, order_by=["until", "k"])[0]["id"] == "009"


def test_numbers_of_one_microsecond_are_sorted(open_db: OpenDatabase, clock: FakeClock) -> None:
    notes = open_db(clock=clock).collection("n", expires_at="until")
    notes.put({"id": "b", "until": START + 8 + 2**-22})
    notes.put({"id": "a", "until": START + 8.0})
    found = notes.find({"until": {"$gt": START}}, order_by="until")
    assert [document["id"] for document in found] == ["a", "b"]


def test_times_that_an_upgrade_has_rounded_are_sorted(
    open_db: OpenDatabase, clock: FakeClock
) -> None:
    db = open_db(clock=clock)
    notes = db.collection("n", expires_at="until")
    notes.put({"id": "a", "until": START + 10.0004})
    notes.put({"id": "b", "until": START + 10.0002})

    def rounded(document: dict[str, Any]) -> dict[str, Any]:
        return {
            **document,
            "until": minutes(0) + timedelta(seconds=round(document["until"] - START, 3)),
        }

    notes = db.collection("n", expires_at="until", version=2, migrate={2: rounded})
    db.migrate()
    found = notes.find({"until": {"$gt": minutes(0)}}, order_by="until", limit=2)
    assert [document["id"] for document in found] == ["a", "b"]  # one time, so by their age
    at = minutes(0) + timedelta(seconds=10)
    assert [notes.count({"until": {name: at}}) for name in ("$eq", "$lte", "$gt")] == [2, 2, 0]


def test_times_that_lie_together_are_found_once(open_db: OpenDatabase, clock: FakeClock) -> None:
    notes = open_db(clock=clock).collection("n", expires_at="until")
    notes.put_many({"id": f"{n}", "until": START + 1 + n / 1000} for n in range(10))
    several = {"until": {"$in": [START + 1.001, START + 1.003, START + 1.003, "x", None]}}
    assert sorted(each["id"] for each in notes.find(several)) == ["1", "3"]
    del several["until"]["$in"][-1]
    assert notes.explain(several)["index"] == "expiry:until"
    assert sorted(each["id"] for each in notes.find(several)) == ["1", "3"]


def test_a_page_of_another_plan_has_the_places_of_this_one(
    sessions: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "FEW", 1)
    sessions.put_many({"id": f"x{n}", "k": 7, "until": minutes(50 + n)} for n in range(3))
    where = {"until": {"$gte": minutes(1)}, "k": 7}
    pages: list[str] = []
    after = None
    while True:
        page = sessions.find(where, order_by="-until", limit=1, after=after)
        pages += [document["id"] for document in page]
        after = page.cursor
        if after is None:
            break
    assert pages == ["x2", "x1", "x0"]


def test_what_has_expired_is_neither_read_nor_deleted(
    sessions: Collection, clock: FakeClock
) -> None:
    clock.advance(60 * 50)
    with counted("query.scan", "crc32") as reads:
        assert sessions.delete_many({"until": {"$lte": minutes(50)}}) == 0
    assert reads == []
    assert sessions.delete_many({"until": {"$lte": minutes(52)}}) == 2
    assert sessions.count() == 58
    assert sessions.expire() == 40
    assert sessions.count() == 58


def test_a_document_is_read_once_for_its_deletion(sessions: Collection) -> None:
    with counted("query.scan", "crc32") as reads, counted("commit.write_batch", "unpack") as again:
        assert sessions.delete_many({"k": 1, "until": None}) == 10
    assert (len(reads), len(again)) == (2 * 50, 0)
    assert sessions.count({"k": 1}) == 40


# -- erasure in batches ----------------------------------------------------------------------


def test_batches_of_an_erasure_go_on_where_the_last_one_ended(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "BATCH", 10)
    notes = db.collection("n", indexes=[Ordered("a")])
    notes.put_many({"id": f"{n:03d}", "a": n, "b": n % 2} for n in range(200))
    db.checkpoint()
    read = 0
    scan = View.scan

    def counted(self: View, low: bytes, high: bytes, reverse: bool = False) -> Any:
        nonlocal read
        for pair in scan(self, low, high, reverse):
            read += len(pair[0]) == 7  # a document
            yield pair

    monkeypatch.setattr(View, "scan", counted)
    wheres: list[Where] = [{"b": 1}, {"a": {"$lt": 100}}]
    receipt = db.erase({"n": wheres}, reason="asked")
    assert receipt.documents == 150
    assert [document["b"] for document in notes.documents()] == [0] * 50
    assert read < 500  # 200 in each of two passes, and no more for each batch


def test_what_is_put_behind_a_batch_is_erased_too(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "BATCH", 10)
    notes = db.collection("n", indexes=[Ordered("a")])
    notes.put_many({"id": f"{n:03d}", "a": n} for n in range(45))
    puts = iter(["x", "y"])

    def put(name: str) -> None:
        if name == "erase.deleted" and (id := next(puts, None)) is not None:
            notes.put({"id": id, "a": -1})

    failpoints.install(put)
    try:
        assert db.erase("n", {"a": {"$lt": 100}}, reason="asked").documents == 47
    finally:
        failpoints.install(None)
    assert len(notes) == 0


@pytest.mark.parametrize("bytes_max", [2050, 2250, 2450])
def test_a_commit_that_is_too_large_passes_no_document(
    open_db: OpenDatabase, bytes_max: int
) -> None:
    """Ten documents fit, and the receipt beside them does not."""
    db = open_db(transaction_bytes_max=bytes_max)
    notes = db.collection("n", indexes=[Ordered("a")])
    for n in range(10):
        notes.put({"id": f"{n}", "a": n})
    assert db.erase("n", {}, reason="asked").documents == 10
    assert len(notes) == 0


def test_a_removal_in_batches_is_durable_when_it_returns(
    open_db: OpenDatabase, clock: FakeClock
) -> None:
    db = open_db(clock=clock, reap_batch=3)
    notes = db.collection("n", expires_at="until")
    notes.put_many({"id": f"{n}", "until": START + 1} for n in range(10))
    clock.advance(2)
    before = db.stats().sync.count
    assert notes.expire() == 10
    committer = engine_of(db).committer
    assert committer.log.durable_lsn == committer.visible
    assert db.stats().sync.count - before == 1


@pytest.mark.parametrize("index", [Text("t"), Vector("v", dim=2)], ids=["text", "vector"])
def test_a_changed_row_of_a_search_index_moves_its_entry(
    open_db: OpenDatabase, clock: FakeClock, index: Text | Vector
) -> None:
    """A new text or vector gets a new rowid, which is in the key of the entry."""
    db = open_db(clock=clock)
    notes = db.collection("note", indexes=[index], expires_at="until")
    notes.put_many({"id": id, "t": "one", "v": [1, 0], "until": START + 60} for id in "abc")
    notes.update("a", {"t": "two", "v": [0, 1]})
    notes.put({"id": "b", "t": "three", "v": [1, 1], "until": START + 60})
    assert db.check().ok
    notes.delete("a")
    assert db.check().ok
    clock.advance(61)
    assert db.expire() == 2
