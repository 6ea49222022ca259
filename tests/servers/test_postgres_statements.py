"""Calls that are one statement on the server: what they leave out of a transaction changes nothing
of what they mean.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

import amberdb
import amberdb.postgres.connections
from amberdb import (
    CommitUnknownError,
    ConflictError,
    Database,
    DuplicateKeyError,
    MissingKeyError,
    Ordered,
    Unique,
)
from support.databases import FakeClock
from support.servers import PostgreSQL, postgres


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that are sent, but for the ends of transactions."""
    statements: list[str] = []

    def noting(execute: Callable[..., Any]) -> Callable[..., Any]:
        def noted(connection: Any, statement: str, *values: Any, **options: Any) -> Any:
            statements.append(statement)
            return execute(connection, statement, *values, **options)

        return noted

    connections = amberdb.postgres.connections
    execute, together = noting(connections.execute), noting(connections.execute_together)
    monkeypatch.setattr(connections, "execute_together", together)
    for module in ("connections", "view", "batch"):
        monkeypatch.setattr(f"amberdb.postgres.{module}.execute", execute)
    return statements


def wait_for_a_lock(server: PostgreSQL, url: str, count: int = 1) -> None:
    """Returns when so many statements wait for other transactions."""
    waiting = (
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid IN "
        f"(SELECT pid FROM pg_stat_activity WHERE datname = '{url.rpartition('/')[2]}')"
    )
    deadline = time.monotonic() + 60
    while int(server.execute(waiting)) < count:
        assert time.monotonic() < deadline


# -- how many statements ---------------------------------------------------------------------------


def test_calls_of_one_statement(db: Database, sent: list[str]) -> None:
    notes = db.collection("note", indexes=[Ordered("name", "-n"), Ordered("n", sparse=True)])
    notes.put_many({"id": f"{n:03}", "n": n, "name": f"{n % 3}"} for n in range(100))
    ids = [f"{n:03}" for n in range(100)]
    calls: list[tuple[Callable[[], object], int]] = [
        (lambda: notes.put({"n": 1000}), 1),
        (lambda: notes.put({"id": "a", "n": 1001}), 1),
        (lambda: notes.put({"id": "a", "n": 1002, "name": "a"}), 1),
        (lambda: notes.insert({"id": "b", "n": 1003}), 1),
        (lambda: notes.update("b", {"$inc": {"n": 1}}), 2),
        (lambda: notes.get("b"), 1),
        (lambda: notes.get("none"), 1),
        (lambda: notes.get_many(["001", "a", "none"]), 1),
        (lambda: notes.find({"name": "1"}, order_by="-n", limit=5), 1),
        (lambda: notes.find({"name": "nobody"}), 1),
        (lambda: notes.find(limit=10), 1),
        (lambda: notes.find({"id": {"$in": ["000", "none", "002"]}, "other": None}), 1),
        (lambda: notes.find({"id": {"$in": ids}}, order_by="-id", limit=None), 1),
        (lambda: notes.find({"id": {"$in": ids}}, limit=5), 1),
        (lambda: notes.count(), 1),
    ]
    for number, (call, count) in enumerate(calls):
        sent.clear()
        call()
        assert len(sent) == count, (number, sent)
    assert notes["a"] == {"id": "a", "n": 1002, "name": "a"}
    assert notes["b"]["n"] == 1004
    assert notes.get_many(["001", "none"]) == [{"id": "001", "n": 1, "name": "1"}, None]
    newest = [each["id"] for each in notes.find({"name": "1"}, order_by="-n", limit=3)]
    assert newest == ["097", "094", "091"]
    assert [each["n"] for each in notes.find({"n": {"$gt": 1000}}, order_by="n")] == [1002, 1004]


def test_a_large_page_is_one_statement(db: Database, sent: list[str]) -> None:
    notes = db.collection("note", indexes=[Ordered("n")])
    notes.put_many({"id": f"{n:04}", "n": n} for n in range(1500))
    for where, limit, order_by in (({"id": {"$gte": "0"}}, 1000, "-id"), ({}, 700, "n")):
        sent.clear()
        assert len(notes.find(where, order_by=order_by, limit=limit)) == limit
        assert len(sent) == 1, sent


def test_what_is_prepared_outlasts_a_transaction_that_has_read(db: Database, url: str) -> None:
    """The driver drops it at a rollback."""
    notes = db.collection("note")
    notes.put({"id": "a"})
    with amberdb.connect(f"{url}?connections=1") as one:
        for _ in range(10):
            assert one["note"].get("a") == {"id": "a"}  # and db[name] reads in a transaction
        with one.snapshot() as at:
            assert at["note"].get("a") == {"id": "a"}
        connections: Any = getattr(one, "_connections")  # noqa: B009
        prepared = connections.read("SELECT statement FROM pg_prepared_statements", [])
        assert any("fence f LEFT JOIN" in statement for (statement,) in prepared)


def test_ids_of_a_filter_are_asked_for_at_once(db: Database, sent: list[str]) -> None:
    """In a transaction too, whatever it has written of them, and across several batches."""
    notes = db.collection("note")
    notes.put_many({"id": f"{n:04}", "n": n} for n in range(3000))
    ids = [f"{n:04}" for n in range(3000)]
    sent.clear()
    assert [each["n"] for each in notes.find({"id": {"$in": ids}}, limit=None)] == [*range(3000)]
    assert len(sent) < 10
    with db.transaction() as tx:
        tx["note"].put({"id": "0005", "n": -1})
        tx["note"].delete("0006")
        sent.clear()
        found = tx["note"].find({"id": {"$in": [*ids[:1500], "none"]}}, limit=None, order_by="-id")
        assert [each["n"] for each in found] == [*range(1499, 6, -1), -1, *range(4, -1, -1)]
        assert len(sent) < 20


def test_what_needs_more_than_a_row_is_stored_whole(db: Database) -> None:
    """Lists, long fields, whole floats and Unique values have something beside their rows."""
    notes = db.collection("note", indexes=[Ordered("n")])
    users = db.collection("user", indexes=[Unique("name")])
    for value in (1.0, 2, [3, 4], "x" * 2000, None):
        notes.put({"id": "a", "n": value})
        assert notes.get("a") == {"id": "a", "n": value}
        assert notes.find({"n": value}) == [{"id": "a", "n": value}]
        assert notes.count({"n": {"$in": [1.0, 2, 3, "x" * 2000]}}) == (value is not None)
    notes.put({"id": "a", "n": [5, 6]})
    notes.update("a", {"$push": {"n": 7}})
    notes.update("a", {"n": 8})
    assert notes.distinct("n") == [8]
    notes.put({"id": "a", "n": [5, 6]})
    notes.put({"id": "a", "n": 9})
    assert notes.distinct("n") == [9]
    users.put({"id": "a", "name": "lin"})
    with pytest.raises(DuplicateKeyError):
        users.put({"id": "b", "name": "lin"})
    with pytest.raises(DuplicateKeyError):
        users.update(users.put({"name": "mei"}), {"name": "lin"})


def test_a_mark_that_was_rolled_back_is_left_by_the_next_document(db: Database) -> None:
    numbers = db.collection("number", indexes=[Ordered("n")])

    def fail() -> None:
        with db.transaction() as tx:
            tx["number"].put({"id": "a", "n": 1.0})
            assert tx["number"].find({"n": 1.0}) == [{"id": "a", "n": 1.0}]
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail()
    numbers.put({"id": "b", "n": 2.0})
    numbers.put({"id": "b", "n": 3.0})
    (found,) = numbers.find(order_by="n", fields=["n"])
    assert type(found["n"]) is float
    assert [type(value) for value in numbers.distinct("n")] == [float]


def test_query_of_many_batches_is_of_one_state(db: Database) -> None:
    notes = db.collection("note", indexes=[Ordered("n")])
    notes.put_many({"id": f"{n:04}", "n": n % 7} for n in range(1500))
    assert [each["id"] for each in notes.find()] == [f"{n:04}" for n in range(1500)]
    assert len(notes.find({"n": {"$in": [1, 5]}})) == notes.count({"n": {"$in": [1, 5]}}) == 429


# -- what they mean --------------------------------------------------------------------------------


def test_errors_are_those_of_a_transaction(db: Database) -> None:
    notes = db.collection("note", indexes=[Ordered("n")])
    version = notes.update(notes.put({"id": "a", "n": 1}), {"n": 2})
    assert notes.record("a").version == version
    assert notes.update("a", {"n": 3}, if_version=version) > version
    with pytest.raises(ConflictError, match="is at version"):
        notes.update("a", {"n": 4}, if_version=version)
    with pytest.raises(DuplicateKeyError, match="has a document"):
        notes.insert({"id": "a"})
    with pytest.raises(MissingKeyError):
        notes.update("none", {"n": 1})
    with pytest.raises(ValueError, match="sync="):
        notes.put({"id": "b"}, sync="never")  # type: ignore[arg-type]
    assert notes.find() == [{"id": "a", "n": 3}]


def test_times_are_kept_and_an_expired_document_is_a_new_one(url: str, clock: FakeClock) -> None:
    with amberdb.connect(url, clock=clock) as db:
        notes = db.collection("note", indexes=[Ordered("n")], expires_at="until")
        notes.put({"id": "a", "n": 1, "until": clock() + 100})
        first = notes.record("a")
        clock.advance(10)
        notes.put({"id": "a", "n": 2, "until": clock() + 100})
        notes.update("a", {"n": 3})
        second = notes.record("a")
        assert second.created_at == first.created_at < second.updated_at
        assert notes.find({"until": {"$gt": clock()}}) == [second.document]
        clock.advance(200)
        assert notes.get("a") is None
        assert notes.find({"n": 3}) == []
        with pytest.raises(MissingKeyError):
            notes.update("a", {"n": 4})
        notes.put({"id": "a", "n": 5, "until": clock() + 100})
        third = notes.record("a")
        assert third.created_at == third.updated_at > second.updated_at
        assert notes.find({"n": 5}) == [third.document]


def test_put_waits_for_a_transaction_that_looked_for_its_id(
    db: Database, url: str, postgres18: PostgreSQL
) -> None:
    notes = db.collection("note", indexes=[Ordered("n")])
    with ThreadPoolExecutor(1) as thread:
        with db.transaction() as tx:
            assert tx["note"].get("a") is None
            put = thread.submit(notes.put, {"id": "a", "n": 2})
            wait_for_a_lock(postgres18, url)
            tx["note"].put({"id": "a", "n": 1})
        assert put.result(60) == "a"
        assert notes.find({"n": 1}) == []
        assert notes.find({"n": 2}) == [{"id": "a", "n": 2}]
        with db.transaction() as tx:
            known = tx["note"]["a"]
            update = thread.submit(notes.update, "a", {"$inc": {"n": 1}})
            wait_for_a_lock(postgres18, url)
            tx["note"].put({**known, "n": 10})
        update.result(60)
    assert notes["a"] == {"id": "a", "n": 11}


def test_id_that_was_free_is_not_overwritten(db: Database, url: str) -> None:
    """put_many() locks no names, so it may be faster than a transaction that looked for one."""
    notes = db.collection("note")

    def be_late() -> None:
        with db.transaction() as tx:
            assert tx["note"].get("a") is None
            with amberdb.connect(url) as other:
                other["note"].put_many([{"id": "a", "n": 1}])
            tx["note"].put({"id": "a", "n": 2})

    with pytest.raises(ConflictError, match="run it again"):
        be_late()
    assert notes.get("a") == {"id": "a", "n": 1}


def test_put_that_waits_for_a_declaration_goes_by_it(
    db: Database, url: str, postgres18: PostgreSQL
) -> None:
    notes = db.collection("note", indexes=[Ordered("b")])
    notes.put({"id": "a", "n": 1})
    with amberdb.connect(url) as other, ThreadPoolExecutor(2) as threads:
        snapshot = other.snapshot()
        assert snapshot["note"].count({"n": 1}) == 1  # the table cannot be altered while it lasts
        declared = threads.submit(other.collection, "note", indexes=[Ordered("b"), Ordered("n")])
        wait_for_a_lock(postgres18, url)
        put = threads.submit(notes.put, {"id": "b", "n": 2})
        wait_for_a_lock(postgres18, url, 2)
        snapshot.close()
        declared.result(60)
        assert put.result(60) == "b"
        assert notes.explain({"n": 2})["index"] == "ordered:n"
        assert notes.find({"n": 2}) == [{"id": "b", "n": 2}]


def test_writers_without_pause_beside_declarations(url: str) -> None:
    """Rows of one statement each: none lacks an entry of an index that was declared meanwhile."""
    specs: list[Ordered | Unique] = [
        Ordered("a"),
        Ordered("-b", "a"),
        Ordered("b"),
        Unique("u", sparse=True),
    ]
    ended = Event()

    def write(side: int) -> list[str]:
        ids: list[str] = []
        with amberdb.connect(url) as own:
            notes = own["note"]
            while not ended.is_set():
                number = len(ids)
                named = {"id": f"{side}-{number}"} if number % 2 else {}
                document = {**named, "a": number % 5, "b": number % 3, "u": f"{side}-{number}"}
                ids.append(notes.put(document))
                notes.update(ids[number // 2], {"$inc": {"b": 1}})
        return ids

    with amberdb.connect(url) as db, ThreadPoolExecutor(3) as threads:
        db.collection("note")
        writers = [threads.submit(write, side) for side in range(3)]
        try:
            for count in range(1, len(specs) + 1):
                before = db["note"].count()
                while db["note"].count() < before + 60:
                    assert not any(writer.done() for writer in writers)
                db.collection("note", indexes=specs[:count])
        finally:
            ended.set()
        ids = [id for writer in writers for id in writer.result(60)]
        notes = db["note"]
        documents = list(notes.documents())
        assert sorted(each["id"] for each in documents) == sorted(ids)
        for field in ("a", "b", "u"):
            values = [each[field] for each in documents]
            counts = {value: values.count(value) for value in set(values)}
            assert notes.count_by(field) == counts
        for value in range(5):
            wanted = sorted(each["id"] for each in documents if each["a"] == value)
            assert sorted(each["id"] for each in notes.find({"a": value})) == wanted
        by_two = [(each["b"], each["a"]) for each in notes.find(order_by=["-b", "a"])]
        assert by_two == sorted(by_two, key=lambda pair: (-pair[0], pair[1]))
        assert len(by_two) == len(ids)


def test_through_a_pooler_of_transactions(pooler_url: str) -> None:
    with amberdb.connect(pooler_url) as db:
        notes = db.collection("note", indexes=[Ordered("side", "n")])
        notes.put({"id": "all", "n": 0})

        def work(side: int) -> None:
            for number in range(25):
                notes.put({"side": side, "n": number}, sync="os" if number % 2 else "always")
                notes.update("all", {"$inc": {"n": 1}})
                (newest,) = notes.find({"side": side}, order_by="-n", limit=1)
                assert newest["n"] == number

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(work, range(4)))
        assert notes["all"]["n"] == 100
        assert notes.count() == 101


# -- connections -----------------------------------------------------------------------------------


def test_lost_answer_of_a_statement_that_commits_is_unknown() -> None:
    with postgres(18) as server:
        url = server.url("postgresql", server.new_database())
        with amberdb.connect(url) as db, ThreadPoolExecutor(1) as thread:
            notes = db.collection("note")
            notes.put({"id": "a"})

            def lose() -> Any:
                with db.transaction() as tx:
                    tx["note"].get("a")
                    put = thread.submit(notes.put, {"id": "a", "n": 1})
                    wait_for_a_lock(server, url)
                    server.kill()
                    return put.result(60)

            with pytest.raises(CommitUnknownError, match="read what was written"):
                lose()
            server.restart()
            assert notes.get("a") == {"id": "a"}


def test_write_is_sent_on_a_connection_that_is_open() -> None:
    """The first call after a restart of the server knows what it has done."""
    with postgres(18) as server:
        url = server.url("postgresql", server.new_database())
        with amberdb.connect(url) as db:
            notes = db.collection("note")
            for number in range(3):
                notes.put({"id": f"{number}"})
                server.restart()
            notes.insert({"id": "3"})
            assert sorted(notes) == ["0", "1", "2", "3"]


def test_snapshot_that_is_dropped_gives_its_connection_back(url: str) -> None:
    with amberdb.connect(f"{url}?connections=2", busy_timeout_ms=2000) as db:
        notes = db.collection("note")
        notes.put({"id": "a"})
        for _ in range(5):
            assert db.snapshot()["note"].get("a") == {"id": "a"}
        assert notes.get("a") == {"id": "a"}


def test_threads_wait_for_a_free_connection(url: str) -> None:
    with amberdb.connect(f"{url}?connections=1", busy_timeout_ms=50) as db:
        notes = db.collection("note")
        with db.snapshot(), pytest.raises(amberdb.BusyError, match="no connection was free"):
            notes.get("a")
        assert notes.get("a") is None
