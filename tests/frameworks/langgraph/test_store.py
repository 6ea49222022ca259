"""AmberStore: values, filters, namespaces, vectors, times to live, and batches."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchOp,
)

import amberdb
from amberdb import Database, InvalidDocumentError
from amberdb.integrations.langgraph import AmberStore

WORDS = ["cat", "dog", "rain", "snow"]


def embed(texts: Sequence[str]) -> list[list[float]]:
    return [[float(text.count(word)) for word in WORDS] for text in texts]


INDEX: Any = {"dims": 4, "embed": embed, "fields": ["notes[*].text", "title"]}


@pytest.fixture
def store(db: Database) -> AmberStore:
    return AmberStore(db)


def keys(found: Sequence[Any]) -> list[str]:
    return [item.key for item in found]


# -- items and filters -----------------------------------------------------------------------


def test_an_item_comes_back_and_keeps_its_time_of_creation(store: AmberStore) -> None:
    store.put(("a", "b"), "k", {"n": 1, "list": [1, {"x": None}], "$odd": {"a.b": 2}})
    first = store.get(("a", "b"), "k")
    assert first is not None
    assert first.value == {"n": 1, "list": [1, {"x": None}], "$odd": {"a.b": 2}}
    assert first.namespace == ("a", "b")
    store.put(("a", "b"), "k", {"n": 2})
    second = store.get(("a", "b"), "k")
    assert second is not None
    assert second.value == {"n": 2}
    assert (second.created_at, second.updated_at >= first.updated_at) == (first.created_at, True)
    store.delete(("a", "b"), "k")
    assert store.get(("a", "b"), "k") is None


FILTERS: list[tuple[dict[str, Any], str]] = [
    ({}, "abcd"),
    ({"kind": "note"}, "ab"),
    ({"stars": 1}, "ad"),
    ({"stars": {"$eq": 1}}, "ad"),
    ({"stars": {"$gte": 1, "$lt": 5}}, "ad"),
    ({"stars": {"$gt": 1}}, "b"),
    ({"stars": {"$ne": 1}}, "bc"),
    ({"place.city": "Oslo"}, "b"),
    ({"place": {"city": "Oslo"}}, "b"),
    ({"a.b": "dotted"}, "c"),
    ({"tags": ["x", "y"]}, "a"),
    ({"tags": "x"}, ""),
    ({"kind": None}, "d"),
    ({"kind": {"$lte": "note"}}, "ab"),
    ({"kind": "note", "stars": 1}, "a"),
    ({"stars": True}, "ad"),
    ({"stars": float("inf")}, ""),
    ({"stars": 2**70}, ""),
    ({"": 1}, ""),
]


@pytest.mark.parametrize(("filter", "wanted"), FILTERS)
def test_filters(store: AmberStore, filter: dict[str, Any], wanted: str) -> None:
    store.put(("n",), "a", {"kind": "note", "stars": 1, "tags": ["x", "y"]})
    store.put(("n",), "b", {"kind": "note", "stars": 5, "place": {"city": "Oslo"}})
    store.put(("n", "below"), "c", {"kind": "other", "a.b": "dotted", "place": [1]})
    store.put(("n",), "d", {"stars": True})
    store.put(("nn",), "e", {"kind": "note", "stars": 1})
    assert "".join(sorted(keys(store.search(("n",), filter=filter)))) == wanted


def test_pages_are_the_newest_first(store: AmberStore) -> None:
    for number in range(30):
        store.put(("n",), f"k{number}", {"even": number % 2 == 0})
    assert keys(store.search(("n",), limit=3)) == ["k29", "k28", "k27"]
    assert keys(store.search(("n",), limit=3, offset=28)) == ["k1", "k0"]
    assert keys(store.search(("n",), filter={"even": True}, limit=2, offset=13)) == ["k2", "k0"]
    assert store.search(("n",), limit=0) == []
    assert len(store.search((), limit=100)) == 30


def test_names_are_any_text(store: AmberStore) -> None:
    names = ["#", "a" * 5_000, "a" * 4_999 + "b", "!", "*", "你" * 40, "x"]
    for label in names:
        for name in ["", *names]:
            store.put((label,), name, {"at": [label, name]})
    for label in names:
        assert len(store.search((label,), limit=100)) == len(names) + 1
        for name in ["", *names]:
            found = store.get((label,), name)
            assert found is not None
            assert found.value == {"at": [label, name]}
    assert len(store.list_namespaces()) == len(names)


def test_deep_namespaces(store: AmberStore) -> None:
    deep = tuple("abcdefghij")
    other = (*deep[:8], "z")
    store.put(deep, "k", {"n": 1})
    store.put(other, "k", {"n": 2})
    store.put(deep[:6], "g", {"n": 3})
    assert [item.value["n"] for item in store.search(deep[:9])] == [1]
    assert sorted(item.value["n"] for item in store.search(deep[:7])) == [1, 2]
    assert sorted(item.value["n"] for item in store.search(deep[:6])) == [1, 2, 3]
    found = store.get(other, "k")
    assert found is not None
    assert found.value == {"n": 2}


def test_namespaces_come_from_an_index(db: Database, store: AmberStore) -> None:
    for user in ("lin", "wu"):
        for kind in ("fact", "note"):
            for number in range(3):
                store.put(("users", user, kind), str(number), {})
    store.put(("docs",), "k", {})
    assert store.list_namespaces(max_depth=2) == [("docs",), ("users", "lin"), ("users", "wu")]
    assert store.list_namespaces(prefix=("users", "*", "note")) == [
        ("users", "lin", "note"),
        ("users", "wu", "note"),
    ]
    assert store.list_namespaces(prefix=("users", "lin"), suffix=("fact",)) == [
        ("users", "lin", "fact")
    ]
    assert store.list_namespaces(limit=1, offset=1) == [("users", "lin", "fact")]
    assert db["langgraph.item"].explain({}, distinct="path")["skip"]
    for number in range(3):
        store.delete(("users", "wu", "note"), str(number))
    assert ("users", "wu", "note") not in store.list_namespaces()


# -- vectors ---------------------------------------------------------------------------------


def test_the_best_text_of_an_item_counts(db: Database) -> None:
    store = AmberStore(db, index=INDEX)
    store.put(("n",), "pets", {"title": "dog", "notes": [{"text": "cat"}, {"text": "rain cat"}]})
    store.put(("n",), "sky", {"title": "rain", "notes": [{"text": "snow"}]})
    store.put(("n",), "none", {"title": "other"})
    store.put(("n",), "unindexed", {"title": "cat"}, index=False)
    store.put(("n",), "own", {"title": "cat", "body": "snow snow"}, index=["body"])
    found = store.search(("n",), query="cat")
    assert keys(found)[0] == "pets"
    assert found[0].score == pytest.approx(1)
    assert "unindexed" not in keys(found)
    assert set(keys(store.search(("n",), query="snow", limit=2))) == {"own", "sky"}
    assert keys(store.search(("n",), query="snow", filter={"title": "rain"})) == ["sky"]
    assert len(keys(store.search(("n",), query="nothing of it"))) == 5  # no vector: the newest
    store.put(("n",), "pets", {"title": "snow"})
    assert store.search(("n",), query="cat", limit=1)[0].score == 0


def test_pages_of_a_vector_search(db: Database) -> None:
    store = AmberStore(db, index=INDEX)
    ops = [
        PutOp(("n",), f"k{n}", {"title": "cat " * n + "dog " * (40 - n), "even": n % 2})
        for n in range(40)
    ]
    store.batch(ops)
    whole = keys(store.search(("n",), query="cat", limit=40))
    assert whole[:3] == ["k39", "k38", "k37"]
    parts = [keys(store.search(("n",), query="cat", limit=7, offset=n)) for n in range(0, 40, 7)]
    assert [key for part in parts for key in part] == whole
    odd = store.search(("n",), query="cat", filter={"even": True}, limit=15, offset=4)
    assert keys(odd) == [key for key in whole if int(key[1:]) % 2][4:19]


def test_a_store_without_an_index_keeps_that_of_another_one(db: Database) -> None:
    store = AmberStore(db, index=INDEX)
    store.put(("n",), "a", {"title": "cat"})
    AmberStore(db).put(("n",), "b", {"title": "cat"})
    assert keys(store.search(("n",), query="cat")) == ["a"]


def test_an_embedder_for_event_loops(db: Database) -> None:
    async def aembed(texts: Sequence[str]) -> list[list[float]]:
        await asyncio.sleep(0)
        return embed(texts)

    async def run() -> None:
        store = AmberStore(db, index={**INDEX, "embed": aembed})
        await asyncio.gather(*(store.aput(("n",), word, {"title": word}) for word in WORDS))
        found = await store.asearch(("n",), query="rain", limit=1)
        assert keys(found) == ["rain"]

    asyncio.run(run())


# -- times to live ---------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


def test_items_expire_and_reads_move_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()

    class Now:
        @staticmethod
        def now(zone: Any) -> Any:
            from datetime import datetime

            return datetime.fromtimestamp(clock.now_s, zone)

    monkeypatch.setattr("amberdb.integrations.langgraph.store.datetime", Now)
    with amberdb.open(":memory:", clock=clock, background=False) as db:
        store = AmberStore(db, ttl={"default_ttl": 10})
        store.put(("n",), "default", {})
        store.put(("n",), "short", {}, ttl=5)
        store.put(("n",), "for ever", {}, ttl=None)
        clock.now_s += 4 * 60
        assert store.get(("n",), "short") is not None  # and again five minutes
        clock.now_s += 4 * 60
        assert store.get(("n",), "short", refresh_ttl=False) is not None
        assert len(store.search(("n",), refresh_ttl=False)) == 3
        clock.now_s += 3 * 60
        assert keys(store.search(("n",))) == ["for ever"]
        assert store.list_namespaces() == [("n",)]
        assert store.sweep_ttl() == 2
        assert store.sweep_ttl() == 0


# -- batches and event loops -----------------------------------------------------------------


def test_a_batch_reads_before_it_writes(db: Database, store: AmberStore) -> None:
    store.put(("n",), "a", {"at": 1})
    before = db.stats().last_lsn
    results = store.batch(
        [
            PutOp(("n",), "a", {"at": 2}),
            GetOp(("n",), "a"),
            PutOp(("n",), "a", {"at": 3}),
            SearchOp(("n",)),
            ListNamespacesOp(),
            PutOp(("m",), "b", None),
            ListNamespacesOp((MatchCondition("suffix", ("n",)),)),
        ]
    )
    assert db.stats().last_lsn == before + 1
    assert [results[n] for n in (0, 2, 5)] == [None, None, None]
    assert results[1].value == {"at": 1}  # type: ignore[union-attr]
    assert results[3][0].value == {"at": 1}  # type: ignore[index, union-attr]
    assert results[4] == results[6] == [("n",)]
    assert store.get(("n",), "a").value == {"at": 3}  # type: ignore[union-attr]
    assert store.batch([]) == []


def test_a_call_that_would_stop_the_event_loop(db: Database) -> None:
    async def run() -> None:
        store = AmberStore(db)
        await store.aput(("n",), "a", {"at": 1})
        for call in (
            lambda: store.get(("n",), "a"),
            lambda: store.put(("n",), "a", {}),
            lambda: store.delete(("n",), "a"),
            lambda: store.search(("n",)),
            lambda: store.list_namespaces(),
            lambda: store.batch([]),
        ):
            with pytest.raises(asyncio.InvalidStateError, match="aget"):
                call()
        found = await asyncio.to_thread(store.get, ("n",), "a")
        assert found is not None
        assert await store.abatch([GetOp(("n",), "a")]) == [found]

    asyncio.run(run())


def test_bad_input_has_typed_errors(store: AmberStore) -> None:
    with pytest.raises(InvalidNamespaceError):
        store.put((), "k", {})
    with pytest.raises(InvalidNamespaceError):
        store.put(("a.b",), "k", {})
    with pytest.raises(InvalidNamespaceError):
        store.batch([GetOp(("a\0",), "k")])
    with pytest.raises(InvalidDocumentError):
        store.put(("a",), "k", {"x": float("nan")})
    with pytest.raises(InvalidDocumentError):
        store.put(("a",), "\ud800", {})
    with pytest.raises(ValueError, match="Unsupported operator"):
        store.search(("a",), filter={"x": {"$near": 1}})
    with pytest.raises(ValueError, match="Unknown operation"):
        store.batch(["get"])  # type: ignore[list-item]
    assert store.search(()) == []


def test_bad_indexes_have_typed_errors(tmp_path: Path) -> None:
    for index in ({"embed": embed}, {"dims": 4, "embed": embed, "distance_type": "l1"}):
        with pytest.raises(ValueError, match=r"dims|distance_type"):
            AmberStore(tmp_path / "a.amber", index=index)  # type: ignore[arg-type]
    with AmberStore(tmp_path / "a.amber", index={**INDEX, "embed": lambda texts: []}) as store:
        with pytest.raises(ValueError, match="shorter"):
            store.put(("n",), "k", {"title": "cat"})
        store.close()
