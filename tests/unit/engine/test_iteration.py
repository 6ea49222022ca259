"""Iteration: what a loop over a collection sees of writes during it, that it ends, and that it
holds nothing."""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

import amberdb
from amberdb import (
    ClosedError,
    Collection,
    Database,
    IndexSpec,
    Ordered,
    ReadableCollection,
    Text,
    WritableCollection,
)
from amberdb.engine.commit.committer import Committer
from amberdb.engine.database import iteration
from amberdb.engine.storage.view import View
from support.databases import SMALL, FakeClock, OpenDatabase
from unit.engine.helpers import ids

BLOCK = 64
"""Documents of a block: 512 would show nothing else, and take eight times as long."""
MANY = 2 * BLOCK + 12

Loop: TypeAlias = Callable[[ReadableCollection], Iterator[str]]


def by_documents(notes: ReadableCollection) -> Iterator[str]:
    return (document["id"] for document in notes.documents())


def by_ids(notes: ReadableCollection) -> Iterator[str]:
    return iter(notes)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iteration, "BLOCK", BLOCK)


@pytest.fixture(params=["plain", "text"])
def notes(request: pytest.FixtureRequest, db: Database) -> Collection:
    plain: list[IndexSpec] = [Ordered("n")]
    indexes = [*plain, Text("text")] if request.param == "text" else plain
    notes = db.collection("note", indexes=indexes)
    notes.put_many({"id": f"{n:05}", "n": n, "text": f"word{n}"} for n in range(MANY))
    return notes


WANTED = [f"{n:05}" for n in range(MANY)]


def put_all_over(notes: WritableCollection, id: str) -> None:
    """New documents behind, just after, and at the end."""
    for new in ("0", f"{id}x", "z"):
        notes.put({"id": f"{new}{id}", "text": "new"})


@pytest.mark.parametrize("loop", [by_documents, by_ids])
@pytest.mark.parametrize("stored", [False, True], ids=["memtable", "store"])
def test_what_a_loop_puts_is_passed_over(
    db: Database, notes: Collection, loop: Loop, stored: bool
) -> None:
    if stored:
        db.checkpoint()
    seen: list[str] = []
    for id in loop(notes):
        assert len(seen) < 2 * MANY, "it meets what it puts"
        seen.append(id)
        put_all_over(notes, id)
    assert seen == WANTED


def test_what_was_put_since_the_call_is_passed_over(notes: Collection) -> None:
    found = iter(notes)
    notes.put({"id": "zzz"})
    notes.put({"id": "00001x"})
    assert list(found) == WANTED


@pytest.mark.parametrize("loop", [by_documents, by_ids])
def test_in_a_transaction_too(db: Database, notes: Collection, loop: Loop) -> None:
    own = f"{WANTED[-2]}own"
    with db.transaction() as tx:
        inside = tx["note"]
        inside.put({"id": own, "text": "of the transaction"})
        seen: list[str] = []
        for id in loop(inside):
            assert len(seen) < 2 * MANY, "it meets what it puts"
            seen.append(id)
            put_all_over(inside, id)
            inside.update(own, {"text": f"{len(seen)}"})
            inside.update(WANTED[-1], {"text": f"{len(seen)}"})
    assert seen == [*WANTED[:-1], own, WANTED[-1]]


def test_what_a_loop_changes_comes_once(notes: Collection) -> None:
    seen: dict[str, Any] = {}
    for document in notes.documents():
        assert document["id"] not in seen
        seen[document["id"]] = document["text"]
        notes.update(document["id"], {"text": "behind"})
        notes.update(WANTED[-1], {"text": f"after {document['id']}"})
    assert list(seen) == WANTED
    assert seen[WANTED[-1]] == f"after {WANTED[2 * BLOCK - 1]}", "in the version of its block"


def test_what_a_loop_deletes_ahead_does_not_come(notes: Collection) -> None:
    seen: list[str] = []
    for id in notes:
        seen.append(id)
        if id < WANTED[-1]:
            notes.delete_many({"id": {"$in": [WANTED[-1], WANTED[-2]]}})
            notes.put({"id": WANTED[-1], "text": "put again, so it is new"})
    assert seen == WANTED[:-2]


def test_it_ends_when_the_clock_stands_still(open_db: OpenDatabase) -> None:
    notes = open_db(clock=FakeClock()).collection("note", indexes=[Text("text")])
    notes.put_many({"id": f"{n:05}", "text": "old"} for n in range(BLOCK + 3))
    seen = 0
    for _ in notes:
        seen += 1
        assert seen < 3 * BLOCK
        notes.put({"id": f"{BLOCK + 1:05}x{seen:05}", "text": "new, and as old as the others"})
    assert seen >= BLOCK + 3


def test_it_ends_when_the_collection_is_another_one(db: Database) -> None:
    notes = db.collection("note")
    notes.put_many({"id": f"{n:05}"} for n in range(MANY))
    seen = 0
    for _ in notes:
        seen += 1
        if seen == 1:
            db.drop_collection("note")
            db.collection("note").put_many({"id": f"{n:05}"} for n in range(MANY))
    assert seen == BLOCK, "those of the block that was read"


def test_a_snapshot_shows_its_own_lsn(db: Database, notes: Collection) -> None:
    with db.snapshot() as at:
        found = at["note"].documents()
        next(found)
        notes.delete(WANTED[-1])
        notes.put({"id": "zzz"})
        assert ids(found) == WANTED[1:]


def test_a_reader_of_another_process_passes_over_it_too(db: Database, notes: Collection) -> None:
    with amberdb.open(db.path, read_only=True, **SMALL) as reader:
        seen: list[str] = []
        for id in reader["note"]:
            assert len(seen) < 2 * MANY
            seen.append(id)
            put_all_over(notes, id)
    assert seen == WANTED


def test_nothing_is_held_between_blocks(notes: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    views: list[View] = []
    take = Committer.view

    def taken(committer: Committer) -> View:
        views.append(take(committer))
        return views[-1]

    monkeypatch.setattr(Committer, "view", taken)
    found = notes.documents()
    for _ in range(BLOCK + 1):
        next(found)
    assert len(views) == 3, "of the beginning, and one for each block"
    for view in views:
        with pytest.raises(ClosedError):
            view.get(b"")


def test_an_expired_document_does_not_come(open_db: OpenDatabase) -> None:
    clock = FakeClock()
    notes = open_db(clock=clock).collection("note", expires_at="until")
    notes.put_many({"id": f"{n:05}", "until": clock.now + 10 + n} for n in range(BLOCK + 10))
    found = iter(notes)
    next(found)
    clock.advance(1000)
    assert len(list(found)) == BLOCK - 1, "the next block is read as of its own time"
