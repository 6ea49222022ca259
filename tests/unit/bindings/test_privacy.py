"""What all systems of a database hold of somebody: told to them, and forgotten."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import (
    CollectionError,
    CollectionMissingError,
    Database,
    InvalidDocumentError,
    LogTruncatedError,
    Ordered,
)
from amberdb.chat import ChatBuffer, CollectionSink
from amberdb.context import AgentContext
from amberdb.events import AgentEvent, AmberEventStore, EventType
from amberdb.graph import KnowledgeGraph
from amberdb.memory import Memory
from amberdb.privacy import export, export_json, forget
from amberdb.profiles import UserProfiles
from support.databases import FakeClock, OpenDatabase, audited

LIN, WU = "user/\u6797", "wu"


def told(db: Database, clock: FakeClock, who: str, word: str) -> None:
    """Fills every system with a word of somebody."""
    for name in (None, "shop"):
        memory = Memory(db, name=name, clock=clock, embed=lambda t: [[1.0, 2.0]] * len(t), dim=2)
        memory.remember(who, f"{word} likes tea", memory_layer="profile")
        (event,) = memory.remember(who, f"{word} met Tom", memory_layer="event")
        memory.update("event", event.memory_id, content=f"{word} met Zhou", reason=word)
        soon = memory.remember(who, f"{word} is here", memory_layer="event")
        assert soon
    chat = ChatBuffer(db, CollectionSink(db), clock=clock)
    chat.save_chat(f"{word}?", f"{word}!", f"about-{who}", who, important=True)
    chat.save_chat(f"{word}??", "hot", f"about-{who}", who)
    context = AgentContext(db, clock=clock, token_budget=30)
    user = context.sessions.create_user(who)
    session = context.sessions.create(user, "helper")
    for number in range(6):
        context.append(session, "user", f"{word} said {number} and more than a few words")
    context.external.archival_insert(session, f"{word} in the archive")
    graph = KnowledgeGraph(db, clock=clock)
    graph.add_entity(who, "person", observations=[f"{word} is tall"])
    graph.add_entity(f"friend of {who}", "person")
    graph.relate(f"friend of {who}", "knows", who, properties={"since": word})
    UserProfiles(db, clock=clock).save(who, basic_info={"word": word})
    store = AmberEventStore(db)

    def event_of(**fields: Any) -> AgentEvent:
        data = {"message": f"{word} asked"}
        return AgentEvent(agent_name="a", event_type=EventType.USER_MESSAGE, data=data, **fields)

    asyncio.run(store.store(event_of(session_id=session)))
    asyncio.run(store.store(event_of(session_id="other", metadata={"user_id": who})))
    db.collection("orders").put({"customer": who, "item": word})


def files_with(db: Database, word: str) -> list[str]:
    paths = [path for path in Path(db.path).rglob("*") if path.is_file()]
    return [path.name for path in paths if word.encode() in path.read_bytes()]


SYSTEMS = {
    *("profile", "event", "log", "shop_profile", "shop_event", "shop_log"),
    *("chat", "chat_archive", "users", "sessions", "main_context", "recall_memory"),
    *("archival_memory", "graph_entities", "graph_relations", "user_memories", "agent_event"),
}


def test_everything_is_told_and_forgotten_in_every_file(
    open_db: OpenDatabase, tmp_path: Path
) -> None:
    clock = FakeClock()
    db = open_db(clock=clock)
    also = {"orders": {"customer": LIN}}
    db.subscriber("indexer", since=amberdb.Lsn(0))
    told(db, clock, LIN, "unmistakable")
    told(db, clock, WU, "ordinary")
    db.backup(tmp_path / "backup")
    others = export(db, WU)
    found = export(db, LIN, also=also)
    assert set(found) >= SYSTEMS | {"orders"}, SYSTEMS - set(found)
    text = json.dumps(found, default=amberdb.to_json)
    assert text.count("unmistakable") > 25
    assert "ordinary" not in text
    count = export_json(db, LIN, tmp_path / "lin.json", also=also)
    assert count == sum(map(len, found.values()))
    assert json.loads((tmp_path / "lin.json").read_text()).keys() == found.keys()

    clock.advance(timedelta(days=91).total_seconds())  # events expire, and are still on the disk
    assert files_with(db, "unmistakable")
    receipt = forget(db, LIN, reason="request 17", also=also)
    assert receipt.completed is not None
    assert receipt.collections["event"] == 2, "expired"
    assert receipt.documents >= count
    assert [Path(backup.path).name for backup in receipt.backups] == ["backup"]
    assert receipt.subscribers == ("indexer",)
    with pytest.raises(LogTruncatedError):
        list(db.subscriber("indexer").changes())
    assert export(db, LIN, also=also) == {}
    assert export(db, WU).keys() == others.keys() - {"event", "shop_event"}
    db.close()
    assert files_with(db, "unmistakable") == []
    assert files_with(db, "ordinary")
    with audited(db.path) as db:
        assert [each.reason for each in db.erasures()] == ["request 17"]


def test_of_nobody_there_is_nothing(db: Database, tmp_path: Path) -> None:
    Memory(db)
    assert export(db, "nobody") == {}
    assert export_json(db, "nobody", tmp_path / "none.json") == 0
    assert json.loads((tmp_path / "none.json").read_text()) == {}
    assert forget(db, "nobody", reason="x").documents == 0
    for wrong in ("", None, {"$ne": 1}):
        with pytest.raises(InvalidDocumentError, match="entity_id"):
            forget(db, wrong, reason="x")  # type: ignore[arg-type]
    with pytest.raises(CollectionMissingError):
        forget(db, "u", reason="x", also={"orders": {}})


def test_names_that_look_alike_are_of_two(db: Database) -> None:
    memory = Memory(db)
    for name in ("caf\u00e9", "cafe\u0301", "Lin", "lin", "lin "):
        memory.remember(name, "likes tea", memory_layer="profile")
    forget(db, "cafe\u0301", reason="x")
    forget(db, "lin", reason="x")
    left = {each["entity_id"] for each in db["profile"].documents()}
    assert left == {"caf\u00e9", "Lin", "lin "}


def test_what_an_earlier_version_made_is_not_passed_over(db: Database) -> None:
    required = {"entity_id": str, "content": str, "memory_type": str}
    db.collection(
        "event", indexes=[Ordered("created_at")], expires_at="expiry_date", required=required
    ).put({"entity_id": "lin", "content": "likes tea", "memory_type": "user"})
    db.collection("log", indexes=[Ordered("who")]).put({"who": "lin"})
    with pytest.raises(CollectionError, match="open that system once"):
        forget(db, "lin", reason="x", also={"log": {"who": "lin"}})
    assert len(db["log"]) == 1
    Memory(db, name="other")
    with pytest.raises(CollectionError, match="'event'"):
        export(db, "lin")
    db.rename_collection("log", "diary")
    Memory(db)
    assert forget(db, "lin", reason="x", also={"diary": {"who": "lin"}}).documents == 2


def test_for_an_event_loop(tmp_path: Path) -> None:
    from amberdb import aio
    from amberdb.memory.aio import open_memory
    from amberdb.privacy import aio as privacy

    async def work() -> None:
        async with aio.open(tmp_path / "t.amber") as db:
            memory = await open_memory(db)
            await memory.remember("lin", "likes tea", memory_layer="profile")
            assert set(await privacy.export(db, "lin")) == {"profile", "log"}
            assert await privacy.export_json(db, "lin", tmp_path / "lin.json") == 2
            assert (await privacy.forget(db, "lin", reason="x")).documents == 2

    asyncio.run(work())
    with audited(tmp_path / "t.amber") as db:
        assert export(db, "lin") == {}
