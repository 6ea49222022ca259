"""Plots and tables of docs/benchmarks.md, from kept results: `make bench-report`."""
