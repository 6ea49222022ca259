"""The services of ADK beside ADK's own, and behaviour of their own."""

import asyncio
import random
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.memory.in_memory_memory_service import InMemoryMemoryService
from google.adk.memory.memory_entry import MemoryEntry
from google.adk.sessions import InMemorySessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai import types

import amberdb
from amberdb.integrations.google_adk import AmberMemoryService, AmberSessionService

PAGE = Path(__file__).parents[3] / "docs" / "integrations" / "google_adk.md"
LIN: dict[str, str] = {"app_name": "app", "user_id": "lin"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "adk.amber"


@pytest.fixture
async def service(path: Path) -> AsyncIterator[AmberSessionService]:
    service = AmberSessionService(path)
    yield service
    await service.close()


@pytest.fixture
async def memory(path: Path) -> AsyncIterator[AmberMemoryService]:
    service = AmberMemoryService(path)
    yield service
    await service.close()


def event(text: str, /, at: float = 1.0, *, id: str = "", **delta: Any) -> Event:
    return Event(
        id=id,
        author="user",
        invocation_id="i",
        timestamp=at,
        content=types.Content(role="user", parts=[types.Part(text=text)]),
        actions=EventActions(state_delta=delta),
    )


def texts(session: Session | None) -> list[str | None]:
    assert session is not None
    return [
        part.text
        for each in session.events
        if each.content is not None
        for part in each.content.parts or []
    ]


def test_sample_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    section = PAGE.read_text(encoding="utf-8")
    sample = re.search(r"^```python\n(.*?)^```$", section, re.M | re.S)
    assert sample is not None
    exec(compile(sample[1], str(PAGE), "exec"), {"__name__": "sample"})


# -- sessions --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
async def test_sessions_are_as_in_memory(service: AmberSessionService, seed: int) -> None:
    chance, peer = random.Random(seed), InMemorySessionService()
    at = 100.0
    for step in range(60):
        who = {"app_name": chance.choice("ab"), "user_id": chance.choice(["lin", "王"])}
        id = chance.choice(["1", "2"])
        call = chance.choice(["create", "append", "append", "append", "delete"])
        key = f"{chance.choice(['', 'app:', 'user:', 'temp:'])}{chance.choice('xy')}"
        for each in (service, peer):
            session = await each.get_session(**who, session_id=id)
            if call == "create" and session is None:
                await each.create_session(**who, session_id=id, state={key: step})
            elif call == "append" and session is not None:
                await each.append_event(
                    session, event(f"{step}", at + step, id=f"{step}", **{key: step})
                )
            elif call == "delete":
                await each.delete_session(**who, session_id=id)
        ours, theirs = [await each.get_session(**who, session_id=id) for each in (service, peer)]
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert (ours.state, ours.events) == (theirs.state, theirs.events)
        assert await service.get_user_state(**who) == await peer.get_user_state(**who)
    for name in ("a", "b"):
        ours_, theirs_ = [await each.list_sessions(app_name=name) for each in (service, peer)]
        plain = [
            [(each.user_id, each.id, each.state, each.events) for each in listed.sessions]
            for listed in (ours_, theirs_)
        ]
        assert sorted(map(repr, plain[0])) == sorted(map(repr, plain[1]))


async def test_events_come_back_whole(service: AmberSessionService) -> None:
    session = await service.create_session(**LIN)
    given = event("你好 👍🏽", id="e", n=2**80, half="\ud83d", nan=float("nan"), call=print)
    assert given.content is not None
    assert given.content.parts is not None
    blob = types.Blob(data=b"\xff\x00", mime_type="image/png")
    given.content.parts.append(types.Part(inline_data=blob))
    await service.append_event(session, given)
    again = await service.get_session(**LIN, session_id=session.id)
    assert again is not None
    assert again.events[0].content == given.content
    assert (again.state["n"], again.state["half"]) == (2**80, "\ud83d")
    assert "print" in again.state["call"]


async def test_states_have_scopes(service: AmberSessionService) -> None:
    one = await service.create_session(**LIN, state={"app:a": 1, "user:u": 2, "s": 3, "temp:t": 4})
    assert one.state == {"app:a": 1, "user:u": 2, "s": 3}
    other = await service.create_session(app_name="app", user_id="wang")
    assert other.state == {"app:a": 1}
    await service.append_event(one, event("x", **{"temp:t": 5, "user:u": 6}))
    assert one.state["temp:t"] == 5
    again = await service.get_session(**LIN, session_id=one.id)
    assert again is not None
    assert again.state == {"app:a": 1, "user:u": 6, "s": 3}
    assert await service.get_user_state(**LIN) == {"u": 6}
    assert await service.get_user_state(app_name="app", user_id="wang") == {}


async def test_recent_events(service: AmberSessionService) -> None:
    session = await service.create_session(**LIN, session_id=" s ")
    for number in range(5):
        await service.append_event(session, event(f"{number}", 10.0 + number))

    async def asked(**config: Any) -> list[str | None]:
        given = GetSessionConfig(**config)
        return texts(await service.get_session(**LIN, session_id="s", config=given))

    assert await asked() == ["0", "1", "2", "3", "4"]
    assert await asked(num_recent_events=2) == ["3", "4"]
    assert await asked(num_recent_events=0) == []
    assert await asked(after_timestamp=12.0) == ["2", "3", "4"]
    assert await asked(after_timestamp=11.0, num_recent_events=1) == ["4"]


async def test_a_stale_session_is_refused(service: AmberSessionService, path: Path) -> None:
    other = AmberSessionService(path)
    made = await service.create_session(**LIN)
    ours = await service.get_session(**LIN, session_id=made.id)
    theirs = await other.get_session(**LIN, session_id=made.id)
    assert ours is not None
    assert theirs is not None
    await other.append_event(theirs, event("theirs", x=1))
    for stale in (ours, made, Session(**LIN, id=made.id)):
        with pytest.raises(StaleSessionError):
            await service.append_event(stale, event("ours", x=2))
        assert texts(stale) == []
    by_hand = Session(**LIN, id=made.id, events=list(theirs.events))
    await service.append_event(by_hand, event("by hand"))
    await service.append_event(by_hand, event("and again"))
    again = await service.get_session(**LIN, session_id=made.id)
    assert texts(again) == ["theirs", "by hand", "and again"]
    await other.close()


async def test_a_session_that_was_made_anew_is_another(service: AmberSessionService) -> None:
    old = await service.create_session(**LIN, session_id="s")
    await service.delete_session(**LIN, session_id="s")
    with pytest.raises(SessionNotFoundError):
        await service.append_event(old, event("x"))
    await service.create_session(**LIN, session_id="s")
    with pytest.raises(StaleSessionError):
        await service.append_event(old, event("x"))
    with pytest.raises(AlreadyExistsError):
        await service.create_session(**LIN, session_id="s")


async def test_an_event_that_is_delivered_twice_is_there_once(service: AmberSessionService) -> None:
    session = await service.create_session(**LIN)
    for _ in range(2):
        await service.append_event(session, event("x", id="e", n=1))
    partial = event("part")
    partial.partial = True
    await service.append_event(session, partial)
    assert texts(await service.get_session(**LIN, session_id=session.id)) == ["x"]
    assert texts(session) == ["x"]


async def test_tasks_share_a_session_object(service: AmberSessionService) -> None:
    session = await service.create_session(**LIN)
    appends = (
        service.append_event(session, event(f"{n}", id=f"{n}", **{f"k{n}": n})) for n in range(30)
    )
    await asyncio.gather(*appends)
    again = await service.get_session(**LIN, session_id=session.id)
    assert again is not None
    assert len(again.events) == 30
    assert again.state == {f"k{n}": n for n in range(30)}
    assert sorted(map(str, texts(session))) == sorted(map(str, texts(again)))


async def test_of_tasks_with_copies_one_wins(service: AmberSessionService) -> None:
    made = await service.create_session(**LIN)
    copies = [await service.get_session(**LIN, session_id=made.id) for _ in range(8)]
    appends = [
        service.append_event(copy, event(f"{n}", id=f"{n}"))
        for n, copy in enumerate(copies)
        if copy is not None
    ]
    results = await asyncio.gather(*appends, return_exceptions=True)
    assert sum(isinstance(each, StaleSessionError) for each in results) == 7
    assert len(texts(await service.get_session(**LIN, session_id=made.id))) == 1


async def test_names_that_begin_alike_are_apart(service: AmberSessionService) -> None:
    for app, user in (("a", "b"), ("ab", "b"), ("a", "bb")):
        await service.create_session(app_name=app, user_id=user, session_id="s")
    listed = await service.list_sessions(app_name="a")
    assert [each.user_id for each in listed.sessions] == ["b", "bb"]
    await service.delete_session(app_name="a", user_id="b", session_id="s")
    listed = await service.list_sessions(app_name="a", user_id="b")
    assert listed.sessions == []
    assert len((await service.list_sessions(app_name="ab")).sessions) == 1


async def test_a_service_is_closed_once(path: Path) -> None:
    service = AmberSessionService(path)
    session = await service.create_session(**LIN)
    await service.close()
    await service.close()
    with pytest.raises(amberdb.ClosedError):
        await service.list_sessions(app_name="app")
    async with asyncio.timeout(60):
        again = AmberSessionService(path)
        assert await again.get_session(**LIN, session_id=session.id) == session
        await again.close()


@pytest.mark.parametrize("kind", [AmberSessionService, AmberMemoryService])
def test_a_collection_of_somebody_else_is_refused(kind: Any, path: Path) -> None:
    with amberdb.open(path) as db:
        db.collection("adk_event", indexes=[], owner="me")
        db.collection("adk_memory", indexes=[], owner="me")
        with pytest.raises(amberdb.CollectionError, match="adk_"):
            kind(path)


# -- memories --------------------------------------------------------------------------------


def conversation(*events: Event, id: str = "s") -> Session:
    return Session(**LIN, id=id, events=list(events))


async def found(memory: AmberMemoryService | InMemoryMemoryService, query: str) -> list[str | None]:
    response = await memory.search_memory(**LIN, query=query)
    return [each.id for each in response.memories]


async def test_memories_are_found_by_words(memory: AmberMemoryService) -> None:
    await memory.add_session_to_memory(
        conversation(
            event("The umbrella is in the car", 1.5, id="a"),
            event("下午在公司开会", id="b"),
            Event(id="c", author="user"),
        )
    )
    assert await found(memory, "where's the \"umbrella??") == ["a"]
    assert await found(memory, "开会") == ["b"]
    assert await found(memory, "?!") == []
    (entry,) = (await memory.search_memory(**LIN, query="umbrella")).memories
    assert (entry.author, entry.timestamp) == ("user", "1970-01-01T00:00:01.500000+00:00")
    assert entry.content.parts is not None
    assert entry.content.parts[0].text == "The umbrella is in the car"
    other = await memory.search_memory(app_name="app", user_id="wang", query="umbrella")
    assert other.memories == []


async def test_memories_are_kept_as_in_memory(memory: AmberMemoryService) -> None:
    peer = InMemoryMemoryService()
    for each in (memory, peer):
        await each.add_session_to_memory(conversation(event("word", id="a"), event("word", id="b")))
        await each.delete_memory(**LIN, memory_id="b")
        await each.delete_memory(**LIN, memory_id="gone")
        await each.add_session_to_memory(conversation(event("word", id="b"), event("word", id="c")))
        await each.add_events_to_memory(
            **LIN,
            events=[event("word", id="b"), event("other", id="c"), event("word", id="d")],
            session_id="s",
        )
        await each.add_session_to_memory(conversation(event("word", id="e"), id="t"))
        assert sorted(map(str, await found(each, "word"))) == ["c", "d", "e"]


async def test_memories_of_the_program(memory: AmberMemoryService) -> None:
    content = types.Content(parts=[types.Part(text="likes tea")])
    entry = MemoryEntry(content=content, id="m", custom_metadata={"kind": "taste"})
    await memory.add_memory(**LIN, memories=[entry], custom_metadata={"by": "test"})
    (again,) = (await memory.search_memory(**LIN, query="tea")).memories
    assert again == entry.model_copy(update={"custom_metadata": {"kind": "taste", "by": "test"}})


async def test_memories_are_found_by_meaning(path: Path) -> None:
    def embed(texts: list[str]) -> list[list[float]]:
        return [
            [1.0, 0.0] if "rain" in text or "umbrella" in text else [0.0, 1.0] for text in texts
        ]

    with pytest.raises(ValueError, match="dim"):
        AmberMemoryService(path, dim=2)
    memory = AmberMemoryService(path, embed=embed, dim=2, limit=1)
    await memory.add_session_to_memory(
        conversation(event("the umbrella", id="a"), event("nothing", id="b"))
    )
    memory.client["adk_memory"].embed_missing()
    assert await found(memory, "it may rain") == ["a"]
    await memory.close()
    await memory.close()
