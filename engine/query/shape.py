"""The shape of a filter: its fields, operators and the classes of its values, without the values.

A filter that is a conjunction of comparisons with single values, as most are, or of such and of
branches, is read into its shape and the keys of its values. The maps of an $and are conjunctions
inside it.

Invariants:
- Two filters of one shape have the same conditions, in the same order, with values of the same
  classes, and their lists as many distinct values of each class. Lists of more than EXACT_MAX
  have values of the same classes, and about as many.
- What no index decides, $or and $not, is no part of the shape but its place.
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
from amberdb.engine.query.filter import Leaf, Nested
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

LISTED_MAX: Final = 1024
"""Values of an $in whose shape is read."""
EXACT_MAX: Final = 64
"""Values of an $in up to which their number is exact in the shape; a larger one is rounded up, to
at most an eighth more, so that lists of many sizes have few shapes."""

Shape: TypeAlias = tuple[Any, ...]
"""For each field its name, then either the tag of the value's class, or for each operator its name
and the tag; for $in and $nin the tags, or _Many; for $exists the bool, for $not None. For $and its
name and the shapes of its maps."""

CONDITIONS_MAX: Final = 64
"""Conditions of a filter that is read: what is kept of its shape has each of them."""
_DEPTH_MAX: Final = 8
"""Levels of $and that are read."""

_encoder_of: Final = SCALAR_ENCODERS.get


@final
class _Many(NamedTuple):
    """The shape of an $in with many values."""

    size: int
    """Of the distinct values, rounded up."""
    tags: tuple[int, ...]
    """Of their classes, each once."""


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
    branches: list[Nested]
    """$or and $not with their operands, which no index decides: they are parsed each time."""
    sizes_bytes: list[int]
    """For each leaf what query_bytes_max limits."""
    ands: list[int]
    """One item for each $and, which counts as an operator."""

    @property
    def is_nested(self) -> bool:
        """Whether the shape leaves out operators: those in a branch or in a $not."""
        return bool(self.branches) or any(operator == "$not" for _, operator, _ in self.leaves)


_Parts: TypeAlias = tuple[list[Leaf], list[Any], list[Nested], list[int], list[int]]
"""Those of a Shaped, but the shape."""

_NOTHING: Final = Shaped((), [], [], [], [], [])


def shape_of(where: Where | None) -> Shaped | None:
    """The filter as its shape and its values; None for one that is more than a conjunction of
    comparisons with single values and of branches, or is not valid."""
    if where is None:
        return _NOTHING
    if type(where) is not dict:
        return None
    parts: _Parts = [], [], [], [], []
    try:
        shape = _read(where, parts, 0)
    except InvalidDocumentError:
        return None
    if shape is None or len(parts[0]) > CONDITIONS_MAX:
        return None
    return Shaped(shape, *parts)


def _read(where: dict[Any, Any], into: _Parts, depth: int) -> Shape | None:
    """The shape of a map of the conjunction, whose conditions are added to those that were read."""
    leaves, keys, branches, sizes, _ = into
    shape: list[Any] = []
    for name, operand in where.items():
        if type(name) is not str or name[:1] == "$":
            if name == "$or" or name == "$not":
                branches.append((name, operand, depth))
                continue
            maps = _read_and(operand, into, depth) if name == "$and" else None
            if maps is None:
                return None
            shape += (name, maps)
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
    return tuple(shape)


def _read_and(operand: Any, into: _Parts, depth: int) -> tuple[Shape, ...] | None:
    """The shapes of the maps of an $and."""
    if type(operand) not in (list, tuple) or not operand or depth == _DEPTH_MAX:
        return None
    into[-1].append(1)
    shapes: list[Shape] = []
    for where in operand:
        shape = _read(where, into, depth + 1) if type(where) is dict else None
        if shape is None:
            return None
        shapes.append(shape)
    return tuple(shapes)


def _operand(operator: object, argument: Any) -> tuple[Any, Any, int] | None:
    """What the shape has of one operator's operand, its key or keys, and their size."""
    if type(operator) is not str or operator[:1] != "$" or operator == "$and":
        return None
    encoder = _encoder_of(type(argument))
    if encoder is not None:
        key = encoder(argument)
        if operator != "$exists":
            return key[0], key, len(key)
        return (argument, _KEY_OF_NONE, len(key)) if type(argument) is bool else None
    if operator == "$not" and type(argument) is dict:
        return None, None, 0  # parsed each time
    if operator not in ("$in", "$nin"):
        return None
    if type(argument) not in (list, tuple, set, frozenset) or len(argument) > LISTED_MAX:
        return None
    distinct: set[bytes] = set()
    for value in argument:
        encoder = _encoder_of(type(value))
        if encoder is None:
            return None
        distinct.add(encoder(value))
    keys = sorted(distinct)
    tags = tuple([key[0] for key in keys])
    if len(keys) <= EXACT_MAX:
        return tags, keys, 0
    step = 1 << (len(keys).bit_length() - 4)
    return _Many(-(-len(keys) // step) * step, tuple(dict.fromkeys(tags))), keys, 0


def stand_in(shape: Shape) -> dict[str, Any]:
    """A filter of this shape, with values of its own and without branches."""
    where: dict[str, Any] = {}
    parts = iter(shape)
    name = ""
    for part in parts:
        if type(part) is not str:
            where[name] = _values((part,))[0]
        elif part == "$and":
            where[part] = [stand_in(shape) for shape in next(parts)]
        elif part[:1] != "$":
            name = part
        else:
            kind = next(parts)
            value: Any = kind
            if kind is None:
                value = {"$eq": ""}  # which None does not meet, so that $not excludes nothing
            elif type(kind) is _Many:
                value = _many_values(kind)
            elif type(kind) is tuple:
                value = _values(kind)
            elif type(kind) is int:
                (value,) = _values((kind,))
            where.setdefault(name, {})[part] = value
    return where


def _values(tags: tuple[int, ...]) -> list[Any]:
    """A distinct value for each tag."""
    return [_STAND_INS[tag](tags[:at].count(tag)) for at, tag in enumerate(tags)]


def _many_values(many: _Many) -> list[Any]:
    """So many distinct values, of each class at least one."""
    single = [tag for tag in many.tags if tag not in (TAG_NONE, TAG_BOOL)]
    others = [tag for tag in many.tags if tag not in single]
    make = _STAND_INS[single[0]]
    count = many.size - len(many.tags) + 1
    return _values((*others, *single[1:])) + [make(number) for number in range(count)]


_STAND_INS: Final[dict[int, Callable[[int], Any]]] = {
    TAG_NONE: lambda _: None,
    TAG_BOOL: lambda number: number > 0,
    TAG_NUMBER: lambda number: number,
    TAG_STR: str,
    TAG_BYTES: lambda number: str(number).encode(),
    TAG_DATETIME: lambda number: _EPOCH + timedelta(number),
}
