"""A database on a PostgreSQL server: what its page promises, and what it says when something is
wrong.
"""

import inspect
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest

import amberdb
from amberdb import (
    Collection,
    CollectionMissingError,
    ConflictError,
    Database,
    DuplicateKeyError,
    NotSupportedHereError,
    OpenError,
    Ordered,
    QueryError,
    ServerAccessError,
    ServerUnreachableError,
    Unique,
)
from crash import server_kills
from support import slices
from support.databases import FakeClock
from support.servers import PASSWORD, PostgreSQL, postgres

SECRET = "se%40cret"


# -- what there is ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["postgres16", "postgres18"])
def test_documents_come_back_with_their_types(name: str, request: pytest.FixtureRequest) -> None:
    server: PostgreSQL = request.getfixturevalue(name)
    document = {
        "id": "a\0b",
        "text": "a\0",
        "$amber": ["float", "1"],
        "map": {"$amber": 1, "k\0": {"$amber:x": None}, "": 0},
        "floats": [1.0, -0.0, 1e16, 1e300, 5e-324, 1e15, 0.1, float("inf"), float("-inf")],
        "ints": [2**63 - 1, -(2**63), True, False, 0],
        "bytes": b"\0\xff",
        "times": [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 7, UTC)],
        "\U0001f600": "\uffff",
    }
    with amberdb.connect(server.url("postgresql", server.new_database())) as db:
        notes = db.collection("note")
        notes.put(document)
        found = notes["a\0b"]
        assert repr(sorted(found.items())) == repr(sorted(notes.find()[0].items()))
        assert found == document
        assert [repr(each) for each in found["floats"]] == [repr(f) for f in document["floats"]]
        assert list(map(type, found["ints"])) == [int, int, bool, bool, int]


def test_another_process_reads_what_was_written(db: Database, other: Database) -> None:
    db.collection("note", indexes=[Ordered("n")]).put({"id": "a", "n": 1})
    assert other["note"].find({"n": 1}) == [{"id": "a", "n": 1}]
    other["note"].update("a", {"n": 2})
    assert db["note"].find({"n": 2}) == [{"id": "a", "n": 2}]
    other.rename_collection("note", "memo")
    with pytest.raises(CollectionMissingError):
        db["note"]
    assert db["memo"].get("a") == {"id": "a", "n": 2}
    db.drop_collection("memo")
    assert other.collections() == []


def test_collection_object_of_a_name_that_is_gone(db: Database, other: Database) -> None:
    notes = db.collection("note")
    notes.put({"id": "a"})
    other.drop_collection("note")
    calls: list[Callable[[], object]] = [
        lambda: notes.get("a"),
        lambda: notes.put({"id": "b"}),
        lambda: notes.find(),
        lambda: list(notes.documents()),
    ]
    for call in calls:
        with pytest.raises(CollectionMissingError):
            call()
    other.collection("note").put({"id": "a"})
    assert notes.get("a") == {"id": "a"}
    other.rename_collection("note", "memo")
    with pytest.raises(CollectionMissingError):
        notes.get("a")


def test_filter_is_narrowed_on_the_server_and_decided_here(db: Database) -> None:
    notes = db.collection("note")
    notes.put_many(
        [{"id": "a", "m": {"x\0": 1, "x": "v"}}, {"id": "b", "m": [{"x": "v"}, 3]}, {"id": "c"}]
    )
    notes.put_many({"id": f"n{number}", "m": {"x": ["w", number]}} for number in range(300))
    assert [each["id"] for each in notes.find({"m.x": "v"})] == ["a", "b"]
    assert len(notes.find({"m.x": "w"}, limit=200)) == 200
    assert notes.count({"m.x": {"$in": ["v", "w"]}}) == 302
    with db.snapshot() as at:
        assert len(at["note"].find({"m.x": "v"})) == 2
        assert at["note"].count() == 303


def test_snapshot_stays_as_it_was(db: Database, other: Database) -> None:
    notes = db.collection("note", indexes=[Ordered("n")])
    notes.put_many({"id": f"{number:03}", "n": number} for number in range(300))
    with db.snapshot() as at:
        first = at["note"].find(order_by="n", limit=10)
        other["note"].delete_many({"n": {"$gte": 5}})
        other["note"].put({"id": "new", "n": -1})
        rest = at["note"].find(order_by="n", after=first.cursor, limit=1000)
        assert [each["n"] for each in [*first, *rest]] == list(range(300))
        assert at["note"].count() == len(list(at["note"].documents())) == 300
    assert notes.count() == 6


def test_loop_over_documents_may_put_documents(db: Database) -> None:
    notes = db.collection("note")
    notes.put_many({"id": f"{number:04}"} for number in range(1200))
    for document in notes.documents():
        notes.put({"id": document["id"] + "-copy"})
    assert notes.count() == 2400


def test_version_guards_an_update(db: Database) -> None:
    notes = db.collection("note")
    notes.put({"id": "a", "n": 0})
    version = notes.record("a").version
    assert notes.update("a", {"n": 1}, if_version=version) > version
    with pytest.raises(ConflictError, match="at version"):
        notes.update("a", {"n": 2}, if_version=version)
    assert notes["a"]["n"] == 1
    record = notes.record("a")
    assert record.created_at < record.updated_at


@pytest.mark.parametrize("sync", ["always", "interval", "os"])
def test_sync_class_is_a_setting_of_the_transaction(db: Database, sync: Any) -> None:
    notes = db.collection("note")
    notes.put({"id": "a"}, sync=sync)
    with db.transaction(sync=sync) as tx:
        tx["note"].put({"id": "b"})
    db.sync()
    assert len(notes) == 2
    with pytest.raises(ValueError, match="sync"):
        notes.put({"id": "c"}, sync=cast(Any, "never"))


def test_clock_is_that_of_the_server(db: Database) -> None:
    tokens = db.collection("token", indexes=[Unique("name")], expires_at="until")
    tokens.put({"id": "old", "name": "n", "until": 1.0})
    tokens.put({"id": "new", "name": "n", "until": 9e11})
    assert tokens.get("old") is None
    assert tokens.find({"name": "n"}) == [{"id": "new", "name": "n", "until": 9e11}]
    assert tokens.count() == 1
    assert db.expire() == 1
    assert tokens.expire() == 0


def test_documents_expire_by_the_clock_of_the_program(url: str, clock: FakeClock) -> None:
    with amberdb.connect(url, clock=clock) as db:
        tokens = db.collection("token", expires_at="until", indexes=[Ordered("until")])
        tokens.put_many({"id": f"{n}", "until": clock.now + n} for n in range(1, 1200))
        clock.advance(1000)
        assert tokens.count() == 199
        assert len(tokens.find({"until": {"$gt": 0}})) == 199
        assert tokens.touch(["1", "1100"], None) == 1  # "1" has expired: it is removed
        assert db.expire() == 999
        assert tokens.count() == 199


def test_an_expired_document_takes_no_unique_value(url: str, clock: FakeClock) -> None:
    with amberdb.connect(url, clock=clock) as db:
        users = db.collection("user", expires_at="until", indexes=[Unique("name")])
        users.put({"id": "1", "name": "lin", "until": clock.now + 60})
        users.put({"id": "2", "name": "lin", "until": clock.now - 1})  # has expired already
        assert users.find(fields=["id"]) == [{"id": "1"}]
        with pytest.raises(DuplicateKeyError):
            users.put({"id": "3", "name": "lin"})
        clock.advance(61)
        users.put({"id": "4", "name": "lin"})


def test_calls_that_are_not_there_say_so(db: Database) -> None:
    notes = db.collection("note")
    with pytest.raises(QueryError, match="no Text index"):
        notes.search("word")
    with pytest.raises(QueryError, match="no Text index"), db.snapshot() as at:
        at["note"].search("word")
    for call in (db.compact, db.backup, db.erasures, db.upgrade):
        with pytest.raises(NotSupportedHereError):
            call()
    with pytest.raises(NotSupportedHereError):
        db.erase("note", {}, reason="r")
    assert db.collections() == ["note"]


def test_every_method_is_there_or_says_that_it_is_not(db: Database) -> None:
    notes = db.collection("note")
    for thing in (db, notes):
        for name, method in inspect.getmembers(type(thing), inspect.isfunction):
            if name.startswith("_") or name == "close":
                continue
            needed = [
                parameter
                for parameter in inspect.signature(method).parameters.values()
                if parameter.default is parameter.empty and parameter.name != "self"
            ]
            if any(each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL) for each in needed):
                continue
            try:
                getattr(thing, name)()
            except (NotSupportedHereError, amberdb.QueryError):
                pass


# -- declarations ----------------------------------------------------------------------------------


def test_index_is_built_over_what_is_there(db: Database) -> None:
    notes = db.collection("note")
    notes.put_many({"id": f"{n:04}", "n": n % 10, "tags": [n, n + 1]} for n in range(2500))
    db.collection("note", indexes=[Ordered("-n"), Ordered("tags")])
    assert notes.explain({"n": 3})["index"] == "ordered:-n"
    assert notes.count({"n": 3}) == 250
    assert [each["id"] for each in notes.find({"tags": 77})] == ["0076", "0077"]
    db.collection("note", indexes=[Ordered("-n")])
    assert notes.explain({"tags": 77})["index"] is None
    assert len(notes.find({"tags": 77})) == 2


def test_unique_index_over_duplicates_is_refused(db: Database) -> None:
    users = db.collection("user", indexes=[Ordered("name")])
    users.put_many([{"id": "a", "name": "n"}, {"id": "b", "name": "n"}])
    with pytest.raises(DuplicateKeyError, match="'a' and 'b'"):
        db.collection("user", indexes=[Unique("name")])
    assert [str(spec) for spec in db.definition("user").specs] == [str(Ordered("name"))]


def test_older_declaration_writes_no_row_without_an_entry(db: Database, other: Database) -> None:
    """The other process has the older declaration in its memory."""
    notes = db.collection("note")
    notes.put({"id": "before", "n": 1})
    others = other["note"]
    others.put({"id": "first", "n": 1})
    db.collection("note", indexes=[Ordered("n"), Unique("key", sparse=True)])
    others.put({"id": "put", "n": 1, "key": "k"})
    others.put_many([{"id": "many", "n": 1}])
    others.update("before", {"n": 2})
    with other.transaction() as tx:
        tx["note"].put({"id": "tx", "n": 1})
    with pytest.raises(DuplicateKeyError):
        others.put({"id": "twice", "key": "k"})
    assert notes.explain({"n": 1})["index"] == "ordered:n"
    assert [each["id"] for each in notes.find({"n": 1})] == ["first", "put", "many", "tx"]
    assert [each["id"] for each in notes.find({"n": 2})] == ["before"]


def test_declaration_waits_for_transactions_that_write(db: Database, url: str) -> None:
    db.collection("note")
    with amberdb.connect(url, busy_timeout_ms=100) as impatient:
        with db.transaction() as tx:  # it goes by the declaration of its beginning
            with pytest.raises(amberdb.BusyError, match="a lock was not free"):
                impatient.collection("note", indexes=[Ordered("n")])
            tx["note"].put({"id": "a", "n": 1})
        impatient.collection("note", indexes=[Ordered("n")])
        assert impatient["note"].find({"n": 1}) == [{"id": "a", "n": 1}]


def test_what_the_newest_declaration_allows_is_stored(db: Database, other: Database) -> None:
    """Also by a call that checks its documents before it has read the declaration."""
    notes = db.collection("note")
    notes.put({"id": "record"})
    record = notes.record("record")
    others = other["note"]
    calls: list[Callable[[], object]] = [
        lambda: others.put({"id": "a"}),
        lambda: others.put_many([{"id": "b"}]),
        lambda: others.put_records([record]),
    ]
    for call in calls:
        db.collection("note", required=["x"])
        others.find()  # now the other process knows it
        db.collection("note", required=[])
        call()
    assert notes.count() == 3


def test_newer_declaration_counts_in_every_process(db: Database, other: Database) -> None:
    db.collection("note", required=["x"])
    others = other["note"]
    others.put({"id": "a", "x": 1})
    db.collection("note", required=[])
    others.put({"id": "b"})
    db.collection("note", required={"y": str})
    with pytest.raises(amberdb.InvalidDocumentError, match="requires the field 'y'"):
        others.put({"id": "c"})
    with pytest.raises(amberdb.InvalidDocumentError, match="requires the field 'y'"):
        others.update("b", {"z": 1})
    assert db["note"].count() == 2


# -- what is wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        "postgresql://user:se%40cret@host:port/database",
        "postgresql://user:se%40cret@host/database?no_such_option=1",
        "postgresql://user:se%40cret@host/database?schema=A;B",
        "postgresql://user:se%40cret@host/database?connections=0",
        "postgresql+psycopg://user:se%40cret@host/database",
    ],
)
def test_wrong_url_is_refused_without_its_password(wrong: str) -> None:
    with pytest.raises(OpenError, match="URL") as caught:
        amberdb.connect(wrong)
    assert SECRET not in str(caught.value)
    assert "se@cret" not in str(caught.value)


def test_server_that_is_not_there() -> None:
    with pytest.raises(ServerUnreachableError, match="start the server") as caught:
        amberdb.connect(f"postgresql://amber:{PASSWORD}@127.0.0.1:1/x")
    assert PASSWORD not in str(caught.value)


def test_wrong_password_user_and_database(postgres18: PostgreSQL, url: str) -> None:
    assert PASSWORD in url
    wrong = "not-the-password"
    for bad in (
        url.replace(PASSWORD, wrong),
        url.replace("amber:", "nobody:"),
        url.rpartition("/")[0] + "/none",
    ):
        with pytest.raises(ServerAccessError, match="denies access") as caught:
            amberdb.connect(bad)
        assert PASSWORD not in str(caught.value)
        assert wrong not in str(caught.value)


def test_user_without_the_right_to_create(postgres18: PostgreSQL, url: str) -> None:
    postgres18.execute(f"REVOKE CREATE ON DATABASE {url.rpartition('/')[2]} FROM amber")
    database = url.rpartition("/")[2]
    postgres18.execute(f"ALTER DATABASE {database} OWNER TO postgres")
    with pytest.raises(ServerAccessError, match="grant the right"):
        amberdb.connect(url)
    postgres18.execute("CREATE SCHEMA amberdb AUTHORIZATION amber", database)
    with amberdb.connect(url) as db:  # a schema that is there is used
        db.collection("note").put({"id": "a"})


def test_schema_of_a_newer_version(postgres18: PostgreSQL, url: str) -> None:
    amberdb.connect(url).close()
    postgres18.execute("UPDATE amberdb.fence SET format = 2", url.rpartition("/")[2])
    with pytest.raises(amberdb.FormatError, match="has format 2"):
        amberdb.connect(url)
    postgres18.execute("UPDATE amberdb.fence SET format = 1", url.rpartition("/")[2])


def test_server_that_is_too_old(postgres16: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amberdb.postgres.connections.SERVER_VERSION_MIN", 170000)
    url = postgres16.url("postgresql", postgres16.new_database())
    with pytest.raises(amberdb.FormatError, match="is PostgreSQL 16: use"):
        amberdb.connect(url)


def test_missing_database_is_not_made_unasked(url: str) -> None:
    with pytest.raises(amberdb.DatabaseMissingError):
        amberdb.connect(url, create=False)
    amberdb.connect(url).close()
    amberdb.connect(url, create=False).close()


def test_schemas_are_databases_of_their_own(url: str) -> None:
    with amberdb.connect(url + "?schema=one") as one, amberdb.connect(url + "?schema=two") as two:
        one.collection("note").put({"id": "a"})
        assert two.collections() == []
        assert "schema=one" in repr(one)
        assert PASSWORD not in repr(one) + one.path


def test_closed_database_raises(url: str) -> None:
    db = amberdb.connect(url)
    notes = db.collection("note")
    db.close()
    db.close()
    assert repr(db).endswith(" closed>")
    for call in (lambda: notes.get("a"), notes.find, lambda: notes.put({}), db.stats, db.compact):
        with pytest.raises(amberdb.ClosedError):
            call()


def test_server_is_killed_and_comes_back() -> None:
    with postgres(18) as server:
        url = server.url("postgresql", server.new_database())
        with amberdb.connect(url, busy_timeout_ms=2000) as db:
            notes = db.collection("note")
            notes.put({"id": "a"})

            def begin() -> None:
                with db.transaction() as tx:
                    tx["note"].put({"id": "b"})
                    server.kill()
                    tx["note"].find()

            with pytest.raises(ServerUnreachableError):
                begin()
            with pytest.raises((ServerUnreachableError, amberdb.BusyError)):
                notes.put({"id": "c"})
            server.restart()
            assert notes.get("a") == {"id": "a"}
            assert notes.get("b") is None
            notes.put({"id": "d"})
            assert len(notes) == 2


@pytest.mark.sliced
@pytest.mark.timeout(600)
def test_nothing_acknowledged_is_lost_when_the_server_is_killed() -> None:
    """And nothing is there of which a call said that it was not stored: a slice of the campaign."""
    kills = slices.size(100, 4)
    result = server_kills.campaign(kills, seed=1, fsync=slices.IS_WHOLE)
    assert result["kills"] == kills
    assert result["comparisons"] == 2 * kills + 1


def test_lost_answer_of_a_commit_is_unknown() -> None:
    with postgres(18) as server:
        url = server.url("postgresql", server.new_database())
        with amberdb.connect(url) as db:
            notes = db.collection("note")
            transaction = db.transaction()

            def commit() -> None:
                with transaction as tx:
                    tx["note"].put({"id": "b"})
                    tx["note"].find()
                    server.kill()

            with pytest.raises(amberdb.CommitUnknownError):
                commit()
            assert transaction.lsn == 0
            server.restart()
            assert notes.get("b") is None


def test_import_of_amberdb_loads_no_driver() -> None:
    code = "import sys, amberdb; print([m for m in sys.modules if 'psycopg' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_failed_call_ends_its_transaction(db: Database, other: Database) -> None:
    notes: Collection = db.collection("note", indexes=[Unique("u", sparse=True)])
    notes.put({"id": "a", "u": 1})

    def insert() -> None:
        with db.transaction() as tx:
            tx["note"].put({"id": "b"})
            tx["note"].insert({"id": "a"})

    with pytest.raises(DuplicateKeyError, match="has a document"):
        insert()
    assert "b" not in notes
    with db.transaction() as tx:  # a value may move: the end of the transaction counts
        tx["note"].put({"id": "b", "u": 1})
        assert len(tx["note"].find({"u": 1})) == 2
        tx["note"].update("a", {"u": 2})
        for call in (lambda: notes.put({"id": "c"}), lambda: db.drop_collection("note")):
            with pytest.raises(amberdb.TransactionError, match="write through it"):
                call()
        db.collection("note")  # nothing to declare
    assert notes.find({"u": 1}) == [{"id": "b", "u": 1}]

    def be_late() -> None:
        with db.transaction() as tx:
            tx["note"].put({"id": "c", "u": 7})
            other["note"].put({"id": "d", "u": 7})

    with pytest.raises(DuplicateKeyError, match="keeps unique"):
        be_late()
    assert "c" not in notes
