"""The child of the kill campaign: writers of a seeded workload, and what they tell before they die.

Commit number n of thread t is the same function of seed, t and n in every process, on documents
that no other thread writes; and one document, written by all, holds the number of each thread. So
what is recovered must be the state after whole commits, up to a number per thread that no
acknowledgement is ahead of; and a commit that is lost before a later one would be missed.

Invariants:
- A thread notes each acknowledged commit in shared memory, after it; the note outlives its death.
- The process dies at the n-th arrival at a named place (amberdb._failpoints), or at a call of the
  file seam with half of a write done, or whenever its parent's signal comes, or closes in the end.
- A child that finds less than was acknowledged says so and writes nothing on top.
- What the feed tells is compared with the commits, and goes on where it was acknowledged.
"""

import itertools
import mmap
import os
import random
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import amberdb
from amberdb import (
    Change,
    Database,
    LogTruncatedError,
    Lsn,
    Ordered,
    RollingBackups,
    Subscriber,
    Sync,
    Text,
    Unique,
    Vector,
)
from amberdb import _failpoints as failpoints
from amberdb.engine.maintenance import migrator
from amberdb.index.registry import IndexSpec
from support.databases import SMALL
from support.faulty_fs import KINDS, FaultyFileSystem
from support.model import Spec
from support.reference import Doc, same
from support.searches import (
    DIM,
    compare_searches,
    drawn_text,
    drawn_vector,
    small_limits,
)

THREADS = 4
NAMES = ("a", "b")
INDEXES: tuple[Spec, ...] = (
    Ordered("n"),
    Ordered("tags", "-n"),
    Unique("only", sparse=True),
    Ordered("-text"),
)
SEARCHES: tuple[IndexSpec, ...] = (Text("text"), Vector("v", dim=DIM, source="text"))
LONG_AGO = 1.0
SPARE = "spare"
"""How collections are called that come and go."""
State = dict[tuple[str, str], Doc]


def effects(seed: int, thread: int, number: int) -> list[tuple[str, str, Doc | None]]:
    """What a commit does, in order: (collection, id, document or None for a delete)."""
    rng = random.Random(f"{seed}:{thread}:{number}")
    found: list[tuple[str, str, Doc | None]] = []
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        name, id = rng.choice(NAMES), f"{thread}{rng.randrange(20):02}"
        if rng.random() < 0.25:
            found.append((name, id, None))
            continue
        doc: Doc = {
            "id": id,
            "n": number,
            "tags": [rng.randrange(5) for _ in range(rng.randrange(4))],
        }
        doc["text"] = rng.choice("xyz") * rng.choice((1, 50, 600, 3000))
        if rng.random() < 0.5:
            doc["text"] = drawn_text(rng)
        if rng.random() < 0.8:
            doc["v"] = drawn_vector(rng)
        if rng.random() < 0.5:
            doc["only"] = f"{name}{id}"
        if rng.random() < 0.15:
            doc["t"] = LONG_AGO
        found.append((name, id, doc))
    return found


def apply(state: State, seed: int, thread: int, number: int) -> None:
    """Moves the state after `number - 1` commits of a thread on to that after `number`."""
    for name, id, doc in effects(seed, thread, number):
        if doc is None or "t" in doc:
            state.pop((name, id), None)
        else:
            state[name, id] = doc


def numbers_in(db: Database) -> list[int]:
    """The last commit of each thread that is there."""
    found = db.collection("meta").get("n")
    return [0] * THREADS if found is None else list(found["numbers"])


def declare(db: Database) -> None:
    """The collections; their first declaration has all indexes, so `v` is an array for good. Those
    that were left in the middle of a migration get their function."""
    for name in db.collections():
        if name.startswith(SPARE):
            db.collection(name, version=2, migrate={2: _upgraded})
    db.collection("meta")
    for name in NAMES:
        is_new = name not in db.collections()
        specs = (*INDEXES, *SEARCHES) if is_new else None
        db.collection(name, indexes=specs, expires_at="t")


# -- what outlives the child -------------------------------------------------------------------


class Shared:
    """Numbers in memory that a death leaves as they are."""

    _PLACE, _TELLING, _TOLD, _CUT, _FOUND, _ACKNOWLEDGED = range(6)

    def __init__(self) -> None:
        self._codes = {name: code for code, name in enumerate(failpoints.NAMES, start=1)}
        self._slots = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")

    def reach(self, name: str | None) -> None:
        self._slots[self._PLACE] = 0 if name is None else self._codes[name]

    @property
    def place(self) -> str | None:
        """The one that any thread reached last; None when one was between two steps since."""
        code = self._slots[self._PLACE]
        return failpoints.NAMES[code - 1] if code else None

    def acknowledge(self, thread: int, number: int) -> None:
        self._slots[self._ACKNOWLEDGED + thread] = number

    @property
    def acknowledged(self) -> list[int]:
        """The last number of each thread that may not be lost."""
        first = self._ACKNOWLEDGED
        return self._slots[first : first + THREADS].tolist()

    def find(self, numbers: list[int]) -> None:
        """What an open has found, and may not be lost from there on."""
        for thread, (found, known) in enumerate(zip(numbers, self.acknowledged, strict=True)):
            assert found >= known, f"{self.acknowledged} was acknowledged, {numbers} is there"
            assert found <= known + 1, f"{numbers} was never begun after {self.acknowledged}"
            self._slots[self._FOUND] += found - known
            self.acknowledge(thread, found)

    @property
    def found(self) -> int:
        """How many commits were found that had not been acknowledged."""
        return self._slots[self._FOUND]

    @property
    def told(self) -> tuple[int, int]:
        """How many commits the subscriber has acknowledged at least, and at most."""
        return self._slots[self._TOLD], self._slots[self._TELLING]

    def follow(self, feed: Subscriber, seed: int, *, to_end: bool) -> None:
        """Compares what the feed tells, and acknowledges it. `to_end`: all there is, else what is
        durable."""
        try:
            changes = list(feed.changes())
        except LogTruncatedError as cut:
            assert erases(seed)
            self._slots[self._CUT] = 1  # until a commit is told, nobody knows how many were not
            feed.acknowledge(cut.resume)
            changes = list(feed.changes())
        is_cut = bool(self._slots[self._CUT])
        totals = _compare(changes, seed)
        if totals:
            assert is_cut or totals[0] - 1 in self.told, f"{totals} are told after {self.told}"
            assert totals == list(range(totals[0], totals[-1] + 1)), totals
            self._slots[self._TOLD] = totals[0] - 1
            self._slots[self._TELLING] = totals[-1]
            self._slots[self._CUT] = 0
        if to_end:
            last = sum(self.acknowledged)
            assert is_cut or last in (totals[-1:] or self.told), (last, totals, self.told)
            self._slots[self._TELLING] = last
        if changes:
            feed.acknowledge(changes[-1].lsn)
        if totals or to_end:
            self._slots[self._TOLD] = self._slots[self._TELLING]


def erases(seed: int) -> bool:
    """Whether the writers erase now and then, which moves the subscriber on."""
    return seed % 3 == 0


def subscriber(db: Database) -> Subscriber:
    return db.subscriber("s", since=Lsn(0))


def _compare(changes: list[Change], seed: int) -> list[int]:
    """How many commits there were after each that is told."""
    totals: list[int] = []
    changes = [change for change in changes if not change.collection.startswith(SPARE)]
    for _, group in itertools.groupby(changes, key=lambda change: change.lsn):
        commit = {(change.collection, change.id): change for change in group}
        meta = commit.pop(("meta", "n"), None)
        if meta is None:
            assert all(change.op == "expire" for change in commit.values())
            continue
        assert meta.document is not None
        totals.append(sum(meta.document["numbers"]))
        thread = meta.document["thread"]
        wanted = {
            (name, id): doc
            for name, id, doc in effects(seed, thread, meta.document["numbers"][thread])
        }
        for place, doc in wanted.items():
            found = commit.pop(place, None)
            if doc is None:  # what was not there is not deleted
                assert found is None or found.document is None, (place, found)
                continue
            assert found is not None, place
            # The check of a Unique index drops what had expired before it was put.
            is_gone = found.document is None and "t" in doc
            assert is_gone or same(found.document, doc), (place, found, doc)
        assert not commit
    return totals


# -- the child -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fate:
    """How a child is to end."""

    commits: int
    """So many, and it closes."""
    threads: int = 1
    place: str | None = None
    arrival: int = 1
    die_at: int = 0
    """The call of the file seam, counted from before opening."""
    die_in: str = ""
    """Counted are only calls on paths with this in them."""
    wait_s: float | None = None
    """The parent kills it so long after half of its commits."""


class Deadly(FaultyFileSystem):
    """Kills its own process where the base class would raise."""

    def error(self, path: str) -> OSError:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().error(path)


def _arm(shared: Shared, fate: Fate) -> None:
    arrivals = itertools.count(1)

    def reach(name: str) -> None:
        shared.reach(name)
        if name == fate.place and next(arrivals) >= fate.arrival:
            os.kill(os.getpid(), signal.SIGKILL)

    failpoints.install(reach)


def write(path: Path, seed: int, sync: Sync, shared: Shared, fate: Fate) -> None:
    """Never returns where its fate is to die."""
    _arm(shared, fate)
    fs = Deadly(where=fate.die_in)
    if fate.die_at:
        fs.arm(KINDS, fate.die_at, torn=True)
    options: dict[str, Any] = {
        "segment_bytes_max": 16384,
        "checkpoint_bytes": 60_000,
        "background": seed % 2 == 0,
        "backups": RollingBackups(
            every_minutes=None, every_commits=40, keep_hourly=1, keep_daily=0
        ),
        "reap_interval_ms": 5,
        "reap_grace_ms": 5,
    }
    if fate.threads > 1:
        sys.setswitchinterval(1e-5)
    with small_limits(), amberdb.open(path, **{**SMALL, **options}, fs=fs, sync=sync) as db:
        shared.reach(None)
        declare(db)
        numbers = numbers_in(db)
        shared.find(numbers)
        feed = subscriber(db)

        def work(thread: int) -> None:
            for number in itertools.count(numbers[thread] + 1):
                if number > numbers[thread] + fate.commits // fate.threads:
                    return
                shared.reach(None)
                if thread == 0:
                    _beside(db, feed, seed, number, shared)
                    _search(db, seed, number, fate.threads == 1)
                _commit(db, seed, thread, number)
                shared.acknowledge(thread, number)

        with ThreadPoolExecutor(fate.threads) as pool:
            for _ in pool.map(work, range(fate.threads)):
                pass
        shared.reach(None)


def _commit(db: Database, seed: int, thread: int, number: int) -> None:
    with db.transaction() as tx:
        for name, id, doc in effects(seed, thread, number):
            if doc is None:
                tx[name].delete(id)
            else:
                tx[name].put(doc)
        found = tx["meta"].get("n")
        numbers = [0] * THREADS if found is None else list(found["numbers"])
        assert numbers[thread] == number - 1
        numbers[thread] = number
        tx["meta"].put({"id": "n", "numbers": numbers, "thread": thread, "seed": seed})


def _beside(db: Database, feed: Subscriber, seed: int, number: int, shared: Shared) -> None:
    """What one thread does between its commits."""
    if number % 7 == 0:
        db.checkpoint()
    if number % 13 == 6:
        db.compact()
    if number % 19 == 4:
        db.backup()
    if number % 17 == 9 and erases(seed):
        db.erase("b", {"n": {"$lt": 0}}, reason="the campaign")
    if number % 5 == 3:
        db.expire()
    if number % 6 == 2:
        shared.follow(feed, seed, to_end=False)
    if number % 11 == 1:
        rng = random.Random(f"{seed}:{number}")
        some = [index for index in (*INDEXES, *SEARCHES) if rng.random() < 0.5]
        db.collection("a", indexes=some)
        if number % 2:
            db.build_indexes()
        db.collection("b", indexes=(*INDEXES, *SEARCHES))
    if number % 9 == 4:
        _declare_spare(db, number)


def _declare_spare(db: Database, number: int) -> None:
    """Drops what an earlier one has left, half-way or whole, and makes and migrates another one."""

    def check(name: str) -> None:
        spare = db.collection(name, version=2, migrate={2: _upgraded})
        assert all(doc["n"] >= 1000 for doc in spare.documents()), name
        assert len(spare.find({"n": {"$gte": 1010}})) in (0, 20), name

    for name in db.collections():
        if name.startswith(SPARE):
            check(name)
            db.drop_collection(name)
    spare = db.collection(SPARE, indexes=[Ordered("n"), Text("text")])
    spare.put_many({"id": str(n), "n": n, "text": "tea"} for n in range(30))
    db.rename_collection(SPARE, f"{SPARE}{number}")
    with patch.object(migrator, "CHUNK", 8):
        check(f"{SPARE}{number}")
        db.migrate()
        check(f"{SPARE}{number}")


def _upgraded(doc: Doc) -> Doc:
    return {**doc, "n": doc["n"] + 1000}


def _search(db: Database, seed: int, number: int, is_alone: bool) -> None:
    """Now and then, so that there are graphs to build; what is found is judged where nobody else
    writes."""
    rng = random.Random(f"{seed}:{number}")
    if number % 4 == 1:
        if is_alone:
            compare_searches(db, rng)
        else:
            db.collection("b").search(vector=drawn_vector(rng))
    if number % 8 == 1:
        db.build_indexes()
