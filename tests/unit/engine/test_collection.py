"""Collections: writes, reads, records, iteration, declarations, and errors of bad calls."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from amberdb import (
    Collection,
    CollectionError,
    CollectionMissingError,
    ConflictError,
    Database,
    DuplicateKeyError,
    InvalidDocumentError,
    Lsn,
    MissingKeyError,
    Ordered,
    Unique,
)
from support.databases import FakeClock, OpenDatabase
from unit.engine.helpers import got, ids

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture
def notes(db: Database) -> Collection:
    return db.collection("note")


# -- writing ---------------------------------------------------------------------------------


def test_put_stores_and_replaces_whole(notes: Collection) -> None:
    assert notes.put({"id": "a", "x": 1}) == "a"
    assert notes.put({"id": "a", "y": 2}) == "a"
    assert notes.get("a") == {"id": "a", "y": 2}
    assert len(notes) == 1


def test_insert_refuses_an_id_that_exists(notes: Collection) -> None:
    notes.insert({"id": "a", "x": 1})
    with pytest.raises(DuplicateKeyError) as caught:
        notes.insert({"id": "a", "x": 2})
    assert (caught.value.collection, caught.value.key) == ("note", "a")
    assert notes.get("a") == {"id": "a", "x": 1}


def test_insert_takes_an_id_that_was_deleted(notes: Collection) -> None:
    notes.insert({"id": "a"})
    notes.delete("a")
    assert notes.insert({"id": "a"}) == "a"


def test_put_many_gives_the_ids_in_order(notes: Collection, db: Database) -> None:
    assert notes.put_many({"id": id} for id in "cab") == ["c", "a", "b"]
    assert list(notes) == ["a", "b", "c"]
    assert len({notes.record(id).version for id in "abc"}) == 1, "one commit"


def test_put_many_of_nothing_commits_nothing(notes: Collection, db: Database) -> None:
    before = db.stats()["last_lsn"]
    assert notes.put_many([]) == []
    assert db.stats()["last_lsn"] == before


def test_the_last_of_several_with_one_id_wins(notes: Collection) -> None:
    notes.put_many([{"id": "a", "x": 1}, {"id": "a", "x": 2}])
    assert notes.get("a") == {"id": "a", "x": 2}
    assert len(notes) == 1


def failing() -> Iterator[dict[str, Any]]:
    yield {"id": "a"}
    raise RuntimeError("the source broke")


@pytest.mark.parametrize(
    ("documents", "error"),
    [
        (lambda: [{"id": "a"}, {"id": "b", "x": {1}}], InvalidDocumentError),
        (lambda: [{"id": "a"}, {"id": ""}], InvalidDocumentError),
        (lambda: [{"id": "a", "u": 1}, {"id": "b", "u": 1}], DuplicateKeyError),
        (lambda: [{"id": "a"}, {"id": "b", "l": [1], "m": [2]}], InvalidDocumentError),
        (failing, RuntimeError),
    ],
    ids=["value", "id", "unique", "two lists", "source"],
)
def test_put_many_is_all_or_nothing(
    db: Database, documents: Callable[[], Any], error: type[Exception]
) -> None:
    notes = db.collection("n", indexes=[Unique("u", sparse=True), Ordered("l", "m")])
    notes.put({"id": "before"})
    with pytest.raises(error):
        notes.put_many(documents())
    assert list(notes) == ["before"]


def test_put_many_is_prepared_again_when_the_declaration_changed_on_the_way(
    db: Database,
) -> None:
    # The iterable may run any code, and another thread may run meanwhile.
    def source() -> Iterator[dict[str, Any]]:
        yield {"id": "a", "until": 1}
        db.collection("n", expires_at="until", required=["until"])
        yield {"id": "b", "until": 1}

    notes = db.collection("n")
    notes.put_many(source())
    assert list(notes) == []
    assert db.expire() == 2


class Slow(Mapping[str, Any]):
    """A document that changes the declaration while it is read."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def __getitem__(self, name: str) -> Any:
        return {"id": "a", "until": 1}[name]

    def __iter__(self) -> Iterator[str]:
        self._db.collection("n", expires_at="until")
        return iter(["id", "until"])

    def __len__(self) -> int:
        return 2


@pytest.mark.parametrize("call", ["put", "insert"])
def test_document_is_prepared_again_when_the_declaration_changed(db: Database, call: str) -> None:
    notes = db.collection("n")
    write: Callable[[Mapping[str, Any]], str] = getattr(notes, call)
    assert write(Slow(db)) == "a"
    assert "a" not in notes
    assert db.expire() == 1


def test_update_gives_the_new_version(notes: Collection) -> None:
    notes.put({"id": "a"})
    before = notes.record("a").version
    version = notes.update("a", {"x": 1})
    assert version > before
    assert notes.record("a").version == version


def test_update_of_nothing_is_an_error(notes: Collection) -> None:
    with pytest.raises(MissingKeyError) as caught:
        notes.update("a", {"x": 1})
    assert (caught.value.collection, caught.value.key) == ("note", "a")
    assert "a" not in notes


def test_update_at_the_named_version_only(notes: Collection) -> None:
    notes.put({"id": "a", "x": 0})
    version = notes.record("a").version
    newer = notes.update("a", {"x": 1}, if_version=version)
    with pytest.raises(ConflictError) as caught:
        notes.update("a", {"x": 2}, if_version=version)
    assert caught.value.version == newer
    assert got(notes, "a")["x"] == 1


def test_delete_says_whether_there_was_one(notes: Collection) -> None:
    notes.put({"id": "a"})
    assert notes.delete("a") is True
    assert notes.delete("a") is False
    assert notes.get("a") is None


def test_del_of_nothing_is_an_error(notes: Collection) -> None:
    notes.put({"id": "a"})
    del notes["a"]
    with pytest.raises(MissingKeyError):
        del notes["a"]


def test_delete_many_takes_all_that_match(notes: Collection) -> None:
    notes.put_many({"id": str(n), "even": n % 2 == 0} for n in range(10))
    assert notes.delete_many({"even": True}) == 5
    assert notes.delete_many({"even": True}) == 0
    assert list(notes) == ["1", "3", "5", "7", "9"]
    assert notes.delete_many({}) == 5
    assert len(notes) == 0


# -- reading ---------------------------------------------------------------------------------


def test_delete_many_in_a_transaction_sees_what_was_written_before(db: Database) -> None:
    notes = db.collection("note", indexes=[Ordered("x"), Ordered("y")])
    notes.put_many({"id": id, "x": 1, "y": 2} for id in "abc")
    with db.transaction() as tx:
        tx["note"].put({"id": "d", "y": 2})
        tx["note"].update("c", {"y": 3})
        assert tx["note"].delete_many({"x": 1}) == 3
        assert tx["note"].delete_many({"y": 2}) == 1
        assert tx["note"].delete_many({}) == 0
    assert notes.find() == []


def test_delete_many_takes_a_document_with_several_entries_once(db: Database) -> None:
    notes = db.collection("note", indexes=[Ordered("tags")])
    notes.put_many({"id": f"{n}", "tags": [n, n + 1, n + 2]} for n in range(9))
    assert notes.delete_many({"tags": {"$gte": 3, "$lt": 9}}) == 8
    assert ids(notes.find()) == ["0"]


def test_get_gives_the_default(notes: Collection) -> None:
    assert notes.get("a") is None
    assert notes.get("a", 5) == 5
    notes.put({"id": "a"})
    assert notes.get("a", 5) == {"id": "a"}


def test_a_collection_without_documents_is_still_true(notes: Collection) -> None:
    assert notes
    assert len(notes) == 0
    assert list(notes) == []
    assert list(notes.documents()) == notes.find() == []


@pytest.mark.parametrize("what", ["a", "b", 5, None, b"a"])
def test_in_asks_for_an_id(notes: Collection, what: object) -> None:
    notes.put({"id": "a"})
    assert (what in notes) is (what == "a")


def test_record_knows_version_and_times(open_db: OpenDatabase) -> None:
    clock = FakeClock(1_700_000_000.25)
    notes = open_db(clock=clock).collection("note")
    notes.put({"id": "a", "x": 1})
    first = notes.record("a")
    clock.advance(10)
    notes.put({"id": "a", "x": 2})
    second = notes.record("a")
    clock.advance(10)
    notes.update("a", {"x": 3})
    third = notes.record("a")
    assert first.created_at == EPOCH + timedelta(seconds=1_700_000_000.25)
    assert first.updated_at == first.created_at
    assert second.created_at == third.created_at == first.created_at
    assert second.updated_at - first.updated_at == timedelta(seconds=10)
    assert third.updated_at - first.updated_at == timedelta(seconds=20)
    assert first.version < second.version < third.version
    assert third.id == "a"
    assert third.document == {"id": "a", "x": 3}


def test_a_deleted_document_that_comes_back_is_new(open_db: OpenDatabase) -> None:
    clock = FakeClock()
    notes = open_db(clock=clock).collection("note")
    notes.put({"id": "a"})
    first = notes.record("a")
    notes.delete("a")
    clock.advance(5)
    notes.put({"id": "a"})
    assert notes.record("a").created_at - first.created_at == timedelta(seconds=5)


def test_records_are_stored_with_the_times_of_another_database(open_db: OpenDatabase) -> None:
    clock = FakeClock()
    source = open_db("source.amber", clock=clock).collection("note")
    source.put_many({"id": id, "n": 1} for id in "abc")
    clock.advance(60)
    source.update("b", {"n": 2})
    clock.advance(3600)
    copy = open_db("copy.amber", clock=clock).collection("note", indexes=[Ordered("n")])
    copy.put({"id": "b", "older": True})  # is replaced, with its times
    clock.advance(3600)
    records = source.find(order_by="id", records=True)
    assert copy.put_records(records) == ["a", "b", "c"]
    assert [dataclasses.replace(each, version=Lsn(0)) for each in copy.find(records=True)] == [
        dataclasses.replace(each, version=Lsn(0)) for each in records
    ]
    assert ids(copy.find(order_by="-n")) == ["b", "c", "a"]


def test_a_record_without_its_whole_document_is_refused(notes: Collection) -> None:
    notes.put({"id": "a", "x": 1, "y": 1})
    (part,) = notes.find(fields=["x"], records=True)
    with pytest.raises(InvalidDocumentError, match="without fields="):
        notes.put_records([part])
    whole = notes.record("a")
    with pytest.raises(InvalidDocumentError, match="zone"):
        notes.put_records([dataclasses.replace(whole, updated_at=datetime(2026, 1, 1))])
    with pytest.raises(InvalidDocumentError, match="takes records"):
        notes.put_records(cast(Any, [{"id": "a"}]))
    assert notes.put_records([]) == []
    assert notes.record("a") == whole


def test_record_of_nothing_is_an_error(notes: Collection) -> None:
    with pytest.raises(MissingKeyError) as caught:
        notes.record("a")
    assert caught.value.key == "a"


@pytest.mark.parametrize("where", ["memtable", "store", "both"])
def test_iteration_goes_by_id_over_any_number(db: Database, where: str) -> None:
    notes = db.collection("note")
    wanted = [f"{n:05d}" for n in range(1300)]
    notes.put_many({"id": id} for id in wanted[::2])
    if where != "memtable":
        db.checkpoint()
    notes.put_many({"id": id} for id in wanted[1::2])
    if where == "store":
        db.checkpoint()
    notes.delete("00007")
    wanted.remove("00007")
    assert list(notes) == wanted
    assert ids(notes.documents()) == wanted


# -- declarations ----------------------------------------------------------------------------


def test_collection_keeps_its_declaration(open_db: OpenDatabase) -> None:
    db = open_db()
    db.collection("n", indexes=[Ordered("a", "-b")], expires_at="e", required={"a": int})
    before = db.definition("n")
    db.close()
    db = open_db()
    assert db.definition("n") == before
    notes = db.collection("n")
    assert db.definition("n") == before, "a call without arguments changes nothing"
    assert notes.explain({"a": 1})["index"] == "ordered:a,-b"
    assert db.collections() == ["n"]


def test_same_declaration_again_commits_nothing(db: Database) -> None:
    db.collection("n", indexes=[Ordered("a")], expires_at="e", required=["a"])
    before = db.stats()["last_lsn"]
    db.collection("n", indexes=[Ordered("a")], expires_at="e", required=["a"])
    assert db.stats()["last_lsn"] == before


def test_collections_do_not_see_each_other(db: Database) -> None:
    one, two = db.collection("one"), db.collection("two")
    one.put({"id": "a", "x": 1})
    two.put({"id": "a", "x": 2})
    one.delete("a")
    assert two.get("a") == {"id": "a", "x": 2}
    assert (len(one), len(two)) == (0, 1)
    assert db.collections() == ["one", "two"]


def test_what_was_never_declared_is_missing(db: Database) -> None:
    with pytest.raises(CollectionMissingError, match="declare it"):
        db.definition("n")
    with db.transaction() as tx, pytest.raises(CollectionMissingError) as caught:
        tx["n"]
    assert caught.value.collection == "n"
    with db.snapshot() as at, pytest.raises(CollectionMissingError):
        at["n"]
    assert db.collections() == []


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", "a\0b", 5, None, b"a"], ids=repr)
def test_name_of_a_collection_is_short_printable_text(db: Database, name: Any) -> None:
    with pytest.raises(CollectionError):
        db.collection(name)
    assert db.collections() == []


@pytest.mark.parametrize("name", ["a", "聊天", "x" * 200, "a b/c.d", "-"])
def test_name_of_a_collection_may_be_any_other(open_db: OpenDatabase, name: str) -> None:
    db = open_db()
    db.collection(name).put({"id": "a"})
    db.close()
    db = open_db()
    assert db.collections() == [name]
    assert db.collection(name).get("a") == {"id": "a"}


BAD_DECLARATIONS: dict[str, dict[str, Any]] = {
    "two of one name": {"indexes": [Ordered("a", name="x"), Ordered("b", name="x")]},
    "twice the same": {"indexes": [Ordered("a"), Ordered("a")]},
    "no index": {"indexes": ["a"]},
    "not a list": {"indexes": Ordered("a")},
    "required as a str": {"required": "name"},
    "required is no name": {"required": [5]},
    "type not known": {"required": {"a": set}},
    "type as a str": {"required": {"a": "str"}},
    "expires_at is no name": {"expires_at": 5},
    "expires_at is empty": {"expires_at": ""},
    "expires_at is a path": {"expires_at": "meta.until"},
}


@pytest.mark.parametrize("declaration", BAD_DECLARATIONS.values(), ids=BAD_DECLARATIONS.keys())
def test_bad_declaration_is_refused(db: Database, declaration: dict[str, Any]) -> None:
    with pytest.raises(CollectionError):
        db.collection("n", **declaration)
    assert db.collections() == []


def test_expiry_of_stored_documents_cannot_be_declared_afterwards(db: Database) -> None:
    notes = db.collection("n")
    notes.put({"id": "a", "e": 5})
    with pytest.raises(CollectionError, match="new collection"):
        db.collection("n", expires_at="e")
    assert notes.get("a") is not None
    notes.delete("a")
    db.collection("n", expires_at="e")
    notes.put({"id": "a", "e": 5})
    assert notes.get("a") is None


# -- required fields -------------------------------------------------------------------------

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
TYPES: list[tuple[type | None, Any, Any]] = [
    (bool, True, 1),
    (int, 1, True),
    (int, 1, 1.0),
    (float, 1.5, "1.5"),
    (float, 1, True),
    (str, "a", b"a"),
    (bytes, b"a", "a"),
    (datetime, MOMENT, "2026-01-01"),
    (list, [1], {"a": 1}),
    (dict, {"a": 1}, [1]),
    (None, 5, None),
    (str, "a", None),
]


@pytest.mark.parametrize(("kind", "good", "bad"), TYPES, ids=str)
def test_required_field_has_its_type(db: Database, kind: type | None, good: Any, bad: Any) -> None:
    notes = db.collection("n", required={"x": kind})
    notes.put({"id": "a", "x": good})
    with pytest.raises(InvalidDocumentError) as caught:
        notes.put({"id": "b", "x": bad})
    assert caught.value.field == "x"
    assert list(notes) == ["a"]


def test_required_field_is_asked_of_every_write(db: Database) -> None:
    notes = db.collection("n", required=["x", "y"])
    notes.put({"id": "a", "x": 1, "y": 2})
    writes: list[Callable[[], object]] = [
        lambda: notes.put({"x": 1}),
        lambda: notes.insert({"x": 1}),
        lambda: notes.put_many([{"x": 1, "y": 1}, {"x": 1}]),
        lambda: notes.update("a", {"y": None}),
    ]
    for write in writes:
        with pytest.raises(InvalidDocumentError) as caught:
            write()
        assert caught.value.field == "y"
    assert notes.find() == [{"id": "a", "x": 1, "y": 2}]


def test_required_fields_can_be_changed_and_outlive_reopening(open_db: OpenDatabase) -> None:
    db = open_db()
    db.collection("n", required=["x"])
    db.close()
    db = open_db()
    notes = db.collection("n")
    with pytest.raises(InvalidDocumentError):
        notes.put({"id": "a"})
    db.collection("n", required=[])
    notes.put({"id": "a"})
