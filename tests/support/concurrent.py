"""Threads that work one database at once under random thread switches, and write down a history.

Invariants:
- The seed draws what each thread does, the switch interval, and how often threads are made to
  yield: at calls of the file seam, at the named places (amberdb._failpoints), and when a read has
  begun; which thread runs next is the machine's, so a seed repeats the load and not the schedule.
- A thread counts `invoked` before its call begins and `returned` after it has ended.
"""

import itertools
import random
import select
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import amberdb
from amberdb import (
    ClosedError,
    Database,
    Ordered,
    ReadableCollection,
    Snapshot,
    Subscriber,
    Transaction,
)
from amberdb import _failpoints as failpoints
from amberdb._types import Sync
from amberdb.engine.storage.store import Store
from amberdb.engine.storage.trees import LmdbTransaction
from support.databases import SMALL, assert_sound
from support.faulty_fs import FaultyFileSystem
from support.history import Count, Find, Get, History, Kind, Operation, Read, Write

COLLECTIONS = ("left", "right")
IDS = 12
SYNCS: tuple[Sync, ...] = ("always", "interval", "os")
N_MAX = 30
INDEXES = [Ordered("n"), Ordered("-n"), Ordered("n", "v")]


class Yields:
    """Lets other threads run, at random: mostly for a moment, sometimes for several commits."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._begin = Store.begin
        self._chance = rng.choice((0.05, 0.2))
        """At a named place; a commit alone passes ten of them."""
        self.at_calls = 0
        self.at_reads = 0
        self.at_places: Counter[str] = Counter()
        self.reached: Counter[str] = Counter()
        """Places that threads passed, with a yield or without."""

    def at_call(self) -> None:
        if self._rng.random() < 0.3:
            self.at_calls += 1
            self._let_run()

    def at_place(self, name: str) -> None:
        self.reached[name] += 1
        if self._rng.random() < self._chance:
            self.at_places[name] += 1
            self._let_run()

    def begin(self, store: Store) -> LmdbTransaction:
        """In place of Store.begin: a reader has LMDB's state, and next looks what is visible. It
        waits long enough for a checkpoint and a commit behind it."""
        txn = self._begin(store)
        if self._rng.random() < 0.02:
            self.at_reads += 1
            self._let_run((0, 0.002, 0.02))
        return txn

    def _let_run(self, seconds: tuple[float, ...] = (0, 0, 0, 0.0002, 0.0002, 0.002)) -> None:
        select.select([], [], [], self._rng.choice(seconds))


class YieldingFileSystem(FaultyFileSystem):
    """Yields at calls that change a file."""

    def __init__(self, yields: Yields) -> None:
        super().__init__()
        self._yields = yields

    def fails(self, kind: str, path: str) -> bool:
        self._yields.at_call()
        return super().fails(kind, path)


@dataclass
class Round:
    """One database, its threads and what they saw."""

    path: str
    seed: int
    transactions_each: int = 30
    history: History = field(default_factory=History)

    def run(self) -> None:
        """Raises Violation, and whatever a thread raised."""
        rng = random.Random(self.seed)
        before = sys.getswitchinterval()
        sys.setswitchinterval(rng.choice((1e-6, 1e-5, 1e-4)))
        yields = self.yields = Yields(random.Random(rng.random()))
        failpoints.install(yields.at_place)

        def begin(store: Store) -> LmdbTransaction:
            return yields.begin(store)

        try:
            with (
                patch.object(Store, "begin", begin),
                self._open(YieldingFileSystem(yields)) as db,
            ):
                crew = _Crew(db, self.history, rng.random())
                crew.work(self.transactions_each)
                assert_sound(db)
                crew.finish_feed()
                if rng.random() < 0.5:
                    crew.write_into_close(self.transactions_each)
        finally:
            failpoints.install(None)
            sys.setswitchinterval(before)
        with self._open(FaultyFileSystem()) as db:
            _Crew(db, self.history, 0).read_everything()
            self.history.told += db.subscriber("feed").changes()
            assert_sound(db)
        self.history.judge()
        self.history.judge_feed()

    def _open(self, fs: FaultyFileSystem) -> Database:
        options: dict[str, Any] = {
            "background": True,
            "checkpoint_bytes": 20_000,
            "checkpoint_interval_ms": 10,
            "reap_interval_ms": 3,
            "reap_grace_ms": 3,
        }
        return amberdb.open(self.path, fs=fs, **{**SMALL, **options})


class _Crew:
    """The threads of one round, by what they do."""

    def __init__(self, db: Database, history: History, seed: float) -> None:
        self._db = db
        self._history = history
        self._rng = random.Random(seed)
        self._clock = itertools.count(1 + max((o.returned for o in history.operations), default=0))
        self._tokens = itertools.count(len(history.operations) * 100)
        self._errors: list[BaseException] = []
        self._stop = threading.Event()
        for name in COLLECTIONS:
            db.collection(name, expires_at="t")
        self._feed = db.subscriber("feed", since=amberdb.Lsn(0))

    def work(self, transactions_each: int) -> None:
        writers = [self._thread(self._write, transactions_each) for _ in range(4)]
        others = [
            self._thread(job, 0)
            for job in (self._look, self._look, self._read, self._look_after, self._follow)
        ]
        _join(writers)
        self._stop.set()
        _join(others)
        self._raise()

    def write_into_close(self, transactions: int) -> None:
        """What does not return before close() either raises ClosedError or is in the log."""
        warm = threading.Barrier(4)

        def write(rng: random.Random) -> None:
            warm.wait(60)
            try:
                for _ in range(transactions * 100):
                    self._write(rng)
            except ClosedError:
                pass

        writers = [self._thread(write, 1) for _ in range(3)]
        warm.wait(60)
        self._db.close()
        _join(writers)
        self._raise()

    def finish_feed(self) -> None:
        self._tell(self._feed)

    def read_everything(self) -> None:
        with (
            _Recorded(self._history, self._clock, "snapshot") as steps,
            self._db.snapshot() as at,
        ):
            steps.lsn = at.lsn
            for name in COLLECTIONS:
                steps.append(_find(at[name], name, 0, N_MAX))
                steps.append(_count(at[name], name, 0, N_MAX))

    def _thread(self, job: Callable[[random.Random], None], times: int) -> threading.Thread:
        """Runs `job` so many times; 0 is until stop."""
        rng = random.Random(self._rng.random())

        def run() -> None:
            try:
                for _ in range(times) if times else iter(self._stop.is_set, True):
                    job(rng)
            except BaseException as error:
                self._errors.append(error)
                self._stop.set()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def _raise(self) -> None:
        if self._errors:
            raise self._errors[0]

    def _write(self, rng: random.Random) -> None:
        sync: Sync = rng.choice(SYNCS)
        with _Recorded(self._history, self._clock, "commit") as steps:
            tx = self._db.transaction(sync=sync)
            with tx:
                for _ in range(rng.randrange(1, 4)):
                    self._change(tx, rng, steps)
            steps.lsn = tx.lsn

    def _change(self, tx: Transaction, rng: random.Random, steps: "_Recorded") -> None:
        """Reads, writes what depends on it, and reads its own write."""
        name = rng.choice(COLLECTIONS)
        steps.append(_any(tx[name], name, rng))
        id = f"{rng.randrange(IDS):02}"
        got = _get(tx[name], name, id)
        steps.append(got)
        if got.found is not None and rng.random() < 0.25:
            tx[name].delete(id)
            steps.append(Write(name, id, None))
        else:
            n = (0 if got.found is None else got.found["n"] + 1) % N_MAX
            due = 1.0 if rng.random() < 0.1 else None
            document = {"id": id, "n": n, "v": next(self._tokens), "t": due}
            tx[name].put(document)
            steps.append(Write(name, id, document))
        steps.append(_any(tx[name], name, rng))

    def _look(self, rng: random.Random) -> None:
        with _Recorded(self._history, self._clock, "snapshot") as steps:
            at: Snapshot = self._db.snapshot()
            with at:
                steps.lsn = at.lsn
                for _ in range(6):
                    name = rng.choice(COLLECTIONS)
                    steps.append(_any(at[name], name, rng))

    def _read(self, rng: random.Random) -> None:
        with _Recorded(self._history, self._clock, "read") as steps:
            name = rng.choice(COLLECTIONS)
            steps.append(_any(self._db.collection(name), name, rng))

    def _look_after(self, rng: random.Random) -> None:
        db = self._db
        what = rng.randrange(6)
        if what == 0:
            db.checkpoint()
        elif what == 5:
            db.compact()
        elif what == 1:
            db.expire()
        elif what == 2:
            db.sync()
        else:
            db.collection(rng.choice(COLLECTIONS), indexes=rng.sample(INDEXES, rng.randrange(3)))
            if what == 3:
                db.build_indexes()

    def _follow(self, rng: random.Random) -> None:
        self._tell(self._feed)

    def _tell(self, feed: Subscriber) -> None:
        told = list(feed.changes())
        self._history.told += told
        if told:
            feed.acknowledge(told[-1].lsn)


class _Recorded(list[Read | Write]):
    """The steps of one operation; it is in the history when the block ends well."""

    def __init__(self, history: History, clock: "itertools.count[int]", kind: Kind) -> None:
        super().__init__()
        self._history = history
        self._clock = clock
        self._kind: Kind = kind
        self._invoked = 0
        self.lsn: int | None = None

    def __enter__(self) -> "_Recorded":
        self._invoked = next(self._clock)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            done = Operation(self._kind, self._invoked, next(self._clock), self.lsn, list(self))
            self._history.operations.append(done)


def _any(collection: ReadableCollection, name: str, rng: random.Random) -> Read:
    low = rng.randrange(N_MAX)
    high = rng.randrange(low, N_MAX) + 1
    what = rng.randrange(3)
    if what == 0:
        return _get(collection, name, f"{rng.randrange(IDS):02}")
    if what == 1:
        return _count(collection, name, low, high)
    return _find(collection, name, low, high)


def _get(collection: ReadableCollection, name: str, id: str) -> Get:
    return Get(name, id, collection.get(id))


def _count(collection: ReadableCollection, name: str, low: int, high: int) -> Count:
    return Count(name, low, high, collection.count({"n": {"$gte": low, "$lt": high}}))


def _find(collection: ReadableCollection, name: str, low: int, high: int) -> Find:
    found = collection.find({"n": {"$gte": low, "$lt": high}}, order_by=["n", "v"])
    return Find(name, low, high, [dict(document) for document in found])


def _join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
