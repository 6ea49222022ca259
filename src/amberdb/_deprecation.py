"""The warning for what a later version removes: docs/deprecations.md.

Invariants:
- The warning names the line of the program that calls, the replacement and the version.
"""

import warnings

from amberdb._errors import AmberDeprecationWarning


def warn_deprecated(what: str, *, instead: str, removed_in: str, depth: int = 1) -> None:
    """Warns of a call that is under way.

        warn_deprecated("Database.stat()", instead="stats()", removed_in="0.4")

    depth  the calls between the program's and this one: 1 in a function that a program calls
    """
    warnings.warn(
        f"{what} is deprecated and will be removed in AmberDB {removed_in}: use {instead}",
        AmberDeprecationWarning,
        stacklevel=depth + 2,
    )
