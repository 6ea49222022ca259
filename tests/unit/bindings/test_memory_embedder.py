"""Embedders of layered memory that change, are missing, or return what is no vector."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from amberdb import CollectionError, Database
from amberdb.memory import Memory
from support.databases import OpenDatabase

Embed = Callable[[list[str]], Any]


def embedder(dim: int, axis: int = 0) -> Embed:
    """A text with "car" lies on one axis, any other on the next."""

    def embed(texts: list[str]) -> Any:
        return [np.eye(dim)[axis if "car" in text else (axis + 1) % dim] for text in texts]

    return embed


def vectors_of(db: Database) -> list[int | None]:
    found = db["event"].find({}, fields=["embedding"], limit=None)
    return [len(each["embedding"]) if "embedding" in each else None for each in found]


def told(memory: Memory) -> None:
    memory.remember("u", "bought a car", memory_layer="event")
    memory.remember("u", "drank tea", memory_layer="event")


@pytest.mark.parametrize(
    ("first", "second"), [((4, None), (6, None)), ((4, "a"), (4, "b")), ((4, "a"), (6, "b"))]
)
def test_another_embedder_makes_all_vectors_anew(
    open_db: OpenDatabase, first: tuple[int, str | None], second: tuple[int, str | None]
) -> None:
    db = open_db()
    told(Memory(db, embed=embedder(first[0]), dim=first[0], model=first[1]))
    db.close()
    db = open_db()
    memory = Memory(db, embed=embedder(second[0], 2), dim=second[0], model=second[1])
    assert [hit.document["content"] for hit in memory.recall("car")] == ["bought a car"]
    assert vectors_of(db) == [None, None], "the old ones are of another space"
    waiting = db.stats()["collections"]["event"]
    assert waiting["migrating"] or waiting["embedding"]
    db.migrate()
    db.build_indexes()
    assert db["event"].embed_missing() == 2
    assert vectors_of(db) == [second[0], second[0]]
    db.build_indexes()
    (best, other) = memory.recall("my car")
    assert best.document["content"] == "bought a car"
    assert best.score > other.score
    db.close()
    db = open_db()  # once is enough
    Memory(db, embed=embedder(second[0], 2), dim=second[0], model=second[1])
    assert vectors_of(db) == [second[0], second[0]]


@pytest.mark.parametrize("later", ["named", "unnamed", "none"])
def test_the_same_embedder_keeps_them(open_db: OpenDatabase, later: str) -> None:
    db = open_db()
    told(Memory(db, embed=embedder(4), dim=4, model=None if later == "named" else "a"))
    if later == "none":
        memory = Memory(db)
        memory.remember("u", "sold the car", memory_layer="event")
        assert sorted(vectors_of(db), key=str) == [4, 4, None]
        assert memory.recall("car")[0].document["content"] in ("bought a car", "sold the car")
        Memory(db, embed=embedder(4), dim=4, model="a")
        assert db["event"].embed_missing() == 1
    else:
        Memory(db, embed=embedder(4), dim=4, model="a" if later == "named" else None)
    assert set(vectors_of(db)) == {4}
    with pytest.raises(CollectionError, match="model="):
        Memory(db, model="a")


def answers(what: str, count: int) -> Any:
    return {
        "zeros": np.zeros((count, 4)),
        "NaN": np.full((count, 4), np.nan),
        "short": np.ones((count, 3)),
        "one": np.ones(4),
        "none": None,
        "words": ["?"] * count,
    }[what]


@pytest.mark.parametrize("what", ["zeros", "NaN", "short", "one", "none", "words"])
def test_what_is_no_vector_waits_and_the_text_is_stored(db: Database, what: str) -> None:
    memory = Memory(db, embed=lambda texts: answers(what, len(texts)), dim=4)
    told(memory)
    assert vectors_of(db) == [None, None]
    assert [hit.document["content"] for hit in memory.recall("car")] == ["bought a car"]
    Memory(db, embed=embedder(4), dim=4)
    assert db["event"].embed_missing() == 2


def test_no_model_is_called_within_the_transaction_of_the_caller(db: Database) -> None:
    calls: list[list[str]] = []

    def embed(texts: list[str]) -> Any:
        calls.append(texts)
        return embedder(4)(texts)

    memory = Memory(db, embed=embed, dim=4)
    with db.transaction() as tx:
        memory.remember("u", "bought a car", memory_layer="event", tx=tx)
    assert calls == []
    assert db["event"].embed_missing() == 1
