"""The change feed: every durable change once, in order; subscribers, and the log held for them."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from amberdb import Change, ClosedError, Database, LogTruncatedError, Lsn, Ordered, QueryError
from amberdb.wal import Log
from support.databases import FakeClock, OpenDatabase


def told(changes: Iterator[Change]) -> list[tuple[str, str, str]]:
    return [(change.op, change.collection, change.id) for change in changes]


def write_much(db: Database, count: int = 60) -> None:
    """More than one segment of the log."""
    for n in range(count):
        db.collection("n").put({"id": str(n % 3), "x": bytes(1000)}, sync="os")
    db.sync()


def test_changes_are_told_in_order_with_their_documents(open_db: OpenDatabase) -> None:
    clock = FakeClock(1_700_000_000.5)
    db = open_db(clock=clock)
    one, two = db.collection("one", indexes=[Ordered("x")]), db.collection("two")
    assert list(db.changes()) == []
    one.put({"id": "a", "x": 1})
    two.put_many([{"id": "b"}, {"id": "c"}])
    clock.advance(1)
    one.update("a", {"x": [2, 3]})
    one.delete("a")
    with db.transaction() as tx:
        tx["one"].put({"id": "z"})
        tx["two"].delete("b")
    changes = list(db.changes())
    assert [(c.op, c.collection, c.id, c.document) for c in changes] == [
        ("put", "one", "a", {"id": "a", "x": 1}),
        ("put", "two", "b", {"id": "b"}),
        ("put", "two", "c", {"id": "c"}),
        ("put", "one", "a", {"id": "a", "x": [2, 3]}),
        ("delete", "one", "a", None),
        ("put", "one", "z", {"id": "z"}),
        ("delete", "two", "b", None),
    ]
    lsns = [change.lsn for change in changes]
    assert lsns == sorted(lsns)
    assert lsns[1] == lsns[2] == two.record("c").version
    assert changes[0].time == datetime(2023, 11, 14, 22, 13, 20, 500_000, tzinfo=UTC)
    assert (changes[3].time - changes[0].time).total_seconds() == 1


def test_only_what_is_behind_since_is_told(db: Database) -> None:
    notes = db.collection("n")
    notes.put({"id": "a"})
    since = notes.record("a").version
    assert list(db.changes(since)) == []
    notes.put({"id": "b"})
    assert told(db.changes(since)) == [("put", "n", "b")]
    assert len(told(db.changes())) == len(told(db.changes())) == 2


def test_one_document_changed_twice_in_a_commit_is_told_once(db: Database) -> None:
    db.collection("n")
    with db.transaction() as tx:
        tx["n"].put({"id": "a", "x": 1})
        tx["n"].put({"id": "a", "x": 2})
        tx["n"].put({"id": "b"})
        tx["n"].delete("b")
    changes = [change for change in db.changes() if change.op == "put"]
    assert [change.document for change in changes] == [{"id": "a", "x": 2}]


def test_what_is_not_durable_is_not_told(db: Database) -> None:
    notes = db.collection("n")
    notes.put({"id": "a"}, sync="os")
    assert "a" in notes
    assert told(db.changes()) == []
    db.sync()
    assert told(db.changes()) == [("put", "n", "a")]


def test_changes_outlive_a_checkpoint_and_a_restart_while_the_log_does(
    open_db: OpenDatabase,
) -> None:
    db = open_db()
    db.collection("n").put({"id": "a"})
    db.checkpoint()
    db.close()
    assert told(open_db().changes()) == [("put", "n", "a")]


# -- following -------------------------------------------------------------------------------


def test_following_ends_when_nothing_came_in_time(db: Database) -> None:
    db.collection("n").put({"id": "a"})
    assert told(db.changes(follow=True, timeout_s=0)) == [("put", "n", "a")]


def follow(db: Database, found: list[Change], ended: threading.Event, seen: Any = None) -> None:
    for change in db.changes(follow=True):
        found.append(change)
        if seen is not None:
            seen.release()
    ended.set()


def test_following_tells_what_comes_and_ends_with_the_database(open_db: OpenDatabase) -> None:
    db = open_db()
    notes = db.collection("n")
    found: list[Change] = []
    ended = threading.Event()
    seen = threading.Semaphore(0)
    thread = threading.Thread(target=follow, args=(db, found, ended, seen))
    thread.start()
    for n in range(5):
        notes.put({"id": str(n)}, sync="os" if n % 2 else "always")
        assert seen.acquire(timeout=10), "a follower makes durable what it tells"
    assert not ended.is_set()
    db.close()
    assert ended.wait(10)
    thread.join()
    assert [change.id for change in found] == list("01234")


def test_following_a_closed_database_is_an_error(open_db: OpenDatabase) -> None:
    db = open_db()
    db.collection("n").put({"id": "a"})
    changes = db.changes(follow=True)
    next(changes)
    db.close()
    assert list(changes) == []
    with pytest.raises(ClosedError):
        db.changes()


# -- subscribers -----------------------------------------------------------------------------


def test_a_subscriber_is_told_from_its_position(open_db: OpenDatabase) -> None:
    db = open_db()
    notes = db.collection("n")
    notes.put({"id": "before"})
    reader = db.subscriber("reader")
    assert told(reader.changes()) == []
    notes.put({"id": "a"})
    notes.put({"id": "b"})
    first, second = reader.changes()
    assert told(reader.changes()) == [("put", "n", "a"), ("put", "n", "b")], "until acknowledged"
    reader.acknowledge(first.lsn)
    assert reader.position == first.lsn
    assert db.stats()["subscribers"] == {"reader": first.lsn}
    db.close()
    db = open_db()
    reader = db.subscriber("reader", since=Lsn(0))
    assert reader.position == first.lsn, "the one that was kept"
    assert told(reader.changes()) == [("put", "n", "b")]
    reader.acknowledge(second.lsn)
    assert told(reader.changes()) == []


def test_a_subscriber_may_begin_in_the_past(db: Database) -> None:
    db.collection("n").put({"id": "a"})
    assert told(db.subscriber("all", since=Lsn(0)).changes(follow=True, timeout_s=0)) == [
        ("put", "n", "a")
    ]


def test_a_position_does_not_go_back(db: Database) -> None:
    reader = db.subscriber("reader")
    with pytest.raises(QueryError, match="cannot move back"):
        reader.acknowledge(Lsn(reader.position - 1))


@pytest.mark.parametrize("name", ["", "x" * 201, "下" * 67, 5, None], ids=repr)
def test_name_of_a_subscriber_is_short_text(db: Database, name: Any) -> None:
    with pytest.raises(QueryError):
        db.subscriber(name)


def test_a_checkpoint_lets_the_log_go(db: Database) -> None:
    db.collection("n")
    write_much(db)
    before = db.stats()["log"]
    assert before["segments"] > 2
    since = Lsn(db.stats()["applied_lsn"])
    db.checkpoint()
    after = db.stats()["log"]
    assert after["segments"] == 1
    assert after["bytes"] < before["bytes"]
    assert db.stats()["applied_lsn"] == Lsn(db.stats()["last_lsn"])
    with pytest.raises(LogTruncatedError) as caught:
        list(db.changes(since))
    assert since < caught.value.resume <= Lsn(db.stats()["last_lsn"])
    list(db.changes(caught.value.resume))


def test_a_subscriber_holds_the_log_back_until_it_acknowledges(db: Database) -> None:
    db.collection("n")
    reader = db.subscriber("reader")
    write_much(db)
    db.checkpoint()
    assert db.stats()["log"]["segments"] > 2
    changes = list(reader.changes())
    assert len(changes) == 60
    reader.acknowledge(changes[-1].lsn)
    db.checkpoint()
    assert db.stats()["log"]["segments"] == 1


def test_the_slowest_subscriber_counts_until_it_is_removed(db: Database) -> None:
    db.collection("n")
    slow, fast = db.subscriber("slow"), db.subscriber("fast")
    write_much(db)
    fast.acknowledge(Lsn(Lsn(db.stats()["last_lsn"])))
    db.checkpoint()
    assert len(list(slow.changes())) == 60
    slow.remove()
    db.collection("n").put({"id": "x"})
    db.checkpoint()
    assert db.stats()["log"]["segments"] == 1
    assert list(db.stats()["subscribers"]) == ["fast"]


def test_removed_subscriber_stays_removed(open_db: OpenDatabase) -> None:
    db = open_db()
    db.subscriber("reader").remove()
    db.close()
    assert open_db().stats()["subscribers"] == {}


def test_log_is_kept_for_a_subscriber_up_to_the_limit(open_db: OpenDatabase) -> None:
    db = open_db(subscriber_log_bytes_max=8192)
    db.collection("n")
    reader = db.subscriber("reader")
    write_much(db)
    db.checkpoint()
    assert db.stats()["log"]["segments"] == 1
    with pytest.raises(LogTruncatedError) as caught:
        list(reader.changes())
    reader.acknowledge(caught.value.resume)
    db.collection("n").put({"id": "late"})
    assert ("put", "n", "late") in told(reader.changes())


def test_subscriber_outlives_a_restart_with_its_log(open_db: OpenDatabase) -> None:
    db = open_db()
    db.collection("n")
    db.subscriber("reader")
    write_much(db)
    db.close()
    db = open_db()
    db.checkpoint()
    assert len(list(db.subscriber("reader").changes())) == 60


def test_an_lsn_that_is_not_there_yet_cannot_be_acknowledged(db: Database) -> None:
    notes = db.collection("notes")
    reader = db.subscriber("reader")
    notes.put({"id": "a"})
    last = Lsn(db.stats()["last_lsn"])
    with pytest.raises(QueryError, match="no Lsn"):
        reader.acknowledge(Lsn(last + 1))
    assert [change.id for change in reader.changes()] == ["a"]
    reader.acknowledge(last)
    assert list(reader.changes()) == []


def test_changes_begin_at_the_oldest_record_though_a_checkpoint_recycles_it(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the oldest record and the read."""
    events = db.collection("event")
    events.put({"id": "recycled"})
    db.compact()  # the log begins in another file
    events.put({"id": "a"})
    events.put({"id": "b"})
    monkeypatch.setattr(Log, "first_lsn", Lsn(2))  # as it was
    assert [change.id for change in db.changes()] == ["a", "b"]
    with pytest.raises(LogTruncatedError):
        next(db.changes(Lsn(1)))
