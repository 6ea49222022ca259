"""Background jobs that fail: each alone, listed, tried again, and named to those who need it."""

import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from amberdb import (
    Database,
    DocumentError,
    DuplicateKeyError,
    InvalidDocumentError,
    MigrationError,
    Ordered,
    Text,
    Unique,
)
from amberdb import _failpoints as failpoints
from amberdb.engine import failures
from amberdb.engine.commit import index_chunks
from amberdb.engine.commit.write_batch import WriteBatch
from amberdb.engine.maintenance.compaction import Compactor
from support.databases import FakeClock, OpenDatabase, assert_sound
from support.inside import engine_of

WAIT_S = 60
SECRET = "xylophone-secret"


def with_two_lists(db: Database) -> None:
    """An index that no build can complete."""
    db.collection("bad").put({"id": "a", "x": [1, 2], "y": [3, 4]})
    db.collection("bad", indexes=[Ordered("x", "y"), Ordered("z")])


def with_a_failing_function(db: Database) -> None:
    db.collection("bad").put_many({"id": str(n), "x": n} for n in range(5))

    def fails(document: dict[str, Any]) -> dict[str, Any]:
        if document["id"] == "3":
            raise ValueError("not this one")
        return {**document, "y": 1}

    db.collection("bad", version=2, migrate={2: fails}, indexes=[Ordered("y")])


def with_a_violated_unique(db: Database) -> None:
    """As a process leaves it that died while it was built."""

    class Died(BaseException): ...

    def die(name: str) -> None:
        if name == "index.chunk-committed":
            raise Died

    db.collection("bad").put_many([{"id": "a", "x": 1}, {"id": "b", "x": 1}])
    failpoints.install(die)
    try:
        with pytest.raises(Died):
            db.collection("bad", indexes=[Unique("x")])
    finally:
        failpoints.install(None)


BAD: dict[str, tuple[Callable[[Database], None], type[DocumentError]]] = {
    "two lists": (with_two_lists, InvalidDocumentError),
    "a function": (with_a_failing_function, MigrationError),
}


@pytest.fixture(params=BAD)
def bad(request: pytest.FixtureRequest) -> tuple[Callable[[Database], None], type[DocumentError]]:
    return BAD[request.param]


@pytest.fixture
def noted() -> Generator[Callable[[str], threading.Event]]:
    """An event for a failpoint."""
    events: dict[str, threading.Event] = {}

    def reached(name: str) -> None:
        if name in events:
            events[name].set()

    failpoints.install(reached)
    yield lambda name: events.setdefault(name, threading.Event())
    failpoints.install(None)


@pytest.mark.parametrize("background", [False, True])
def test_what_cannot_be_built_holds_up_no_erasure_and_no_compaction(
    open_db: OpenDatabase, bad: tuple[Callable[[Database], None], Any], background: bool
) -> None:
    db = open_db(background=background)
    db.collection("other").put_many([{"id": "v", "who": "lin", "t": SECRET}, {"id": "w"}])
    db.checkpoint()
    bad[0](db)
    receipt = db.erase("other", {"who": "lin"}, reason="asked")
    assert receipt.completed is not None
    assert not left_in_files(db)
    db.compact()
    assert db.stats().erasures_waiting == []
    db.close()
    db = open_db(background=background)
    assert db.stats().erasures_waiting == []
    assert len(db.collection("other")) == 1


def left_in_files(db: Database) -> bool:
    return holds(db, SECRET)


def holds(db: Database, text: str) -> bool:
    """Whether a file of the database has the text."""
    files = [path for path in Path(db.path).rglob("*") if path.is_file()]
    return any(text.encode() in path.read_bytes() for path in files)


def test_it_is_named_in_the_error_of_its_own_collection_and_of_no_other(
    open_db: OpenDatabase, bad: tuple[Callable[[Database], None], type[DocumentError]]
) -> None:
    db = open_db()
    bad[0](db)
    other = db.collection("other")
    other.put_many([{"id": "1", "t": "amber", "u": 1}, {"id": "2", "t": "resin", "u": 2}])
    other = db.collection("other", indexes=[Text("t"), Unique("u"), Ordered("v")])
    with pytest.raises(DuplicateKeyError):
        other.insert({"id": "3", "u": 2})
    assert [hit.id for hit in other.search("amber")] == ["1"]
    with pytest.raises(bad[1]):
        db.build_indexes()
    assert other.explain({"v": 1})["index"] == "ordered:v", "the others are built all the same"
    db.collection("old").put({"id": "1"})
    db.drop_collection("old")
    with pytest.raises(bad[1]):
        db.build_indexes()
    assert engine_of(db).committer.state.catalog.retired == ()
    with pytest.raises(bad[1]):
        db.collection("bad", indexes=[Unique("x", "y")])


def test_it_is_listed_with_its_attempts_until_it_succeeds(open_db: OpenDatabase) -> None:
    db = open_db()
    with_two_lists(db)
    assert db.stats().failures == []
    for attempts in (1, 2):
        with pytest.raises(InvalidDocumentError, match=r"'a'.*cannot be built"):
            db.build_indexes()
        (failure,) = db.stats().failures
        assert "ordered:x,y" in failure.job
        assert "'bad'" in failure.job
        assert "document 'a'" in failure.error
        assert failure.attempts == attempts
    report = db.check()
    assert report.ok, "no damage"
    assert any("ordered:x,y" in note for note in report.notes)
    db.collection("bad").put({"id": "a", "x": [1, 2], "y": 3})
    db.build_indexes()
    assert db.stats().failures == []
    assert db.collection("bad").explain({"x": 1, "y": 3})["index"] == "ordered:x,y"
    assert not db.check().notes


def test_a_dropped_index_is_no_failure_any_more(open_db: OpenDatabase) -> None:
    db = open_db()
    with_two_lists(db)
    with pytest.raises(InvalidDocumentError):
        db.build_indexes()
    db.collection("bad", indexes=[])
    assert db.stats().failures == []
    db.build_indexes()


def test_the_background_builds_the_others_and_tries_it_again(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch, noted: Callable[[str], threading.Event]
) -> None:
    monkeypatch.setattr(failures, "PAUSE_S", 0.01)
    db = open_db(background=True)
    db.collection("good").put({"id": "g", "x": 1})
    with_two_lists(db)
    built = noted("index.marked")
    db.collection("good", indexes=[Ordered("x")])
    assert built.wait(WAIT_S)
    again = noted("index.marked")
    again.clear()
    db.collection("bad").put({"id": "a", "x": 1, "y": 3})  # nobody asks for the index
    while db.collection("bad").explain({"x": 1, "y": 3})["index"] != "ordered:x,y":
        assert again.wait(WAIT_S)
    assert db.stats().failures == []


def test_pauses_grow_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("amberdb.engine.failures.time.monotonic", lambda: now[0])
    found = failures.Failures()
    pauses = [found.note("k", "a job", ValueError("no")) for _ in range(12)]
    assert pauses == [min(2.0**n, failures.PAUSE_MAX_S) for n in range(12)]
    assert found.left_s("k") == failures.PAUSE_MAX_S
    assert found.left_s("another") == 0
    assert found.retry_s(["another"]) is None
    now[0] = 1e6
    assert found.left_s("k") == 0
    assert found.retry_s(["k", "another"]) == 0
    found.clear("k")
    assert found.listed() == []
    assert found.note("k", "a job", ValueError("no")) == 1


def test_a_unique_index_that_another_process_left_is_the_business_of_its_collection(
    open_db: OpenDatabase,
) -> None:
    db = open_db()
    with_a_violated_unique(db)
    db.collection("good").put({"id": "g", "t": "amber"})
    good = db.collection("good", indexes=[Text("t")])
    assert len(good.search("amber")) == 1
    assert db.erase("good", {"id": "g"}, reason="asked").completed is not None
    with pytest.raises(DuplicateKeyError):
        db.build_indexes()
    db["bad"].update("b", {"x": 2})
    db.build_indexes()


def test_the_position_of_a_build_is_no_erased_id(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build that stopped after a document is not gone on with, and its place forgets the id."""
    monkeypatch.setattr(index_chunks, "CHUNK", 2)
    db = open_db()
    people = db.collection("people")
    people.put_many({"id": f"{n}-{SECRET}", "x": n} for n in range(4))
    people.put({"id": f"4-{SECRET}", "x": [1], "y": [2]})
    people = db.collection("people", indexes=[Ordered("x", "y")])
    with pytest.raises(InvalidDocumentError):
        db.build_indexes()
    db.erase("people", {"id": {"$gte": "2", "$lt": "4"}}, reason="asked")
    assert not [n for n in (2, 3) if holds(db, f"{n}-{SECRET}")]
    assert [n for n in (0, 1) if holds(db, f"{n}-{SECRET}")], "or this test sees nothing"
    db.erase("people", {"x": {"$lt": 2}}, reason="asked")
    assert not [n for n in range(4) if holds(db, f"{n}-{SECRET}")]
    people.put_many([{"id": f"1-{SECRET}", "x": 5}, {"id": f"4-{SECRET}", "x": 6}])
    db.build_indexes()
    assert people.count({"x": {"$gte": 5}}) == 2
    assert_sound(db)


def test_a_document_that_cannot_be_upgraded_is_erased_by_its_id(open_db: OpenDatabase) -> None:
    db = open_db()
    with_a_failing_function(db)
    with pytest.raises(MigrationError):
        db.erase("bad", {"x": 3}, reason="a newer version may call it otherwise")
    assert db.erase("bad", {"id": "3"}, reason="asked").documents == 1
    db.migrate()
    assert db.collection("bad").count({"y": 1}) == 4


def test_one_migration_that_fails_holds_up_no_other(open_db: OpenDatabase) -> None:
    db = open_db()
    with_a_failing_function(db)
    db.collection("good").put({"id": "g"})
    db.collection("good", version=2, migrate={2: lambda d: {**d, "new": True}})
    with pytest.raises(MigrationError, match="'bad'"):
        db.migrate()
    assert db.definition("good").steps == ()
    (failure,) = db.stats().failures
    assert "the migration of collection 'bad'" in failure.job


def test_expired_documents_of_one_collection_hold_up_no_other(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    db = open_db(clock=clock, reap_grace_ms=0)
    for name in ("a", "b", "c"):
        db.collection(name, expires_at="until").put({"id": "1", "until": clock() + 1})
    clock.advance(10)
    remove = WriteBatch.remove

    def fails(self: WriteBatch, schema: Any, *arguments: Any) -> Any:
        if schema.name == "b":
            raise ZeroDivisionError("a defect")
        return remove(self, schema, *arguments)

    with monkeypatch.context() as broken:
        broken.setattr(WriteBatch, "remove", fails)
        expiry = engine_of(db).expiry
        assert expiry.step(lambda: False) is None
        assert [len(list(db.changes())), expiry.next_expiry_us() > 2**62] == [5, True]
        (failure,) = db.stats().failures
        assert "expired documents of collection 'b'" in failure.job
        assert expiry.retry_s() is not None
        with pytest.raises(ZeroDivisionError):
            db.expire()
    assert db.expire() == 1


def test_an_interrupted_erasure_that_fails_is_tried_again(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch, noted: Callable[[str], threading.Event]
) -> None:
    monkeypatch.setattr(failures, "PAUSE_S", 0.01)
    run = Compactor.run
    attempts: list[int] = []

    def fails(self: Compactor, *arguments: Any, **options: Any) -> Any:
        attempts.append(1)
        if len(attempts) < 4:
            raise OSError("for now")
        return run(self, *arguments, **options)

    db = open_db()
    db.collection("n").put({"id": "a", "t": SECRET})
    monkeypatch.setattr(Compactor, "run", fails)
    with pytest.raises(OSError, match="for now"):
        db.erase("n", {}, reason="asked")
    db.close()
    done = noted("erase.completed")
    db = open_db(background=True)
    assert done.wait(WAIT_S)
    assert len(attempts) == 4
    assert db.stats().erasures_waiting == []
    assert not left_in_files(db)


# -- memory ----------------------------------------------------------------------------------


@pytest.mark.parametrize("memtable_bytes_max", [1 << 20, 1 << 18])
def test_a_memtable_limit_below_that_of_checkpoints_stops_no_write(
    open_db: OpenDatabase, memtable_bytes_max: int
) -> None:
    db = open_db(background=True, memtable_bytes_max=memtable_bytes_max, busy_timeout_ms=20_000)
    notes = db.collection("n")
    for n in range(3000):
        notes.put({"id": str(n), "t": "x" * 500}, sync="os")
    assert db.stats().checkpoint.count > 1
    assert len(notes) == 3000


def test_writers_do_not_wait_for_the_end_of_a_long_build(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that builds is the one that checkpoints: it does so between two chunks."""
    monkeypatch.setattr(index_chunks, "CHUNK", 10)
    db = open_db(background=True, memtable_bytes_max=1 << 20, busy_timeout_ms=5000)
    notes = db.collection("n")
    notes.put_many({"id": f"{n:04}", "x": n} for n in range(200))
    db.checkpoint()
    writers: list[threading.Thread] = []

    def write() -> None:
        db["o"].put_many({"t": "y" * 500} for _ in range(150))

    def reached(name: str) -> None:
        if name == "index.chunk-committed" and len(writers) < 15:
            writer = threading.Thread(target=write)
            writer.start()
            writers.append(writer)  # it may be joined from now on
            writer.join(WAIT_S)
            assert not writer.is_alive()

    db.collection("o")
    failpoints.install(reached)
    try:
        db.collection("n", indexes=[Ordered("x")])
        db.build_indexes()
    finally:
        failpoints.install(None)
    for writer in writers:
        writer.join(WAIT_S)
    assert len(writers) >= 15
    assert len(db.collection("o")) == 150 * len(writers)
