"""Timing, percentiles, ratios, and the line that says on which machine.

Invariants:
- Engines take turns within each round (A B C, A B C, ...), so that a slow minute of the machine
  hits all of them; an engine's figure is the median of its rounds.
- A round's figure is total time over operations, stalls included; percentiles are over single
  operations of all rounds.
- ratio = peer's time / AmberDB's time: above 1 means that AmberDB is faster. Budgets of the kind
  "at most" (sizes, memory, stalls) compare the value or share itself: lower is better.
- The garbage collector stays on, as in an application; the bench's own objects are frozen.
"""

import gc
import importlib.metadata
import os
import platform
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any, Literal, TypeVar

Item = TypeVar("Item")

AMBER = "amberdb"
SEARCH_PEERS = ("hnswlib", "sqlite-vec", "apsw", "chromadb", "lancedb")
"""Packages of the extra `peers`: named where they are installed."""
_MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs")


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest sample that at least `percent` of all samples do not exceed (nearest rank).

    `ordered` ascends and is not empty.
    """
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


@dataclass
class Measured:
    """One engine in one row. Times in the row's unit."""

    rounds: list[float] = field(default_factory=list[float])
    operations: int = 0
    latencies: dict[str, float] = field(default_factory=dict[str, float])
    """p50, p99, p99.9, max of single operations; empty when operations were not timed apart."""

    @property
    def value(self) -> float:
        return median(self.rounds)


@dataclass(frozen=True)
class Budget:
    """What design asks of a row: `floor` must hold, `aim` is wished for."""

    floor: float
    aim: float | None = None
    against: str = "sqlite"
    """A peer's name, or "" for a bare value."""
    kind: Literal["at least", "at most"] = "at least"
    note: str = ""

    def judge(self, figure: float) -> str:
        """met (aim), floor (only the floor), or missed."""
        if not self._holds(figure, self.floor):
            return "missed"
        return "met" if self.aim is None or self._holds(figure, self.aim) else "floor"

    def _holds(self, figure: float, limit: float) -> bool:
        return figure >= limit if self.kind == "at least" else figure <= limit


@dataclass
class Line:
    """One line of the report: one measure of several engines."""

    row: str
    title: str
    unit: str
    engines: dict[str, Measured]
    budget: Budget | None = None
    notes: dict[str, Any] = field(default_factory=dict[str, Any])

    def ratio(self, peer: str) -> float | None:
        """peer / amberdb; None when one of them was not measured, or was 0."""
        if peer not in self.engines or AMBER not in self.engines:
            return None
        own = self.engines[AMBER].value
        return self.engines[peer].value / own if own else None

    def ratio_spread(self, peer: str) -> tuple[float, float]:
        """Lowest and highest ratio of one round."""
        pairs = zip(self.engines[peer].rounds, self.engines[AMBER].rounds, strict=True)
        ratios = [theirs / own for theirs, own in pairs if own]
        return min(ratios), max(ratios)

    def judged_figure(self) -> float | None:
        """The figure that the budget speaks of."""
        if self.budget is None or AMBER not in self.engines:
            return None
        if not self.budget.against:
            return self.engines[AMBER].value
        ratio = self.ratio(self.budget.against)
        if ratio is None or self.budget.kind == "at least":
            return ratio
        return 1 / ratio if ratio else None

    def verdict(self) -> str:
        figure = self.judged_figure()
        return "" if self.budget is None or figure is None else self.budget.judge(figure)

    def as_json(self) -> dict[str, Any]:
        peers = [name for name in self.engines if name != AMBER and AMBER in self.engines]
        return {
            "row": self.row,
            "title": self.title,
            "unit": self.unit,
            "engines": {
                name: {"value": measured.value, **asdict(measured)}
                for name, measured in self.engines.items()
            },
            "ratios": {
                peer: {"ratio": self.ratio(peer), "spread": self.ratio_spread(peer)}
                for peer in peers
                if self.ratio(peer) is not None
            },
            "budget": None if self.budget is None else asdict(self.budget),
            "judged": self.judged_figure(),
            "verdict": self.verdict(),
            "notes": self.notes,
        }


class Sampler:
    """Collects the rounds of one engine in one row."""

    def __init__(self) -> None:
        self._rounds_us: list[float] = []
        self._samples_ns: list[int] = []
        self._operations = 0

    def each(self, call: Callable[[Item], object], items: Iterable[Item]) -> None:
        """One round of calls, each timed; for calls of ten microseconds and more."""
        samples: list[int] = []
        note, clock = samples.append, perf_counter_ns
        gc.collect()
        before = clock()
        for item in items:
            call(item)
            after = clock()
            note(after - before)
            before = after
        self.add_round(sum(samples), samples)

    def all(self, call: Callable[[Item], object], items: Sequence[Item]) -> None:
        """One round of calls timed as a whole, then once more one by one for the percentiles.

        For calls so short that reading the clock would count.
        """
        gc.collect()
        start = perf_counter_ns()
        for item in items:
            call(item)
        elapsed = perf_counter_ns() - start
        samples: list[int] = []
        for item in items[: max(1, len(items) // 4)]:
            before = perf_counter_ns()
            call(item)
            samples.append(perf_counter_ns() - before)
        self.add_round(elapsed, samples, operations=len(items))

    def threads(self, call: Callable[[Item], object], shares: Sequence[Sequence[Item]]) -> None:
        """One round: a thread for each share, all started at once; the round ends with the last."""
        samples: list[list[int]] = [[] for _ in shares]
        errors: list[BaseException] = []
        barrier = threading.Barrier(len(shares) + 1)

        def work(share: Sequence[Item], own: list[int]) -> None:
            try:
                barrier.wait()
                before = perf_counter_ns()
                for item in share:
                    call(item)
                    after = perf_counter_ns()
                    own.append(after - before)
                    before = after
            except BaseException as error:  # raised again in the main thread
                errors.append(error)

        workers = [
            threading.Thread(target=work, args=pair) for pair in zip(shares, samples, strict=True)
        ]
        gc.collect()
        for worker in workers:
            worker.start()
        barrier.wait()
        start = perf_counter_ns()
        for worker in workers:
            worker.join()
        elapsed = perf_counter_ns() - start
        if errors:
            raise errors[0]
        self.add_round(elapsed, [sample for own in samples for sample in own])

    def add_round(
        self, elapsed_ns: float, samples_ns: Sequence[int] = (), *, operations: int | None = None
    ) -> None:
        count = len(samples_ns) if operations is None else operations
        self._rounds_us.append(elapsed_ns / 1000 / max(1, count))
        self._samples_ns.extend(samples_ns)
        self._operations += count

    def measured(self) -> Measured:
        """In microseconds per operation."""
        return Measured(self._rounds_us, self._operations, latencies_us(self._samples_ns))


def latencies_us(samples_ns: Sequence[int]) -> dict[str, float]:
    """p50, p99, p99.9 and max in microseconds; {} for no samples."""
    if not samples_ns:
        return {}
    ordered = sorted(samples_ns)
    names = {"p50": 50, "p99": 99, "p99.9": 99.9, "max": 100}
    return {name: percentile(ordered, percent) / 1000 for name, percent in names.items()}


def interleave(
    rounds: int, turns: Mapping[str, Callable[[int, Sampler], None]]
) -> dict[str, Measured]:
    """Runs each engine's turn in each round; turns get the round's number and their sampler."""
    gc.collect()
    gc.freeze()  # the documents of the bench are not the engines' garbage
    samplers = {name: Sampler() for name in turns}
    for number in range(rounds):
        for name, turn in turns.items():
            turn(number, samplers[name])
    gc.unfreeze()
    return {name: sampler.measured() for name, sampler in samplers.items()}


def machine(directory: Path) -> dict[str, Any]:
    """What the figures depend on: processor, kernel, file system, versions."""
    file_system = file_system_of(directory)
    packages = ("amberdb", "lmdb", "msgspec", "msgpack", "rocksdict")
    versions = {name: importlib.metadata.version(name) for name in packages}
    versions |= {name: version for name in SEARCH_PEERS if (version := _version(name))}
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "file_system": file_system,
        "durable": file_system not in _MEMORY_FILE_SYSTEMS,
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **versions,
    }


def _version(package: str) -> str:
    """ "" when it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def machine_line(facts: Mapping[str, Any]) -> str:
    versions = ("python", "amberdb", "sqlite", "lmdb", "msgpack", "rocksdict", *SEARCH_PEERS)
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB, {facts['kernel']}, "
        f"{facts['file_system']}, load {facts['load_1min']}; "
        + ", ".join(f"{name} {facts[name]}" for name in versions if name in facts)
    )


def file_system_of(directory: Path) -> str:
    """The type of the file system that holds `directory`, or "unknown"."""
    wanted = directory.resolve()
    best, kind = -1, "unknown"
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return sys.platform
    for mount in mounts:
        _, point, name, *_ = mount.split(" ")
        point = point.replace("\\040", " ")
        if wanted.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), name
    return kind


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
