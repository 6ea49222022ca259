"""A sweep: all documents of one collection that match any of some filters, batch by batch.

Invariants:
- A batch continues behind the one before: a scan from the start would pass all tombstones, and read
  all documents that do not match, once more for each batch.
- A sweep has ended once a batch that began at the start has found all: documents that were put
  behind a place that was passed are found by the last batch, which begins at the start.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias, final

from amberdb._types import Where
from amberdb.engine.query.access import Route
from amberdb.engine.query.query import Query, Stored
from amberdb.engine.schema.schema import Schema
from amberdb.engine.storage.source import Place, Source

_Position: TypeAlias = tuple[Route, Place] | None
"""Behind which the scan of a filter continues; None: at its end."""


@final
class Sweep:
    """One sweep. It is dropped when a batch that it has found was not committed."""

    __slots__ = ("_positions", "_wheres", "has_ended")

    def __init__(self, wheres: Sequence[Where]) -> None:
        self._wheres = wheres
        self._positions: dict[int, _Position] = {}
        """Of the filters, by number, that an earlier batch has begun."""
        self.has_ended = False

    def batch(self, source: Source, schema: Schema, limit: int) -> Iterator[Stored]:
        """The next documents, at most `limit`, which the caller deletes. The source includes those
        that have expired."""
        found: set[bytes] = set()
        while not self.has_ended:
            is_whole = not self._positions
            for number, where in enumerate(self._wheres):
                after = self._positions.get(number)
                if after is None and number in self._positions:
                    continue
                route, matches = _query(schema, where).stored(source, after)
                for place, stored in matches:
                    if stored[0] not in found:
                        if len(found) == limit:
                            return
                        found.add(stored[0])
                        yield stored
                    self._positions[number] = route, place
                self._positions[number] = None
            self._positions.clear()
            self.has_ended = is_whole


def _query(schema: Schema, where: Where) -> Query:
    """A query, which with a filter of the id alone finds documents, too, that cannot be upgraded to
    a newer version."""
    query = Query.of(schema, where)
    if schema.migration is not None and query.filter.is_by_id:
        query = Query.of(schema.redefined(replace(schema.definition, steps=())), where)
    return query
