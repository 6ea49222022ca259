"""One database in several processes, without a daemon: amberdb.connect(), docs/sharing.md.

    the first process    leads: it has the database open, and serves a Unix socket in its directory
    every other one      reads for itself, as with read_only=True, and sends its writes to the
                         leader; when the leader ends, one of them takes its place

Invariants:
- What was acknowledged is in the log of the leader, so it is there whoever leads next.
- A request that was sent is done at most once: its number is committed with its effect.
"""

from amberdb.remote.collection import (
    SharedCollection,
)
from amberdb.remote.shared import (
    SharedDatabase,
)
from amberdb.remote.transaction import (
    SharedTransaction,
)

__all__ = [
    "SharedCollection",
    "SharedDatabase",
    "SharedTransaction",
]
