"""What the adapters for frameworks share. The adapters themselves: tests/frameworks."""

import asyncio
import os
import threading
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import ClosedError, CollectionError, Database
from amberdb.integrations.item_lists import ItemLists
from amberdb.integrations.names import begins_id, name_id
from amberdb.integrations.opened import Opened
from amberdb.integrations.threads import awaited, in_thread


def test_a_path_is_closed_twice_and_an_open_database_never(tmp_path: Path, db: Database) -> None:
    opened = Opened(tmp_path / "db")
    opened.close()
    opened.close()
    with pytest.raises(ClosedError):
        opened.db.collections()
    Opened(db).close()
    assert db.collections() == []


def test_a_path_is_closed_when_an_adapter_cannot_be_made(tmp_path: Path) -> None:
    opened = Opened(tmp_path / "db")
    with pytest.raises(CollectionError), opened.closed_on_error() as db:
        db.collection("")
    with pytest.raises(ClosedError):
        opened.db.collections()
    assert amberdb.check(tmp_path / "db").ok


def test_a_path_is_shared_and_a_database_in_memory_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one, two = Opened("db"), Opened(tmp_path / "db")
    one.db.collection("a", indexes=[]).put({"id": "1"})
    assert "1" in two.db["a"]
    assert [path.name for path in tmp_path.joinpath("db").iterdir() if path.is_socket()]
    memory, another = Opened(":memory:"), Opened(":memory:")
    memory.db.collection("a", indexes=[])
    assert another.db.collections() == []
    assert os.listdir() == ["db"]
    for opened in (one, two, memory, another):
        opened.close()


# -- calls of an event loop --------------------------------------------------------------------


def test_a_call_in_a_thread_returns_and_raises() -> None:
    async def main() -> None:
        assert await in_thread("read", divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await in_thread("write", divmod, 7, 0)

    asyncio.run(main())


def test_a_call_has_the_context_of_its_task() -> None:
    asked: ContextVar[int] = ContextVar("asked", default=0)

    async def main() -> None:
        asked.set(7)
        assert await in_thread("read", asked.get) == 7

    asyncio.run(main())


def test_reads_wait_for_no_write() -> None:
    async def main() -> None:
        go_on = threading.Event()
        writes = [asyncio.create_task(in_thread("write", go_on.wait, 30)) for _ in range(40)]
        await asyncio.sleep(0)
        assert await asyncio.wait_for(in_thread("read", int, "7"), 30) == 7
        go_on.set()
        assert all(await asyncio.gather(*writes))

    asyncio.run(main())


def test_an_async_method_calls_that_of_a_subclass() -> None:
    class Base:
        def count(self, first: int, *, more: int = 0) -> int:
            return first + more

        acount = awaited("read", count)

    class Own(Base):
        def count(self, first: int, *, more: int = 0) -> int:
            return -super().count(first, more=more)

    assert asyncio.run(Base().acount(1, more=2)) == 3
    assert asyncio.run(Own().acount(1, more=2)) == -3


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    assert asyncio.run(in_thread("read", int, "7")) == 7
    if (pid := os.fork()) == 0:
        code = 1
        try:
            code = asyncio.run(asyncio.wait_for(in_thread("read", int, "0"), 30))
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("fails", [False, True])
def test_a_cancelled_call_has_ended(fails: bool) -> None:
    async def main() -> None:
        begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

        def write() -> None:
            begun.set()
            go_on.wait(30)
            done.set()
            if fails:
                raise ValueError

        task = asyncio.create_task(in_thread("write", write))
        while not begun.is_set():
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert done.is_set()

    asyncio.run(main())


# -- names -------------------------------------------------------------------------------------


def test_long_names_have_ids_that_begin_alike() -> None:
    assert name_id("a" * 400) == "a" * 400
    names = ["a" * 401, "a" * 402, "会" * 134, "x" + "会" * 400, name_id("a" * 401)]
    ids = [name_id(name) for name in names]
    assert len(set(ids)) == len(names)
    for name, id in zip(names, ids, strict=True):
        assert 400 < len(id.encode()) <= 480
        assert all(id.startswith(begins_id(name[:end])) for end in range(len(name) + 1))


# -- lists of items ----------------------------------------------------------------------------


def test_lists_are_apart_and_in_order(db: Database) -> None:
    lists = ItemLists(db, "items", owner="test")
    names = ["a", "ab", "a!", " ", "会话", "x" * 999, "x" * 1000]
    for number in range(300):
        for name in names:
            lists.append(name, [number])
    for name in names:
        assert lists.items(name) == list(range(300))
        assert lists.items(name, 2) == [298, 299]
        assert lists.items(name, 0) == []
    assert lists.clear("a") == 300
    assert lists.pop("a") is None
    assert lists.pop("ab") == 299
    assert lists.items("ab", 1) == [298]


@pytest.mark.parametrize("item", [None, {"$x": [1, 1.0, True]}, 10**30, "\ud83d", float("inf")])
def test_an_item_comes_back_with_its_types(db: Database, item: Any) -> None:
    lists = ItemLists(db, "items", owner="test")
    lists.append("a", [item])
    (found,) = lists.items("a")
    assert (repr(found), type(found)) == (repr(item), type(item))


def test_a_list_that_holds_what_is_no_json_is_not_added(db: Database) -> None:
    lists = ItemLists(db, "items", owner="test")
    with pytest.raises(TypeError, match="JSON"):
        lists.append("a", [1, object()])
    assert lists.items("a") == []
    with pytest.raises(CollectionError):
        ItemLists(db, "items", owner="another")
