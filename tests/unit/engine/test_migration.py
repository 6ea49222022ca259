"""Migration of documents: every read shows the new version at once, before the documents are stored
in it; a document that cannot be upgraded is named and does not delay the others. Power loss at
every step is in tests/crash/test_sweep.py, random orders in tests/model."""

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import amberdb
from amberdb import (
    Collection,
    CollectionError,
    CollectionVersionError,
    ConflictError,
    CursorError,
    Database,
    Document,
    MigrationError,
    Ordered,
    QueryError,
    Text,
    TransactionError,
    Vector,
)
from amberdb import _failpoints as failpoints
from amberdb.engine import failures
from amberdb.engine.maintenance import migrator
from support.databases import SMALL, FakeClock, OpenDatabase, assert_sound
from support.inside import engine_of
from unit.engine.helpers import abandon, damage_inner_pages, got, ids

INDEXES: list[Any] = [Ordered("name"), Ordered("-age"), Text("text"), Vector("v", dim=4)]
COUNT = 60
LONG = "x" * 20_000_000


@pytest.fixture(autouse=True)
def chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches, so that a migration has many."""
    monkeypatch.setattr(migrator, "CHUNK", 7)


def to_2(document: Document) -> Document:
    """Changes its argument."""
    document["name"] = f"{document.pop('first')} {document.pop('last')}"
    document["text"] = f"new {document['text']}"
    return document


def to_3(document: Document) -> Document:
    """Returns a new document, with types that put() normalises."""
    return {**document, "age": document["age"] + 100, "tags": ("a", document["id"])}


UPGRADES = {2: to_2, 3: to_3}


def old_document(number: int) -> Document:
    return {
        "id": f"d{number:02}",
        "first": f"f{number % 5}",
        "last": f"l{number:02}",
        "age": number % 9,
        "text": f"tea word{number}",
        "v": np.eye(4, dtype=np.float32)[number % 4] * (number + 1),
    }


def new_document(number: int) -> Document:
    upgraded = to_3(to_2(copy.deepcopy(old_document(number))))
    return {**upgraded, "tags": list(upgraded["tags"])}


def filled(db: Database, *, expires: str | None = None) -> Collection:
    """Fills the collection; half of the documents are in LMDB."""
    people = db.collection("p", indexes=INDEXES, expires_at=expires)
    people.put_many(old_document(number) for number in range(COUNT // 2))
    db.checkpoint()
    people.put_many(old_document(number) for number in range(COUNT // 2, COUNT))
    return people


def plain(document: Any) -> Any:
    """A form that can be compared."""
    return None if document is None else {**document, "v": document["v"].tolist()}


def answers(people: Any) -> Any:
    """The results of every read."""
    return (
        [plain(each) for each in people.find(order_by=["name", "id"])],
        ids(people.find({"age": {"$gt": 104}}, order_by=["-age", "id"])),
        people.count({"name": {"$gte": "f3"}}),
        people.count({"first": "f1"}),
        len(people),
        [plain(each) for each in people.documents()],
        plain(people.get("d07")),
        plain(people.record("d33").document),
        "d59" in people,
    )


def wanted_answers() -> Any:
    """The answers after a completed migration."""
    with amberdb.open(":memory:", **SMALL) as db:
        people = db.collection("p", indexes=INDEXES)
        people.put_many(new_document(number) for number in range(COUNT))
        return answers(people)


def interrupted_at(place: str, arrival: int) -> Callable[[str], None]:
    seen = [0]

    def reach(name: str) -> None:
        seen[0] += name == place
        if name == place and seen[0] == arrival:
            raise KeyboardInterrupt

    return reach


# -- what reads show ---------------------------------------------------------------------------


def test_every_read_shows_the_new_version_before_during_and_after(db: Database) -> None:
    filled(db)
    wanted = wanted_answers()
    people = db.collection("p", version=3, migrate=UPGRADES)
    told: list[int] = []

    def during(name: str, count: int) -> None:
        assert name == "p"
        told.append(count)
        assert answers(people) == wanted
        with db.snapshot() as at, db.transaction() as tx:
            assert answers(at["p"]) == wanted
            assert answers(tx["p"]) == wanted

    assert answers(people) == wanted
    db.migrate(during)
    assert len(told) > COUNT // 7
    assert told[-1] == COUNT
    assert answers(people) == wanted
    assert db.definition("p").steps == ()
    assert people.explain(order_by="name")["order"] == "index"
    db.migrate()


def test_an_index_is_used_again_after_it(db: Database) -> None:
    people = filled(db)
    assert people.explain({"name": "x"})["index"] == "ordered:name"
    page = people.find(order_by="name", limit=5)

    def name(document: Document) -> Document:
        return {**document, "name": f"n{document['id']}"}

    people = db.collection("p", version=2, migrate={2: name})
    assert people.explain({"name": "x"})["index"] is None
    assert people.explain({"name": "x"}, order_by="name")["order"] == "sort"
    with pytest.raises(CursorError, match="start again"):
        people.find(order_by="name", limit=5, after=page.cursor)
    first = people.find(order_by="name", limit=25)
    db.migrate()
    assert people.explain({"name": "x"})["index"] == "ordered:name"
    rest = people.find(order_by="name", after=first.cursor)
    assert [*ids(first), *ids(rest)] == ids(people.find(order_by="name"))


def test_a_search_brings_the_migration_to_its_end(db: Database) -> None:
    filled(db)
    people = db.collection("p", version=2, migrate={2: to_2})
    with db.snapshot() as at:
        for source in (at["p"], at["p"]):
            with pytest.raises(QueryError, match="being migrated to version 2"):
                source.search("new")
        hits = people.search("new word7", limit=100)
        assert hits[0].id == "d07"
        assert {hit.id for hit in hits} == {f"d{n:02}" for n in range(COUNT)}
        assert not db.definition("p").steps
        with pytest.raises(QueryError):
            at["p"].search("new")
    assert people.search(vector=[0, 1, 0, 0])[0].id
    assert [hit.id for hit in people.search("first", limit=3)] == []


def test_a_snapshot_from_before_keeps_the_old_documents(db: Database) -> None:
    filled(db)
    with db.snapshot() as at:
        before = [plain(each) for each in at["p"].find(order_by="name")]
        db.collection("p", version=3, migrate=UPGRADES)
        assert [plain(each) for each in at["p"].find(order_by="name")] == before
        db.migrate()
        db.checkpoint()
        assert [plain(each) for each in at["p"].find(order_by="name")] == before
        assert at["p"].search("word7")[0].id == "d07"
        assert got(at["p"], "d07")["first"] == "f2"


def test_what_is_read_is_what_is_stored(db: Database) -> None:
    """The bytes are those that reads returned before; times stay, and the version is the Lsn of the
    migration."""
    clock = FakeClock()
    db.close()
    db = amberdb.open(db.path, **SMALL, clock=clock)
    try:
        people = filled(db)
        before = people.record("d01")
        clock.advance(100)
        db.collection("p", version=3, migrate=UPGRADES)
        lazily = people.record("d01")
        db.migrate()
        stored = people.record("d01")
        assert plain(lazily.document) == plain(stored.document)
        assert type(lazily.document["tags"]) is type(stored.document["tags"]) is list
        assert not lazily.document["v"].flags.writeable
        assert before.created_at == lazily.created_at == stored.created_at
        assert before.updated_at == lazily.updated_at == stored.updated_at
        assert before.version == lazily.version < stored.version
        with pytest.raises(ConflictError):
            people.update("d01", {"x": 1}, if_version=before.version)
    finally:
        db.close()


# -- writes meanwhile --------------------------------------------------------------------------


def test_writes_meanwhile(db: Database) -> None:
    filled(db)
    people = db.collection("p", version=3, migrate=UPGRADES)
    people.update("d01", {"age": 7})
    wanted = {**new_document(1), "age": 7}
    assert plain(people.get("d01")) == plain(wanted)
    people.put({**new_document(2), "name": "put"})
    assert people.delete("d03")
    assert people.delete_many({"age": 104}) == 7
    with db.transaction() as tx:
        tx["p"].update("d05", {"name": "in a transaction"})
        assert got(tx["p"], "d05")["age"] == 105
    db.migrate()
    assert plain(people.get("d01")) == plain(wanted)
    assert got(people, "d02")["name"] == "put"
    assert got(people, "d02")["age"] == 102
    assert "d03" not in people
    assert got(people, "d05")["name"] == "in a transaction"
    assert not people.count({"age": 104})


def test_writers_beside_the_background(open_db: OpenDatabase) -> None:
    db = open_db(background=True)
    filled(db)
    people = db.collection("p", version=3, migrate=UPGRADES)
    errors: list[BaseException] = []

    def write(thread: int) -> None:
        try:
            for number in range(thread, COUNT, 3):
                people.update(f"d{number:02}", {"mark": thread}, sync="os")
                assert got(people, f"d{number:02}")["age"] >= 100
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    db.migrate()
    assert not errors
    for number in range(COUNT):
        document = got(people, f"d{number:02}")
        assert document.pop("mark") == number % 3
        assert plain(document) == plain(new_document(number))


def test_two_versions_one_after_the_other_and_one_on_top_of_another(db: Database) -> None:
    filled(db)
    db.collection("p", version=2, migrate={2: to_2})
    failpoints.install(interrupted_at("migration.committed", 3))
    try:
        with pytest.raises(KeyboardInterrupt):
            db.migrate()
    finally:
        failpoints.install(None)
    people = db.collection("p", version=3, migrate={3: to_3})  # that to version 2 is known
    assert [version for version, _ in db.definition("p").steps] == [2, 3]
    assert answers(people) == wanted_answers()
    db.migrate()
    assert answers(people) == wanted_answers()
    db.collection("p", version=4, migrate={4: lambda document: {**document, "age": 0}})
    db.migrate()
    assert people.count({"age": 0}) == COUNT
    assert db.definition("p").version == 4


# -- after the end of a process ----------------------------------------------------------------


@pytest.mark.parametrize(
    "place", [name for name in failpoints.NAMES if name.startswith(("migration.", "schema."))]
)
@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_process_that_dies_anywhere(
    open_db: OpenDatabase, tmp_path: Path, place: str, checkpointed: bool
) -> None:
    db = open_db()
    filled(db)
    copies: list[Path] = []

    def reach(name: str) -> None:
        if name == place and len(copies) < 4:
            if checkpointed and not place.endswith(("before-commit", "before-end")):
                failpoints.install(None)
                db.checkpoint()
                failpoints.install(reach)
            copies.append(abandon(db, tmp_path / f"{len(copies)}.amber"))

    failpoints.install(reach)
    try:
        db.collection("p", version=3, migrate=UPGRADES)
        db.migrate()
    finally:
        failpoints.install(None)
    assert copies
    wanted = wanted_answers()
    for path in copies:
        with amberdb.open(path, **SMALL) as found:
            assert_sound(found)
            people = found.collection("p", version=3, migrate=UPGRADES)
            assert answers(people) == wanted
            found.migrate()
            assert answers(people) == wanted
            assert_sound(found)


def test_opened_without_version_it_stays_as_it_is(open_db: OpenDatabase) -> None:
    db = open_db()
    filled(db)
    people = db.collection("p", version=3, migrate=UPGRADES)
    people.put(new_document(2))
    db.close()
    db = open_db()
    people = db.collection("p")
    assert db.definition("p").version == 3
    assert got(people, "d02")["age"] == 102
    with pytest.raises(MigrationError, match="version 2 is missing") as raised:
        people.get("d01")
    assert (raised.value.collection, raised.value.key, raised.value.version) == ("p", "d01", 2)
    with pytest.raises(MigrationError):
        people.find({"age": 1})
    with pytest.raises(QueryError, match="being migrated"):
        people.search("tea")
    with pytest.raises(CollectionError, match="from before version 2"):
        db.migrate()
    db.build_indexes()
    people.put(new_document(1))  # whole documents need no function
    assert people.delete("d03")
    assert len(people) == COUNT - 1
    with pytest.raises(CollectionError, match="before version 2"):
        db.collection("p", version=3, migrate={3: to_3})
    db.collection("p", version=3, migrate=UPGRADES)
    db.migrate()
    assert len(people.find({"age": {"$gte": 100}})) == COUNT - 1


# -- versions ----------------------------------------------------------------------------------


def test_a_version_that_the_program_does_not_know(db: Database) -> None:
    filled(db)
    db.collection("p", version=3, migrate=UPGRADES)
    with pytest.raises(CollectionVersionError, match="at version 3") as raised:
        db.collection("p", version=2, migrate={2: to_2})
    assert raised.value.version == 3
    db.migrate()
    with pytest.raises(CollectionVersionError):
        db.collection("p", version=1)
    assert db.definition("p").version == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"version": 3}, "before version 2"),
        ({"version": 3, "migrate": {3: to_3}}, "before version 2"),
        ({"migrate": {2: to_2}}, "say which"),
        ({"version": 0}, "from 1"),
        ({"version": True}, "from 1"),
        ({"version": "2"}, "from 1"),
        ({"version": 2, "migrate": [to_2]}, "map of versions"),
        ({"version": 2, "migrate": {2: "to_2"}}, "map of versions"),
        ({"version": 2, "migrate": {"2": to_2}}, "map of versions"),
    ],
)
def test_declarations_that_make_no_sense(db: Database, arguments: Any, says: str) -> None:
    filled(db)
    before = db.definition("p")
    with pytest.raises(CollectionError, match=says):
        db.collection("p", **arguments)
    assert db.definition("p") == before


def test_an_empty_collection_needs_no_function(db: Database) -> None:
    db.collection("new", version=5).put({"id": "a"})
    assert db.definition("new").version == 5
    db.collection("old")
    db.collection("old", version=2)
    assert db.definition("old").steps == ()
    db.collection("p", version=1)
    filled(db)
    db.collection("p", version=2, migrate={2: to_2})
    db.collection("p").delete_many({})
    db.collection("p", version=3)
    assert db.definition("p").steps == ()


# -- functions that fail -----------------------------------------------------------------------


def test_a_function_that_fails_names_its_document_and_holds_up_no_other(db: Database) -> None:
    filled(db)

    def fails(document: Document) -> Document:
        if document["id"] in ("d07", "d40"):
            raise ZeroDivisionError("no good")
        return to_2(document)

    people = db.collection("p", version=2, migrate={2: fails})
    assert got(people, "d08")["name"]
    with pytest.raises(MigrationError, match=r"'d07'.*version 2 failed.*no good") as raised:
        people.get("d07")
    assert raised.value.key == "d07"
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    with pytest.raises(MigrationError, match="'d07'"):
        db.migrate()
    older = [d for d in (f"d{n:02}" for n in range(COUNT)) if "d07" != d != "d40"]
    assert all(people.record(id).version > db.definition("p").steps[0][1] for id in older)
    with pytest.raises(MigrationError):
        people.find({"age": 1})
    assert_sound(db)
    people.put({**new_document(7), "age": -1})  # one is put again, the other gets a function
    db.collection("p", version=2, migrate={2: to_2})
    db.migrate()
    assert got(people, "d07")["age"] == -1
    assert got(people, "d40")["name"] == "f0 l40"


def test_the_background_tries_a_failing_function_again_only_after_a_pause(
    open_db: OpenDatabase, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "PAUSE_S", 1000.0)
    monkeypatch.setattr(failures, "PAUSE_MAX_S", 1000.0)
    db = open_db(background=True)
    filled(db)
    db.collection("other").put_many({"id": str(n)} for n in range(10))
    over = threading.Event()
    calls: list[str] = []

    def fails(document: Document) -> Document:
        calls.append(document["id"])
        raise ValueError("no good")

    failpoints.install(lambda name: over.set() if name == "index.marked" else None)
    try:
        people = db.collection("p", version=2, migrate={2: fails})
        db.collection("other", indexes=[Ordered("x")])
        assert over.wait(60), "other collections are migrated after it"
        db.collection("p", version=2, migrate={2: fails})  # as a program does at each start
        left_s = engine_of(db).indexer.due_s()
        assert left_s is not None
        assert left_s > 100
    finally:
        failpoints.install(None)
    db.collection("p", version=2, migrate={2: to_2})
    db.migrate()
    assert len(people.find({"name": {"$gte": "f"}})) == COUNT
    assert calls.count("d01") <= 2
    assert "no good" in caplog.text


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, "returned None"),
        ([1], "which is no map"),
        ({"id": "another"}, "changed the id"),
        ({}, "changed the id"),
        ({"x": float("nan")}, "cannot be stored: .*NaN"),
        ({"v": [1, 2]}, "cannot be stored"),
        ({"name": LONG}, "cannot be stored"),
        ({"dies": 2e9}, "when it expires"),
        ({"dies": None}, "when it expires"),
    ],
    ids=[str(number) for number in range(9)],
)
def test_what_a_function_may_not_give(db: Database, given: Any, says: str) -> None:
    def gives(document: Document) -> Any:
        return given if given in (None, [1], {}) else document | given

    people = db.collection("p", indexes=INDEXES, expires_at="dies")
    people.put({**old_document(1), "dies": 5e9})
    db.collection("p", version=2, migrate={2: gives})
    calls: list[Callable[[], object]] = [lambda: people.get("d01"), db.migrate]
    for call in calls:
        with pytest.raises(MigrationError, match=says):
            call()
    assert_sound(db)
    db.collection("p", version=2, migrate={2: to_2})
    db.migrate()
    assert got(people, "d01")["name"]


def test_required_fields_of_the_new_version(db: Database) -> None:
    filled(db)
    people = db.collection("p", version=2, migrate={2: to_2}, required={"name": str, "kind": str})
    with pytest.raises(MigrationError, match="'kind'"):
        people.get("d01")
    db.collection("p", version=2, migrate={2: lambda d: {**to_2(d), "kind": "k"}})
    db.migrate()
    assert people.count({"kind": "k"}) == COUNT


# -- expiry ------------------------------------------------------------------------------------


def test_expiry_goes_on_meanwhile(open_db: OpenDatabase) -> None:
    clock = FakeClock()
    db = open_db(clock=clock)
    people = db.collection("p", indexes=INDEXES, expires_at="dies")
    for number in range(20):
        people.put({**old_document(number), "dies": clock.now + 10.25 * (number % 3)})
    clock.advance(1)
    people = db.collection("p", version=2, migrate={2: to_2})
    assert len(people) == len(list(people)) == 13
    assert db.expire() == 7
    clock.advance(15)
    assert len(people) == len(people.find()) == 6
    db.migrate()
    assert len(people) == len(people.find()) == 6
    assert db.expire() == 7


# -- backups, feed and catalog -----------------------------------------------------------------


def test_the_feed_tells_what_commits_have_stored(db: Database) -> None:
    reader = db.subscriber("s")
    people = db.collection("p")
    people.put({"id": "a", "x": 1})
    db.collection("p", version=2, migrate={2: lambda d: {**d, "x": d["x"] + 1}})
    people.put({"id": "b", "x": 5})
    db.migrate()
    assert [(c.op, c.id, c.document) for c in reader.changes()] == [
        ("put", "a", {"id": "a", "x": 1}),
        ("put", "b", {"id": "b", "x": 5}),
        ("put", "a", {"id": "a", "x": 2}),
    ]


def test_backups_restores_and_compaction_in_between(db: Database, tmp_path: Path) -> None:
    filled(db)
    db.backup(tmp_path / "full")
    lsns = [db.stats()["last_lsn"]]
    db.collection("p", version=3, migrate=UPGRADES)
    lsns.append(db.stats()["last_lsn"])
    failpoints.install(interrupted_at("migration.committed", 3))
    try:
        with pytest.raises(KeyboardInterrupt):
            db.migrate()
    finally:
        failpoints.install(None)
    lsns.append(db.stats()["last_lsn"])
    db.migrate()
    lsns.append(db.stats()["last_lsn"])
    db.backup(tmp_path / "rest", base=tmp_path / "full")
    wanted = wanted_answers()
    db.compact()
    assert answers(db.collection("p")) == wanted
    for number, lsn in enumerate(lsns):
        target = tmp_path / f"{number}.amber"
        amberdb.restore([tmp_path / "full", tmp_path / "rest"], target, until=lsn, **SMALL)
        with amberdb.open(target, **SMALL) as restored:
            if not number:
                assert got(restored.collection("p"), "d07")["first"] == "f2"
            people = restored.collection("p", version=3, migrate=UPGRADES)
            restored.compact()
            assert answers(people) == wanted
            restored.migrate()
            assert answers(people) == wanted
            assert_sound(restored)


def test_repair_keeps_the_steps(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    with amberdb.open(path, **SMALL) as db:
        filled(db)
        db.collection("p", version=3, migrate=UPGRADES)
        db.collection("p").put(new_document(2))
        copy = abandon(db, tmp_path / "copy.amber")
    damage_inner_pages(copy)
    amberdb.repair(copy, apply=True, **SMALL)
    with amberdb.open(copy, **SMALL) as db:
        people = db.collection("p", version=3, migrate=UPGRADES)
        assert answers(people) == wanted_answers()
        db.migrate()
        assert answers(people) == wanted_answers()
        assert_sound(db)


def test_renamed_and_dropped_meanwhile(db: Database) -> None:
    filled(db)
    db.collection("p", version=3, migrate=UPGRADES)
    steps: list[str] = []

    def meanwhile(name: str, count: int) -> None:
        steps.append(name)
        if len(steps) == 3:
            db.rename_collection("p", "q")
        if len(steps) == 6:
            db.collection("q", indexes=INDEXES[:2])

    db.migrate(meanwhile)
    assert db.definition("q").steps == ()
    assert got(db.collection("q"), "d59")["age"] >= 100
    assert set(steps) == {"p", "q"}
    db.collection("q", version=4, migrate={4: to_3})
    db.migrate(lambda name, count: db.drop_collection("q") if "q" in db.collections() else None)
    assert db.collections() == []


def test_inside_of_ones_own_transaction(db: Database) -> None:
    filled(db)
    db.collection("p", version=2, migrate={2: to_2})
    with pytest.raises(TransactionError), db.transaction():
        db.migrate()
    with pytest.raises(TransactionError), db.transaction():
        db.collection("p", version=3, migrate=UPGRADES)


def test_large_documents_go_in_commits_of_bounded_size(open_db: OpenDatabase) -> None:
    db = open_db(transaction_bytes_max=300_000, checkpoint_bytes=200_000)
    people = db.collection("p")
    for number in range(20):
        people.put({"id": f"{number:02}", "x": "x" * 40_000})
    sizes: list[int] = []
    db.collection("p", version=2, migrate={2: lambda d: {**d, "x": d["x"] * 3}})
    db.checkpoint()
    before = db.stats()["checkpoints"]
    db.migrate(lambda name, count: sizes.append(db.stats()["memtable_bytes"]))
    assert max(sizes) < 600_000
    assert db.stats()["checkpoints"] > before + 3
    assert all(len(each["x"]) == 120_000 for each in people.documents())
    db.collection("p", version=3, migrate={3: lambda d: {**d, "x": d["x"] * 3}})
    with pytest.raises(MigrationError, match="transaction_bytes_max"):
        db.migrate()


def test_a_reader_beside_the_writer_is_given_the_functions_too(db: Database) -> None:
    filled(db)
    wanted = wanted_answers()
    db.collection("p", version=3, migrate=UPGRADES)
    with amberdb.open(db.path, read_only=True, **SMALL) as reader:
        with pytest.raises(MigrationError):
            reader.collection("p").get("d07")
        with pytest.raises(CollectionVersionError):
            reader.collection("p", version=2, migrate=UPGRADES)
        people = reader.collection("p", version=3, migrate=UPGRADES)
        assert answers(people) == wanted
        db.collection("another")  # the catalog is read again
        assert answers(people) == wanted
        db.migrate(lambda name, count: assert_equal(answers(people), wanted))
        assert answers(people) == wanted
        assert people.explain({"name": "x"})["index"] == "ordered:name"


def assert_equal(one: Any, other: Any) -> None:
    assert one == other
