"""The parent of the kill campaign: how writers are to die, and what must be found afterwards.

Invariants:
- Places that were hit least are chosen most often.
- One to five children die before the parent opens and compares, so that recovery is killed too.
- A kill is counted by the phase of the place that was reached last, and only in PHASES.
"""

import os
import random
import signal
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import amberdb
from amberdb import Database, Sync
from amberdb import _failpoints as failpoints
from support.databases import SMALL, assert_sound
from support.doomed import (
    NAMES,
    THREADS,
    Fate,
    Shared,
    State,
    apply,
    declare,
    numbers_in,
    subscriber,
    write,
)
from support.reference import same
from support.searches import compare_searches, small_limits

SYNCS: tuple[Sync, ...] = ("always", "interval", "os")
PHASES = (
    "commit",
    "checkpoint",
    "rotation",
    "index",
    "merge",
    "vectors",
    "compact",
    "schema",
    "migration",
    "erase",
    "rolling",
    "recovery",
    "expiry",
    "close",
)
"""Where a kill counts."""
OFTEN = ("commit", "rotation")
"""Phases whose places are passed by most commits."""


@dataclass
class Figures:
    """What came of many kills."""

    places: Counter[str] = field(default_factory=Counter[str])
    """Killed exactly there, by place."""
    phases: Counter[str] = field(default_factory=Counter[str])
    """All kills, by phase; "between" is between two steps of the workload."""
    ways: Counter[str] = field(default_factory=Counter[str])
    """The counted ones, by way to die."""
    among_threads: int = 0
    """The counted ones while several threads wrote."""
    closed: int = 0
    acknowledged: int = 0
    unacknowledged: int = 0
    verified: int = 0
    cuts: int = 0
    replayed: int = 0
    searches: Counter[str] = field(default_factory=Counter[str])
    """Compared by the parent, by way."""
    backups: int = 0
    """Archives that were verified after a kill."""
    caches: int = 0
    """Files in cache/ that the parent's searches used."""
    open_ms_max: float = 0.0

    @property
    def counted(self) -> int:
        return sum(self.phases[phase] for phase in PHASES)

    def least(self) -> list[tuple[int, str]]:
        """The places by how often they were hit, the rarest first."""
        return sorted((self.places[name], name) for name in failpoints.NAMES)


@dataclass
class Killer:
    """One database whose writers are killed again and again."""

    path: Path
    seed: int
    sync: Sync
    figures: Figures = field(default_factory=Figures)

    def __post_init__(self) -> None:
        self.rng = random.Random(f"{self.seed}:{self.sync}")
        self.numbers = [0] * THREADS
        """The last commits found by verify()."""
        self.shared = Shared()
        self._found = 0
        self._state: State = {}

    def round(self) -> None:
        """Up to five children, one after the other; then compares."""
        recovers = False
        for _ in range(self.rng.randrange(1, 6)):
            recovers = self._run(self._fate(recovers))
        self.verify()

    def _fate(self, recovers: bool) -> Fate:
        rng = self.rng
        commits = rng.randrange(1, 40)
        threads = rng.choice((1, 1, THREADS))
        way = rng.random()
        if way < 0.8 or not self.path.exists():
            places = [name for name in failpoints.NAMES if self._can_reach(name, recovers)]
            weights = [1 / (1 + self.figures.places[name]) ** 2 for name in places]
            (place,) = rng.choices(places, weights)
            if place.startswith("close."):
                return Fate(commits, threads, place)
            often = place.startswith(OFTEN)
            return Fate(40, threads, place, rng.randrange(1, 12 if often else 3))
        if way < 0.86:
            return Fate(40, threads, die_at=rng.randrange(1, 60), die_in="/cache")
        if way < 0.92:
            return Fate(commits, threads, die_at=rng.randrange(1, 300))
        return Fate(commits, threads, wait_s=rng.random() * 0.003)

    def _can_reach(self, name: str, recovers: bool) -> bool:
        is_creation = name.startswith("create.")
        if not self.path.exists():
            return is_creation
        return not is_creation and (recovers or not name.startswith("recovery.tail"))

    def _run(self, fate: Fate) -> bool:
        """Whether the next open has to recover."""
        shared = self.shared
        shared.reach(None)
        half = sum(shared.acknowledged) + fate.commits // 2
        pid = os.fork()
        if pid == 0:
            self._child(fate)
        if fate.wait_s is not None:
            self._kill_later(pid, half, fate.wait_s)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, -signal.SIGKILL), f"the child ended with {code} by itself: {fate}"
        if code == 0:
            self.figures.closed += 1
            return False
        self._count(fate)
        return True

    def _count(self, fate: Fate) -> None:
        figures = self.figures
        place = fate.place or self.shared.place
        phase = "between" if place is None else place.partition(".")[0]
        phase = "vectors" if fate.die_in else phase
        figures.phases[phase] += 1
        if fate.place is not None:
            figures.places[fate.place] += 1
        if phase in PHASES:
            way = "place" if fate.place else "file call" if fate.die_at else "any time"
            way = "file call in cache/" if fate.die_in else way
            figures.ways[way] += 1
            figures.among_threads += fate.threads > 1

    def _child(self, fate: Fate) -> None:
        code = 1
        try:
            write(self.path, self.seed, self.sync, self.shared, fate)
            code = 0
        except BaseException:  # nothing of the parent's may run in the child
            traceback.print_exc()
        finally:
            os._exit(code)

    def _kill_later(self, pid: int, number: int, wait_s: float) -> None:
        while sum(self.shared.acknowledged) < number:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return
            os.sched_yield()
        end = time.perf_counter() + wait_s
        while time.perf_counter() < end:
            pass
        os.kill(pid, signal.SIGKILL)

    def verify(self) -> None:
        shared = self.shared
        figures = self.figures
        began = time.perf_counter()
        with small_limits(), amberdb.open(self.path, **SMALL) as db:
            figures.open_ms_max = max(figures.open_ms_max, (time.perf_counter() - began) * 1000)
            if db.recovery is not None:
                figures.cuts += db.recovery.cut is not None
                figures.replayed += db.recovery.records
            declare(db)
            numbers = numbers_in(db)
            shared.find(numbers)
            wanted = self._state
            for thread, (old, new) in enumerate(zip(self.numbers, numbers, strict=True)):
                for number in range(old + 1, new + 1):
                    apply(wanted, self.seed, thread, number)
            found_state: State = {
                (name, doc["id"]): doc for name in NAMES for doc in db.collection(name).documents()
            }
            assert found_state.keys() == wanted.keys()
            assert all(same(found_state[place], wanted[place]) for place in wanted)
            shared.follow(subscriber(db), self.seed, to_end=True)
            self._search(db)
            assert_sound(db)
        self._verify_backups()
        figures.verified += 1
        figures.unacknowledged += shared.found - self._found
        figures.acknowledged += sum(numbers) - sum(self.numbers) - (shared.found - self._found)
        self.numbers, self._found = numbers, shared.found

    def _verify_backups(self) -> None:
        """Each is whole, and goes on from one that is there."""
        folder = Path(f"{self.path}.backups")
        reports = [amberdb.verify_backup(path)[0] for path in folder.glob("*.amberbak")]
        ends = {report.lsn for report in reports}
        assert all(report.is_full or report.after_lsn in ends for report in reports), reports
        assert len(list(folder.glob("*.tmp"))) <= 1, "those of earlier kills go"
        self.figures.backups += len(reports)

    def _search(self, db: Database) -> None:
        """Of what the writers left, and of what is built of it."""
        figures = self.figures
        figures.searches += compare_searches(db, self.rng)
        figures.caches += len(list(self.path.glob("cache/*.cache")))
        db.build_indexes()
        figures.searches += compare_searches(db, self.rng)
