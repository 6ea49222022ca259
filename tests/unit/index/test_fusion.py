"""Fusion, recency and diversity: small examples computed by hand."""

import numpy as np
import pytest

from amberdb.index.fusion import combine, decay, fuse, mmr
from amberdb.index.vector.distance import similarity


def test_fusion_adds_reciprocal_places() -> None:
    rowids, scores = fuse([[7, 8], [8, 9]])
    assert rowids.tolist() == [8, 7, 9]
    assert scores.tolist() == pytest.approx([1 / 12 + 1 / 11, 1 / 11, 1 / 12])
    rowids, scores = fuse([[7], [9]], weights=[1.0, 3.0], constant=1)
    assert rowids.tolist() == [9, 7]
    assert scores.tolist() == [1.5, 0.5]
    assert fuse([[5], [6]])[0].tolist() == [6, 5]  # equal: the newer first
    assert len(fuse([[], []])[0]) == 0


def test_a_convex_combination_is_a_weighted_mean() -> None:
    combined = dict(combine([{7: 1.0, 8: 0.2}, {8: 0.8}], [0.0, 0.5], [1.0, 3.0]))
    assert combined == pytest.approx({7: (1.0 + 3 * 0.5) / 4, 8: (0.2 + 3 * 0.8) / 4})
    assert combine([{}, {}], [0.0, 0.0], [1.0, 1.0]) == []
    assert combine([{7: 1.0}], [0.0], [0.0]) == [(7, 0.0)]


def test_similarity_rises_with_the_score_from_0_to_1() -> None:
    assert [similarity(score, "cosine") for score in (-1.0, 0.0, 1.0)] == [0.0, 0.5, 1.0]
    assert [similarity(score, "l2") for score in (-3.0, -1.0, 0.0)] == [0.25, 0.5, 1.0]
    products = [similarity(score, "ip") for score in (-1e30, -1.0, 0.0, 1.0, 1e30)]
    assert products == sorted(products)
    assert products == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])


def test_recency_halves_with_each_half_life() -> None:
    ages = np.array([-5.0, 0.0, 10.0, 20.0])
    assert decay(np.full(4, 8.0), ages, 10.0).tolist() == [8.0, 8.0, 4.0, 2.0]


def test_diversity_passes_over_what_is_alike() -> None:
    relevance = np.array([1.0, 0.9, 0.5, 0.0])
    vectors = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    assert mmr(relevance, vectors, 3, 0.0).tolist() == [0, 1, 2]
    assert mmr(relevance, vectors, 3, 0.6).tolist() == [0, 2, 3]
    assert mmr(relevance, vectors, 9, 0.6).tolist() == [0, 2, 3, 1]
    assert mmr(np.ones(3), np.ones((3, 1), np.float32), 2, 0.5).tolist() == [0, 1]
    assert mmr(np.empty(0), np.empty((0, 0), np.float32), 2, 0.5).tolist() == []
