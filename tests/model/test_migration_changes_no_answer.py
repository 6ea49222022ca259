"""How far a migration has come changes no answer: the same documents, put as they are at the newest
version, and migrated to it, some of them stored so and some upgraded by each read."""

from typing import Any

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

import amberdb
from amberdb import AmberError, Database, InvalidDocumentError, Unique, WritableCollection
from model.test_index_changes_no_answer import pages
from support import drawn, slices
from support.databases import SMALL, FakeClock, assert_sound
from support.model import Spec
from support.reference import Doc, same
from support.upgrades import stopped_after, upgrade_to, upgrades

IDS = [f"{letter}{number}" for letter in "abc" for number in range(4)]
POOL: list[Spec] = [*drawn.SPECS, Unique("u", sparse=True)]

queries = st.lists(
    st.tuples(drawn.filters(), drawn.orders(), st.sampled_from([None, 1, 3])),
    min_size=2,
    max_size=4,
)
writes = st.lists(
    st.tuples(st.sampled_from(["put", "update", "delete"]), st.sampled_from(IDS), drawn.bodies()),
    min_size=2,
    max_size=8,
)
stages = st.lists(
    st.tuples(st.sampled_from([1, 1, 2, 3, 0]), writes, queries, st.booleans()),
    min_size=1,
    max_size=3,
)


def outcome(collection: WritableCollection, op: str, id: str, body: Doc) -> Any:
    try:
        if op == "put":
            return collection.put({"id": id, **body})
        if op == "update":
            return bool(collection.update(id, body))
        return collection.delete(id)
    except AmberError as error:
        return type(error)


def compare(db: Database, asked: list[tuple[Any, Any, int | None]]) -> None:
    plain, migrated = db.collection("plain"), db.collection("migrated")
    for where, order, limit in asked:
        note(f"{where} {order} {limit}: {migrated.explain(where, order_by=order)}")
        wanted = pages(db, "plain", where, order, limit)
        found = pages(db, "migrated", where, order, limit)
        if order is None:
            wanted.sort(key=lambda doc: doc["id"])
            found.sort(key=lambda doc: doc["id"])
        assert same(found, wanted)
        assert migrated.count(where) == len(wanted) == plain.count(where)
    with db.snapshot() as at, db.transaction() as tx:
        for source in (at, tx):
            assert same(list(source["migrated"].documents()), list(plain.documents()))
            where, order, _ = asked[0]
            assert same(
                sorted(source["migrated"].find(where), key=lambda doc: doc["id"]),
                sorted(source["plain"].find(where), key=lambda doc: doc["id"]),
            )


@pytest.mark.slow
@pytest.mark.sliced
@settings(max_examples=slices.examples(2, 0.35))
@given(
    firsts=st.lists(drawn.full_bodies(), min_size=8, max_size=12),
    stages=stages,
    specs=st.lists(st.sampled_from(POOL), max_size=6, unique_by=lambda spec: spec.name),
    version=st.integers(1, 4),
    expires=st.booleans(),
)
def test_a_migration_changes_no_answer(
    firsts: list[Doc],
    stages: list[tuple[int, Any, Any, bool]],
    specs: list[Spec],
    version: int,
    expires: bool,
) -> None:
    clock = FakeClock()
    with amberdb.open(":memory:", **SMALL, clock=clock) as db:
        for name in ("plain", "migrated"):
            db.collection(name, indexes=specs, expires_at="t" if expires else None, version=version)
        for number, (id, body) in enumerate(zip(IDS, firsts, strict=False)):
            if expires:
                body["t"] = clock.now + number % 3 - 0.5
            for name in ("plain", "migrated"):
                outcome(db.collection(name), "put", id, body)
        for batches, some, asked, checkpoints in stages:
            version += 1
            plain = db.collection("plain")
            try:
                upgraded = [upgrade_to(version)(doc) for doc in plain.documents()]
                with db.transaction() as tx:
                    for doc in upgraded:
                        tx["plain"].put(doc)
            except InvalidDocumentError:
                break  # the indexes do not allow for it
            with stopped_after(batches):
                db.collection("migrated", version=version, migrate=upgrades([version]))
                db.migrate()
            compare(db, asked)
            for op, id, body in some:
                wanted = outcome(plain, op, id, body)
                assert outcome(db.collection("migrated"), op, id, body) == wanted, (op, id)
            if checkpoints:
                db.checkpoint()
            compare(db, asked)
            assert_sound(db)
        else:
            db.migrate()
            compare(db, stages[-1][2])
            assert not db.definition("migrated").steps
