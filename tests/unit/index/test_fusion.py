"""Fusion, recency and diversity: small examples computed by hand."""

import numpy as np
import pytest

from amberdb.index.fusion import decay, fuse, mmr


def test_fusion_adds_reciprocal_places() -> None:
    rowids, scores = fuse([[7, 8], [8, 9]])
    assert rowids.tolist() == [8, 7, 9]
    assert scores.tolist() == pytest.approx([1 / 12 + 1 / 11, 1 / 11, 1 / 12])
    rowids, scores = fuse([[7], [9]], weights=[1.0, 3.0], constant=1)
    assert rowids.tolist() == [9, 7]
    assert scores.tolist() == [1.5, 0.5]
    assert fuse([[5], [6]])[0].tolist() == [6, 5]  # equal: the newer first
    assert len(fuse([[], []])[0]) == 0


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
