"""Search as people use it: what is found, when, in which order, and what is refused. That ranks and
scores are right in every mix of states is tests/model/test_search_machine.py's."""

import gc
import random
from datetime import UTC, datetime, timedelta
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import amberdb
from amberdb import (
    Collection,
    Database,
    Fusion,
    Hits,
    InvalidDocumentError,
    Ordered,
    QueryError,
    Recency,
    Text,
    TransactionError,
    Vector,
)
from amberdb._errors import CollectionError, ConflictError
from amberdb.engine.search import flush
from amberdb.engine.search.vector import cache as vector_cache
from amberdb.engine.search.vector import file as vector_file
from amberdb.engine.search.vector import index as vector_index
from amberdb.index.registry import IndexSpec
from amberdb.index.vector.coercion import Metric
from support.databases import SMALL, FakeClock, OpenDatabase
from support.decoded import note_decoded

DIM = 3
INDEXES: list[IndexSpec] = [
    Ordered("entity"),
    Text("content", "title"),
    Vector("embedding", dim=DIM),
]


def ids(hits: Hits) -> list[str]:
    return [hit.id for hit in hits]


@pytest.fixture
def memory(db: Database) -> Collection:
    return db.collection("memory", indexes=INDEXES)


# -- text ------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 7, 512])
@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("field", ["entity", "-entity"])
def test_a_filter_by_an_index_lets_all_its_rows_through(
    db: Database, monkeypatch: pytest.MonkeyPatch, block: int, fresh: bool, field: str
) -> None:
    monkeypatch.setattr("amberdb.engine.storage.view._KEYS_BLOCK", block)
    memory = db.collection("memory", indexes=[Ordered(field), Text("content")])
    long = "e" * 600  # past what a key of LMDB holds
    entities = ["a", "b", "b", "c", "d", long + "1", long + "2"]
    memory.put_many({"entity": name, "content": "tea"} for name in entities * 3)
    db.checkpoint()
    if fresh:
        memory.put_many({"entity": name, "content": "tea"} for name in entities)
    times = 4 if fresh else 3
    wheres: list[tuple[dict[str, Any], int]] = [
        ({"entity": "b"}, 2),
        ({"entity": {"$in": ["a", "d", "x"]}}, 2),
        ({"entity": {"$gte": "b", "$lt": "d"}}, 3),
        ({"entity": long + "1"}, 1),
        ({"entity": {"$gt": "d"}}, 2),
        ({"entity": {"$lte": long + "1"}}, 6),
    ]
    for where, count in wheres:
        hits = memory.search("tea", where=where, limit=100)
        assert len(hits) == count * times, where
        assert hits.how["where"]["rows"] == count * times


def test_explain_says_how_a_search_was_answered(memory: Collection) -> None:
    memory.put_many(
        {"entity": "ab"[number % 2], "content": "tea", "embedding": [1.0, number, 0.0]}
        for number in range(20)
    )
    how = memory.explain({"entity": "a"}, text="tea", vector=[1.0, 0.0, 0.0])
    assert how["where"] == {"filter": "{entity: ?}", "index": "ordered:entity", "rows": 10}
    assert how["indexes"]["vector:embedding"]["search"] == "exact"
    assert how["indexes"]["text:content,title"]["rows"] == 20
    with pytest.raises(QueryError, match="order_by"):
        memory.explain({}, text="tea", order_by="entity")


def test_explain_counts_the_documents_that_a_postfilter_checked(memory: Collection) -> None:
    memory.put_many(
        {"rest": number % 2, "content": "tea", "embedding": [1.0, number, 0.0]}
        for number in range(20)
    )
    how = memory.explain({"rest": 1}, text="tea", vector=[1.0, 0.0, 0.0])
    assert how["where"]["rows"] == "checked one by one"
    assert how["indexes"]["text:content,title"]["documents checked"] is True
    assert how["indexes"]["vector:embedding"]["documents checked"] == 20


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("?", "punctuation"),
        ('"', "punctuation"),
        ("-", "punctuation"),
        ("...", "punctuation"),
        ("\ud800", "punctuation"),
    ],
)
def test_a_text_without_words_finds_nothing_and_says_why(
    memory: Collection, text: str, why: str
) -> None:
    memory.put({"id": "a", "content": "tea", "embedding": [1, 0, 0]})
    hits = memory.search(text, snippets=True)
    assert hits == []
    assert why in hits.how["no_terms"]
    assert why in memory.explain(text=text)["no_terms"]
    assert ids(memory.search(text, vector=[1, 0, 0])) == ["a"]
    assert "no_terms" not in memory.search("tea").how


def test_many_rows_of_stop_words_only_are_ranked(memory: Collection) -> None:
    memory.put_many(
        {"id": f"d{n:03}", "content": "to be" if n % 2 else "it is"} for n in range(300)
    )
    memory.put({"id": "best", "content": "To be, or not to be"})
    hits = memory.search("to be or not to be", limit=200)
    assert hits[0].id == "best"
    assert len(hits) == 151
    assert "no_terms" not in hits.how
    memory.put({"id": "tea", "content": "to be tea"})
    assert ids(memory.search("to be tea")) == ["tea"]


@pytest.mark.parametrize(
    "text", ['5" disk', 'say "hi', "gcc -Wall", "temperature -5", "-5", "+1 tea -", "a * b", "tea*"]
)
def test_any_text_finds_what_holds_it(memory: Collection, text: str) -> None:
    memory.put({"id": "a", "content": f"before {text} behind"})
    memory.put({"id": "b", "content": "nothing"})
    assert ids(memory.search(text)) == ["a"]


def test_words_of_both_languages_find_their_documents(memory: Collection) -> None:
    memory.put({"id": "zh", "content": "下午和小王开会, 重跑gen-itgc后"})
    memory.put({"id": "en", "content": "The umbrella is in the car", "title": "Meetings"})
    for query in ("下午的会议", "重跑", "itgc", "gen-itgc"):
        assert ids(memory.search(query)) == ["zh"], query
    assert ids(memory.search("meeting")) == ["en"]
    assert ids(memory.search(query="+umbrella -meetings")) == []
    assert ids(memory.search(query='"in the car"')) == ["en"]
    assert ids(memory.search(query='"the car in"')) == []
    assert ids(memory.search(query="umbr*")) == ["en"]
    assert ids(memory.search("+umbrella -meetings")) == ["en"]
    assert ids(memory.search("umbr*")) == []


def test_what_is_committed_is_found_at_once_and_what_is_deleted_no_more(
    db: Database, memory: Collection
) -> None:
    memory.put({"id": "a", "content": "umbrella"})
    assert ids(memory.search("umbrella")) == ["a"]
    db.checkpoint()
    memory.update("a", {"content": "bicycle"})
    assert ids(memory.search("umbrella")) == []
    assert ids(memory.search("bicycle")) == ["a"]
    memory.delete("a")
    assert ids(memory.search("bicycle")) == []


def test_a_change_of_something_else_keeps_the_row(db: Database, memory: Collection) -> None:
    memory.put({"id": "a", "content": "umbrella", "embedding": [1, 0, 0]})
    db.checkpoint()
    before = db.stats()["memtable_bytes"]
    memory.update("a", {"entity": "lin"})
    written = db.stats()["memtable_bytes"] - before
    memory.update("a", {"content": "umbrella!"})
    assert db.stats()["memtable_bytes"] - before - written > written
    assert ids(memory.search("umbrella")) == ["a"]


def test_a_filter_lets_through_as_many_as_match(db: Database, memory: Collection) -> None:
    memory.put_many(
        [
            {"id": f"d{n:03}", "entity": f"e{n % 7}", "rest": n % 50, "content": f"word {n}"}
            for n in range(300)
        ]
    )
    for where in ({"entity": "e3"}, {"rest": 7}, {"entity": "e3", "rest": {"$lt": 25}}):
        hits = memory.search("word", where=where, limit=6)
        assert len(hits) == min(6, memory.count(where)) > 0
        assert {hit.id for hit in hits} <= {one["id"] for one in memory.find(where)}
    assert memory.search("word", where={"entity": "e3"}).how["where"]["index"] == "ordered:entity"


def test_expired_documents_are_not_found_and_do_not_count(open_db: OpenDatabase) -> None:
    clock = FakeClock()
    db = open_db(clock=clock)
    memory = db.collection("m", indexes=[Text("content")], expires_at="until")
    now = datetime.fromtimestamp(clock(), UTC)
    memory.put({"id": "a", "content": "umbrella"})
    alone = memory.search("umbrella")
    memory.put({"id": "b", "content": "umbrella", "until": now + timedelta(hours=1)})
    assert set(ids(memory.search("umbrella"))) == {"a", "b"}
    clock.advance(7200)
    assert list(memory.search("umbrella")) == list(alone)


def test_snippets_projections_and_ranks(memory: Collection) -> None:
    memory.put({"id": "a", "content": "the umbrella is in the car", "title": "t"})
    (hit,) = memory.search("umbrella", snippets=True, fields=["title"])
    assert hit.snippet is not None
    assert "**umbrella**" in hit.snippet
    assert hit.document == {"title": "t"}
    assert hit.ranks == {"text:content,title": 1}


@pytest.mark.parametrize("read_only", [False, True])
def test_a_closed_database_that_was_searched_has_no_file_open(
    tmp_path: Path, read_only: bool
) -> None:
    """The caches of a search hold its view, and a process can open an LMDB environment once."""
    path = tmp_path / "t.amber"
    with amberdb.open(path, **SMALL) as db:
        db.collection("memory", indexes=INDEXES).put({"content": "tea", "embedding": [1, 0, 0]})
    gc.collect()
    gc.disable()  # which would close it sooner or later
    try:
        with amberdb.open(path, read_only=read_only, **SMALL) as db:
            assert len(db.collection("memory").search("tea", vector=[1, 0, 0])) == 1
        assert amberdb.check(path, **SMALL).problems == []
    finally:
        gc.enable()


# -- segments --------------------------------------------------------------------------------


def test_many_checkpoints_leave_few_segments(db: Database, memory: Collection) -> None:
    for n in range(30):
        memory.put({"id": f"d{n}", "content": f"word number{n}"})
        db.checkpoint()
    (stats,) = [s for name, s in search_stats(db).items() if name.startswith("text")]
    memory.search("word")
    assert search_stats(db)["text:content,title"]["segments"] < 2 * flush.MERGE_WIDTH
    assert "segments" not in stats, "nothing is read before the first search"
    assert ids(memory.search("number17")) == ["d17"]
    assert len(memory.search("word", limit=100)) == 30


def test_segments_of_the_dead_are_written_again(
    db: Database, memory: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flush, "DEAD_MIN", 0)
    memory.put_many([{"id": f"d{n}", "content": f"word{n}"} for n in range(100)])
    db.checkpoint()
    used = db.stats()["store"]["entries"]
    for n in range(80):
        memory.delete(f"d{n}")
    db.checkpoint()
    assert db.stats()["store"]["entries"] < used - 160, "the terms of the dead are gone too"
    assert len(memory.search(query="word9*", limit=100)) == 10


def search_stats(db: Database) -> dict[str, Any]:
    stats: dict[str, Any] = db.stats()["collections"]["memory"]["search"]
    return stats


# -- vectors ---------------------------------------------------------------------------------


def test_vectors_come_back_whole_and_can_be_put_again(db: Database, memory: Collection) -> None:
    memory.put({"id": "a", "embedding": [0.1, 0.2, 0.3], "content": "x"})
    for _ in range(2):
        document = memory.get("a")
        assert document is not None
        vector = document["embedding"]
        assert vector.dtype == np.float32
        assert not vector.flags.writeable
        assert np.array_equal(vector, np.array([0.1, 0.2, 0.3], np.float32))
        memory.put(document)
        db.checkpoint()
    db.collection("memory", indexes=[])
    document = memory.get("a")
    assert document is not None
    memory.put(document)
    again = memory.get("a")
    assert again is not None
    assert np.array_equal(again["embedding"], np.array([0.1, 0.2, 0.3], np.float32))


@pytest.mark.parametrize(
    "vector", [[1, 2], [float("nan"), 0, 0], [0, 0, 0], "abc", [[1, 2, 3]], [1, 2, 1e300]]
)
def test_what_is_no_vector_is_refused_before_anything_is_written(
    memory: Collection, vector: Any
) -> None:
    with pytest.raises(InvalidDocumentError, match="embedding"):
        memory.put({"id": "a", "embedding": vector})
    assert len(memory) == 0
    with pytest.raises(QueryError, match="embedding"):
        memory.search(vector=vector)


def test_documents_without_a_vector_are_found_by_their_words(memory: Collection) -> None:
    memory.put({"id": "a", "content": "umbrella"})
    memory.put({"id": "b", "content": "umbrella", "embedding": None})
    memory.put({"id": "c", "embedding": [1, 0, 0]})
    assert ids(memory.search(vector=[1, 1, 0])) == ["c"]
    assert set(ids(memory.search("umbrella", vector=[1, 1, 0]))) == {"a", "b", "c"}


def test_a_filter_or_an_order_may_not_compare_vectors(memory: Collection) -> None:
    memory.put({"id": "a", "embedding": [1, 0, 0]})
    memory.put({"id": "b"})
    assert [one["id"] for one in memory.find({"embedding": {"$exists": True}})] == ["a"]
    assert [one["id"] for one in memory.find({"embedding": None})] == ["b"]
    for where in ({"embedding": 3}, {"$or": [{"embedding": {"$gt": 1}}]}):
        with pytest.raises(QueryError, match="holds vectors"):
            memory.find(where)
        with pytest.raises(QueryError, match="holds vectors"):
            memory.search(vector=[1, 0, 0], where=where)
    with pytest.raises(QueryError, match="no order"):
        memory.find(order_by="embedding")


def test_several_vector_fields(db: Database) -> None:
    both = db.collection("two", indexes=[Vector("a", dim=2), Vector("b", dim=2, metric="l2")])
    both.put({"id": "x", "a": [1, 0], "b": [0, 1]})
    both.put({"id": "y", "a": [0, 1], "b": [1, 0]})
    assert ids(both.search(vector={"a": [1, 0]})) == ["x", "y"]
    assert ids(both.search(vector={"b": [1, 0]})) == ["y", "x"]
    assert both.search(vector={"b": [1, 0]})[0].score == 0.0
    with pytest.raises(QueryError, match="several fields"):
        both.search(vector=[1, 0])


@pytest.fixture
def small_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows do what many do."""
    for name, value in (("GRAPH_ROWS", 50), ("FRESH_ROWS", 10), ("DEAD_ROWS", 10)):
        monkeypatch.setattr(vector_cache, name, value)
    monkeypatch.setattr(vector_file, "UNSAVED_ROWS", 1)
    monkeypatch.setattr(vector_cache, "_PAUSE_S", 0.0)
    monkeypatch.setattr(vector_index, "EXACT_ROWS", 40)
    monkeypatch.setattr(vector_index, "FLAT_ROWS", 40)
    monkeypatch.setattr(vector_index, "VISIT_ROWS", 0)


def many(memory: Collection, count: int) -> None:
    numbers = np.random.default_rng(1).normal(size=(count, DIM))
    memory.put_many(
        [
            {"id": f"d{n}", "entity": f"e{n % 5}", "rest": n % 3, "embedding": numbers[n].tolist()}
            for n in range(count)
        ]
    )


def how(hits: Hits) -> str:
    steps: dict[str, Any] = hits.how["indexes"]["vector:embedding"]
    return str(steps["search"])


@pytest.mark.usefixtures("small_graphs")
def test_a_graph_finds_what_exact_search_finds_whatever_changes(
    db: Database, memory: Collection
) -> None:
    pytest.importorskip("hnswlib")
    many(memory, 200)
    query = [0.3, 0.2, 0.9]
    exact = memory.search(vector=query, limit=200)
    db.build_indexes()
    found = memory.search(vector=query, limit=5)
    assert how(found) == "graph"
    assert list(map(repr, found)) == list(map(repr, exact[:5]))
    for where in ({"rest": 1}, {"entity": "e2"}, {"entity": "e2", "rest": 1}):
        wanted = [hit.id for hit in exact if memory.count({"id": hit.id, **where})]
        assert ids(memory.search(vector=query, where=where, limit=5)) == wanted[:5], where
    memory.delete(found[0].id)
    memory.put({"id": "nearest", "embedding": query})
    assert ids(memory.search(vector=query, limit=3)) == ["nearest", *ids(found)[1:3]]


@pytest.mark.usefixtures("small_graphs")
@pytest.mark.parametrize("fate", ["kept", "gone", "damaged"])
def test_the_state_of_the_cache_changes_no_answer(
    open_db: OpenDatabase, tmp_path: Path, fate: str
) -> None:
    db = open_db()
    memory = db.collection("memory", indexes=INDEXES)
    many(memory, 120)
    memory.search(vector=[1, 2, 3])
    db.build_indexes()
    wanted = [repr(hit) for hit in memory.search(vector=[1, 2, 3], limit=7)]
    db.close()
    (file,) = (tmp_path / "t.amber" / "cache").iterdir()
    if fate == "gone":
        file.unlink()
    elif fate == "damaged":
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    db = open_db()
    memory = db.collection("memory")
    for _ in range(2):
        assert [repr(hit) for hit in memory.search(vector=[1, 2, 3], limit=7)] == wanted
        db.build_indexes()
    db.collection("memory", indexes=[])
    assert not list((tmp_path / "t.amber" / "cache").iterdir())


# -- both ------------------------------------------------------------------------------------


def test_a_document_that_both_find_comes_first(memory: Collection) -> None:
    memory.put({"id": "word", "content": "umbrella"})
    memory.put({"id": "both", "content": "umbrella and car", "embedding": [1, 0.2, 0]})
    memory.put({"id": "near", "content": "bicycle", "embedding": [1, 0, 0]})
    hits = memory.search("umbrella", vector=[1, 0, 0])
    assert hits[0].id == "both"
    assert hits[0].ranks == {"text:content,title": 2, "vector:embedding": 2}
    only_near = Fusion(weights={"embedding": 1.0, "content": 0.001})
    assert memory.search("umbrella", vector=[1, 0, 0], fusion=only_near)[0].id == "near"


def test_a_convex_score_is_the_weighted_mean_of_both_scales(memory: Collection) -> None:
    memory.put({"id": "both", "content": "umbrella", "embedding": [0.6, 0.8, 0]})
    memory.put({"id": "word", "content": "umbrella"})
    memory.put({"id": "near", "content": "bicycle", "embedding": [1, 0, 0]})
    (bm25, *_) = memory.search("umbrella")
    idf = log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    text, vector = bm25.score / (1.9 * idf), (1 + 0.6) / 2
    for weight in (1.0, 3.0):
        fusion = Fusion(weights={"embedding": weight})
        hits = memory.search("umbrella", vector=[1, 0, 0], fusion=fusion)
        scores = {hit.id: hit.score for hit in hits}
        whole = 1 + weight
        assert scores["both"] == pytest.approx((text + weight * vector) / whole)
        assert scores["word"] == pytest.approx((text + weight * 0.5) / whole), "as if unrelated"
        assert scores["near"] == pytest.approx(weight / whole)
    assert hits.how["fusion"] == "convex"


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_a_convex_score_does_not_depend_on_the_lists(db: Database, metric: Metric) -> None:
    """Each document has its score in every index, also where a list ended before it."""
    docs = db.collection("docs", indexes=[Text("text"), Vector("v", dim=2, metric=metric)])
    rng = random.Random(7)
    docs.put_many(
        {
            "id": str(number),
            "text": " ".join(rng.choices(["tea", "rain", "car", "cat"], k=rng.randrange(1, 9))),
            "v": None if number % 9 == 0 else [rng.gauss(0, 1), rng.gauss(0, 1)],
        }
        for number in range(80)
    )
    query: dict[str, Any] = {"text": "tea rain", "vector": [0.3, -0.4]}
    whole = docs.search(**query, limit=80)
    assert all(0.0 <= hit.score <= 1.0 for hit in whole)
    scores = {hit.id: hit.score for hit in whole}
    for depth in (1, 5, 20):
        hits = docs.search(**query, limit=depth, fusion=Fusion(depth=depth))
        assert {hit.id: hit.score for hit in hits} == {hit.id: scores[hit.id] for hit in hits}


def test_a_document_in_neither_list_changes_no_order(memory: Collection) -> None:
    memory.put_many(
        {"content": "tea " * (number % 5), "embedding": [1.0, number, 0.0]} for number in range(30)
    )
    query: dict[str, Any] = {"text": "tea", "vector": [1.0, 0.0, 0.0]}
    before = memory.search(**query)
    memory.put({"embedding": [-1.0, 0.0, 0.0]})  # no text: the statistics stay
    assert list(map(repr, memory.search(**query))) == list(map(repr, before))


def test_no_vector_at_all_is_refused(memory: Collection) -> None:
    with pytest.raises(QueryError, match="name a field"):
        memory.search(vector={})


def test_a_fusion_that_is_none_is_refused() -> None:
    with pytest.raises(QueryError, match="reciprocal_rank"):
        Fusion(method="ranks")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(QueryError, match="weight"):
        Fusion(weights={"content": -1.0})


@pytest.fixture
def read_rows(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the documents that searches read."""
    read: list[str] = []

    note_decoded(monkeypatch, lambda document: read.append(document["id"]))
    return read


def test_a_search_reads_only_the_documents_that_it_returns(
    memory: Collection, read_rows: list[str]
) -> None:
    memory.put_many(
        {
            "content": "tea " * (1 + number % 7),
            "embedding": [1.0, number, number % 5],
            "at": datetime(2026, 1, 1 + number % 28, tzinfo=UTC),
        }
        for number in range(100)
    )
    query: dict[str, Any] = {"text": "tea", "vector": [1.0, 40.0, 0.0]}
    whole = memory.search(**query, limit=20)  # the depth of fusion
    for limit in (0, 1, 5, 19):
        read_rows.clear()
        hits = memory.search(**query, limit=limit)
        assert len(read_rows) == len(set(read_rows)) == limit
        assert list(map(repr, hits)) == list(map(repr, whole[:limit]))
    read_rows.clear()
    recency = Recency(field="at", half_life=timedelta(days=7))
    assert len(memory.search(**query, limit=5, recency=recency)) == 5
    assert len(read_rows) > 5, "an older document may overtake only if its time is known"


def test_a_search_by_both_gives_as_many_as_are_asked_for(memory: Collection) -> None:
    """More than both lists have within the depth of the fusion, which is 20."""
    memory.put_many({"id": f"w{n:02}", "content": "umbrella " * (n + 1)} for n in range(60))
    memory.put_many({"id": f"v{n:02}", "embedding": [1, n / 60, 0]} for n in range(60))
    for limit in (1, 10, 39, 40, 41, 50, 120, 200):
        hits = memory.search("umbrella", vector=[1, 0, 0], limit=limit)
        assert len(set(ids(hits))) == len(hits) == min(limit, 120)


def test_one_list_alone_is_as_deep_as_it_is_asked_for_when_it_fades(memory: Collection) -> None:
    memory.put_many({"id": f"w{n:02}", "content": "umbrella"} for n in range(60))
    recency = Recency(field="at", half_life=timedelta(days=10))
    assert len(memory.search("umbrella", recency=recency, limit=50)) == 50


def test_old_documents_fade(db: Database, memory: Collection) -> None:
    now = datetime.now(UTC)
    memory.put({"id": "old", "content": "umbrella", "at": now - timedelta(days=60)})
    memory.put({"id": "new", "content": "a long story with an umbrella in it", "at": now})
    assert ids(memory.search("umbrella")) == ["old", "new"]
    recency = Recency(field="at", half_life=timedelta(days=10))
    assert ids(memory.search("umbrella", recency=recency)) == ["new", "old"]


def test_diversity_passes_over_what_is_alike(memory: Collection) -> None:
    memory.put({"id": "best", "embedding": [1, 0, 0]})
    memory.put({"id": "twin", "embedding": [1, 0.01, 0]})
    memory.put({"id": "other", "embedding": [0.6, 0.8, 0]})
    assert ids(memory.search(vector=[1, 0, 0], limit=2)) == ["best", "twin"]
    assert ids(memory.search(vector=[1, 0, 0], limit=2, diversity=0.7)) == ["best", "other"]


# -- one Lsn ---------------------------------------------------------------------------------


def test_a_snapshot_searches_its_own_lsn(db: Database, memory: Collection) -> None:
    memory.put({"id": "a", "content": "umbrella", "embedding": [1, 0, 0]})
    with db.snapshot() as at:
        memory.delete("a")
        memory.put({"id": "b", "content": "umbrella", "embedding": [1, 0, 0]})
        for _ in range(2):
            assert ids(at["memory"].search("umbrella")) == ["a"]
            assert ids(at["memory"].search(vector=[1, 0, 0])) == ["a"]
            assert ids(memory.search("umbrella")) == ["b"]
            assert ids(memory.search(vector=[1, 0, 0])) == ["b"]
            db.checkpoint()


def test_what_a_transaction_takes_back_leaves_no_row_behind(
    db: Database, memory: Collection
) -> None:
    memory.put({"id": "a", "content": "umbrella", "embedding": [1, 0, 0]})

    def abandoned() -> None:
        with db.transaction() as tx:
            tx["memory"].put({"id": "b", "content": "car", "embedding": [0, 1, 0]})
            assert ids(tx["memory"].search("car")) == ["b"]
            assert ids(tx["memory"].search(vector=[0, 1, 0], limit=1)) == ["b"]
            raise ConflictError("away with it")

    with pytest.raises(ConflictError):
        abandoned()
    memory.put({"id": "c", "content": "bicycle", "embedding": [0, 0, 1]})  # takes its rowid
    assert ids(memory.search("car")) == []
    assert ids(memory.search(vector=[0, 0, 1])) == ["c", "a"]
    assert ids(memory.search("bicycle")) == ["c"]


# -- declarations ----------------------------------------------------------------------------


def test_an_index_over_what_is_there_is_built_beside_writers(db: Database) -> None:
    notes = db.collection("notes", indexes=[])
    notes.put_many([{"id": f"d{n}", "content": f"word{n}", "v": [n, 1, 1]} for n in range(50)])
    notes = db.collection("notes", indexes=[Text("content"), Vector("v", dim=DIM, metric="l2")])
    notes.update("d7", {"content": "changed7"})
    notes.update("d8", {"done": True})
    notes.delete("d9")
    db.checkpoint()  # brings d7's new row before the build comes to it
    notes.put({"id": "new", "content": "word8", "v": [8, 1, 1]})
    db.build_indexes()
    assert ids(notes.search("word7")) == []
    assert ids(notes.search("changed7")) == ["d7"]
    assert ids(notes.search("word8")) == ["new", "d8"]
    # Equally near ones: the newer row first, and d7's row is newer than d11's.
    assert ids(notes.search(vector=[9, 1, 1], limit=4)) == ["new", "d10", "d8", "d7"]


def test_a_search_waits_for_an_index_in_the_making_and_builds_it_itself(db: Database) -> None:
    notes = db.collection("notes", indexes=[])
    notes.put_many([{"id": f"d{n}", "content": f"word{n}", "v": [n, 1, 1]} for n in range(50)])
    notes = db.collection("notes", indexes=[Text("content"), Vector("v", dim=DIM, metric="l2")])
    with db.snapshot() as before, db.transaction() as tx:
        for reading in (before["notes"], tx["notes"]):
            with pytest.raises(QueryError, match="build_indexes"):
                reading.search("word7")
        with pytest.raises(TransactionError, match="inside"):
            notes.search("word7")
    notes.put({"id": "new", "content": "word7"})
    assert ids(notes.search("word7")) == ["new", "d7"]
    indexes = db.stats()["collections"]["notes"]["indexes"]
    assert indexes == {"text:content": "ready", "vector:v": "building"}
    assert ids(notes.search(vector=[7, 1, 1], limit=1)) == ["d7"]
    with db.snapshot() as after:
        assert ids(after["notes"].search("word7", vector=[7, 1, 1], limit=1)) == ["d7"]


@pytest.mark.parametrize(
    "question",
    [
        {},
        {"text": 3},
        {"text": "x", "limit": -1},
        {"text": "x", "diversity": 2},
        {"query": ""},
        {"query": 3},
        {"query": "-x"},
        {"text": "x", "query": "x"},
        {"text": "x", "where": {"a": {"$no": 1}}},
        {"vector": {"other": [1, 2, 3]}},
    ],
    ids=str,
)
def test_nonsense_is_refused(memory: Collection, question: dict[str, Any]) -> None:
    memory.put({"content": "x"})
    with pytest.raises(QueryError):
        memory.search(**question)


def test_a_collection_without_search_indexes_says_what_to_declare(db: Database) -> None:
    plain = db.collection("plain")
    with pytest.raises(QueryError, match="Text index"):
        plain.search("x")
    with pytest.raises(QueryError, match="Vector index"):
        plain.search(vector=[1])
    with pytest.raises(CollectionError, match="path"):
        db.collection("plain", indexes=[Vector("a.b", dim=2)])
