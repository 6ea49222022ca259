"""View.keys() and counts: the keys of LMDB and of the memtables, merged in blocks."""

from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import amberdb
from amberdb import Ordered
from amberdb.engine.database.writable_collection import WritableCollection
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.storage import index_scan, view
from amberdb.engine.storage.index_scan import places
from support import slices
from support.databases import SMALL
from support.inside import engine_of

steps = st.lists(
    st.tuples(st.sampled_from(["put", "put", "delete", "checkpoint", "freeze"]), st.integers(0, 9)),
    max_size=40,
)


@pytest.mark.sliced
@settings(max_examples=slices.examples(1, 0.2), deadline=None)
@given(steps=steps, pending=steps, limit=st.integers(0, 9), block=st.integers(1, 5))
def test_keys_in_blocks_are_those_of_a_scan(
    steps: list[tuple[str, int]], pending: list[tuple[str, int]], limit: int, block: int
) -> None:
    with (
        amberdb.open(":memory:", **SMALL) as db,
        patch.multiple(view, _KEYS_BLOCK=block, _KEYS_BLOCK_MAX=2 * block),
        patch.object(index_scan, "_COUNTED", block),
    ):
        notes = db.collection("n", indexes=[Ordered("a")])
        there: dict[str, int] = {}

        def run(steps: list[tuple[str, int]], notes: WritableCollection) -> None:
            for op, number in steps:
                id = f"{number:02d}"
                if op == "put":
                    notes.put({"id": id, "a": number % 4})
                    there[id] = number % 4
                elif op == "delete":
                    notes.delete(id)
                    there.pop(id, None)

        run([("put", 2 * number) for number in range(5)], notes)
        db.checkpoint()
        for step in steps:
            run([step], notes)
            if step[0] == "checkpoint":
                db.checkpoint()
            elif step[0] == "freeze":
                engine_of(db).committer.freeze()
        assert notes.count({"a": {"$gte": 1}}) == sum(value >= 1 for value in there.values())
        with db.transaction() as tx:
            run(pending, tx["n"])
            assert tx["n"].count({"a": {"$gte": 1}}) == sum(a >= 1 for a in there.values())
            at = tx.writer().view
            prefix = at.catalog.schema("n").prefix
            low, high = prefix + b"02", end_of(prefix)
            scanned = [key for key, _ in at.scan(low, high)]
            assert scanned == [prefix + id.encode() for id in sorted(there) if id >= "02"]
            assert at.keys(low, high, limit) == scanned[:limit]
            assert at.keys(high, low, limit) == []
            assert len(places(at, [(low, high)], limit)) == len(scanned[:limit])
