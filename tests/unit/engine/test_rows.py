"""What is known of the rows that are alive, and kept from one search to the next."""

from collections.abc import Callable
from typing import Any

import pytest

from amberdb import Collection, Database, Text, Vector
from amberdb.engine.search import live_rows


@pytest.fixture
def memory(db: Database) -> Collection:
    memory = db.collection("memory", indexes=[Text("content"), Vector("embedding", dim=2)])
    memory.put_many({"content": f"tea {i}", "embedding": [1.0, i]} for i in range(20))
    return memory


def test_bits_are_read_once_after_a_checkpoint(
    db: Database, memory: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def search() -> None:
        assert len(memory.search(text="tea", vector=[1.0, 2.0], limit=3)) == 3

    read: list[str] = []
    stored_alive: Callable[..., Any] = live_rows.stored_alive

    def counted(source: Any, index: Any) -> Any:
        read.append(index.spec.name)
        return stored_alive(source, index)

    search()
    db.checkpoint()
    monkeypatch.setattr(live_rows, "stored_alive", counted)
    for _ in range(3):
        search()
    assert len(read) == len(set(read)) == 2  # each index, once
    memory.put({"content": "tea", "embedding": [1.0, 0.5]})
    search()
    with db.snapshot() as snapshot:
        db.checkpoint()
        search()
        snapshot.collection("memory").search(vector=[1.0, 2.0])  # of the past, and forgotten
        read.clear()
        search()
    assert not read
