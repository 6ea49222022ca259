"""A condition on one field, and the bounds of index keys that conditions give the planner.

Invariants:
- Bounds only narrow: every document that meets the conditions has an index key within them.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias, final

from amberdb._types import Document
from amberdb.engine.query.operators import Test
from amberdb.index.ordered.keys import class_tag, encode
from amberdb.index.paths import MISSING, Path

Match: TypeAlias = Callable[[Document], bool]

_EQUALITY: Final = frozenset({"$eq", "$ne"})
_LOWS: Final = {"$gt": False, "$gte": True}
_HIGHS: Final = {"$lt": False, "$lte": True}
"""Operators that bound a range on one side, and whether the bound itself is inside."""


class FieldBounds(NamedTuple):
    """Where the keys of matching documents lie, for one field of the conjunction.

    `equals`, when not None: a matching document has a key among those of these values (distinct,
    perhaps none at all); low and high are None then. For a list operand they are the keys that
    the operand's list has in an index, not the list itself.
    `low`, `high`: None means no bound on this side. They only hold within the class of the bound
    that is there, so the open side ends with the class (keys.class_range). Both have one class.
    On a field that holds a list, different elements may satisfy the two, so a scan of an index
    with several entries per document may use only one of them.
    `excludes_none`: no document matches in which the field is missing or None.
    `exact`: for a document whose field holds no list, these bounds say all that the covered
    conditions say. (Nothing is exact
    for a key that was cut at FIELD_KEY_BYTES_MAX.)
    `covered`: the conditions that the bounds come from.
    """

    path: str
    equals: list[Any] | None
    low: Any
    low_inclusive: bool
    high: Any
    high_inclusive: bool
    excludes_none: bool
    exact: bool
    covered: "tuple[Condition, ...]"

    @property
    def narrows(self) -> bool:
        """Whether there is anything to scan by; if not, any key of the index may match."""
        return self.equals is not None or self.low is not None or self.high is not None


@final
class Condition:
    """One operator on one field."""

    __slots__ = ("matches", "operand", "operator", "path", "test")

    def __init__(self, path: str, name: str, operand: Any, test: Test) -> None:
        self.path = path
        self.operator = name
        self.operand = operand
        self.test = test
        self.matches = _on_field(Path.of(path), name, operand, test)

    @property
    def excludes_none(self) -> bool:
        return not self.test(None) and not self.test(MISSING)

    @property
    def asks_presence(self) -> bool:
        """Whether it only asks if there is a value."""
        return self.operator == "$exists" or (self.operator in _EQUALITY and self.operand is None)

    @property
    def shape(self) -> str:
        return f"{self.path}: {_operator_shape(self.operator, self.operand)}"


def _operator_shape(name: str, operand: Any) -> str:
    if name == "$not":
        inner = ", ".join(f"{each.operator}: ?" for each in operand)
        return f"{{$not: {{{inner}}}}}"
    return "?" if name == "$eq" else f"{{{name}: ?}}"


def _on_field(path: Path, name: str, operand: Any, test: Test) -> Match:
    """A test of a document: reads the field, then tests its value. $eq and $exists on a plain field
    have closures that skip the path."""
    # $not may hold $exists, so it needs to know missing from None; the other tests take either.
    get = path.get if name in ("$exists", "$not") else path.find
    if not path.is_plain:
        return lambda document: test(get(document))
    field = path.name
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
    """The tightest bounds that the conjunction of conditions on one field gives."""
    excludes_none = any(each.excludes_none for each in conditions)
    best: tuple[list[Any], bool, Condition] | None = None
    for each in conditions:
        found = _candidates(each)
        if found is not None and (best is None or len(found[0]) < len(best[0])):
            best = (*found, each)
    if best is not None:
        # One condition only: a list may meet two equalities with different elements.
        equals, exact, covered = best
        return FieldBounds(path, equals, None, False, None, False, excludes_none, exact, (covered,))
    return _range_bounds(path, conditions, excludes_none)


def _range_bounds(path: str, conditions: list[Condition], excludes_none: bool) -> FieldBounds:
    low: Any = None
    high: Any = None
    low_inclusive = high_inclusive = False
    covered: list[Condition] = []
    tag: int | None = None
    for each in conditions:
        is_low = each.operator in _LOWS
        if not is_low and each.operator not in _HIGHS:
            continue
        if tag is None:
            tag = class_tag(each.operand)
        elif class_tag(each.operand) != tag:
            continue  # only a list can meet both; the other class is left to the residual
        covered.append(each)
        if is_low:
            inclusive = _LOWS[each.operator]
            if low is None or each.operand > low or (each.operand == low and not inclusive):
                low, low_inclusive = each.operand, inclusive
        else:
            inclusive = _HIGHS[each.operator]
            if high is None or each.operand < high or (each.operand == high and not inclusive):
                high, high_inclusive = each.operand, inclusive
    return FieldBounds(
        path, None, low, low_inclusive, high, high_inclusive,
        excludes_none, bool(covered), tuple(covered),
    )  # fmt: skip


def _candidates(condition: Condition) -> tuple[list[Any], bool] | None:
    """Values of which a matching document has a key, and whether that is all the condition says."""
    name, operand = condition.operator, condition.operand
    if name == "$eq":
        if type(operand) is not list and type(operand) is not dict:
            return [operand], True
        return _in_index(operand), False
    if name == "$in":
        distinct = {encode(key): key for value in operand for key in _in_index(value)}
        exact = not any(type(value) is list or type(value) is dict for value in operand)
        return list(distinct.values()), exact
    if name == "$contains" and type(operand) is not str:
        return [operand], False
    if name == "$exists" and not operand:
        return [None], False
    return None


def _in_index(operand: Any) -> list[Any]:
    """An index holds a list by its elements (an empty one as None), so a field that equals the
    list has the key of the first; or an element is that list, and has the key of any list."""
    if type(operand) is not list:
        return [operand]
    elements: list[Any] = operand
    first = elements[0] if elements else None
    return [first] if type(first) is list else [first, []]
