"""A database on a server with a replica: reads there, and the replica that becomes the primary."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

import amberdb
from amberdb import (
    BusyError,
    CommitUnknownError,
    DatabaseMissingError,
    Ordered,
    QueryError,
    ReadOnlyError,
    ServerUnreachableError,
)
from amberdb.postgres import PostgresDatabase
from support import slices
from support.server_process import wait_until
from support.servers import PostgreSQL, postgres, standby

CALLS_GO_ON_S = 5.0


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[PostgreSQL, PostgreSQL]]:
    with postgres(18) as primary, standby(primary) as replica:
        yield primary, replica


def connected(server: PostgreSQL, name: str) -> PostgresDatabase:
    db = amberdb.connect(server.url("postgresql", name))
    assert isinstance(db, PostgresDatabase)
    return db


def connected_to(replica: PostgreSQL, name: str, position: str) -> PostgresDatabase:
    """Once the replica has the database itself: nobody can connect to it before."""
    has = f"SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn"
    assert wait_until(lambda: replica.execute(has) == "t", CALLS_GO_ON_S * 6)
    return connected(replica, name)


def url_of_both(primary: PostgreSQL, replica: PostgreSQL, name: str) -> str:
    here, there = f"{primary.host}:{primary.port}", f"{replica.host}:{replica.port}"
    return primary.url("postgresql", name).replace(here, f"{there},{here}")  # the replica first


@pytest.mark.sliced
def test_own_writes_are_read_after_their_position(pair: tuple[PostgreSQL, PostgreSQL]) -> None:
    count = slices.size(1000, 200)
    primary, replica = pair
    name = primary.new_database()
    with connected(primary, name) as db:
        notes = db.collection("note", indexes=[Ordered("n")])
        position = db.position()
        with connected_to(replica, name, position) as copy:
            copy.wait_for(position)
            for n in range(count):
                notes.put({"id": f"{n % 10}", "n": n})
                copy.wait_for(db.position())
                assert copy["note"].get(f"{n % 10}") == {"id": f"{n % 10}", "n": n}
                assert copy["note"].find({"n": n}, fields=["n"]) == [{"n": n}]
            with copy.snapshot() as at:
                notes.put({"id": "0", "n": -1})
                assert at["note"].get("0") == {"id": "0", "n": count - 10}


def test_a_replica_says_that_it_is_one(pair: tuple[PostgreSQL, PostgreSQL]) -> None:
    primary, replica = pair
    name = primary.new_database()
    with connected(primary, name) as db:
        notes = db.collection("note")
        notes.put({"id": "a"})
        position = db.position()
        with connected_to(replica, name, position) as copy:
            copy.wait_for(position)
            for write in (
                lambda: copy["note"].put({"id": "b"}),
                lambda: copy["note"].delete("a"),
                lambda: copy.collection("other"),
                lambda: copy.collection("note", indexes=[Ordered("n")]),
                copy.expire,
            ):
                with pytest.raises(ReadOnlyError, match="connect to its primary"):
                    write()
            with pytest.raises(ReadOnlyError), copy.transaction() as tx:
                tx["note"].put({"id": "b"})
            assert copy.collection("note").find() == [{"id": "a"}]
            copy.wait_for(position, timeout_ms=0)
            with pytest.raises(BusyError, match="behind its primary"):
                copy.wait_for("FFFFFFFF/0", timeout_ms=20)
            with pytest.raises(QueryError, match="no position"):
                copy.wait_for("; DROP")
    empty = primary.new_database()
    with connected(primary, name) as db:
        db["note"].put({"id": "c"})  # the replica has the new database by now
        position = db.position()
    with connected_to(replica, name, position) as copy:
        copy.wait_for(position)
    with pytest.raises(ReadOnlyError):
        connected(replica, empty)
    with pytest.raises(DatabaseMissingError):
        amberdb.connect(replica.url("postgresql", empty), create=False)


def test_both_hosts_are_in_the_url(pair: tuple[PostgreSQL, PostgreSQL]) -> None:
    primary, replica = pair
    url = url_of_both(primary, replica, primary.new_database())
    with amberdb.connect(url) as db:
        db.collection("note").put({"id": "a"})
        assert f":{replica.port},127.0.0.1:{primary.port}/" in db.path


class Writer(threading.Thread):
    """Counts up in documents of its own, and keeps what was acknowledged or is unknown."""

    def __init__(self, db: amberdb.Database, name: str, ends: threading.Event) -> None:
        super().__init__()
        self.db, self.name_of, self.ends = db, name, ends
        self.acknowledged: list[str] = []
        self.times: list[float] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            for n in itertools.count():
                if self.ends.is_set():
                    return
                id = f"{self.name_of}-{n}"
                with suppress(ServerUnreachableError, BusyError, ReadOnlyError, CommitUnknownError):
                    self.db["note"].put({"id": id, "n": n})
                    self.acknowledged.append(id)
                    self.times.append(time.monotonic())
        except BaseException as error:
            self.failure = error


def test_a_replica_that_is_promoted_has_all_that_was_acknowledged() -> None:
    with postgres(18) as primary, standby(primary) as replica:
        name = primary.new_database()
        url = url_of_both(primary, replica, name)
        ends = threading.Event()
        with amberdb.connect(url) as db:
            db.collection("note", indexes=[Ordered("n")])
            writers = [Writer(db, f"w{n}", ends) for n in range(4)]
            for writer in writers:
                writer.start()
            while min(len(writer.acknowledged) for writer in writers) < 50:
                assert all(writer.is_alive() for writer in writers)
            primary.kill()
            killed = time.monotonic()
            replica.execute("SELECT pg_promote()")
            promoted = time.monotonic()
            after = [len(writer.acknowledged) for writer in writers]
            while any(
                len(writer.acknowledged) < count + 20
                for writer, count in zip(writers, after, strict=True)
            ):
                assert time.monotonic() < promoted + 30
                assert all(writer.is_alive() for writer in writers)
            ends.set()
            for writer in writers:
                writer.join()
                assert writer.failure is None
            first = min(at for writer in writers for at in writer.times if at > killed)
            assert first - promoted < CALLS_GO_ON_S
            stored = {document["id"] for document in db["note"].find(limit=None)}
            acknowledged = {id for writer in writers for id in writer.acknowledged}
            assert acknowledged <= stored
            assert len(stored) <= len(acknowledged) + 2 * len(writers)  # unknown ones
