"""What the background thread of each process does for a database on a server."""

import logging
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

import amberdb
from amberdb import OpenOptions, Ordered, Text, Unique
from amberdb._attempts import Overtaken
from amberdb.engine.storage.view import View
from amberdb.postgres.care import background
from amberdb.postgres.care.expiry import first_expiries_us
from support.databases import FakeClock
from support.servers import PostgreSQL, postgres

QUICK: OpenOptions = {"reap_grace_ms": 0, "reap_interval_ms": 10}
IMPATIENT: OpenOptions = {**QUICK, "busy_timeout_ms": 200}
REAPER = """
import sys
import amberdb

with amberdb.connect(sys.argv[1], reap_grace_ms=0, reap_interval_ms=10) as db:
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def reaper(url: str) -> Iterator[None]:
    """Another process that has the database open."""
    amberdb.connect(url).close()
    with subprocess.Popen(
        [sys.executable, "-c", REAPER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        yield
        process.communicate()
    assert process.returncode == 0


def rows(server: PostgreSQL, url: str) -> int:
    sql = "SELECT (SELECT count(*) FROM amberdb.d1) + (SELECT count(*) FROM amberdb.u1)"
    return int(server.execute(sql, url.rpartition("/")[2]))


@pytest.mark.usefixtures("reaper")
def test_reapers_of_several_processes(postgres18: PostgreSQL, url: str) -> None:
    """Each document is removed once; a snapshot stays as it was."""
    with ExitStack() as stack:
        dbs = [stack.enter_context(amberdb.connect(url, **QUICK)) for _ in range(2)]
        tokens = dbs[0].collection(
            "token", expires_at="until", indexes=[amberdb.Unique("name", sparse=True)]
        )
        changes = dbs[0].subscriber("reader").changes(follow=True, timeout_s=30)
        tokens.put({"id": "kept", "until": None})
        until = time.time() + 1
        tokens.put_many({"id": f"{n}", "name": f"{n}", "until": until} for n in range(1500))
        with dbs[1].snapshot() as at:
            assert at["token"].count() == 1501
            removed: list[str] = []
            for change in changes:
                removed += [change.id] if change.op == "expire" else []
                if len(removed) == 1500:
                    break
            assert at["token"].count() == 1501
            assert len(at["token"].find({"name": {"$exists": True}})) == 1500
        assert sorted(removed) == sorted(f"{n}" for n in range(1500))
        assert rows(postgres18, url) == 1
        assert list(tokens) == ["kept"]


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "amberdb-postgres"]


def test_thread_ends_with_the_database(url: str) -> None:
    with amberdb.connect(url, background=False) as db:
        db.collection("token", expires_at="until").put({"until": 1.0})
        db.subscriber("reader")
        assert threads() == []
    with amberdb.connect(url) as db:
        db["token"].put({"until": 1.0})
        assert threads() == ["amberdb-postgres"]
    assert threads() == []


FORK = """
import os, sys, threading
import amberdb

with amberdb.connect(sys.argv[1]) as db:
    db.collection("token", expires_at="until").put({"until": 1.0})
    child = os.fork()
    if child == 0:
        try:
            db["token"].put({"until": 1.0})
        except amberdb.ForkedError:
            os._exit(threading.active_count())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    db["token"].put({"until": 1.0})
"""


def test_forked_child_has_no_thread(url: str) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK, url], check=True, timeout=60)


class Told(logging.Handler):
    """Takes warnings of the care."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self.first = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        self.first.set()


def test_server_that_is_down_is_logged_once_and_tried_again() -> None:
    told = Told()
    logger = logging.getLogger("amberdb.engine")
    logger.addHandler(told)
    try:
        with postgres(18) as server:
            url = server.url("postgresql", server.new_database())
            with amberdb.connect(url, **IMPATIENT) as db:
                tokens = db.collection("token", expires_at="until")
                db.subscriber("reader")
                tokens.put({"id": "a", "until": time.time() + 0.2})
                server.kill()
                assert told.first.wait(30)
                server.restart()
                with amberdb.connect(url, background=False) as other:
                    changes = other.subscriber("reader").changes(follow=True, timeout_s=30)
                    assert [next(changes).op for _ in range(2)] == ["put", "expire"]
                assert len(told.messages) == 1
    finally:
        logger.removeHandler(told)


def test_declaration_in_the_way_is_no_failure(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The background thread looks again; a table that it was about to read may be gone."""
    looked = threading.Event()

    def overtaken(view: View) -> dict[str, int]:
        if looked.is_set():
            return first_expiries_us(view)
        looked.set()
        raise Overtaken("a collection was declared anew meanwhile: run it again")

    monkeypatch.setattr(background, "first_expiries_us", overtaken)
    with amberdb.connect(url, **QUICK) as db:
        assert looked.wait(30)
        changes = db.subscriber("reader").changes(follow=True, timeout_s=30)
        db.collection("token", expires_at="until").put({"until": 1.0})
        assert [next(changes).op for _ in range(2)] == ["put", "expire"]
        assert db.stats()["failures"] == []
    assert caplog.messages == []


def test_expired_documents_are_removed_in_commits_of_a_batch(url: str, clock: FakeClock) -> None:
    with amberdb.connect(url, clock=clock, background=False, reap_batch=10) as db:
        reader = db.subscriber("reader")
        tokens = db.collection("token", expires_at="until")
        tokens.put_many({"id": f"{n}", "until": clock.now + n} for n in range(40))
        clock.advance(24)
        assert db.expire() == 25
        removed = [change for change in reader.changes() if change.op == "expire"]
        assert {change.id for change in removed} == {f"{n}" for n in range(25)}
        assert sorted(Counter(change.lsn for change in removed).values()) == [5, 10, 10]
        assert tokens.count() == 15


# -- check() ---------------------------------------------------------------------------------------


def test_check_compares_indexes_with_documents(postgres18: PostgreSQL) -> None:
    """What another program has changed in the tables is found, and nothing else."""
    name = postgres18.new_database()
    clock = FakeClock()
    with amberdb.connect(postgres18.url("postgresql", name), clock=clock, background=False) as db:
        notes = db.collection(
            "note",
            indexes=[Ordered("n"), Ordered("tags"), Unique("u", sparse=True), Text("u")],
            expires_at="until",
        )
        until = clock.now + 10
        notes.put_many(
            {"id": f"{n}", "n": n, "tags": [n, -1], "u": f"u{n}", "until": until} for n in range(9)
        )
        assert db.check().ok
        clock.advance(20)
        notes.put({"id": "free", "u": "u1"})  # of a document that has expired
        told: list[tuple[str, int]] = []
        report = db.check(lambda name, count: told.append((name, count)))
        assert report.ok
        assert (report.collections, report.documents) == (1, 10)
        assert told == [("note", 10)]
        clock.advance(-20)
        column = postgres18.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'd1' "
            "AND column_name LIKE 'k%' ORDER BY length(column_name), column_name LIMIT 1",
            name,
        ).strip()
        texts = postgres18.execute(
            "SELECT tablename FROM pg_tables WHERE tablename ~ '^t[0-9]+$'", name
        ).strip()
        for sql in (
            f"UPDATE amberdb.d1 SET {column} = NULL WHERE key = '2'",
            "DELETE FROM amberdb.e1 WHERE key = '3'",
            "DELETE FROM amberdb.u1 WHERE key = '4'",
            "INSERT INTO amberdb.u1 SELECT value || 'x', key FROM amberdb.u1 WHERE key = '5'",
            "UPDATE amberdb.d1 SET document = jsonb_set(document, '{n}', '70') WHERE key = '7'",
            "UPDATE amberdb.d1 SET sides = 1 WHERE key = '6'",
            "DELETE FROM amberdb.d1 WHERE key = '8'",
            f"DELETE FROM amberdb.{texts} WHERE terms @> ARRAY['u0']",
        ):
            postgres18.execute(sql, name)
        report = db.check()
    found = sorted(problem.removeprefix("note: ") for problem in report.problems)
    assert not report.ok
    assert found == [
        '1 rows of "amberdb".u1 have no document',
        '2 rows of "amberdb".e1 have no document',
        "b'0' lacks its entry in text:u",
        "b'1' lacks its entry in unique:u",
        "b'2' lacks its entry in the expiry index",
        "b'3' lacks its entry in ordered:tags",
        "b'3' lacks its entry in ordered:tags",
        "b'4' lacks its entry in unique:u",
        "b'5' has an entry that it does not make in unique:u",
        "b'6' counts 1 entries, and its document makes 2",
        "b'7' lacks its entry in ordered:n",
        "text:u has 9 rows and counts 10, the documents make 9",
    ]
