"""A query of the field that says when documents expire, answered by the expiry index: the same as
of a collection that has the same documents, without those that have expired, and no expiry."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

import amberdb
from amberdb import Collection, Database, Ordered
from support import slices
from support.databases import SMALL, FakeClock, assert_sound
from support.reference import Doc

START = 1_700_000_000.0
IDS = [f"d{number}" for number in range(8)]
# Two may be of one microsecond, and differ; some are far beyond the times of datetimes.
seconds = st.sampled_from([-3, -1.0, 0, 0.0000001, 0.5, 1, 1.0000005, 1.000001, 2, 2.0, 5, 60.25])
times = st.one_of(
    st.none(),
    seconds.map(lambda offset: START + offset),
    seconds.map(lambda offset: datetime.fromtimestamp(START + offset, UTC)),
    st.sampled_from([0, -1e11, 8.9e12, 8_999_999_999_999, datetime(9999, 12, 31, tzinfo=UTC)]),
)
others: st.SearchStrategy[Any] = st.sampled_from(
    ["x", True, [], [1], {}, b"", float("inf"), -float("inf"), 2**63 - 1, -(2**62)]
)
bounds: st.SearchStrategy[Any] = st.one_of(
    times.filter(lambda time: time is not None), times, others
)


@st.composite
def wheres(draw: st.DrawFn) -> Any:
    conditions: dict[str, Any] = {}
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(["$gt", "$gte", "$lt", "$lte", "$eq", "$in", "$ne", "$exists"]))
        if name == "$in":
            conditions[name] = draw(st.lists(bounds, max_size=3))
        elif name == "$exists":
            conditions[name] = draw(st.booleans())
        elif name in ("$eq", "$ne"):
            conditions[name] = draw(bounds)
        else:
            conditions[name] = draw(times.filter(bool) | st.sampled_from([float("inf"), 2**63 - 1]))
    return {"until": conditions, **draw(st.sampled_from([{}, {}, {"k": 1}]))}


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(IDS), times, st.integers(0, 1)),
        st.tuples(st.just("put"), st.sampled_from(IDS), times, st.integers(0, 1)),
        st.tuples(st.sampled_from(["delete", "checkpoint", "advance", "expire"]),
                  st.sampled_from(IDS), st.none(), st.just(0)),
    ),
    min_size=4,
    max_size=24,
)  # fmt: skip
queries = st.lists(
    st.tuples(
        wheres(),
        st.sampled_from([None, "until", "-until", "k", ["until", "k"]]),
        st.sampled_from([None, 1, 3]),
    ),
    min_size=2,
    max_size=6,
)


def upgraded(document: Doc) -> Doc:
    """Its time as the other type, so that it may round."""
    until = document.get("until")
    if isinstance(until, float) and abs(until - START) < 100:
        document["until"] = datetime.fromtimestamp(round(until, 3), UTC)
    elif isinstance(until, datetime) and until.year < 9999:
        document["until"] = round(until.timestamp(), 3)
    return document


def found(collection: Collection, where: Any, order: Any, limit: int | None) -> list[Doc]:
    documents: list[Doc] = []
    after = None
    while True:
        page = collection.find(where, order_by=order, limit=limit, after=after)
        documents += page
        after = page.cursor
        if after is None:
            return documents


def declared(db: Database, version: int, indexes: list[Ordered]) -> tuple[Collection, Collection]:
    migrate: Any = {2: upgraded} if version == 2 else None
    expiring = db.collection(
        "expiring", indexes=indexes, expires_at="until", version=version, migrate=migrate
    )
    return expiring, db.collection("plain", version=version, migrate=migrate)


@pytest.mark.sliced
@settings(max_examples=slices.examples(4, 0.5))
@given(
    steps=steps,
    queries=queries,
    indexes=st.sampled_from([[], [Ordered("k")], [Ordered("until")], [Ordered("k", "until")]]),
    migrated=st.booleans(),
)
def test_the_expiry_index_changes_no_answer(
    steps: list[tuple[str, str, Any, int]],
    queries: list[tuple[Any, Any, int | None]],
    indexes: list[Ordered],
    migrated: bool,
) -> None:
    clock = FakeClock(START)
    with amberdb.open(":memory:", **SMALL, clock=clock) as db:
        expiring, plain = declared(db, 1, indexes)
        expires_at: dict[str, float] = {}

        def forget() -> None:
            for id, time in list(expires_at.items()):
                if time <= clock.now:
                    plain.delete(id)
                    del expires_at[id]

        for op, id, until, k in steps:
            if op == "put":
                for each in (expiring, plain):
                    each.put({"id": id, "until": until, "k": k})
                expires_at[id] = (
                    float("inf")
                    if until is None
                    else until.timestamp() if isinstance(until, datetime)
                    else int(until * 1_000_000) / 1_000_000
                )  # fmt: skip
            elif op == "delete":
                expiring.delete(id)
                plain.delete(id)
                expires_at.pop(id, None)
            elif op == "advance":
                clock.advance(1)
            elif op == "expire":
                db.expire()
            else:
                db.checkpoint()
            forget()
        if migrated:
            expiring, plain = declared(db, 2, indexes)
            db.migrate()
        db.collection("none", expires_at="until")
        for where, order, limit in queries:
            plan = expiring.explain(where, order_by=order)
            note(f"{where} {order} {limit}: {plan}")
            answer = found(expiring, where, order, limit)
            wanted = found(plain, where, order, limit)
            if order is None:
                answer.sort(key=lambda document: str(document["id"]))
                wanted.sort(key=lambda document: str(document["id"]))
            assert answer == wanted
            assert expiring.count(where) == len(wanted)
            assert found(db["none"], where, order, limit) == []
        where = queries[0][0]
        assert expiring.delete_many(where) == plain.delete_many(where)
        assert list(expiring.documents()) == list(plain.documents())
        assert_sound(db)
