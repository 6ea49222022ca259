"""Processes that read the database of a kill campaign, whoever writes it, dies and comes back.

Invariants:
- What had been acknowledged before a view was taken is in it; what one view has shown is in every
  later one: so nothing is seen that a death of the writer takes back.
- A view is the state after whole commits, at one Lsn, and stays it for as long as it is held.
- A watcher never ends by itself; it tells its counts in memory that its death leaves.
"""

import contextlib
import itertools
import mmap
import os
import random
import signal
import traceback
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import amberdb
from amberdb import CollectionMissingError, Database, DatabaseMissingError, Snapshot, Text, Vector
from amberdb.index.text.text import TextExtractor
from support.databases import SMALL, assert_sound
from support.doomed import NAMES, THREADS, Shared, State, apply
from support.killing import Killer
from support.ranking import agree, bm25, nearest
from support.reference import same
from support.searches import DIM, drawn_text, drawn_vector, small_limits

COUNTS: Final = ("opened", "views", "states", "held", "searches", "checks")
_STOP: Final = len(COUNTS)


class Watcher:
    """One process."""

    def __init__(self, killer: Killer, seed: str) -> None:
        self._slots = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                with small_limits():
                    _Watch(killer.path, killer.seed, killer.shared, seed, self._slots).run()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)

    @property
    def counts(self) -> Counter[str]:
        return Counter(dict(zip(COUNTS, self._slots.tolist(), strict=False)))

    def check(self) -> None:
        """Fails when it has ended by itself."""
        assert os.waitpid(self.pid, os.WNOHANG) == (0, 0), "a reader has failed: see above"

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):  # it has failed already
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def stop(self) -> None:
        self._slots[_STOP] = 1
        _, status = os.waitpid(self.pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0, "a reader has failed: see above"


class Watchers:
    """A number of them, of which one is killed and replaced now and then."""

    def __init__(self, killer: Killer, number: int, counts: Counter[str]) -> None:
        self._killer = killer
        self._counts = counts
        self._numbers = itertools.count()
        self._watchers = [self._started() for _ in range(number)]

    def __enter__(self) -> "Watchers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for watcher in self._watchers:
            watcher.kill() if error is not None else watcher.stop()
            self._counts.update(watcher.counts)

    def next_round(self) -> None:
        """Fails when one of them has."""
        for watcher in self._watchers:
            watcher.check()
        if self._watchers and self._killer.rng.random() < 0.5:
            dead = self._watchers.pop(0)
            dead.kill()
            self._counts.update(dead.counts)
            self._counts["killed"] += 1
            self._watchers.append(self._started())

    def _started(self) -> Watcher:
        return Watcher(self._killer, f"{self._killer.seed}:{next(self._numbers)}")


class _Watch:
    """The child."""

    def __init__(
        self, path: Path, seed: int, shared: Shared, own_seed: str, slots: "memoryview[int]"
    ) -> None:
        self._path = path
        self._seed = seed
        self._shared = shared
        self._slots = slots
        self._rng = random.Random(own_seed)
        self._numbers = [0] * THREADS
        self._state: State = {}
        self._lsn = 0
        self._kept: tuple[Snapshot, State] | None = None

    def run(self) -> None:
        while not self._slots[_STOP]:
            try:
                db = amberdb.open(self._path, read_only=True, **SMALL)
            except DatabaseMissingError:  # not yet
                continue
            with db:
                self._count("opened")
                for _ in range(self._rng.randrange(1, 60)):
                    if not self._slots[_STOP]:
                        self._look(db)
                if self._rng.random() < 0.2:
                    assert_sound(db)
                    self._count("checks")
            self._kept = None

    def _count(self, what: str) -> None:
        self._slots[COUNTS.index(what)] += 1

    def _look(self, db: Database) -> None:
        acknowledged = self._shared.acknowledged  # before the view
        at = db.snapshot()
        assert at.lsn >= self._lsn, f"Lsn {at.lsn} after {self._lsn}"
        self._lsn = at.lsn
        try:
            found = at["meta"].get("n")
        except CollectionMissingError:
            found = None
        numbers = [0] * THREADS if found is None else found["numbers"]
        for number, least, known in zip(numbers, acknowledged, self._numbers, strict=True):
            assert number >= least, f"{numbers} is seen after {acknowledged} was acknowledged"
            assert number >= known, f"{numbers} is seen after {self._numbers} was"
        if numbers != self._numbers:
            self._count("states")
            self._state = dict(self._state)
            for thread, (old, new) in enumerate(zip(self._numbers, numbers, strict=True)):
                for number in range(old + 1, new + 1):
                    apply(self._state, self._seed, thread, number)
            self._numbers = numbers
        compare(at, self._state)
        self._count("views")
        self._hold(at)

    def _hold(self, at: Snapshot) -> None:
        """Some snapshots are looked at again after whatever came meanwhile."""
        if self._rng.random() < 0.2 and "b" in {name for name, _ in self._state}:
            self._search(at)
        kept = self._kept
        if kept is None:
            self._kept = (at, self._state)
            return
        at.close()
        if self._rng.random() < 0.2:
            compare(*kept)
            kept[0].close()
            self._count("held")
            self._kept = None

    def _search(self, at: Snapshot) -> None:
        """In "b", whose indexes are always all there."""
        documents = list(at["b"].documents())
        vector: Any = drawn_vector(self._rng)
        agree(
            at["b"].search(vector=vector, limit=4),
            nearest(documents, vector.tolist(), "v", Vector("v", dim=DIM).metric),
            4,
        )
        words = drawn_text(self._rng)
        scores = bm25(documents, words, ("text",), TextExtractor(Text("text")).analyzer)
        agree(at["b"].search(words, limit=4), scores, 4)
        self._count("searches")


def compare(at: Snapshot, wanted: State) -> None:
    """Fails unless the snapshot is in this state."""
    found: State = {}
    for name in NAMES:
        try:
            found |= {(name, document["id"]): document for document in at[name].documents()}
        except CollectionMissingError:
            pass
    assert found.keys() == wanted.keys(), (at.lsn, found.keys() ^ wanted.keys())
    assert all(same(found[place], wanted[place]) for place in wanted)
