"""AmberSession: what the SDK and its runner rely on. The SDK brings no suite in its package."""

import asyncio
import re
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from agents import Agent, RunConfig, Runner
from agents.items import TResponseInputItem
from agents.memory import Session, SessionSettings
from agents.testing import ScriptedModel, assistant_message
from agents.tracing import set_tracing_disabled

import amberdb
from amberdb import ClosedError, CollectionError, InvalidDocumentError
from amberdb.integrations.openai_agents import AmberSession

PAGE = Path(__file__).parents[3] / "docs" / "integrations" / "openai_agents.md"
R = TypeVar("R")

set_tracing_disabled(True)


def run(work: Coroutine[Any, Any, R]) -> R:
    return asyncio.run(asyncio.wait_for(work, 60))


def user(text: str) -> TResponseInputItem:
    return {"role": "user", "content": text}


def contents(items: list[Any]) -> list[str]:
    return [item["content"] for item in items]


@pytest.fixture
def db() -> Iterator[amberdb.Database]:
    with amberdb.open(":memory:") as db:
        yield db


def test_it_is_a_session(db: amberdb.Database) -> None:
    session: Session = AmberSession("s", db)
    assert isinstance(session, Session)
    assert (session.session_id, session.session_settings) == ("s", SessionSettings())


def test_items_come_back_in_order_and_the_newest_by_limit(db: amberdb.Database) -> None:
    async def main() -> None:
        session, other = AmberSession("s", db), AmberSession("other", db)
        assert await session.get_items() == []
        await session.add_items([user(str(n)) for n in range(3)])
        await other.add_items([user("elsewhere")])
        await session.add_items([])
        await session.add_items([user(str(n)) for n in range(3, 12)])
        assert contents(await session.get_items()) == [str(n) for n in range(12)]
        assert contents(await session.get_items(2)) == ["10", "11"]
        assert await session.get_items(0) == []
        assert len(await session.get_items(99)) == 12
        assert contents(await other.get_items()) == ["elsewhere"]

    run(main())


def test_the_newest_is_popped_until_none_is_left(db: amberdb.Database) -> None:
    async def main() -> None:
        session = AmberSession("s", db)
        await session.add_items([user("1"), user("2")])
        assert await session.pop_item() == user("2")
        await session.add_items([user("3")])
        assert contents(await session.get_items()) == ["1", "3"]
        assert [await session.pop_item() for _ in range(3)] == [user("3"), user("1"), None]

    run(main())


def test_a_session_is_cleared_alone(db: amberdb.Database) -> None:
    async def main() -> None:
        session, other = AmberSession("s", db), AmberSession("s2", db)
        await session.add_items([user("1")])
        await other.add_items([user("2")])
        await session.clear_session()
        await session.clear_session()
        assert (await session.get_items(), len(await other.get_items())) == ([], 1)
        await session.add_items([user("3")])
        assert contents(await session.get_items()) == ["3"]

    run(main())


@pytest.mark.parametrize(
    "item",
    [
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"城市": "杭州"}'},
        {"role": "user", "content": [{"type": "input_text", "text": "雨伞🌂"}]},
        {"$x": {"a.b": 1}, "": None, "n": [1, 1.0, True, -0.0]},
        {"n": 10**30},
        {"text": "half an emoji \ud83d"},
        {"infinite": float("inf")},
        {"role": "user", "content": "x" * 100_000},
    ],
)
def test_an_item_comes_back_as_it_was(db: amberdb.Database, item: Any) -> None:
    async def main() -> None:
        session = AmberSession("s", db)
        await session.add_items([item])
        (found,) = await session.get_items()
        assert repr(found) == repr(item)
        assert repr(await session.pop_item()) == repr(item)

    run(main())


def test_deep_items_come_back(db: amberdb.Database) -> None:
    async def main() -> None:
        item: Any = {"deep": 1}
        for _ in range(200):
            item = {"deep": [item]}
        session = AmberSession("s", db)
        await session.add_items([item])
        assert await session.get_items() == [item]

    run(main())


def test_an_item_that_is_no_json_adds_none(db: amberdb.Database) -> None:
    async def main() -> None:
        session = AmberSession("s", db)
        bad: Any = {"x": object()}
        with pytest.raises(TypeError, match="JSON"):
            await session.add_items([user("1"), bad])
        assert await session.get_items() == []

    run(main())


@pytest.mark.parametrize(
    "settings", [SessionSettings(limit=2), {"limit": 2}], ids=["settings", "map"]
)
def test_settings_have_a_limit(db: amberdb.Database, settings: Any) -> None:
    async def main() -> None:
        session = AmberSession("s", db, session_settings=settings)
        await session.add_items([user(str(n)) for n in range(5)])
        assert contents(await session.get_items()) == ["3", "4"]
        assert len(await session.get_items(4)) == 4
        session.session_settings = None
        assert len(await session.get_items()) == 5

    run(main())


def test_bad_arguments_are_refused(db: amberdb.Database) -> None:
    for bad in ("", None, 7):
        with pytest.raises(InvalidDocumentError, match="session_id"):
            AmberSession(bad, db)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="limitt"):
        AmberSession("s", db, session_settings={"limitt": 1})
    db.collection("openai_agents_items", owner="another")
    with pytest.raises(CollectionError, match="another"):
        AmberSession("s", db)


def test_sessions_share_a_path_and_are_closed_twice(tmp_path: Path) -> None:
    async def main() -> None:
        one, same = AmberSession("s", tmp_path / "db"), AmberSession("s", str(tmp_path / "db"))
        await one.add_items([user("你好")])
        one.close()
        one.close()
        assert contents(await same.get_items()) == ["你好"]
        for call in (one.get_items, one.pop_item, one.clear_session, lambda: one.add_items([])):
            with pytest.raises(ClosedError):
                await call()
        same.close()
        again = AmberSession("s", tmp_path / "db")
        assert contents(await again.get_items()) == ["你好"]
        again.close()

    run(main())
    assert amberdb.check(tmp_path / "db").ok  # takes the lock: nobody holds it


def test_a_path_is_closed_when_the_session_is_refused(tmp_path: Path) -> None:
    with amberdb.open(tmp_path / "db") as db:
        db.collection("openai_agents_items", owner="another")
    with pytest.raises(CollectionError):
        AmberSession("s", tmp_path / "db")
    assert amberdb.check(tmp_path / "db").ok


def test_tasks_add_whole_lists(db: amberdb.Database) -> None:
    async def main() -> None:
        async def add(writer: int) -> None:
            session = AmberSession("s", db)
            for n in range(10):
                await session.add_items([user(f"{writer}.{n}"), user(f"{writer}.{n}")])

        await asyncio.gather(*(add(writer) for writer in range(8)))
        said = contents(await AmberSession("s", db).get_items())
        assert said[::2] == said[1::2]
        for writer in range(8):
            own = [text for text in said[::2] if text.startswith(f"{writer}.")]
            assert own == [f"{writer}.{n}" for n in range(10)]

    run(main())


def test_tasks_pop_each_item_once(db: amberdb.Database) -> None:
    async def main() -> None:
        session = AmberSession("s", db)
        await session.add_items([user(str(n)) for n in range(20)])
        popped = await asyncio.gather(*(session.pop_item() for _ in range(25)))
        found = contents([item for item in popped if item is not None])
        assert sorted(found, key=int) == [str(n) for n in range(20)]

    run(main())


def test_an_agent_remembers(tmp_path: Path) -> None:
    async def main() -> None:
        session = AmberSession("s", tmp_path / "db", session_settings={"limit": 4})
        model = ScriptedModel([[assistant_message(f"answer {n}")] for n in range(3)])
        agent = Agent(name="assistant", model=model)
        for n in range(3):
            result = await Runner.run(agent, f"问题 {n}", session=session)
            assert result.final_output == f"answer {n}"
        items: Any = await session.get_items(99)
        assert [item["role"] for item in items] == ["user", "assistant"] * 3
        seen: Any = model.calls[-1].input  # the newest four items, and the question
        assert contents([item for item in seen if item["role"] == "user"]) == [
            "问题 0",
            "问题 1",
            "问题 2",
        ]
        config = RunConfig(session_settings=SessionSettings(limit=0))
        model.enqueue([assistant_message("alone")])
        await Runner.run(agent, "问题 3", session=session, run_config=config)
        assert len(model.calls[-1].input) == 1
        session.close()

    run(main())


def test_the_sample_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    section = PAGE.read_text(encoding="utf-8")
    samples = re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S)
    assert samples
    for sample in samples:
        model = ScriptedModel([[assistant_message("in the car")], [assistant_message("yes")]])
        agent = Agent(name="assistant", model=model)
        body = "".join(f"    {line}\n" for line in sample.splitlines())
        names: dict[str, Any] = {"agent": agent}
        exec(f"async def main():\n{body}", names)
        run(names["main"]())
