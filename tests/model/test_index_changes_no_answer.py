"""An index never changes an answer: the same documents with many indexes and with none.

Some documents are in LMDB, some in the memtable above it, some are deleted or replaced in either,
and some of the indexes are built from what is there instead of being written along.
"""

from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

import amberdb
from amberdb import Collection, Database, Ordered, QueryError, Unique
from amberdb.engine.query import choice
from support import drawn, reference, slices
from support.databases import SMALL, FakeClock, assert_sound
from support.model import Spec
from support.reference import Doc, same

INDEXED: list[Spec] = [
    *drawn.SPECS,
    Ordered("tags", "-s"),
    Ordered("-s", "tags"),
    Ordered("m.y", "u", sparse=True),
    Ordered("-a", "-b", "-s"),
    Ordered("id"),
    Unique("id", "u"),
    Ordered("none", "tags"),
]
KEPT = ["u", "a", "m.x"]
IDS = [f"{letter}{number}" for letter in "abc" for number in range(6)]

_nothing: st.SearchStrategy[Doc] = st.just(Doc())

steps: st.SearchStrategy[list[tuple[str, str, Doc]]] = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(IDS), drawn.bodies()),
        st.tuples(st.just("put"), st.sampled_from(IDS), drawn.bodies()),
        st.tuples(st.just("delete"), st.sampled_from(IDS), _nothing),
        st.tuples(st.just("checkpoint"), st.just(""), _nothing),
    ),
    max_size=20,
)
firsts = st.lists(drawn.full_bodies(), min_size=4, max_size=12)
queries = st.lists(
    st.tuples(drawn.filters(), drawn.orders(), st.sampled_from([None, 1, 2, 3, 7])),
    min_size=3,
    max_size=8,
)


def by_id(document: Doc) -> str:
    return str(document["id"])


def pages(db: Database, name: str, where: Any, order: Any, limit: int | None) -> list[Doc]:
    found: list[Doc] = []
    after: str | None = None
    while True:
        page = db.collection(name).find(where, order_by=order, limit=limit, after=after)
        found += page
        after = page.cursor
        if after is None or limit is None:
            return found
        assert len(page) == limit


def check_values(collection: Collection, where: Any, docs: list[Doc]) -> None:
    """The values of every field, of which some are read from an index."""
    for path in drawn.PATHS:
        wanted = reference.values(docs, path)
        note(f"{where} {path}: {collection.explain(where, distinct=path)}")
        found = collection.distinct(path, where)
        assert [reference.rank(value) for value in found] == [
            reference.rank(value) for value, _ in wanted
        ]
        assert [each for each, _ in wanted if not any(amberdb.equal(each, v) for v in found)] == []
        some = [value for value, _ in wanted if value is not None]
        for end, value in ((0, collection.min(path, where)), (-1, collection.max(path, where))):
            assert reference.rank(value) == reference.rank(some[end] if some else None)
        try:
            counts = dict(wanted)
        except TypeError:  # a map or a list
            counts = {}
        if len(counts) == len(wanted):
            assert collection.count_by(path, where) == counts
        else:
            with pytest.raises(QueryError, match="key of a dict"):
                collection.count_by(path, where)


@pytest.mark.slow
@pytest.mark.sliced
@settings(max_examples=slices.examples(4, 0.3))
@given(
    firsts=firsts,
    steps=steps,
    queries=queries,
    early=st.lists(st.sampled_from(INDEXED), max_size=6, unique_by=lambda spec: spec.name),
    built=st.integers(0, 12),
    expires=st.booleans(),
    few=st.sampled_from([1, 2, choice.FEW]),
)
def test_an_index_never_changes_an_answer(
    firsts: list[Doc],
    steps: list[tuple[str, str, Doc]],
    queries: list[tuple[Any, Any, int | None]],
    early: list[Spec],
    built: int,
    expires: bool,
    few: int,
) -> None:
    """`few` makes plans race over as few documents as there are here."""
    clock = FakeClock()
    with (
        amberdb.open(":memory:", **SMALL, clock=clock) as db,
        patch.object(choice, "FEW", few),
    ):
        plain = db.collection("plain", expires_at="u" if expires else None)
        indexed = db.collection("indexed", indexes=early, expires_at="u" if expires else None)
        first_steps = [("put", id, body) for id, body in zip(IDS, firsts, strict=False)]
        for at, (op, id, body) in enumerate([*first_steps, *steps]):
            if at == built:
                db.collection("indexed", indexes=INDEXED)
                db.build_indexes()
            if op == "checkpoint":
                db.checkpoint()
                continue
            if expires and "u" in body:  # of 13 values, 4 have expired
                body = {**body, "u": clock.now + body["u"] - 3.5}
            for each in (plain, indexed):
                if op == "put":
                    each.put({"id": id, **body})
                else:
                    each.delete(id)
        for where, order, limit in queries:
            note(f"{where} {order} {limit}: {indexed.explain(where, order_by=order)}")
            wanted = pages(db, "plain", where, order, limit)
            found = pages(db, "indexed", where, order, limit)
            if order is None:
                wanted.sort(key=lambda doc: doc["id"])
                found.sort(key=lambda doc: doc["id"])
            assert same(found, wanted)
            assert all(reference.matches(doc, where) for doc in found)
            matches = [doc for doc in plain.documents() if reference.matches(doc, where)]
            assert len(found) == len(matches)
            only = indexed.find(where, order_by=order, fields=["id"])
            if order is None:
                only.sort(key=lambda doc: doc["id"])
            assert only == [{"id": doc["id"]} for doc in found]
            kept = [
                sorted(each.find(where, order_by=order, fields=["id", *KEPT]), key=by_id)
                for each in (indexed, plain)
            ]
            assert same(*kept)
            assert indexed.count(where) == len(wanted) == plain.count(where)
            check_values(indexed, where, wanted)
            check_values(plain, where, wanted)
        assert_sound(db)
        where = queries[0][0]
        assert indexed.delete_many(where) == plain.delete_many(where)
        assert same(list(indexed.documents()), list(plain.documents()))
        assert_sound(db)
