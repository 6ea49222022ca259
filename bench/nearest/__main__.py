"""`python -m bench.nearest`: the ways to find the nearest vectors in one process, by their number:
a scan by numpy, codes, the graph, and inverted lists over the codes (which the database has not).

Invariants:
- Every way answers the same questions over the same vectors; the ways take turns at each question.
- Recall is the share of the ten nearest of a scan that a way has found.
- The decision when the graph is asked (engine/search/vector/cache.py, GRAPH_ROWS) comes from here.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amberdb import Vector
from amberdb.engine.search.vector.cache import Built, VectorCache
from amberdb.engine.search.vector.index import VectorIndex
from amberdb.index.vector.distance import prepared
from amberdb.index.vector.hnsw import Graph
from amberdb.index.vector.matrix import Matrix
from bench.harness.machine import machine
from bench.nearest.lists import Lists
from bench.workloads.vectors import Vectors, questions, vectors

LIMIT = 10
_STEP = 10_000
_READ = (8, 32)

_Way = Callable[[Vectors], Sequence[int] | NDArray[np.intp]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.nearest", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 300_000])
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1, help="of the build of a graph")
    parser.add_argument("--json", type=Path, help="file for the result")
    options = parser.parse_args(arguments)
    found = {
        str(rows): measured(rows, options.dim, options.questions, options.threads)
        for rows in options.rows
    }
    for rows, ways in found.items():
        print(f"{int(rows):,} vectors of {options.dim} dimensions")
        for name, way in ways.items():
            print(
                f"  {name:<20} {way['median_us']:>9.0f} us  {way['share']:.3f} of a scan  "
                f"recall {way['recall']:.4f}  built in {way['build_s']:.1f} s"
            )
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": machine(Path()), "rows": found}, indent=1))
    return 0


def measured(count: int, dim: int, asked: int, threads: int) -> dict[str, dict[str, Any]]:
    """What each way takes, and what it finds."""
    spec = Vector("v", dim=dim)
    matrix = Matrix(dim, spec.metric)
    started = time.perf_counter()
    for start in range(0, count, _STEP):
        matrix.add(np.arange(start, start + _STEP), vectors(start, _STEP, dim))
        _say(f"{start + _STEP:,} of {count:,} vectors")
    build_s = {"codes": time.perf_counter() - started}
    rows = matrix.rows()
    scanned = np.concatenate(rows.pieces())
    started = time.perf_counter()
    lists = Lists(rows)
    for read in _READ:
        build_s[f"{lists.count} lists, {read}"] = time.perf_counter() - started
    _say("lists")
    alive = np.ones(count, np.bool_)

    def scan(query: Vectors) -> NDArray[np.intp]:
        scores = scanned @ query
        best = np.argpartition(scores, -LIMIT)[-LIMIT:]
        found: NDArray[np.intp] = best[np.argsort(-scores[best])]
        return found

    def by(spec: Vector, graph: Graph | None) -> _Way:
        cache = VectorCache(spec)
        built = Built(matrix, graph, 0 if graph is None else graph.count)
        cache._built = built  # pyright: ignore[reportPrivateUsage]
        index = VectorIndex(cache)
        return lambda query: index.search(query, LIMIT, alive, _nothing)[0]

    ways: dict[str, _Way] = {"scan": scan, "codes": by(spec, None)}
    for read in _READ:
        ways[f"{lists.count} lists, {read}"] = partial(lists.search, limit=LIMIT, read=read)
    started = time.perf_counter()
    graph = Graph(spec, count)
    for start in range(0, count, _STEP):
        places = np.arange(start, start + _STEP)
        graph.add(places, rows.vectors(places), threads)
        _say(f"graph of {start + _STEP:,}")
    ways["graph"] = by(spec, graph)
    build_s["graph"] = time.perf_counter() - started
    return _compared(ways, [prepared(each, spec.metric) for each in questions(asked, dim)], build_s)


def _compared(
    ways: dict[str, _Way], asked: list[Vectors], build_s: dict[str, float]
) -> dict[str, dict[str, Any]]:
    times: dict[str, list[int]] = {name: [] for name in ways}
    hits = dict.fromkeys(ways, 0)
    for question in asked:
        right: set[int] = set()
        for name, way in ways.items():
            started = time.perf_counter_ns()
            found = way(question)
            times[name].append(time.perf_counter_ns() - started)
            right = right or set(map(int, found))
            hits[name] += len(right & set(map(int, found)))
    of_scan = median(times["scan"])
    return {
        name: {
            "median_us": median(took) / 1000,
            "p99_us": sorted(took)[-1 - len(took) // 100] / 1000,
            "share": median(took) / of_scan,
            "recall": hits[name] / (LIMIT * len(asked)),
            "build_s": build_s.get(name, 0.0),
        }
        for name, took in times.items()
    }


def _nothing(rowids: NDArray[np.int64]) -> tuple[NDArray[np.int64], Vectors]:
    """Every row is in the matrix."""
    raise AssertionError(rowids)


def _say(done: str) -> None:
    print(f"\r{done:<60}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
