"""Documents of a newer version on a server: the declaration upgrades all of them, or none."""

from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

import amberdb
from amberdb import (
    Collection,
    CollectionError,
    CollectionVersionError,
    Database,
    Document,
    DuplicateKeyError,
    MigrationError,
    Ordered,
    Text,
    Unique,
    Vector,
)
from support.audited_server import audited_url
from support.servers import PostgreSQL

COUNT = 2500


def to_2(document: Document) -> Document:
    """Changes its argument."""
    document["name"] = f"{document.pop('first')} {document['n']}"
    return document


def to_3(document: Document) -> Document:
    return {**document, "tags": ("a", document["n"] % 7)}


UPGRADES = {2: to_2, 3: to_3}


def old(n: int) -> Document:
    return {"id": f"d{n:04}", "first": "f", "n": n}


def new(n: int) -> Document:
    return {"id": f"d{n:04}", "n": n, "name": f"f {n}", "tags": ["a", n % 7]}


def filled(db: Database, **options: Any) -> Collection:
    people = db.collection("p", version=1, indexes=[Ordered("n"), Ordered("first")], **options)
    people.put_many(old(n) for n in range(COUNT))
    return people


def test_documents_are_upgraded_with_their_indexes(db: Database, other: Database) -> None:
    before = filled(db).record("d0007")
    others = other["p"]
    assert others["d0007"]["first"] == "f"
    with db.snapshot() as at:
        specs: list[Ordered | Unique] = [Ordered("name"), Ordered("tags"), Unique("n")]
        people = db.collection(
            "p", version=3, migrate=UPGRADES, indexes=specs, required={"name": str}
        )
        assert at["p"]["d0007"] == old(7)
    assert list(people.documents()) == [new(n) for n in range(COUNT)]
    assert others["d0007"] == new(7)
    assert others.find({"name": "f 17"}) == [new(17)]
    assert people.count({"tags": 3}) == len([n for n in range(COUNT) if n % 7 == 3])
    assert people.explain({"tags": 3})["index"] == "ordered:tags"
    record = people.record("d0007")
    assert (record.created_at, record.updated_at) == (before.created_at, before.updated_at)
    assert record.version > before.version
    assert db.definition("p").version == 3
    assert db.definition("p").steps == ()
    with pytest.raises(DuplicateKeyError):
        others.put({"id": "x", "n": 7, "name": "x"})
    with pytest.raises(amberdb.InvalidDocumentError, match="requires the field 'name'"):
        others.put({"id": "x", "n": -1})
    db.migrate()
    db.collection("p", version=4, migrate={4: lambda document: {**document, "n": -document["n"]}})
    assert people.find({"n": -5}, fields=["id"]) == [{"id": "d0005"}]


def test_migration_is_searched(db: Database) -> None:
    people = db.collection("p", indexes=[Text("text"), Text("other")])
    people.put_many({"id": f"{n}", "text": f"tea word{n}", "other": "same"} for n in range(50))

    def upgrade(document: Document) -> Document:
        return {**document, "text": f"coffee word{document['id']}", "more": "new"}

    specs = [Text("text"), Text("other"), Text("more")]
    db.collection("p", version=2, migrate={2: upgrade}, indexes=specs)
    assert len(people.search("coffee", limit=100)) == 50
    assert list(people.search("tea")) == []
    assert [hit.id for hit in people.search("word7")] == ["7"]
    assert db.check().ok


def test_vectors_are_upgraded_and_told(postgres18: PostgreSQL, tmp_path: Path) -> None:
    """They are whole in the feed, as they were put and as they are after a migration."""
    told: list[list[Any]] = []
    with audited_url(postgres18, "vector") as url:
        for db in (amberdb.connect(url), amberdb.open(tmp_path / "d")):
            with db:
                people = db.collection("p", indexes=[Vector("v", dim=2), Text("text")])
                reader = db.subscriber("reader")
                people.put_many(
                    {"id": f"{n}", "text": "tea", "v": [n, 1.0], "other": b"x"} for n in range(3)
                )
                people.delete("2")
                db.collection("p", version=2, migrate={2: doubled})
                db.migrate()
                assert people.search(vector=[0.0, 1.0])[0].id == "0"
                assert people["1"]["v"].tolist() == [2.0, 1.0]
                assert db.check().ok
                told.append(
                    [
                        (change.op, change.id, change.document and change.document["v"].tolist())
                        for change in reader.changes()
                    ]
                )
    assert told[0] == told[1]
    assert told[0][-1] == ("put", "1", [2.0, 1.0])


def test_size_of_a_migration_in_the_feed_is_that_of_its_documents(
    postgres18: PostgreSQL,
) -> None:
    """Their vectors too: what the outbox may hold for a subscriber is counted in bytes."""
    count, dim = 100, 64
    with audited_url(postgres18, "vector") as url, amberdb.connect(url) as db:
        things = db.collection("p", indexes=[Vector("v", dim=dim)])
        db.subscriber("reader")
        things.put_many({"id": f"{n}", "v": [n, *[1.0] * (dim - 1)]} for n in range(count))
        db.collection("p", version=2, migrate={2: lambda document: document})
        sizes = postgres18.execute(
            "SELECT bytes FROM amberdb.feed_commits ORDER BY number", url.rpartition("/")[2]
        ).split()
    assert len(sizes) == 2
    assert sizes[0] == sizes[1]
    assert int(sizes[0]) > count * dim * 4


def doubled(document: Document) -> Document:
    return {**document, "v": [2 * document["v"][0], 1.0]}


def test_migration_is_in_the_feed(db: Database) -> None:
    filled(db)
    reader = db.subscriber("reader")
    db.collection("p", version=3, migrate=UPGRADES)
    changes = list(reader.changes())
    assert [change.document for change in changes] == [new(n) for n in range(COUNT)]
    assert {change.op for change in changes} == {"put"}


def state(db: Database) -> Any:
    documents = list(db["p"].documents())
    return db.definition("p"), documents, db["p"].find({"n": {"$gte": 0}}, order_by="n")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, "returned None"),
        ({"id": "another"}, "changed the id"),
        ({"x": float("nan")}, "cannot be stored: .*NaN"),
        ({"dies": 2e9}, "when it expires"),
        ({"n": 3}, "cannot be stored: .*keeps unique"),
        ({"kind": 1}, "cannot be stored: .*'kind'"),
    ],
)
def test_what_cannot_be_upgraded_leaves_everything_as_it_was(
    db: Database, given: Any, says: str
) -> None:
    filled(db, expires_at="dies")
    before = state(db)

    def gives(document: Document) -> Any:
        if document["id"] != "d2000":
            return {**document, "kind": "k"}
        return given if given is None else {"kind": "k", **document, **given}

    with pytest.raises(MigrationError, match=says) as caught:
        db.collection(
            "p", version=2, migrate={2: gives}, indexes=[Unique("n")], required={"kind": str}
        )
    assert (caught.value.collection, caught.value.key, caught.value.version) == ("p", "d2000", 2)
    assert state(db) == before
    db["p"].put({"id": "x", "first": "f", "n": 3})


def test_function_that_raises_leaves_everything_as_it_was(db: Database) -> None:
    filled(db)
    before = state(db)

    def fails(document: Document) -> Document:
        return {**document, "share": 1 / (document["n"] - 2000)}

    with pytest.raises(MigrationError, match=r"'d2000'.*version 2 failed.*division") as caught:
        db.collection("p", version=2, migrate={2: fails})
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert state(db) == before
    with pytest.raises(CollectionError, match="before version 2"):
        db.collection("p", version=3, migrate={3: to_3})
    assert state(db) == before
    db.collection("p", version=3, migrate=UPGRADES)
    assert db["p"]["d2000"] == new(2000)


def test_older_program_is_refused_and_writes_no_older_document(
    db: Database, other: Database
) -> None:
    filled(db)
    others = other.collection("p", version=1)
    others.put(old(1))
    transaction = other.transaction()
    db.collection("p", version=3, migrate=UPGRADES)
    with pytest.raises(CollectionVersionError, match="is at version 3") as caught:
        other.collection("p", version=2, migrate={2: to_2})
    assert caught.value.version == 3
    for call in (
        lambda: others.put(old(1)),
        lambda: others.put_many([old(1)]),
        lambda: others.insert(old(COUNT)),
        lambda: others.update("d0001", {"first": "x"}),
        lambda: write(transaction),
    ):
        with pytest.raises(CollectionVersionError, match="declared version 1"):
            call()
    assert list(db["p"].documents()) == [new(n) for n in range(COUNT)]
    assert others.delete("d0001")
    db.rename_collection("p", "q")
    with pytest.raises(CollectionVersionError):
        other["q"].put(old(1))
    db.drop_collection("q")
    other.collection("p", version=1).put(old(1))  # another one of this name


def write(transaction: amberdb.Transaction) -> None:
    with transaction as tx:
        tx["p"].put(old(1))


def test_writer_beside_a_migration(db: Database, other: Database) -> None:
    """It has declared no version: it writes what fits both."""
    filled(db)
    ended, begun = Event(), Event()

    def update() -> None:
        number = 0
        while not ended.is_set():
            other["p"].update(f"d{number % COUNT:04}", {"$inc": {"count": 1}}, sync="os")
            number += 1
            if number == 20:
                begun.set()
        counts.append(number)

    counts: list[int] = []
    thread = Thread(target=update)
    thread.start()
    assert begun.wait(30)
    people = db.collection("p", version=3, migrate=UPGRADES)
    ended.set()
    thread.join()
    found = list(people.documents())
    assert sum(document.pop("count", 0) for document in found) == counts[0]
    assert found == [new(n) for n in range(COUNT)]
