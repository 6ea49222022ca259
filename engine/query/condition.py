"""Conditions on fields, and the bounds of index keys that the planner derives from them.

Invariants:
- Bounds are necessary: every document that meets the conditions has an index key within them.
"""

# The values of a document have no static type, so lists of them are unknown to pyright.
# pyright: reportUnknownVariableType=false

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias, final

from amberdb._types import Document
from amberdb.engine.query.operators import Test
from amberdb.index.ordered.keys import after_prefix, encode
from amberdb.index.paths import MISSING, Path

Match: TypeAlias = Callable[[Document], bool]

_EQUALITY: Final = frozenset({"$eq", "$ne"})
LOWS: Final = {"$gt": False, "$gte": True}
HIGHS: Final = {"$lt": False, "$lte": True}
"""Operators that bound a range on one side, and whether the bound itself is inside."""
PREFIX: Final = "$prefix"
"""The operator that bounds a range on both sides."""


class FieldBounds(NamedTuple):
    """The keys that matching documents can have in an index, for one field of a conjunction.

    `equals`, when not None: a matching document has the key of one of these values (distinct,
    perhaps none); low and high are None. For a list operand they are the values whose keys an index
    holds for that list.
    `low`, `high`: keys of values, as encode() makes them; None means no bound on this side. Both
    bounds have the same type class, and a missing bound is the end of the class (keys.class_range).
    `is_one`: the two bounds come from one condition, so one element of a list meets both.
    `excludes_none`: no document matches whose field is missing or None.
    `exact`: for a document whose field holds no list, the bounds decide the covered conditions. (A
    key that was cut at FIELD_KEY_BYTES_MAX is never exact.)
    `covered`: the conditions that the bounds come from.
    """

    path: str
    equals: list[Any] | None
    low: bytes | None
    low_inclusive: bool
    high: bytes | None
    high_inclusive: bool
    excludes_none: bool
    exact: bool
    covered: "tuple[Condition, ...]"
    is_one: bool = False

    @property
    def narrows(self) -> bool:
        """Whether there is a bound; without one any key of the index may match."""
        return self.equals is not None or self.low is not None or self.high is not None

    @property
    def is_split(self) -> bool:
        """Whether different elements of a list may meet the two bounds: a scan of an index with
        several entries per document can use only one of them."""
        return self.low is not None and self.high is not None and not self.is_one


@final
class Condition:
    """One operator on one field. `test` is a predicate on the field's value, `matches` on the
    document."""

    __slots__ = ("matches", "operand", "operator", "path", "test")

    def __init__(self, path: str, name: str, operand: Any, test: Test) -> None:
        self.path = path
        self.operator = name
        self.operand = operand
        self.test = test
        self.matches = _on_field(Path.of(path), name, operand, test)

    @property
    def excludes_none(self) -> bool:
        """Whether neither None nor a missing field meets the condition."""
        return not self.test(None) and not self.test(MISSING)

    @property
    def asks_presence(self) -> bool:
        """Whether the condition only tests if the field has a value."""
        return self.operator == "$exists" or (self.operator in _EQUALITY and self.operand is None)

    @property
    def shape(self) -> str:
        """The condition without its value."""
        return f"{self.path}: {_operator_shape(self.operator, self.operand)}"


def _operator_shape(name: str, operand: Any) -> str:
    if name == "$not":
        inner = ", ".join(f"{condition.operator}: ?" for condition in operand)
        return f"{{$not: {{{inner}}}}}"
    return "?" if name == "$eq" else f"{{{name}: ?}}"


def _on_field(path: Path, name: str, operand: Any, test: Test) -> Match:
    """A predicate on a document: reads the field, then tests its value. For a top-level field it
    reads the dict directly, and the equality of a str, the most common test, is one closure."""
    # $not may contain $exists, so it gets MISSING; the other tests take None for a missing field.
    get = path.get if name in ("$exists", "$not") else path.find
    if not path.is_plain:
        return lambda document: test(get(document))
    field = path.segments[0]
    if name == "$eq" and type(operand) is str:

        def equals(document: Document) -> bool:
            value = document.get(field)
            if type(value) is list:
                return operand in value
            return value == operand

        return equals
    if name in ("$exists", "$not"):
        return lambda document: test(document.get(field, MISSING))
    return lambda document: test(document.get(field))


def bounds_of(path: str, conditions: list[Condition]) -> FieldBounds:
    """The bounds of the conjunction of conditions on one field: the shortest list of equal values,
    or a range."""
    excludes_none = any(condition.excludes_none for condition in conditions)
    best: tuple[list[Any], bool, Condition] | None = None
    for condition in conditions:
        equal = _equal_values(condition)
        if equal is not None and (best is None or len(equal[0]) < len(best[0])):
            best = (*equal, condition)
    if best is not None:
        # From one condition only: in a list, different elements may meet two equalities.
        equals, exact, covered = best
        return FieldBounds(path, equals, None, False, None, False, excludes_none, exact, (covered,))
    return _range_bounds(path, conditions, excludes_none)


def _range_bounds(path: str, conditions: list[Condition], excludes_none: bool) -> FieldBounds:
    """The tightest range of the conditions that compare with values of one type class."""
    low: bytes | None = None
    high: bytes | None = None
    low_inclusive = high_inclusive = False
    low_of: Condition | None = None
    high_of: Condition | None = None
    covered: list[Condition] = []
    tag: int | None = None
    for condition in conditions:
        sides = _sides(condition)
        if sides is None:
            continue
        above, above_inclusive, below, below_inclusive = sides
        some = above or below
        assert some is not None
        if tag is None:
            tag = some[0]
        elif some[0] != tag:
            continue  # only a list can meet both; the residual filter decides the other class
        covered.append(condition)
        if above is not None and (
            low is None or above > low or (above == low and not above_inclusive)
        ):
            low, low_inclusive, low_of = above, above_inclusive, condition
        if below is not None and (
            high is None or below < high or (below == high and not below_inclusive)
        ):
            high, high_inclusive, high_of = below, below_inclusive, condition
    return FieldBounds(
        path, None, low, low_inclusive, high, high_inclusive,
        excludes_none, bool(covered), tuple(covered), low_of is high_of,
    )  # fmt: skip


def _sides(condition: Condition) -> tuple[bytes | None, bool, bytes | None, bool] | None:
    """(low, whether it is inside, high, whether it is inside) of a condition that is a range, as
    keys."""
    name, operand = condition.operator, condition.operand
    if name in LOWS:
        return encode(operand), LOWS[name], None, False
    if name in HIGHS:
        return None, False, encode(operand), HIGHS[name]
    if name == PREFIX:
        key = encode(operand)
        return key, True, after_prefix(key), False
    return None


def _equal_values(condition: Condition) -> tuple[list[Any], bool] | None:
    """The values of which a matching document has a key, and whether having one decides the
    condition; None for a condition that is not an equality."""
    name, operand = condition.operator, condition.operand
    if name == "$eq":
        if type(operand) is not list and type(operand) is not dict:
            return [operand], True
        return _indexed_values(operand), False
    if name == "$in":
        distinct = {encode(key): key for value in operand for key in _indexed_values(value)}
        exact = not any(type(value) is list or type(value) is dict for value in operand)
        return list(distinct.values()), exact
    if name == "$contains" and type(operand) is not str:
        return [operand], False
    if name == "$exists" and not operand:
        return [None], False
    return None


def _indexed_values(operand: Any) -> list[Any]:
    """The values of which a field that equals the operand has a key. An index holds the elements of
    a list (None for an empty list), so a field equal to the list has the key of its first element;
    a field with the list as an element has the key that all nested lists share."""
    if type(operand) is not list:
        return [operand]
    elements: list[Any] = operand
    first = elements[0] if elements else None
    return [first] if type(first) is list else [first, []]
