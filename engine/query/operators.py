"""The operators of filters: functions from ("path: $op", operand, depth, size) to the checked
operand and a test of a field's value.

Invariants:
- A filter is refused as soon as it is larger than the options allow, before the rest of it is read.
- An operator copies its operand, so that later changes by the caller do not change the filter.
- A test of a single value is applied to the elements of a list by _any_element.
"""

# The values of a document have no static type, so type(value) and lists are unknown to pyright.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

import operator
import reprlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias, TypeGuard, final

from amberdb._errors import InvalidDocumentError, QueryError
from amberdb._plain import plain_scalar, plain_text
from amberdb.engine.options import Options
from amberdb.index.ordered.keys import SCALAR_ENCODERS, encode
from amberdb.index.paths import MISSING

IN_MAX = 10_000
"""Values of one $in or $nin. They are found by hash, whatever their number, so they do not count in
query_bytes_max."""

Test: TypeAlias = Callable[[Any], bool]
"""A predicate on a field's value. A missing field is None, but MISSING for $exists and $not."""
Operator: TypeAlias = "Callable[[str, Any, int, Size], tuple[Any, Test]]"


@final
class Size:
    """The size of one filter as far as it is parsed, and the limits of its parts."""

    __slots__ = ("_bytes", "_bytes_max", "_operators", "_operators_max", "depth_max")

    def __init__(self, options: Options, operators: int = 0, size_bytes: int = 0) -> None:
        """`operators` and `size_bytes` are those that have been checked already."""
        self.depth_max = options.query_depth_max
        self._operators_max = options.query_operators_max
        self._bytes_max = options.query_bytes_max
        self._operators = operators
        self._bytes = size_bytes

    def add_operator(self) -> None:
        """Raises QueryError past query_operators_max."""
        self._operators += 1
        if self._operators > self._operators_max:
            raise QueryError(
                f"the filter has more than {self._operators_max:,} operators, the limit "
                "query_operators_max: ask in several queries, use $in for many values of one "
                "field, or raise the limit at open"
            )

    def add_bytes(self, count: int) -> None:
        """Raises QueryError past query_bytes_max."""
        self._bytes += count
        if self._bytes > self._bytes_max:
            raise QueryError(
                f"the filter has more than {self._bytes_max:,} bytes, the limit query_bytes_max: "
                "compare with shorter values, or raise the limit at open"
            )

    def check_depth(self, depth: int, what: str = "a filter has") -> None:
        """Raises QueryError past query_depth_max."""
        if depth > self.depth_max:
            raise QueryError(
                f"{what} at most {self.depth_max} levels, the limit query_depth_max: nest it less"
            )


_SCALARS: Final[frozenset[object]] = frozenset({str, int, float, bool, type(None), bytes, datetime})


def is_map(value: object) -> TypeGuard[Mapping[Any, Any]]:
    # isinstance() with an abstract class is slow, so the common types are excluded first.
    return type(value) not in _SCALARS and isinstance(value, Mapping)


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, (list, tuple))


def show(value: object) -> str:
    return reprlib.repr(value)


def _plain(where: str, value: Any, depth: int, size: Size) -> Any:
    """A copy of the operand in the types of stored documents. Raises QueryError."""
    if depth > size.depth_max:
        size.check_depth(depth, f"{where} takes a value of")
    if is_map(value):
        plain: dict[str, Any] = {}
        for name, item in value.items():
            text = plain_text(name)
            if text is None:
                raise QueryError(
                    f"{where}: a map has the key {name!r}, not a str: name fields by text"
                )
            size.add_bytes(len(text))
            plain[text] = _plain(where, item, depth + 1, size)
        return plain
    if is_list(value):
        return [_plain(where, item, depth + 1, size) for item in value]
    scalar, key = _scalar(where, value)
    size.add_bytes(len(key))
    return scalar


def _scalar(where: str, value: Any) -> tuple[Any, bytes]:
    """A single value in its plain type, and its key. Raises QueryError for a value that no document
    can have."""
    try:
        scalar = value if _is_beyond_utc(value) else plain_scalar(value)
        return scalar, encode(scalar)
    except InvalidDocumentError as error:
        raise QueryError(f"{where} cannot take {error.message}") from None


def _is_beyond_utc(value: object) -> bool:
    """Whether this is a time that UTC cannot express, as datetime.max west of Greenwich: no
    document has it, and as a bound it compares as it is."""
    if type(value) is not datetime or value.tzinfo is UTC or value.utcoffset() is None:
        return False
    try:
        value.astimezone(UTC)
    except OverflowError:
        return True
    return False


def _same(left: Any, right: Any) -> bool:
    """Equality of plain values at any depth: 1 equals 1.0, but not True."""
    kind: object = type(left)
    if kind is not type(right):
        # Of different types only an int and a float can be equal.
        return left == right and kind is not bool and type(right) is not bool
    if kind is dict:
        return len(left) == len(right) and all(
            name in right and _same(value, right[name]) for name, value in left.items()
        )
    if kind is list:
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)


def _equal_one(operand: Any) -> Test:
    """A test of a single value for equality with an operand that is not a list."""
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
    """A test that a list passes if one of its elements passes, and another value if it passes."""

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
    """A test of a field for $eq: the value, or one element of a list, equals the operand."""
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


def negated(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: not test(value)


def _op_eq(where: str, argument: Any, depth: int, size: Size) -> tuple[Any, Test]:
    operand = _plain(where, argument, depth, size)
    return operand, _equal(operand)


def _op_ne(where: str, argument: Any, depth: int, size: Size) -> tuple[Any, Test]:
    operand, test = _op_eq(where, argument, depth, size)
    return operand, negated(test)


def _op_in(where: str, argument: Any, depth: int, size: Size) -> tuple[Any, Test]:
    if not isinstance(argument, (list, tuple, set, frozenset)):
        raise QueryError(f"{where} takes a list of values, not {show(argument)}")
    if len(argument) > IN_MAX:
        raise QueryError(f"{where} takes at most {IN_MAX:,} values, not {len(argument):,}")
    operand = [_plain_value(where, value, depth + 1, size) for value in argument]
    bools = {value for value in operand if type(value) is bool}
    # An int and an equal float have one hash. A bool equals an int too: bools have their own set.
    plain = {value for value in operand if type(value) not in (bool, list, dict)}
    maps: list[Any] = [value for value in operand if type(value) is dict]
    lists = [_equal(value) for value in operand if type(value) is list]

    def one(value: Any) -> bool:
        kind: object = type(value)
        if kind is bool:
            return value in bools
        if kind is dict:
            return any(_same(operand_map, value) for operand_map in maps)
        if kind is list:
            return False
        return value in plain or (value is MISSING and None in plain)

    test = _any_element(one)
    if not lists:
        return operand, test
    return operand, lambda value: test(value) or any(equal(value) for equal in lists)


def _plain_value(where: str, value: Any, depth: int, size: Size) -> Any:
    """A value of $in: single ones have no part in the filter's bytes, but maps and lists, which are
    compared one by one."""
    kind: object = type(value)
    if kind is str or kind is int:  # as most are: valid if they have a key, and plain already
        try:
            SCALAR_ENCODERS[kind](value)
            return value
        except InvalidDocumentError:
            pass  # _scalar() says where
    elif is_map(value) or is_list(value):
        return _plain(where, value, depth, size)
    scalar, _ = _scalar(where, value)
    return scalar


def _op_nin(where: str, argument: Any, depth: int, size: Size) -> tuple[Any, Test]:
    operand, test = _op_in(where, argument, depth, size)
    return operand, negated(test)


def _range(compare: Callable[[Any, Any], bool]) -> "Operator":
    def make(where: str, argument: Any, depth: int, size: Size) -> tuple[Any, Test]:
        if argument is None or is_map(argument) or is_list(argument):
            raise QueryError(
                f"{where} compares bool, number, str, bytes or datetime, not {show(argument)}"
            )
        operand = _plain(where, argument, depth, size)
        if type(operand) is int or type(operand) is float:
            return operand, _any_element(
                lambda value: (
                    (type(value) is float or type(value) is int) and compare(value, operand)
                )
            )
        kind: object = type(operand)
        return operand, _any_element(lambda value: type(value) is kind and compare(value, operand))

    return make


def _op_prefix(where: str, argument: Any, depth: int, size: Size) -> tuple[Any, Test]:
    is_single = not is_map(argument) and not is_list(argument)
    operand: Any = _plain(where, argument, depth, size) if is_single else None
    kind: object = type(operand)
    if kind is not str and kind is not bytes:
        raise QueryError(f"{where} takes the beginning of a str or of bytes, not {show(argument)}")
    return operand, _any_element(lambda value: type(value) is kind and value.startswith(operand))


def _op_exists(where: str, argument: Any, depth: int, size: Size) -> tuple[Any, Test]:
    argument = _plain(where, argument, depth, size)
    if type(argument) is not bool:
        raise QueryError(f"{where} takes True or False, not {show(argument)}")
    if argument:
        return True, lambda value: value is not MISSING
    return False, lambda value: value is MISSING


def _op_contains(where: str, argument: Any, depth: int, size: Size) -> tuple[Any, Test]:
    if is_map(argument) or is_list(argument):
        raise QueryError(f"{where} takes one value, not {show(argument)}")
    operand = _plain(where, argument, depth, size)
    equal = _equal_one(operand)

    def test(value: Any) -> bool:
        if type(value) is list:
            elements: list[Any] = value
            return any(map(equal, elements))
        return type(value) is str and type(operand) is str and operand in value

    return operand, test


OPERATORS: Final[dict[str, Operator]] = {
    "$eq": _op_eq,
    "$ne": _op_ne,
    "$gt": _range(operator.gt),
    "$gte": _range(operator.ge),
    "$lt": _range(operator.lt),
    "$lte": _range(operator.le),
    "$in": _op_in,
    "$nin": _op_nin,
    "$prefix": _op_prefix,
    "$exists": _op_exists,
    "$contains": _op_contains,
}
"""All operators of a field except $not, which needs the parser (filter.py)."""
