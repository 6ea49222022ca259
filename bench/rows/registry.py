"""Every row by name."""

from bench.harness.row import Row
from bench.rows import (
    aio,
    chat,
    find,
    host,
    hybrid,
    index_puts,
    neighbors,
    profiles,
    recovery,
    size,
    speed,
    stall,
    text,
    vector,
    vector_state,
    verbs,
)

_MODULES = (
    speed,
    verbs,
    recovery,
    stall,
    size,
    host,
    text,
    vector,
    hybrid,
    neighbors,
    vector_state,
    index_puts,
    profiles,
    find,
    chat,
    aio,
)


def all_rows() -> dict[str, Row]:
    """Every row by name, in the order in which they run."""
    return {row.name: row for module in _MODULES for row in module.ROWS}
