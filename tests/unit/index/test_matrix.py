"""Matrix: rows by rowid, over a base and chunks, while it grows."""

import numpy as np
import pytest
from numpy.typing import NDArray

from amberdb.index.vector.coercion import METRICS, Metric
from amberdb.index.vector.distance import prepared, scores
from amberdb.index.vector.matrix import Matrix

DIM = 2048  # the first chunk has 128 rows
RNG_SEED = 7


def _rows(count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    rng = np.random.default_rng(RNG_SEED)
    rowids = rng.permutation(np.arange(1, 3 * count + 1))[:count]
    return rowids, rng.standard_normal((count, DIM), np.float32)


def _naive(
    vectors: NDArray[np.float32], query: NDArray[np.float32], metric: Metric
) -> NDArray[np.float32]:
    out = np.empty(len(vectors), np.float32)
    scores(prepared(vectors, metric), query, metric, out)
    return out


@pytest.mark.parametrize("base", [0, 1, 700])
@pytest.mark.parametrize("metric", METRICS)
def test_rows_are_scored_wherever_they_lie(metric: Metric, base: int) -> None:
    rowids, vectors = _rows(1800)
    matrix = Matrix(DIM, metric, (rowids[:base], prepared(vectors[:base], metric)))
    for start, end in ((base, 750), (750, 751), (751, 1790), (1790, 1800)):
        matrix.add(rowids[start:end], vectors[start:end])
    rows = matrix.rows()
    query = prepared(vectors[3] + vectors[4], metric)
    expected = _naive(vectors, query, metric)
    assert rows.count == 1800
    assert (rows.scores(query) == expected).all()
    for start in (1, 600, 700, 1212, 1800):
        assert (rows.scores(query, start) == expected[start:]).all()
    shuffled = np.random.default_rng(1).permutation(1800)[:900]
    for some in (shuffled, np.sort(shuffled), np.arange(1800), np.array([1799]), shuffled[:0]):
        assert (rows.scores_at(some, query) == expected[some]).all()
        assert (rows.vectors(some) == prepared(vectors[some], metric)).all()
    assert (rows.places(rowids) == np.arange(1800)).all()


def test_what_a_reader_holds_does_not_change_while_rows_are_added() -> None:
    rowids, vectors = _rows(1500)
    matrix = Matrix(DIM, "ip")
    matrix.add(rowids[:40], vectors[:40])
    rows = matrix.rows()
    before = rows.scores(vectors[0])
    for start in range(40, 1500, 73):
        matrix.add(rowids[start : start + 73], vectors[start : start + 73])
    assert (rows.scores(vectors[0]) == before).all()
    assert (rows.places(rowids[:40]) == np.arange(40)).all()
    assert (rows.places(rowids[40:]) == -1).all()
    assert (matrix.rows().places(rowids) == np.arange(1500)).all()


def test_rows_that_are_not_there_have_no_place() -> None:
    matrix = Matrix(2, "l2")
    assert matrix.rows().places(np.array([0, 1, 10**9])).tolist() == [-1, -1, -1]
    matrix.add(np.array([4, 2]), np.ones((2, 2), np.float32))
    assert matrix.rows().places(np.array([1, 2, 3, 4, 5, 10**9])).tolist() == [-1, 1, -1, 0, -1, -1]
    matrix.add(np.empty(0, np.int64), np.empty((0, 2), np.float32))
    assert matrix.rows().count == 2


def test_alive_by_place() -> None:
    matrix = Matrix(2, "l2")
    matrix.add(np.array([4, 2, 9]), np.ones((3, 2), np.float32))
    alive = np.zeros(8, np.bool_)
    alive[[2, 3]] = True
    assert matrix.rows().alive(alive).tolist() == [False, True, False]


def test_its_memory_is_told() -> None:
    matrix = Matrix(DIM, "l2")
    empty = matrix.size_bytes
    matrix.add(*_rows(600))
    assert matrix.size_bytes - empty > 600 * DIM * 4


def test_few_pieces_whatever_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amberdb.index.vector.matrix.CHUNK_BYTES_MIN", 1024)
    monkeypatch.setattr("amberdb.index.vector.matrix.CHUNK_BYTES_MAX", 1024 * 256)
    matrix = Matrix(4, "l2")
    for start in range(0, 100_000, 50):
        matrix.add(np.arange(start, start + 50), np.ones((50, 4), np.float32))
    pieces = matrix.rows().pieces()
    assert sum(map(len, pieces)) == 100_000
    assert len(pieces) < 18
    assert max(map(len, pieces)) == 256 * 64


@pytest.mark.parametrize("base", [0, 5])
def test_rows_of_several_vectors(base: int) -> None:
    rng = np.random.default_rng(RNG_SEED)
    rows = rng.permutation(np.arange(1, 200))[:90]
    counts = rng.integers(1, 6, len(rows))
    rowids = np.repeat(rows, counts)
    vectors = rng.standard_normal((len(rowids), 8), np.float32)
    ends = np.cumsum(counts)
    cut = int(ends[base - 1]) if base else 0
    matrix = Matrix(8, "ip", (rowids[:cut], vectors[:cut]), multi=True)
    half = int(ends[40])
    matrix.add(rowids[cut:half], vectors[cut:half])
    before = matrix.rows()
    for start in range(half, len(rowids), 7):  # also in the middle of a row
        matrix.add_prepared(rowids[start : start + 7], vectors[start : start + 7])
    after = matrix.rows()
    assert (after.rowids == rowids).all()
    assert (after.places(rows) == ends - counts).all()
    some = rng.permutation(rows)[:30]
    wanted = np.concatenate([np.flatnonzero(rowids == row) for row in some])
    assert after.expanded(after.places(some)).tolist() == wanted.tolist()
    assert after.expanded(after.places(some[:0])).tolist() == []
    starts = [int(np.flatnonzero(rowids == row)[0]) for row in rowids]
    assert [after.row_start(place) for place in range(len(rowids))] == starts
    assert after.row_start(len(rowids)) == len(rowids)
    assert before.count == half
    known = before.places(rows)
    assert ((known >= 0) == np.isin(rows, rowids[:half])).all()
    assert before.expanded(known[known >= 0]).tolist() == list(range(half))
