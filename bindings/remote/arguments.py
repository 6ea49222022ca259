"""Arguments of calls, in the types that a message keeps.

    ext 32    amberdb.REMOVE
    ext 33    an option of search(), a dataclass, as msgpack: [name of its class, map of its fields]
    ext 34    a Record, as msgpack: the list of its fields

Invariants:
- What arrives is equal in type to what a call in the same process would take: subclasses, iterators
  and what is numpy's are made plain here, by the rules of documents (amberdb._plain). The
  encoder would turn a set into a list, and a datetime without a zone into a str.
- A value that would be refused there is refused here.
"""

# Arguments have no static type.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from amberdb._errors import InvalidDocumentError
from amberdb._plain import SURROGATE, plain_scalar
from amberdb.engine.query.filter import parse
from amberdb.engine.query.page import Record
from amberdb.engine.schema.codec import Extension, decode, decode_extension, encode
from amberdb.engine.schema.documents import DEPTH_MAX, REMOVE, has_surrogate, normalise
from amberdb.engine.schema.patch import Changes
from amberdb.engine.search.ranking import Fusion, Neighbors, Recency

_SCALARS: Final = (str, int, float, type(None), bytes, bytearray, memoryview)
_REMOVE: Final = 32
_OPTION: Final = 33
_RECORD: Final = 34
_OPTIONS: Final = {each.__name__: each for each in (Fusion, Recency, Neighbors)}
_DEPTH_MAX: Final = 2 * DEPTH_MAX
"""A filter of a document with as many levels as it may have, and more: the leader counts them."""


def sendable(value: Any, depth: int = 0) -> Any:
    """An argument as it is sent. Raises InvalidDocumentError."""
    if isinstance(value, _SCALARS):
        plain = plain_scalar(value)
        if type(plain) is str and not plain.isascii() and has_surrogate(plain):
            raise InvalidDocumentError(SURROGATE)
        return plain
    if isinstance(value, Mapping | list | tuple | Iterator) and depth > _DEPTH_MAX:
        raise InvalidDocumentError(f"more than {_DEPTH_MAX} levels of nesting")
    if isinstance(value, Mapping):
        return {
            tuple(name) if isinstance(name, tuple) else sendable(name): sendable(each, depth + 1)
            for name, each in value.items()
        }
    if isinstance(value, list | tuple | Iterator):
        return [sendable(each, depth + 1) for each in value]
    if value is REMOVE:
        return Extension(_REMOVE, b"")
    if type(value) in _OPTIONS.values():
        option = [type(value).__name__, msgspec.to_builtins(value)]
        return Extension(_OPTION, msgspec.msgpack.encode(option))
    if type(value) is Record:
        fields = [value.id, value.version, value.created_at, value.updated_at, value.document]
        return Extension(_RECORD, encode(fields))
    if getattr(value, "ndim", 0):
        is_vector = value.ndim <= 2 and value.dtype.kind in "fiu"
        return value if is_vector else sendable(value.tolist(), depth)
    return plain_scalar(value)


def received(code: int, data: memoryview) -> Any:
    """The value of an extension. Raises ValueError."""
    if code == _REMOVE:
        return REMOVE
    if code == _OPTION:
        name, fields = msgspec.msgpack.decode(data)
        return msgspec.convert(fields, _OPTIONS[name])
    if code == _RECORD:
        return Record(*decode(bytes(data)))
    return decode_extension(code, data)


def sendable_patch(patch: Any) -> Any:
    """A patch as it is sent. Raises InvalidDocumentError, which names the field."""
    try:
        return sendable(patch)
    except InvalidDocumentError:
        normalise(Changes(patch).assigned())
        raise


def sendable_filter(where: Any) -> Any:
    """A filter as it is sent. Raises QueryError."""
    try:
        return sendable(where)
    except InvalidDocumentError:
        parse(where)
        raise


def sendable_filters(collections: Any) -> Any:
    """The collections of an erasure as they are sent: a name, or filters by name. Raises
    QueryError."""
    if not isinstance(collections, Mapping):
        return sendable(collections)
    return {
        name: [sendable_filter(each) for each in wheres]
        if isinstance(wheres, list | tuple)
        else sendable_filter(wheres)
        for name, wheres in collections.items()
    }
