"""The filter language: parses a map into a predicate and into bounds for the planner.

docs/queries.md defines the language.

Invariants:
- `matches` is the full meaning of a filter. `fields` only narrows the search: every document that
  matches has, for each field, an index key within the FieldBounds of the field.
- A filter copies the caller's maps, so changing them afterwards does not change the filter.
- Documents are as the codec decodes them: plain types, datetimes in UTC, no NaN.
- Values of different type classes are never equal or ordered; True is not 1.
"""

# The values of a document have no static type, so type(value) and lists are unknown to pyright.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias, final

from amberdb._errors import QueryError
from amberdb._types import Where
from amberdb.engine.options import Options
from amberdb.engine.query.condition import Condition, FieldBounds, Match, bounds_of
from amberdb.engine.query.operators import (
    OPERATORS,
    Operator,
    Size,
    Test,
    is_list,
    is_map,
    negated,
    show,
)
from amberdb.index.paths import Path, path_name


@final
class Branch:
    """$or or a top-level $not: an operator over whole filters."""

    __slots__ = ("children", "matches", "operator")

    def __init__(self, name: str, children: "tuple[Filter, ...]") -> None:
        self.operator = name
        self.children = children
        tests = tuple(child.matches for child in children)
        self.matches = _any_of(tests) if name == "$or" else negated(tests[0])

    @property
    def shape(self) -> str:
        """The branch without its values."""
        inner = ", ".join(child.shape for child in self.children)
        return f"{self.operator}: [{inner}]" if self.operator == "$or" else f"$not: {inner}"


@final
class Filter:
    """A parsed filter: the conjunction of its parts. `matches(document)` is its predicate."""

    __slots__ = ("_fields", "matches", "parts")

    parts: tuple[Condition | Branch, ...]
    matches: Match

    def __init__(self, parts: Iterable[Condition | Branch]) -> None:
        self.parts = tuple(parts)
        self.matches = _all_of(tuple([part.matches for part in self.parts]))
        self._fields: dict[str, FieldBounds] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the filter has no condition, so that every document matches."""
        return not self.parts

    @property
    def is_by_id(self) -> bool:
        """Whether the id alone decides it: a migration changes none."""
        return all(isinstance(part, Condition) and part.path == "id" for part in self.parts)

    @property
    def fields(self) -> dict[str, FieldBounds]:
        """The bounds of index keys by dotted path, from the conditions that every match meets."""
        if self._fields is None:
            by_path: dict[str, list[Condition]] = {}
            for part in self.parts:
                if isinstance(part, Condition):
                    by_path.setdefault(part.path, []).append(part)
            self._fields = {
                path: bounds_of(path, conditions) for path, conditions in by_path.items()
            }
        return self._fields

    def without(self, paths: Iterable[str]) -> "Filter":
        """The residual filter after a scan within the bounds of these fields: without the
        conditions that the bounds decide.

        The fields must hold no list in any document of the scanned index.
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
        """Raises QueryError if the filter compares a field that holds vectors: vectors have no
        order, and equal floats are not a useful condition."""
        for part in self.parts:
            if isinstance(part, Branch):
                for child in part.children:
                    child.refuse_vectors(fields)
            elif part.path in fields and not part.asks_presence:
                raise QueryError(
                    f"{part.path!r} holds vectors: filter by {{{part.path!r}: "
                    "{'$exists': True}}, or use search(vector=...) for the nearest"
                )

    @property
    def shape(self) -> str:
        """The filter without its values: equal for all filters that one line of code makes."""
        return "{" + ", ".join(part.shape for part in self.parts) + "}"

    def __repr__(self) -> str:
        return f"Filter({self.shape})"


# -- parsing ---------------------------------------------------------------------------------

_DEFAULTS: Final = Options()
_Parts: TypeAlias = list[Condition | Branch]
Leaf: TypeAlias = tuple[str, str, Any]
"""A condition: path, operator, operand."""


Nested: TypeAlias = tuple[str, Any, int]
"""$or or $not with its operand, and the level of the map that it is in."""


def conjunction(
    leaves: Sequence[Leaf],
    branches: Sequence[Nested],
    options: Options,
    decided: tuple[int, int] = (0, 0),
) -> Filter:
    """The filter that all of these conditions, and of these branches with their operands, make.
    `decided` are the operators and bytes of conditions that are left out, which count as well.
    Raises QueryError as parse() does."""
    size = Size(options, *decided)
    parts: _Parts = [_condition(path, name, operand, 0, size) for path, name, operand in leaves]
    for name, operand, depth in branches:
        _parse_branch(name, operand, parts, depth, size)
    return Filter(parts)


def parse(where: Where | None, options: Options = _DEFAULTS) -> Filter:
    """Checks and compiles a filter; None is the empty filter. Raises QueryError, which names the
    invalid part, or the limit of the options that the filter exceeds."""
    if where is None:
        return EMPTY
    parts: _Parts = []
    _parse_map(where, parts, 0, Size(options))
    return Filter(parts)


def _parse_map(where: object, parts: _Parts, depth: int, size: Size) -> None:
    if not is_map(where):
        raise QueryError(f"a filter is a map, not {type(where).__name__}: {show(where)}")
    size.check_depth(depth)
    for name, operand in where.items():
        if isinstance(name, str) and name.startswith("$"):
            _parse_branch(name, operand, parts, depth, size)
        else:
            _parse_field(name, operand, parts, depth, size)


def _parse_branch(name: str, operand: Any, parts: _Parts, depth: int, size: Size) -> None:
    size.add_operator()
    if name == "$not":
        inner: _Parts = []
        _parse_map(operand, inner, depth + 1, size)
        parts.append(Branch("$not", (Filter(inner),)))
        return
    if name not in ("$and", "$or"):
        hint = " needs a field: {field: {...}}" if name in _OPERATORS else " is not an operator"
        raise QueryError(f"{name}{hint}; filters are combined with $and, $or and $not")
    if not is_list(operand) or not operand:
        raise QueryError(f"{name} takes a list of at least one filter, not {show(operand)}")
    children: list[Filter] = []
    for child in operand:
        if name == "$and":
            _parse_map(child, parts, depth + 1, size)
        else:
            inner = []
            _parse_map(child, inner, depth + 1, size)
            children.append(Filter(inner))
    if children:
        parts.append(Branch("$or", tuple(children)))


def _parse_field(name: Any, operand: Any, parts: _Parts, depth: int, size: Size) -> None:
    try:
        if type(name) is not str:
            name = path_name(name)
        if isinstance(name, str):
            size.add_bytes(len(name))
        path = Path.of(name).name  # cached by name, so that a name is checked once
    except ValueError as error:
        raise QueryError(f"in a filter: {error}") from None
    if is_map(operand) and _is_operators(path, operand):
        for operator_name, argument in operand.items():
            parts.append(_condition(path, operator_name, argument, depth, size))
    else:
        _refuse_operators_inside(path, operand, depth, size)
        parts.append(_condition(path, "$eq", operand, depth, size))


def _is_operators(path: str, operand: Mapping[Any, Any]) -> bool:
    """Whether a map holds operators, and not a value to compare. Raises QueryError for a mix."""
    are_operators = [isinstance(name, str) and name.startswith("$") for name in operand]
    if any(are_operators) and not all(are_operators):
        raise QueryError(f"{path}: operators and plain keys in one map: {show(operand)}")
    return any(are_operators)


def _refuse_operators_inside(path: str, operand: Any, depth: int, size: Size) -> None:
    """Raises QueryError for an operator inside a value: {"a": {"b": {"$gt": 1}}} would compare a
    map and match nothing, where {"a.b": {"$gt": 1}} was meant."""
    if depth > size.depth_max:
        size.check_depth(depth, f"{path}: a value has")
    if is_map(operand):
        for name, value in operand.items():
            if isinstance(name, str) and name.startswith("$"):
                raise QueryError(
                    f"{path}: {name} inside a map that is compared as a whole: use a dotted path "
                    "to the inner field, or $eq if the stored map has this key"
                )
            _refuse_operators_inside(path, value, depth + 1, size)
    elif is_list(operand):
        for value in operand:
            _refuse_operators_inside(path, value, depth + 1, size)


def _condition(path: str, name: str, argument: Any, depth: int, size: Size) -> Condition:
    size.add_operator()
    make = _OPERATORS.get(name)
    if make is None:
        hint = (
            "combines filters, not the operators of a field"
            if name in ("$and", "$or")
            else f"is not an operator; the operators are {' '.join(_OPERATORS)}"
        )
        raise QueryError(f"{path}: {name} {hint}")
    size.check_depth(depth)
    where = f"{path}: {name}"
    operand, test = make(where, argument, depth, size)
    return Condition(path, name, operand, test)


def _op_not(where: str, argument: Any, depth: int, size: Size) -> tuple[Any, Test]:
    path = where.rpartition(": ")[0]
    if not is_map(argument) or not _is_operators(path, argument):
        raise QueryError(f"{where} takes a map of operators, not {show(argument)}")
    inner = tuple(
        _condition(path, name, operand, depth + 1, size) for name, operand in argument.items()
    )
    return inner, negated(_all_of(tuple(condition.test for condition in inner)))


_OPERATORS: Final[dict[str, Operator]] = {**OPERATORS, "$not": _op_not}


# -- compiling -------------------------------------------------------------------------------


def _all_of(tests: tuple[Callable[[Any], bool], ...]) -> Callable[[Any], bool]:
    """Whether a value passes all tests; one and two tests, the common cases, without a loop."""
    if not tests:
        return lambda _: True
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        first, second = tests
        return lambda value: first(value) and second(value)

    def passes(value: Any) -> bool:
        for test in tests:  # noqa: SIM110  # all() would build a generator
            if not test(value):
                return False
        return True

    return passes


def _any_of(tests: tuple[Callable[[Any], bool], ...]) -> Callable[[Any], bool]:
    return lambda value: any(test(value) for test in tests)


EMPTY: Final = Filter(())
