"""The verbs of a collection, alike wherever it is met: by itself, in a transaction, in a snapshot,
in a reader of another process, and for an event loop."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import pytest

import amberdb
from amberdb import (
    Collection,
    CollectionError,
    Database,
    DuplicateKeyError,
    InvalidDocumentError,
    Ordered,
    Page,
    QueryError,
    ReadableCollection,
    ReadOnlyError,
    Record,
    aio,
    key,
)
from support.databases import SMALL, FakeClock, OpenDatabase, assert_sound

Call: TypeAlias = Callable[..., Any]
"""call("find", {"n": 1}, limit=2) calls that method of the collection."""

KINDS = ["a", "b", "c"]
UNTIL = datetime(2200, 1, 1, tzinfo=UTC)
DOCUMENTS: list[dict[str, Any]] = [
    {"id": f"{kind}/{n}", "kind": kind, "n": n, "tags": [kind, "all"][: n % 3]}
    for kind in KINDS
    for n in range(4)
]


@pytest.fixture
def db(open_db: OpenDatabase, clock: FakeClock) -> Database:
    db = open_db(clock=clock)
    indexes = [Ordered("kind", "-n"), Ordered("tags")]
    notes = db.collection("note", indexes=indexes, expires_at="until")
    for document in DOCUMENTS[:6]:
        notes.put(document)
        clock.advance(1)
    db.checkpoint()
    notes.put({"id": "gone", "kind": "0", "n": -1, "tags": ["0"], "until": clock.now + 1})
    for document in DOCUMENTS[6:]:
        notes.put(document)
        clock.advance(1)
    return db


def of(collection: ReadableCollection) -> Call:
    def call(verb: str, *args: Any, **given: Any) -> Any:
        return getattr(collection, verb)(*args, **given)

    return call


def by_itself(db: Database) -> Iterator[Call]:
    yield of(db["note"])


def in_a_transaction(db: Database) -> Iterator[Call]:
    def call(verb: str, *args: Any, **given: Any) -> Any:
        with db.transaction() as tx:
            return of(tx["note"])(verb, *args, **given)

    yield call


def in_a_snapshot(db: Database) -> Iterator[Call]:
    with db.snapshot() as at:
        yield of(at["note"])


def in_a_reader(db: Database) -> Iterator[Call]:
    with amberdb.open(db.path, read_only=True, clock=db.options.clock, **SMALL) as reader:
        yield of(reader["note"])


def for_an_event_loop(db: Database) -> Iterator[Call]:
    def call(verb: str, *args: Any, **given: Any) -> Any:
        async def called() -> Any:
            async with aio.open(db.path, **SMALL, clock=db.options.clock) as other:
                return await getattr(other["note"], verb)(*args, **given)

        return asyncio.run(called())

    yield call


WAYS = [by_itself, in_a_transaction, in_a_snapshot, in_a_reader, for_an_event_loop]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def read(request: pytest.FixtureRequest, db: Database) -> Iterator[Call]:
    yield from request.param(db)


@pytest.fixture(
    params=[by_itself, in_a_transaction, for_an_event_loop], ids=lambda way: way.__name__
)
def write(request: pytest.FixtureRequest, db: Database) -> Iterator[Call]:
    yield from request.param(db)


# -- reading ---------------------------------------------------------------------------------


def test_get_many_is_in_the_order_asked(read: Call) -> None:
    found = read("get_many", ["c/3", "gone", "a/0", "nowhere", "c/3"])
    assert found == [DOCUMENTS[11], None, DOCUMENTS[0], None, DOCUMENTS[11]]
    assert read("get_many", []) == []
    with pytest.raises(QueryError, match="list of ids"):
        read("get_many", "a/0")
    with pytest.raises(InvalidDocumentError):
        read("get_many", ["a/0", 5])


def test_prefix_finds_what_begins_with_it(read: Call) -> None:
    assert read("find", {"id": {"$prefix": "b/"}}, order_by="id") == DOCUMENTS[4:8]
    assert read("count", {"kind": {"$prefix": ""}}) == 12
    assert read("count", {"tags": {"$prefix": "al"}}) == 3
    assert read("count", {"n": {"$prefix": "1"}}) == 0
    assert read("explain", {"kind": {"$prefix": "b"}})["range"]
    for wrong in (1, None, ["b"], {"x": 1}):
        with pytest.raises(QueryError, match="prefix"):
            read("find", {"kind": {"$prefix": wrong}})


@pytest.mark.parametrize("is_indexed", [False, True])
def test_a_prefix_at_the_end_of_its_class(db: Database, is_indexed: bool) -> None:
    notes = db.collection("prefix", indexes=[Ordered("x")] if is_indexed else [])
    last = "\U0010ffff"
    values = ["\ud7ff", "\ud7ffz", "\ue000", last, f"a{last}", "b", b"\xff", b"\xff\xff", b"a"]
    notes.put_many([{"id": f"{n}", "x": value} for n, value in enumerate(values)])
    for prefix in ("\ud7ff", "\ue000", last, f"a{last}", "a", "", b"\xff", b"\xff\xff", b""):
        wanted = [
            value
            for value in values
            if type(value) is type(prefix) and value[: len(prefix)] == prefix
        ]
        found = notes.find({"x": {"$prefix": prefix}}, order_by="id")
        assert [document["x"] for document in found] == wanted


def test_values_of_a_field(read: Call) -> None:
    assert read("distinct", "kind") == KINDS
    assert read("distinct", "n", {"kind": "b", "n": {"$gt": 1}}) == [2, 3]
    assert read("distinct", "tags") == ["a", "all", "b", "c"]
    assert read("distinct", "none") == [None]
    assert read("count_by", "kind") == {"a": 4, "b": 4, "c": 4}
    assert list(read("count_by", "n", {"kind": {"$in": ["c", "a"]}}).items()) == [
        (n, 2) for n in range(4)
    ]
    assert read("count_by", "tags", {"n": {"$lt": 2}}) == {"a": 1, "b": 1, "c": 1}
    assert (read("min", "n"), read("max", "n", {"kind": "b"})) == (0, 3)
    assert (read("min", "kind"), read("max", "kind")) == ("a", "c")
    assert read("max", "n", {"kind": "z"}) is None
    assert read("explain", {"kind": "b"}, distinct="n") == {
        "index": "ordered:kind,-n",
        "skip": True,
    }
    assert read("explain", {"n": 1}, distinct="kind")["skip"] is False
    for verb in ("distinct", "count_by", "min", "max"):
        with pytest.raises(QueryError):
            read(verb, "a..b")
        with pytest.raises(QueryError):
            read(verb, "n", {"n": {"$foo": 1}})


def test_records_have_versions_and_times(read: Call, db: Database) -> None:
    page: Page[Record] = read("find", {"kind": "b"}, order_by="-$updated_at", limit=2, records=True)
    assert type(page) is Page
    assert [record.document for record in page] == [DOCUMENTS[7], DOCUMENTS[6]]
    assert list(page) == [read("record", "b/3"), read("record", "b/2")]
    assert page[0].updated_at - page[1].updated_at == timedelta(seconds=1)
    more = read(
        "find", {"kind": "b"}, order_by="-$updated_at", limit=2, records=True, after=page.cursor,
        fields=["n"],
    )  # fmt: skip
    assert [(record.id, record.document) for record in more] == [
        ("b/1", {"n": 1}),
        ("b/0", {"n": 0}),
    ]
    by_version = read("find", order_by=["$version"], fields=["id"])
    assert [document["id"] for document in by_version] == [each["id"] for each in DOCUMENTS]
    assert read("find", order_by="$created_at", limit=1) == DOCUMENTS[:1]
    with pytest.raises(QueryError, match=r"\$updated_at"):
        read("find", order_by="$written_at")


def test_a_list_of_keys_is_a_path(read: Call) -> None:
    assert read("find", order_by=[["kind"], "n"], limit=1) == DOCUMENTS[:1]
    assert read("find", {"id": "a/1"}, fields=["id", ["n"], ["no.such"]]) == [{"id": "a/1", "n": 1}]
    assert read("distinct", ["kind"], {("n",): 0}) == KINDS


@pytest.mark.parametrize("is_indexed", [False, True])
def test_a_key_with_a_dot_is_found(db: Database, is_indexed: bool) -> None:
    indexes = [Ordered(["a.b", "c"]), Ordered([""], ["x.y"])] if is_indexed else []
    notes = db.collection("dotted", indexes=indexes)
    document = {"id": "x", "a.b": {"c": 7}, "": 1, "x.y": 2, "a": {"b": {"c": 8}}}
    notes.put_many([document, {"id": "y", "a.b": {"c": 9}, "": 1, "x.y": 3}])
    assert notes.find({("a.b", "c"): 7}) == [document] == notes.find({"a.b.c": 8})
    assert notes.find({'.["a.b","c"]': {"$lt": 8}, ("",): 1}) == [document]
    assert (notes.explain({("a.b", "c"): 7})["index"] is not None) is is_indexed
    found = notes.find({("",): 1}, order_by=['-.["x.y"]'], limit=1, fields=["id"])
    assert found == [{"id": "y"}]
    assert notes.find({("",): 1}, order_by=['-.["x.y"]'], after=found.cursor) == [document]
    assert notes.distinct(["a.b", "c"]) == [7, 9]
    assert amberdb.value_at(document, ["a.b", "c"]) == 7


# -- writing ---------------------------------------------------------------------------------


def test_put_many_where_an_id_exists(write: Call, db: Database) -> None:
    notes = db["note"]
    new = [{"id": "a/0", "n": 100}, {"id": "new", "n": 1}, {"id": "new", "n": 2}]
    with pytest.raises(DuplicateKeyError):
        write("put_many", new, on_conflict="raise")
    assert (notes["a/0"], "new" in notes) == (DOCUMENTS[0], False)
    assert write("put_many", new, on_conflict="keep") == ["a/0", "new", "new"]
    assert (notes["a/0"], notes["new"]["n"]) == (DOCUMENTS[0], 1)
    write("put_many", new)
    assert (notes["a/0"]["n"], notes["new"]["n"]) == (100, 2)
    write("put_many", [{"id": "gone", "n": 5}], on_conflict="raise")
    with pytest.raises(QueryError, match="on_conflict"):
        write("put_many", new, on_conflict="ignore")


def test_delete_many_by_ids(write: Call, db: Database) -> None:
    assert write("delete_many", ids=["a/0", "nowhere", "gone", "b/1", "a/0"]) == 2
    assert db["note"].get_many(["a/0", "b/1"]) == [None, None]
    assert db["note"].count_by("kind") == {"a": 3, "b": 3, "c": 4}
    assert write("delete_many", {"kind": "c"}) == 4
    wrongs: list[dict[str, Any]] = [{}, {"where": {}, "ids": []}]
    for wrong in wrongs:
        with pytest.raises(QueryError, match="one of them"):
            write("delete_many", **wrong)
    with pytest.raises(QueryError, match="list of ids"):
        write("delete_many", ids="a/1")
    assert write("delete_many", ids=[]) == 0
    assert len(db["note"]) == 6


def test_touch_moves_the_time_of_expiry(write: Call, db: Database, clock: FakeClock) -> None:
    notes = db["note"]
    assert write("touch", ["a/0", "nowhere", "gone", "a/1"], UNTIL) == 2
    assert notes["a/0"] == {**DOCUMENTS[0], "until": UNTIL}
    assert write("touch", ["a/1"], clock.now + 10) == 1
    clock.advance(20)
    assert ("a/0" in notes, "a/1" in notes) == (True, False)
    assert write("touch", ["a/0"], None) == 1
    assert notes["a/0"]["until"] is None
    with pytest.raises(InvalidDocumentError, match="until"):
        write("touch", ["a/0"], "soon")
    with pytest.raises(QueryError, match="list of ids"):
        write("touch", "a/0", None)


def test_touch_needs_a_field_of_expiry(db: Database) -> None:
    with pytest.raises(CollectionError, match="expires_at"):
        db.collection("plain").touch(["a"], None)


def test_expire_is_of_one_collection(db: Database, clock: FakeClock) -> None:
    other = db.collection("other", expires_at="until")
    other.put({"id": "a", "until": clock.now - 1})
    assert db["note"].expire() == 1
    assert db["note"].expire() == 0
    assert db.expire() == 1
    assert_sound(db)


def test_updates_count_together(write: Call, db: Database) -> None:
    for _ in range(3):
        write("update", "a/0", {"$inc": {"n": 1}, "$push": {"tags": "x"}})
    assert db["note"]["a/0"] == {**DOCUMENTS[0], "n": 3, "tags": ["x", "x", "x"]}


def test_a_reader_writes_nothing(db: Database) -> None:
    with amberdb.open(db.path, read_only=True, **SMALL) as reader:
        notes = reader["note"]
        calls: list[Callable[[], Any]] = [
            lambda: notes.put_many([{"id": "x"}], on_conflict="keep"),
            lambda: notes.delete_many(ids=["a/0"]),
            lambda: notes.touch(["a/0"], None),
            lambda: notes.update("a/0", {"$inc": {"n": 1}}),
            notes.expire,
        ]
        for call in calls:
            with pytest.raises(ReadOnlyError):
                call()


def test_every_verb_has_an_async_face() -> None:
    def verbs(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert verbs(Collection) - verbs(aio.Collection) == set()
    assert verbs(amberdb.ReadableCollection) - verbs(aio.ReadableCollection) == set()
    assert verbs(amberdb.WritableCollection) - verbs(aio.WritableCollection) == set()


# -- composite ids ---------------------------------------------------------------------------


def test_composite_ids_page_through_what_belongs_together(db: Database) -> None:
    notes = db.collection("plain")
    for user in ("lin", "lin!", "li", "linn"):
        notes.put_many({"id": key(user, n), "user": user, "n": n} for n in (10, 9, -1))
    found = notes.find({"id": {"$prefix": key("lin")}}, order_by="id")
    assert [(each["user"], each["n"]) for each in found] == [("lin", n) for n in (-1, 9, 10)]
