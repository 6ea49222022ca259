"""AmberSessionStore: the contracts of the SDK, its helpers over a store, and what they do not ask.

No test starts the command line program that is in the SDK's package."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from claude_agent_sdk import (
    ClaudeAgentOptions,
    InMemorySessionStore,
    SessionKey,
    delete_session_via_store,
    fork_session_via_store,
    get_session_messages_from_store,
    list_sessions_from_store,
    list_subagents_from_store,
    project_key_for_directory,
    rename_session_via_store,
    tag_session_via_store,
)
from claude_agent_sdk.testing import run_session_store_conformance

import amberdb
from amberdb import ClosedError, CollectionError, InvalidDocumentError
from amberdb.integrations.claude_agent import AmberSessionStore

PAGE = Path(__file__).parents[3] / "docs" / "integrations" / "claude_agent.md"
SESSION = "0b6ddd4f-9a54-4b2c-9c3a-1f2e3d4c5b6a"
KEY: SessionKey = {"project_key": "项目", "session_id": SESSION}
SUB: SessionKey = {**KEY, "subpath": "subagents/agent-1"}
R = TypeVar("R")


def run(work: Coroutine[Any, Any, R]) -> R:
    return asyncio.run(asyncio.wait_for(work, 60))


def entry(uuid: str | None = None, **fields: Any) -> Any:
    return {"type": "user", **({} if uuid is None else {"uuid": uuid}), **fields}


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def db() -> Iterator[amberdb.Database]:
    with amberdb.open(":memory:") as db:
        yield db


@pytest.fixture
def store(db: amberdb.Database) -> AmberSessionStore:
    return AmberSessionStore(db)


def test_the_contracts_of_the_sdk(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    made: list[AmberSessionStore] = []

    def make() -> AmberSessionStore:
        made.append(AmberSessionStore(tmp_path / f"{len(made)}"))
        return made[-1]

    run(run_session_store_conformance(make))
    assert len(made) == 15  # one to look at, and one for each of 14 contracts
    record_property("framework_tests", len(made) - 1)
    for store in made:
        store.close()


def test_the_same_as_in_memory(store: AmberSessionStore) -> None:
    async def told(store: Any) -> list[Any]:
        keys: list[SessionKey] = [KEY, SUB, {**KEY, "session_id": "s2"}]
        for n in range(30):
            entries = [entry(f"{n}.{k}", message={"content": f"问题 {n}"}) for k in range(n % 3)]
            await store.append(keys[n % 3], [*entries, entry(mode=str(n))])
        await store.delete({**KEY, "subpath": "nothing"})
        answers: list[Any] = [await store.load(key) for key in keys]
        answers.append(sorted(each["session_id"] for each in await store.list_sessions("项目")))
        summaries = await store.list_session_summaries("项目")
        answers.append(sorted((each["session_id"], each["data"]) for each in summaries))
        answers.append(await store.list_subkeys({"project_key": "项目", "session_id": SESSION}))
        await store.delete(KEY)
        answers += [await store.load(key) for key in keys]
        return answers

    async def main() -> None:
        assert await told(store) == await told(InMemorySessionStore())

    run(main())


def test_an_entry_is_stored_once(store: AmberSessionStore) -> None:
    async def main() -> None:
        batch = [entry("a", n=1), entry(n=2), entry("b", n=3), entry("b", n=4)]
        await store.append(KEY, batch)
        await store.append(SUB, batch)  # of another transcript
        before = await store.list_sessions("项目")
        await store.append(KEY, [entry("a", n=5), entry("b", n=6)])
        assert await store.list_sessions("项目") == before
        await store.append(KEY, [entry("b", n=7), entry("c", n=8), entry(n=2), entry("", n=9)])
        found: Any = await store.load(KEY)
        assert [each["n"] for each in found] == [1, 2, 3, 8, 2, 9]
        assert len(await store.load(SUB) or []) == 3

    run(main())


def test_a_repeated_entry_does_not_change_the_summary(store: AmberSessionStore) -> None:
    async def main() -> None:
        await store.append(KEY, [entry("a", customTitle="old"), entry("b", customTitle="new")])
        before = await store.list_session_summaries("项目")
        await store.append(KEY, [entry("a", customTitle="old")])
        assert await store.list_session_summaries("项目") == before

    run(main())


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "雨伞🌂", "$x": {"a.b": [1, 1.0, True, None]}},
        {"n": 10**30},
        {"text": "half an emoji \ud83d", "customTitle": "\ud83d"},
        {"uuid": 7},
        {"text": "x" * 100_000},
    ],
)
def test_an_entry_comes_back_as_it_was(store: AmberSessionStore, fields: Any) -> None:
    async def main() -> None:
        await store.append(KEY, [entry(**fields), entry(**fields)])
        assert repr(await store.load(KEY)) == repr([entry(**fields), entry(**fields)])
        assert len(await store.list_session_summaries("项目")) == 1

    run(main())


def test_a_batch_that_is_no_json_stores_nothing(store: AmberSessionStore) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="JSON"):
            await store.append(KEY, [entry("a"), entry(x=object())])
        assert await store.load(KEY) is None

    run(main())


@pytest.mark.parametrize("wrong", [{"project_key": ""}, {"session_id": None}, {"subpath": ""}])
def test_a_key_with_an_empty_part_is_refused(store: AmberSessionStore, wrong: Any) -> None:
    async def main() -> None:
        for call in (store.load, store.delete, lambda key: store.append(key, [entry()])):
            with pytest.raises(InvalidDocumentError):
                await call({**KEY, **wrong})

    run(main())


def test_long_keys_are_apart(store: AmberSessionStore) -> None:
    async def main() -> None:
        keys: list[SessionKey] = [
            {"project_key": "p" * 2000, "session_id": "s"},
            {"project_key": "p" * 2001, "session_id": "s"},
            {"project_key": "p", "session_id": "s", "subpath": "x/" * 1000},
            {"project_key": "ps", "session_id": "s"},
            {"project_key": "p", "session_id": "ss"},
        ]
        for n, key in enumerate(keys):
            await store.append(key, [entry(n=n)])
        for n, key in enumerate(keys):
            assert await store.load(key) == [entry(n=n)]
        assert await store.list_subkeys({"project_key": "p", "session_id": "s"}) == ["x/" * 1000]
        assert [each["session_id"] for each in await store.list_sessions("p")] == ["ss"]

    run(main())


def test_tasks_append_whole_batches(store: AmberSessionStore, db: amberdb.Database) -> None:
    async def main() -> None:
        other = AmberSessionStore(db)

        async def write(store: AmberSessionStore, writer: int) -> None:
            for n in range(10):
                await store.append(KEY, [entry(f"{writer}.{n}.{k}", w=writer) for k in range(3)])

        await asyncio.gather(*(write((store, other)[n % 2], n) for n in range(6)))
        found: Any = await store.load(KEY)
        assert len(found) == 180
        for start in range(0, 180, 3):
            assert [each["uuid"][-1] for each in found[start : start + 3]] == ["0", "1", "2"]
            assert len({each["w"] for each in found[start : start + 3]}) == 1

    run(main())


def test_times_ascend_though_the_clock_stands_still(db: amberdb.Database) -> None:
    async def main() -> None:
        clock = Clock()
        store = AmberSessionStore(db, clock=clock)
        for n in range(3):
            await store.append({**KEY, "session_id": str(n)}, [entry()])
        clock.now_s -= 60
        await store.append({**KEY, "session_id": "3"}, [entry()])
        listed = sorted(await store.list_sessions("项目"), key=lambda each: each["mtime"])
        assert [each["session_id"] for each in listed] == ["0", "1", "2", "3"]
        summaries = await store.list_session_summaries("项目")
        assert {each["session_id"]: each["mtime"] for each in summaries} == {
            each["session_id"]: each["mtime"] for each in listed
        }

    run(main())


def test_a_clock_that_was_wrong_does_not_decide_for_ever(db: amberdb.Database) -> None:
    async def main() -> None:
        clock = Clock()
        store = AmberSessionStore(db, clock=clock)
        clock.now_s += 86_400
        await store.append(KEY, [entry()])
        clock.now_s -= 86_400
        await store.append(KEY, [entry()])
        assert (await store.list_sessions("项目"))[0]["mtime"] == clock.now_s * 1000

    run(main())


def test_idle_sessions_are_deleted_whole(db: amberdb.Database) -> None:
    async def main() -> None:
        clock = Clock()
        store = AmberSessionStore(db, clock=clock)
        busy: SessionKey = {**KEY, "session_id": "busy"}
        for key in (KEY, SUB, busy):
            await store.append(key, [entry("a")])
        clock.now_s += 3600
        await store.append({**busy, "subpath": "subagents/agent-2"}, [entry("a")])
        assert await store.delete_idle(timedelta(hours=2)) == 0
        assert await store.delete_idle(timedelta(minutes=30)) == 1
        assert (await store.load(KEY), await store.load(SUB)) == (None, None)
        assert len(await store.load(busy) or []) == 1
        assert len(db["claude_agent.entries"]) == 2
        with pytest.raises(ValueError, match="idle"):
            await store.delete_idle(timedelta(-1))

    run(main())


def test_stores_share_a_path_and_are_closed_twice(tmp_path: Path) -> None:
    async def main() -> None:
        one, same = AmberSessionStore(tmp_path / "db"), AmberSessionStore(str(tmp_path / "db"))
        await one.append(KEY, [entry("a")])
        one.close()
        one.close()
        assert await same.load(KEY) == [entry("a")]
        with pytest.raises(ClosedError):
            await one.load(KEY)
        with pytest.raises(ClosedError):
            await one.append(KEY, [])
        same.close()

    run(main())
    with amberdb.open(tmp_path / "other") as db:
        db.collection("claude_agent.entries", owner="another")
    with pytest.raises(CollectionError, match="another"):
        AmberSessionStore(tmp_path / "other")
    for path in ("db", "other"):
        assert amberdb.check(tmp_path / path).ok  # takes the lock: nobody holds it


def test_the_helpers_of_the_sdk_work_over_it(store: AmberSessionStore, tmp_path: Path) -> None:
    async def main() -> None:
        here = str(tmp_path)
        key: SessionKey = {
            "project_key": project_key_for_directory(here),
            "session_id": SESSION,
        }
        said = [
            entry("u1", timestamp="2026-01-01T00:00:00Z", parentUuid=None, sessionId=SESSION,
                  message={"role": "user", "content": "雨伞在哪？"}),
            {**entry("u2", timestamp="2026-01-01T00:00:01Z", parentUuid="u1", sessionId=SESSION,
                     message={"role": "assistant", "content": "在车里"}), "type": "assistant"},
        ]  # fmt: skip
        await store.append(key, said)
        await store.append({**key, "subpath": "subagents/agent-7"}, said)
        (listed,) = await list_sessions_from_store(store, directory=here)
        assert (listed.session_id, listed.first_prompt) == (SESSION, "雨伞在哪？")
        messages = await get_session_messages_from_store(store, SESSION, directory=here)
        assert [message.type for message in messages] == ["user", "assistant"]
        assert await list_subagents_from_store(store, SESSION, directory=here) == ["7"]
        await rename_session_via_store(store, SESSION, "雨伞", directory=here)
        await tag_session_via_store(store, SESSION, "weather", directory=here)
        (listed,) = await list_sessions_from_store(store, directory=here)
        assert (listed.custom_title, listed.tag) == ("雨伞", "weather")
        forked = await fork_session_via_store(store, SESSION, directory=here)
        assert len(await list_sessions_from_store(store, directory=here)) == 2
        await delete_session_via_store(store, SESSION, directory=here)
        (left,) = await list_sessions_from_store(store, directory=here)
        assert left.session_id == forked.session_id

    run(main())


def test_the_sample_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    section = PAGE.read_text(encoding="utf-8")
    samples = re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S)
    assert samples
    asked: list[ClaudeAgentOptions] = []

    async def query(prompt: str, options: ClaudeAgentOptions) -> Any:
        asked.append(options)
        yield prompt

    for sample in samples:
        body = "".join(f"    {line}\n" for line in sample.splitlines())
        names: dict[str, Any] = {}
        monkeypatch.setattr("claude_agent_sdk.query", query)  # it would start a program
        exec(f"async def main():\n{body}", names)
        run(names["main"]())
    assert isinstance(asked[0].session_store, AmberSessionStore)
