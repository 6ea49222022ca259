"""All that a query finds, page by page: memory holds one page, however much there is."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from amberdb import Document, Page

PAGE: Final = 500


def all_pages(
    find: Callable[..., Page], where: Mapping[str, Any], *, limit: int = PAGE, **more: Any
) -> Iterator[Document]:
    """For as long as somebody asks; `limit` documents at a time. Outside of a snapshot each page is
    as of its own moment. Raises QueryError."""
    after: str | None = None
    while True:
        page = find(where, limit=limit, after=after, **more)
        yield from page
        after = page.cursor
        if after is None:
            return
