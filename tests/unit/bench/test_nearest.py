"""`python -m bench.nearest`: each way is measured, and finds what a scan finds."""

import pytest

from amberdb.index.vector.hnsw import library
from bench.nearest.__main__ import measured


@pytest.mark.slow
@pytest.mark.skipif(library() is None, reason="needs the extra hnsw")
def test_every_way_is_measured_and_finds_the_nearest() -> None:
    ways = measured(count=10_000, dim=128, asked=10, threads=1)
    assert list(ways) == ["scan", "codes", "200 lists, 8", "200 lists, 32", "graph"]
    assert all(way["median_us"] > 0 for way in ways.values())
    assert ways["scan"]["recall"] == 1.0
    assert min(way["recall"] for way in ways.values()) >= 0.7
    assert ways["codes"]["recall"] >= 0.99
