"""Hypothesis strategies for documents, filters, orders and declarations.

Few fields and few values, chosen to meet each other: equal prefixes over LMDB's key limit, NUL in
strings, numbers that are equal as doubles only, a bool beside 1, lists, maps, nothing at all.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from amberdb import REMOVE, Ordered, Unique
from support.model import Spec

_DAY = datetime(2024, 2, 29, 12, tzinfo=UTC)
LONG = "é" + "a" * 999

IDS = ["a", "b", "c", "d", "e\0f", "e", "é", "\U0001f600", "long" * 120]


def _text(start: int, more: int, tail: str) -> str:
    return LONG[:start] + LONG[start : start + more] + tail


def _joined(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    return {**left, "$and": [right]}


scalars: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([2**53, 2**53 + 1, -(2**63), 2**63 - 1]),
    st.sampled_from([0.0, -0.0, 1.0, 1.5, -1.5, 2.0**53, 1e300, float("inf"), float("-inf")]),
    st.sampled_from(["", "\0", "\0\xff", "a", "a\0", "ab", "b", "é", "\uffff", "\U0001f600"]),
    st.sampled_from([b"", b"\0", b"\xff", b"a"]),
    st.integers(0, 2).map(lambda n: _DAY + timedelta(microseconds=n)),
)
texts = st.builds(
    _text,
    st.sampled_from([0, 1, 2, 3, 4, 5, 8, 12, 470, 478, 479, 480, 481, 482, 483]),
    st.integers(0, 30),
    st.sampled_from(["", "x", "\0", "\0\0"]),
)
lists: st.SearchStrategy[Any] = st.lists(st.integers(-1, 4), max_size=4) | st.lists(
    st.one_of(
        st.integers(0, 3),
        scalars,
        texts,
        st.just([1]),
        st.just({"x": 1}),
    ),
    max_size=4,
)
maps: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {}, optional={"x": scalars, "y": st.one_of(scalars, lists), "z": st.just({"deep": [None]})}
)
values: st.SearchStrategy[Any] = st.one_of(scalars, scalars, texts, lists, maps)
field_values: dict[str, st.SearchStrategy[Any]] = {
    "a": scalars,
    "b": st.one_of(scalars, maps),
    "s": st.one_of(texts, scalars),
    "tags": st.one_of(lists, lists, scalars),
    "m": st.one_of(maps, maps, st.lists(maps, max_size=3), scalars),
    "u": st.integers(0, 12),
}
_bodies = st.fixed_dictionaries({}, optional=field_values)
# Most documents of a life have most fields: queries over nearly empty ones find nothing.
_full_bodies = st.fixed_dictionaries(
    {
        "a": st.integers(-1, 3) | scalars,
        "s": texts,
        "tags": st.lists(st.integers(-1, 4), min_size=2, max_size=4) | lists | scalars,
        "m": st.fixed_dictionaries({"x": scalars, "y": st.lists(st.integers(-1, 4))}) | maps,
    },
    optional={"b": field_values["b"], "u": field_values["u"]},
)
_patches = st.fixed_dictionaries(
    {}, optional={name: st.one_of(each, st.just(REMOVE)) for name, each in field_values.items()}
)

SPECS: list[Spec] = [
    Ordered("a"),
    Ordered("-a"),
    Ordered("a", "b"),
    Ordered("a", "-b"),
    Ordered("-b", "a"),
    Ordered("b", sparse=True),
    Ordered("s"),
    Ordered("-s"),
    Ordered("s", "a"),
    Ordered("a", "s"),
    Ordered("tags"),
    Ordered("-tags", "a"),
    Ordered("a", "tags", sparse=True),
    Ordered("m.x"),
    Ordered("m.y", "-a"),
    Ordered("-m.x", "b"),
    Ordered("u", "a", "b"),
]
PATHS = ["a", "b", "s", "tags", "m.x", "m.y", "u", "id", "m", "none"]

_orders = st.one_of(
    st.none(),
    st.lists(
        st.sampled_from(["a", "b", "s", "tags", "m.x", "m.y", "u", "id"]),
        min_size=1,
        max_size=3,
        unique=True,
    ).flatmap(lambda names: st.tuples(*[st.sampled_from([name, "-" + name]) for name in names])),
    st.sampled_from(SPECS).map(lambda spec: spec.fields),
    st.sampled_from(SPECS).map(
        lambda spec: tuple(f[1:] if f.startswith("-") else "-" + f for f in spec.fields)
    ),
).map(lambda names: None if names is None else list(names))

_comparable = st.one_of(scalars, texts).filter(lambda value: value is not None)
_operand = st.one_of(scalars, texts, st.sampled_from([[], [1], {"x": 1}, {}, [None], "short"]))
_operators: st.SearchStrategy[Any] = st.one_of(
    _operand,
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(("$gt", "$gte", "$lt", "$lte"), _comparable),
    ).filter(bool),
    # Of one class, so that both sides bite; a list may meet them with different elements.
    st.fixed_dictionaries({"$gte": st.integers(-1, 3), "$lt": st.integers(0, 4)}),
    st.fixed_dictionaries({"$gt": st.integers(-1, 3), "$lte": st.integers(-1, 4)}),
    st.fixed_dictionaries({"$in": st.lists(_operand, max_size=4)}),
    st.fixed_dictionaries({"$nin": st.lists(_operand, max_size=2)}),
    st.fixed_dictionaries({"$ne": _operand}),
    st.fixed_dictionaries({"$exists": st.booleans()}),
    st.fixed_dictionaries({"$contains": st.one_of(scalars, texts)}),
    st.fixed_dictionaries({"$prefix": texts.map(lambda text: text[:1])}),
    st.fixed_dictionaries({"$not": st.fixed_dictionaries({"$gt": _comparable})}),
)
conditions = st.dictionaries(st.sampled_from(PATHS), _operators, min_size=1, max_size=3)
_small = st.integers(-1, 4)
_ranges: st.SearchStrategy[Any] = st.one_of(
    _small,
    st.fixed_dictionaries({"$gte": _small, "$lt": _small}),
    st.fixed_dictionaries({"$gt": _small, "$lte": _small}),
    st.fixed_dictionaries({"$in": st.lists(_small, max_size=3)}),
)
# One condition that many documents come near to: with several, most queries find nothing.
_sharp: st.SearchStrategy[Any] = st.one_of(
    st.dictionaries(st.sampled_from(["tags", "tags", "m.y", "a"]), _ranges, min_size=1, max_size=1),
    st.dictionaries(st.sampled_from(["s", "tags"]), texts, min_size=1, max_size=1),
    st.fixed_dictionaries({"s": st.fixed_dictionaries({"$gte": texts, "$lt": texts})}),
    st.fixed_dictionaries({"s": st.fixed_dictionaries({"$prefix": texts})}),
    st.fixed_dictionaries({"u": st.integers(0, 12), "a": scalars}),
)
_filters: st.SearchStrategy[Any] = st.one_of(
    st.just({}),
    _sharp,
    _sharp,
    _sharp,
    conditions,
    conditions,
    st.fixed_dictionaries({"$or": st.lists(conditions, min_size=1, max_size=2)}),
    st.fixed_dictionaries({"$not": conditions}),
    st.builds(_joined, conditions, conditions),
)


def declarations(unique: bool = True) -> st.SearchStrategy[list[Spec]]:
    """Lists of indexes for one collection."""
    pool = [*SPECS, Unique("u", sparse=True), Unique("tags", sparse=True)] if unique else SPECS
    return st.lists(st.sampled_from(pool), max_size=5, unique_by=lambda spec: spec.name)


# Composite, because Hypothesis prints strategies whole, and these are long.


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """The fields of a document, without an id."""
    return draw(_bodies)


@st.composite
def full_bodies(draw: st.DrawFn) -> dict[str, Any]:
    """bodies() with nearly every field."""
    return draw(_full_bodies)


@st.composite
def patches(draw: st.DrawFn) -> dict[str, Any]:
    """For update()."""
    return draw(_patches)


@st.composite
def orders(draw: st.DrawFn) -> list[str] | None:
    """order_by"""
    return draw(_orders)


@st.composite
def filters(draw: st.DrawFn) -> dict[str, Any]:
    """where"""
    return draw(_filters)
