"""Timing: single calls, whole rounds, threads, and engines that take turns.

Invariants:
- Engines take turns within each round (A B C, A B C, ...), so that a slow minute of the machine
  hits all of them.
- A round's figure is total time over operations, stalls included; percentiles are over single
  operations of all rounds.
- CPU time is that of the whole process in the timed section, its background threads included.
- The garbage collector stays on, as in an application; the benchmark's own objects are frozen.
"""

import gc
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from statistics import median
from time import perf_counter_ns, process_time_ns
from typing import TypeVar

from bench.harness.latency import latencies_us
from bench.harness.line import Measured

Item = TypeVar("Item")
Written = TypeVar("Written")

ROUND_NS_MAX = 5_000_000_000
"""A round of single calls ends at the first one after it: a peer may take a second for each."""


@dataclass(frozen=True)
class Round:
    """What was timed of a round."""

    elapsed_ns: float
    samples_ns: Sequence[int]
    operations: int
    cpu_ns: float | None


class Sampler:
    """Times the rounds of one engine in one row."""

    def __init__(self, documents: int = 1) -> None:
        """`documents`: in each call; figures are per document, percentiles per call."""
        self._documents = documents
        self.last_round = Round(0, (), 0, None)
        self._rounds_us: list[float] = []
        self._cpu_us: list[float] = []
        self._samples_ns: list[int] = []
        self._operations = 0

    def each(self, call: Callable[[Item], object], items: Iterable[Item]) -> None:
        """One round of calls, each timed; for calls of at least ten microseconds."""
        samples: list[int] = []
        note, clock = samples.append, perf_counter_ns
        gc.collect()
        cpu = process_time_ns()
        before = clock()
        end = before + ROUND_NS_MAX
        for item in items:
            call(item)
            after = clock()
            note(after - before)
            before = after
            if after > end:
                break
        self.add_round(sum(samples), samples, cpu_ns=process_time_ns() - cpu)

    def after_each(
        self,
        write: Callable[[Written], object],
        written: Sequence[Written],
        call: Callable[[Item], object],
        items: Sequence[Item],
    ) -> None:
        """One round of calls, each timed, and each after a write that is not."""
        samples: list[int] = []
        clock, cpu_clock = perf_counter_ns, process_time_ns
        cpu = 0
        gc.collect()
        end = clock() + ROUND_NS_MAX
        for one, item in zip(written, items, strict=True):
            write(one)
            if clock() > end:  # the rest is written all the same: engines stay equal
                continue
            cpu -= cpu_clock()
            before = clock()
            call(item)
            after = clock()
            cpu += cpu_clock()
            samples.append(after - before)
        cpu -= len(samples) * _cpu_clock_ns()
        self.add_round(sum(samples), samples, cpu_ns=max(0, cpu))

    def all(self, call: Callable[[Item], object], items: Sequence[Item]) -> None:
        """One round of calls timed as a whole, then a quarter of them singly for the percentiles.

        For calls so short that reading the clock would distort the figure.
        """
        gc.collect()
        cpu = process_time_ns()
        start = perf_counter_ns()
        for item in items:
            call(item)
        elapsed = perf_counter_ns() - start
        cpu = process_time_ns() - cpu
        samples: list[int] = []
        for item in items[: max(1, len(items) // 4)]:
            before = perf_counter_ns()
            call(item)
            samples.append(perf_counter_ns() - before)
        self.add_round(elapsed, samples, operations=len(items), cpu_ns=cpu)

    def threads(self, call: Callable[[Item], object], shares: Sequence[Sequence[Item]]) -> None:
        """One round: a thread for each share, started together, until the last one ends."""
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
        cpu = process_time_ns()
        start = perf_counter_ns()
        for worker in workers:
            worker.join()
        elapsed = perf_counter_ns() - start
        cpu = process_time_ns() - cpu
        if errors:
            raise errors[0]
        self.add_round(elapsed, [sample for own in samples for sample in own], cpu_ns=cpu)

    def add_round(
        self,
        elapsed_ns: float,
        samples_ns: Sequence[int] = (),
        *,
        operations: int | None = None,
        cpu_ns: float | None = None,
    ) -> None:
        """`cpu_ns`: None where it was not measured."""
        count = len(samples_ns) if operations is None else operations
        self.last_round = Round(elapsed_ns, samples_ns, count, cpu_ns)
        per = 1000 * max(1, count * self._documents)
        self._rounds_us.append(elapsed_ns / per)
        if cpu_ns is not None:
            self._cpu_us.append(cpu_ns / per)
        self._samples_ns.extend(samples_ns)
        self._operations += count

    def measured(self) -> Measured:
        """In microseconds per operation."""
        latencies = latencies_us(self._samples_ns)
        return Measured(self._rounds_us, self._operations, latencies, self._cpu_us)


@cache
def _cpu_clock_ns() -> int:
    """What two readings of the CPU clock cost, which a short call would be charged for."""
    taken: list[int] = []
    for _ in range(1_000):
        before = process_time_ns()
        perf_counter_ns()
        perf_counter_ns()
        taken.append(process_time_ns() - before)
    return int(median(taken))


@contextmanager
def garbage_apart() -> Generator[None]:
    """Inside, the collector does not look at what is in memory now: the benchmark's documents are
    not garbage of the engines."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def interleave(
    rounds: int, turns: Mapping[str, Callable[[int, Sampler], None]]
) -> dict[str, Measured]:
    """Runs each engine's turn in each round, with the round's number and the engine's sampler."""
    samplers = {name: Sampler() for name in turns}
    with garbage_apart():
        for number in range(rounds):
            for name, turn in turns.items():
                turn(number, samplers[name])
    return {name: sampler.measured() for name, sampler in samplers.items()}
