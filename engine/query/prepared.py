"""Prepared queries: what is known of all queries of one shape and order over one schema, made once
and kept.

Invariants:
- What is kept of a shape comes from stand-ins for the values, so it cannot contain a value.
- It is the same for all values: where the bounds of an index depend on how the values compare,
  nothing is kept.
- At most STATEMENTS_MAX shapes are kept, those used last. The schema is part of the key: another
  declaration, or another collection, has another one.
"""

# The values of a filter have no static type, so the parts of maps and lists are unknown to pyright.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, final

from amberdb._errors import QueryError
from amberdb.engine.options import Options
from amberdb.engine.query.access import Access, KeyBounds, range_of
from amberdb.engine.query.condition import HIGHS, LOWS, PREFIX, FieldBounds
from amberdb.engine.query.filter import EMPTY, conjunction, parse
from amberdb.engine.query.order import OrderField
from amberdb.engine.query.planner import Plan, Statement
from amberdb.engine.query.shape import Shape, Shaped, stand_in
from amberdb.engine.schema.expiry_index import ExpiryIndex
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.schema.schema import Schema
from amberdb.index.ordered.keys import after_prefix

STATEMENTS_MAX: Final = 1024
"""Shapes that are kept."""
_BINDINGS_MAX: Final = 64
_EQUALITIES: Final = frozenset({"$eq", "$in", "$contains", "$exists"})
"""Operators whose values, None for $exists, are the keys that a document can have."""


@final
class Prepared:
    """What is known of all queries of one shape and order over one schema."""

    __slots__ = ("_bindings", "_options", "_origins", "filter_shape", "statement")

    def __init__(
        self,
        statement: Statement,
        filter_shape: str,
        origins: "dict[str, _Origin]",
        options: Options,
    ) -> None:
        self.statement = statement
        self.filter_shape = filter_shape
        """Filter.shape of a filter that is not nested."""
        self._origins = origins
        self._options = options
        self._bindings: dict[Access, _Binding] = {}
        """By path; as few as Statement keeps."""

    def plan(self, path: Access, shaped: Shaped) -> Plan:
        """The plan of a path for the values of a filter of this shape. Raises QueryError."""
        binding = self._bindings.get(path)
        if binding is None:
            if len(self._bindings) >= _BINDINGS_MAX:
                self._bindings.clear()
            binding = self._bindings[path] = self._binding(path, len(shaped.leaves))
        keys = shaped.keys
        heads: Sequence[bytes] = ()
        if binding.fixed is None:
            bounds = {name: origin.bounds(keys) for name, origin in binding.origins.items()}
            ranges = path.ranges(bounds)
            if path.is_merged:
                heads = sorted(path.heads(bounds))
        else:
            head = path.prefix
            for at in binding.fixed:
                head += keys[at]
            if path.range is None:
                ranges = ((head, end_of(head)),)
            else:
                name, descends = path.range
                within = range_of(head, binding.origins[name].bounds(keys), descends)
                ranges = (within,) if within[0] < within[1] else ()
        if not binding.rest and not shaped.branches:
            return Plan(path, ranges, EMPTY, heads)
        sizes = shaped.sizes_bytes
        operators = len(sizes) + len(shaped.ands) - len(binding.rest)
        decided = operators, sum([sizes[at] for at in binding.decided])
        rest = [shaped.leaves[at] for at in binding.rest]
        residual = conjunction(rest, shaped.branches, self._options, decided)
        return Plan(path, ranges, residual, heads)

    def _binding(self, path: Access, leaves: int) -> "_Binding":
        origins = {name: self._origins[name] for name in path.used}
        covered = {at for name in path.decided for at in origins[name].covered}
        equals = [origins[name].equals for name, _ in path.equals]
        is_fixed = (
            path.index is not None
            and not path.is_halved
            and not isinstance(path.index, ExpiryIndex)
            and all(origins[name].is_single for name, _ in path.equals)
            and not any(descends for _, descends in path.equals)
        )
        fixed = tuple([at for at in equals if at is not None]) if is_fixed else None
        rest = tuple([at for at in range(leaves) if at not in covered])
        return _Binding(origins, fixed, rest, tuple(covered))


class _Binding(NamedTuple):
    """How the values of a filter make the plan of one path."""

    origins: "dict[str, _Origin]"
    fixed: tuple[int, ...] | None
    """Where the keys are that the bounds of the one range begin with; None for other ranges."""
    rest: tuple[int, ...]
    """The conditions of the residual filter."""
    decided: tuple[int, ...]
    """The others."""


class _Origin(NamedTuple):
    """Where the bounds of one field are among the keys of a filter."""

    equals: int | None
    is_single: bool
    """It is an equality with one value."""
    low: int | None
    low_inclusive: bool
    high: int | None
    high_inclusive: bool
    covered: tuple[int, ...]
    is_prefix: bool = False
    """The low one is the key of a prefix, from which the high one follows."""

    def bounds(self, keys: list[Any]) -> KeyBounds:
        if self.equals is not None:
            key = keys[self.equals]
            return KeyBounds((key,) if self.is_single else key)
        if self.is_prefix:
            assert self.low is not None
            key = keys[self.low]
            return KeyBounds(None, key, True, after_prefix(key), False)
        return KeyBounds(
            None,
            None if self.low is None else keys[self.low], self.low_inclusive,
            None if self.high is None else keys[self.high], self.high_inclusive,
        )  # fmt: skip


@lru_cache(maxsize=STATEMENTS_MAX)
def prepared(schema: Schema, shape: Shape, order: tuple[OrderField, ...]) -> Prepared | None:
    """What is kept of a shape; None when the bounds depend on the values, or for an invalid
    filter."""
    try:
        filter = parse(stand_in(shape), schema.options)
        filter.refuse_vectors(schema.vectors)
    except QueryError:
        return None
    if any(path in schema.vectors for path, _ in order):
        return None
    positions = {id(part): at for at, part in enumerate(filter.parts)}
    origins: dict[str, _Origin] = {}
    for path, bounds in filter.fields.items():
        if bounds.narrows:
            origin = _origin(bounds, positions)
            if origin is None:
                return None
            origins[path] = origin
    statement = Statement(schema, filter.fields, order)
    statement.find_sole()
    return Prepared(statement, filter.shape, origins, schema.options)


def _origin(bounds: FieldBounds, positions: Mapping[int, int]) -> _Origin | None:
    """The places of the values of these bounds; None where they are not the values themselves, or
    two of them compete for one place."""
    covered = tuple(positions[id(condition)] for condition in bounds.covered)
    operators = [condition.operator for condition in bounds.covered]
    if bounds.equals is not None:
        if operators[0] not in _EQUALITIES:
            return None
        return _Origin(covered[0], operators[0] != "$in", None, False, None, False, covered)
    if operators == [PREFIX]:
        return _Origin(None, False, covered[0], True, None, False, covered, is_prefix=True)
    lows = [at for at, name in zip(covered, operators, strict=True) if name in LOWS]
    highs = [at for at, name in zip(covered, operators, strict=True) if name in HIGHS]
    if len(lows) > 1 or len(highs) > 1 or len(lows) + len(highs) < len(covered):
        return None
    return _Origin(
        None, False,
        lows[0] if lows else None, bounds.low_inclusive,
        highs[0] if highs else None, bounds.high_inclusive,
        covered,
    )  # fmt: skip
