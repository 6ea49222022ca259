"""Pages and cursors: going on where one was, whatever is written meanwhile."""

import base64
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

import pytest

from amberdb import Collection, CursorError, Database, Document, Ordered, Page
from amberdb._bytes import append_crc
from amberdb.engine.schema.codec import decode, encode
from support.databases import OpenDatabase
from unit.engine.helpers import ids

N = 30


@pytest.fixture
def events(db: Database) -> Collection:
    events = db.collection("e", indexes=[Ordered("at"), Ordered("tags")])
    events.put_many(
        {"id": f"{n:02d}", "at": n // 3, "other": n // 3, "tags": [n, n + 1]} for n in range(N)
    )
    return events


def pages(collection: Any, limit: int, **query: Any) -> Iterator[Page]:
    cursor = None
    while True:
        page = collection.find(limit=limit, after=cursor, **query)
        yield page
        cursor = page.cursor
        if cursor is None:
            return


WAYS: dict[str, dict[str, Any]] = {
    "by id": {},
    "by id, filtered": {"where": {"other": {"$gte": 0}}},
    "by an index": {"where": {"at": {"$gte": 0}}},
    "by an order of an index": {"order_by": "at"},
    "backwards": {"order_by": "-at"},
    "sorted": {"order_by": "other"},
    "sorted backwards": {"order_by": "-other"},
    "sorted by two": {"order_by": ["other", "-id"]},
    "by elements of lists": {"where": {"tags": {"$gte": 0}}},
    "by ids": {"where": {"id": {"$in": [f"{n:02d}" for n in range(N)]}}},
}


def way(function: Callable[..., None]) -> Callable[..., None]:
    mark = pytest.mark.parametrize("query", WAYS.values(), ids=WAYS.keys())
    decorated: Callable[..., None] = mark(function)
    return decorated


@way
@pytest.mark.parametrize("limit", [1, 7, 10, N - 1, N, N + 1])
def test_pages_together_are_the_whole(
    events: Collection, query: dict[str, Any], limit: int
) -> None:
    found = list(pages(events, limit, **query))
    assert [document for page in found for document in page] == events.find(**query)
    assert all(len(page) == limit for page in found[:-1])


@way
@pytest.mark.parametrize("settle", [False, True])
def test_what_is_written_and_deleted_between_pages_neither_hides_nor_repeats_others(
    db: Database, events: Collection, query: dict[str, Any], settle: bool
) -> None:
    whole = ids(events.find(**query))
    seen: list[str] = []
    deleted: set[str] = set()
    for number, page in enumerate(pages(events, 4, **query)):
        seen += ids(page)
        first, last = seen[0], seen[-1]
        deleted |= {first, last}
        events.delete(first)
        events.delete(last)  # the very place of the cursor
        events.put({"id": f"new{number}", "at": -1, "other": -1, "tags": [-1]})
        ahead = [id for id in whole if id not in seen]
        if ahead:
            deleted.add(ahead[-1])
            events.delete(ahead[-1])
        if settle:
            db.checkpoint()
    olds = [id for id in seen if not id.startswith("new")]
    assert len(seen) == len(set(seen))
    assert olds == [id for id in whole if id in olds]
    assert set(whole) - set(olds) <= deleted


@way
def test_what_is_written_ahead_is_found(events: Collection, query: dict[str, Any]) -> None:
    if "$in" in str(query):
        return
    first = events.find(limit=4, records=False, **query)
    values = {"at": 100, "other": 100, "tags": [100]}
    if str(query.get("order_by", "")).startswith("-"):
        values = {"at": -1, "other": -1, "tags": [-1]}
    events.put({"id": "zz", **values})
    rest = events.find(after=first.cursor, records=False, **query)
    assert "zz" in ids(rest)
    assert len(first) + len(rest) == N + 1


@way
def test_cursor_outlives_reopening(open_db: OpenDatabase, query: dict[str, Any]) -> None:
    db = open_db()
    events = db.collection("e", indexes=[Ordered("at"), Ordered("tags")])
    events.put_many({"id": f"{n:02d}", "at": n, "other": n, "tags": [n]} for n in range(N))
    first = events.find(limit=4, records=False, **query)
    db.close()
    rest = open_db().collection("e").find(after=first.cursor, records=False, **query)
    whole: list[Document] = [*first, *rest]
    assert len(whole) == N
    assert len(set(ids(whole))) == N


def test_filter_may_be_any_mapping(events: Collection) -> None:
    where = MappingProxyType({"at": MappingProxyType({"$gte": 2})})
    page = events.find(where, limit=10)
    assert len(events.find(where, after=page.cursor)) == N - 6 - 10
    with pytest.raises(CursorError):
        events.find({"at": {"$gte": 3}}, after=page.cursor)


def test_page_that_was_not_filled_has_no_cursor(events: Collection) -> None:
    assert events.find().cursor is None
    assert events.find(limit=N + 1).cursor is None
    assert events.find({"at": 100}, limit=1).cursor is None
    last = events.find(limit=N)
    assert last.cursor is not None
    assert events.find(after=last.cursor) == []


def test_page_is_a_list_of_documents(events: Collection) -> None:
    page = events.find({"at": 0})
    assert isinstance(page, list)
    assert page == [events.get("00"), events.get("01"), events.get("02")]
    assert len(page) == 3


# -- what is no cursor -----------------------------------------------------------------------


def reseal(cursor: str, change: Callable[[list[Any]], object]) -> str:
    parts = decode(base64.urlsafe_b64decode(cursor)[:-4])
    change(parts)
    return sealed(encode(parts))


def sealed(data: bytes) -> str:
    return base64.urlsafe_b64encode(data + append_crc(data)).decode()


DAMAGE: dict[str, Callable[[str], Any]] = {
    "empty": lambda cursor: "",
    "cut": lambda cursor: cursor[:-4],
    "one letter": lambda cursor: ("A" if cursor[0] != "A" else "B") + cursor[1:],
    "not base64": lambda cursor: "?" * 9,
    "not ASCII": lambda cursor: "下" + cursor,
    "bytes": lambda cursor: cursor.encode(),
    "number": lambda cursor: 5,
    "nothing sealed": lambda cursor: base64.urlsafe_b64encode(append_crc(b"")).decode(),
    "too few parts": lambda cursor: reseal(cursor, lambda parts: parts.pop()),
    "other digest": lambda cursor: reseal(cursor, lambda parts: parts.__setitem__(0, 1)),
    "no map": lambda cursor: reseal(cursor, lambda parts: parts.__setitem__(0, {})),
    "source is text": lambda cursor: reseal(cursor, lambda parts: parts.__setitem__(1, "x")),
    "source is None": lambda cursor: reseal(cursor, lambda parts: parts.__setitem__(1, None)),
    "unknown source": lambda cursor: reseal(cursor, lambda parts: parts.__setitem__(1, 10**6)),
    "place is a number": lambda cursor: reseal(cursor, lambda parts: parts.__setitem__(2, 7)),
    "place is None": lambda cursor: reseal(cursor, lambda parts: parts.__setitem__(2, None)),
    "a number sealed": lambda cursor: sealed(encode(5)),
    "deep": lambda cursor: sealed(b"\x91" * 100_000 + b"\0"),
    "place is text": lambda cursor: reseal(cursor, lambda parts: parts.__setitem__(2, "x")),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
@pytest.mark.parametrize("order", [None, "at", "other"])
def test_damaged_cursor_is_refused(
    events: Collection, damage: Callable[[str], Any], order: str | None
) -> None:
    page = events.find(order_by=order, limit=3)
    assert page.cursor is not None
    with pytest.raises(CursorError):
        events.find(order_by=order, after=damage(page.cursor))


@pytest.mark.parametrize(
    "other",
    [
        {"where": {"at": {"$gt": 1}}},
        {"where": {"at": {"$gte": 2}}},
        {"where": {"at": {"$gte": 1.0}}},
        {"where": {"at": {"$gte": 1}}, "order_by": "at"},
        {"order_by": "-at"},
        {},
    ],
    ids=str,
)
def test_cursor_belongs_to_its_query(events: Collection, other: dict[str, Any]) -> None:
    page = events.find({"at": {"$gte": 1}}, limit=3)
    with pytest.raises(CursorError, match="another query"):
        events.find(after=page.cursor, **other)


def test_cursor_belongs_to_its_collection(db: Database, events: Collection) -> None:
    other = db.collection("other", indexes=[Ordered("at"), Ordered("tags")])
    other.put_many(events.documents())
    with pytest.raises(CursorError):
        other.find(after=events.find(limit=3).cursor)


def test_cursor_goes_on_with_another_limit_and_other_fields(events: Collection) -> None:
    page = events.find(order_by="at", limit=3)
    assert ids(events.find(order_by="at", limit=5, after=page.cursor, fields=["id"])) == [
        f"{n:02d}" for n in range(3, 8)
    ]


def test_cursor_along_a_dropped_index_is_refused(db: Database, events: Collection) -> None:
    page = events.find(order_by="at", limit=3)
    db.collection("e", indexes=[Ordered("tags")])
    with pytest.raises(CursorError, match="dropped"):
        events.find(order_by="at", after=page.cursor)
    db.collection("e", indexes=[Ordered("at"), Ordered("tags")])
    db.build_indexes()
    with pytest.raises(CursorError, match="dropped"):  # it has another keyspace now
        events.find(order_by="at", after=page.cursor)


def test_cursor_keeps_its_index_when_a_better_one_comes(db: Database, events: Collection) -> None:
    query: dict[str, Any] = {"where": {"at": {"$gte": 0}, "other": {"$gte": 0}}}
    page = events.find(limit=10, records=False, **query)
    db.collection("e", indexes=[Ordered("at", "other"), Ordered("at"), Ordered("tags")])
    db.build_indexes()
    assert len(events.find(after=page.cursor, records=False, **query)) == N - 10


def test_cursor_of_a_sorted_page_outlives_an_index_over_its_order(
    db: Database, events: Collection
) -> None:
    page = events.find(order_by="other", limit=10)
    rest = ids(events.find(order_by="other"))[10:]
    db.collection("e", indexes=[Ordered("other")])
    db.build_indexes()
    assert ids(events.find(order_by="other", after=page.cursor)) == rest


def newest(events: Collection, count: int, **options: Any) -> Page:
    """Type checkers take a map of options for one of documents; `make check` is the test."""
    return events.find(order_by="-at", limit=count, **options)


def test_options_that_a_function_passes_on(events: Collection) -> None:
    options: dict[str, Any] = {"fields": ["id"]}
    found = newest(events, 2, **options)
    is_of_records = bool(found)
    assert [record.id for record in events.find(records=True)]
    assert len(events.find(records=is_of_records, **options)) == len(events)
    assert found == events.find(order_by="-at", limit=2, **options)


@pytest.mark.parametrize("order_by", [None, "at", "other"])
def test_a_limit_beyond_all_numbers_is_none(events: Collection, order_by: str | None) -> None:
    page = events.find({"at": {"$gte": 0}}, order_by=order_by, limit=10**30)
    assert (len(page), page.cursor) == (N, None)
