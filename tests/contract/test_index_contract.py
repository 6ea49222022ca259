"""The kinds and shapes of indexes that the contract holds for."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from amberdb import Document, Ordered, Unique
from contract.index_contract import Case, IndexContract, Order, Where

MIXED: list[Any] = [
    3, 1, None, "b", 2.5, True, False, b"a", "a", -1, 1 << 60, float(1 << 60), (1 << 60) + 1,
    datetime(2026, 1, 1, tzinfo=UTC), {"k": 1}, "", float("inf"), 0,
]  # fmt: skip
"""Something of every class, and close neighbours."""

PREFIX = "prefix " * 80
"""Longer than a key may be: what differs comes after the cut."""


def xs(values: list[Any]) -> list[Document]:
    """Documents with these values of x; the last one is without."""
    return [*({"x": value, "n": n % 3} for n, value in enumerate(values)), {"n": 7}]


X_FILTERS: list[Where] = [
    {"x": 1},
    {"x": None},
    {"x": True},
    {"x": "b"},
    {"x": {"$gt": 1}},
    {"x": {"$gte": 1, "$lt": 3}},
    {"x": {"$lte": "a"}},
    {"x": {"$gt": b""}},
    {"x": {"$in": [1, "a", None, 2.5, True]}},
    {"x": {"$in": []}},
    {"x": {"$in": [3, 1 << 60]}},
    {"x": {"$ne": None}},
    {"x": {"$ne": 1}},
    {"x": {"$exists": False}},
    {"x": {"k": 1}},
    {"x": {"$gt": 0}, "n": 1},
    {"n": 1, "x": {"$ne": 2.5}},
    {"$or": [{"x": 1}, {"x": "a"}]},
]
X_ORDERS: list[Order] = ["x", "-x", ["n", "x"], ["x", "-n"]]


class TestOrdered(IndexContract):
    case = Case(
        index=Ordered("x"),
        documents=xs(MIXED),
        filters=X_FILTERS,
        orders=X_ORDERS,
        serves={"x": {"$gt": 1}},
    )


class TestDescending(IndexContract):
    case = replace(
        TestOrdered.case,
        index=Ordered("-x"),
    )


class TestSparse(IndexContract):
    case = replace(
        TestOrdered.case,
        index=Ordered("x", sparse=True),
    )


class TestSparseDescending(IndexContract):
    case = replace(
        TestOrdered.case,
        index=Ordered("-x", sparse=True),
    )


class TestCompound(IndexContract):
    case = replace(
        TestOrdered.case,
        index=Ordered("n", "x"),
        filters=[
            *X_FILTERS,
            {"n": {"$in": [0, 1, None]}},
            {"n": {"$in": [0, 7]}, "x": {"$in": [1, None, "b"]}},
            {"n": {"$gte": 1}},
            {"n": 1, "x": {"$gt": 0}},
            {"n": 1, "x": {"$lte": 2.5, "$gte": -1}},
        ],
        orders=[*X_ORDERS, ["-n", "-x"], ["n", "-x"], "n"],
        serves={"n": 1, "x": 1},
    )


class TestCompoundMixed(IndexContract):
    case = replace(
        TestCompound.case,
        index=Ordered("n", "-x"),
    )


class TestCompoundMixedOther(IndexContract):
    case = replace(
        TestCompound.case,
        index=Ordered("-n", "x"),
    )


class TestCompoundSparse(IndexContract):
    case = replace(
        TestCompound.case,
        index=Ordered("n", "x", sparse=True),
    )


class TestThreeFields(IndexContract):
    case = replace(
        TestCompound.case,
        index=Ordered("n", "x", "other"),
        orders=["x", ["n", "x", "other"], ["-n", "-x", "-other"]],
    )


class TestDotted(IndexContract):
    case = Case(
        index=Ordered("m.x"),
        documents=[*({"m": {"x": value}} for value in MIXED), {"m": 5}, {"m": {"y": 1}}, {}],
        filters=[{"m.x": where["x"]} for where in X_FILTERS if list(where) == ["x"]],
        orders=["m.x", "-m.x", ["m.x", "m.y"]],
        serves={"m.x": 1},
    )


LISTS: list[Any] = [
    [3, 1], [1], [], [None], [None, 2], [5, 1, 5], 1, None, 3, ["a", 2], [[1]], [{"k": 1}],
    [True, 0], [2, 4, 6, 8], "a", [b"a", "b"],
]  # fmt: skip
LIST_FILTERS: list[Where] = [
    *X_FILTERS,
    {"x": {"$gt": 4, "$lt": 2}},
    {"x": {"$gte": 1, "$lte": 1}},
    {"x": [3, 1]},
    {"x": []},
    {"x": [1]},
    {"x": [[1]]},
    {"x": {"$in": [[], [1], 5]}},
    {"x": {"$contains": 2}},
    {"x": {"$in": [1, 2, 3, 4, 5]}},
]


class TestList(IndexContract):
    case = Case(
        index=Ordered("x"),
        documents=xs(LISTS),
        filters=LIST_FILTERS,
        orders=X_ORDERS,
        serves={"x": 1},
    )


class TestListDescending(IndexContract):
    case = replace(
        TestList.case,
        index=Ordered("-x"),
    )


class TestListSparse(IndexContract):
    case = replace(
        TestList.case,
        index=Ordered("x", sparse=True),
    )


class TestListCompound(IndexContract):
    case = replace(
        TestList.case,
        index=Ordered("n", "x"),
        filters=[*LIST_FILTERS, {"n": 1}, {"n": {"$in": [0, 1]}, "x": {"$gt": 1}}],
        orders=[*X_ORDERS, ["-n", "-x"]],
        serves={"n": 1},
    )


class TestListFirst(IndexContract):
    case = replace(
        TestListCompound.case,
        index=Ordered("x", "n"),
        serves={"x": 1},
    )


class TestListOfMaps(IndexContract):
    case = Case(
        index=Ordered("l.b"),
        documents=[
            {"l": [{"b": 1}, {"b": 2}]},
            {"l": [{"b": [2, 3]}, {"c": 1}]},
            {"l": {"b": 2}},
            {"l": [{"c": 1}]},
            {"l": []},
            {"l": [{"b": []}]},
            {"l": 5},
            {},
        ],
        filters=[
            {"l.b": 2},
            {"l.b": None},
            {"l.b": {"$gt": 1}},
            {"l.b": {"$in": [1, 3]}},
            {"l.b": {"$exists": False}},
            {"l.b": [1, 2]},
        ],
        orders=["l.b", "-l.b"],
        serves={"l.b": 2},
    )


LONG: list[Any] = [
    PREFIX + "b",
    PREFIX + "a",
    PREFIX,
    PREFIX + "c" * 600,
    "prefix ",
    PREFIX[:490],
    PREFIX[:495],
    PREFIX[:496],
    PREFIX[:497],
    PREFIX[:498],
    PREFIX[:499],
    PREFIX[:500],
    PREFIX[:501],
    PREFIX[:502],
    PREFIX[:520],
    PREFIX + "a\0",
    PREFIX + "下午",
    PREFIX.encode() + b"x",
    PREFIX.encode() + b"\xff",
    "\0" * 300,
    5,
    PREFIX + "a",
]
LONG_FILTERS: list[Where] = [
    {"x": PREFIX + "a"},
    {"x": PREFIX},
    {"x": {"$gt": PREFIX}},
    {"x": {"$gte": PREFIX + "a", "$lt": PREFIX + "c"}},
    {"x": {"$lte": PREFIX + "b"}},
    {"x": {"$lt": PREFIX[:499]}},
    {"x": {"$gt": PREFIX[:498]}},
    {"x": {"$in": [PREFIX + "a", PREFIX + "b", PREFIX[:500], 5]}},
    {"x": {"$gte": "p"}},
    {"x": {"$gt": PREFIX.encode()}},
    {"x": "\0" * 300},
    {"x": PREFIX + "a", "n": 1},
]


class TestLong(IndexContract):
    case = Case(
        index=Ordered("x"),
        documents=xs(LONG),
        filters=LONG_FILTERS,
        orders=["x", "-x"],
        serves={"x": {"$gt": PREFIX}},
    )


class TestLongDescending(IndexContract):
    case = replace(
        TestLong.case,
        index=Ordered("-x"),
    )


class TestLongCompound(IndexContract):
    case = replace(
        TestLong.case,
        index=Ordered("x", "n"),
        orders=[["x", "n"], ["-x", "-n"], "x"],
    )


class TestLongCompoundMixed(IndexContract):
    case = replace(
        TestLong.case,
        index=Ordered("x", "-n"),
        orders=[["x", "-n"], ["-x", "n"]],
    )


class TestLongBehindAField(IndexContract):
    case = replace(
        TestLong.case,
        index=Ordered("n", "x"),
        orders=[["n", "x"], ["-n", "-x"]],
        filters=[
            *LONG_FILTERS,
            {"n": 1, "x": {"$gt": PREFIX}},
            {"n": {"$in": [0, 1]}, "x": {"$in": [PREFIX + "a", PREFIX + "b"]}},
        ],
        serves={"n": 1, "x": {"$gt": PREFIX}},
    )


class TestLongLists(IndexContract):
    case = replace(
        TestLong.case,
        documents=xs([LONG[at : at + 3] for at in range(len(LONG))]),
    )


class TestLongListsDescending(IndexContract):
    case = replace(
        TestLongLists.case,
        index=Ordered("-x"),
    )


DISTINCT: list[Document] = [
    {"x": value} for value in MIXED if type(value) is not dict and value != float(1 << 60)
] + [{"x": 1 << 60}]
PAIRS: list[Document] = [{"n": n, "x": x} for n in range(4) for x in (1, 2, "a", None)]
UNIQUE_FILTERS = [where for where in X_FILTERS if where != {"x": {"k": 1}}]


class TestUnique(IndexContract):
    case = Case(
        index=Unique("x"),
        documents=DISTINCT,
        changes=[{"x": [1000 + at]} for at in range(len(DISTINCT))],
        filters=[*UNIQUE_FILTERS, {"x": {"$gt": 1000}}, {"x": [1001]}],
        orders=["x", "-x"],
        serves={"x": 1},
    )


class TestUniqueSparse(IndexContract):
    case = Case(
        index=Unique("x", sparse=True),
        documents=[*DISTINCT, {"n": 1}, {"n": 2}, {"x": None}],
        changes=[*({"x": -1000 - at} for at in range(len(DISTINCT) + 1)), {}, {}],
        filters=UNIQUE_FILTERS,
        orders=["x", "-x"],
        serves={"x": 1},
    )


class TestUniqueCompound(IndexContract):
    case = Case(
        index=Unique("n", "-x"),
        documents=PAIRS,
        changes=[{"n": d["n"], "x": [d["x"], at + 100]} for at, d in enumerate(PAIRS)],
        filters=[{"n": 1}, {"n": 1, "x": 2}, {"n": {"$gt": 1}, "x": "a"}, {"x": None}],
        orders=[["n", "-x"], ["-n", "x"], "n"],
        serves={"n": 1, "x": 2},
    )


class TestUniqueLong(IndexContract):
    case = Case(
        index=Unique("x"),
        documents=[{"x": value} for value in dict.fromkeys(LONG)],
        changes=[{"x": [x, at]} for at, x in enumerate(dict.fromkeys(LONG), 1000)],
        filters=LONG_FILTERS,
        orders=["x", "-x"],
        serves={"x": PREFIX},
    )
