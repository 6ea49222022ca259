"""Pages of a search: each continues after the last hit of the page before.

A cursor holds the score at which its page ended, and the ids that were returned near that score. So
documents written between two pages neither hide nor repeat others, as long as scores do not change:
vector scores never do, BM25 scores change when other documents are written.

Invariants:
- A cursor is bound to its query; any other cursor raises CursorError.
- Page n costs a search as deep as pages 1 to n together.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, final
from zlib import crc32

from amberdb import Collection, CursorError, Hit, QueryError

_NOISE: Final = 1e-6
"""The relative difference that two computations of one score may have."""


@final
class Matches(list[Hit]):
    """Hits, the best first. `cursor` is for the next page; None when this page was not filled."""

    __slots__ = ("cursor",)

    def __init__(self, hits: Iterable[Hit] = (), cursor: str | None = None) -> None:
        super().__init__(hits)
        self.cursor = cursor


def search_page(
    collection: Collection,
    search: Mapping[str, Any],
    where: Mapping[str, Any],
    *,
    limit: int,
    after: str | None,
    fields: Sequence[str] | None = None,
    asked: Mapping[str, str] | None = None,
) -> Matches:
    """One page of a search. `search` has the arguments of Collection.search(), and `asked` the text
    that a vector in there was made of. Raises QueryError, CursorError."""
    if type(limit) is not int or limit < 1:
        raise QueryError(f"limit must be at least 1, not {limit!r}")
    digest = _digest(collection.name, asked or search, sorted(search), where)
    floor, returned = (None, frozenset[str]()) if after is None else _decoded(after, digest)
    depth = limit + len(returned)
    while True:
        hits = collection.search(**search, where=where, limit=depth, fields=fields)
        rest = [
            hit
            for hit in hits
            if floor is None or (hit.score < floor + _noise(floor) and hit.id not in returned)
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
        ids += returned
    return Matches(page, _encoded(digest, end, ids))


def _noise(score: float) -> float:
    return _NOISE * max(1.0, abs(score))


def _digest(*query: object) -> int:
    """A checksum of the query. Without its vector: embedders do not return the same one twice."""
    return crc32(repr(query).encode())


def _encoded(digest: int, floor: float, ids: Sequence[str]) -> str:
    text = json.dumps([digest, floor, ids])
    return base64.urlsafe_b64encode(text.encode()).decode()


def _decoded(cursor: str, digest: int) -> tuple[float, frozenset[str]]:
    """(score, ids) of a cursor. Raises CursorError."""
    try:
        fields: Any = json.loads(base64.urlsafe_b64decode(cursor))
        query, floor, ids = fields
        if query == digest and type(floor) is float and all(isinstance(id, str) for id in ids):
            return floor, frozenset(ids)
    except (TypeError, ValueError):
        pass
    raise CursorError("the cursor belongs to another query: start again without it")
