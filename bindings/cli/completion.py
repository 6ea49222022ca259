"""What a shell completes beyond the names of commands and options: names of collections.

Invariants:
- A completion changes nothing, prints nothing, and asks no server. Without a database there is
  nothing to complete.
"""

import os
import warnings
from typing import Any


def complete_collection(ctx: Any, args: list[str], incomplete: str) -> list[str]:
    """The names of the collections of the database whose path is on the command line."""
    path = ctx.params.get("path") or ctx.params.get("source")
    if not isinstance(path, str) or not os.path.isdir(path):
        return []
    import amberdb

    try:
        with (
            warnings.catch_warnings(action="ignore"),
            amberdb.open(path, read_only=True, background=False) as db,
        ):
            return [name for name in db.collections() if name.startswith(incomplete)]
    except (amberdb.AmberError, OSError):
        return []
