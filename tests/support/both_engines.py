"""One collection in a directory and on a server, to which the same is done: whatever a call returns
or raises, and the time of each, has to be the same in both."""

import itertools
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import amberdb
from amberdb import AmberError, Collection, Database, Unique
from amberdb.index.registry import IndexSpec
from support.databases import SMALL, FakeClock
from support.reference import same

_names = itertools.count(1)


@contextmanager
def databases_of(url: str) -> Generator[tuple[Database, Database, FakeClock]]:
    """A directory in memory, a database on a server, and the clock of both."""
    clock = FakeClock()
    with (
        amberdb.open(":memory:", **SMALL, clock=clock) as directory,
        amberdb.connect(url, clock=clock) as server,
    ):
        # The pool makes its second connection beside the first call, and draws random numbers for
        # it, which Hypothesis would take for those of a strategy.
        with server.snapshot():
            server.collections()
        yield directory, server, clock


class Both:
    """One collection in a directory, and one on a server."""

    def __init__(self, directory: Database, server: Database) -> None:
        self.databases = directory, server
        self.name = f"c{next(_names)}"

    def collections(self) -> list[Collection]:
        return [db[self.name] for db in self.databases]

    def same_outcome(self, call: Callable[[Collection], Any]) -> None:
        """Calls both: what they return, or the type of their error, has to be the same."""
        outcomes: list[Any] = []
        for each in self.collections():
            try:
                outcomes.append(call(each))
            except AmberError as error:
                outcomes.append(type(error))
        here, there = outcomes
        assert here == there or same(here, there)

    def declare(self, specs: Sequence[IndexSpec], expires: bool) -> None:
        outcomes: list[type | None] = []
        for db in self.databases:
            known = self.name in db.collections()
            try:
                db.collection(self.name, indexes=specs, expires_at="until" if expires else None)
                outcomes.append(None)
            except (amberdb.DuplicateKeyError, amberdb.InvalidDocumentError) as error:
                outcomes.append(type(error))
                assert known
            db.build_indexes()
        assert outcomes[0] == outcomes[1]
        if outcomes[0] is not None:  # in a directory the other indexes of the declaration stand
            specs = [spec for spec in specs if not isinstance(spec, Unique)]
            self.declare(specs, expires)
