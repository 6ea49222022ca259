"""Positions in the log of the server: what a replica has, and what a program waits for there.

    position = primary.position()        after a write
    replica.wait_for(position)           then what was written is read there

Invariants:
- A program reads from a replica because it has connected to one: no call chooses a server.
"""

import re
import time
from typing import Final

from amberdb._errors import BusyError, QueryError
from amberdb.postgres.connections import Connections

_POSITION: Final = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")
_NOW: Final = (
    "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END"
)
_PAUSE_S: Final = 0.002
"""Between two questions: a server tells nobody how far it is."""
_PAUSE_S_MAX: Final = 0.05


def position(connections: Connections) -> str:
    """The end of the server's log: every commit that it has acknowledged is before it."""
    ((now,),) = connections.read(f"SELECT ({_NOW})::text", [])
    return str(now)


def wait_for(connections: Connections, wanted: str, timeout_ms: int) -> None:
    """Waits until the server has the log up to a position. Raises BusyError, QueryError."""
    if _POSITION.fullmatch(wanted) is None:
        raise QueryError(f"{wanted!r} is no position: give what position() of the primary gave")
    until, pause_s = time.monotonic() + timeout_ms / 1000, _PAUSE_S
    while True:
        ((is_reached,),) = connections.read(f"SELECT ({_NOW}) >= %s::pg_lsn", [wanted])
        if is_reached:
            return
        if time.monotonic() >= until:
            raise BusyError(
                f"the replica has not reached {wanted} within {timeout_ms} ms: it is behind its "
                "primary; wait longer, or read from the primary"
            )
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _PAUSE_S_MAX)
