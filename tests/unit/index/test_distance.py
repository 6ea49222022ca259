"""Scores: what they are, and that they depend on nothing but the two vectors."""

import numpy as np
import pytest
from numpy.typing import NDArray

from amberdb.index.vector.coercion import METRICS, Metric
from amberdb.index.vector.distance import best, block_rows, by_row, prepared, scores


def _scored(
    vectors: NDArray[np.float32], query: NDArray[np.float32], metric: Metric
) -> NDArray[np.float32]:
    out = np.empty(len(vectors), np.float32)
    scores(prepared(vectors, metric), prepared(query, metric), metric, out)
    return out


def test_scores_are_what_the_documents_say() -> None:
    rows = np.array([[3, 4], [4, -3], [-3, -4]], np.float32)
    query = np.array([3, 4], np.float32)
    assert _scored(rows, query, "cosine") == pytest.approx([1, 0, -1], abs=1e-6)
    assert _scored(rows, query, "ip").tolist() == [25, 0, -25]
    assert _scored(rows, query, "l2") == pytest.approx([0, -(50**0.5), -10])
    assert not np.signbit(_scored(rows, query, "l2")[0])


@pytest.mark.parametrize("size", [1e-40, 1e-30, 1e30])
def test_tiny_and_huge_vectors_have_a_direction(size: float) -> None:
    rows = np.array([[size, size], [size, -size]], np.float32)
    assert _scored(rows, np.array([1, 1], np.float32), "cosine") == pytest.approx([1, 0], abs=1e-6)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", [1, 3, 17, 384])
def test_a_score_does_not_depend_on_the_rows_beside_it(metric: Metric, dim: int) -> None:
    rng = np.random.default_rng(1)
    count = min(2 * block_rows(dim) + 5, 3000)
    rows = rng.standard_normal((count, dim), np.float32)
    query = rng.standard_normal(dim, np.float32)
    together = _scored(rows, query, metric)
    apart = [_scored(row[None], query, metric)[0] for row in rows[-50:]]
    assert together[-50:].tolist() == apart
    shifted = np.empty(count * dim + 1, np.float32)[1:].reshape(count, dim)  # another alignment
    shifted[:] = rows
    assert (_scored(shifted[::-1], query, metric)[::-1] == together).all()


def test_equal_scores_go_to_the_newer_row() -> None:
    rowids = np.array([5, 9, 2, 7, 1, 8])
    found = np.array([1, 0.5, 1, 1, 2, -np.inf], np.float32)
    assert best(rowids, found, 3)[0].tolist() == [1, 7, 5]
    assert best(rowids, found, 2)[0].tolist() == [1, 7]
    assert best(rowids, found, 9)[0].tolist() == [1, 7, 5, 2, 9]
    assert best(rowids, found, 9)[1].tolist() == [2, 1, 1, 1, 0.5]
    assert best(rowids[:0], found[:0], 3)[0].tolist() == []


@pytest.mark.parametrize("mean_of", [1, 2, 5])
def test_the_score_of_a_row_is_the_mean_of_its_best(mean_of: int) -> None:
    rng = np.random.default_rng(1)
    rows = rng.permutation(50)
    rowids = np.repeat(rows, rng.integers(1, 8, len(rows)))
    values = rng.standard_normal(len(rowids)).astype(np.float32)
    values[np.isin(rowids, rows[:5])] = -np.inf
    found, means = by_row(rowids, values, mean_of)
    assert found.tolist() == rows.tolist()
    for row, mean in zip(found, means, strict=True):
        top = np.sort(values[rowids == row])[-mean_of:]
        assert mean == np.float32(top.mean(dtype=np.float64))
    # A row alone has the score that it has among others.
    for row, mean in zip(found, means, strict=True):
        assert by_row(rowids[rowids == row], values[rowids == row], mean_of)[1][0] == mean


def test_no_rows_have_no_scores() -> None:
    rowids, values = by_row(np.empty(0, np.int64), np.empty(0, np.float32), 3)
    assert len(rowids) == len(values) == 0
