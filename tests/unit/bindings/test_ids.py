"""Ids and names are text in every system: a map, which a filter would read as operators, is refused
wherever it is given, and reads, changes and removes nothing of anybody."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from amberdb import AmberError, Database, MissingKeyError
from amberdb.chat import ChatBuffer, CollectionSink, JsonlSink
from amberdb.context import AgentContext
from amberdb.events import AgentEvent, AmberEventStore, EventType, Filters
from amberdb.graph import KnowledgeGraph
from amberdb.memory import Decision, Memory
from amberdb.profiles import UserProfiles
from amberdb.series import series
from support.databases import OpenDatabase

MAPS: list[Any] = [{"$ne": "x"}, {"$gte": ""}, {"$in": ["alice", "bob"]}, {}, ["alice"], 5, True]


class Systems:
    """One of each, with something of alice and of bob."""

    def __init__(self, db: Database, folder: Path) -> None:
        self.db = db
        self.memory = Memory(db)
        self.archive = CollectionSink(db)
        self.file = JsonlSink(folder / "turns.jsonl")
        self.chat = ChatBuffer(db, self.archive)
        self.context = AgentContext(db)
        self.events = AmberEventStore(db)
        self.graph = KnowledgeGraph(db)
        self.profiles = UserProfiles(db)
        self.session = ""
        for user in ("alice", "bob"):
            for layer in ("profile", "event"):
                self.memory.remember(user, f"a secret of {user}", memory_layer=layer)
            self.chat.save_chat("a secret", "-", user, user)
            self.context.sessions.create_user(user, user_id=user)
            self.session = self.context.sessions.create(user, "helper")
            self.context.append(self.session, "user", "a secret")
            self.context.external.archival_insert(self.session, "a secret")
            self.graph.add_entity(user, "person", observations=["a secret"])
            self.profiles.save(user, basic_info={"secret": user})
            event = AgentEvent(agent_name=user, session_id=user, event_type=EventType.CUSTOM)
            asyncio.run(self.events.store(event))
        self.relation = self.graph.relate("alice", "knows", "bob")
        self.file.store(list(db.collection("chat").documents()))

    def stored(self) -> dict[str, list[Any]]:
        with self.db.snapshot() as at:
            return {name: list(at[name].documents()) for name in self.db.collections()}


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


CALLS: dict[str, Callable[[Systems, Any], object]] = {
    "remember": lambda s, id: s.memory.remember(id, "x", memory_layer="event"),
    "remember type": lambda s, id: s.memory.remember(
        "alice", "x", memory_layer="event", memory_type=id
    ),
    "remember layer": lambda s, id: s.memory.remember("alice", "x", memory_layer=id),
    "remember category": lambda s, id: s.memory.remember(
        "alice", "x", memory_layer="event", category=id
    ),
    "apply": lambda s, id: s.memory.apply(
        "alice", [Decision(action="ignore", memory_layer="event", reason="", memory_id=id)]
    ),
    "recall": lambda s, id: s.memory.recall("secret", entity_id=id),
    "recall type": lambda s, id: s.memory.recall("secret", entity_id="alice", memory_type=id),
    "recall layer": lambda s, id: s.memory.recall("secret", layers=[id]),
    "profile": lambda s, id: s.memory.profile(id),
    "profile type": lambda s, id: s.memory.profile("alice", memory_type=id),
    "profile category": lambda s, id: s.memory.profile("alice", category=id),
    "events": lambda s, id: s.memory.events(id),
    "events category": lambda s, id: s.memory.events("alice", category=id),
    "memory": lambda s, id: s.memory.get("event", id),
    "memory layer": lambda s, id: s.memory.get(id, "x"),
    "memory update": lambda s, id: s.memory.update("event", id, content="x"),
    "memory delete": lambda s, id: s.memory.delete("event", id),
    "forget": lambda s, id: s.memory.forget(id, compact=False),
    "forget type": lambda s, id: s.memory.forget("alice", memory_type=id, compact=False),
    "logs": lambda s, id: s.memory.logs(id),
    "logs layer": lambda s, id: s.memory.logs(memory_layer=id),
    "logs action": lambda s, id: s.memory.logs(action=id),
    "logs entity": lambda s, id: s.memory.logs(entity_id=id),
    "logs type": lambda s, id: s.memory.logs(entity_id="alice", memory_type=id),
    "chat": lambda s, id: s.chat.save_chat("x", "x", id, "alice"),
    "chat user": lambda s, id: s.chat.save_chat("x", "x", "alice", id),
    "chat load": lambda s, id: s.chat.load_recent_context(id),
    "chat messages": lambda s, id: s.chat.save_messages([{"role": "user"}], id, "alice"),
    "chat messages user": lambda s, id: s.chat.save_messages([{"role": "user"}], "alice", id),
    "chat messages role": lambda s, id: s.chat.save_messages([{"role": id}], "alice", "alice"),
    "chat conversations": lambda s, id: s.chat.conversations(id),
    "chat search": lambda s, id: s.chat.search("secret", conversation_id=id),
    "chat search user": lambda s, id: s.chat.search("secret", user_id=id),
    "chat export": lambda s, id: list(s.chat.export(conversation_id=id)),
    "chat export user": lambda s, id: list(s.chat.export(user_id=id)),
    "chat delete": lambda s, id: s.chat.delete_conversation(id),
    "chat delete user": lambda s, id: s.chat.delete_user(id),
    "chat budget": lambda s, id: s.chat.load_recent_context("alice", max_tokens=cast(Any, [id])),
    "chat dead letters": lambda s, id: s.chat.retry_dead_letters(cast(Any, {"x": id})),
    "archive turns": lambda s, id: list(s.archive.turns(user_id=id)),
    "file turns": lambda s, id: list(s.file.turns(conversation_id=id)),
    "archive": lambda s, id: s.archive.load(id, 5, None),
    "file": lambda s, id: s.file.load(id, 5, None),
    "user create": lambda s, id: s.context.sessions.create_user(id),
    "user create id": lambda s, id: s.context.sessions.create_user("new", user_id=id),
    "user find or create": lambda s, id: s.context.sessions.find_or_create_user(id),
    "user": lambda s, id: s.context.sessions.user(id),
    "user find": lambda s, id: s.context.sessions.find_user(id),
    "user delete": lambda s, id: s.context.sessions.delete_user(id),
    "session create": lambda s, id: s.context.sessions.create(id, "helper"),
    "session create role": lambda s, id: s.context.sessions.create("alice", id),
    "session create id": lambda s, id: s.context.sessions.create("alice", "r", session_id=id),
    "session": lambda s, id: s.context.sessions.get(id),
    "sessions of": lambda s, id: s.context.sessions.of(id),
    "sessions of role": lambda s, id: s.context.sessions.of("alice", id),
    "session delete": lambda s, id: s.context.sessions.delete(id),
    "role": lambda s, id: s.context.sessions.role(id),
    "role set": lambda s, id: s.context.sessions.set_role(id),
    "setting": lambda s, id: s.context.sessions.setting(id),
    "setting set": lambda s, id: s.context.sessions.set_setting(id, 1),
    "system": lambda s, id: s.context.set_system(id, "x"),
    "part": lambda s, id: s.context.part(id, "system"),
    "part name": lambda s, id: s.context.part(s.session, id),
    "budget": lambda s, id: s.context.set_token_budget(id, 100),
    "append": lambda s, id: s.context.append(id, "user", "x"),
    "append role": lambda s, id: s.context.append(s.session, id, "x"),
    "queue": lambda s, id: s.context.queue(id),
    "render": lambda s, id: s.context.render(id),
    "overflow": lambda s, id: s.context.overflow(id),
    "external": lambda s, id: s.context.external.recall(id),
    "external several": lambda s, id: s.context.external.recall([id]),
    "external search": lambda s, id: s.context.external.recall_search(id, "secret"),
    "archival": lambda s, id: s.context.external.archival(id),
    "archival search": lambda s, id: s.context.external.archival_search(id, "secret"),
    "archival insert": lambda s, id: s.context.external.archival_insert(id, "x"),
    "archival delete": lambda s, id: s.context.external.archival_delete(id),
    "entity add": lambda s, id: s.graph.add_entity(id, "person"),
    "entity add type": lambda s, id: s.graph.add_entity("alice", id),
    "entity": lambda s, id: s.graph.entity(id),
    "entities": lambda s, id: s.graph.entities(id),
    "entity told by": lambda s, id: s.graph.add_entity("alice", "person", told_by=id),
    "entity alias": lambda s, id: s.graph.add_entity("alice", "person", aliases=[id]),
    "aliases of": lambda s, id: s.graph.add_aliases(id, []),
    "aliases": lambda s, id: s.graph.add_aliases("alice", [id]),
    "aliases remove": lambda s, id: s.graph.remove_aliases("alice", [id]),
    "entity rename": lambda s, id: s.graph.rename_entity(id, "x"),
    "entity rename to": lambda s, id: s.graph.rename_entity("alice", id),
    "entity merge": lambda s, id: s.graph.merge_entities(id, "bob"),
    "entity merge into": lambda s, id: s.graph.merge_entities("alice", id),
    "forget source": lambda s, id: s.graph.forget_source(id),
    "entity delete": lambda s, id: s.graph.delete_entity(id),
    "observations": lambda s, id: s.graph.remove_observations(id, ["a secret"]),
    "observations of": lambda s, id: s.graph.remove_observations("alice", [id]),
    "relate": lambda s, id: s.graph.relate(id, "knows", "bob"),
    "relate type": lambda s, id: s.graph.relate("alice", id, "bob"),
    "relate target": lambda s, id: s.graph.relate("alice", "knows", id),
    "relate told by": lambda s, id: s.graph.relate("alice", "knows", "bob", told_by=id),
    "relation end told by": lambda s, id: s.graph.end_relation(s.relation, told_by=id),
    "search facts": lambda s, id: s.graph.search_facts(id),
    "relation": lambda s, id: s.graph.relation(id),
    "relation end": lambda s, id: s.graph.end_relation(id),
    "relation delete": lambda s, id: s.graph.delete_relation(id),
    "relations source": lambda s, id: s.graph.relations(source=id),
    "relations type": lambda s, id: s.graph.relations(relation_type=id),
    "relations target": lambda s, id: s.graph.relations(target=id),
    "relations delete source": lambda s, id: s.graph.delete_relations(source=id),
    "relations delete type": lambda s, id: s.graph.delete_relations(relation_type=id),
    "relations delete target": lambda s, id: s.graph.delete_relations(target=id),
    "facts": lambda s, id: s.graph.facts(id),
    "hops": lambda s, id: s.graph.k_hop(id, 2),
    "hops type": lambda s, id: s.graph.k_hop("alice", 2, relation_type=id),
    "hops direction": lambda s, id: s.graph.k_hop("alice", 2, direction=id),
    "path": lambda s, id: s.graph.shortest_path("alice", id),
    "path type": lambda s, id: s.graph.shortest_path("alice", "bob", relation_type=id),
    "user profile": lambda s, id: s.profiles.get(id),
    "user profile save": lambda s, id: s.profiles.save(id, {"a": 1}),
    "user profile count": lambda s, id: s.profiles.count_conversation(id),
    "user profile delete": lambda s, id: s.profiles.delete(id),
    "event id": lambda s, id: AgentEvent(
        agent_name="a", session_id="s", event_type=EventType.CUSTOM, event_id=id
    ),
    "event agent": lambda s, id: AgentEvent(
        agent_name=id, session_id="s", event_type=EventType.CUSTOM
    ),
    "event session": lambda s, id: AgentEvent(
        agent_name="a", session_id=id, event_type=EventType.CUSTOM
    ),
    "event type": lambda s, id: AgentEvent(agent_name="a", session_id="s", event_type=id),
    "events of session": lambda s, id: run(s.events.retrieve(Filters(session_id=id))),
    "events of agent": lambda s, id: run(s.events.retrieve(Filters(agent_name=id))),
    "events of type": lambda s, id: run(s.events.retrieve(Filters(event_type=id))),
    "events clear": lambda s, id: run(s.events.clear(session_id=id)),
    "series": lambda s, id: list(series(s.db, id, "created_at", every="day")),
    "series group": lambda s, id: list(
        series(s.db, "chat", "created_at", every="day", group_by=id)
    ),
    "series every": lambda s, id: list(series(s.db, "chat", "created_at", every=id)),
    "collection": lambda s, id: s.db[id],
    "collection declare": lambda s, id: s.db.collection(id),
    "collection drop": lambda s, id: s.db.drop_collection(id),
    "collection rename": lambda s, id: s.db.rename_collection(id, "x"),
    "collection rename to": lambda s, id: s.db.rename_collection("chat", id),
    "definition": lambda s, id: s.db.definition(id),
    "subscriber": lambda s, id: s.db.subscriber(id),
    "document": lambda s, id: s.db["chat"].get(id),
    "document update": lambda s, id: s.db["chat"].update(id, {"a": 1}),
    "document delete": lambda s, id: s.db["chat"].delete(id),
    "document record": lambda s, id: s.db["chat"].record(id),
    "document put": lambda s, id: s.db["chat"].put({"id": id}),
}


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from support.databases import audited

    folder = tmp_path_factory.mktemp("ids")
    with audited(folder / "t.amber") as db:
        yield Systems(db, folder)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_what_is_no_text_is_refused_as_an_id(
    systems: Systems, call: Callable[[Systems, Any], object]
) -> None:
    before = systems.stored()
    for given in MAPS:
        if given == ["alice"] and call in (CALLS["external"], CALLS["archival"]):
            continue  # sessions may be given as a list
        with pytest.raises(AmberError):
            call(systems, given)
    assert systems.stored() == before


def test_several_sessions_are_a_list_and_no_map(open_db: OpenDatabase, tmp_path: Path) -> None:
    systems = Systems(open_db(), tmp_path)
    external = systems.context.external
    assert len(external.archival([systems.session])) == 1
    with pytest.raises(MissingKeyError):
        external.archival(["alice"])
    with pytest.raises(AmberError, match="list of them"):
        external.archival(cast(Any, {systems.session: 1}))


def test_a_part_is_named(open_db: OpenDatabase, tmp_path: Path) -> None:
    systems = Systems(open_db(), tmp_path)
    context, sessions = systems.context, systems.context.sessions
    sessions.create("alice", "helper", session_id="a")
    sessions.create("bob", "helper", session_id="a:b")
    context.set_system("a:b", "a secret of bob")
    with pytest.raises(AmberError, match="a part is one of"):
        context.part("a", cast(Any, "b:system"))


def test_a_filter_of_a_recall_only_narrows(open_db: OpenDatabase, tmp_path: Path) -> None:
    memory = Systems(open_db(), tmp_path).memory
    memory.remember("robot", "a secret of robot", memory_layer="event", memory_type="agent")
    wheres: list[Any] = [
        {"memory_type": "agent"},
        {"entity_id": "bob"},
        {"$or": [{"entity_id": "bob"}]},
    ]
    for where in wheres:
        assert memory.recall("secret", entity_id="alice", where=where) == []
    assert len(memory.recall("secret", where={"entity_id": {"$in": ["alice", "bob"]}})) == 4
