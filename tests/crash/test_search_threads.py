"""Searches beside writers, checkpoints, merges and builds: what a snapshot finds by word and by
vector is what it has."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from amberdb import Collection, Database, Snapshot, Text, Vector
from amberdb.engine.search import flush
from support.beside import beside
from support.databases import OpenDatabase

ROUNDS = 40
WRITERS = 2


def write(memory: Collection, thread: int, rng: random.Random) -> None:
    for number in range(ROUNDS):
        memory.put_many(
            [
                {
                    "id": f"{thread}-{(number + n) % 50}",
                    "content": f"word {'even' if number % 2 else 'odd'} {number}",
                    "embedding": [rng.random() + 0.1, rng.random(), rng.random()],
                }
                for n in range(5)
            ]
        )
        memory.delete(f"{thread}-{rng.randrange(50)}")


def search(db: Database, rng: random.Random) -> None:
    for _ in range(ROUNDS):
        with db.snapshot() as at:
            judge(at, rng)


def judge(at: Snapshot, rng: random.Random) -> None:
    held = {one["id"]: one for one in at["memory"].find()}
    found = at["memory"].search("word", limit=1000)
    assert {hit.id for hit in found} == set(held)
    odd = at["memory"].search("odd", limit=1000)
    assert {hit.id for hit in odd} == {i for i, one in held.items() if "odd" in one["content"]}
    near = at["memory"].search(vector=[1.0, rng.random(), 0.0], limit=1000)
    assert {hit.id for hit in near} == set(held)
    assert [hit.score for hit in near] == sorted((hit.score for hit in near), reverse=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_what_a_snapshot_finds_is_what_it_has(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(flush, "MERGE_WIDTH", 3)
    db = open_db(sync="os")
    memory = db.collection(
        "memory", indexes=[Text("content"), Vector("embedding", dim=3, metric="cosine")]
    )

    def of(thread: int) -> random.Random:
        return random.Random(seed * 100 + thread)

    with beside(db.checkpoint), ThreadPoolExecutor() as pool:
        workers = [pool.submit(write, memory, number, of(number)) for number in range(WRITERS)]
        workers += [pool.submit(search, db, of(number)) for number in range(2, 4)]
    for worker in workers:
        worker.result()
