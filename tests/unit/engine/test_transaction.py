"""Transactions: atomic, reads see own writes, one writer at a time."""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

import amberdb
from amberdb import (
    BusyError,
    ClosedError,
    Database,
    DuplicateKeyError,
    InvalidDocumentError,
    MissingKeyError,
    Ordered,
    Text,
    Transaction,
    TransactionError,
    TransactionTooLargeError,
    Unique,
    Vector,
)
from amberdb.engine.database.transaction import TransactionCollection
from amberdb.engine.storage.memtable import Memtable
from amberdb.index.registry import IndexSpec
from support.databases import OpenDatabase
from support.inside import engine_of
from unit.engine.helpers import got, ids


class Stop(Exception): ...


@pytest.fixture
def bank(db: Database) -> Database:
    db.collection("a", indexes=[Ordered("x"), Unique("key", sparse=True)], expires_at="until")
    db.collection("b")
    db.collection("a").put_many({"id": id, "x": n} for n, id in enumerate("abc"))
    return db


def run(
    db: Database, body: Callable[[Transaction], object], error: type[BaseException]
) -> Transaction:
    """A transaction that ends with this error."""
    tx = db.transaction()
    with pytest.raises(error), tx:
        body(tx)
    return tx


# -- commit and rollback ---------------------------------------------------------------------


def test_commit_writes_all_collections_at_one_lsn(bank: Database) -> None:
    with bank.transaction() as tx:
        tx["a"].put({"id": "z"})
        tx["b"].put({"id": "z"})
        assert "z" not in bank.collection("a"), "not before the commit"
    assert tx.lsn
    assert bank.collection("a").record("z").version == tx.lsn
    assert bank.collection("b").record("z").version == tx.lsn


def test_an_exception_undoes_everything(bank: Database) -> None:
    before = bank.stats()["last_lsn"]

    def body(tx: Transaction) -> None:
        tx["a"].put({"id": "z"})
        tx["a"].update("a", {"x": 9})
        tx["b"].put({"id": "z"})
        tx["a"].delete("b")
        raise Stop

    tx = run(bank, body, Stop)
    assert bank.collection("a").find(order_by="x") == [
        {"id": "a", "x": 0},
        {"id": "b", "x": 1},
        {"id": "c", "x": 2},
    ]
    assert bank.collection("b").count() == 0
    assert bank.stats()["last_lsn"] == before
    assert not tx.lsn


def test_commit_that_fails_undoes_everything(bank: Database) -> None:
    def body(tx: Transaction) -> None:
        tx["b"].put({"id": "z"})
        tx["a"].put({"id": "y", "key": 1})
        tx["a"].put({"id": "z", "key": 1})

    run(bank, body, DuplicateKeyError)
    assert bank.collection("b").count() == 0
    assert bank.collection("a").count() == 3


def test_a_transaction_that_wrote_nothing_commits_nothing(bank: Database) -> None:
    before = bank.stats()["last_lsn"]
    with bank.transaction() as tx:
        assert tx["a"].count() == 3
    assert bank.stats()["last_lsn"] == before


def test_everything_is_there_after_reopening(open_db: OpenDatabase) -> None:
    db = open_db()
    db.collection("a", indexes=[Ordered("x")])
    with db.transaction() as tx:
        tx["a"].put_many({"id": str(n), "x": n} for n in range(5))
        tx["a"].delete("2")
    db.close()
    assert ids(open_db().collection("a").find({"x": {"$gt": 0}})) == ["1", "3", "4"]


FAILURES: dict[str, tuple[Callable[[TransactionCollection], object], type[Exception]]] = {
    "insert": (lambda a: a.insert({"id": "a"}), DuplicateKeyError),
    "update": (lambda a: a.update("nothing", {}), MissingKeyError),
    "put": (lambda a: a.put({"id": "q", "l": [1], "m": [2]}), InvalidDocumentError),
    "put over another": (lambda a: a.put({"id": "a", "l": [1], "m": [2]}), InvalidDocumentError),
    "put of a value": (lambda a: a.put({"id": "q", "x": {1}}), InvalidDocumentError),
    "put of much": (lambda a: a.put({"id": "q", "x": bytes(50_000)}), TransactionTooLargeError),
}


@pytest.mark.parametrize(("call", "error"), FAILURES.values(), ids=FAILURES.keys())
def test_a_call_that_failed_leaves_nothing_in_the_transaction(
    open_db: OpenDatabase,
    call: Callable[[TransactionCollection], object],
    error: type[Exception],
) -> None:
    db = open_db(transaction_bytes_max=20_000)
    notes = db.collection("a", indexes=[Ordered("l", "m")])
    notes.put({"id": "a", "l": 1})
    with db.transaction() as tx:
        tx["a"].put({"id": "before"})
        with pytest.raises(error):
            call(tx["a"])
        tx["a"].put({"id": "c"})
        assert len(tx["a"]) == 3
    assert list(notes) == ["a", "before", "c"]
    assert len(notes) == 3  # and the audit at the end agrees


# -- reads of own writes ---------------------------------------------------------------------


def reads(a: Any) -> dict[str, object]:
    return {
        "get": [a.get(id) for id in "abcz"],
        "in": [id in a for id in "abcz"],
        "len": len(a),
        "count": a.count(),
        "count of some": a.count({"x": {"$gte": 1}}),
        "iteration": list(a),
        "documents": list(a.documents()),
        "index": a.find({"x": {"$gte": 1}}),
        "index backwards": a.find(order_by="-x"),
        "scan": a.find({"y": None}),
        "page": a.find(order_by="x", limit=2),
        "unique": a.find({"key": 7}),
    }


def test_a_transaction_sees_what_it_wrote(bank: Database) -> None:
    with bank.transaction() as tx:
        a = tx["a"]
        a.put({"id": "z", "x": 10, "key": 7})
        a.update("a", {"x": 5})
        a.delete("b")
        a.put({"id": "gone", "x": 1})
        del a["gone"]
        a.put({"id": "expired", "x": 1, "until": 1})
        inside = reads(a)
        assert a.record("a").version == a.record("z").version
        assert a.explain({"x": 1})["index"] == "ordered:x"
    assert inside == reads(bank.collection("a"))
    assert inside["iteration"] == ["a", "c", "z"]
    assert inside["len"] == 3


def test_delete_many_sees_what_the_transaction_wrote(bank: Database) -> None:
    with bank.transaction() as tx:
        tx["a"].put({"id": "z", "x": 2})
        tx["a"].delete("c")
        assert tx["a"].delete_many({"x": {"$gte": 1}}) == 2
    assert list(bank.collection("a")) == ["a"]


def test_a_transaction_sees_store_and_memtable_beneath_its_own(bank: Database) -> None:
    bank.checkpoint()
    bank.collection("a").update("b", {"x": 11})
    with bank.transaction() as tx:
        tx["a"].update("c", {"x": 12})
        assert tx["a"].find(order_by="-x") == [
            {"id": "c", "x": 12},
            {"id": "b", "x": 11},
            {"id": "a", "x": 0},
        ]


def test_pages_inside_a_transaction_go_on(bank: Database) -> None:
    with bank.transaction() as tx:
        first = tx["a"].find(order_by="x", limit=2)
        tx["a"].put({"id": "z", "x": 1.5})
        assert ids(tx["a"].find(order_by="x", limit=2, after=first.cursor)) == ["z", "c"]


# -- ends and owners -------------------------------------------------------------------------

USES: dict[str, Callable[[Transaction, TransactionCollection], object]] = {
    "collection": lambda tx, a: tx["a"],
    "collection by name": lambda tx, a: tx.collection("a"),
    "put": lambda tx, a: a.put({}),
    "insert": lambda tx, a: a.insert({}),
    "put_many": lambda tx, a: a.put_many([{}]),
    "update": lambda tx, a: a.update("a", {}),
    "delete": lambda tx, a: a.delete("a"),
    "del": lambda tx, a: a.__delitem__("a"),
    "delete_many": lambda tx, a: a.delete_many({}),
    "get": lambda tx, a: a.get("a"),
    "in": lambda tx, a: "a" in a,
    "len": lambda tx, a: len(a),
    "find": lambda tx, a: a.find(),
    "iteration": lambda tx, a: list(a),
    "record": lambda tx, a: a.record("a"),
    "explain": lambda tx, a: a.explain(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_use_after_the_end_is_an_error(
    bank: Database, use: Callable[[Transaction, TransactionCollection], object], end: str
) -> None:
    kept: list[TransactionCollection] = []

    def body(tx: Transaction) -> None:
        kept.append(tx["a"])
        if end == "rollback":
            raise Stop

    tx = bank.transaction()
    with contextlib.suppress(Stop), tx:
        body(tx)
    (a,) = kept
    with pytest.raises(ClosedError):
        use(tx, a)


def test_use_before_the_beginning_is_an_error(bank: Database) -> None:
    with pytest.raises(ClosedError):
        bank.transaction()["a"]


def test_a_transaction_is_entered_once(bank: Database) -> None:
    with bank.transaction() as tx:
        tx["a"].put({"id": "z"})
        with pytest.raises(TransactionError), tx:
            pass
    with pytest.raises(TransactionError), tx:
        pass
    assert "z" in bank.collection("a")


NESTED: dict[str, Callable[[Database], object]] = {
    "put": lambda db: db.collection("a").put({"id": "z"}),
    "delete": lambda db: db.collection("a").delete("a"),
    "transaction": lambda db: db.transaction().__enter__(),
    "declaration": lambda db: db.collection("new"),
    "expire": lambda db: db.expire(),
    "accept_clock": lambda db: db.accept_clock(),
    "checkpoint": lambda db: db.checkpoint(),
    "build_indexes": lambda db: db.build_indexes(),
    "close": lambda db: db.close(),
    "subscriber": lambda db: db.subscriber("s"),
}


@pytest.mark.parametrize("call", NESTED.values(), ids=NESTED.keys())
def test_a_write_beside_ones_own_transaction_raises_and_waits_for_nobody(
    bank: Database, call: Callable[[Database], object]
) -> None:
    with bank.transaction() as tx:
        tx["a"].put({"id": "y"})
        with pytest.raises(TransactionError, match="own open transaction"):
            call(bank)
    assert list(bank.collection("a")) == ["a", "b", "c", "y"]
    assert bank.collections() == ["a", "b"]
    bank.collection("a").put({"id": "z"})


def test_reading_beside_ones_own_transaction_sees_what_is_committed(bank: Database) -> None:
    with bank.transaction() as tx:
        tx["a"].put({"id": "z"})
        assert list(bank.collection("a")) == ["a", "b", "c"]
        with bank.snapshot() as at:
            assert list(at["a"]) == ["a", "b", "c"]


class Other:
    """A thread that holds the writer lock until it is told to release it."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._is_inside = threading.Event()
        self._may_leave = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with self._db.transaction() as tx:
            tx["a"].put({"id": "other"})
            self._is_inside.set()
            self._may_leave.wait()

    def __enter__(self) -> None:
        self._thread.start()
        assert self._is_inside.wait(10)

    def __exit__(self, *_: object) -> None:
        self._may_leave.set()
        self._thread.join()


def test_waiting_for_the_writer_has_a_timeout(open_db: OpenDatabase) -> None:
    db = open_db(busy_timeout_ms=1)
    a = db.collection("a")
    calls: list[Callable[[], object]] = [
        lambda: a.put({}),
        lambda: a.delete("x"),
        lambda: db.transaction().__enter__(),
        lambda: db.transaction(timeout_ms=0).__enter__(),
        lambda: db.collection("new"),
        db.checkpoint,
        db.close,
    ]
    with Other(db):
        for call in calls:
            with pytest.raises(BusyError) as caught:
                call()
            assert caught.value.timeout_s <= 0.001
        assert a.count() == 0
    assert list(a) == ["other"]
    a.put({"id": "mine"})


def test_timeout_of_one_transaction_is_its_own(open_db: OpenDatabase) -> None:
    db = open_db()
    db.collection("a")
    with Other(db), pytest.raises(BusyError), db.transaction(timeout_ms=1):
        pass


def test_whoever_waits_comes_next(bank: Database) -> None:
    other = Other(bank)
    done = threading.Event()

    def write() -> None:
        bank.collection("a").put({"id": "waited"})
        done.set()

    thread = threading.Thread(target=write)
    with other:
        thread.start()
        assert not done.is_set()
    assert done.wait(10)
    thread.join()
    assert list(bank.collection("a")) == ["a", "b", "c", "other", "waited"]


def test_an_interrupted_body_lets_go_of_the_lock(bank: Database) -> None:
    def body(tx: Transaction) -> None:
        tx["a"].put({"id": "z"})
        raise KeyboardInterrupt

    run(bank, body, KeyboardInterrupt)
    bank.collection("a").put({"id": "y"})
    assert "z" not in bank.collection("a")


# -- durability classes ----------------------------------------------------------------------


def write_in_transaction(db: Database, sync: Any) -> None:
    with db.transaction(sync=sync) as tx:
        tx["a"].put({"id": "t"})


WRITES: list[Callable[[Database, Any], object]] = [
    lambda db, sync: db.collection("a").put({"id": "a"}, sync=sync),
    lambda db, sync: db.collection("a").insert({"id": "b"}, sync=sync),
    lambda db, sync: db.collection("a").put_many([{"id": "c"}], sync=sync),
    lambda db, sync: db.collection("a").update("a", {"x": 1}, sync=sync),
    lambda db, sync: db.collection("a").delete("a", sync=sync),
    lambda db, sync: db.collection("a").delete_many({}, sync=sync),
    write_in_transaction,
]


@pytest.mark.parametrize("sync", ["always", "interval", "os"])
def test_sync_class_is_taken_per_call_and_per_database(open_db: OpenDatabase, sync: Any) -> None:
    for name, by_default, by_call in [("d.amber", sync, None), ("c.amber", "always", sync)]:
        db = open_db(name, sync=by_default, sync_interval_ms=3_600_000)
        db.collection("a")
        db.sync()
        for write in WRITES:
            write(db, by_call)
            stats = db.stats()
            is_durable = stats["durable_lsn"] == stats["last_lsn"]
            assert is_durable is (sync == "always")
            assert stats["visible_lsn"] == stats["last_lsn"]
        db.sync()
        assert db.stats()["durable_lsn"] == db.stats()["last_lsn"]


def test_a_later_commit_is_not_acknowledged_before_an_earlier_one(open_db: OpenDatabase) -> None:
    db = open_db(sync="os")
    a = db.collection("a")
    a.put({"id": "a"})
    a.put({"id": "b"}, sync="always")
    assert db.stats()["durable_lsn"] == db.stats()["last_lsn"]


def test_finding_nothing_to_do_is_as_durable_as_doing_it(open_db: OpenDatabase) -> None:
    db = open_db(sync="os")
    a = db.collection("a")
    for acknowledge in (lambda: a.delete("a", sync="always"), lambda: read_durably(db)):
        a.put({"id": "a"})
        a.delete("a")
        assert db.stats()["durable_lsn"] < db.stats()["last_lsn"]
        acknowledge()
        assert db.stats()["durable_lsn"] == db.stats()["last_lsn"]


def read_durably(db: Database) -> None:
    with db.transaction(sync="always") as tx:
        assert "a" not in tx["a"]


@pytest.mark.parametrize("sync", ["Always", "fsync", "", 5, True], ids=repr)
def test_another_sync_class_is_refused_and_stores_nothing(bank: Database, sync: Any) -> None:
    a = bank.collection("a")
    calls: list[Callable[[], object]] = [
        lambda: a.put({"id": "z"}, sync=sync),
        lambda: a.put_many([{"id": "z"}], sync=sync),
        lambda: a.update("a", {"x": 9}, sync=sync),
        lambda: a.delete("a", sync=sync),
        lambda: bank.transaction(sync=sync),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="always"):
            call()
    assert reads(a)["get"] == [{"id": id, "x": n} for n, id in enumerate("abc")] + [None]


def test_database_refuses_another_sync_class(open_db: OpenDatabase, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="always"):
        open_db(sync="fsync")
    assert list(tmp_path.iterdir()) == []


def test_commit_notes_the_rows_that_a_replay_finds(db: Database) -> None:
    """The row events of commits, however documents were written, are the entries of search indexes
    among their effects."""
    indexes: list[IndexSpec] = [Text("text"), Vector("at", dim=2), Ordered("n")]
    notes = db.collection("n", indexes=indexes, expires_at="until")
    plain = db.collection("plain", indexes=[Ordered("n")])
    notes.put_many({"id": str(n), "text": f"tea {n}", "at": [1.0, n], "n": n} for n in range(6))
    notes.update("0", {"n": 10})  # no search index sees this
    notes.update("1", {"text": "green"})
    notes.update("2", {"text": None})
    notes.put({"id": "3", "until": 1.0})
    notes.delete("4")
    plain.put({"id": "a", "n": 1})
    with db.transaction() as tx:
        tx["n"].put({"id": "5", "text": "twice", "at": [0.0, 1.0]})
        tx["n"].put({"id": "5", "text": "thrice", "at": [0.0, 1.0]})
        tx["n"].put({"id": "new", "text": "short-lived"})
        tx["n"].delete("new")
        tx["plain"].put({"id": "b"})
    db.expire()
    state = engine_of(db).committer.state
    replayed = Memtable()
    replayed.entries = state.active.entries
    replayed.find_rows(state.catalog.row_prefixes)
    assert state.active.rows.keys() == replayed.rows.keys()
    for keyspace, events in state.active.rows.items():
        assert sorted(events) == sorted(replayed.rows[keyspace])
        assert [lsn for lsn, _, _ in events] == sorted(lsn for lsn, _, _ in events)


def test_lock_takes_names_and_does_nothing_in_a_directory(bank: Database) -> None:
    with bank.transaction() as tx:
        assert tx.runs_alone
        tx.lock()
        tx.lock("a", "", "a", "\ud800")
        for wrong in (7, None, b"a"):
            with pytest.raises(ValueError, match="give names, each a str"):
                tx.lock("a", cast(Any, wrong))
        tx["a"].delete("a")
    with pytest.raises(ClosedError):
        tx.lock("a")
    with pytest.raises(ClosedError):
        bank.transaction().lock("a")
    assert ids(bank["a"].find()) == ["b", "c"]


# -- run() -------------------------------------------------------------------------------------


def test_run_calls_once_and_returns_what_the_work_returns(db: Database) -> None:
    db.collection("n").put({"id": "a", "x": 1})
    calls: list[int] = []

    def work(tx: amberdb.Transaction) -> int:
        calls.append(1)
        tx["n"].update("a", {"$inc": {"x": 1}})
        return tx["n"].count()

    assert db.run(work, sync="os") == 1
    assert db.run(work, isolation="serializable") == 1
    with db.transaction(isolation="serializable") as tx:
        assert work(tx) == 1
    assert got(db["n"], "a")["x"] == 4
    assert len(calls) == 3


def test_run_stores_nothing_of_work_that_raises(db: Database) -> None:
    db.collection("n").put({"id": "a", "x": 1})
    calls: list[int] = []

    def work(tx: amberdb.Transaction) -> None:
        calls.append(1)
        tx["n"].put({"id": "b"})
        tx["n"].update("a", {"x": 2}, if_version=1)

    with pytest.raises(amberdb.ConflictError):
        db.run(work)
    assert len(calls) == 1
    assert list(db["n"]) == ["a"]
    refused: list[Callable[[], object]] = [
        lambda: db.run(work, attempts=0),
        lambda: db.run(work, isolation=cast(Any, "snapshot")),
        lambda: db.transaction(isolation=cast(Any, "snapshot")),
    ]
    for call in refused:
        with pytest.raises(ValueError, match=r"give 1 or more|use 'serializable'"):
            call()
    assert len(calls) == 1
