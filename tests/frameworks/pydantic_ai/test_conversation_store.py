"""AmberConversationStore: a contract derived from the store in memory that Pydantic AI brings.

Each test of the contract runs over both, so that it says nothing that the framework does not."""

import asyncio
import dataclasses
import random
import re
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pydantic_ai import Agent, Conversation
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    ConversationStore,
    InMemoryConversationStore,
)
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.test import TestModel
from pydantic_ai.tools import DeferredToolRequests
from pydantic_ai.usage import RunUsage

import amberdb
from amberdb import ClosedError, CollectionError
from amberdb.integrations.pydantic_ai import AmberConversationStore

PAGE = Path(__file__).parents[3] / "docs" / "integrations" / "pydantic_ai.md"
START = datetime(2026, 1, 1, tzinfo=UTC)
R = TypeVar("R")


def run(work: Coroutine[Any, Any, R]) -> R:
    return asyncio.run(asyncio.wait_for(work, 60))


@pytest.fixture
def db() -> Iterator[amberdb.Database]:
    with amberdb.open(":memory:") as db:
        yield db


@pytest.fixture(params=["AmberDB", "in memory"])
def store(request: pytest.FixtureRequest, db: amberdb.Database) -> ConversationStore:
    return AmberConversationStore(db) if request.param == "AmberDB" else InMemoryConversationStore()


def said(text: str) -> ModelMessage:
    return ModelRequest(parts=[UserPromptPart(content=text, timestamp=START)], timestamp=START)


def answered(text: str) -> ModelMessage:
    return ModelResponse(parts=[TextPart(content=text)], timestamp=START)


def chain(*ids: str, after: str | None = None) -> list[ConversationEntry]:
    entries: list[ConversationEntry] = []
    for id in ids:
        entries.append(ConversationEntry(id=id, parent_id=after, message=said(id)))
        after = id
    return entries


def record(id: str, head: str | None, **fields: Any) -> ConversationRecord:
    return ConversationRecord(conversation_id=id, head_id=head, **fields)


async def ids_of(store: ConversationStore, head: str | None, limit: int | None = None) -> list[str]:
    return [entry.id for entry in await store.read_history(head, limit=limit)]


async def there(store: ConversationStore, ids: Sequence[str]) -> str:
    """Those of the ids that are stored."""
    found = ""
    for id in ids:
        try:
            found += (await store.read_entry(id)).id
        except LookupError:
            pass
    return found


# -- the five primitives, over both ------------------------------------------------------------


def test_what_is_not_there(store: ConversationStore) -> None:
    async def main() -> None:
        assert await store.read_record("c") is None
        assert list(await store.read_records()) == []
        assert await store.read_history(None) == []
        with pytest.raises(LookupError):
            await store.read_entry("e")
        with pytest.raises(LookupError):
            await store.read_history("e")
        with pytest.raises(ConversationConflict):
            await store.delete_record("c", expected_revision="r")

    run(main())


def test_a_record_comes_back_as_it_was(store: ConversationStore) -> None:
    async def main() -> None:
        full = record(
            "会话 1",
            "b",
            usage=RunUsage(requests=2, input_tokens=10, tool_calls=1, details={"x": 3}),
            deferred_tool_requests=DeferredToolRequests(metadata={"call": {"why": "雨"}}),
            scope="lin",
            forked_from="c0",
            forked_at="a",
            branches=["a"],
            updated_at=START + timedelta(microseconds=1),
        )
        await store.write_record(full, new_entries=chain("a", "b"), expected_revision=None)
        assert await store.read_record("会话 1") == full
        assert list(await store.read_records(scope="lin")) == [full]
        assert await store.read_entry("b") == chain("a", "b")[1]

    run(main())


def test_a_record_is_replaced_at_its_revision_alone(store: ConversationStore) -> None:
    async def main() -> None:
        first = record("c", None)
        await store.write_record(first, expected_revision=None)
        for wrong in (None, "other"):
            with pytest.raises(ConversationConflict) as raised:
                await store.write_record(
                    record("c", "x"), new_entries=chain("x"), expected_revision=wrong
                )
            assert raised.value.conversation_id == "c"
        assert await store.read_record("c") == first
        assert await there(store, "x") == ""
        with pytest.raises(ConversationConflict):
            await store.write_record(record("new", None), expected_revision=first.revision)
        second = record("c", "x")
        await store.write_record(second, new_entries=chain("x"), expected_revision=first.revision)
        assert await store.read_record("c") == second
        with pytest.raises(ConversationConflict):
            await store.delete_record("c", expected_revision=first.revision)
        await store.delete_record("c", expected_revision=second.revision)
        assert await store.read_record("c") is None

    run(main())


def test_a_head_that_is_not_stored_is_a_conflict(store: ConversationStore) -> None:
    async def main() -> None:
        with pytest.raises(ConversationConflict):
            await store.write_record(
                record("c", "x"), new_entries=chain("a"), expected_revision=None
            )
        assert (await store.read_record("c"), await there(store, "a")) == (None, "")

    run(main())


def test_histories_end_at_their_heads_and_limits(store: ConversationStore) -> None:
    async def main() -> None:
        await store.write_record(
            record("c", "d"), new_entries=chain(*"abcd"), expected_revision=None
        )
        assert await ids_of(store, "d") == list("abcd")
        assert await ids_of(store, "b") == list("ab")
        assert await ids_of(store, "d", 2) == list("cd")
        assert await ids_of(store, "d", 9) == list("abcd")
        assert await ids_of(store, "d", 0) == []

    run(main())


def test_records_come_newest_first_by_scope_and_limit(store: ConversationStore) -> None:
    async def main() -> None:
        for n in (2, 0, 3, 1):
            scope = None if n == 3 else "ab"[n % 2]
            made = record(f"{n}", None, scope=scope, updated_at=START + timedelta(seconds=n))
            await store.write_record(made, expected_revision=None)

        async def listed(**which: Any) -> list[str]:
            return [each.conversation_id for each in await store.read_records(**which)]

        assert await listed() == ["3", "2", "1", "0"]
        assert await listed(scope="a") == ["2", "0"]
        assert await listed(scope="a", limit=1) == ["2"]
        assert await listed(limit=3) == ["3", "2", "1"]
        assert await listed(limit=0) == []
        assert await listed(scope="nobody") == []

    run(main())


def test_entries_that_a_fork_shares_outlive_the_conversation(store: ConversationStore) -> None:
    async def main() -> None:
        c, f = record("c", "d", branches=["x"]), record("f", "b")
        await store.write_record(
            c, new_entries=[*chain(*"abcd"), *chain("x", after="b")], expected_revision=None
        )
        await store.write_record(f, expected_revision=None)
        await store.delete_record("c", expected_revision=c.revision)
        assert await there(store, "abcdx") == "ab"
        await store.delete_record("f", expected_revision=f.revision)
        assert await there(store, "abcdx") == ""

    run(main())


def test_what_was_read_can_be_changed(store: ConversationStore) -> None:
    async def main() -> None:
        made = record("c", "a", usage=RunUsage(requests=1))
        entries = chain("a")
        await store.write_record(made, new_entries=entries, expected_revision=None)
        made.usage.requests = 9
        read = await store.read_record("c")
        assert read is not None
        read.branches.append("z")
        again = await store.read_record("c")
        assert again is not None
        assert (again.usage.requests, again.branches) == (1, [])

    run(main())


# -- what is built on them, over both ----------------------------------------------------------


def test_a_conversation_is_saved_loaded_branched_forked_and_deleted(
    store: ConversationStore,
) -> None:
    async def main() -> None:
        conversation = Conversation(
            conversation_id="c", messages=[said("1"), answered("2"), said("3")]
        )
        first = await store.save(conversation, scope="lin")
        assert len(first) == 3
        loaded = await store.load("c", scope="lin")
        assert loaded is not None
        assert loaded.messages == conversation.messages
        assert await store.load("c", scope="wu") is None
        stale = dataclasses.replace(loaded)
        loaded.messages.append(answered("4"))
        assert len(await store.save(loaded)) == 1
        with pytest.raises(ConversationConflict):
            await store.save(stale)
        window = await store.load("c", limit=2)
        assert window is not None
        assert window.messages == [said("3"), answered("4")]

        fork = await store.fork("c", at=2)
        fork.messages.append(said("other"))
        assert len(await store.save(fork)) == 1
        assert [len(each.messages) for each in await loads(store, fork.conversation_id, "c")] == [
            3,
            4,
        ]
        await store.delete("c")
        (left,) = await loads(store, fork.conversation_id)
        assert left.messages == [said("1"), answered("2"), said("other")]

    async def loads(store: ConversationStore, *ids: str) -> list[Conversation]:
        found = [await store.load(id) for id in ids]
        return [each for each in found if each is not None]

    run(main())


def test_a_history_that_was_rewritten_is_a_branch(store: ConversationStore) -> None:
    async def main() -> None:
        await store.save(Conversation(conversation_id="c", messages=[said("1"), answered("2")]))
        loaded = await store.load("c")
        assert loaded is not None
        loaded.messages = [said("1"), answered("else")]
        await store.save(loaded)
        read = await store.read_record("c")
        assert read is not None
        assert len(read.branches) == 1
        old = await store.read_history(read.branches[0])
        assert [entry.message for entry in old] == [said("1"), answered("2")]

    run(main())


def test_of_two_writers_one_saves(store: ConversationStore) -> None:
    async def main() -> None:
        await store.save(Conversation(conversation_id="c", messages=[said("0")]))

        async def write(n: int) -> None:
            while True:
                loaded = await store.load("c")
                assert loaded is not None
                loaded.messages.append(said(f"{n}"))
                try:
                    await store.save(loaded)
                    return
                except ConversationConflict:
                    continue

        await asyncio.gather(*(write(n) for n in range(1, 9)))
        loaded = await store.load("c")
        assert loaded is not None
        parts: list[Any] = [part for message in loaded.messages for part in message.parts]
        assert sorted(part.content for part in parts) == [str(n) for n in range(9)]

    run(main())


def test_an_agent_goes_on(store: ConversationStore) -> None:
    async def main() -> None:
        agent = Agent(TestModel(custom_output_text="在车里"))
        for n in range(3):
            conversation = await store.load("lin-1") or Conversation(conversation_id="lin-1")
            result = await agent.run(f"雨伞在哪？{n}", conversation=conversation)
            assert len(await store.save(result, scope="lin")) == 2
        loaded = await store.load("lin-1")
        assert loaded is not None
        assert (len(loaded.messages), loaded.usage.requests) == (6, 3)

    run(main())


# -- against the store in memory ---------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_random_conversations_are_as_in_memory(db: amberdb.Database, seed: int) -> None:
    """Records are written with new entries after any entry of theirs, forked and deleted."""
    stores: list[ConversationStore] = [AmberConversationStore(db), InMemoryConversationStore()]
    chance = random.Random(seed)

    async def main() -> None:
        records: dict[str, ConversationRecord] = {}
        made = 0
        for step in range(60):
            which = f"c{chance.randrange(5)}"
            old = records.get(which)
            if old is not None and chance.random() < 0.3:
                for store in stores:
                    await store.delete_record(which, expected_revision=old.revision)
                del records[which]
            else:
                known = records[chance.choice(list(records))] if records and not old else old
                tips = [] if known is None else [known.head_id, *known.branches]
                start = chance.choice(tips) if tips else None
                if start is not None:
                    history = await stores[1].read_history(start)
                    start = chance.choice(history).id
                count = chance.randrange(0 if start else 1, 4)
                entries = chain(*(f"e{made + n}" for n in range(count)), after=start)
                made += count
                left = [] if old is None or old.head_id is None else [old.head_id]
                new = record(
                    which,
                    entries[-1].id if entries else start,
                    branches=[*(old.branches if old else []), *left],
                    updated_at=START + timedelta(seconds=step),
                )
                for store in stores:
                    await store.write_record(
                        new,
                        new_entries=entries,
                        expected_revision=None if old is None else old.revision,
                    )
                records[which] = new
            names = [f"e{n}" for n in range(made)]
            one, other = [await there(store, names) for store in stores]
            assert one == other, step
        listed = [list(await store.read_records()) for store in stores]
        assert listed[0] == listed[1]
        for each in records.values():
            assert await ids_of(stores[0], each.head_id) == await ids_of(stores[1], each.head_id)
        for each in records.values():
            await stores[0].delete_record(each.conversation_id, expected_revision=each.revision)
        assert len(db["pydantic_ai.entries"]) == 0

    run(main())


# -- what a database adds ----------------------------------------------------------------------


def test_an_entry_with_a_missing_parent_stores_nothing(db: amberdb.Database) -> None:
    async def main() -> None:
        store = AmberConversationStore(db)
        with pytest.raises(ConversationConflict):
            await store.write_record(
                record("c", "b"), new_entries=chain("b", after="gone"), expected_revision=None
            )
        assert (await store.read_record("c"), len(db["pydantic_ai.entries"])) == (None, 0)

    run(main())


def test_a_head_that_moves_away_releases_its_entries(db: amberdb.Database) -> None:
    async def main() -> None:
        store = AmberConversationStore(db)
        first = record("c", "c")
        await store.write_record(first, new_entries=chain(*"abc"), expected_revision=None)
        second = record("c", "d")
        await store.write_record(
            second, new_entries=chain("d", after="a"), expected_revision=first.revision
        )
        assert await there(store, "abcd") == "ad"
        third = record("c", "d")
        await store.write_record(
            third, new_entries=chain("d", after="a"), expected_revision=second.revision
        )  # the same entry again
        assert await there(store, "abcd") == "ad"
        await store.delete_record("c", expected_revision=third.revision)
        assert await there(store, "abcd") == ""

    run(main())


def test_long_names_and_odd_texts_come_back(db: amberdb.Database) -> None:
    async def main() -> None:
        store = AmberConversationStore(db)
        name, id = "会" * 500, "e" * 900
        message = said("half an emoji \ud83d 🌂")
        entry = ConversationEntry(id=id, parent_id=None, message=message)
        made = record(name, id, scope="s" * 900)
        await store.write_record(made, new_entries=[entry], expected_revision=None)
        assert await store.read_record(name) == made
        assert await store.read_history(id) == [entry]
        assert list(await store.read_records(scope="s" * 900)) == [made]

    run(main())


def test_stores_share_a_path_and_are_closed_twice(tmp_path: Path) -> None:
    async def main() -> None:
        make: Callable[..., Any] = AmberConversationStore
        one, same = make(tmp_path / "db"), make(str(tmp_path / "db"))
        await one.save(Conversation(conversation_id="c", messages=[said("1")]))
        one.close()
        one.close()
        assert (await same.load("c")).messages == [said("1")]
        with pytest.raises(ClosedError):
            await one.load("c")
        same.close()

    run(main())
    with amberdb.open(tmp_path / "other") as db:
        db.collection("pydantic_ai.entries", owner="another")
    with pytest.raises(CollectionError, match="another"):
        AmberConversationStore(tmp_path / "other")
    for path in ("db", "other"):
        assert amberdb.check(tmp_path / path).ok  # takes the lock: nobody holds it


def test_the_sample_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    section = PAGE.read_text(encoding="utf-8")
    samples = re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S)
    assert samples
    for sample in samples:
        body = "".join(f"    {line}\n" for line in sample.splitlines())
        names: dict[str, Any] = {"agent": Agent(TestModel())}
        exec(f"async def main():\n{body}", names)
        run(names["main"]())
