"""The order of a result: parsed, and as byte keys that sort documents as an index sorts them.

Invariants:
- The keys of sorter() are those of an index over the same fields and directions, so a result that
  is sorted in memory has the order of a result that is read from an index.
"""

# The values of a document have no static type, so type(value) and lists are unknown to pyright.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from amberdb._errors import QueryError
from amberdb._types import Document, Order
from amberdb.engine.schema.document_format import header_of
from amberdb.index.ordered.keys import encode, encode_desc
from amberdb.index.paths import Path, path_name, path_problem

ORDER_FIELDS_MAX = 16
HEADER_FIELDS: Final = {"$version": 0, "$created_at": 1, "$updated_at": 2}
"""Fields of the record and not of the document, by their place in header_of()."""


class OrderField(NamedTuple):
    """One field of an order, as a dotted path."""

    path: str
    descending: bool


def parse_order(order_by: Order | None) -> tuple[OrderField, ...]:
    """The fields of an order, most significant first; "-" before a name means descending. Raises
    QueryError."""
    if order_by is None:
        return ()
    if type(order_by) is str:
        return _parse_names((order_by,))
    names: Any = (order_by,) if isinstance(order_by, str) else order_by
    if not isinstance(names, (list, tuple)):
        raise QueryError(f"order_by takes a field or a list of fields, not {order_by!r}")
    if all(type(name) is str for name in names):
        return _parse_names(tuple(names))
    return _parse(names)


def _parse(names: Sequence[Any]) -> tuple[OrderField, ...]:
    if len(names) > ORDER_FIELDS_MAX:
        raise QueryError(f"order_by takes at most {ORDER_FIELDS_MAX} fields, not {len(names)}")
    order: dict[str, OrderField] = {}
    for field in names:
        try:
            name: Any = path_name(field)
        except ValueError as error:
            raise QueryError(f"order_by: {error}") from None
        path: Any = name.removeprefix("-") if isinstance(name, str) else name
        problem = path_problem(path)
        if problem is None and path.startswith("$") and path not in HEADER_FIELDS:
            problem = f"of a record, order by {', '.join(HEADER_FIELDS)}"
        if problem:
            raise QueryError(f"order_by {name!r}: {problem}")
        if path in order:
            raise QueryError(f"order_by names the field {path!r} twice")
        order[path] = OrderField(path, path != name)
    return tuple(order.values())


_parse_names = lru_cache(maxsize=256)(_parse)


@lru_cache(maxsize=256)
def sorter(order: tuple[OrderField, ...]) -> Callable[[Document, bytes], bytes]:
    """A function from a document and its stored value to its key: bytes that sort documents in this
    order.

    A list sorts by its smallest element, or by its largest where the field descends; an empty list
    sorts as None.
    """
    parts = [
        (HEADER_FIELDS.get(path), Path.of(path).find, encode_desc if desc else encode)
        for path, desc in order
    ]

    def key(document: Document, stored: bytes) -> bytes:
        keys: list[bytes] = []
        for header, find, encoder in parts:
            value = find(document) if header is None else header_of(stored)[header]
            if type(value) is list:
                # A descending key is inverted, so the largest element has the smallest key.
                elements: list[Any] = value
                keys.append(min(map(encoder, elements or [None])))
            else:
                keys.append(encoder(value))
        return b"".join(keys)

    return key
