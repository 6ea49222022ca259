"""Rows about size: bytes on disk, and how reads slow down as a database grows.

Invariants:
- Bytes on disk need no rounds: the same documents give the same files.
"""

import random
from collections.abc import Callable, Iterator
from statistics import median

from bench.engines.amber import AmberEngine
from bench.engines.engine import Engine
from bench.engines.lmdb import LmdbPeer
from bench.harness.context import Context, load
from bench.harness.line import AMBER, Budget, Line, Measured
from bench.harness.row import Row
from bench.harness.sampler import Sampler, interleave
from bench.workloads import events
from bench.workloads.events import CATEGORIES, NEWEST, SEED

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
    """How much slower reads are at the large size than at the base one, compared with bare LMDB."""
    scale = context.scale
    root = context.directory / "growth"
    engines: dict[str, dict[str, Engine]] = {AMBER: {}, "lmdb": {}}
    context.say(f"loading {scale.base:,} and {scale.large:,} documents for growth")
    engines[AMBER]["large"] = AmberEngine(context.large_amber())
    engines["lmdb"]["large"] = LmdbPeer(root / "lmdb-large")
    load(engines["lmdb"]["large"], scale.large)
    for name, kind in ((AMBER, AmberEngine), ("lmdb", LmdbPeer)):
        engines[name]["small"] = kind(root / f"{name}-small")
        load(engines[name]["small"], scale.base)
    try:
        yield _growth_line(context, "get by id", engines, _get_turn)
        yield _growth_line(context, f"newest {NEWEST}", engines, _newest_turn)
    finally:
        for sizes in engines.values():
            for engine in sizes.values():
                engine.close()


_Turn = Callable[[int, Sampler], None]


def _growth_line(
    context: Context,
    title: str,
    engines: dict[str, dict[str, Engine]],
    turn: Callable[[Context, Engine, int], _Turn],
) -> Line:
    scale = context.scale
    counts = {"small": scale.base, "large": scale.large}
    turns = {
        f"{name} {size}": turn(context, engine, counts[size])
        for name, sizes in engines.items()
        for size, engine in sorted(sizes.items(), reverse=True)  # small, then large
    }
    times = interleave(scale.rounds, turns)
    measured: dict[str, Measured] = {}
    for name in engines:
        small, large = times[f"{name} small"], times[f"{name} large"]
        ratios = [after / before for before, after in zip(small.rounds, large.rounds, strict=True)]
        measured[name] = Measured(ratios, large.operations)
    notes = {f"{name}, us": round(median(one.rounds), 3) for name, one in times.items()}
    ratio = f"{title}: time at {scale.large:,} / time at {scale.base:,}"
    budget = Budget(1.2, 1.1, against="lmdb", kind="at most")
    return Line("growth", ratio, "x", measured, budget, notes)


def _get_turn(context: Context, engine: Engine, count: int) -> _Turn:
    rng = random.Random(SEED)
    keys = [events.document_id(rng.randrange(count)) for _ in range(context.scale.gets)]
    return lambda number, sampler: sampler.all(engine.get, keys)


def _newest_turn(context: Context, engine: Engine, count: int) -> _Turn:
    rng = random.Random(SEED)
    keys = [events.entity_id(rng.randrange(count)) for _ in range(context.scale.finds)]
    return lambda number, sampler: sampler.all(engine.newest, keys)


ROWS = (
    Row("disk", "bytes of the data files", disk),
    Row("growth", "get and newest at the base and at the large size (--size)", growth),
)
