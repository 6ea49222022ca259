"""The change feed of a database on a server: each change once, those of one document in the order
of its commits, whatever the order in which transactions begin, write and end.
"""

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import (
    Change,
    Database,
    LogTruncatedError,
    Lsn,
    OpenOptions,
    Ordered,
    QueryError,
    TransactionError,
    Unique,
)
from support.databases import FakeClock
from support.servers import PostgreSQL


@pytest.fixture
def options() -> OpenOptions:
    return {"background": False}


def told(changes: Iterator[Change]) -> list[tuple[str, str, Any]]:
    return [
        (change.op, change.id, change.document and change.document.get("n")) for change in changes
    ]


# -- what a change is ------------------------------------------------------------------------------


def fail(db: Database) -> None:
    with db.transaction() as tx:
        tx["memo"].put({"id": "rolled back"})
        tx["memo"].update("none", {})


def live(db: Database, clock: FakeClock) -> list[Change]:
    """The changes of a life of a database, in which everything happens."""
    assert list(db.changes()) == []
    notes = db.collection("note", indexes=[Ordered("n")])
    lists = db.collection("list", expires_at="until")
    notes.put({"id": "a\0", "n": 1, "floats": [1.0, 1e300], "bytes": b"\0", "$amber": "x"})
    notes.put_many({"id": f"{number}", "n": number} for number in range(20))
    clock.advance(1)
    with db.transaction() as tx:
        tx["note"].update("3", {"$inc": {"n": 10}})
        tx["list"].put({"id": "l", "until": clock.now + 5})
        assert len(tx["note"].find({"n": {"$gte": 13}})) == 8
        tx["note"].delete("4")
        tx["note"].update("3", {"tags": ["x"]})
        tx["note"].put({"id": "short", "n": 0})
        tx["note"].delete("short")
        tx["note"].delete("never")
    notes.delete_many({"n": {"$gte": 18}})
    lists.put({"id": "m", "until": clock.now + 5})
    lists.touch(["l"], clock.now + 50)
    clock.advance(60)
    lists.insert({"id": "m"})
    db.rename_collection("note", "memo")
    db["memo"].put({"id": "a"})
    assert db.expire() == 1
    db.collection("gone").put({"id": "secret"})
    db.drop_collection("gone")
    with pytest.raises(amberdb.MissingKeyError):
        fail(db)
    return list(db.changes())


def test_changes_are_those_of_a_directory(url: str, tmp_path: Path) -> None:
    clocks = FakeClock(), FakeClock()
    with (
        amberdb.connect(url, clock=clocks[0], background=False) as there,
        amberdb.open(tmp_path / "d", clock=clocks[1], background=False, reap_grace_ms=0) as here,
    ):
        found, wanted = live(there, clocks[0]), live(here, clocks[1])
        lsns = [change.lsn for change in found]
    for one, two in zip(found, wanted, strict=True):
        assert one.op == two.op
        assert (one.collection, one.id, one.new_name) == (two.collection, two.id, two.new_name)
        assert one.document == two.document
        assert one.time == two.time
    assert lsns == sorted(lsns)
    assert [lsns.index(lsn) for lsn in lsns] == [
        [each.lsn for each in wanted].index(change.lsn) for change in wanted
    ]


def test_since_and_timeouts(db: Database, other: Database) -> None:
    assert list(db.changes()) == []
    notes = db.collection("note")
    notes.put({"id": "a", "n": 1})
    (first,) = db.changes()
    notes.put({"id": "b", "n": 2})
    assert told(db.changes(first.lsn)) == [("put", "b", 2)]
    assert told(other.changes(first.lsn, follow=True, timeout_s=0)) == [("put", "b", 2)]
    assert told(other.changes()) == [("put", "a", 1), ("put", "b", 2)]
    with pytest.raises(LogTruncatedError) as caught:
        next(db.changes(Lsn(0)))
    assert len(list(db.changes(caught.value.resume))) == 2
    notes.put_many({"id": f"{number}", "text": "x" * 10_000} for number in range(900))
    for number in range(600):
        notes.put({"id": f"{number}"}, sync="os")
    assert len(list(db.changes())) == 1502  # in several batches


def test_feed_begins_outside_a_transaction(db: Database) -> None:
    db.collection("note")
    with db.transaction() as tx:
        with pytest.raises(TransactionError):
            db.changes()
        tx["note"].put({"id": "a"})
    db.changes()
    with db.transaction() as tx:
        tx["note"].put({"id": "b"})
        assert list(db.changes()) == []
    assert told(db.changes()) == [("put", "b", None)]


# -- order -----------------------------------------------------------------------------------------


def test_order_of_one_document_is_that_of_its_commits(db: Database, other: Database) -> None:
    """The transaction that writes first, and so has the smaller id, locks the document last."""
    notes = db.collection("note")
    list(db.changes())
    with db.transaction() as tx:
        tx["note"].put({"id": "own", "n": 0})
        assert tx["note"].count() == 1  # it is sent to the server
        other["note"].put({"id": "both", "n": 1})
        tx["note"].update("both", {"n": 2})
    assert told(db.changes()) == [("put", "both", 1), ("put", "own", 0), ("put", "both", 2)]
    assert notes["both"]["n"] == 2


def test_commit_that_ends_late_is_told_late(db: Database, other: Database) -> None:
    db.collection("note")
    reader = other.subscriber("reader")
    transactions = [db.transaction(), other.transaction()]
    for number, transaction in enumerate(transactions):
        transaction.__enter__()["note"].put({"id": f"{number}", "n": number})
        transaction["note"].count()
    transactions[1].__exit__(None, None, None)
    (late,) = reader.changes()
    assert late.id == "1"
    reader.acknowledge(late.lsn)
    transactions[0].__exit__(None, None, None)
    assert told(reader.changes()) == [("put", "0", 0)]


def test_commit_that_waits_for_another_one_is_told_after_it(
    postgres18: PostgreSQL, url: str, db: Database, other: Database
) -> None:
    """It has left its changes in the outbox by then, before those of a commit that overtakes it."""
    notes = db.collection("note", indexes=[Unique("u", sparse=True)])
    reader = db.subscriber("reader")
    blocking = db.transaction()
    blocking.__enter__()["note"].put({"id": "rolled back", "u": 1})
    blocking["note"].count()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(other["note"].put, {"id": "waits", "n": 1, "u": 1})
        while postgres18.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").strip() == "0":
            assert not waiting.done()
        with amberdb.connect(url) as third:
            third["note"].put({"id": "overtakes", "n": 2})
        (first,) = reader.changes()
        reader.acknowledge(first.lsn)
        blocking.__exit__(QueryError, QueryError("end"), None)
        assert waiting.result(30) == "waits"
    assert first.id == "overtakes"
    assert told(reader.changes()) == [("put", "waits", 1)]
    assert len(notes) == 2


def test_readers_agree(url: str, db: Database) -> None:
    notes = db.collection("note")
    db.changes()

    def read(_: int) -> list[tuple[Lsn, str]]:
        found: list[tuple[Lsn, str]] = []
        with amberdb.connect(url) as mine:
            for change in mine.changes(follow=True, timeout_s=60):
                found.append((change.lsn, change.id))
                if change.id == "end":
                    break
        return found

    def put(side: int) -> None:
        for number in range(150):
            notes.put({"id": f"{side}-{number}"}, sync="os")

    with ThreadPoolExecutor(8) as threads:
        readers = [threads.submit(read, side) for side in range(4)]
        list(threads.map(put, range(4)))
        notes.put({"id": "end"})
        first, *others = [reader.result() for reader in readers]
    assert len(first) == 601
    assert others == [first] * 3


READER = """
import sys
import amberdb

with amberdb.connect(sys.argv[1]) as db:
    feed = db.subscriber("reader")
    done = feed.position
    for change in feed.changes(follow=True):
        if change.lsn != done:  # a commit has two changes: only now it is told as a whole
            feed.acknowledge(done)
        done = change.lsn
        print(done, change.id, change.document["n"], flush=True)
        if change.id == "end":
            feed.acknowledge(done)
            break
"""


def write(url: str, seed: int, rounds: int, ended: threading.Event) -> dict[str, int]:
    """Transactions that write a document of their own, and then one of a few that all write."""
    drawn, counts = random.Random(seed), dict[str, int]()
    with amberdb.connect(url) as db:
        for number in range(rounds):
            if ended.is_set():
                break
            own, shared = f"own{seed}", f"shared{drawn.randrange(4)}"
            with db.transaction(sync=drawn.choice(["always", "os"])) as tx:
                tx["note"].put({"id": own, "n": number + 1})
                tx["note"].count()
                ended.wait(drawn.random() / 200)
                known = tx["note"].get(shared) or {"id": shared, "n": 0}
                tx["note"].put({**known, "n": known["n"] + 1})
                ended.wait(drawn.random() / 200)
            counts[own] = counts.get(own, 0) + 1
            counts[shared] = counts.get(shared, 0) + 1
    return counts


def feed_under_load(url: str, *, rounds: int, seconds: float, kills: int) -> str:
    """Writers beside a subscriber that is killed again and again; asserts that each change came,
    once but for a kill, in the order of each document. Returns the figures."""
    ended = threading.Event()
    lines: list[str] = []
    with amberdb.connect(url) as db, ThreadPoolExecutor(8) as threads:
        db.collection("note")
        db.subscriber("reader")
        timer = threading.Timer(seconds, ended.set)
        timer.start()
        writers = [threads.submit(write, url, seed, rounds, ended) for seed in range(8)]
        for _ in range(kills):
            with start_reader(url) as reader:
                assert reader.stdout is not None
                lines += [reader.stdout.readline() for _ in range(40)]
                reader.kill()
                lines += [line for line in reader.stdout if line.endswith("\n")]
        with start_reader(url) as reader:
            written = [writer.result() for writer in writers]
            timer.cancel()
            db["note"].put({"id": "end", "n": 1})
            assert reader.stdout is not None
            lines += reader.stdout
        assert reader.returncode == 0
        db.checkpoint()
        left = list(db.changes())
    told = [line.split() for line in lines]
    distinct = list(dict.fromkeys((int(lsn), id, int(n)) for lsn, id, n in told))
    assert [lsn for lsn, _, _ in distinct] == sorted(lsn for lsn, _, _ in distinct)
    by_id: dict[str, list[int]] = {}
    for _, id, n in distinct:
        by_id.setdefault(id, []).append(n)
    wanted: dict[str, int] = {"end": 1}
    for counts in written:
        for id, count in counts.items():
            wanted[id] = wanted.get(id, 0) + count
    assert by_id == {id: list(range(1, count + 1)) for id, count in wanted.items()}
    assert len(lines) - len(distinct) <= 4 * kills
    assert left == []
    return f"{len(distinct)} changes, {len(lines) - len(distinct)} repeated after {kills} kills"


def start_reader(url: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", READER, url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_each_change_once_in_order_of_each_document(url: str) -> None:
    """The subscriber is a process that is killed and begins again."""
    feed_under_load(url, rounds=40, seconds=60, kills=3)


def test_feed_through_a_pooler_of_transactions(pooler_url: str) -> None:
    feed_under_load(pooler_url, rounds=10, seconds=60, kills=1)


def test_no_commit_is_missed_after_the_first_subscriber(url: str, db: Database) -> None:
    """Writers do not know of it before; of each, an end of its commits is told without a gap."""
    db.collection("note")
    started, ended = threading.Barrier(5), threading.Event()

    def put(side: int) -> int:
        number = 0
        with amberdb.connect(url) as mine:
            while not ended.is_set():
                mine["note"].put({"id": f"{side}", "n": number}, sync="os")
                number += 1
                if number == 10:
                    started.wait(60)
        return number

    with ThreadPoolExecutor(4) as threads:
        writers = [threads.submit(put, side) for side in range(4)]
        started.wait(60)
        for _ in range(3):
            reader = db.subscriber("reader")
            changes = [next(iter(reader.changes(follow=True))) for _ in range(5)]
            assert len({change.lsn for change in changes}) == 1  # nothing was acknowledged
            reader.remove()
        reader = db.subscriber("reader")
        next(iter(reader.changes(follow=True)))
        ended.set()
        counts = [writer.result(60) for writer in writers]
    found: dict[str, list[int]] = {}
    for change in reader.changes():
        assert change.document is not None
        found.setdefault(change.id, []).append(change.document["n"])
    for side, numbers in found.items():
        assert numbers == list(range(numbers[0], counts[int(side)]))


def test_following_tells_what_comes_and_ends_with_the_database(url: str, other: Database) -> None:
    db = amberdb.connect(url)
    found: list[str] = []
    seen, ended = threading.Semaphore(0), threading.Event()
    other.collection("note")
    other.changes()

    def follow() -> None:
        for change in db.changes(follow=True):
            found.append(change.id)
            seen.release()
        ended.set()

    thread = threading.Thread(target=follow)
    thread.start()
    for number in range(5):
        other["note"].put({"id": f"{number}"})
        assert seen.acquire(timeout=10)
    db.close()
    assert ended.wait(10)
    thread.join()
    assert found == list("01234")
    with pytest.raises(amberdb.ClosedError):
        db.changes()


# -- subscribers -----------------------------------------------------------------------------------


def test_a_subscriber_is_told_from_its_position(url: str, db: Database) -> None:
    notes = db.collection("note")
    notes.put({"id": "before"})
    reader = db.subscriber("reader")
    notes.put({"id": "a"})
    notes.put({"id": "b"})
    first, second = reader.changes()
    assert told(reader.changes()) == [("put", "a", None), ("put", "b", None)]  # until acknowledged
    reader.acknowledge(first.lsn)
    with pytest.raises(QueryError, match="cannot move back"):
        reader.acknowledge(Lsn(first.lsn - 1))
    with pytest.raises(QueryError, match="no Lsn"):
        reader.acknowledge(Lsn(second.lsn + 1000))
    assert db.stats()["subscribers"] == {"reader": first.lsn}
    with amberdb.connect(url) as db:
        reader = db.subscriber("reader", since=Lsn(0))
        assert reader.position == first.lsn  # the one that was kept
        assert told(reader.changes()) == [("put", "b", None)]
        reader.acknowledge(second.lsn)
        assert told(reader.changes()) == []


def test_what_the_slowest_subscriber_has_is_pruned(db: Database, other: Database) -> None:
    notes = db.collection("note")
    slow, fast = db.subscriber("slow"), other.subscriber("fast")
    for number in range(10):
        notes.put({"id": f"{number}"})
    changes = list(slow.changes())
    fast.acknowledge(changes[9].lsn)
    slow.acknowledge(changes[3].lsn)
    db.checkpoint()
    assert [change.id for change in slow.changes()] == [change.id for change in changes[4:]]
    assert [change.id for change in db.changes()] == [change.id for change in changes[4:]]
    with pytest.raises(LogTruncatedError) as caught:
        next(db.changes(changes[2].lsn))
    assert caught.value.resume == changes[3].lsn
    slow.remove()
    db.checkpoint()
    assert list(db.changes()) == []
    assert list(db.changes(changes[9].lsn)) == []


def test_outbox_goes_with_the_last_subscriber(postgres18: PostgreSQL, url: str) -> None:
    def tables() -> str:
        sql = "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'feed%'"
        return postgres18.execute(sql, url.rpartition("/")[2]).strip()

    with amberdb.connect(url) as db, amberdb.connect(url) as other:
        notes = db.collection("note")
        notes.put({"id": "a"})
        assert tables() == "0"
        readers = [db.subscriber("one"), other.subscriber("two")]
        notes.put({"id": "b"})
        since = next(readers[0].changes()).lsn
        readers[0].remove()
        assert tables() == "4"
        readers[1].remove()
        readers[1].remove()
        assert readers[1].position == 0
        assert tables() == "0"
        notes.put({"id": "c"})
        other["note"].put({"id": "d"})
        assert db.stats()["subscribers"] == {}
        with pytest.raises(LogTruncatedError):
            next(other.changes(since))
        notes.put({"id": "e"})
        assert told(db.changes()) == [("put", "e", None)]


def test_outbox_is_kept_for_a_subscriber_up_to_the_limit(url: str) -> None:
    with amberdb.connect(url, background=False, subscriber_log_bytes_max=50_000) as db:
        notes = db.collection("note")
        reader = db.subscriber("reader")
        for number in range(60):
            notes.put({"id": f"{number}", "x": bytes(1000)}, sync="os")
        db.checkpoint()
        with pytest.raises(LogTruncatedError) as caught:
            next(reader.changes())
        reader.acknowledge(caught.value.resume)
        assert 20 < len(list(reader.changes())) < 60


@pytest.mark.parametrize("name", ["", "x" * 201, 5, None], ids=repr)
def test_name_of_a_subscriber_is_short_text(db: Database, name: Any) -> None:
    with pytest.raises(QueryError):
        db.subscriber(name)
