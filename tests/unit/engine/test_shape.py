"""What is kept of a query by its shape: it answers for other values, and for nothing else."""

from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from amberdb import Collection, Database, Ordered, QueryError, Vector
from amberdb.engine.options import Options
from amberdb.engine.query.filter import parse
from amberdb.engine.query.order import parse_order
from amberdb.engine.query.planner import plan_of
from amberdb.engine.query.prepared import STATEMENTS_MAX, prepared
from amberdb.engine.query.shape import EXACT_MAX, LISTED_MAX, shape_of
from amberdb.engine.schema.schema import Schema
from amberdb.engine.storage.view import View
from support import drawn
from support.databases import OpenDatabase
from support.inside import engine_of
from unit.engine.helpers import ids

VALUES: dict[str, Any] = {
    "none": None,
    "false": False,
    "true": True,
    "zero": 0,
    "one": 1,
    "half": 0.5,
    "text": "1",
    "bytes": b"1",
    "day": datetime(2024, 1, 1, tzinfo=UTC),
    "list": [1, 2],
    "map": {"a": 1},
}


@pytest.fixture
def notes(db: Database) -> Collection:
    notes = db.collection("n", indexes=[Ordered("x"), Ordered("x", "-z"), Ordered("y")])
    notes.put_many({"id": id, "x": value, "y": value} for id, value in VALUES.items())
    notes.put({"id": "missing"})
    return notes


EQUAL_TO_ONE = ["list", "one"]


def test_values_of_different_classes_have_plans_of_their_own(notes: Collection) -> None:
    """In turns, so that each meets what the one before has left."""
    for _ in range(2):
        assert sorted(ids(notes.find({"x": 1}))) == EQUAL_TO_ONE
        assert ids(notes.find({"x": True})) == ["true"]
        assert sorted(ids(notes.find({"x": 1.0}))) == EQUAL_TO_ONE
        assert ids(notes.find({"x": "1"})) == ["text"]
        assert ids(notes.find({"x": b"1"})) == ["bytes"]
        assert sorted(ids(notes.find({"x": None}))) == ["missing", "none"]
        assert ids(notes.find({"x": VALUES["day"]})) == ["day"]
        assert ids(notes.find({"x": {"a": 1}})) == ["map"]
        assert ids(notes.find({"x": [1, 2]})) == ["list"]
        assert sorted(ids(notes.find({"x": {"$gt": 0}}))) == ["half", "list", "one"]
        assert ids(notes.find({"x": {"$gt": ""}})) == ["text"]
        for prefix, wanted in (("", ["text"]), ("1", ["text"]), ("10", []), (b"1", ["bytes"])):
            assert ids(notes.find({"x": {"$prefix": prefix}})) == wanted
        assert ids(notes.find({"x": {"$gt": False}})) == ["true"]
        assert ids(notes.find({"x": {"$exists": False}})) == ["missing"]
        assert len(notes.find({"x": {"$exists": True}})) == len(VALUES)
        some_or_none = sorted(ids(notes.find({"x": {"$in": [1, None]}})))
        assert some_or_none == ["list", "missing", "none", "one"]
        assert sorted(ids(notes.find({"x": {"$in": [1, True]}}))) == [*EQUAL_TO_ONE, "true"]
        assert sorted(ids(notes.find({"x": {"$in": [1, 1.0]}}))) == EQUAL_TO_ONE
        assert notes.find({"x": {"$in": []}}) == []


def test_none_is_a_class_of_its_own(open_db: OpenDatabase) -> None:
    """An empty list has the entry of None, and is not equal to it; a sparse index lacks both."""
    notes = open_db().collection("n", indexes=[Ordered("x"), Ordered("s", sparse=True)])
    notes.put_many([{"id": "one", "x": 1, "s": 1}, {"id": "none", "x": None}, {"id": "missing"}])
    notes.put({"id": "empty", "x": []})
    for _ in range(2):
        assert ids(notes.find({"x": 1})) == ["one"]
        assert sorted(ids(notes.find({"x": None}))) == ["missing", "none"]
        assert ids(notes.find({"s": 1})) == ["one"]
        assert sorted(ids(notes.find({"s": None}))) == ["empty", "missing", "none"]
        assert ids(notes.find({"s": {"$in": [1, 2]}})) == ["one"]
        assert len(notes.find({"s": {"$in": [1, None]}})) == 4
        assert len(notes.find({"x": {"$in": [1, None]}})) == 3


def test_branches_and_their_values_are_read_each_time(notes: Collection) -> None:
    for value, wanted in ((1, EQUAL_TO_ONE), (0, ["zero"]), (True, ["true"])):
        where = {"x": {"$exists": True}, "$or": [{"y": value}, {"y": "no"}]}
        assert sorted(ids(notes.find(where))) == wanted
        assert ids(notes.find({"x": value, "$not": {"y": value}})) == []


def test_the_maps_of_an_and_are_one_conjunction(notes: Collection) -> None:
    for low, high, wanted in ((0, 1, ["half", "zero"]), (1, 3, EQUAL_TO_ONE), (5, 9, [])):
        where = {"$and": [{"x": {"$gte": low}}, {"x": {"$lt": high}, "$or": [{"y": {"$gte": 0}}]}]}
        assert sorted(ids(notes.find(where))) == wanted
        assert notes.explain(where)["range"]
        deeper = {"x": {"$gte": low}, "$and": [{"$and": [{"$not": {"y": {"$gte": high}}}]}]}
        assert set(wanted) - {"list"} <= set(ids(notes.find(deeper))) <= {*wanted, "half", "zero"}
        tighter = {"x": {"$gte": -1}, "$and": [{"x": {"$gte": low}}, {"x": {"$lt": high}}]}
        assert sorted(ids(notes.find(tighter))) == wanted


def test_what_is_negated_is_read_each_time(notes: Collection) -> None:
    for value in (1, "1", None, True):
        kept = {id for id in ("one", "text", "none", "true") if VALUES[id] is not value}
        found = ids(notes.find({"x": {"$not": {"$eq": value}, "$nin": [0.25]}}))
        assert kept <= {*found}
        assert len(found) < len(VALUES) + 1
    assert ids(notes.find({"x": {"$gte": 0, "$not": {"$gt": 0.25}}})) == ["zero"]
    assert sorted(ids(notes.find({"x": {"$gte": 0, "$not": {"$gt": 0.75}}}))) == ["half", "zero"]


def test_many_values_of_in_have_few_shapes(db: Database) -> None:
    notes = db.collection("n", indexes=[Ordered("x"), Ordered("y", "x")])
    notes.put_many({"id": f"{n:04d}", "x": n, "y": n % 2} for n in range(1_200))
    prepared.cache_clear()
    for size in (1, 63, 64, 65, 66, 127, 128, 129, 1_000, LISTED_MAX, LISTED_MAX + 1):
        values = list(range(size))
        wanted = [f"{n:04d}" for n in values]
        assert ids(notes.find({"x": {"$in": values}}, order_by="x")) == wanted
        assert ids(notes.find({"y": 0, "x": {"$in": values * 2}}, order_by="x")) == wanted[::2]
        assert ids(notes.find({"x": {"$in": [None, True, "z", *values]}})) == wanted
        assert notes.count({"x": {"$nin": values}}) == 1_200 - size
        assert ids(notes.find({"id": {"$in": wanted}, "y": 1})) == wanted[1::2]
    assert ids(notes.find({"x": {"$in": [7] * 100}, "y": {"$in": [1] * 70}})) == ["0007"]
    before = prepared.cache_info().currsize
    for size in range(EXACT_MAX + 1, LISTED_MAX + 1, 5):
        assert notes.count({"x": {"$in": list(range(-size, 0))}}) == 0
    assert prepared.cache_info().currsize - before <= 40


INVALID: list[Any] = [
    {"x": {"$gt": None}},
    {"x": {"$gt": float("nan")}},
    {"x": float("nan")},
    {"x": 1 << 64},
    {"x": "\ud800"},
    {"x": {"$exists": 1}},
    {"x": {"$prefix": 1}},
    {"x": {"$prefix": None}},
    {"x": {"$in": 1}},
    {"x": {"$in": [float("nan")]}},
    {"x": {"$near": 1}},
    {"x": {"$gt": 1, "y": 2}},
    {"x..y": 1},
    {"": 1},
    {1: 1},
    {"x": datetime(2024, 1, 1)},
    {"$or": []},
    {"$or": 5},
    {"x": 1, "$or": [{"y": {"$near": 1}}]},
    {"$nor": []},
    {"$gt": 1},
    {"$and": []},
    {"$and": {"x": 1}},
    {"$and": [{"x": 1}, 5]},
    {"$and": [{"x": float("nan")}]},
    {"$and": [{"x": 1}, {"$and": [{"y": {"$near": 1}}]}]},
    {"$and": [{"x": 1}, {"$or": [{"y": {"$near": 1}}]}]},
    {"x": {"$and": 1}},
    {"x": {"$and": [{"$gt": 1}]}},
    {"x": {"$not": 1}},
    {"x": {"$not": {}}},
    {"x": {"$not": {"y": 1}}},
    {"x": {"$not": {"$near": 1}}},
    {"x": {"$in": [*range(100), float("nan")]}},
    {"x": {"$nin": [*range(100), "\ud800"]}},
]


@pytest.mark.parametrize("where", INVALID, ids=repr)
def test_a_filter_that_is_invalid_is_refused_each_time(notes: Collection, where: Any) -> None:
    for valid in (
        {"x": 1},
        {"x": {"$gt": 1}},
        {"x": {"$in": [1]}},
        {"x": {"$exists": True}},
        {"x": {"$prefix": "1"}},
    ):
        notes.find(valid)
    for ask in (notes.find, notes.count, notes.explain, notes.delete_many):
        for _ in range(2):
            with pytest.raises(QueryError):
                ask(where)


def test_vectors_are_refused_each_time(open_db: OpenDatabase) -> None:
    notes = open_db().collection("n", indexes=[Vector("v", dim=2), Ordered("x")])
    notes.put({"id": "a", "v": [1.0, 0.0], "x": 1})
    for _ in range(2):
        assert ids(notes.find({"v": {"$exists": True}})) == ["a"]
        assert ids(notes.find({"x": 1, "$or": [{"v": {"$exists": True}}]})) == ["a"]
        for where in (
            {"v": 1.0},
            {"v": {"$gt": 1.0}},
            {"v": {"$not": {"$gt": 1.0}}},
            {"x": 1, "$or": [{"v": 1.0}]},
            {"x": 1, "$and": [{"v": 1.0}]},
            {"$and": [{"x": 1, "$or": [{"v": 1.0}]}]},
        ):
            with pytest.raises(QueryError, match="vectors"):
                notes.find(where)
        with pytest.raises(QueryError, match="vectors"):
            notes.find({"x": 1}, order_by="v")


def test_another_declaration_has_plans_of_its_own(open_db: OpenDatabase) -> None:
    db = open_db(background=False)
    notes = db.collection("n")
    notes.put_many({"id": f"{n}", "x": n % 3} for n in range(6))
    where = {"x": 1}
    assert notes.explain(where)["index"] is None
    with db.snapshot() as before:
        db.collection("n", indexes=[Ordered("x")])
        assert notes.explain(where)["index"] is None, "it is not built"
        db.build_indexes()
        assert notes.explain(where)["index"] == "ordered:x"
        assert before["n"].explain(where)["index"] is None
        assert sorted(ids(before["n"].find(where))) == ["1", "4"]
        notes.put({"id": "list", "x": [1, 1, 2]})
        assert sorted(ids(notes.find(where))) == ["1", "4", "list"]
        assert sorted(ids(notes.find({"x": {"$gte": 1}}))) == ["1", "2", "4", "5", "list"]
        db.collection("n", indexes=[])
        assert notes.explain(where)["index"] is None
        assert sorted(ids(notes.find(where))) == ["1", "4", "list"]
        assert sorted(ids(before["n"].find(where))) == ["1", "4"]
    db.drop_collection("n")
    again = db.collection("n", indexes=[Ordered("x")])
    again.put({"id": "new", "x": 1})
    other = db.collection("other", indexes=[Ordered("x")])
    assert ids(again.find(where)) == ["new"]
    assert other.find(where) == []


def test_transactions_see_a_list_that_they_have_put(notes: Collection, db: Database) -> None:
    plain = db.collection("plain", indexes=[Ordered("x")])
    plain.put_many({"id": f"{n}", "x": n} for n in range(5))
    where = {"x": {"$gte": 1, "$lt": 3}}
    assert ids(plain.find(where, order_by="x")) == ["1", "2"]
    with db.transaction() as tx:
        tx["plain"].put({"id": "list", "x": [2, 1, 9]})
        assert ids(tx["plain"].find(where, order_by="x")) == ["1", "list", "2"]
        assert ids(plain.find(where, order_by="x")) == ["1", "2"]
    assert ids(plain.find(where, order_by="x")) == ["1", "list", "2"]


def test_shapes_that_are_kept_are_limited(notes: Collection) -> None:
    for n in range(STATEMENTS_MAX + 50):
        notes.count({f"field{n}": 1})
    kept = prepared.cache_info().currsize
    assert kept == STATEMENTS_MAX
    assert sorted(ids(notes.find({"x": 1}))) == EQUAL_TO_ONE


def test_values_are_not_kept(notes: Collection) -> None:
    """Two filters of one shape share what is kept."""
    prepared.cache_clear()
    for n in range(100):
        notes.find({"x": n, "y": {"$gte": f"{n}"}}, order_by="-y", limit=3)
    assert prepared.cache_info().currsize == 1


# -- against the parser --------------------------------------------------------------------------


@pytest.mark.sliced
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=drawn.conditions, order=drawn.orders())
def test_a_plan_by_shape_is_that_of_the_parsed_filter(
    schema_source: tuple[Schema, View], where: dict[str, Any], order: Any
) -> None:
    schema, view = schema_source
    shaped = shape_of(where)
    parsed = parse(where)
    if shaped is None:
        return
    known = prepared(schema, shaped.shape, parse_order(order))
    if known is None:
        return
    assert shaped.is_nested or known.filter_shape == parsed.shape
    for path in known.statement.paths(view):
        plan, wanted = known.plan(path, shaped), plan_of(path, parsed)
        assert plan.ranges == wanted.ranges
        assert plan.residual.shape == wanted.residual.shape
    assert sum(shaped.sizes_bytes) < Options().query_bytes_max


@pytest.mark.sliced
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=drawn.filters(), order=drawn.orders())
def test_a_plan_of_a_nested_filter_is_that_of_the_parsed_one(
    schema_source: tuple[Schema, View], where: dict[str, Any], order: Any
) -> None:
    """The branches of a residual filter come last, whatever their place."""
    schema, view = schema_source
    shaped = shape_of(where)
    known = None if shaped is None else prepared(schema, shaped.shape, parse_order(order))
    if shaped is None or known is None:
        return
    parsed = parse(where)
    for path in known.statement.paths(view):
        plan, wanted = known.plan(path, shaped), plan_of(path, parsed)
        assert plan.ranges == wanted.ranges
        shapes = [sorted(part.shape for part in each.residual.parts) for each in (plan, wanted)]
        assert shapes[0] == shapes[1]


def test_the_bounds_of_a_prefix_are_kept(schema_source: tuple[Schema, View]) -> None:
    """Those of the parser, for each field that has an index, and for the id."""
    schema, view = schema_source
    for path in ("s", "m.x", "tags", "id"):
        for prefix in ("", "a", "\0", "\U0010ffff", "a" * 600, b"", b"\xff\xff", b"a"):
            where = {path: {"$prefix": prefix}}
            shaped = shape_of(where)
            assert shaped is not None
            known = prepared(schema, shaped.shape, ())
            assert known is not None
            for each in known.statement.paths(view):
                assert each.used == {path}
                plan, wanted = known.plan(each, shaped), plan_of(each, parse(where))
                assert plan.ranges == wanted.ranges
                assert plan.residual.shape == wanted.residual.shape == "{}"


@pytest.fixture
def schema_source(db: Database) -> Generator[tuple[Schema, View]]:
    db.collection("n", indexes=[*drawn.SPECS])
    with engine_of(db).readable.view() as view:
        yield view.catalog.schema("n"), view
