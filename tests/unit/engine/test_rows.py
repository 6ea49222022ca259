"""What is known of the rows that are alive, and kept from one search to the next."""

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from amberdb import Collection, Database, ReadableCollection, Text, Vector
from amberdb.engine.database.writable_collection import WritableCollection
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


def test_what_is_known_of_rows_follows_every_commit(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Puts, changes, deletes and searches in turns, at the newest commit, in a transaction, in one
    that rolls back, and in a snapshot, across checkpoints. No mask changes once it was given."""
    given: list[tuple[Any, Any]] = []
    live_of: Callable[..., Any] = live_rows.LiveRows.live

    def noted(self: Any, *args: Any) -> Any:
        live = live_of(self, *args)
        given.append((live.alive, live.alive.copy()))
        return live

    monkeypatch.setattr(live_rows.LiveRows, "live", noted)
    random = Random(5)
    notes = db.collection("notes", indexes=[Text("text")], expires_at="until")
    model: dict[str, str] = {}

    def found(of: ReadableCollection, word: str) -> set[str]:
        return {hit.id for hit in of.search(word, limit=100)}

    def wanted(of: dict[str, str], word: str) -> set[str]:
        return {id for id, text in of.items() if word in text.split()}

    def change(of: WritableCollection, texts: dict[str, str]) -> None:
        id = f"n{random.randrange(12)}"
        if random.random() < 0.3:
            of.delete(id)
            texts.pop(id, None)
        else:
            texts[id] = f"tea {random.choice(['green', 'black'])}"
            of.put({"id": id, "text": texts[id]})

    snapshot, past = db.snapshot(), dict(model)
    for step in range(150):
        change(notes, model)
        word = random.choice(["tea", "green", "black"])
        assert found(notes, word) == wanted(model, word)
        if step % 5 == 0:
            inside = dict(model)
            with suppress(ZeroDivisionError), db.transaction() as tx:
                for _ in range(3):
                    change(tx["notes"], inside)
                    assert found(tx["notes"], word) == wanted(inside, word)
                if random.random() < 0.5:
                    raise ZeroDivisionError
                model.clear()
                model.update(inside)
            assert found(notes, word) == wanted(model, word)
        assert found(snapshot.collection("notes"), word) == wanted(past, word)
        if step % 20 == 7:
            db.checkpoint()
        if step % 30 == 11:
            snapshot.close()
            snapshot, past = db.snapshot(), dict(model)
    snapshot.close()
    assert all((mask == before).all() for mask, before in given)
