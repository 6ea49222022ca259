"""Breadth-first traversal of a knowledge graph, one level of names after another.

Invariants:
- A name appears once, at its distance from the start. Its predecessor is the first name, in sorted
  order, of the level before that has a relation to it.
- A traversal ends with the graph, when the caller stops, or with an error after WALK_MAX entities.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from amberdb import Page, QueryError
from amberdb._shared.queries import all_pages

Direction: TypeAlias = Literal["out", "in", "both"]

WALK_MAX: Final = 100_000
"""Entities that one traversal may visit."""
CHUNK: Final = 200
"""Names in the $in of one query: each opens a range of an index."""
_ENDS: Final[Mapping[Direction, Sequence[tuple[str, str]]]] = {
    "out": [("source", "target")],
    "in": [("target", "source")],
    "both": [("source", "target"), ("target", "source")],
}


def levels(
    find: Callable[..., Page], start: str, where: Mapping[str, Any], direction: Direction
) -> Iterator[dict[str, str]]:
    """For each distance from `start`, 1, 2 and so on: the names found there, each with its
    predecessor. Raises QueryError."""
    if direction not in list(_ENDS):  # a list: a map cannot be looked up in a map
        raise QueryError(f'direction must be "out", "in" or "both", not {direction!r}')
    seen, frontier = {start}, [start]
    while frontier:
        level: dict[str, str] = {}
        for near, far in _ENDS[direction]:
            for begin in range(0, len(frontier), CHUNK):
                query = {near: {"$in": frontier[begin : begin + CHUNK]}, **where}
                for relation in all_pages(find, query, fields=["source", "target"]):
                    name, before = relation[far], relation[near]
                    if name not in seen:
                        level[name] = min(before, level.get(name, before))
        seen.update(level)
        if len(seen) > WALK_MAX:
            raise QueryError(
                f"the traversal from {start!r} visits more than {WALK_MAX} entities: use fewer "
                "hops, or one relation_type"
            )
        frontier = sorted(level)
        if level:
            yield level
