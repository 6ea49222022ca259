"""Schemas, documents and queries that lie far apart: few and many matches, early and late in each
order, from one seed.

Invariants:
- The same number gives the same documents and queries in every run.
- Ids ascend with `at`. Of `entity` a few values have most documents, of `kind` one has nearly all,
  `late` is true of the newest twentieth, and `path` begins with one of two letters, one of them
  rare.
"""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any, TypeAlias

from amberdb import Ordered, Unique

Asked: TypeAlias = tuple[dict[str, Any], Any, int | None]
"""where, order_by, limit"""

SCHEMAS: tuple[tuple[Ordered | Unique, ...], ...] = (
    (Ordered("entity", "at"), Ordered("at"), Ordered("path")),
    (Ordered("entity"), Ordered("kind"), Ordered("-at")),
    (Ordered("kind", "score"), Ordered("score", "at"), Ordered("late"), Ordered("path", "-at")),
    (Ordered("path"), Ordered("at"), Ordered("entity", "kind", "at"), Unique("at", name="unique")),
)
_ORDERS: tuple[Any, ...] = (
    *(None, "at", "-at", "score", ["entity", "at"], ["-path", "at"], "id", "-id"),
)
_LIMITS = (None, 1, 10, 10, 50)


def documents(number: int, count: int) -> Iterator[dict[str, Any]]:
    """The documents of one schema."""
    random = Random(number)
    for at in range(count):
        fields = {name: make(random, at, count) for name, make in _FIELDS.items()}
        yield {"id": document_id(at), **fields}


def document_id(at: int) -> str:
    return f"{at:08d}"


def asked(number: int, count: int, queries: int) -> list[Asked]:
    """Queries about `count` documents of one schema."""
    random = Random(-1 - number)
    return [
        (_where(random, count), random.choice(_ORDERS), random.choice(_LIMITS))
        for _ in range(queries)
    ]


def _where(random: Random, count: int) -> dict[str, Any]:
    where: dict[str, Any] = {}
    for name in random.sample(sorted(_FIELDS), random.choice([1, 1, 2, 2, 3])):
        values = [_FIELDS[name](random, random.randrange(count), count) for _ in range(24)]
        many, values = values, values[:3]
        low, high = min(values), max(values)
        conditions: list[Any] = [values[0]]
        if name != "late":
            conditions += [
                {"$gte": low},
                {"$gte": low, "$lt": high},
                {"$lte": low},
                {"$in": values},
                {"$in": many},
                {"$ne": low},
            ]
        if isinstance(low, str):
            conditions += [{"$prefix": low[:2]}, {"$prefix": low[:4]}]
        where[name] = random.choice(conditions)
    if random.random() < 0.2:
        low = random.randrange(count)
        high = low + random.choice([5, count // 3])
        where["id"] = {"$gte": document_id(low), "$lt": document_id(high)}
    return where


def _entity(random: Random, at: int, count: int) -> str:
    return f"e{int(random.paretovariate(0.7)) % 40}"


def _kind(random: Random, at: int, count: int) -> str:
    return "turn" if random.random() < 0.97 else random.choice("abc")


def _path(random: Random, at: int, count: int) -> str:
    return f"{random.choice('aaaaaaaaab')}/{at % 30:02d}/{random.randrange(99):02d}"


_FIELDS: dict[str, Callable[[Random, int, int], Any]] = {
    "entity": _entity,
    "kind": _kind,
    "at": lambda random, at, count: at,
    "score": lambda random, at, count: random.random(),
    "late": lambda random, at, count: at > count - count // 20,
    "path": _path,
}
