"""Timing: single calls, whole rounds, threads, and engines that take turns.

Invariants:
- Engines take turns within each round (A B C, A B C, ...), so that a slow minute of the machine
  hits all of them.
- A round's figure is total time over operations, stalls included; percentiles are over single
  operations of all rounds.
- The garbage collector stays on, as in an application; the benchmark's own objects are frozen.
"""

import gc
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import perf_counter_ns
from typing import TypeVar

from bench.harness.latency import latencies_us
from bench.harness.line import Measured

Item = TypeVar("Item")


class Sampler:
    """Times the rounds of one engine in one row."""

    def __init__(self) -> None:
        self._rounds_us: list[float] = []
        self._samples_ns: list[int] = []
        self._operations = 0

    def each(self, call: Callable[[Item], object], items: Iterable[Item]) -> None:
        """One round of calls, each timed; for calls of at least ten microseconds."""
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
        """One round of calls timed as a whole, then a quarter of them singly for the percentiles.

        For calls so short that reading the clock would distort the figure.
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


def interleave(
    rounds: int, turns: Mapping[str, Callable[[int, Sampler], None]]
) -> dict[str, Measured]:
    """Runs each engine's turn in each round, with the round's number and the engine's sampler."""
    gc.collect()
    gc.freeze()  # the benchmark's documents are not garbage of the engines
    samplers = {name: Sampler() for name in turns}
    for number in range(rounds):
        for name, turn in turns.items():
            turn(number, samplers[name])
    gc.unfreeze()
    return {name: sampler.measured() for name, sampler in samplers.items()}
