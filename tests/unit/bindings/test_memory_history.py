"""The history of a memory, what takes a change back, and what is given beside an extractor."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from amberdb import (
    ConflictError,
    Database,
    InvalidDocumentError,
    MissingKeyError,
    QueryError,
)
from amberdb.memory import Memory, RuleExtractor
from support.databases import FakeClock


def now(clock: FakeClock) -> datetime:
    return datetime.fromtimestamp(clock.now, UTC)


def test_every_change_is_undone_and_that_too(db: Database) -> None:
    memory = Memory(db)
    (told,) = memory.remember("u", "I live in Paris", memory_layer="profile", category="value")
    moved = memory.update("profile", told.memory_id, content="I live in Rome", metadata={"a": 1})
    gone = memory.delete("profile", told.memory_id, reason="asked for")
    states = [(each["before"], each["after"]) for each in memory.history(told.memory_id)]
    assert [before and before["content"] for before, _ in states] == [
        None,
        "I live in Paris",
        "I live in Rome",
    ]
    assert [after and after["content"] for _, after in states] == [
        "I live in Paris",
        "I live in Rome",
        None,
    ]
    back = memory.undo(gone.log_id)
    assert (back.action, back.memory_id) == ("insert", told.memory_id)
    again = memory.get("profile", told.memory_id)
    assert again is not None
    assert (again["content"], again["metadata"], again["category"]) == (
        "I live in Rome",
        {"a": 1},
        "value",
    )
    with pytest.raises(ConflictError, match="undo the later changes first"):
        memory.undo(told.log_id)
    undone = memory.undo(memory.undo(back.log_id).log_id)  # deleted, and there again
    assert undone.action == "insert"
    assert [each.document["content"] for each in memory.recall("Rome", entity_id="u")] == [
        "I live in Rome"
    ]
    assert len(memory.history(told.memory_id)) == 6
    assert moved.action == "update"


def test_an_update_is_undone_with_its_metadata_and_expiry(db: Database, clock: FakeClock) -> None:
    memory = Memory(db, clock=clock)
    (told,) = memory.remember("u", "tea", memory_layer="event", metadata={"a": 1})
    before = memory.get("event", told.memory_id)
    assert before is not None
    changed = memory.update("event", told.memory_id, content="milk", metadata={}, is_permanent=True)
    after = memory.get("event", told.memory_id)
    assert after is not None
    assert (after["metadata"], after["expiry_date"]) == ({}, None)
    memory.undo(changed.log_id)
    assert memory.get("event", told.memory_id) == {**before, "updated_at": now(clock)}


def test_what_changed_nothing_or_was_forgotten_is_not_undone(db: Database) -> None:
    memory = Memory(db, extract=RuleExtractor())
    (ignored,) = memory.remember("u", "hello", auto_extract=True)
    with pytest.raises(QueryError, match="nothing that was stored"):
        memory.undo(ignored.log_id)
    (told,) = memory.remember("u", "tea", memory_layer="profile")
    memory.forget("u", compact=False)
    with pytest.raises(QueryError, match="forgotten"):
        memory.undo(told.log_id)
    with pytest.raises(MissingKeyError):
        memory.undo("nobody's")


def test_what_is_given_is_of_all_that_an_extractor_stores(db: Database, clock: FakeClock) -> None:
    memory = Memory(db, extract=RuleExtractor(), clock=clock)
    until = now(clock) + timedelta(days=3)
    outcomes = memory.remember(
        "u",
        "I love tea. I met Tom yesterday at 5.",
        auto_extract=True,
        category="meeting",
        metadata={"source": "chat"},
        expiry_date=until,
        reason="told",
    )
    fact, event = memory.profile("u")[0], memory.events("u")[0]
    assert (fact["category"], event["category"]) == ("preference", "meeting")
    for each in (fact, event):
        assert (each["metadata"], each["expiry_date"]) == ({"source": "chat"}, until)
    assert all(each.reason.startswith("told (") for each in outcomes)
    wrongs: list[dict[str, Any]] = [
        {"category": "nonsense"},
        {"is_permanent": True, "expiry_date": until},
    ]
    for wrong in wrongs:
        with pytest.raises(InvalidDocumentError):
            memory.remember("u", "I love milk", auto_extract=True, **wrong)
    assert len(memory.profile("u")) == 1


def test_events_that_expire_soon_are_found_by_an_index(db: Database, clock: FakeClock) -> None:
    memory = Memory(db, clock=clock)
    for days in range(1, 6):
        until = now(clock) + timedelta(days=days)
        memory.remember("u", f"in {days}", memory_layer="event", expiry_date=until)
    soon = memory.events("u", expiring_before=now(clock) + timedelta(days=2, hours=1))
    assert {each["content"] for each in soon} == {"in 1", "in 2"}
    where = {"memory_type": "user", "entity_id": "u", "expiry_date": {"$lt": now(clock)}}
    assert db.collection("event").explain(where)["index"] == (
        "ordered:memory_type,entity_id,expiry_date"
    )
    logs = {"memory_type": "user", "entity_id": "u"}
    plan = db.collection("log").explain(logs, order_by="-position")
    assert plan["index"] == "ordered:memory_type,entity_id,position"
