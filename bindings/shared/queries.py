"""Filters that several systems use, and reading all documents that match one.

Invariants:
- What a caller gives as an id or a name is compared as text: a map, which a filter would read as
  operators, is refused. Ids often come from JSON that somebody else wrote.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from amberdb import Document, Page, QueryError, Where

PAGE: Final = 500


def having(**fields: str | None) -> dict[str, Any]:
    """A filter for documents whose fields equal these texts; those that are None are left out.
    Raises QueryError for anything else."""
    given: dict[str, object] = {**fields}
    for name, value in given.items():
        if value is not None and not isinstance(value, str):
            raise QueryError(f"{name} must be a str, not {value!r}: give the text itself")
    return {name: value for name, value in fields.items() if value is not None}


def of_one(**fields: str) -> dict[str, Any]:
    """As having(), where None is refused too: a missing id is not everybody. Raises QueryError."""
    for name, value in fields.items():
        if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise QueryError(f"{name} must be a str, not {value!r}: give the text itself")
    return dict(fields)


def between(field: str, since: datetime | None, until: datetime | None) -> dict[str, Any]:
    """A filter for `since <= field < until`; without conditions where both are None."""
    times = {"$gte": since, "$lt": until}
    bounds = {operator: time for operator, time in times.items() if time is not None}
    return {field: bounds} if bounds else {}


def has_time(field: str) -> dict[str, Any]:
    """A filter for documents whose field holds a datetime. A sparse index answers it."""
    return {field: {"$gte": datetime.min.replace(tzinfo=UTC)}}


def all_pages(
    find: Callable[..., Page], where: Where, *, limit: int = PAGE, **more: Any
) -> Iterator[Document]:
    """All documents that match, read in pages of `limit` documents, so memory holds one page.
    Outside a snapshot each page shows the database at the time it is read. Raises QueryError."""
    after: str | None = None
    while True:
        page = find(where, limit=limit, after=after, **more)
        yield from page
        after = page.cursor
        if after is None:
            return
