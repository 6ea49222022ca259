"""The filter language: each line of docs/queries.md, and a naive evaluator over random filters."""

# What a document holds has no static type, so its lists and maps are unknown to pyright.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false

import enum
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from amberdb._errors import InvalidDocumentError, QueryError
from amberdb.engine.query.condition import Condition, FieldBounds
from amberdb.engine.query.filter import parse
from amberdb.engine.query.operators import IN_MAX
from amberdb.engine.query.order import OrderField, parse_order, sorter
from amberdb.index.ordered.key_encoder import KeyEncoder
from amberdb.index.ordered.keys import encode
from amberdb.index.ordered.ordered import Ordered
from support import slices

DEPTH_MAX = 32

MANY = settings(max_examples=slices.examples(4, 1))
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


class _Absent(enum.Enum):
    ABSENT = "ABSENT"  # a repr that is the same in every process: it names a test


ABSENT = _Absent.ABSENT

# -- the language, line by line ----------------------------------------------------------------

MATCHES: list[tuple[Any, Any, bool]] = [
    # filter, value of x (ABSENT = no such field), whether it matches
    ({}, ABSENT, True),
    # equality
    ({"x": 1}, 1, True),
    ({"x": 1}, 1.0, True),
    ({"x": 1.5}, 1, False),
    ({"x": 2**53 + 1}, float(2**53), False),
    ({"x": 1}, True, False),
    ({"x": True}, 1, False),
    ({"x": True}, True, True),
    ({"x": False}, None, False),
    ({"x": "a"}, "a", True),
    ({"x": "a"}, b"a", False),
    ({"x": b"a"}, b"a", True),
    ({"x": 0.0}, -0.0, True),
    ({"x": NOON}, NOON, True),
    ({"x": NOON.astimezone(timezone(timedelta(hours=8)))}, NOON, True),
    ({"x": {"$eq": 1}}, 1, True),
    # None and missing
    ({"x": None}, ABSENT, True),
    ({"x": None}, None, True),
    ({"x": None}, 0, False),
    ({"x": None}, [], False),
    ({"x": None}, [None, 1], True),
    ({"x": {"$exists": True}}, None, True),
    ({"x": {"$exists": True}}, ABSENT, False),
    ({"x": {"$exists": False}}, None, False),
    ({"x": {"$exists": False}}, ABSENT, True),
    # maps
    ({"x": {"a": 1, "b": 2}}, {"b": 2.0, "a": 1}, True),
    ({"x": {"a": 1}}, {"a": True}, False),
    ({"x": {"a": 1}}, {"a": 1, "b": 2}, False),
    ({"x": {"a": {"b": [1, {}]}}}, {"a": {"b": [1.0, {}]}}, True),
    ({"x": {"a": {"b": [1]}}}, {"a": {"b": [True]}}, False),
    ({"x": {}}, {}, True),
    ({"x": {}}, ABSENT, False),
    ({"x": {"a": 1}}, [{"a": 1}], True),
    ({"x": {"a": None}}, {}, False),
    ({"x": {"$eq": {"$ref": 1}}}, {"$ref": 1}, True),
    # lists
    ({"x": 2}, [1, 2.0], True),
    ({"x": 1}, [True], False),
    ({"x": True}, [1, True], True),
    ({"x": "a"}, ["b", "a"], True),
    ({"x": 2}, [[2]], False),
    ({"x": [1, 2]}, [1, 2], True),
    ({"x": (1, 2)}, [1, 2], True),
    ({"x": [1, 2]}, [2, 1], False),
    ({"x": [1, 2]}, [[1, 2], 3], True),
    ({"x": [1]}, 1, False),
    ({"x": []}, [], True),
    ({"x": []}, ABSENT, False),
    # ranges, within one class
    ({"x": {"$gt": 3}}, 3, False),
    ({"x": {"$gt": 3}}, 3.5, True),
    ({"x": {"$gte": 3}}, 3.0, True),
    ({"x": {"$lt": 3}}, 3, False),
    ({"x": {"$lte": 3}}, 3, True),
    ({"x": {"$gt": 3}}, "4", False),
    ({"x": {"$gte": 0}}, True, False),
    ({"x": {"$lt": 3}}, None, False),
    ({"x": {"$lt": 3}}, ABSENT, False),
    ({"x": {"$gt": 2**53}}, 2**53 + 1, True),
    ({"x": {"$gt": -math.inf}}, 0, True),
    ({"x": {"$gt": "\uffff"}}, "\U0001f600", True),
    ({"x": {"$gt": False}}, True, True),
    ({"x": {"$lt": b"b"}}, b"a", True),
    ({"x": {"$gte": NOON, "$lt": NOON + timedelta(1)}}, NOON, True),
    ({"x": {"$lt": datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))}}, NOON, True),
    ({"x": {"$gt": 3}}, [1, "z", 4], True),
    ({"x": {"$gt": 3}}, [], False),
    ({"x": {"$gt": 3, "$lt": 2}}, [1, 4], True),  # by different elements
    ({"x": {"$gt": 3, "$lt": 2}}, 4, False),
    # $in and negations
    ({"x": {"$in": [1, "a"]}}, 1.0, True),
    ({"x": {"$in": (1, 2)}}, True, False),
    ({"x": {"$in": {True}}}, 1, False),
    ({"x": {"$in": [True]}}, True, True),
    ({"x": {"$in": [None]}}, ABSENT, True),
    ({"x": {"$in": [1]}}, ABSENT, False),
    ({"x": {"$in": []}}, ABSENT, False),
    ({"x": {"$in": [2]}}, [1, 2], True),
    ({"x": {"$in": [[1, 2]]}}, [1, 2], True),
    ({"x": {"$in": [[1, 2]]}}, [[1, 2]], True),
    ({"x": {"$in": [{"a": 1}]}}, {"a": 1}, True),
    ({"x": {"$in": [{"a": 1}]}}, {"a": 2}, False),
    ({"x": {"$ne": 1}}, 1, False),
    ({"x": {"$ne": 1}}, ABSENT, True),
    ({"x": {"$ne": 1}}, [1, 2], False),
    ({"x": {"$ne": None}}, ABSENT, False),
    ({"x": {"$ne": None}}, [], True),
    ({"x": {"$nin": [1]}}, ABSENT, True),
    ({"x": {"$nin": [1, None]}}, ABSENT, False),
    ({"x": {"$nin": [1]}}, [1, 2], False),
    ({"x": {"$not": {"$gt": 3}}}, ABSENT, True),
    ({"x": {"$not": {"$gt": 3}}}, "a", True),
    ({"x": {"$not": {"$gt": 3}}}, 4, False),
    ({"x": {"$not": {"$gt": 3, "$lt": 5}}}, 6, True),
    ({"x": {"$not": {"$not": {"$eq": 4}}}}, 4, True),
    ({"x": {"$not": {"$exists": True}}}, None, False),
    ({"x": {"$not": {"$exists": True}}}, ABSENT, True),
    # $contains
    ({"x": {"$contains": "ell"}}, "hello", True),
    ({"x": {"$contains": ""}}, "hello", True),
    ({"x": {"$contains": "ell"}}, ["hello"], False),
    ({"x": {"$contains": "hello"}}, ["hello"], True),
    ({"x": {"$contains": 1}}, [1.0], True),
    ({"x": {"$contains": 1}}, [True], False),
    ({"x": {"$contains": 1}}, 1, False),
    ({"x": {"$contains": None}}, [None], True),
    ({"x": {"$contains": None}}, ABSENT, False),
    ({"x": {"$contains": "a"}}, {"a": 1}, False),
    ({"x": {"$contains": "a"}}, b"a", False),
    ({"x": {"$contains": "\u5348"}}, "\u4e0b\u5348", True),
    # joining
    ({"$and": [{"x": {"$gt": 1}}, {"x": {"$lt": 3}}]}, 2, True),
    ({"$and": [{"x": {"$gt": 1}}, {"x": {"$lt": 3}}]}, 3, False),
    ({"$or": [{"x": 1}, {"x": 2}]}, 2, True),
    ({"$or": [{"x": 1}, {"x": 2}]}, 3, False),
    ({"$or": [{}]}, 3, True),
    ({"$not": {"x": 1}}, 1, False),
    ({"$not": {"x": 1}}, ABSENT, True),
    ({"$not": {}}, 1, False),
    ({"x": 1, "y": 1}, 1, False),
    ({"x": 1, "y": None, "z": None}, 1, True),
    ({"x": 2, "y": None, "z": None}, 1, False),
    # dotted paths
    ({"x.a": 1}, {"a": 1}, True),
    ({"x.a": 1}, {"a": [1]}, True),
    ({"x.a": 1}, [{"a": 2}, {"a": 1}], True),
    ({"x.a": [2, 1]}, [{"a": 2}, {"a": 1}], True),
    ({"x.a": None}, 1, True),
    ({"x.a": None}, [{"a": 1}, {}], False),
    ({"x.a": {"$exists": False}}, {"b": 1}, True),
    ({"x.a": {"$exists": True}}, {"a": None}, True),
    ({"x.a": {"$not": {"$exists": True}}}, {"a": None}, False),
    ({"x.0": 1}, [1], False),
    ({"x.0": 1}, {"0": 1}, True),
]


@pytest.mark.parametrize(("where", "value", "expected"), MATCHES, ids=repr)
def test_line_of_the_language(where: Any, value: Any, expected: bool) -> None:
    document = {} if value is ABSENT else {"x": value}
    assert parse(where).matches(document) is expected
    assert parse({"$not": where}).matches(document) is not expected
    assert reference(where, document) is expected  # so that the reference is right as well


def test_x_with_a_dot_in_it_is_out_of_reach() -> None:
    assert not parse({"a.b": 1}).matches({"a.b": 1})


ERRORS: list[tuple[Any, str]] = [
    ([], "a filter is a map"),
    ("x", "a filter is a map"),
    ({1: 2}, "named by a str"),
    ({"": 2}, "empty name"),
    ({"a..b": 2}, "empty segment"),
    ({"\ud800": 2}, "surrogate"),
    ({"$nor": []}, r"\$nor is not an operator"),
    ({"$gt": 3}, r"\$gt needs a field"),
    ({"x": {"$regex": "a"}}, r"x: \$regex is not an operator; the operators are \$eq"),
    ({"x": {"$and": [1]}}, r"x: \$and combines filters"),
    ({"x": {"$gt": 1, "y": 2}}, "operators and plain keys"),
    ({"x": {"$not": {"$gt": 1, "y": 2}}}, "operators and plain keys"),
    ({"x": {"y": {"$gt": 1}}}, r"x: \$gt inside a map"),
    ({"x": [{"$gt": 1}]}, r"x: \$gt inside a map"),
    ({"$and": []}, r"\$and takes a list of at least one"),
    ({"$or": {}}, r"\$or takes a list"),
    ({"$or": [1]}, "a filter is a map"),
    ({"$not": [{}]}, "a filter is a map"),
    ({"$not": None}, "a filter is a map"),
    ({"x": {"$not": 3}}, r"x: \$not takes a map of operators"),
    ({"x": {"$not": {}}}, r"x: \$not takes a map of operators"),
    ({"x": {"$not": {"a": 1}}}, r"x: \$not takes a map of operators"),
    ({"x": {"$in": "abc"}}, r"x: \$in takes a list"),
    ({"x": {"$nin": 1}}, r"x: \$nin takes a list"),
    ({"x": {"$in": [0] * (IN_MAX + 1)}}, r"at most 10,000 values, not 10,001"),
    ({"x": {"$exists": 1}}, r"x: \$exists takes True or False"),
    ({"x": {"$contains": ["a"]}}, r"x: \$contains takes one value"),
    ({"x": {"$contains": {"a": 1}}}, r"x: \$contains takes one value"),
    ({"x": math.nan}, r"x: \$eq cannot take NaN"),
    ({"x": {"$in": [1, math.nan]}}, r"x: \$in cannot take NaN"),
    ({"x": {"y": [math.nan]}}, r"x: \$eq cannot take NaN"),
    ({"x": {"$gt": math.nan}}, r"x: \$gt cannot take NaN"),
    ({"x": datetime(2024, 1, 1)}, "without a time zone"),
    ({"x": 2**63}, "beyond 64 bits"),
    ({"x": "\ud800"}, "surrogate"),
    ({"x": range(3)}, "cannot take a value of type builtins.range: use None"),
    ({"x": {"$eq": {1: 2}}}, "not a str"),
    *(({"x": {op: bad}}, f"\\{op} compares bool, number, str, bytes or datetime")
      for op in ("$gt", "$gte", "$lt", "$lte") for bad in (None, [1], (1,), {"a": 1})),
]  # fmt: skip


@pytest.mark.parametrize(("where", "message"), ERRORS, ids=lambda each: repr(each)[:60])
def test_errors_name_the_part(where: Any, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        parse(where)


def nest(levels: int, wrap: Any, inner: Any) -> Any:
    for _ in range(levels):
        inner = wrap(inner)
    return inner


WRAPS: list[Any] = [
    lambda inner: {"$and": [inner]},
    lambda inner: {"$or": [inner]},
    lambda inner: {"$not": inner},
]


@pytest.mark.parametrize("wrap", WRAPS)
def test_depth_of_filters(wrap: Any) -> None:
    assert parse(nest(DEPTH_MAX, wrap, {"x": 1})).matches({"x": 1})
    with pytest.raises(QueryError, match="32 levels"):
        parse(nest(DEPTH_MAX + 1, wrap, {"x": 1}))


def test_depth_of_operands() -> None:
    deep = nest(DEPTH_MAX, lambda inner: [inner], 1)
    assert parse({"x": deep}).matches({"x": deep})
    for where in (
        {"x": [deep]},
        {"x": {"$eq": [deep]}},
        {"x": {"a": deep}},
        {"x": nest(DEPTH_MAX + 1, lambda inner: {"$not": inner}, {"$eq": 1})},
    ):
        with pytest.raises(QueryError, match="32 levels"):
            parse(where)
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(QueryError, match="32 levels"):
        parse({"x": endless})


def test_subclasses_and_later_changes_do_not_matter() -> None:
    class Word(enum.StrEnum):
        A = "a"

    class Number(enum.IntEnum):
        ONE = 1

    class Ratio(float):
        pass

    where: dict[str, Any] = {"x": {"$in": [Word.A, Number.ONE, Ratio(0.5), bytearray(b"b")]}}
    found = parse(where)
    where["x"]["$in"].clear()
    for value in ("a", 1, 0.5, b"b"):
        assert found.matches({"x": value})
    equals = found.fields["x"].equals
    assert equals is not None
    assert equals == ["a", 1, 0.5, b"b"]
    assert [type(value) for value in equals] == [str, int, float, bytes]
    nested: dict[str, Any] = {"a": [1]}
    found = parse({"x": nested})
    nested["a"].append(2)
    assert found.matches({"x": {"a": [1]}})


# -- a naive evaluator, written without looking at the other one -------------------------------


def rank(value: Any) -> int:
    if value is None or value is ABSENT:
        return 0
    kinds: list[Any] = [bool, (int, float), str, bytes, datetime, list, dict]
    return 1 + next(at for at, kind in enumerate(kinds) if isinstance(value, kind))


def equal(left: Any, right: Any) -> bool:
    if rank(left) != rank(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(
            equal(a, b) for a, b in zip(left, right, strict=True)
        )
    if isinstance(left, dict):
        return set(left) == set(right) and all(equal(left[name], right[name]) for name in left)
    return rank(left) == 0 or bool(left == right)


def lookup(value: Any, segments: list[str]) -> Any:
    if not segments:
        return value
    if isinstance(value, dict):
        found = cast(dict[str, Any], value)
        return lookup(found[segments[0]], segments[1:]) if segments[0] in found else ABSENT
    if isinstance(value, list):
        leaves = [lookup(each, segments) for each in value if isinstance(each, dict)]
        leaves = [leaf for leaf in leaves if leaf is not ABSENT]
        if not leaves:
            return ABSENT
        flat: list[Any] = []
        for leaf in leaves:
            flat += leaf if isinstance(leaf, list) else [leaf]
        return flat
    return ABSENT


def listed(operand: Any) -> Any:
    return list(cast(Any, operand)) if isinstance(operand, (tuple, set)) else operand


def holds(name: str, operand: Any, value: Any) -> bool:
    operand = listed(operand)
    elements: list[Any] = value if isinstance(value, list) else [value]
    if name == "$eq":
        return any(equal(operand, each) for each in elements) or equal(operand, value)
    if name == "$ne":
        return not holds("$eq", operand, value)
    if name == "$in":
        return any(holds("$eq", each, value) for each in operand)
    if name == "$nin":
        return not holds("$in", operand, value)
    if name == "$exists":
        return bool((value is not ABSENT) == operand)
    if name == "$contains":
        if isinstance(value, list):
            return any(equal(operand, each) for each in elements)
        return isinstance(value, str) and isinstance(operand, str) and operand in value
    if name == "$not":
        return not all(holds(inner, each, value) for inner, each in operand.items())
    same = [each for each in elements if rank(each) == rank(operand)]
    if name == "$prefix":
        return any(each[: len(operand)] == operand for each in same)
    if name == "$gt":
        return any(each > operand for each in same)
    if name == "$gte":
        return any(each >= operand for each in same)
    if name == "$lt":
        return any(each < operand for each in same)
    assert name == "$lte"
    return any(bool(each <= operand) for each in same)


def reference(where: Any, document: dict[str, Any]) -> bool:
    for name, operand in where.items():
        if name == "$and":
            good = all(reference(each, document) for each in operand)
        elif name == "$or":
            good = any(reference(each, document) for each in operand)
        elif name == "$not":
            good = not reference(operand, document)
        else:
            value = lookup(document, name.split("."))
            if isinstance(operand, dict) and any(key.startswith("$") for key in operand):
                good = all(holds(each, operand[each], value) for each in operand)
            else:
                good = holds("$eq", operand, value)
        if not good:
            return False
    return True


# Few and near, so that filters meet documents; over all classes, with the pairs that tempt.
SCALARS: list[Any] = [
    None, False, True, -1, 0, 1, 1.0, 1.5, 2, 2**53, 2**53 + 1, float(2**53), math.inf, -math.inf,
    "", "a", "ab", "b", "\0", "\uffff", "\U0001f600", b"", b"a", b"b",
    NOON, NOON + timedelta(microseconds=1), NOON - timedelta(days=9),
]  # fmt: skip
scalars: st.SearchStrategy[Any] = st.sampled_from(SCALARS)
comparable: st.SearchStrategy[Any] = st.sampled_from(SCALARS[1:])
flat_lists: st.SearchStrategy[Any] = st.lists(scalars, max_size=3)
small_maps: st.SearchStrategy[Any] = st.dictionaries(
    st.sampled_from(["a", "b"]), scalars | flat_lists, max_size=2
)
values: st.SearchStrategy[Any] = st.one_of(
    scalars,
    scalars,
    flat_lists,
    small_maps,
    st.lists(scalars | flat_lists | small_maps, max_size=3),
)
PATHS = ["x", "y", "x.a", "x.a.b", "y.b"]
documents: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {}, optional={"x": values, "y": values, "z": scalars}
)
OPERATORS = [
    "$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$prefix", "$exists", "$contains",
]  # fmt: skip
operators: st.SearchStrategy[Any] = st.deferred(
    lambda: (
        st.dictionaries(
            st.sampled_from(OPERATORS),
            st.none(),
            min_size=1,
            max_size=3,
        ).flatmap(lambda names: st.fixed_dictionaries({name: operand(name) for name in names}))
        | operators.map(lambda inner: {"$not": inner})
    )
)


def operand(name: str) -> st.SearchStrategy[Any]:
    if name in ("$in", "$nin"):
        return st.lists(values, max_size=4)
    if name == "$exists":
        return st.booleans()
    if name == "$contains":
        return scalars
    if name == "$prefix":
        return st.sampled_from(["", "a", "ab", "\0", b"", b"a"])
    return values if name in ("$eq", "$ne") else comparable


conjunctions: st.SearchStrategy[Any] = st.dictionaries(
    st.sampled_from(PATHS), operators | values, max_size=3
)
filters: st.SearchStrategy[Any] = st.recursive(
    conjunctions,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"$and": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$or": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$not": inner}),
        st.builds(dict[str, Any].__or__, conjunctions, inner),
    ),
    max_leaves=5,
)


@pytest.mark.sliced
@MANY
@given(filters, documents)
def test_matches_as_the_naive_evaluator(where: Any, document: dict[str, Any]) -> None:
    assert parse(where).matches(document) is reference(where, document)


# -- bounds ------------------------------------------------------------------------------------


def within(key: bytes, bounds: FieldBounds, side: str = "both") -> bool:
    """Whether an index key is where the bounds say."""
    if bounds.equals is not None:
        return key in [encode(value) for value in bounds.equals]
    low, high = bounds.low, bounds.high
    is_above = low is None or (
        key[0] == low[0] and (key > low or (key == low and bounds.low_inclusive))
    )
    is_below = high is None or (
        key[0] == high[0] and (key < high or (key == high and bounds.high_inclusive))
    )
    return (is_above or side == "high") and (is_below or side == "low")


@pytest.mark.sliced
@MANY
@given(filters, documents)
def test_bounds_hold_for_every_match(where: Any, document: dict[str, Any]) -> None:
    found = parse(where)
    assume(found.fields)
    matches = found.matches(document)
    for path, bounds in found.fields.items():
        encoder = KeyEncoder(Ordered(path))
        keys = encoder.keys(document)
        if matches:
            for side in ("low", "high"):
                assert any(within(key, bounds, side) for key in keys)
            if not encoder.is_multi(document):
                assert within(keys[0], bounds)
            if bounds.excludes_none:
                assert KeyEncoder(Ordered(path, sparse=True)).keys(document)
        if bounds.exact and not encoder.is_multi(document):
            covered = all(each.matches(document) for each in bounds.covered)
            assert covered is within(keys[0], bounds)


@pytest.mark.sliced
@MANY
@given(filters, documents, st.sets(st.sampled_from(PATHS)))
def test_the_residual_and_the_bounds_are_the_filter(
    where: Any, document: dict[str, Any], paths: set[str]
) -> None:
    found = parse(where)
    encoders = {path: KeyEncoder(Ordered(path)) for path in paths if path in found.fields}
    assume(not any(encoder.is_multi(document) for encoder in encoders.values()))
    inside = all(
        within(encoder.keys(document)[0], found.fields[path]) for path, encoder in encoders.items()
    )
    assert (inside and found.without(paths).matches(document)) is found.matches(document)


def bounds_of(where: Any) -> FieldBounds:
    return parse({"x": where}).fields["x"]


def test_bounds_of_equality() -> None:
    assert bounds_of(1).equals == [1]
    assert bounds_of(1).exact
    assert bounds_of(1).excludes_none
    assert bounds_of(None).equals == [None]
    assert bounds_of(None).exact
    assert not bounds_of(None).excludes_none
    assert bounds_of({"$in": [1, 1.0, True, "a"]}).equals == [1.0, True, "a"]
    assert bounds_of({"$in": []}).equals == []
    assert bounds_of({"a": 1}).equals == [{"a": 1}]
    assert not bounds_of({"a": 1}).exact
    assert bounds_of([1, 2]).equals == [1, []]
    assert bounds_of([]).equals == [None, []]
    assert bounds_of([[1]]).equals == [[1]]
    assert bounds_of({"$contains": 1}).equals == [1]
    assert not bounds_of({"$contains": 1}).exact
    assert bounds_of({"$contains": "a"}).equals is None
    assert bounds_of({"$contains": "a"}).excludes_none
    assert bounds_of({"$exists": False}).equals == [None]
    assert not bounds_of({"$exists": False}).exact


def test_the_fewest_candidates_win() -> None:
    bounds = bounds_of({"$in": [1, 2, 3], "$eq": 2, "$gt": 0})
    assert bounds.equals == [2]
    assert bounds.low is None
    assert [each.operator for each in bounds.covered] == ["$eq"]


def test_bounds_of_ranges() -> None:
    bounds = bounds_of({"$gt": 1, "$gte": 1, "$lt": 9, "$lte": 9.0})
    assert (bounds.low, bounds.low_inclusive) == (encode(1), False)
    assert (bounds.high, bounds.high_inclusive) == (encode(9), False)
    assert bounds.is_split
    assert bounds.exact
    assert bounds.excludes_none
    assert len(bounds.covered) == 4
    bounds = bounds_of({"$gte": 1, "$gt": 1, "$lte": 9, "$lt": 9})  # the order does not matter
    assert (bounds.low_inclusive, bounds.high_inclusive) == (False, False)
    bounds = parse({"$and": [{"x": {"$gte": 5}}, {"x": {"$gt": 3}}]}).fields["x"]
    assert (bounds.low, bounds.low_inclusive, bounds.high) == (encode(5), True, None)
    bounds = parse({"$and": [{"x": {"$lte": 3}}, {"x": {"$lt": 5}}]}).fields["x"]
    assert (bounds.high, bounds.high_inclusive, bounds.low) == (encode(3), True, None)
    # Of two classes the first is taken; the other one stays to be asked.
    where = parse({"x": {"$gt": 3, "$lt": "a"}})
    bounds = where.fields["x"]
    assert (bounds.low, bounds.high) == (encode(3), None)
    assert where.without(["x"]).shape == "{x: {$lt: ?}}"
    assert bounds_of({"$gt": False}).low == encode(False)
    assert all(bounds_of(each).narrows for each in (1, None, {"$gt": 1}, {"$lt": False}))
    assert bounds_of({"$in": []}).narrows


def test_what_gives_no_bounds() -> None:
    assert parse({"$or": [{"x": 1}]}).fields == {}
    assert parse({"$not": {"x": 1}}).fields == {}
    for where, excludes_none in (
        ({"$ne": None}, True),
        ({"$ne": 1}, False),
        ({"$nin": [None, 1]}, True),
        ({"$exists": True}, False),
        ({"$not": {"$exists": True}}, False),
        ({"$not": {"$in": [None]}}, True),
    ):
        bounds = bounds_of(where)
        assert bounds.equals is None
        assert bounds.low is bounds.high is None
        assert not bounds.narrows
        assert not bounds.exact
        assert bounds.covered == ()
        assert bounds.excludes_none is excludes_none, where


def test_conjunctions_are_flattened() -> None:
    found = parse({"x": 1, "$and": [{"y": 2}, {"$and": [{"z.a": {"$gt": 3}}]}]})
    assert set(found.fields) == {"x", "y", "z.a"}
    assert all(isinstance(part, Condition) for part in found.parts)
    assert found.without(["x", "y", "z.a"]).is_empty


def test_without_keeps_what_is_not_exact() -> None:
    found = parse({"x": {"a": 1}, "y": 1, "$or": [{"y": 1}]})
    assert found.without(["x"]) is found
    assert found.without(["missing"]) is found
    assert found.without(["x", "y"]).shape == "{x: ?, $or: [{y: ?}]}"


def test_empty() -> None:
    empties: list[dict[str, Any] | None] = [None, {}]
    for where in empties:
        assert parse(where).is_empty
        assert parse(where).fields == {}
        assert parse(where).shape == "{}"
    assert not parse({"x": 1}).is_empty


def test_shape_has_no_values() -> None:
    def where(value: str) -> dict[str, Any]:
        return {
            "a": value,
            "b.c": {"$gte": value, "$in": [value]},
            "d": {"$not": {"$eq": value, "$exists": True}},
            "e": {"secret": value},
            "$or": [{"x": value}, {"$not": {"y": {"$ne": value}}}],
        }

    assert parse(where("one")).shape == parse(where("two")).shape
    assert parse(where("one")).shape == (
        "{a: ?, b.c: {$gte: ?}, b.c: {$in: ?}, d: {$not: {$eq: ?, $exists: ?}}, e: ?, "
        "$or: [{x: ?}, {$not: {y: {$ne: ?}}}]}"
    )
    assert repr(parse({"x": 1})) == "Filter({x: ?})"


# -- order -------------------------------------------------------------------------------------


def test_parse_order() -> None:
    assert parse_order(None) == parse_order([]) == ()
    assert parse_order("a") == (OrderField("a", False),)
    assert parse_order(["a", "-b.c"]) == (OrderField("a", False), OrderField("b.c", True))
    assert parse_order(("-a",)) == (OrderField("a", True),)


@pytest.mark.parametrize(
    "order_by",
    ["", "-", "a..b", ["a", "a"], ["a", "-a"], [1], {"a": 1}, 7, [f"f{n}" for n in range(17)]],
    ids=repr,
)
def test_bad_orders(order_by: Any) -> None:
    with pytest.raises(QueryError, match="order_by"):
        parse_order(order_by)


orders: st.SearchStrategy[list[str]] = st.lists(
    st.sampled_from(["x", "y", "z"]), min_size=1, max_size=3, unique=True
).flatmap(
    lambda names: st.tuples(*(st.sampled_from([name, "-" + name]) for name in names)).map(list)
)


@given(orders, documents)
def test_a_sort_key_is_the_first_key_of_an_index(
    order: list[str], document: dict[str, Any]
) -> None:
    parsed = parse_order(order)
    try:
        keys = KeyEncoder(Ordered(*order)).keys(document)
    except InvalidDocumentError:  # two lists, which a heap can sort and an index cannot
        assume(False)
    assert sorter(parsed)(document, b"") == min(keys)


def test_lists_sort_by_their_outermost_element() -> None:
    up, down = parse_order("x"), parse_order("-x")
    tags: list[dict[str, Any]] = [{"x": [5, 1]}, {"x": 3}, {"x": []}, {"x": [2, "a"]}, {"y": 0}]
    by = [sorted(range(5), key=lambda at: sorter(order)(tags[at], b"")) for order in (up, down)]
    assert by == [[2, 4, 0, 3, 1], [3, 0, 1, 2, 4]]


def test_a_sort_key_follows_paths() -> None:
    key = sorter(parse_order(["m.a", "-n"]))
    assert key({"m": [{"a": 2}, {"a": 1}], "n": 3}, b"") == key({"m": {"a": 1}, "n": 3}, b"")
