"""Rows about size: bytes on disk, and how reads slow down as a database grows.

Invariants:
- Bytes on disk need no rounds: the same documents give the same files.
"""

import sys
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from bench.engines.amber import AmberEngine
from bench.engines.engine import Engine
from bench.engines.lmdb import LmdbPeer
from bench.harness.context import Context, load
from bench.harness.line import AMBER, Budget, Line, Measured
from bench.harness.operation import Draw, Operation
from bench.harness.row import Row
from bench.harness.sampler import Sampler, interleave
from bench.harness.scale import Scale
from bench.rows.speed import GET, GET_MANY, NEWEST_OF, SCAN
from bench.workloads.events import CATEGORIES

_MIB = 1 << 20


def disk(context: Context) -> Iterator[Line]:
    """The same documents give the same files, so one round is enough."""
    count = context.scale.base
    loaded: dict[str, Measured] = {}
    compacted: dict[str, Measured] = {}
    unable: dict[str, str] = {}
    with context.fresh_engines("disk") as engines:
        for name, engine in engines.items():
            load(engine, count)
            loaded[name] = Measured([engine.data_bytes() / _MIB], count)
            for category in CATEGORIES[::2]:
                engine.remove_category(category)
            engine.settle()
            try:
                engine.compact()
            except NotImplementedError as error:
                unable[name] = str(error)
                continue
            compacted[name] = Measured([engine.data_bytes() / _MIB], count)
    title = f"files after load of {count:,} documents, log apart"
    yield Line("disk", title, "MiB", loaded, Budget(1.5, 0.9, kind="at most"))
    budget = Budget(1, 0.8, kind="at most")
    yield Line("disk", "  half removed and compacted", "MiB", compacted, budget, unable)


def growth(context: Context) -> Iterator[Line]:
    """How much slower reads are at the large size than at the base one, compared with bare LMDB.

    The large databases are loaded batch by batch, so --size is limited by the disk alone.
    """
    scale = context.scale
    root = context.directory / "growth"
    engines: dict[str, dict[str, Engine]] = {AMBER: {}, _PEER: {}}
    context.say(f"loading {scale.base:,} and {scale.large:,} documents for growth")
    engines[AMBER]["large"] = AmberEngine(context.large_amber())
    engines[_PEER]["large"] = LmdbPeer(root / "lmdb-large")
    load(engines[_PEER]["large"], scale.large)
    for name, kind in ((AMBER, AmberEngine), (_PEER, LmdbPeer)):
        engines[name]["small"] = kind(root / f"{name}-small")
        load(engines[name]["small"], scale.base)
    try:
        for read in (GET, GET_MANY, NEWEST_OF, SCAN):
            yield _growth_line(context, read, engines)
    finally:
        for sizes in engines.values():
            for engine in sizes.values():
                engine.close()


_PEER = LmdbPeer.name
_Turn = Callable[[int, Sampler], None]


def _growth_line(
    context: Context, read: Operation[Engine, Any], engines: dict[str, dict[str, Engine]]
) -> Line:
    scale = context.scale
    counts = {"small": scale.base, "large": scale.large}
    turns = {
        f"{name} {size}": _turn(read, engine, _draw(scale, counts[size]))
        for name, sizes in engines.items()
        for size, engine in sorted(sizes.items(), reverse=True)  # small, then large
    }
    times = interleave(scale.rounds, turns)
    measured: dict[str, Measured] = {}
    for name in engines:
        small, large = times[f"{name} small"], times[f"{name} large"]
        cpu = _ratios(small.cpu, large.cpu)
        ratios = _ratios(small.rounds, large.rounds)
        measured[name] = Measured(ratios, large.operations, cpu=cpu)
    notes = {f"{name}, us": round(median(one.rounds), 3) for name, one in times.items()}
    title = f"{read.title}: time at {scale.large:,} / time at {scale.base:,}"
    budget = Budget(1.1, against=_PEER, kind="at most")
    return Line("growth", title, "x", measured, budget, notes)


def _ratios(small: list[float], large: list[float]) -> list[float]:
    return [after / before for before, after in zip(small, large, strict=True)]


def _draw(scale: Scale, count: int) -> Draw:
    return Draw(
        scale=scale,
        number=0,
        stored=(range(count),),
        fresh=lambda wanted: [],
        calls_max=sys.maxsize,
    )


def _turn(read: Operation[Engine, Any], engine: Engine, draw: Draw) -> _Turn:
    items = read.items(draw)
    return lambda number, sampler: read.time(sampler, engine, read.call, items)


ROWS = (
    Row("disk", "bytes of the data files", disk),
    Row("growth", "reads at the base and at the large size (--base, --size)", growth),
)
