"""Subscribers of a shared database: a process reads the feed for itself, and the process that leads
stores the positions.

Invariants:
- A position is that of all processes.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, final

from amberdb._types import NO_LSN, Lsn
from amberdb.engine.commit.change_feed import Change, changes, positions_of
from amberdb.engine.database.handle import Handle
from amberdb.engine.storage.readable import Owner


@final
class SharedFeed:
    """The feed of a SharedDatabase, as a Subscriber needs it."""

    def __init__(
        self, handle: Callable[[], Handle], ask: Callable[[Mapping[str, Any]], Any]
    ) -> None:
        self._handle = handle
        self._ask = ask

    def changes(
        self, owner: Owner, since: Lsn | None, follow: bool, timeout_s: float | None
    ) -> Iterator[Change]:
        """changes() of the database."""
        engine = self._handle().engine
        engine.refresh()
        return changes(engine.readable, owner, since, follow, timeout_s)

    def position(self, name: str) -> Lsn:
        """The last Lsn that a subscriber has acknowledged; NO_LSN of one that was removed."""
        with self._handle().engine.readable.view() as view:
            return positions_of(view).get(name, NO_LSN)

    def move(self, name: str, lsn: Lsn | None) -> None:
        """Stores a position; with None removes the subscriber. Raises QueryError."""
        self._ask({"call": "acknowledge", "name": name, "lsn": lsn})

    def create(self, name: str, since: Lsn | None) -> str:
        """Makes the subscriber unless it exists; its name. Raises QueryError."""
        made: str = self._ask({"call": "subscriber", "name": name, "since": since})
        return made
