"""Pages of a search: each goes on behind the last hit of the one before.

A cursor holds the score where its page ended and the ids that were given near it, so what is
written between two pages neither hides nor repeats others, as long as scores stay what they are:
those of vectors do, those of words move with what else is there.

Invariants:
- A cursor is bound to its question; another one, or bytes from elsewhere, is a CursorError.
- Page n costs a search that is as deep as all pages up to it.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, final
from zlib import crc32

from amberdb import Collection, CursorError, Hit, QueryError

_NOISE: Final = 1e-6
"""By so much, in proportion, two computations of one score may differ."""


@final
class Matches(list[Hit]):
    """Hits, the best first, and the way to the next page; None when this page was not filled."""

    __slots__ = ("cursor",)

    def __init__(self, hits: Iterable[Hit] = (), cursor: str | None = None) -> None:
        super().__init__(hits)
        self.cursor = cursor


def search_page(
    collection: Collection,
    query: str,
    asked: Mapping[str, Any],
    where: Mapping[str, Any],
    *,
    limit: int,
    after: str | None,
    fields: Sequence[str] | None = None,
) -> Matches:
    """`asked` is what search() takes in the place of the query, a text or a vector; an empty text
    finds nothing. Raises QueryError, CursorError."""
    if type(limit) is not int or limit < 1:
        raise QueryError(f"limit is a count from 1 on, not {limit!r}")
    digest = _digest(collection.name, query, sorted(asked), where)
    floor, given = (None, frozenset[str]()) if after is None else _opened(after, digest)
    if asked.get("text") == "":
        return Matches()
    depth = limit + len(given)
    while True:
        hits = collection.search(**asked, where=where, limit=depth, fields=fields)
        rest = [
            hit
            for hit in hits
            if floor is None or (hit.score < floor + _noise(floor) and hit.id not in given)
        ]
        if len(rest) >= limit or len(hits) < depth:
            break
        depth *= 2
    page = rest[:limit]
    if len(page) < limit:
        return Matches(page)
    end = page[-1].score
    near = end + 2 * _noise(end)
    ids = [hit.id for hit in page if hit.score <= near]
    if floor is not None and floor <= near:
        ids += given
    return Matches(page, _sealed(digest, end, ids))


def _noise(score: float) -> float:
    return _NOISE * max(1.0, abs(score))


def _digest(*question: object) -> int:
    """The same for the same question. A vector is not looked at: embedders are not exact."""
    return crc32(repr(question).encode())


def _sealed(digest: int, floor: float, ids: Sequence[str]) -> str:
    text = json.dumps([digest, floor, ids])
    return base64.urlsafe_b64encode(text.encode()).decode()


def _opened(cursor: str, digest: int) -> tuple[float, frozenset[str]]:
    """Raises CursorError."""
    try:
        found: Any = json.loads(base64.urlsafe_b64decode(cursor))
        bound, floor, ids = found
        if bound == digest and type(floor) is float and all(isinstance(id, str) for id in ids):
            return floor, frozenset(ids)
    except (TypeError, ValueError):
        pass
    raise CursorError("the cursor is not of this question: start again without it")
