"""The filter language: a map to a compiled predicate, and to what the planner may take from it.

docs/queries.md is its definition.

Invariants:
- `matches` is the whole meaning of a filter. `fields` only narrows where to look: every document
  that matches has, for each field, an index key within the FieldBounds given for it.
- A filter keeps nothing of the caller's maps, so changing them afterwards changes no filter.
- Documents are as the codec gives them: plain types, datetimes in UTC, no NaN.
- No comparison leaves its class of types, and True is not 1.
"""

# What a document holds has no static type, so type(value) and its lists are unknown to pyright.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

import operator
import reprlib
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeAlias, TypeGuard, final

from amberdb._errors import InvalidDocumentError, QueryError
from amberdb._types import Document, Where
from amberdb.index.ordered.keys import class_tag, encode
from amberdb.index.paths import MISSING, Path

DEPTH_MAX = 32
IN_MAX = 10_000

Test: TypeAlias = Callable[[Any], bool]
"""Of the value of a field: None when missing, except for $exists, which gets MISSING."""
Match: TypeAlias = Callable[[Document], bool]


# -- what the planner sees -------------------------------------------------------------------


class FieldBounds(NamedTuple):
    """Where the keys of matching documents lie, for one field of the conjunction.

    `equals`, when not None: a matching document has a key among those of these values (distinct,
    perhaps none at all); low and high are None then. For a list operand they are the keys that
    the operand's list has in an index, not the list itself.
    `low`, `high`: None means no bound on this side. They only hold within the class of the bound
    that is there, so the open side ends with the class (keys.class_range). Both have one class.
    `two_sided`: both are there. On a field that holds a list, different elements may satisfy the
    two, so a scan of an index with several entries per document may use only one of them.
    `excludes_none`: no document matches in which the field is missing or None.
    `exact`: for a document whose field holds no list, these bounds say all that the covered
    conditions say. (Behind a key that was cut at KEY_BYTES_MAX nothing is exact.)
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

    @property
    def two_sided(self) -> bool:
        return self.low is not None and self.high is not None


# -- the parsed form -------------------------------------------------------------------------


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


@final
class Branch:
    """$or and the top-level $not: whole filters below."""

    __slots__ = ("children", "matches", "operator")

    def __init__(self, name: str, children: "tuple[Filter, ...]") -> None:
        self.operator = name
        self.children = children
        tests = tuple(child.matches for child in children)
        self.matches = _any_of(tests) if name == "$or" else _not(tests[0])

    @property
    def shape(self) -> str:
        inner = ", ".join(child.shape for child in self.children)
        return f"{self.operator}: [{inner}]" if self.operator == "$or" else f"$not: {inner}"


def _operator_shape(name: str, operand: Any) -> str:
    if name == "$not":
        inner = ", ".join(f"{each.operator}: ?" for each in operand)
        return f"{{$not: {{{inner}}}}}"
    return "?" if name == "$eq" else f"{{{name}: ?}}"


@final
class Filter:
    """A parsed filter: the conjunction of its parts. `matches(document)` answers for a document."""

    __slots__ = ("_fields", "matches", "parts")

    parts: tuple[Condition | Branch, ...]
    matches: Match

    def __init__(self, parts: Iterable[Condition | Branch]) -> None:
        self.parts = tuple(parts)
        self.matches = _all_of(tuple(part.matches for part in self.parts))
        self._fields: dict[str, FieldBounds] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether every document matches because nothing is asked."""
        return not self.parts

    @property
    def fields(self) -> dict[str, FieldBounds]:
        """By dotted path: what the conjunctive conditions say of the field's keys."""
        if self._fields is None:
            by_path: dict[str, list[Condition]] = {}
            for part in self.parts:
                if isinstance(part, Condition):
                    by_path.setdefault(part.path, []).append(part)
            self._fields = {path: _bounds(path, found) for path, found in by_path.items()}
        return self._fields

    def without(self, paths: Iterable[str]) -> "Filter":
        """What is left to ask when the bounds of these fields have been met exactly.

        Only for fields that hold no list in any document of the index.
        """
        dropped: set[int] = set()
        for path in paths:
            bounds = self.fields.get(path)
            if bounds is not None and bounds.exact:
                dropped.update(map(id, bounds.covered))
        if not dropped:
            return self
        return Filter(part for part in self.parts if id(part) not in dropped)

    def refuse_vectors(self, fields: Container[str]) -> None:
        """Raises QueryError where the filter compares a field that holds vectors: they have no
        order, and equality of floats is not what anybody means."""
        for part in self.parts:
            if isinstance(part, Branch):
                for child in part.children:
                    child.refuse_vectors(fields)
            elif part.path in fields and not part.asks_presence:
                raise QueryError(
                    f"{part.path!r} holds vectors: a filter may ask {{{part.path!r}: "
                    "{'$exists': True}}, and search(vector=...) finds what is near"
                )

    @property
    def shape(self) -> str:
        """The filter without its values: the same for all filters of one query in the code."""
        return "{" + ", ".join(part.shape for part in self.parts) + "}"

    def __repr__(self) -> str:
        return f"Filter({self.shape})"


# -- parsing ---------------------------------------------------------------------------------

_EQUALITY: Final = frozenset({"$eq", "$ne"})
_SCALARS: Final[frozenset[object]] = frozenset({str, int, float, bool, type(None), bytes, datetime})


def _is_map(value: object) -> TypeGuard[Mapping[Any, Any]]:
    # Asking an abstract class takes longer than all the rest, so the commonest go first.
    return type(value) not in _SCALARS and isinstance(value, Mapping)


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, (list, tuple))


def _show(value: object) -> str:
    return reprlib.repr(value)


def parse(where: Where | None) -> Filter:
    """The filter, checked and compiled. Raises QueryError naming the part that is wrong."""
    if where is None:
        return _EMPTY
    parts: list[Condition | Branch] = []
    _parse_map(where, parts, 0)
    return Filter(parts)


def _parse_map(where: object, parts: list[Condition | Branch], depth: int) -> None:
    if not _is_map(where):
        raise QueryError(f"a filter is a map, not {type(where).__name__}: {_show(where)}")
    if depth > DEPTH_MAX:
        raise QueryError(f"a filter of more than {DEPTH_MAX} levels")
    for name, operand in where.items():
        if isinstance(name, str) and name.startswith("$"):
            _parse_branch(name, operand, parts, depth)
        else:
            _parse_field(name, operand, parts, depth)


def _parse_branch(name: str, operand: Any, parts: list[Condition | Branch], depth: int) -> None:
    if name == "$not":
        inner: list[Condition | Branch] = []
        _parse_map(operand, inner, depth + 1)
        parts.append(Branch("$not", (Filter(inner),)))
        return
    if name not in ("$and", "$or"):
        hint = " belongs to a field: {field: {...}}" if name in _OPERATORS else " is no operator"
        raise QueryError(f"{name}{hint}; filters are joined by $and, $or and $not")
    if not _is_list(operand) or not operand:
        raise QueryError(f"{name} takes a list of at least one filter, not {_show(operand)}")
    children: list[Filter] = []
    for child in operand:
        if name == "$and":
            _parse_map(child, parts, depth + 1)
        else:
            inner = []
            _parse_map(child, inner, depth + 1)
            children.append(Filter(inner))
    if children:
        parts.append(Branch("$or", tuple(children)))


def _parse_field(name: Any, operand: Any, parts: list[Condition | Branch], depth: int) -> None:
    try:
        path = Path.of(name).name  # kept, so a name is checked once
    except ValueError as error:
        raise QueryError(f"in a filter: {error}") from None
    if _is_map(operand) and _is_operators(path, operand):
        for operator_name, argument in operand.items():
            parts.append(_condition(path, operator_name, argument, depth))
    else:
        _refuse_operators_inside(path, operand, depth)
        parts.append(_condition(path, "$eq", operand, depth))


def _is_operators(path: str, operand: Mapping[Any, Any]) -> bool:
    marked = [isinstance(name, str) and name.startswith("$") for name in operand]
    if any(marked) and not all(marked):
        raise QueryError(f"{path}: operators and plain keys in one map: {_show(operand)}")
    return any(marked)


def _refuse_operators_inside(path: str, operand: Any, depth: int) -> None:
    """{"a": {"b": {"$gt": 1}}} would quietly match nothing: it means {"a.b": {"$gt": 1}}."""
    if depth > DEPTH_MAX:
        raise QueryError(f"{path}: a value of more than {DEPTH_MAX} levels")
    if _is_map(operand):
        for name, value in operand.items():
            if isinstance(name, str) and name.startswith("$"):
                raise QueryError(
                    f"{path}: {name} inside a map that is compared as a whole; name the field by a"
                    f" dotted path, or compare with $eq if the map does hold such a key"
                )
            _refuse_operators_inside(path, value, depth + 1)
    elif _is_list(operand):
        for value in operand:
            _refuse_operators_inside(path, value, depth + 1)


def _condition(path: str, name: str, argument: Any, depth: int) -> Condition:
    make = _OPERATORS.get(name)
    if make is None:
        hint = (
            "joins filters, not the operators of a field"
            if name in ("$and", "$or")
            else (f"is no operator; there are {' '.join(_OPERATORS)}")
        )
        raise QueryError(f"{path}: {name} {hint}")
    if depth > DEPTH_MAX:
        raise QueryError(f"a filter of more than {DEPTH_MAX} levels")
    where = f"{path}: {name}"
    operand, test = make(where, argument, depth)
    return Condition(path, name, operand, test)


def _plain(where: str, value: Any, depth: int) -> Any:
    """The operand as a document would hold it, and a copy. Raises QueryError."""
    if depth > DEPTH_MAX:
        raise QueryError(f"{where} takes a value of at most {DEPTH_MAX} levels")
    if _is_map(value):
        plain: dict[str, Any] = {}
        for name, item in value.items():
            if not isinstance(name, str):
                raise QueryError(f"{where}: a map has the key {name!r}, not a str")
            plain[str.__str__(name)] = _plain(where, item, depth + 1)
        return plain
    if _is_list(value):
        return [_plain(where, item, depth + 1) for item in value]
    try:
        encode(value)
    except InvalidDocumentError as error:
        raise QueryError(f"{where} cannot take {error.message}") from None
    return _plain_scalar(value)


def _plain_scalar(value: Any) -> Any:
    kind: object = type(value)
    if kind is str or kind is int or kind is float or kind is bytes or kind is bool:
        return value
    if isinstance(value, datetime):
        try:
            # Between two zones == says False for any time near a change of clocks.
            return value.astimezone(UTC)
        except OverflowError:  # datetime.max of a zone west of Greenwich still compares
            return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    return None if value is None else bytes(value)


# -- the meaning of operators ----------------------------------------------------------------
# Each takes ("path: $op", operand, depth) and gives the checked operand and the test of a field's
# value. A test of one element, which is no list, is put over lists by _any_element.


def _same(left: Any, right: Any) -> bool:
    """Equality of plain values at any depth: 1 is 1.0, but not True."""
    kind: object = type(left)
    if kind is not type(right):
        # Only int and float have equals in another class, and each other at that.
        return left == right and kind is not bool and type(right) is not bool
    if kind is dict:
        return len(left) == len(right) and all(
            name in right and _same(value, right[name]) for name, value in left.items()
        )
    if kind is list:
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)


def _equal_one(operand: Any) -> Test:
    """Whether a value that is no list, or one element, is the operand (which is no list)."""
    if type(operand) is bool:
        return lambda value: value is operand
    if type(operand) is int or type(operand) is float:
        return lambda value: value == operand and type(value) is not bool
    if type(operand) is dict:
        return lambda value: _same(operand, value)
    if operand is None:
        return lambda value: value is None or value is MISSING
    return lambda value: bool(value == operand)


def _any_element(one: Test) -> Test:
    def test(value: Any) -> bool:
        if type(value) is list:
            elements: list[Any] = value
            for element in elements:  # noqa: SIM110  # any() would build a generator
                if one(element):
                    return True
            return False
        return one(value)

    return test


def _equal(operand: Any) -> Test:
    if type(operand) is not list:
        return _any_element(_equal_one(operand))

    def test(value: Any) -> bool:
        if type(value) is not list:
            return False
        elements: list[Any] = value
        return _same(operand, elements) or any(
            type(element) is list and _same(operand, element) for element in elements
        )

    return test


def _not(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: not test(value)


def _op_eq(where: str, argument: Any, depth: int) -> tuple[Any, Test]:
    operand = _plain(where, argument, depth)
    return operand, _equal(operand)


def _op_ne(where: str, argument: Any, depth: int) -> tuple[Any, Test]:
    operand, test = _op_eq(where, argument, depth)
    return operand, _not(test)


def _op_in(where: str, argument: Any, depth: int) -> tuple[Any, Test]:
    if not isinstance(argument, (list, tuple, set, frozenset)):
        raise QueryError(f"{where} takes a list of values, not {_show(argument)}")
    if len(argument) > IN_MAX:
        raise QueryError(f"{where} takes at most {IN_MAX:,} values, not {len(argument):,}")
    operand = [_plain(where, value, depth + 1) for value in argument]
    bools = {value for value in operand if type(value) is bool}
    # Equal numbers have equal hashes, int or float; bools, being equal to them too, stay apart.
    plain = {value for value in operand if type(value) not in (bool, list, dict)}
    maps: list[Any] = [value for value in operand if type(value) is dict]
    lists = [_equal(value) for value in operand if type(value) is list]

    def one(value: Any) -> bool:
        kind: object = type(value)
        if kind is bool:
            return value in bools
        if kind is dict:
            return any(_same(each, value) for each in maps)
        if kind is list:
            return False
        return value in plain or (value is MISSING and None in plain)

    test = _any_element(one)
    if not lists:
        return operand, test
    return operand, lambda value: test(value) or any(each(value) for each in lists)


def _op_nin(where: str, argument: Any, depth: int) -> tuple[Any, Test]:
    operand, test = _op_in(where, argument, depth)
    return operand, _not(test)


def _range(compare: Callable[[Any, Any], bool]) -> "_Operator":
    def make(where: str, argument: Any, depth: int) -> tuple[Any, Test]:
        if argument is None or _is_map(argument) or _is_list(argument):
            raise QueryError(
                f"{where} compares bool, number, str, bytes or datetime, not {_show(argument)}"
            )
        operand = _plain(where, argument, depth)
        if type(operand) is int or type(operand) is float:
            return operand, _any_element(
                lambda value: (
                    (type(value) is float or type(value) is int) and compare(value, operand)
                )
            )
        kind: object = datetime if isinstance(operand, datetime) else type(operand)
        return operand, _any_element(lambda value: type(value) is kind and compare(value, operand))

    return make


def _op_exists(where: str, argument: Any, _depth: int) -> tuple[Any, Test]:
    if type(argument) is not bool:
        raise QueryError(f"{where} takes True or False, not {_show(argument)}")
    if argument:
        return True, lambda value: value is not MISSING
    return False, lambda value: value is MISSING


def _op_contains(where: str, argument: Any, depth: int) -> tuple[Any, Test]:
    if _is_map(argument) or _is_list(argument):
        raise QueryError(f"{where} takes one value, not {_show(argument)}")
    operand = _plain(where, argument, depth)
    equal = _equal_one(operand)

    def test(value: Any) -> bool:
        if type(value) is list:
            elements: list[Any] = value
            return any(map(equal, elements))
        return type(value) is str and type(operand) is str and operand in value

    return operand, test


def _op_not(where: str, argument: Any, depth: int) -> tuple[Any, Test]:
    path = where.rpartition(": ")[0]
    if not _is_map(argument) or not _is_operators(path, argument):
        raise QueryError(f"{where} takes a map of operators, not {_show(argument)}")
    inner = tuple(_condition(path, name, operand, depth + 1) for name, operand in argument.items())
    return inner, _not(_all_of(tuple(each.test for each in inner)))


_Operator: TypeAlias = Callable[[str, Any, int], tuple[Any, Test]]

_OPERATORS: Final[dict[str, _Operator]] = {
    "$eq": _op_eq,
    "$ne": _op_ne,
    "$gt": _range(operator.gt),
    "$gte": _range(operator.ge),
    "$lt": _range(operator.lt),
    "$lte": _range(operator.le),
    "$in": _op_in,
    "$nin": _op_nin,
    "$exists": _op_exists,
    "$contains": _op_contains,
    "$not": _op_not,
}


# -- compiling -------------------------------------------------------------------------------


def _on_field(path: Path, name: str, operand: Any, test: Test) -> Match:
    """The test, put behind the way to the field. The commonest get closures of their own."""
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


def _all_of(tests: tuple[Callable[[Any], bool], ...]) -> Callable[[Any], bool]:
    if not tests:
        return lambda _: True
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        first, second = tests
        return lambda value: first(value) and second(value)

    def test(value: Any) -> bool:
        for each in tests:  # noqa: SIM110  # all() would build a generator
            if not each(value):
                return False
        return True

    return test


def _any_of(tests: tuple[Callable[[Any], bool], ...]) -> Callable[[Any], bool]:
    return lambda value: any(test(value) for test in tests)


_EMPTY: Final = Filter(())


# -- bounds ----------------------------------------------------------------------------------

_LOWS, _HIGHS = {"$gt": False, "$gte": True}, {"$lt": False, "$lte": True}


def _bounds(path: str, conditions: list[Condition]) -> FieldBounds:
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
