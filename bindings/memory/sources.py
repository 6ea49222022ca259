"""Memories as other programs keep them: the tables of Z-Memory, and the JSON of mem0.

    profile_memories, event_memories   a row for each memory
    memory_logs                        a row for each log entry, in their order
    [{"id": ..., "memory": ...}]       mem0: a list, or a map that has it as "results"

Invariants:
- Each row of a source is found once: as a document, or with the reason why there is none.
- Fields that a memory does not have are in its metadata.
"""

import os
import sqlite3
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast
from urllib.parse import quote
from uuid import UUID

from amberdb import Document, InvalidDocumentError, QueryError
from amberdb._jsonl.text import loads
from amberdb._shared.checks import check_text
from amberdb._shared.times import time_of
from amberdb.memory.types import ACTIONS, LAYERS, MEMORY_TYPES, Layer

Kind: TypeAlias = Literal["profile", "event", "log"]
Rows: TypeAlias = Iterable[Mapping[str, Any] | sqlite3.Row]
Tables: TypeAlias = Mapping[str, Rows]
Categories: TypeAlias = Mapping[Layer, Collection[str]]

TABLES: Final[Mapping[str, Kind]] = {
    "profile_memories": "profile",
    "event_memories": "event",
    "memory_logs": "log",
}
"""The tables of Z-Memory, in the order in which they are read: a log entry follows its memory."""

_NOTHING: Final = frozenset({"", "null", "none"})
_TRUE: Final = frozenset({"1", "true", "t", "yes"})
_FALSE: Final = frozenset({"0", "false", "f", "no"})
_LEFT_OUT: Final = ("embedding_id", "embedding", "vector", "score")
"""Fields of a source that say nothing here: vectors are made anew."""
_LISTS: Final = ("results", "memories", "data")
_MEM0: Final[Mapping[str, str]] = {
    "userId": "user_id",
    "agentId": "agent_id",
    "appId": "app_id",
    "runId": "run_id",
    "createdAt": "created_at",
    "updatedAt": "updated_at",
    "expirationDate": "expiration_date",
}
"""Names in mem0's JavaScript."""


class Found(NamedTuple):
    """A memory or a log entry of a source: its document, or the reason why there is none."""

    source: str
    kind: Kind
    outcome: Document | str


# -- Z-Memory ------------------------------------------------------------------------------------


@contextmanager
def zmemory_tables(
    source: str | os.PathLike[str] | sqlite3.Connection | Tables,
) -> Generator[Tables]:
    """The tables of a source. Raises QueryError when it has none, and sqlite3.Error."""
    if isinstance(source, sqlite3.Connection):
        yield _selected(source)
    elif isinstance(source, Mapping):
        yield _known(source)
    else:
        uri = f"file:{quote(os.fspath(source))}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.text_factory = _utf8
            connection.execute("BEGIN")  # the tables as of one moment
            yield _selected(connection)


def of_zmemory(tables: Tables, zone: tzinfo, categories: Categories) -> Iterator[Found]:
    """The rows of the tables. Times without a zone are in `zone`."""
    for table, kind in TABLES.items():
        for place, row in enumerate(tables.get(table, ()), 1):
            source = f"{table}: row {place}"
            try:
                given: dict[str, Any] = dict(cast(Mapping[str, Any], row))
                source = f"{table}: {given.get('id')!r}"
                document = (
                    _entry(given, zone)
                    if kind == "log"
                    else _memory(given, kind, zone, categories[kind])
                )
            except (TypeError, ValueError) as error:
                yield Found(source, kind, str(error))
            else:
                yield Found(source, kind, document)


def _known(tables: Tables) -> Tables:
    """Raises QueryError for a map of anything else."""
    for name in tables:
        if name not in TABLES:
            raise QueryError(f"Z-Memory has no table {name!r}: give {', '.join(TABLES)}")
    return tables


def _selected(connection: sqlite3.Connection) -> Tables:
    names = connection.execute("SELECT name FROM sqlite_master").fetchall()
    found = [name for name in TABLES if any(row[0] == name for row in names)]
    if not found:
        raise QueryError(f"the database has none of the tables {', '.join(TABLES)}: give another")
    return {name: _rows(connection, name) for name in found}


def _rows(connection: sqlite3.Connection, table: str) -> Iterator[dict[str, Any]]:
    cursor = connection.cursor()
    cursor.row_factory = None
    cursor.execute(f"SELECT * FROM {table}")
    names = [column[0] for column in cursor.description]
    for row in cursor:
        yield dict(zip(names, row, strict=True))


def _utf8(text: bytes) -> str:
    """The text of a column: a byte that is not UTF-8 becomes half of a pair, which no document may
    have, so that its row is refused and the others are not."""
    return text.decode("utf-8", "surrogateescape")


# -- mem0 ----------------------------------------------------------------------------------------


def mem0_items(source: str | os.PathLike[str] | Sequence[Any] | Mapping[str, Any]) -> Document:
    """The memories of a source as {"results": [...]}, with what else it has. Raises QueryError,
    OSError."""
    given: Any = source
    if isinstance(source, str | os.PathLike):
        data = Path(source).read_bytes()
        try:
            given = loads(data.removeprefix(b"\xef\xbb\xbf"))
        except ValueError as error:
            raise QueryError(f"{os.fspath(source)}: {error}: give mem0's JSON") from None
    if isinstance(given, Mapping):
        fields = dict(cast(Mapping[str, Any], given))
        if isinstance(fields.get("memory"), str):
            return {"results": [fields]}
        for name in _LISTS:
            if isinstance(fields.get(name), list | tuple):
                return {**fields, "results": fields[name]}
    elif isinstance(given, list | tuple):
        return {"results": cast(Sequence[Any], given)}
    raise QueryError('give the memories of mem0 as a list, or as {"results": [...]}')


def of_mem0(
    items: Document, layer: Layer, entity_id: str | None, zone: tzinfo, categories: Categories
) -> Iterator[Found]:
    """The memories, of a layer; `entity_id` is the user of those that name nobody."""
    for place, item in enumerate(items["results"], 1):
        source = f"memory {place}"
        try:
            given = _of_mem0(item, entity_id, categories[layer])
            source = f"{source}: {given.get('id')!r}"
            document = _memory(given, layer, zone, categories[layer])
        except (TypeError, ValueError) as error:
            yield Found(source, layer, str(error))
        else:
            yield Found(source, layer, document)
    relations = items.get("relations")
    if relations:
        reason = f"{len(relations)} relations are not memories: put them into amberdb.graph"
        yield Found("relations", layer, reason)


def _of_mem0(item: Any, entity_id: str | None, categories: Collection[str]) -> dict[str, Any]:
    """A memory of mem0 with the columns of Z-Memory. Raises ValueError."""
    if not isinstance(item, Mapping):
        raise ValueError(f"a memory must be a map, not {item!r:.80}")
    items = cast(Mapping[str, Any], item).items()
    given = {_MEM0.get(name, name): value for name, value in items}
    given["content"] = given.pop("memory", None)
    for name, memory_type in (("user_id", "user"), ("agent_id", "agent")):
        if not _is_nothing(given.get(name)):
            given |= {"entity_id": given.pop(name), "memory_type": memory_type}
            break
    else:
        if entity_id is None:
            raise ValueError("it has no user_id and no agent_id: give entity_id=")
        given |= {"entity_id": entity_id, "memory_type": "user"}
    given["expiry_date"] = given.pop("expiration_date", None)
    named = given.get("categories")
    if isinstance(named, list | tuple):
        known = (each for each in cast(Sequence[Any], named) if each in categories)
        given["category"] = next(known, given.get("category"))
    return given


# -- values --------------------------------------------------------------------------------------


def _memory(
    given: dict[str, Any], layer: Layer, zone: tzinfo, categories: Collection[str]
) -> Document:
    """The memory of a row; times that it does not have are None. Raises ValueError."""
    document: Document = {
        "id": _id("id", given.pop("id", None)),
        "memory_type": _one("memory_type", given.pop("memory_type", None) or "user", MEMORY_TYPES),
        "entity_id": _id("entity_id", given.pop("entity_id", None)),
        "content": _content(given.pop("content", None)),
    }
    is_permanent = _flag("is_permanent", given.pop("is_permanent", None))
    expiry = _time("expiry_date", given.pop("expiry_date", None), zone)
    if is_permanent is None:
        is_permanent = layer == "profile" and expiry is None
    times = {
        name: _time(name, given.pop(name, None), zone) for name in ("created_at", "updated_at")
    }
    metadata = _metadata(given, zone)
    category = metadata.get("category")
    if category in categories:
        metadata.pop("category")
    else:
        category = "other" if layer == "event" else None
    return {
        **document,
        "category": category,
        "metadata": metadata,
        "is_permanent": is_permanent,
        "expiry_date": None if is_permanent else expiry,
        "created_at": times["created_at"],
        "updated_at": times["updated_at"] or times["created_at"],
    }


def _entry(given: dict[str, Any], zone: tzinfo) -> Document:
    """The log entry of a row, with its owner where the row names one. Raises ValueError."""
    memory_id, entity_id = given.pop("memory_id", None), given.pop("entity_id", None)
    memory_type = given.pop("memory_type", None)
    return {
        "id": _id("id", given.pop("id", None)),
        "memory_id": "" if _is_nothing(memory_id) else _id("memory_id", memory_id),
        "memory_layer": _one("memory_layer", given.pop("memory_layer", None), LAYERS),
        "action": _one("action", given.pop("action", None), ACTIONS),
        "reason": str(given.pop("reason", None) or ""),
        "memory_type": _one("memory_type", memory_type or "user", MEMORY_TYPES),
        "entity_id": None if _is_nothing(entity_id) else _id("entity_id", entity_id),
        "created_at": _time("created_at", given.pop("created_at", None), zone),
        "metadata": _metadata(given, zone),
    }


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in _NOTHING)


def _id(field: str, value: Any) -> str:
    if isinstance(value, int | UUID) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value:
        return value
    raise ValueError(f"{field} must be text, not {value!r:.80}")


def _one(field: str, value: Any, names: Sequence[str]) -> str:
    found = value.strip().lower() if isinstance(value, str) else value
    if found not in names:
        raise ValueError(f"{field} must be one of {', '.join(names)}, not {value!r:.80}")
    return found


def _content(value: Any) -> str:
    try:
        check_text("content", value)
    except InvalidDocumentError as error:
        raise ValueError(error.message) from None
    return str(value)


def _flag(field: str, value: Any) -> bool | None:
    if _is_nothing(value):
        return None
    text = str(value).strip().lower()
    if text not in _TRUE | _FALSE:
        raise ValueError(f"{field} must be 0 or 1, not {value!r:.80}")
    return text in _TRUE


def _time(field: str, value: Any, zone: tzinfo) -> datetime | None:
    return None if _is_nothing(value) else time_of(field, value, zone)


def _metadata(given: dict[str, Any], zone: tzinfo) -> Document:
    """The metadata of a row, with its other fields."""
    value = given.pop("metadata", None)
    if isinstance(value, str | bytes) and not _is_nothing(value):
        try:
            value = loads(value)
        except ValueError as error:
            raise ValueError(f"metadata: {error}") from None
    if _is_nothing(value):
        value = {}
    if not isinstance(value, Mapping):
        raise ValueError(f"metadata must be a map, not {value!r:.80}")
    others = {
        name: time_of(name, each, zone) if isinstance(each, datetime) else each
        for name, each in given.items()
        if each is not None and name not in _LEFT_OUT
    }
    return {**others, **cast(Mapping[str, Any], value)}
