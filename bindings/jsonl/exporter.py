"""Export of a collection to JSON lines.

Invariants:
- All lines show one Lsn, however long the export takes.
- Memory holds one page of documents.
"""

from collections.abc import Iterator

from amberdb import Database, Where
from amberdb._jsonl.text import dumps
from amberdb._shared.queries import all_pages

_PAGE = 1000
_AGE_MAX_MS = 7 * 86_400_000
"""An export may take long; the default age limit is for snapshots that nobody closes."""


def export_lines(db: Database, name: str, where: Where | None = None) -> Iterator[str]:
    """A line, without its line end, for each document that matches and has not expired. Raises
    CollectionMissingError, QueryError, CorruptionError."""
    with db.snapshot(max_age_ms=_AGE_MAX_MS) as at:
        collection = at[name]
        if not where:
            yield from map(dumps, collection.documents())
            return
        yield from map(dumps, all_pages(collection.find, where, limit=_PAGE))
