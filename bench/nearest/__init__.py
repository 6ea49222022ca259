"""`python -m bench.nearest`: the ways to find the nearest vectors, by their number."""
