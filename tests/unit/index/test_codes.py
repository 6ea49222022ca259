"""Codes: bounds of scores from one bit per dimension."""

import numpy as np
import pytest
from numpy.typing import NDArray

from amberdb.index.vector.codes import BLOCK_ROWS, CodedQuery, Codes
from amberdb.index.vector.coercion import METRICS, Metric
from amberdb.index.vector.distance import prepared, scores
from amberdb.index.vector.matrix import CODED_ROWS, CODED_STEP, Matrix

DIM = 200
ROWS = 2000
NEAR = 20
MISSED_MAX = 3e-4
"""The share of bounds that may be below the score, for the worst kind."""

Vectors = NDArray[np.float32]


def _vectors(kind: str, rng: np.random.Generator) -> Vectors:
    """Vectors of a kind that an embedder may give, or an adversary."""
    made = rng.standard_normal((ROWS, DIM))
    if kind == "clusters":
        made += 3 * rng.standard_normal((20, DIM))[rng.integers(0, 20, ROWS)]
    elif kind == "near-duplicates":
        made = made[:NEAR][rng.integers(0, NEAR, ROWS)] + 0.01 * made
    elif kind == "one sign":
        made = abs(made) + 2
    elif kind == "one dimension dominates":
        made[:, 7] *= 50
    elif kind == "one dimension":
        made *= np.arange(DIM) == 3
    elif kind == "few dimensions":
        made *= np.arange(DIM) % 50 == 3
    elif kind == "lengths":
        made *= 10 ** rng.uniform(-15, 15, (ROWS, 1))
    return made.astype(np.float32)


KINDS = (
    "isotropic",
    "clusters",
    "near-duplicates",
    "one sign",
    "one dimension dominates",
    "one dimension",
    "few dimensions",
    "lengths",
)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_near_vector_is_excluded(kind: str, metric: Metric) -> None:
    rng = np.random.default_rng(5)
    vectors = prepared(_vectors(kind, rng), metric)
    codes = Codes(DIM, metric)
    for start in range(0, ROWS, 450):
        codes.add(vectors[start : start + 450])
    exact = np.empty(ROWS, np.float32)
    every_seventh = np.arange(0, ROWS, 7)
    missed = 0
    asked = prepared(_vectors(kind, rng)[:5], metric)
    for query in (*asked, *vectors[:5]):  # the latter are in the matrix
        scores(vectors, query, metric, exact)
        code = CodedQuery(query)
        bounds = codes.view().bounds(code)
        of_some = codes.view().bounds_of(code, codes.view().at(every_seventh))
        assert np.array_equal(of_some, bounds[::7])
        missed += int(np.count_nonzero(bounds < exact))
        least = np.partition(exact, -NEAR)[-NEAR]
        near = np.flatnonzero(exact >= least)
        assert (bounds[near] >= least).all()
        of_near = codes.view().at(near)
        assert (codes.view().closer_bounds_of(code, of_near, float(least)) >= least).all()
    assert missed <= MISSED_MAX * 10 * ROWS + 1


def test_bounds_exclude_most_of_clusters_and_closer_ones_more_of_random_vectors() -> None:
    left: dict[str, tuple[int, int]] = {}
    for kind in ("clusters", "isotropic"):
        vectors = prepared(_vectors(kind, np.random.default_rng(5)), "cosine")
        codes = Codes(DIM, "cosine")
        codes.add(vectors[1:])
        exact = np.empty(ROWS - 1, np.float32)
        scores(vectors[1:], vectors[0], "cosine", exact)
        least = float(np.partition(exact, -NEAR)[-NEAR])
        code = CodedQuery(vectors[0])
        near = np.flatnonzero(codes.view().bounds(code) >= least)
        closer = codes.view().closer_bounds_of(code, codes.view().at(near), least) >= least
        left[kind] = len(near), int(np.count_nonzero(closer))
    assert left["clusters"][0] < ROWS / 8
    assert left["isotropic"][1] < left["isotropic"][0] * 0.9


@pytest.mark.parametrize("metric", METRICS)
def test_a_code_depends_on_its_vector_alone(metric: Metric) -> None:
    """However many are added at once, and across the end of a block."""
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((2 * BLOCK_ROWS + 40, 8)).astype(np.float32)
    whole, parts = Codes(8, metric), Codes(8, metric)
    whole.add(vectors)
    older = parts.view()
    for start in range(0, len(vectors), 5000):
        parts.add(vectors[start : start + 5000])
        older = parts.view() if not start else older
    code = CodedQuery(vectors[3])
    bounds = whole.view().bounds(code)
    assert np.array_equal(parts.view().bounds(code), bounds)
    for start in (1, 5000, BLOCK_ROWS, BLOCK_ROWS + 7, len(vectors), len(vectors) + 9):
        assert np.array_equal(whole.view().bounds(code, start), bounds[start:])
    assert np.array_equal(older.bounds(code), bounds[:5000])  # a view does not change
    assert whole.size_bytes == parts.size_bytes == len(vectors) * (12 if metric == "cosine" else 16)


def test_the_zero_vector_and_the_longest_ones_have_bounds() -> None:
    vectors = np.zeros((5, DIM), np.float32)
    vectors[1, 0] = 1e18
    vectors[2, 0] = -1e18
    vectors[3, 5] = 1e-40
    for metric in ("ip", "l2"):
        codes = Codes(DIM, metric)
        codes.add(vectors)
        exact = np.empty(5, np.float32)
        for query in vectors:
            scores(vectors, query, metric, exact)
            code = CodedQuery(query)
            assert (codes.view().bounds(code) >= exact).all()
            block = codes.view().at(np.arange(5))
            assert (codes.view().closer_bounds_of(code, block, 0.0) >= exact).all()


def test_a_large_matrix_has_codes_of_all_vectors_but_the_last() -> None:
    matrix = Matrix(DIM, "cosine")
    vectors = np.random.default_rng(1).standard_normal((CODED_ROWS + 600, DIM)).astype(np.float32)
    counts: list[int] = []
    for start in range(0, len(vectors), 100):
        rows = np.arange(start, start + len(vectors[start : start + 100]))
        matrix.add(rows, vectors[rows])
        counts.append(matrix.rows().codes.count)
        assert len(rows) + start - counts[-1] < (CODED_STEP if counts[-1] else CODED_ROWS)
    assert counts[0] == 0
    assert counts[-1] > CODED_ROWS
    codes = Codes(DIM, "cosine")
    codes.add(prepared(vectors[: counts[-1]], "cosine"))
    code = CodedQuery(vectors[0])
    assert np.array_equal(matrix.rows().codes.bounds(code), codes.view().bounds(code))
