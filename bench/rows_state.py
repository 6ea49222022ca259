"""Rows about what a database does over time: recovery, stalls, size on disk, growth.

Invariants:
- A process that is to be killed says what it acknowledged first, and is killed with SIGKILL; the
  process that opens the database afterwards counts what is there, and the row raises on a loss.
- Stalls are measured with the default options: nothing is tuned for the row.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any

from bench import workloads
from bench.amber import AmberPeer
from bench.engine import Engine
from bench.harness import (
    AMBER,
    Budget,
    Line,
    Measured,
    Sampler,
    interleave,
    latencies_us,
)
from bench.peers import LmdbPeer, SqlitePeer
from bench.rows import Context, Row, load
from bench.workloads import BATCH_DOCUMENTS, CATEGORIES, NEWEST, SEED, Document

ROOT = Path(__file__).parents[1]
_MIB = 1 << 20
_CONTROL = "append + fdatasync"
_STALL_PUTS_MAX = 2_000_000


def replay(context: Context) -> Iterator[Line]:
    """A child puts, is killed, and another opens what is left; beside it a put_many of as many."""
    count = context.scale.replayed
    measured = {kind: (Measured(), Measured()) for kind in ("single", "batch")}
    for number in range(context.scale.rounds):
        for kind, (opened, loaded) in measured.items():
            path = context.directory / f"replay-{kind}-{number}"
            written = _write_and_kill(path / "killed", kind, count)
            reopened = child("reopen", str(path / "killed"))
            if reopened["documents"] != written["acknowledged"]:
                raise RuntimeError(f"acknowledged {written}, found {reopened}")
            compared = child("load", str(path / "loaded"), str(count))
            opened.rounds.append(reopened["open_s"] * 1e6 / count)
            loaded.rounds.append(compared["put_many_s"] * 1e6 / count)
            opened.operations += count
            loaded.operations += count
    titles = {"single": f"{count:,} single puts", "batch": f"put_many of {BATCH_DOCUMENTS:,}"}
    for kind, (opened, loaded) in measured.items():
        title = f"open after kill -9, log of {titles[kind]}, per document"
        engines = {AMBER: opened, "put_many": loaded}
        budget = Budget(1.3, 2, against="put_many") if kind == "single" else None
        yield Line("replay", title, "us", engines, budget)


def _write_and_kill(path: Path, kind: str, count: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.child", "write", str(path), kind, str(count)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        said = writer.stdout.readline()  # it then waits for its death
        writer.kill()
    if not said:
        raise RuntimeError(f"the writing process died by itself: {command}")
    result: dict[str, Any] = json.loads(said)
    return result


def child(verb: str, *arguments: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Runs one verb of bench/child.py in a fresh process; what it printed."""
    command = [sys.executable, "-m", "bench.child", verb, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True, env=environment
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def with_byte_code(context: Context) -> dict[str, str]:
    """The environment of a process that finds byte code, as installed, from the second time on."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(context.directory / "pycache")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def stall(context: Context) -> Iterator[Line]:
    """Puts until enough checkpoints ran; then as many into SQLite, and as many bare appends."""
    scale = context.scale
    path = context.directory / "stall"
    options: dict[str, Any] = {} if scale.base >= workloads.BASE_DOCUMENTS else _SMALL_MEMTABLE
    amber = AmberPeer(path / AMBER, **options)
    load(amber, scale.base)
    before = checkpoints(amber)
    samples: list[int] = []
    sources = workloads.batches(_after(scale.base), _STALL_PUTS_MAX)
    while checkpoints(amber) - before < scale.checkpoints and len(samples) < _STALL_PUTS_MAX:
        samples += _time_puts(amber.put, next(sources))
    ran = checkpoints(amber) - before
    amber.close()

    sqlite = SqlitePeer(path / "sqlite")
    load(sqlite, scale.base)
    sqlite_samples: list[int] = []
    for batch in workloads.batches(_after(scale.base), len(samples)):
        sqlite_samples += _time_puts(sqlite.put, batch)
    sqlite.close()
    engines = {
        AMBER: _longest(samples),
        "sqlite": _longest(sqlite_samples),
        _CONTROL: _longest(_time_appends(path / "control", len(samples))),
    }
    title = f"longest durable put while {ran} checkpoints ran"
    yield Line("stall", title, "ms", engines, Budget(50, 10, against="", kind="at most"))


_SMALL_MEMTABLE = {"checkpoint_bytes": _MIB // 2}  # or --quick would never see a checkpoint


def checkpoints(engine: AmberPeer) -> int:
    """How many checkpoints this database has run since it was opened."""
    count: int = engine.db.stats()["checkpoints"]
    return count


def _after(base: int) -> int:
    return -(-base // BATCH_DOCUMENTS) * BATCH_DOCUMENTS


def _time_puts(put: Callable[[Document], object], batch: Sequence[Document]) -> list[int]:
    samples: list[int] = []
    for document in batch:
        before = perf_counter_ns()
        put(document)
        samples.append(perf_counter_ns() - before)
    return samples


def _time_appends(path: Path, count: int) -> list[int]:
    """The machine's own stalls: a document's worth of bytes into a zero-filled file, and a sync."""
    record = b"x" * 700
    file_bytes = 16 * _MIB
    samples: list[int] = []
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.write(fd, bytes(file_bytes))
        os.fsync(fd)
        for number in range(count):
            offset = number * len(record) % (file_bytes - len(record))
            before = perf_counter_ns()
            os.pwrite(fd, record, offset)
            os.fdatasync(fd)
            samples.append(perf_counter_ns() - before)
    finally:
        os.close(fd)
        path.unlink()
    return samples


def _longest(samples: list[int]) -> Measured:
    return Measured([max(samples) / 1e6], len(samples), latencies_us(samples))


def disk(context: Context) -> Iterator[Line]:
    """Sizes need no rounds: the same documents give the same files."""
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
    """How much slower a read gets from the base size to the large one, beside bare LMDB."""
    scale = context.scale
    root = context.directory / "growth"
    engines: dict[str, dict[str, Engine]] = {AMBER: {}, "lmdb": {}}
    context.say(f"loading {scale.base:,} and {scale.large:,} documents for growth")
    engines[AMBER]["large"] = AmberPeer(context.large_amber())
    engines["lmdb"]["large"] = LmdbPeer(root / "lmdb-large")
    load(engines["lmdb"]["large"], scale.large)
    for name, kind in ((AMBER, AmberPeer), ("lmdb", LmdbPeer)):
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
    what = f"{title}: time at {scale.large:,} / time at {scale.base:,}"
    budget = Budget(1.2, 1.1, against="lmdb", kind="at most")
    return Line("growth", what, "x", measured, budget, notes)


def _get_turn(context: Context, engine: Engine, count: int) -> _Turn:
    rng = random.Random(SEED)
    keys = [workloads.document_id(rng.randrange(count)) for _ in range(context.scale.gets)]
    return lambda number, sampler: sampler.all(engine.get, keys)


def _newest_turn(context: Context, engine: Engine, count: int) -> _Turn:
    rng = random.Random(SEED)
    keys = [workloads.entity_id(rng.randrange(count)) for _ in range(context.scale.finds)]
    return lambda number, sampler: sampler.all(engine.newest, keys)


ROWS = (
    Row("replay", "open after kill -9, beside a put_many of as many documents", replay),
    Row("stall", "the longest put while checkpoints run", stall),
    Row("disk", "bytes of the data files", disk),
    Row("growth", "get and newest at the base and at the large size (--size)", growth),
)
