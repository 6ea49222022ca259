"""What is shown as JSON lines: a page of documents, or all that match.

Invariants:
- A line is a whole document, or with columns the id and these fields; in both cases it is read back
  without loss by `amberdb import`.
- All lines show one Lsn, and memory holds one page of documents.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from amberdb import Database, Where
from amberdb._jsonl.text import dumps
from amberdb._shared.queries import all_pages

_PAGE: Final = 500
_AGE_MAX_MS: Final = 86_400_000
"""An export may take long; the default age limit is for snapshots that nobody closes."""


def export_documents(
    db: Database,
    collection: str,
    *,
    where: Where | None = None,
    order_by: Sequence[str] = (),
    columns: Sequence[str] = (),
    after: str | None = None,
    limit: int | None = None,
) -> Iterator[str]:
    """A line for each document that matches, with its line end; with `limit` those of one page.
    Raises QueryError, CollectionMissingError, CursorError."""
    kept = [name for name in columns if not name.startswith("$")]
    options: dict[str, Any] = {
        "order_by": list(order_by) or None,
        "fields": ["id", *kept] if kept else None,
    }
    with db.snapshot(max_age_ms=_AGE_MAX_MS) as at:
        source = at[collection]
        if limit is None:
            documents = all_pages(source.find, where or {}, limit=_PAGE, **options)
        else:
            documents = iter(source.find(where, limit=limit, after=after, **options))
        for document in documents:
            yield dumps(dict(document)) + "\n"
