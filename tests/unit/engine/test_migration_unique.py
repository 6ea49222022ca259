"""Migration of collections with Unique indexes, and with indexes that need the new version."""

from typing import Any

import pytest

from amberdb import (
    Database,
    Document,
    DuplicateKeyError,
    InvalidDocumentError,
    MigrationError,
    Ordered,
    Unique,
)
from amberdb import _failpoints as failpoints
from amberdb.engine.maintenance import migrator
from support.databases import FakeClock, OpenDatabase
from unit.engine.helpers import ids
from unit.engine.test_migration import interrupted_at


@pytest.fixture(autouse=True)
def chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches, so that a migration has many."""
    monkeypatch.setattr(migrator, "CHUNK", 7)


def lowered(document: Document) -> Document:
    return {**document, "mail": document["mail"].lower()}


def test_a_unique_index_is_judged_by_what_documents_become(db: Database) -> None:
    people = db.collection("p", indexes=[Unique("mail")])
    people.put_many({"id": str(n), "mail": f"MAIL{n}"} for n in range(30))
    failpoints.install(interrupted_at("migration.committed", 2))
    try:
        with pytest.raises(KeyboardInterrupt):
            db.collection("p", version=2, migrate={2: lowered})
    finally:
        failpoints.install(None)
    assert db.definition("p").steps
    with pytest.raises(DuplicateKeyError, match=r"'9'|'new'"):
        people.put({"id": "new", "mail": "mail9"})  # the upgraded value of document 9
    people.put({"id": "new", "mail": "MAIL9"})  # the value of document 9 before its upgrade
    with pytest.raises(DuplicateKeyError):
        people.insert({"id": "other", "mail": "mail0"})
    with db.transaction() as tx:
        tx["p"].put({"id": "brief", "mail": "mail8"})
        tx["p"].delete("brief")
    db.collection("p", version=2, migrate={2: lowered})
    assert not db.definition("p").steps, "completed before the declaration returns"
    assert ids(people.find({"mail": "mail9"})) == ["9"]
    assert ids(people.find({"mail": "MAIL9"})) == ["new"]


def test_values_that_change_hands(db: Database) -> None:
    """In batches of seven: a value that a document still has before its upgrade is free already."""
    people = db.collection("p", indexes=[Unique("place")])
    people.put_many({"id": f"{n:02}", "place": n} for n in range(50))
    db.collection("p", version=2, migrate={2: lambda d: {**d, "place": (d["place"] + 25) % 50}})
    assert [d["place"] for d in people.find(order_by="id")] == [(n + 25) % 50 for n in range(50)]


def test_functions_that_make_two_the_same(db: Database) -> None:
    people = db.collection("p", indexes=[Unique("mail")])
    people.put_many({"id": f"{n:02}", "mail": f"M{n}"} for n in range(20))
    people.put({"id": "twin", "mail": "m3"})
    with pytest.raises(MigrationError, match=r"'03'.*'twin'|'twin'.*'03'") as raised:
        db.collection("p", version=2, migrate={2: lowered})
    assert isinstance(raised.value.key, str)
    assert len(list(people)) == 21
    people.delete("twin")
    db.collection("p", version=2, migrate={2: lowered})
    assert not db.definition("p").steps
    assert ids(people.find({"mail": "m3"})) == ["03"]


def test_a_unique_index_declared_with_the_version_that_makes_it_possible(db: Database) -> None:
    people = db.collection("p")
    people.put_many({"id": f"{n:02}", "name": "same"} for n in range(20))
    indexes: list[Any] = [Unique("name"), Ordered("name", "x")]
    db.collection("p", version=2, migrate={2: lambda d: {**d, "name": d["id"]}}, indexes=indexes)
    db.build_indexes()
    assert ids(people.find({"name": "07"})) == ["07"]
    assert people.explain({"name": "07"})["index"] == "unique:name"


def test_an_index_over_documents_that_have_no_key_before_it(db: Database) -> None:
    """Two lists in one index: documents have keys only after the migration."""
    people = db.collection("p")
    people.put_many({"id": f"{n:02}", "a": [1], "b": [2]} for n in range(20))
    index = Ordered("a", "b")
    db.collection("p", version=2, migrate={2: lambda d: {**d, "b": 2}}, indexes=[index])
    db.build_indexes()
    assert people.count({"a": 1, "b": 2}) == 20
    db.collection("p", version=3, migrate={3: lambda d: {**d, "b": [2]}})
    with pytest.raises(MigrationError, match=r"version 3 returned a document that"):
        db.migrate()
    with pytest.raises(InvalidDocumentError):
        people.update("01", {})


def test_a_value_that_the_commit_does_not_keep_is_nobody_elses_conflict(
    open_db: OpenDatabase, clock: FakeClock
) -> None:
    db = open_db(clock=clock)
    people = db.collection("p", indexes=[Unique("mail", sparse=True)], expires_at="t")
    people.put_many({"id": f"{n:02}", "mail": n} for n in range(20))
    failpoints.install(interrupted_at("migration.committed", 1))
    try:
        with pytest.raises(KeyboardInterrupt):
            db.collection("p", version=2, migrate={2: dict})
    finally:
        failpoints.install(None)
    assert db.definition("p").steps
    people.put({"id": "gone", "mail": 19, "t": clock() - 1})  # 19 is not migrated yet
    people.put_many([{"id": "new", "mail": 18}, {"id": "new"}])
    with db.transaction() as tx:
        tx["p"].put({"id": "brief", "mail": 17})
        tx["p"].delete("brief")
    with pytest.raises(DuplicateKeyError, match=r"'19' and 'new'|'new' and '19'"):
        people.put({"id": "new", "mail": 19})
    db.collection("p", version=2, migrate={2: dict})
    assert [d["id"] for d in people.find({"mail": {"$gte": 17}}, order_by="mail")] == [
        *("17", "18", "19")
    ]
