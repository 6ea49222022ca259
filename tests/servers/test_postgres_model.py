"""A database on a server answers as one in a directory: the same life of documents and
declarations, and the same questions, in both; equal to type and order.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from amberdb import Collection, Database, Ordered, Unique
from support import drawn, reference, slices
from support.audited_server import audited_url
from support.both_engines import Both, databases_of
from support.databases import FakeClock
from support.model import Spec
from support.reference import Doc, same
from support.servers import PostgreSQL
from support.slices import every

INDEXED: list[Spec] = [
    *drawn.SPECS,
    Ordered("tags", "-s"),
    Ordered("m.y", "u", sparse=True),
    Ordered("id"),
    Unique("u", sparse=True),
    Unique("tags", sparse=True),
    Unique("s", "u", sparse=True),
]
IDS = [*drawn.IDS, "f", "g", "h"]
PARTS = 1 if settings().derandomize else 4
"""Of `make lives`: 2,000 lives in one test take half an hour, and the memory of all of them."""
KINDS = ["put", "put", "put", "insert", "update", "update", "increase", "delete", "many", "touch"]
HOURS: st.SearchStrategy[float | None] = st.one_of(st.none(), st.floats(-2, 9).map(round))

lives = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.sampled_from(IDS),
        st.one_of(drawn.bodies(), drawn.full_bodies()),
        drawn.patches(),
        HOURS,
    ),
    min_size=8,
    max_size=25,
)
questions = st.lists(
    st.tuples(drawn.filters(), drawn.orders(), st.sampled_from([None, 1, 2, 3, 7])),
    min_size=3,
    max_size=8,
)
declarations = st.lists(st.sampled_from(INDEXED), max_size=6, unique_by=lambda spec: spec.name)


@pytest.fixture(scope="module", params=every(2, [18, 16]))
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Of a new database on each version, on one of them in a slice."""
    server: PostgreSQL = request.getfixturevalue(f"postgres{request.param}")
    with audited_url(server) as url:
        yield url


def step(both: Both, kind: str, id: str, body: Doc, patch: Doc, until: float | None) -> None:
    document = {"id": id, **body, "until": until}
    match kind:
        case "put":
            both.same_outcome(lambda each: each.put(document))
        case "insert":
            both.same_outcome(lambda each: each.insert(document))
        case "update":
            both.same_outcome(lambda each: bool(each.update(id, patch)))
        case "increase":
            changes = {"$inc": {"u": 1}, "$push": {"tags": 3}, "$set": {"m.x": 1}}
            both.same_outcome(lambda each: bool(each.update(id, changes)))
        case "delete":
            both.same_outcome(lambda each: each.delete(id))
        case "many":
            others = [{**body, "id": other} for other in ("f", id, "g", id)]
            both.same_outcome(lambda each: each.put_many(others, on_conflict="keep"))
        case _:
            both.same_outcome(lambda each: each.touch([id, "f"], until))


def pages(collection: Collection, where: Any, order: Any, limit: int | None) -> list[Doc]:
    found: list[Doc] = []
    after: str | None = None
    while True:
        page = collection.find(where, order_by=order, limit=limit, after=after)
        found += page
        after = page.cursor
        if after is None or limit is None:
            return found
        assert len(page) == limit


def ask(both: Both, where: Any, order: Any, limit: int | None) -> None:
    here, there = (pages(each, where, order, limit) for each in both.collections())
    if order is None:
        here.sort(key=lambda doc: doc["id"])
        there.sort(key=lambda doc: doc["id"])
    assert same(here, there)
    both.same_outcome(lambda each: each.count(where))
    both.same_outcome(
        lambda each: sorted(map(repr, each.find(where, order_by=order, fields=["id", "u", "m.x"])))
    )
    for path in ("a", "tags", "m.y", "u"):
        ask_values(both, where, path)


def ask_values(both: Both, where: Any, path: str) -> None:
    both.same_outcome(lambda each: [reference.rank(value) for value in each.distinct(path, where)])
    both.same_outcome(lambda each: each.count_by(path, where))
    both.same_outcome(lambda each: reference.rank(each.max(path, where)))


def whole(both: Both) -> None:
    here, there = (list(each.documents()) for each in both.collections())
    assert same(here, there)
    ids = [*(doc["id"] for doc in here), "missing"]
    both.same_outcome(lambda each: each.get_many(ids))
    both.same_outcome(lambda each: [each.get(id) for id in ids])


@pytest.fixture(scope="module")
def databases(url: str) -> Iterator[tuple[Database, Database, FakeClock]]:
    with databases_of(url) as databases:
        yield databases


@pytest.mark.sliced
@pytest.mark.parametrize("part", range(PARTS))
@settings(max_examples=slices.examples(2, 0.3) // PARTS)
@given(
    life=lives,
    asked=questions,
    first=declarations,
    second=declarations,
    turn=st.integers(0, 12),
    expires=st.booleans(),
)
def test_both_engines_give_the_same_answers(
    databases: tuple[Database, Database, FakeClock],
    part: int,
    life: list[tuple[str, str, Doc, Doc, float | None]],
    asked: list[tuple[Any, Any, int | None]],
    first: list[Spec],
    second: list[Spec],
    turn: int,
    expires: bool,
) -> None:
    directory, server, clock = databases
    both = Both(directory, server)
    both.declare(first, expires)
    for at, (kind, id, body, patch, until) in enumerate(life):
        if at == turn:
            both.declare(second, expires)
        step(both, kind, id, body, patch, None if until is None else clock.now + until - 2)
        if expires and at % 8 == 7:
            clock.advance(1)
    whole(both)
    for where, order, limit in asked:
        note(f"{where} {order} {limit}")
        ask(both, where, order, limit)
    both.same_outcome(lambda each: each.delete_many(asked[0][0]))
    whole(both)
    for each in both.collections():  # in a directory a writer of its unique value has removed some
        each.expire()
    both.same_outcome(lambda each: each.expire())
    whole(both)
    for db in both.databases:
        db.drop_collection(both.name)
        db.build_indexes()  # which frees what was dropped
        db.checkpoint()
