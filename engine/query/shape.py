"""The shape of a filter: its fields, operators and the classes of its values, without the values.

A filter that is a conjunction of comparisons with single values, as most are, or of such and of
branches, is read into its shape and the keys of its values.

Invariants:
- Two filters of one shape have the same conditions, in the same order, with values of the same
  classes, and their lists as many distinct values of each class.
- A filter that is not read here goes through filter.parse(), which knows the whole language and
  makes all error messages. What is read here need not be valid.
"""

# The values of a filter have no static type, so the parts of maps and lists are unknown to pyright.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, TypeAlias, final

from amberdb._errors import InvalidDocumentError
from amberdb._types import Where
from amberdb.engine.query.filter import Leaf
from amberdb.index.ordered.keys import (
    SCALAR_ENCODERS,
    TAG_BOOL,
    TAG_BYTES,
    TAG_DATETIME,
    TAG_NONE,
    TAG_NUMBER,
    TAG_STR,
    encode,
)

_LISTED_MAX: Final = 64
"""Values of an $in whose shape is read."""

Shape: TypeAlias = tuple[Any, ...]
"""For each field its name, then either the tag of the value's class, or for each operator its name
and the tag; for $in and $nin the tags, for $exists the bool."""

_encoder_of: Final = SCALAR_ENCODERS.get
_KEY_OF_NONE: Final = encode(None)
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


@final
class Shaped(NamedTuple):
    """A filter, read."""

    shape: Shape
    leaves: list[Leaf]
    """The conditions: path, operator, operand."""
    keys: list[Any]
    """For each leaf the key of its value; of an $in the distinct keys, ascending."""
    branches: list[tuple[str, Any]]
    """$or and $not with their operands, which no index decides: they are parsed each time."""
    sizes_bytes: list[int]
    """For each leaf what query_bytes_max limits."""


_NOTHING: Final = Shaped((), [], [], [], [])


def shape_of(where: Where | None) -> Shaped | None:
    """The filter as its shape and its values; None for one that is more than a conjunction of
    comparisons with single values and of branches, or is not valid."""
    if where is None:
        return _NOTHING
    if type(where) is not dict:
        return None
    shape: list[Any] = []
    leaves: list[Leaf] = []
    keys: list[Any] = []
    branches: list[tuple[str, Any]] = []
    sizes: list[int] = []
    try:
        for name, operand in where.items():
            if type(name) is not str or name[:1] == "$":
                if name != "$or" and name != "$not":
                    return None
                branches.append((name, operand))
                continue
            encoder = _encoder_of(type(operand))
            if encoder is not None:
                key = encoder(operand)
                shape += (name, key[0])
                leaves.append((name, "$eq", operand))
                keys.append(key)
                sizes.append(len(name) + len(key))
                continue
            if type(operand) is not dict or not operand:
                return None
            shape.append(name)
            size = len(name)
            for operator, argument in operand.items():
                part = _operand(operator, argument)
                if part is None:
                    return None
                kind, key, key_size = part
                shape += (operator, kind)
                leaves.append((name, operator, argument))
                keys.append(key)
                sizes.append(size + key_size)
                size = 0
    except InvalidDocumentError:
        return None
    return Shaped(tuple(shape), leaves, keys, branches, sizes)


def _operand(operator: object, argument: Any) -> tuple[Any, Any, int] | None:
    """What the shape has of one operator's operand, its key or keys, and their size."""
    if type(operator) is not str or operator[:1] != "$":
        return None
    encoder = _encoder_of(type(argument))
    if encoder is not None:
        key = encoder(argument)
        if operator != "$exists":
            return key[0], key, len(key)
        return (argument, _KEY_OF_NONE, len(key)) if type(argument) is bool else None
    if operator not in ("$in", "$nin"):
        return None
    if type(argument) not in (list, tuple, set, frozenset) or len(argument) > _LISTED_MAX:
        return None
    distinct: set[bytes] = set()
    for value in argument:
        encoder = _encoder_of(type(value))
        if encoder is None:
            return None
        distinct.add(encoder(value))
    keys = sorted(distinct)
    return tuple([key[0] for key in keys]), keys, 0


def stand_in(shape: Shape) -> dict[str, Any]:
    """A filter of this shape, with values of its own and without branches."""
    where: dict[str, Any] = {}
    parts = iter(shape)
    name = ""
    for part in parts:
        if type(part) is not str:
            where[name] = _values((part,))[0]
        elif part[:1] != "$":
            name = part
        else:
            kind = next(parts)
            value: Any = kind
            if type(kind) is tuple:
                value = _values(kind)
            elif type(kind) is int:
                (value,) = _values((kind,))
            where.setdefault(name, {})[part] = value
    return where


def _values(tags: tuple[int, ...]) -> list[Any]:
    """A distinct value for each tag."""
    return [_STAND_INS[tag](tags[:at].count(tag)) for at, tag in enumerate(tags)]


_STAND_INS: Final[dict[int, Callable[[int], Any]]] = {
    TAG_NONE: lambda _: None,
    TAG_BOOL: lambda number: number > 0,
    TAG_NUMBER: lambda number: number,
    TAG_STR: str,
    TAG_BYTES: lambda number: str(number).encode(),
    TAG_DATETIME: lambda number: _EPOCH + timedelta(number),
}
