"""Walks over the relations of a knowledge graph, level by level, all of a level at once.

Invariants:
- A name is met once, at its distance from the start, and comes from the first one, in the order of
  names, that leads to it from the level before.
- A walk ends: with the graph, with whoever asks, or with an error past WALK_MAX entities.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from amberdb import Page, QueryError
from amberdb._shared.pages import all_pages

Direction: TypeAlias = Literal["out", "in", "both"]

WALK_MAX: Final = 100_000
"""Entities that one walk may meet."""
CHUNK: Final = 200
"""Names that one query asks for: an index is not used for more."""
_ENDS: Final[Mapping[Direction, Sequence[tuple[str, str]]]] = {
    "out": [("source", "target")],
    "in": [("target", "source")],
    "both": [("source", "target"), ("target", "source")],
}


def levels(
    find: Callable[..., Page], start: str, where: Mapping[str, Any], direction: Direction
) -> Iterator[dict[str, str]]:
    """What is one relation away, two, and so on, while there is something: each name with the one
    that it comes from. Raises QueryError."""
    if direction not in _ENDS:
        raise QueryError(f'direction is "out", "in" or "both", not {direction!r}')
    seen, frontier = {start}, [start]
    while frontier:
        level: dict[str, str] = {}
        for near, far in _ENDS[direction]:
            for begin in range(0, len(frontier), CHUNK):
                asked = {near: {"$in": frontier[begin : begin + CHUNK]}, **where}
                for link in all_pages(find, asked, fields=["source", "target"]):
                    name, before = link[far], link[near]
                    if name not in seen:
                        level[name] = min(before, level.get(name, before))
        seen.update(level)
        if len(seen) > WALK_MAX:
            raise QueryError(
                f"the walk from {start!r} meets more than {WALK_MAX} entities: ask for fewer "
                "hops, or for one relation_type"
            )
        frontier = sorted(level)
        if level:
            yield level
