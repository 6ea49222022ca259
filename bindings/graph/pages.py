"""Pages of relations.

Invariants:
- The pages of one query show the relations of one time: the cursor has the "now" of the first.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Final, final

from amberdb import CursorError, Document

_SEPARATOR: Final = "/"
"""In a cursor, between the time and the cursor of the collection."""


@final
class Relations(list[Document]):
    """A page of relations. `cursor` is for the next page; None when this page was not filled."""

    __slots__ = ("cursor",)

    def __init__(self, relations: Iterable[Document], cursor: str | None) -> None:
        super().__init__(relations)
        self.cursor = cursor


def cursor_of(as_of: object, inner: str | None) -> str | None:
    """The cursor of a page, from the time that it shows and the cursor of the collection."""
    if inner is None:
        return None
    return (as_of.isoformat() if isinstance(as_of, datetime) else "") + _SEPARATOR + inner


def inner_cursor(cursor: str) -> str:
    """The cursor of the collection."""
    return cursor.partition(_SEPARATOR)[2]


def moment_of(cursor: str) -> datetime:
    """The time of the first page. Raises CursorError."""
    try:
        return datetime.fromisoformat(cursor.partition(_SEPARATOR)[0])
    except ValueError:
        raise CursorError("the cursor belongs to another query: start again without it") from None
