"""Search by vector against naive exact search, whatever the caches hold."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from amberdb.engine.search.filtered_rows import RowSet
from amberdb.engine.search.vector import index as vector_index
from amberdb.engine.search.vector.cache import VectorCache
from amberdb.engine.search.vector.index import VectorIndex
from amberdb.index.vector import matrix
from amberdb.index.vector.coercion import METRICS, Metric
from amberdb.index.vector.vector import Vector
from support.vectors import DIM, Documents, filtered, pairs


@pytest.mark.parametrize("metric", METRICS)
def test_it_finds_what_naive_search_finds(metric: Metric) -> None:
    documents = Documents(3000)
    documents.delete(5, 17, 2999)
    searcher = VectorIndex(VectorCache(Vector("v", dim=DIM, metric=metric)))
    query = documents.vectors[17] + np.float32(0.01)
    for limit in (1, 10, 5000):
        found = searcher.search(query, limit, documents.alive, documents.fetch)
        assert pairs(*found) == documents.naive(query, limit, metric)
        assert found[2] == {"search": "exact", "rows": 2997}
    assert sorted(documents.fetched) == np.flatnonzero(documents.alive).tolist()
    assert searcher.stats()["rows"] == 2997


def test_fresh_rows_are_found_and_dead_ones_are_not() -> None:
    documents = Documents(10)
    searcher = VectorIndex(VectorCache(Vector("v", dim=DIM)))
    for turn in range(20):
        documents.put(turn)
        documents.delete(turn + 1)
        query = documents.vectors[turn + 1]
        found = searcher.search(query, 5, documents.alive, documents.fetch)
        assert pairs(*found) == documents.naive(query, 5, "cosine")
    assert len(documents.fetched) == len(set(documents.fetched))


def test_an_older_view_still_sees_its_rows() -> None:
    documents = Documents(50)
    searcher = VectorIndex(VectorCache(Vector("v", dim=DIM, metric="l2")))
    old = documents.alive
    documents.delete(*range(1, 26))
    documents.put(30)
    query = documents.vectors[3]
    searcher.search(query, 10, documents.alive, documents.fetch)
    found = searcher.search(query, 10, old, documents.fetch)
    assert pairs(*found) == documents.naive(query, 10, "l2", old)
    assert found[0][0] == 3


def test_a_prefilter_restricts_the_rows() -> None:
    documents = Documents(500)
    documents.delete(3, 4)
    searcher = VectorIndex(VectorCache(Vector("v", dim=DIM, metric="ip")))
    query = documents.vectors[3]
    for rowids in ([], [3], [3, 7, 9, 10**6], list(range(300, 400))):
        prefilter = np.array(rowids, np.int64)
        found = searcher.search(query, 10, documents.alive, documents.fetch, filtered(prefilter))
        assert pairs(*found) == documents.naive(query, 10, "ip", prefilter=prefilter)


@pytest.mark.parametrize("several", [1, 3])
def test_a_search_of_few_rows_looks_at_no_others(
    several: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = Documents(500, several=several)
    searcher = VectorIndex(VectorCache(Vector("v", dim=DIM, multi=several > 1)))
    query = documents.vectors[3]
    searcher.search(query, 10, documents.alive, documents.fetch)
    documents.fetched.clear()
    looks: list[int] = []
    visible = VectorIndex._visible  # pyright: ignore[reportPrivateUsage]

    def noted(self: VectorIndex, *arguments: Any) -> Any:
        looks.append(1)
        return visible(self, *arguments)

    monkeypatch.setattr(VectorIndex, "_visible", noted)
    for turn in range(5):
        documents.put(40)
        documents.delete(20 + turn, 502 + turn)
        few = np.array([3, 21, 22, 502, 503, 520, 10**6])
        found = searcher.search(query, 5, documents.alive, documents.fetch, filtered(few))
        assert pairs(*found) == documents.naive(query, 5, "cosine", prefilter=few)
    assert (looks, set(documents.fetched) <= {502, 503, 520}) == ([], True)
    documents.put(300)
    many = np.arange(400, len(documents.alive))
    found = searcher.search(query, 5, documents.alive, documents.fetch, filtered(many))
    assert pairs(*found) == documents.naive(query, 5, "cosine", prefilter=many)
    assert looks == [1]


def test_few_rows_of_many_vectors_are_searched_as_many() -> None:
    """By codes, where there are some: the number of vectors counts, not that of rows."""
    documents = Documents(900, dim=128, centres=12, several=8)
    searcher = VectorIndex(VectorCache(Vector("v", dim=128, multi=True)))
    query = documents.drawn(1)[0]
    searcher.search(query, 10, documents.alive, documents.fetch)
    rows = np.arange(1, 801)
    found = searcher.search(query, 10, documents.alive, documents.fetch, filtered(rows))
    assert pairs(*found) == documents.naive(query, 10, "cosine", prefilter=rows)
    assert found[2]["search"] == "codes"


def test_nothing_there() -> None:
    searcher = VectorIndex(VectorCache(Vector("v", dim=DIM)))
    documents = Documents(0)
    query = np.ones(DIM, np.float32)
    assert pairs(*searcher.search(query, 10, documents.alive, documents.fetch)) == []


def test_equal_vectors_newest_first() -> None:
    documents = Documents(40)
    documents.vectors[1:] = documents.vectors[1]
    searcher = VectorIndex(VectorCache(Vector("v", dim=DIM)))
    found, _, _ = searcher.search(documents.vectors[1], 3, documents.alive, documents.fetch)
    assert found.tolist() == [40, 39, 38]


def test_many_threads_at_different_views() -> None:
    documents = Documents(300)
    searcher = VectorIndex(VectorCache(Vector("v", dim=DIM)))
    views: list[NDArray[np.bool_]] = []
    for turn in range(8):
        documents.put(40)
        documents.delete(turn * 7 + 1)
        views.append(documents.alive)
    queries = documents.rng.standard_normal((20, DIM)).astype(np.float32)
    started = threading.Barrier(8)

    def search(at: int) -> None:
        started.wait()
        for query in queries:
            found = searcher.search(query, 5, views[at], documents.fetch)
            assert pairs(*found) == documents.naive(query, 5, "cosine", views[at])

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(search, at) for at in range(8)]:
            done.result()
    assert len(documents.fetched) == len(set(documents.fetched))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("mean_of", [1, 3])
def test_rows_of_several_vectors_are_found_by_the_best_of_them(
    metric: Metric, mean_of: int
) -> None:
    documents = Documents(500, several=5, mean_of=mean_of)
    spec = Vector("v", dim=DIM, metric=metric, multi=True, mean_of=mean_of)
    searcher = VectorIndex(VectorCache(spec))
    old = documents.alive
    query = documents.vectors[17] + np.float32(0.01)
    for turn in range(4):
        for alive in (documents.alive, old):
            for limit in (1, 10, 5000):
                found = searcher.search(query, limit, alive, documents.fetch)
                assert pairs(*found) == documents.naive(query, limit, metric, alive)
            for rowids in ([], [3], [3, 7, 9, 10**6], list(range(200, 400))):
                prefilter = np.array(rowids, np.int64)
                found = searcher.search(query, 10, alive, documents.fetch, filtered(prefilter))
                assert pairs(*found) == documents.naive(query, 10, metric, alive, prefilter)
        documents.delete(5 + turn, 17, 400 + turn)
        documents.put(20 * turn)
    _, _, how = searcher.search(query, 10, documents.alive, documents.fetch)
    assert how["vectors"] > len(documents.alive)
    assert len(documents.fetched) == len(set(documents.fetched))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("several", "mean_of"), [(1, 1), (4, 1), (4, 3)])
def test_codes_exclude_no_row_that_is_near(
    metric: Metric, several: int, mean_of: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every state of matrix, view and filter; of several vectors per document too."""
    for module, name, value in (
        (vector_index, "EXACT_ROWS", 100),
        (vector_index, "FIRST_ROWS", 4),
        (vector_index, "FIRST_PER_HIT", 1),
        (vector_index, "CLOSER_ROWS", 8),
        (matrix, "CODED_ROWS", 200),
        (matrix, "CODED_STEP", 50),
    ):
        monkeypatch.setattr(module, name, value)
    documents = Documents(500, dim=128, centres=12, several=several, mean_of=mean_of)
    spec = Vector("v", dim=128, metric=metric, multi=several > 1, mean_of=mean_of)
    searcher = VectorIndex(VectorCache(spec))
    old = documents.alive
    filters = (np.arange(100, 480, 2), np.arange(20, 400), np.arange(450, 700))
    kept = [RowSet(rowids) for rowids in filters]
    ways: Counter[str] = Counter()
    for turn in range(4):
        query = documents.drawn(1)[0]
        for alive in (documents.alive, old):
            for limit in (1, 10, 400):
                found = searcher.search(query, limit, alive, documents.fetch)
                assert pairs(*found) == documents.naive(query, limit, metric, alive)
                ways[found[2]["search"]] += limit < 100
            for rowids, stored in zip(filters, kept, strict=True):
                changed = np.union1d(rowids[turn::3], np.arange(turn, len(alive), 40))
                for prefilter, of in ((rowids, None), (rowids, stored), (changed, stored)):
                    among = filtered(prefilter, of)
                    found = searcher.search(query, 10, alive, documents.fetch, among)
                    assert pairs(*found) == documents.naive(query, 10, metric, alive, prefilter)
                    ways[found[2]["search"]] += 1
        documents.delete(5 + turn, *range(17 + 40 * turn, 40 + 40 * turn))
        documents.put(60 * turn)
    assert ways["codes"] > 2 * ways["exact"]


def test_rows_that_came_after_those_gathered_are_gathered_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("EXACT_ROWS", 100), ("UNKNOWN_ROWS", 400), ("GATHERED", 1)):
        monkeypatch.setattr(vector_index, name, value)
    monkeypatch.setattr(matrix, "CODED_ROWS", 200)
    documents = Documents(600, dim=128, centres=12)
    searcher = VectorIndex(VectorCache(Vector("v", dim=128)))
    stored = RowSet(np.arange(100, 900))
    query = documents.drawn(1)[0]
    how: dict[str, Any] = {}
    for _ in range(2):
        among = filtered(stored.rowids, stored)
        rowids, values, how = searcher.search(query, 10, documents.alive, documents.fetch, among)
        wanted = documents.naive(query, 10, "cosine", prefilter=stored.rowids)
        assert pairs(rowids, values) == wanted
        documents.put(300)
        searcher.search(query, 10, documents.alive, documents.fetch)
    assert how["search"] == "codes"
    assert how["scored"] < 300


def test_codes_of_vectors_that_are_all_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then all are scored, and the newest come first."""
    monkeypatch.setattr(vector_index, "EXACT_ROWS", 100)
    documents = Documents(3000, dim=128)
    documents.vectors[1:] = documents.vectors[1]
    searcher = VectorIndex(VectorCache(Vector("v", dim=128)))
    found, _, how = searcher.search(documents.vectors[1], 3, documents.alive, documents.fetch)
    assert found.tolist() == [3000, 2999, 2998]
    assert how["search"] == "exact"
