"""The operators of filters. Each takes ("path: $op", operand, depth) and returns the checked
operand and a test of a field's value.

Invariants:
- An operator copies its operand, so that later changes by the caller change no filter.
- A test of one element, which is no list, is applied to the elements of a list by _any_element.
"""

# What a document holds has no static type, so type(value) and its lists are unknown to pyright.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

import operator
import reprlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias, TypeGuard

from amberdb._errors import InvalidDocumentError, QueryError
from amberdb.index.ordered.keys import encode
from amberdb.index.paths import MISSING

DEPTH_MAX = 32
IN_MAX = 10_000


Test: TypeAlias = Callable[[Any], bool]
"""Of the value of a field: None when missing, except for $exists, which gets MISSING."""
Operator: TypeAlias = Callable[[str, Any, int], tuple[Any, Test]]


_SCALARS: Final[frozenset[object]] = frozenset({str, int, float, bool, type(None), bytes, datetime})


def is_map(value: object) -> TypeGuard[Mapping[Any, Any]]:
    # Asking an abstract class takes longer than all the rest, so the commonest go first.
    return type(value) not in _SCALARS and isinstance(value, Mapping)


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, (list, tuple))


def show(value: object) -> str:
    return reprlib.repr(value)


def _plain(where: str, value: Any, depth: int) -> Any:
    """The operand as a document would hold it, and a copy. Raises QueryError."""
    if depth > DEPTH_MAX:
        raise QueryError(f"{where} takes a value of at most {DEPTH_MAX} levels")
    if is_map(value):
        plain: dict[str, Any] = {}
        for name, item in value.items():
            if not isinstance(name, str):
                raise QueryError(f"{where}: a map has the key {name!r}, not a str")
            plain[str.__str__(name)] = _plain(where, item, depth + 1)
        return plain
    if is_list(value):
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


def negated(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: not test(value)


def _op_eq(where: str, argument: Any, depth: int) -> tuple[Any, Test]:
    operand = _plain(where, argument, depth)
    return operand, _equal(operand)


def _op_ne(where: str, argument: Any, depth: int) -> tuple[Any, Test]:
    operand, test = _op_eq(where, argument, depth)
    return operand, negated(test)


def _op_in(where: str, argument: Any, depth: int) -> tuple[Any, Test]:
    if not isinstance(argument, (list, tuple, set, frozenset)):
        raise QueryError(f"{where} takes a list of values, not {show(argument)}")
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
    return operand, negated(test)


def _range(compare: Callable[[Any, Any], bool]) -> "Operator":
    def make(where: str, argument: Any, depth: int) -> tuple[Any, Test]:
        if argument is None or is_map(argument) or is_list(argument):
            raise QueryError(
                f"{where} compares bool, number, str, bytes or datetime, not {show(argument)}"
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
        raise QueryError(f"{where} takes True or False, not {show(argument)}")
    if argument:
        return True, lambda value: value is not MISSING
    return False, lambda value: value is MISSING


def _op_contains(where: str, argument: Any, depth: int) -> tuple[Any, Test]:
    if is_map(argument) or is_list(argument):
        raise QueryError(f"{where} takes one value, not {show(argument)}")
    operand = _plain(where, argument, depth)
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
    "$exists": _op_exists,
    "$contains": _op_contains,
}
"""All operators of a field but $not, which needs the parser."""
