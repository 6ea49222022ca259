"""Every row by name.

Invariants:
- Rows that only read come before those that write: in one state they use the same databases.
"""

from bench.harness.row import Row
from bench.rows import (
    find,
    host,
    index_puts,
    mixed,
    neighbors,
    recovery,
    size,
    speed,
    stall,
    text,
    until_settled,
    vector,
    vector_state,
)
from bench.rows.systems import aio, chat, moving, postgres, profiles, sharing, shipping, sql

_MODULES = (
    find,
    speed,
    mixed,
    until_settled,
    recovery,
    stall,
    size,
    host,
    text,
    neighbors,
    vector,
    vector_state,
    index_puts,
    profiles,
    chat,
    sql,
    postgres,
    moving,
    sharing,
    shipping,
    aio,
)


def all_rows() -> dict[str, Row]:
    """Every row by name, in the order in which they run."""
    return {row.name: row for module in _MODULES for row in module.ROWS}
