"""A snapshot that is kept while everything around it changes, and what is known of its moment.

Invariants:
- Whatever it has answered once it answers always, as of its own Lsn.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import final

from amberdb import Database
from support.differential.difference import Difference
from support.differential.reads import Known, Read


@final
class Held:
    """One snapshot; `known` by the name of the collection."""

    def __init__(self, db: Database, known: Mapping[str, Known]) -> None:
        self._known = {name: replace(each, model=each.model.copy()) for name, each in known.items()}
        self._snapshot = db.snapshot()
        self._answered: set[tuple[type[Read], str]] = set()

    def look(self, read: Read) -> None:
        """Raises Difference; SnapshotExpiredError."""
        kind = type(read), read.collection
        if read.compare(self._snapshot[read.collection], self._known[read.collection]):
            self._answered.add(kind)
        elif kind in self._answered:
            raise Difference(f"{read}: refused, but {self._snapshot} has answered before")

    def close(self) -> None:
        self._snapshot.close()
