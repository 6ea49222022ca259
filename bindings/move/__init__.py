"""A database that is moved to another place: a directory or a PostgreSQL server, docs/move.md.

Invariants:
- Importing it loads no driver of a server.
"""

from amberdb.move.comparing import Difference
from amberdb.move.errors import MoveDamagedError, MoveError, MoveSourceError, MoveTargetError
from amberdb.move.mover import MoveReport, move

__all__ = [
    "move",
    "MoveReport",
    "Difference",
    "MoveError",
    "MoveSourceError",
    "MoveTargetError",
    "MoveDamagedError",
]
