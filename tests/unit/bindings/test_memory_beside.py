"""Layered memory beside a program: its collections, transactions, ids, times and clock."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from amberdb import (
    CollectionError,
    Database,
    DuplicateKeyError,
    InvalidDocumentError,
    MissingKeyError,
    Ordered,
    QueryError,
    Unique,
)
from amberdb.memory import Memory, RuleExtractor
from support.databases import FakeClock

TOLD = datetime(2023, 3, 1, 9, tzinfo=UTC)


def test_a_program_has_collections_of_the_same_names(db: Database) -> None:
    event = db.collection("event", indexes=[Unique("key")])
    event.put({"id": "a", "key": 1})
    with pytest.raises(CollectionError, match="give the system a name="):
        Memory(db)
    mine, other = Memory(db, name="chat"), Memory(db, name="shop")
    mine.remember("u", "likes tea", memory_layer="event")
    other.remember("u", "sold a lamp", memory_layer="event")
    assert [each["content"] for each in mine.events("u")] == ["likes tea"]
    assert [each.document["content"] for each in other.recall("lamp tea")] == ["sold a lamp"]
    assert [each["action"] for each in mine.logs(entity_id="u")] == ["insert"]
    mine.forget("u")
    assert len(other.events("u")) == 1
    with pytest.raises(DuplicateKeyError):
        event.put({"id": "b", "key": 1})


def test_it_writes_within_the_transaction_of_the_program(db: Database) -> None:
    memory = Memory(db, extract=RuleExtractor())
    orders = db.collection("orders")
    (kept,) = memory.remember("u", "likes tea", memory_layer="profile")

    def undone() -> None:
        with db.transaction() as tx:
            memory.remember("u", "I live in Paris", auto_extract=True, tx=tx)
            memory.update("profile", kept.memory_id, content="likes milk", tx=tx)
            (new,) = memory.remember("u", "met Tom", memory_layer="event", tx=tx)
            memory.delete("event", new.memory_id, tx=tx)
            memory.remember_many([{"entity_id": "v", "content": "x"}], memory_layer="event", tx=tx)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        undone()
    assert [each["content"] for each in memory.profile("u")] == ["likes tea"]
    assert len(memory.logs()) == 1
    with db.transaction() as tx:
        tx["orders"].put({"id": "o"})
        (told,) = memory.remember("u", "I live in Paris", auto_extract=True, tx=tx)
        (moved,) = memory.remember("u", "I live in Rome", auto_extract=True, tx=tx)
        memory.undo(moved.log_id, tx=tx)
        memory.update("profile", told.memory_id, category="value", tx=tx)
    assert moved.memory_id == told.memory_id, "it sees what the transaction has written"
    assert {each["content"] for each in memory.profile("u")} == {"likes tea", "I live in Paris"}
    assert "o" in orders
    assert [each["action"] for each in memory.history(told.memory_id)] == [
        "insert",
        "update",
        "update",
        "update",
    ]


def test_ids_and_times_of_ones_own(db: Database, clock: FakeClock) -> None:
    memory = Memory(db, clock=clock)
    memory.remember("u", "met Tom", memory_layer="event", memory_id="m1", created_at=TOLD)
    found = memory.get("event", "m1")
    assert found is not None
    assert (found["created_at"], found["updated_at"]) == (TOLD, TOLD)
    assert found["expiry_date"] > TOLD + timedelta(days=90), "it is kept from now on"
    with pytest.raises(DuplicateKeyError):
        memory.remember("u", "met Wu", memory_layer="event", memory_id="m1")
    with pytest.raises(InvalidDocumentError, match="created_at"):
        memory.remember("u", "x", memory_layer="event", created_at="2025")  # type: ignore[arg-type]
    outcomes = memory.remember_many(
        [
            {"entity_id": "u", "content": "one", "created_at": TOLD + timedelta(days=1)},
            {"entity_id": "v", "content": "two", "memory_layer": "profile", "memory_id": "p"},
        ],
        memory_layer="event",
    )
    assert [(each.action, each.memory_layer) for each in outcomes] == [
        ("insert", "event"),
        ("insert", "profile"),
    ]
    assert [each["content"] for each in memory.events("u")] == ["one", "met Tom"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"entity_id": "u"},
        {"content": "x"},
        {"entity_id": "u", "content": "x", "memory_layer": "other"},
        {"entity_id": "u", "content": "x", "colour": "red"},
        {"entity_id": "u", "content": "x", "memory_id": 7},
    ],
)
def test_of_many_memories_all_are_stored_or_none(db: Database, wrong: dict[str, Any]) -> None:
    memory = Memory(db)
    right = {"entity_id": "u", "content": "x"}
    with pytest.raises((InvalidDocumentError, QueryError)):
        memory.remember_many([right, wrong], memory_layer="event")
    assert memory.events("u") == []


def test_the_log_is_in_the_order_of_the_changes(db: Database, clock: FakeClock) -> None:
    """Whatever the clock does, and in databases of before there were positions."""
    db.collection("log", indexes=[Ordered("created_at")], expires_at="expiry_date")
    then = datetime.fromtimestamp(clock.now, UTC)
    old = {"memory_id": "m", "memory_layer": "event", "action": "insert", "created_at": then}
    db["log"].put(old)
    memory = Memory(db, clock=clock)
    memory.remember("u", "met Tom", memory_layer="event", memory_id="m")
    clock.advance(-400 * 86_400)
    memory = Memory(db, clock=clock)  # the program was started again
    memory.update("event", "m", content="met Wu")
    memory.delete("event", "m")
    db.migrate()
    done = ["insert", "insert", "update", "delete"]
    assert [each["action"] for each in memory.history("m")] == done
    assert [each["action"] for each in memory.logs("m")] == done[::-1]
    assert [each["action"] for each in memory.logs(entity_id="u", limit=1)] == ["delete"]


def test_a_memory_that_another_program_put_is_read_with_defaults(db: Database) -> None:
    memory = Memory(db, extract=RuleExtractor())
    db["profile"].put({"id": "p", "memory_type": "user", "entity_id": "u", "content": "likes tea"})
    assert [each["content"] for each in memory.profile("u")] == ["likes tea"]
    memory.remember("u", "I like tea", auto_extract=True)
    changed = memory.update("profile", "p", content="likes milk", metadata={"a": 1})
    memory.undo(changed.log_id)
    assert memory.recall("tea")[0].document["content"]
    with pytest.raises(MissingKeyError):
        memory.delete("event", "p")
