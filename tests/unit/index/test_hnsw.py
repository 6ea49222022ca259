"""The graph: what it finds, its copies, and arrays that it must not be made of."""

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from amberdb.index.vector.coercion import Metric
from amberdb.index.vector.distance import prepared
from amberdb.index.vector.hnsw import Graph, Links, library
from amberdb.index.vector.vector import Vector

pytestmark = pytest.mark.skipif(library() is None, reason="needs the extra hnsw")
DIM = 16
SEED = 11


def _vectors(count: int, metric: Metric = "cosine") -> NDArray[np.float32]:
    rng = np.random.default_rng(SEED)
    return prepared(rng.standard_normal((count, DIM)).astype(np.float32), metric)


def _graph(count: int, metric: Metric = "cosine") -> Graph:
    graph = Graph(Vector("v", dim=DIM, metric=metric, m=8), count)
    graph.add(np.arange(1, count + 1) * 3, _vectors(count, metric), 1)
    return graph


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_the_nearest_row_of_a_row_is_itself(metric: Metric) -> None:
    graph = _graph(300, metric)
    unit = prepared(_vectors(300), "cosine")
    again = Graph(graph.spec, 300)
    again.add(np.arange(1, 301) * 3, unit, 1)
    for at in range(0, 300, 7):
        assert again.search(unit[at], 5)[0] == 3 * (at + 1)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_fewer_rows_than_asked_for_are_no_error(count: int) -> None:
    graph = Graph(Vector("v", dim=DIM), 1)
    if count:
        graph.add(np.arange(count), _vectors(count), 1)
    assert len(graph.search(_vectors(1)[0], 100)) == count
    assert graph.search(_vectors(1)[0], 0).tolist() == []


def test_equal_vectors_are_no_error() -> None:
    graph = Graph(Vector("v", dim=DIM, m=2, ef_construction=2), 1)
    graph.add(np.arange(500), np.repeat(_vectors(1), 500, axis=0), 1)  # hardly connected
    found = graph.search(_vectors(1)[0], 500)
    assert 0 < len(found) <= 500
    assert len(set(found.tolist())) == len(found)


def test_a_copy_grows_alone() -> None:
    graph = _graph(200)
    copy = graph.copy(10)
    query = _vectors(1)[0]
    assert copy.search(query, 50).tolist() == graph.search(query, 50).tolist()
    copy.add(np.array([10_000]), query[None], 1)
    assert (graph.count, copy.count) == (200, 201)
    assert 10_000 in copy.search(query, 2).tolist()
    assert 10_000 not in graph.search(query, 200).tolist()
    assert copy.size_bytes > graph.size_bytes


def test_links_and_vectors_give_it_back() -> None:
    graph = _graph(500)
    links = graph.links()
    assert links.problem(8) is None
    vectors = _vectors(500)[links.places // 3 - 1]
    again = Graph.of_links(graph.spec, links, vectors)
    for query in _vectors(40):
        assert again.search(query, 30).tolist() == graph.search(query, 30).tolist()
    grown = again.copy(600)
    grown.add(np.array([7]), -_vectors(1), 1)
    assert grown.search(-_vectors(1)[0], 1).tolist() == [7]


def _set(array: NDArray[Any], at: Any, value: int) -> NDArray[Any]:
    changed = array.copy()
    changed[at] = value
    return changed


@pytest.mark.parametrize("field", ["places", "levels", "base", "upper"])
def test_arrays_that_are_cut_are_refused(field: str) -> None:
    links = _graph(500).links()
    assert len(links.upper)
    cut = dataclasses.replace(links, **{field: getattr(links, field)[:-1]})
    assert cut.problem(8) is not None
    assert links.problem(9) is not None


def test_links_out_of_bounds_are_refused() -> None:
    links = _graph(500).links()
    low = int(np.argmin(links.levels))
    bad: list[Links] = [
        dataclasses.replace(links, base=_set(links.base, (3, 1), 500)),
        dataclasses.replace(links, base=_set(links.base, (3, 0), 17)),
        dataclasses.replace(links, base=_set(links.base, (3, 0), 1 << 16)),
        dataclasses.replace(links, upper=_set(links.upper, (0, slice(0, 2)), 1 << 31)),
        dataclasses.replace(links, upper=_set(_set(links.upper, (0, 0), 1), (0, 1), low)),
        dataclasses.replace(links, levels=_set(links.levels, 0, -1)),
        dataclasses.replace(links, places=_set(links.places, 0, links.places[1])),
        dataclasses.replace(links, places=_set(links.places, 0, -1)),
    ]
    assert [each.problem(8) is None for each in bad] == [False] * len(bad)


@pytest.mark.slow
def test_it_is_imported_only_when_it_is_used() -> None:
    code = "import sys, amberdb, amberdb.index.vector.hnsw; sys.exit('hnswlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, amberdb; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
