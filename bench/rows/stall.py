"""A row about the longest put while checkpoints run.

Invariants:
- The default options are used: nothing is tuned for the row (--quick lowers `checkpoint_bytes`,
  or no checkpoint would run).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from bench.engines.amber import AmberEngine
from bench.engines.sqlite import SqlitePeer
from bench.harness.context import Context, load
from bench.harness.latency import latencies_us
from bench.harness.line import AMBER, Budget, Line, Measured
from bench.harness.row import Row
from bench.harness.sampler import garbage_apart
from bench.workloads import events
from bench.workloads.events import BATCH_DOCUMENTS, Document

_MIB = 1 << 20
_CONTROL = "append + fdatasync"
_STALL_PUTS_MAX = 2_000_000


def stall(context: Context) -> Iterator[Line]:
    """Puts until enough checkpoints ran; then the same number into SQLite, and of bare appends."""
    scale = context.scale
    path = context.directory / "stall"
    options: dict[str, Any] = {} if scale.base >= events.BASE_DOCUMENTS else _SMALL_MEMTABLE
    amber = AmberEngine(path / AMBER, **options)
    load(amber, scale.base)
    before = _checkpoints(amber)
    samples: list[int] = []
    sources = events.batches(_after(scale.base), _STALL_PUTS_MAX)
    with garbage_apart():
        while _checkpoints(amber) - before < scale.checkpoints and len(samples) < _STALL_PUTS_MAX:
            samples += _time_puts(amber.put, next(sources))
    ran = _checkpoints(amber) - before
    amber.close()

    sqlite = SqlitePeer(path / "sqlite")
    load(sqlite, scale.base)
    sqlite_samples: list[int] = []
    with garbage_apart():
        for batch in events.batches(_after(scale.base), len(samples)):
            sqlite_samples += _time_puts(sqlite.put, batch)
    sqlite.close()
    engines = {
        AMBER: _longest(samples),
        "sqlite": _longest(sqlite_samples),
        _CONTROL: _longest(_time_appends(path / "control", len(samples))),
    }
    title = f"longest durable put while {ran} checkpoints ran"
    yield Line("stall", title, "ms", engines, Budget(50, 10, against="", kind="at most"))


_SMALL_MEMTABLE = {"checkpoint_bytes": _MIB // 2}


def _checkpoints(engine: AmberEngine) -> int:
    """The number of checkpoints since the database was opened."""
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
    """The machine's own stalls: a document's bytes written into a zero-filled file, and a sync."""
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


ROWS = (Row("stall", "the longest put while checkpoints run", stall),)
