"""The table of a store of events: its columns, its rows, and the statements that read it.

The columns are position, event_id, agent_name, session_id, event_type, timestamp, data, metadata
and words (full_text.py); events are in the order of `position`, which the server counts.

Invariants:
- A statement is built once for each shape of a call; what differs from call to call is bound. To
  build one takes longer than the server takes to answer it.
"""

import logging
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from amberdb import InvalidDocumentError
from amberdb._shared.queries import having
from amberdb._shared.words import texts_in
from amberdb.events import AgentEvent, Filters
from amberdb.sql.address import Kind
from amberdb.sql.columns import NAME_CHARACTERS_MAX, Json, Moment, Name
from amberdb.sql.full_text import AnySelect, indexed_words, matching
from amberdb.sql.tables import STATEMENTS_MAX, TABLES_MAX, keyed_table

logger = logging.getLogger("amberdb.sql")

_NAMES: Final = ("event_id", "agent_name", "session_id")
_COLUMNS: Final = (*_NAMES, "event_type", "timestamp", "data", "metadata")


@lru_cache(maxsize=TABLES_MAX)
def event_table(name: str) -> sa.Table:
    """The table of a store."""
    table = keyed_table(
        name,
        sa.Column("event_id", Name, nullable=False),
        sa.Column("agent_name", Name, nullable=False),
        sa.Column("session_id", Name, nullable=False),
        sa.Column("event_type", sa.String(32), nullable=False),
        sa.Column("timestamp", Moment, nullable=False),
        sa.Column("data", Json, nullable=False),
        sa.Column("metadata", Json, nullable=False),
    )
    columns = table.c
    for column in (columns.session_id, columns.agent_name, columns.event_type):
        sa.Index(f"{name}_{column.name}", column, columns.position)
    sa.Index(f"{name}_timestamp", columns.timestamp)
    sa.Index(f"{name}_type_time", columns.event_type, columns.timestamp)
    return table


def conditions(filters: Filters) -> dict[str, Any]:
    """The conditions of a call, as the parameters of a statement by their names."""
    kind = None if filters.event_type is None else filters.event_type.value
    given: dict[str, Any] = having(
        event_type=kind, session_id=filters.session_id, agent_name=filters.agent_name
    )
    for name in ("start_time", "end_time"):
        if (time := getattr(filters, name)) is not None:
            given[name] = time
    return given


@lru_cache(maxsize=STATEMENTS_MAX)
def where(table: sa.Table, names: tuple[str, ...]) -> sa.ColumnElement[bool]:
    """That the conditions of these names hold."""
    columns = table.c
    made: list[sa.ColumnElement[bool]] = [sa.true()]
    for name in names:
        if name == "start_time":
            made.append(columns.timestamp >= sa.bindparam(name, type_=Moment()))
        elif name == "end_time":
            made.append(columns.timestamp < sa.bindparam(name, type_=Moment()))
        else:
            made.append(columns[name] == sa.bindparam(name, type_=columns[name].type))
    return sa.and_(*made)


@lru_cache(maxsize=STATEMENTS_MAX)
def select_events(table: sa.Table, names: tuple[str, ...]) -> AnySelect:
    """The events that meet these conditions, as events_of() takes them."""
    columns = (table.c.position, *(table.c[name] for name in _COLUMNS))
    return sa.select(*columns).where(where(table, names))


@lru_cache(maxsize=STATEMENTS_MAX)
def select_page(table: sa.Table, names: tuple[str, ...], *, oldest_first: bool) -> AnySelect:
    """A page of them, by parameters `count` and `offset`."""
    position = table.c.position
    select = select_events(table, names).order_by(position if oldest_first else position.desc())
    return select.limit(_number("count")).offset(_number("offset"))


@lru_cache(maxsize=STATEMENTS_MAX)
def select_after(table: sa.Table, names: tuple[str, ...]) -> AnySelect:
    """The first of them after a position, by parameters `after` and `count`."""
    position = table.c.position
    select = select_events(table, names).where(position > _number("after"))
    return select.order_by(position).limit(_number("count"))


@lru_cache(maxsize=STATEMENTS_MAX)
def select_stored(table: sa.Table) -> AnySelect:
    """The events whose ids are in the parameter `ids`."""
    ids = sa.bindparam("ids", type_=Name(), expanding=True)
    return select_events(table, ()).where(table.c.event_id.in_(ids))


@lru_cache(maxsize=STATEMENTS_MAX)
def select_matching(kind: Kind, table: sa.Table, names: tuple[str, ...]) -> AnySelect:
    """Those of them that a text finds, by the parameters of matching()."""
    return matching(kind, table, select_events(table, names))


@lru_cache(maxsize=STATEMENTS_MAX)
def select_stats(table: sa.Table, names: tuple[str, ...]) -> AnySelect:
    """Of each type of event the number, and the first and last time."""
    kind, time = table.c.event_type, table.c.timestamp
    columns = kind, sa.func.count(), sa.func.min(time), sa.func.max(time)
    return sa.select(*columns).where(where(table, names)).group_by(kind)


def _number(name: str) -> sa.BindParameter[int]:
    return sa.bindparam(name, type_=sa.BigInteger())


# -- rows ----------------------------------------------------------------------------------------


def row_of(event: AgentEvent) -> dict[str, Any]:
    """The row of an event. Raises InvalidDocumentError."""
    row = event.to_map()
    for name in _NAMES:
        if len(row[name]) > NAME_CHARACTERS_MAX:
            raise InvalidDocumentError(
                f"{name} has {len(row[name])} characters, and {NAME_CHARACTERS_MAX} is the most "
                "that this store takes: shorten it",
                field=name,
            )
    row["words"] = indexed_words(texts_in(event.data))
    return row


def events_of(rows: Iterable[Sequence[Any]]) -> list[AgentEvent]:
    """The events of rows; one that another program has written and is none is logged."""
    events: list[AgentEvent] = []
    for _, *values in rows:
        row: dict[str, Any] = dict(zip(_COLUMNS, values, strict=True))
        try:
            events.append(AgentEvent.from_map(row))
        except ValueError as error:
            logger.warning("row %s is no event: %s", row["event_id"], error)
    return events
