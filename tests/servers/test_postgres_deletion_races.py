"""What the systems delete and change on a server, each beside what another process adds, round by
round: nothing is half there, and no caller has to begin again (docs/remote-transactions.md).

Invariants:
- No outcome of a round is a ConflictError.
"""

import asyncio
from typing import Any

import pytest

import amberdb
from amberdb import Database
from amberdb.chat import ChatBuffer
from amberdb.context import AgentContext
from amberdb.events import AgentEvent, AmberEventStore, EventType
from amberdb.graph import KnowledgeGraph
from amberdb.memory import Memory
from support.racing import Racers
from support.slices import size

ROUNDS = size(200, 10)
pytestmark = pytest.mark.sliced


def is_missing(outcome: Any) -> bool:
    return isinstance(outcome, str) and outcome.startswith("MissingKeyError: ")


# -- chat ------------------------------------------------------------------------------------------


def delete_conversation(db: Database, side: int) -> Any:
    buffer = ChatBuffer(db)

    def do(n: int) -> Any:
        if side:
            return buffer.save_chat("again", "yes", f"c{n}", "lin")["cid"]
        with db.transaction() as tx:
            return buffer.delete_conversation(f"c{n}", tx=tx)["hot_deleted"]

    return do


def test_conversation_is_deleted_beside_a_turn(both: Racers, url: str) -> None:
    """The new turn is there, or it was deleted with the others."""
    with amberdb.connect(url) as db:
        buffer = ChatBuffer(db)
        for n in range(ROUNDS):
            buffer.save_chat("hello", "yes", f"c{n}", "lin")
        for n, (deleted, saved) in enumerate(both.race(url, delete_conversation, ROUNDS)):
            left = [turn["id"] for turn in buffer.export(conversation_id=f"c{n}")]
            assert left == ([saved] if deleted == 1 else [])
            assert deleted in (1, 2)
            buffer.save_chat("more", "yes", f"c{n}", "lin")
            positions = [turn["position"] for turn in buffer.export(conversation_id=f"c{n}")]
            assert len(set(positions)) == len(left) + 1


# -- context ---------------------------------------------------------------------------------------


def context_of(db: Database) -> AgentContext:
    return AgentContext(db)


def delete_user(db: Database, side: int) -> Any:
    sessions = context_of(db).sessions

    def do(n: int) -> bool:
        if side:
            sessions.create(f"u{n}", "tutor", session_id=f"s{n}")
        else:
            sessions.delete_user(f"u{n}")
        return True

    return do


def test_user_is_deleted_beside_a_new_session(both: Racers, url: str) -> None:
    with amberdb.connect(url) as db:
        sessions = context_of(db).sessions
        for n in range(ROUNDS):
            sessions.create_user(f"n{n}", user_id=f"u{n}")
        for deleted, created in both.race(url, delete_user, ROUNDS):
            assert deleted is True
            assert created is True or is_missing(created)
        assert (db["users"].count(), db["sessions"].count()) == (0, 0)


def set_role(db: Database, side: int) -> Any:
    sessions = context_of(db).sessions

    def do(n: int) -> bool:
        if side:
            sessions.set_role(f"r{n}", token_budget=5000)
        else:
            sessions.set_role(f"r{n}", system="You teach.")
        return True

    return do


def test_role_is_set_by_two(both: Racers, url: str) -> None:
    with amberdb.connect(url) as db:
        sessions = context_of(db).sessions
        assert both.race(url, set_role, ROUNDS) == [[True, True]] * ROUNDS
        roles = sessions.roles()
        assert {(role["system"], role["token_budget"]) for role in roles} == {("You teach.", 5000)}
        assert len(roles) == ROUNDS


def append_to_block(db: Database, side: int) -> Any:
    blocks = context_of(db).blocks

    def do(n: int) -> bool:
        blocks.append("notes", f"{side}-{n}", user_id="u")
        blocks.create(f"b{n}", f"of {side}", user_id="u")
        return True

    return do


def test_blocks_are_changed_by_two(both: Racers, url: str) -> None:
    """Every line is there; a block of one name is made by one of them."""
    with amberdb.connect(url) as db:
        context = context_of(db)
        context.sessions.create_user("lin", user_id="u")
        context.blocks.create("notes", user_id="u", limit=100_000)
        for n, outcomes in enumerate(both.race(url, append_to_block, ROUNDS)):
            (made,) = (side for side, outcome in enumerate(outcomes) if outcome is True)
            assert outcomes[1 - made].startswith("DuplicateKeyError: ")
            assert context.blocks.get(f"b{n}", user_id="u")["value"] == f"of {made}"
        lines = context.blocks.get("notes", user_id="u")["value"].split()
        assert sorted(lines) == sorted(f"{s}-{n}" for s in range(2) for n in range(ROUNDS))


# -- events ----------------------------------------------------------------------------------------


def clear_events(db: Database, side: int) -> Any:
    store = AmberEventStore(db)

    def do(n: int) -> int:
        if not side:
            return asyncio.run(store.clear(session_id=f"s{n}"))
        return asyncio.run(store.store_many([event(n, each) for each in range(1, 4)]))

    return do


def event(n: int, each: int) -> AgentEvent:
    return AgentEvent(
        event_id=f"{n}-{each}", event_type=EventType.CUSTOM, session_id=f"s{n}", agent_name="a"
    )


def test_events_are_cleared_beside_new_ones(both: Racers, url: str) -> None:
    """Those of one call go together, or stay together."""
    with amberdb.connect(url) as db:
        store = AmberEventStore(db)
        asyncio.run(store.store_many([event(n, 0) for n in range(ROUNDS)]))
        for n, (cleared, stored) in enumerate(both.race(url, clear_events, ROUNDS)):
            assert stored == 3
            left = db["agent_event"].count({"session_id": f"s{n}"})
            assert (cleared, left) in ((1, 3), (4, 0))
        positions = [each["position"] for each in db["agent_event"].find(order_by="position")]
        assert len(set(positions)) == len(positions)


# -- graph -----------------------------------------------------------------------------------------


def delete_entity(db: Database, side: int) -> Any:
    graph = KnowledgeGraph(db)

    def do(n: int) -> bool:
        if side:
            graph.relate(f"a{n}", "knows", f"b{n}")
        else:
            graph.delete_entity(f"{'ab'[n % 2]}{n}")
        return True

    return do


def test_entity_is_deleted_beside_a_relation(both: Racers, url: str) -> None:
    """No relation is left without an end."""
    with amberdb.connect(url) as db:
        graph = KnowledgeGraph(db)
        for n in range(ROUNDS):
            for end in "ab":
                graph.add_entity(f"{end}{n}", "person")
        for deleted, related in both.race(url, delete_entity, ROUNDS):
            assert deleted is True
            assert related is True or is_missing(related)
        assert graph.relations(as_of="ever", limit=None) == []
        assert db["graph_entities"].count() == ROUNDS


def forget_source(db: Database, side: int) -> Any:
    graph = KnowledgeGraph(db)

    def do(n: int) -> bool:
        if not side:
            graph.forget_source(f"doc{n}")
        elif n % 2:
            graph.add_entity(f"e{n}", "person", observations=["more"], told_by="another")
        else:
            graph.relate(f"e{n}", "lives_in", "city", told_by="another")
        return True

    return do


def test_source_is_forgotten_beside_what_others_tell(both: Racers, url: str) -> None:
    with amberdb.connect(url) as db:
        graph = KnowledgeGraph(db)
        graph.add_entity("city", "place", told_by="another")
        for n in range(ROUNDS):
            graph.add_entity(f"e{n}", "person", observations=["first"], told_by=f"doc{n}")
        for n, (forgotten, told) in enumerate(both.race(url, forget_source, ROUNDS)):
            assert forgotten is True
            entity, relations = graph.entity(f"e{n}"), graph.relations(source=f"e{n}")
            if n % 2:
                assert told is True
                assert entity is not None
                assert entity["observations"] == ["more"]
            else:
                assert told is True or is_missing(told)
                assert (entity is not None, len(relations)) == (told is True, int(told is True))


def end_relation(db: Database, side: int) -> Any:
    graph = KnowledgeGraph(db)
    ids = {each["source"]: each["id"] for each in graph.relations(limit=None)}

    def do(n: int) -> bool:
        if side:
            graph.end_relation(ids[f"a{n}"])
        else:
            graph.delete_relation(ids[f"a{n}"])
        return True

    return do


def test_relation_is_deleted_beside_its_end(both: Racers, url: str) -> None:
    with amberdb.connect(url) as db:
        graph = KnowledgeGraph(db)
        graph.add_entity("b", "person")
        for n in range(ROUNDS):
            graph.add_entity(f"a{n}", "person")
            graph.relate(f"a{n}", "knows", "b")
        for deleted, ended in both.race(url, end_relation, ROUNDS):
            assert deleted is True
            assert ended is True or is_missing(ended)
        assert graph.relations(as_of="ever", limit=None) == []


# -- memory ----------------------------------------------------------------------------------------


def forget_owner(db: Database, side: int) -> Any:
    memory = Memory(db)

    def do(n: int) -> bool:
        if side:
            memory.remember(f"e{n}", "likes jade", memory_layer="profile", memory_id=f"more{n}")
        else:
            memory.forget(f"e{n}", compact=False)
        return True

    return do


def test_owner_is_forgotten_beside_a_memory(both: Racers, url: str) -> None:
    """What was told before is gone with its text in the log; the new memory is there or gone."""
    with amberdb.connect(url) as db:
        memory = Memory(db)
        for n in range(ROUNDS):
            memory.remember(f"e{n}", "likes amber", memory_layer="profile", memory_id=f"m{n}")
        assert both.race(url, forget_owner, ROUNDS) == [[True, True]] * ROUNDS
        for n in range(ROUNDS):
            assert memory.get("profile", f"m{n}") is None
            assert "amber" not in repr(list(memory.history(f"m{n}")))
            left = memory.profile(f"e{n}")
            assert [each["content"] for each in left] in ([], ["likes jade"])
            if not left:
                assert "jade" not in repr(list(memory.history(f"more{n}")))
