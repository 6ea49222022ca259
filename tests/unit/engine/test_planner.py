"""Plans: which index answers, what it narrows, and what is left to the filter."""

from typing import Any

import pytest

from amberdb import (
    Collection,
    Database,
    FullScanWarning,
    Ordered,
    Projection,
    QueryError,
    Unique,
)
from amberdb.engine.query import scan
from amberdb.engine.query.condition import FieldBounds
from amberdb.engine.query.filter import parse
from amberdb.index.ordered.keys import encode
from support.databases import OpenDatabase
from unit.engine.helpers import ids


@pytest.fixture
def events(db: Database) -> Collection:
    events = db.collection(
        "event",
        indexes=[
            Ordered("who", "at", name="who_at"),
            Ordered("at", name="at"),
            Ordered("who", "-rank", name="who_rank"),
            Ordered("kind", sparse=True, name="kind"),
            Unique("key", sparse=True, name="key"),
        ],
    )
    events.put_many(
        {"id": f"{n:02d}", "who": "ab"[n % 2], "at": n // 2, "rank": n % 5} for n in range(20)
    )
    return events


PLANS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "nothing asked": (None, None, {"index": None, "equals": 0, "range": False, "order": "none"}),
    "no index": ({"x": 1}, None, {"index": None, "filter": "{x: ?}"}),
    "equality": ({"at": 3}, None, {"index": "at", "equals": 1, "range": False, "filter": "{}"}),
    "equality of a prefix": ({"who": "a"}, None, {"index": "who_at", "equals": 1}),
    "equality of both": ({"at": 3, "who": "a"}, None, {"index": "who_at", "equals": 2}),
    "range": (
        {"at": {"$gt": 3, "$lte": 5}},
        None,
        {"index": "at", "equals": 0, "range": True, "filter": "{}"},
    ),
    "prefix": (
        {"who": {"$prefix": "a"}},
        None,
        {"index": "who_at", "equals": 0, "range": True, "ranges": 1, "filter": "{}"},
    ),
    "prefix and range": (
        {"who": {"$prefix": "a", "$gt": "aa"}},
        None,
        {"index": "who_at", "range": True, "ranges": 1, "filter": "{}"},
    ),
    "equality and range": (
        {"who": "a", "at": {"$gte": 3}},
        None,
        {"index": "who_at", "equals": 1, "range": True, "filter": "{}"},
    ),
    "rest of the filter": (
        {"at": 3, "x": {"$ne": 1}},
        None,
        {"index": "at", "filter": "{x: {$ne: ?}}"},
    ),
    "order": (None, "at", {"index": "at", "order": "index", "direction": "ascending"}),
    "order backwards": (None, "-at", {"index": "at", "order": "index", "direction": "descending"}),
    "order behind an equality": (
        {"who": "a"},
        "-at",
        {"index": "who_at", "equals": 1, "order": "index", "direction": "descending"},
    ),
    "fixed field in the order": (
        {"who": "a"},
        ["who", "at"],
        {"index": "who_at", "order": "index"},
    ),
    "mixed directions": (
        None,
        ["who", "-rank"],
        {"index": "who_rank", "order": "index", "direction": "ascending"},
    ),
    "mixed directions, all turned": (
        None,
        ["-who", "rank"],
        {"index": "who_rank", "order": "index", "direction": "descending"},
    ),
    "directions that no index has": (None, ["who", "rank"], {"index": None, "order": "sort"}),
    "directions that are neither as stored nor turned": (
        None,
        ["-who", "at"],
        {"index": None, "order": "sort"},
    ),
    "order that no index has": ({"who": "a"}, "x", {"index": "who_at", "order": "sort"}),
    "range of another field": (
        {"at": {"$gt": 3}},
        "-rank",
        {"index": "at", "range": True, "order": "sort"},
    ),
    "range that narrows to few before an order": (
        {"who": {"$gt": "a"}},
        "at",
        {"index": "who_at", "order": "sort", "filter": "{}", "alternatives": ["at"]},
    ),
    "$in": (
        {"at": {"$in": [3, 1, 3]}},
        None,
        {"index": "at", "equals": 1, "ranges": 2, "filter": "{}"},
    ),
    "$in of both": (
        {"who": {"$in": ["a", "b"]}, "rank": {"$in": [1, 2]}},
        None,
        {"index": "who_rank", "equals": 2, "ranges": 4},
    ),
    "$in and an order": ({"at": {"$in": [3, 1]}}, "at", {"index": "at", "order": "index"}),
    "$in in front of an order": (
        {"who": {"$in": ["a", "c"]}},
        "-at",
        {"index": "who_at", "ranges": 2, "order": "index", "direction": "descending"},
    ),
    "$in and a range in front of an order": (
        {"who": {"$in": ["a", "b"]}, "rank": {"$gt": 1}},
        "-rank",
        {"index": "who_rank", "ranges": 2, "order": "index", "range": True},
    ),
    "$in of more than is merged": (
        {"who": {"$in": [f"{n}" for n in range(65)]}},
        "at",
        {"index": "at", "order": "index"},
    ),
    "$in of one and an order": (
        {"who": {"$in": ["a"]}},
        "at",
        {"index": "who_at", "order": "index"},
    ),
    "$in of nothing": ({"at": {"$in": []}}, None, {"ranges": 0}),
    "too many for ranges": ({"at": {"$in": list(range(201))}}, None, {"index": None}),
    "id": ({"id": "03"}, None, {"index": "id", "equals": 1, "ranges": 1}),
    "ids": ({"id": {"$in": ["03", "01", 5]}}, None, {"index": "id", "ranges": 2}),
    "id and more": ({"id": "03", "at": 1}, None, {"index": "id", "filter": "{at: ?}"}),
    "range of ids": (
        {"id": {"$gte": "03", "$lt": "05"}},
        None,
        {"index": "id", "equals": 0, "range": True, "ranges": 1, "filter": "{}"},
    ),
    "prefix of ids": (
        {"id": {"$prefix": "0"}},
        "-id",
        {"index": "id", "equals": 0, "range": True, "ranges": 1, "order": "index", "filter": "{}"},
    ),
    "prefix of ids of another class": ({"id": {"$prefix": b"0"}}, None, {"ranges": 0}),
    "range of ids of another class": ({"id": {"$gt": 3}}, None, {"index": "id", "ranges": 0}),
    "order by id": (None, "id", {"index": "id", "order": "index", "direction": "ascending"}),
    "order by id backwards": (
        {"id": {"$gt": "03"}},
        ["-id", "at"],
        {"index": "id", "range": True, "order": "index", "direction": "descending"},
    ),
    "id in an order behind another field": (None, ["rank", "id"], {"index": None, "order": "sort"}),
    "sparse with a value": ({"kind": "x"}, None, {"index": "kind"}),
    "sparse with a range": ({"kind": {"$gt": "x"}}, None, {"index": "kind"}),
    "sparse cannot find None": ({"kind": None}, None, {"index": None}),
    "sparse cannot find what it leaves out": (None, "kind", {"index": None, "order": "sort"}),
    "sparse with None in $in": ({"kind": {"$in": [None, "x"]}}, None, {"index": None}),
    "unique": ({"key": 5}, None, {"index": "key", "equals": 1}),
    "negation": ({"at": {"$ne": 3}}, None, {"index": None}),
    "alternatives": ({"$or": [{"at": 3}, {"at": 4}]}, None, {"index": None}),
    "conjunction": ({"$and": [{"who": "a"}, {"at": 3}]}, None, {"index": "who_at", "equals": 2}),
}


@pytest.mark.parametrize(("where", "order", "plan"), PLANS.values(), ids=PLANS.keys())
def test_plan(events: Collection, where: Any, order: Any, plan: dict[str, Any]) -> None:
    found = events.explain(where, order_by=order)
    assert {name: found[name] for name in plan} == plan


@pytest.mark.parametrize(("where", "order", "plan"), PLANS.values(), ids=PLANS.keys())
def test_plan_changes_no_answer(
    db: Database, events: Collection, where: Any, order: Any, plan: object
) -> None:
    events.put({"id": "x", "kind": "x", "key": 5, "x": 1})
    bare = db.collection("bare")
    bare.put_many(events.documents())
    found, wanted = ids(events.find(where, order_by=order)), ids(bare.find(where, order_by=order))
    if order is None:
        found.sort()
        wanted.sort()
    assert found == wanted
    assert events.count(where) == len(wanted)


KEYS = ["a", "a\0", "a\0b", "a\x01", "aa", "b", "é", "\uffff", "\U0001f600", "z" * 480]
BOUNDS: list[Any] = [*KEYS, "", "c", "z" * 479, "z" * 2_000]


@pytest.mark.parametrize("is_settled", [True, False], ids=["LMDB", "memtable"])
def test_ids_are_found_by_range_and_in_order(db: Database, is_settled: bool) -> None:
    notes = db.collection("n")
    notes.put_many({"id": id, "x": n % 2} for n, id in enumerate(KEYS))
    notes.put_many({"id": "gone" + id[:9]} for id in KEYS)
    notes.delete_many({"x": {"$exists": False}})
    if is_settled:
        db.checkpoint()
    keys = sorted(KEYS)
    for low in BOUNDS:
        assert ids(notes.find({"id": low})) == [key for key in keys if key == low]
        begin = [key for key in keys if key.startswith(low)]
        assert ids(notes.find({"id": {"$prefix": low}}, order_by="id")) == begin
        assert notes.count({"id": {"$prefix": low}}) == len(begin)
        for high in BOUNDS:
            assert ids(notes.find({"id": {"$gte": low, "$lt": high}})) == [
                key for key in keys if low <= key < high
            ]
            within = {"id": {"$gt": low, "$lte": high}}
            wanted = [key for key in keys if low < key <= high]
            assert ids(notes.find(within)) == wanted
            assert notes.count(within) == len(wanted)
        pages: list[str] = []
        after: str | None = None
        while True:
            page = notes.find({"id": {"$gt": low}}, order_by="-id", limit=2, after=after)
            pages += ids(page)
            after = page.cursor
            if after is None:
                break
        assert pages == [key for key in reversed(keys) if key > low]
    assert ids(notes.find({"id": {"$in": BOUNDS}}, order_by="-id")) == keys[::-1]
    page = notes.find({"id": {"$in": BOUNDS}}, order_by="id", limit=4)
    rest = notes.find({"id": {"$in": BOUNDS}}, order_by="id", limit=40, after=page.cursor)
    assert ids([*page, *rest]) == keys
    assert notes.find({"id": {"$gt": 5}}) == notes.find({"id": {"$lt": b"z"}}) == []
    assert ids(notes.find({"id": {"$lt": "b"}, "x": 1})) == ["a\0", "a\x01"]
    assert notes.find({"id": {"$exists": False}}) == notes.find({"id": None}) == []


def _bounds(where: Any) -> FieldBounds:
    return parse({"x": where}).fields["x"]


def test_bounds_of_prefixes() -> None:
    bounds = _bounds({"$prefix": "a"})
    assert (bounds.low, bounds.low_inclusive) == (encode("a"), True)
    assert (bounds.high, bounds.high_inclusive) == (encode("b"), False)
    assert bounds.exact
    assert not bounds.is_split, "one element meets both"
    assert _bounds({"$prefix": ""}).high is None
    bounds = _bounds({"$prefix": "a", "$gt": "ab", "$lt": "z"})
    assert (bounds.low, bounds.high) == (encode("ab"), encode("b"))
    assert bounds.is_split
    assert len(bounds.covered) == 3
    assert _bounds({"$prefix": "a", "$gt": 1}).covered[0].operator == "$prefix"


def test_explain_has_a_fixed_shape(events: Collection) -> None:
    assert events.explain({"who": "a", "x": 1}, order_by="-at") == {
        "index": "who_at",
        "equals": 1,
        "range": False,
        "ranges": 1,
        "direction": "descending",
        "order": "index",
        "filter": "{x: ?}",
        "covering": False,
        "alternatives": [],
    }


def test_ties_of_an_order_go_the_way_of_its_last_field(events: Collection) -> None:
    up = ids(events.find(order_by="rank"))
    assert up == sorted(up, key=lambda id: (int(id) % 5, id))
    assert ids(events.find(order_by="-rank")) == up[::-1]
    assert ids(events.find(order_by="at")) == ids(events.find(order_by="-at"))[::-1]
    assert (
        ids(events.find(order_by=["who", "-rank"]))
        == ids(events.find(order_by=["-who", "rank"]))[::-1]
    )


# -- find's options --------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [-1, 1.5, "5", True], ids=repr)
def test_limit_is_a_count(events: Collection, limit: Any) -> None:
    with pytest.raises(QueryError, match="limit"):
        events.find(limit=limit)


@pytest.mark.parametrize("order", [None, "at", "x"])
def test_limit_zero_finds_nothing(events: Collection, order: str | None) -> None:
    page = events.find(order_by=order, limit=0)
    assert page == []
    assert page.cursor is None


@pytest.mark.parametrize("order", [None, "at", "x"])
def test_limit_takes_the_first(events: Collection, order: str | None) -> None:
    assert events.find(order_by=order, limit=7) == events.find(order_by=order)[:7]
    assert events.find(order_by=order, limit=700) == events.find(order_by=order)


BAD_CALLS: dict[str, dict[str, Any]] = {
    "unknown operator": {"where": {"at": {"$near": 5}}},
    "filter is no map": {"where": [("at", 5)]},
    "order is no field": {"order_by": 5},
    "order twice": {"order_by": ["at", "-at"]},
    "empty order": {"order_by": ""},
    "fields as a str": {"fields": "id"},
    "field is no str": {"fields": ["id", 5]},
    "field is a list of no keys": {"fields": [["id", 5]]},
    "empty field": {"fields": ["a..b"]},
}


@pytest.mark.parametrize("call", BAD_CALLS.values(), ids=BAD_CALLS.keys())
def test_what_makes_no_sense_is_an_error(events: Collection, call: dict[str, Any]) -> None:
    with pytest.raises(QueryError):
        events.find(**call)


PROJECTIONS: list[tuple[list[str], dict[str, Any]]] = [
    ([], {}),
    (["id"], {"id": "a"}),
    (["id", "nothing"], {"id": "a"}),
    (["m"], {"m": {"x": 1, "y": {"z": 2}}}),
    (["m.x"], {"m": {"x": 1}}),
    (["m.y.z", "m.x"], {"m": {"y": {"z": 2}, "x": 1}}),
    (["m.x.deeper"], {}),
    (["l.b"], {"l": {"b": [1, 2]}}),
    (["n"], {"n": None}),
    (["m", "m.x"], {"m": {"x": 1, "y": {"z": 2}}}),
    (["m.x", "m"], {"m": {"x": 1, "y": {"z": 2}}}),
    (["l", "l.b"], {"l": [{"b": 1}, {"b": 2}, 3]}),
    (["l.b", "l"], {"l": [{"b": 1}, {"b": 2}, 3]}),
]


@pytest.mark.parametrize(("fields", "wanted"), PROJECTIONS, ids=str)
def test_projection_keeps_the_named_fields(
    db: Database, fields: list[str], wanted: dict[str, Any]
) -> None:
    notes = db.collection("n")
    notes.put({"id": "a", "m": {"x": 1, "y": {"z": 2}}, "l": [{"b": 1}, {"b": 2}, 3], "n": None})
    (found,) = notes.find(fields=fields)
    assert found == wanted
    assert type(found) is Projection


def test_projection_pages_like_whole_documents(events: Collection) -> None:
    first = events.find(order_by="at", limit=15, fields=["id"])
    second = events.find(order_by="at", limit=15, fields=["id"], after=first.cursor)
    assert ids([*first, *second]) == ids(events.find(order_by="at"))


# -- the warning -----------------------------------------------------------------------------


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "FULL_SCAN_MAX", 10)
    monkeypatch.setattr(scan, "_warned", set[tuple[str, str]]())


@pytest.mark.usefixtures("watched")
def test_full_scan_warns_once_per_shape(db: Database) -> None:
    notes = db.collection("n")
    notes.put_many({"x": n} for n in range(20))
    with pytest.warns(FullScanWarning, match=r"\{x: \?\}.*declare"):
        notes.find({"x": 1})
    notes.find({"x": 2})
    with pytest.warns(FullScanWarning, match="order_by"):
        notes.find({"x": 1}, order_by="-x")
    with pytest.warns(FullScanWarning):
        notes.count({"y": 1})
    with pytest.warns(FullScanWarning):
        notes.delete_many({"y": 1, "x": 0})


@pytest.mark.usefixtures("watched")
def test_no_warning_where_an_index_would_not_help(db: Database) -> None:
    notes = db.collection("n", indexes=[Ordered("x")])
    notes.put_many({"id": f"{n:02d}", "x": n, "y": n} for n in range(20))
    assert len(notes.find()) == 20, "all were asked for"
    assert len(notes.find({"x": {"$gte": 0}})) == 20
    assert len(notes.find({"y": {"$gte": 0}, "x": {"$lt": 15}})) == 15, "it has an index"
    assert len(notes.find({"y": {"$gte": 0}}, limit=5)) == 5, "few were read"
    assert notes.count() == 20


def test_real_limit_of_the_warning() -> None:
    assert scan.FULL_SCAN_MAX == 10_000


def test_index_in_the_making_is_not_used(open_db: OpenDatabase) -> None:
    notes = open_db().collection("n")
    notes.put({"id": "a", "x": 1})
    db = open_db("other.amber")
    other = db.collection("n")
    other.put({"id": "a", "x": 1})
    db.collection("n", indexes=[Ordered("x")])
    assert other.explain({"x": 1})["index"] is None
    assert ids(other.find({"x": 1})) == ["a"]
    db.build_indexes()
    assert other.explain({"x": 1})["index"] == "ordered:x"
    assert ids(other.find({"x": 1})) == ["a"]
