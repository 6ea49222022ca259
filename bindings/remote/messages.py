"""Messages between a client and the leader: a frame of msgpack each, as documents are stored.

    frame     size, 4 bytes big-endian | msgpack
    request   {"call": name, ...}
    answer    any number of {"progress": [...]}, and then one of
              {"value": v}, {"page": [items, cursor]},
              {"hits": [[id, score, document, snippet, ranks] ..., how, cursor]},
              {"record": [id, version, created_at, updated_at, document]},
              {"report": [name of a dataclass, map of its fields]},
              {"error": [name, message, facts]}

Invariants:
- A plain value comes back equal in type (arguments.py); encoding any other may raise TypeError or
  ValueError.
- An error comes back as the class that was raised, if it is one of amberdb's or of Python's own;
  any other as an AmberError with its name.
"""

# What is sent has no static type.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

import builtins
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, TypeAlias, cast

import msgspec

from amberdb import _errors as errors
from amberdb._errors import AmberError
from amberdb.engine.backup.chain import BackupReport
from amberdb.engine.maintenance.compaction import CompactReport
from amberdb.engine.maintenance.erasure import Erasure
from amberdb.engine.query.page import Page, Record
from amberdb.engine.schema.codec import encode
from amberdb.engine.search.hits import Hit, Hits
from amberdb.remote.arguments import received

FRAME_BYTES_MAX: Final = (1 << 32) - 1
SIZE_BYTES: Final = 4
_REPORTS: Final = {each.__name__: each for each in (BackupReport, CompactReport, Erasure)}

Progressed: TypeAlias = Callable[..., None]
"""A `progress=` of the call."""


class LeaderGoneError(ConnectionError):
    """The connection to the leader has ended."""


def framed(message: Mapping[str, Any]) -> bytes:
    """The frame of a message. Raises TypeError and ValueError for a value that cannot be sent."""
    try:
        data = encode(message)
    except (AttributeError, msgspec.MsgspecError, OverflowError) as error:
        raise TypeError(f"a value cannot be sent to another process: {error}") from None
    if len(data) > FRAME_BYTES_MAX:
        raise ValueError(f"a message of {len(data)} bytes is too large: send it in parts")
    return len(data).to_bytes(SIZE_BYTES) + data


def unframed(data: bytes | memoryview) -> dict[str, Any]:
    """The message of a frame, without its size. Raises LeaderGoneError for what is no message."""
    try:
        message: Any = _decode(data)
    except (msgspec.MsgspecError, ValueError) as error:
        raise LeaderGoneError(f"no message: {error}") from None
    if not isinstance(message, dict):
        raise LeaderGoneError("no message: not a map")
    return cast(dict[str, Any], message)


_decode: Final = msgspec.msgpack.Decoder(ext_hook=received).decode


# -- answers -------------------------------------------------------------------------------------


def answer_of(value: Any) -> dict[str, Any]:
    """The answer that has the result of a call."""
    if isinstance(value, Hits):
        hits = [[h.id, h.score, h.document, h.snippet, dict(h.ranks)] for h in value]
        return {"hits": [hits, value.how, value.cursor]}
    if isinstance(value, Page):
        return {"page": [[_plain(item) for item in value], value.cursor]}
    if isinstance(value, Record):
        return {"record": _plain(value)}
    if type(value) in _REPORTS.values():
        fields = msgspec.to_builtins(value, builtin_types=(datetime,))
        return {"report": [type(value).__name__, fields]}
    return {"value": value}


def error_answer(error: BaseException) -> dict[str, Any]:
    """The answer that has an error."""
    facts = error.facts if isinstance(error, AmberError) else {}
    known = {name: fact for name, fact in facts.items() if isinstance(fact, str | int | float)}
    return {"error": [type(error).__name__, str(error), known]}


def result_of(answer: Mapping[str, Any]) -> Any:
    """The result of an answer. Raises the error that it has."""
    ((kind, content),) = answer.items()
    if kind == "value":
        return content
    if kind == "page":
        return Page(map(_item, content[0]), content[1])
    if kind == "hits":
        return Hits((Hit(*hit) for hit in content[0]), content[1], content[2])
    if kind == "record":
        return _record(content)
    if kind == "report":
        return msgspec.convert(content[1], _REPORTS[content[0]])
    raise _error(*content)


def _plain(item: Any) -> Any:
    if isinstance(item, Record):
        return [item.id, item.version, item.created_at, item.updated_at, item.document]
    return item


def _item(item: Any) -> Any:
    return _record(item) if isinstance(item, list) else item


def _record(content: list[Any]) -> Record:
    return Record(*content)


def _error(name: str, message: str, facts: dict[str, Any]) -> Exception:
    own = getattr(errors, name, None)
    if isinstance(own, type) and issubclass(own, AmberError):
        return own(message, **facts)
    python = getattr(builtins, name, None)
    if isinstance(python, type) and issubclass(python, Exception):
        return python(message)
    return AmberError(f"{name}: {message}")
