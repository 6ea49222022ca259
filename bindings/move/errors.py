"""Errors of a move. What was moved before one stays, and the next run goes on from there."""

from amberdb import AmberError


class MoveError(AmberError):
    """A database could not be moved."""


class MoveSourceError(MoveError, ValueError):
    """The source cannot be moved as it is: the message says what to do."""


class MoveTargetError(MoveError, ValueError):
    """The target has something else in it: move into a new database."""


class MoveDamagedError(MoveError):
    """What the target gives back is not what was stored there."""
