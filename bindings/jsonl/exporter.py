"""Export of a collection: its documents, as of one moment.

Invariants:
- All documents are of one Lsn, however long the export takes.
- Memory holds one page of documents.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from amberdb import Database, Document, ReadableCollection, Snapshot, Where
from amberdb._jsonl.text import dumps
from amberdb._shared.queries import all_pages

_PAGE = 1000
_AGE_MAX_MS = 7 * 86_400_000
"""An export may take long; the default age limit is for snapshots that nobody closes."""


def long_snapshot(db: Database) -> AbstractContextManager[Snapshot]:
    """A snapshot for work that may take long."""
    return db.snapshot(max_age_ms=_AGE_MAX_MS)


def matching(
    collection: ReadableCollection,
    where: Where | None = None,
    *,
    order_by: Sequence[str] | None = None,
    fields: Sequence[str] | None = None,
) -> Iterator[Document]:
    """All documents that match and have not expired. Raises QueryError, CorruptionError."""
    if not where and not order_by and not fields:
        return collection.documents()
    options: dict[str, Any] = {"order_by": order_by or None, "fields": fields or None}
    return all_pages(collection.find, where or {}, limit=_PAGE, **options)


def export_lines(db: Database, name: str, where: Where | None = None) -> Iterator[str]:
    """A line, without its line end, for each document that matches and has not expired. Raises
    CollectionMissingError, QueryError, CorruptionError."""
    with long_snapshot(db) as at:
        yield from map(dumps, matching(at[name], where))
