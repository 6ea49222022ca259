"""A forked child that writes a seeded workload, is killed, and what must be found afterwards.

Commit number n is the same function of seed and n in every process, and stores n itself; so what
is recovered must be the state after n whole commits, for an n that no acknowledgement is ahead of.

Invariants:
- The child notes each acknowledged commit in shared memory, after it; the note outlives its death.
- A child dies at the n-th arrival at a named place (amberdb._failpoints), or at a call of the file
  seam with half of a write done, or whenever the parent's signal comes, or closes in the end.
- A child that finds less than was acknowledged says so and writes nothing on top.
- One to three children die before the parent opens and compares, so that recovery is killed too.
"""

import mmap
import os
import random
import signal
import struct
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import amberdb
from amberdb import Database, Ordered, Sync, Unique
from amberdb import _failpoints as failpoints
from support.databases import SMALL
from support.faulty_fs import KINDS, FaultyFileSystem
from support.model import Spec
from support.reference import Doc, same

SYNCS: tuple[Sync, ...] = ("always", "interval", "os")
PHASES = ("commit", "checkpoint", "rotation", "index", "recovery")
"""Where a kill counts."""
OFTEN = ("commit", "rotation")
"""Phases whose places are passed by most commits."""
NEVER_HERE = ("expiry", "subscriber")
"""Phases that this workload has not."""
TARGETS = tuple(name for name in failpoints.NAMES if name.partition(".")[0] not in NEVER_HERE)
NAMES = ("a", "b")
INDEXES: tuple[Spec, ...] = (
    Ordered("n"),
    Ordered("tags", "-n"),
    Unique("only", sparse=True),
    Ordered("-text"),
)
State = dict[tuple[str, str], Doc]


def effects(seed: int, number: int) -> list[tuple[str, str, Doc | None]]:
    """What commit `number` does, in order: (collection, id, document or None for a delete)."""
    rng = random.Random(f"{seed}:{number}")
    found: list[tuple[str, str, Doc | None]] = []
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        name, id = rng.choice(NAMES), f"{rng.randrange(80):03}"
        if rng.random() < 0.25:
            found.append((name, id, None))
            continue
        doc = {"id": id, "n": number, "tags": [rng.randrange(5) for _ in range(rng.randrange(4))]}
        doc["text"] = rng.choice("xyz") * rng.choice((1, 50, 600, 3000))
        if rng.random() < 0.5:
            doc["only"] = f"{name}{id}"
        found.append((name, id, doc))
    found.append(("meta", "n", {"id": "n", "number": number, "seed": seed}))
    return found


def apply(state: State, seed: int, number: int) -> None:
    """Moves the state after `number - 1` commits on to that after `number`."""
    for name, id, doc in effects(seed, number):
        if doc is None:
            state.pop((name, id), None)
        else:
            state[name, id] = doc


def number_in(db: Database) -> int:
    """The last commit that is there."""
    found = db.collection("meta").get("n")
    return 0 if found is None else found["number"]


# -- the child -------------------------------------------------------------------------------


class Shared:
    """What a child tells, in memory that its death leaves: the last commit that was acknowledged,
    and the place it reached last, none between two steps of the workload."""

    _FORM = struct.Struct("<Qq")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, self._FORM.size)

    def tell(self, acknowledged: int) -> None:
        struct.pack_into("<Q", self._memory, 0, acknowledged)

    def reach(self, name: str | None) -> None:
        place = 0 if name is None else failpoints.NAMES.index(name) + 1
        struct.pack_into("<q", self._memory, 8, place)

    @property
    def acknowledged(self) -> int:
        return int(self._FORM.unpack_from(self._memory)[0])

    @property
    def place(self) -> str | None:
        place = int(self._FORM.unpack_from(self._memory)[1])
        return failpoints.NAMES[place - 1] if place else None


class _Deadly(FaultyFileSystem):
    """Kills its own process where the base class would raise."""

    def error(self, path: str) -> OSError:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().error(path)


@dataclass(frozen=True)
class Fate:
    """How a child is to end."""

    commits: int
    """So many, and it closes."""
    place: str | None = None
    arrival: int = 1
    die_at: int = 0
    """The call of the file seam, counted from before opening."""
    wait_s: float | None = None
    """The parent kills it so long after half of its commits."""


def _arm(shared: Shared, fate: Fate) -> None:
    arrivals = 0

    def reach(name: str) -> None:
        nonlocal arrivals
        shared.reach(name)
        if name == fate.place:
            arrivals += 1
            if arrivals == fate.arrival:
                os.kill(os.getpid(), signal.SIGKILL)

    failpoints.install(reach)


def write(path: Path, seed: int, sync: Sync, shared: Shared, fate: Fate) -> None:
    _arm(shared, fate)
    fs = _Deadly()
    if fate.die_at:
        fs.arm(KINDS, fate.die_at, torn=True)
    options: dict[str, Any] = {**SMALL, "segment_bytes_max": 16384, "background": seed % 2 == 0}
    options["checkpoint_bytes"] = 60_000
    with amberdb.open(path, **options, fs=fs, sync=sync) as db:
        number = number_in(db)
        assert 0 <= number - shared.acknowledged <= 1, (number, shared.acknowledged)
        for name in (*NAMES, "meta"):
            db.collection(name)
        for _ in range(fate.commits):
            shared.reach(None)
            number += 1
            if number % 7 == 0:
                db.checkpoint()
            if number % 11 == 1:
                wanted = [index for at, index in enumerate(INDEXES) if number // 11 >> at & 1]
                db.collection("a", indexes=wanted)
                if number % 2:
                    db.build_indexes()
                db.collection("b", indexes=INDEXES)
            with db.transaction() as tx:
                for name, id, doc in effects(seed, number):
                    if doc is None:
                        tx[name].delete(id)
                    else:
                        tx[name].put(doc)
            shared.tell(number)


# -- the parent ------------------------------------------------------------------------------


@dataclass
class Figures:
    """What came of many kills."""

    kills: Counter[str] = field(default_factory=Counter[str])
    """By the place that was reached last, all ways to die; in PHASES only."""
    elsewhere: Counter[str] = field(default_factory=Counter[str])
    """The same, outside of PHASES; "between" is between two steps of the workload."""
    ways: Counter[str] = field(default_factory=Counter[str])
    tried: Counter[str] = field(default_factory=Counter[str])
    closed: int = 0
    acknowledged: int = 0
    unacknowledged: int = 0
    verified: int = 0
    cuts: int = 0
    replayed: int = 0
    open_ms_max: float = 0.0

    @property
    def counted(self) -> int:
        return self.kills.total()


@dataclass
class Killer:
    """One database whose writers are killed again and again."""

    path: Path
    seed: int
    sync: Sync
    figures: Figures = field(default_factory=Figures)
    number: int = 0
    """The last commit found by verify()."""

    def __post_init__(self) -> None:
        self.rng = random.Random(f"{self.seed}:{self.sync}")
        self._shared = Shared()
        self._state: State = {}

    def round(self) -> None:
        """Up to three children, one after the other; then compares."""
        recovers = False
        for _ in range(self.rng.choice((1, 2, 3))):
            recovers = self._run(self._fate(recovers))
        self.verify()

    def _fate(self, recovers: bool) -> Fate:
        rng = self.rng
        commits = rng.randrange(1, 40)
        way = rng.random()
        if way < 0.7:
            place = min(
                (name for name in TARGETS if self._can_reach(name, recovers)),
                key=lambda name: (self.figures.tried[name], rng.random()),
            )
            self.figures.tried[place] += 1
            often = place.startswith(OFTEN)
            return Fate(40, place, rng.randrange(1, 20 if often else 3))
        if way < 0.85:
            return Fate(commits, die_at=rng.randrange(1, 300))
        return Fate(commits, wait_s=rng.random() * 0.003)

    def _can_reach(self, name: str, recovers: bool) -> bool:
        if name.startswith("create."):
            return not self.path.exists()
        return recovers or not name.startswith("recovery.tail")

    def _run(self, fate: Fate) -> bool:
        """Whether the next open has to recover."""
        shared = self._shared
        before = shared.acknowledged
        shared.reach(None)
        pid = os.fork()
        if pid == 0:
            self._child(fate)
        if fate.wait_s is not None:
            self._kill_later(pid, before + fate.commits // 2, fate.wait_s)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, -signal.SIGKILL), f"the child ended with {code} by itself: {fate}"
        self.figures.acknowledged += shared.acknowledged - before
        if code == 0:
            self.figures.closed += 1
            return False
        place = shared.place if fate.place is None else fate.place
        phase = "between" if place is None else place.partition(".")[0]
        if place is not None and phase in PHASES:
            self.figures.kills[place] += 1
            self.figures.ways[
                "place" if fate.place else "file call" if fate.die_at else "any time"
            ] += 1
        else:
            self.figures.elsewhere[place or phase] += 1
        return True

    def _child(self, fate: Fate) -> None:
        code = 1
        try:
            write(self.path, self.seed, self.sync, self._shared, fate)
            code = 0
        except BaseException:  # nothing of the parent's may run in the child
            traceback.print_exc()
        finally:
            os._exit(code)

    def _kill_later(self, pid: int, number: int, wait_s: float) -> None:
        while self._shared.acknowledged < number:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return
            os.sched_yield()
        end = time.perf_counter() + wait_s
        while time.perf_counter() < end:
            pass
        os.kill(pid, signal.SIGKILL)

    def verify(self) -> None:
        acknowledged = self._shared.acknowledged
        figures = self.figures
        began = time.perf_counter()
        with amberdb.open(self.path, **SMALL) as db:
            figures.open_ms_max = max(figures.open_ms_max, (time.perf_counter() - began) * 1000)
            if db.recovery is not None:
                figures.cuts += db.recovery.cut is not None
                figures.replayed += db.recovery.records
            for name in (*NAMES, "meta"):
                db.collection(name)
            number = number_in(db)
            assert number >= acknowledged, f"{acknowledged} was acknowledged, {number} is there"
            assert number <= acknowledged + 1, "a commit that was never begun"
            wanted = self._state
            for each in range(self.number + 1, number + 1):
                apply(wanted, self.seed, each)
            found: State = {
                (name, doc["id"]): doc
                for name in (*NAMES, "meta")
                for doc in db.collection(name).documents()
            }
            assert found.keys() == wanted.keys()
            assert all(same(found[place], wanted[place]) for place in wanted)
            report = db.check()
            assert report.ok, report
        figures.verified += 1
        figures.unacknowledged += number - acknowledged
        self.number = number
        self._shared.tell(number)  # found and kept: from here on it may not be lost
