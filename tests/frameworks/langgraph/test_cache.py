"""AmberCache: entries, their times, and the namespaces that are cleared."""

import asyncio
from pathlib import Path

from langgraph.cache.base import FullKey
from langgraph.graph import END, START, StateGraph
from langgraph.types import CachePolicy

from amberdb import Database
from amberdb.integrations.langgraph import AmberCache


def test_entries_come_back(db: Database) -> None:
    cache: AmberCache[object] = AmberCache(db)
    pairs: dict[FullKey, tuple[object, int | None]] = {
        (("a", "b"), "k"): ({"n": [1, 2]}, None),
        (("a",), "b"): (None, 60),
        (("a,b",), "k"): ("other", None),
        (("a", "x" * 5_000), "y" * 5_000): (b"long", None),
        ((), ""): ("root", None),
    }
    cache.set(pairs)
    assert cache.get([*pairs, (("a",), "none")]) == {key: pair[0] for key, pair in pairs.items()}
    assert cache.get([]) == {}
    cache.set({(("a",), "b"): (2, None)})
    assert cache.get([(("a",), "b")]) == {(("a",), "b"): 2}


def test_an_entry_is_over_after_its_time(db: Database) -> None:
    cache: AmberCache[int] = AmberCache(db)
    cache.set({(("a",), "gone"): (1, -1), (("a",), "left"): (2, 3_600)})
    assert cache.get([(("a",), "gone"), (("a",), "left")]) == {(("a",), "left"): 2}


def test_namespaces_are_cleared_one_by_one(db: Database) -> None:
    cache: AmberCache[int] = AmberCache(db)
    deep = tuple("abcdefgh")
    keys: list[FullKey] = [
        (("a",), "k"),
        (("a", "b"), "k"),
        ((), "k"),
        (deep, "k"),
        ((*deep, "i"), "k"),
    ]
    cache.set({key: (number, None) for number, key in enumerate(keys)})
    cache.clear([("a",), deep])
    assert set(cache.get(keys).values()) == {1, 2, 4}
    cache.clear([])
    assert len(cache.get(keys)) == 3
    cache.clear()
    assert cache.get(keys) == {}


def test_a_graph_computes_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def double(number: int) -> int:
        calls.append(number)
        return 2 * number

    def build(cache: AmberCache[object]) -> int:
        builder = StateGraph(int)
        builder.add_node("double", double, cache_policy=CachePolicy(ttl=3_600))
        builder.add_edge(START, "double")
        builder.add_edge("double", END)
        return builder.compile(cache=cache).invoke(21)  # type: ignore[no-any-return]

    for _ in range(3):
        with AmberCache(tmp_path / "agent.amber") as cache:
            assert build(cache) == 42
    assert calls == [21]


def test_event_loops(db: Database) -> None:
    async def run() -> None:
        cache: AmberCache[int] = AmberCache(db)
        await cache.aset({(("a",), "k"): (1, None)})
        assert await cache.aget([(("a",), "k")]) == {(("a",), "k"): 1}
        await cache.aclear()
        assert await cache.aget([(("a",), "k")]) == {}

    asyncio.run(run())
