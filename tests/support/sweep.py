"""Crash sweeps: a recorded workload is crashed after every operation, in every mode.

Each image is opened as a user would, checked, and compared with the states that the workload went
through: what is there must be one of them, not older than what was promised, and nothing newer
than what was begun. Opening is itself recorded for some images, and swept in the same way.

Invariants:
- An image counts once for each workload, crash point, mode and recovered state.
- Images with the same bytes are opened once; what came of it is remembered.
- What was served after an opening stays: a crash in that opening or behind it recovers the same.
"""

import hashlib
import logging
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final
from unittest.mock import patch

import lmdb

import amberdb
from amberdb import AmberError, Database
from amberdb.engine.search.searchers import Searchers
from amberdb.engine.storage.data_file import DATA_FILE
from support.databases import FakeClock, assert_sound
from support.disk import Disk
from support.images import MODES, Mode, images
from support.inside import engine_of
from support.promise import Promise
from support.recorder import SeamRecorder
from support.reference import same
from support.remains import files_of
from support.searches import compare_searches, put_on_top, small_limits
from support.trace import Create, Image, Note, Op, Sync, Trace, TraceBuilder, Truncate, Write
from support.workload import (
    NAME,
    OPTIONS,
    Documents,
    MigrationStep,
    Recorder,
    Workload,
    erased_word,
    give_functions,
)

Outcome = tuple[tuple[int, ...], int, str]
"""(the states that it may be, the next Lsn, what opening reported)"""


@final
@dataclass
class Figures:
    """What a sweep has done."""

    workloads: int = 0
    points: int = 0
    inside: int = 0
    """Of the points, those inside of a commit of LMDB: its pages written, its file grown or synced,
    its meta page written and not yet synced."""
    images: Counter[str] = field(default_factory=Counter[str])
    """Per mode, those that differ in crash point, mode and recovered state."""
    generated: int = 0
    opened: int = 0
    """Distinct by their bytes, within a workload."""
    cut: int = 0
    """Openings that cut a torn tail."""
    continued: int = 0
    """Openings that went on with an interrupted index build or purge."""
    inner_traces: int = 0
    """Openings that were themselves swept."""
    caches: Counter[str] = field(default_factory=Counter[str])
    """Files in cache/ of opened images: "used", or "dropped" at open or at the first search."""
    searches: Counter[str] = field(default_factory=Counter[str])
    """Compared searches of opened images, by way."""

    erasures: int = 0
    """Complete ones, of opened images."""
    resumed: int = 0
    """Opened images whose erasures were not complete, and were completed."""

    def add(self, other: "Figures") -> None:
        self.workloads += other.workloads
        self.points += other.points
        self.inside += other.inside
        self.images += other.images
        self.generated += other.generated
        self.opened += other.opened
        self.cut += other.cut
        self.continued += other.continued
        self.inner_traces += other.inner_traces
        self.erasures += other.erasures
        self.resumed += other.resumed
        self.caches += other.caches
        self.searches += other.searches

    def line(self) -> str:
        total = sum(self.images.values())
        shares = ", ".join(f"{mode} {self.images[mode] / max(total, 1):.1%}" for mode in MODES)
        return (
            f"{self.workloads} workloads, {self.points} crash points "
            f"({self.inside} inside of commits of LMDB), {total} images "
            f"({self.generated} made, {self.opened} opened, {self.cut} tails cut, "
            f"{self.continued} builds continued, {self.inner_traces} openings swept, "
            f"{self.searches.total()} searches, {self.searches['graph']} of them by graph, "
            f"{self.erasures} complete erasures, {self.resumed} completed, "
            f"{self.caches['used']} files in cache/ used, {self.caches['dropped']} dropped): "
            f"{shares}"
        )


class Lost(AssertionError):
    """An image broke a promise; the message names workload, point and mode."""


@final
class Sweep:
    """One recorded workload and all images of it."""

    def __init__(
        self,
        figures: Figures,
        name: str,
        steps: Iterable[MigrationStep],
        *,
        seed: int = 0,
        variants: int = 2,
        recorder: Recorder | None = None,
    ) -> None:
        self.figures = figures
        self.name = name
        self._steps = list(steps)
        self._seed = seed
        self._variants = variants
        self._recorder = recorder or SeamRecorder()
        self._due = random.Random(seed).random()
        self._step = 1
        self._passed = 0
        self._now = 0.0
        self._states: list[Documents] = []
        self._seen: dict[bytes, Outcome] = {}
        self._counted: set[tuple[str, int, Mode, str]] = set()
        memory = Path("/dev/shm")
        self._root = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None)).resolve()

    def run(self, *, recoveries: float = 0.0, since: int = 0, step: int = 1) -> None:
        """`recoveries` is the share of crash points at which the opening is swept as well. The
        first `since` steps are only gone through: crashes begin with the next one, after each
        `step`-th operation."""
        self._step = step
        if since:
            self._steps.insert(since, _begin_here)
        try:
            recording = self._recorder.workload(self._root, self._seed, self._steps)
            self._now = recording.now
            self._states = [self._alive(state) for state in recording.states]
            where = f"{self.name}, seed {self._seed}"
            with unlogged():
                self._crash(*_begun(recording.trace), recoveries, where)
        finally:
            shutil.rmtree(self._root)
        self.figures.workloads += 1

    # -- inside ------------------------------------------------------------------------------

    def _crash(
        self, trace: Trace, begin: int, promise: Promise, recoveries: float, where: str
    ) -> None:
        """Crashes after each operation from number `begin` on."""
        disk = Disk(trace)
        stores = {inode for path, inode in trace.inodes.items() if path.endswith(DATA_FILE)}
        for at, op in enumerate(trace.ops):
            disk.apply(op)
            if isinstance(op, Create) and op.path.endswith(DATA_FILE):
                stores.add(op.inode)
            if at < begin:
                continue
            if isinstance(op, Note):
                promise.read(op)
            if isinstance(op, Note) or (isinstance(op, Write) and op.is_mapped):
                continue
            self._passed += 1
            if self._passed % self._step:
                continue
            self.figures.points += 1
            self.figures.inside += _is_inside(op, stores)
            for mode in MODES:
                rng = random.Random(f"{self._seed}/{where}/{at}/{mode}")
                for image in images(disk, mode, rng, self._variants):
                    place = f"{where}, operation {at}, {mode}"
                    outcome = self._verify(image, promise, mode, place)
                    self._count(where, at, mode, outcome)
                    if self._is_due(recoveries / len(MODES)):
                        survives = mode == "clean prefix"  # the system, with what is pending
                        later = self._reopen(image, max(outcome[0]), disk if survives else None)
                        inner, start = later, 0
                        if survives:
                            inner, start = trace.continued(at + 1, later.ops), at + 1
                        self._crash_recovery(inner, start, promise, outcome, recoveries, place)

    def _crash_recovery(
        self,
        trace: Trace,
        begin: int,
        before: Promise,
        outcome: Outcome,
        recoveries: float,
        where: str,
    ) -> None:
        """Crashes in the opening of an image, and behind it."""
        self.figures.inner_traces += 1
        promise = Promise()
        promise.created = before.created
        promise.durable = promise.acknowledged = before.durable
        promise.begun = max(outcome[0])
        self._crash(trace, begin, promise, recoveries / 4, where)

    def _is_due(self, share: float) -> bool:
        """True for this share of the calls, evenly: drawn by lot, a short sweep has too few."""
        self._due += share
        is_due = self._due >= 1
        self._due -= is_due
        return is_due

    def _verify(self, image: Image, promise: Promise, mode: Mode, place: str) -> Outcome:
        self.figures.generated += 1
        key = _digest(image)
        outcome = self._seen.get(key)
        if promise.created and f"{NAME}/MANIFEST" not in image.files:
            raise Lost(f"{place}: the database itself is gone")
        if outcome is None:
            outcome = self._seen[key] = self._recover(image, place)
            self.figures.opened += 1
        numbers, next_lsn, _ = outcome
        if next_lsn <= promise.lsn:
            raise Lost(f"{place}: Lsn {promise.lsn} was given, and {next_lsn} would be the next")
        wanted = promise.acknowledged if mode == "clean prefix" else promise.durable
        if not any(wanted <= number <= promise.begun for number in numbers):
            raise Lost(
                f"{place}: commit {wanted} was acknowledged, {promise.begun} was the last begun, "
                f"and what is there is {' or '.join(map(str, numbers))}"
            )
        return outcome

    def _recover(self, image: Image, place: str) -> Outcome:
        found: list[Outcome] = []

        def compare(db: Database) -> None:
            numbers = self._checked(db, place)
            recovery = db.recovery
            self.figures.cut += recovery is not None and recovery.cut is not None
            next_lsn = engine_of(db).committer.log.next_lsn
            found.append((numbers, next_lsn, f"{numbers} {recovery}"))
            if not engine_of(db).indexer.is_idle():
                self.figures.continued += 1
                db.build_indexes()
                if self._checked(db, place) != numbers:
                    raise Lost(f"{place}: building the indexes changed the documents")
            self._look_for_erased(db, image, place)
            try:
                self._search(db, image, place)
            except AssertionError as error:
                raise Lost(f"{place}: a search: {error}") from error

        root = self._root / "image"
        image.write_to(root)
        try:
            with (
                small_limits(),
                amberdb.open(root / NAME, **OPTIONS, clock=FakeClock(self._now)) as db,
            ):
                compare(db)
        except (AmberError, OSError, lmdb.Error) as error:
            raise Lost(f"{place}: {error!r}") from error
        finally:
            shutil.rmtree(root)
        return found[0]

    def _look_for_erased(self, db: Database, image: Image, place: str) -> None:
        """What a receipt calls complete is in no file that the crash left; what waits is in none
        once it is completed."""
        waiting: list[bytes] = []
        for receipt in db.erasures():
            word = erased_word(int(receipt.reason.split()[1])).encode()
            if receipt.completed is None:
                waiting.append(word)
                continue
            self.figures.erasures += 1
            for path, data in image.files.items():
                if word in data:
                    raise Lost(f"{place}: {path} has what was erased")
        if waiting:
            self.figures.resumed += 1
            db.compact()
            for path, data in files_of(db.path):
                if any(word in data for word in waiting):
                    raise Lost(f"{place}: {path} has what was erased, after compact()")

    def _search(self, db: Database, image: Image, place: str) -> None:
        """In what a crash left, and, with vectors, in what is built of it and put on top: there
        rowids that were lost are given again, before or after the files in cache/ are read."""
        rng = random.Random(place)
        if rng.random() < 0.5:
            put_on_top(db, rng)
        ways = compare_searches(db, rng)
        self.figures.searches += ways
        if ways.keys() <= {"text"}:
            return
        folder = Path(db.path, "cache")
        before = [path for path in image.files if path.endswith(".cache")]
        used = len(list(folder.glob("*.cache")))
        self.figures.caches += Counter(used=used, dropped=len(before) - used)
        db.build_indexes()
        put_on_top(db, rng)
        self.figures.searches += compare_searches(db, rng)
        keyspaces = {
            index.keyspace for name in db.collections() for index in db.definition(name).indexes
        }
        strays = [
            path.name for path in folder.glob("*") if path.name[:-6] not in map(str, keyspaces)
        ]
        assert not strays, f"{strays} are in cache/, and the indexes are {keyspaces}"
        assert_sound(db)

    def _checked(self, db: Database, place: str) -> tuple[int, ...]:
        """The states that it may be."""
        give_functions(db)
        # A search is to be the first to read a file in cache/, after lost rowids were given again.
        with patch.object(Searchers, "problems", _no_problems):
            report = db.check()
        if not report.ok:
            raise Lost(f"{place}: {report}")
        documents: Documents = {
            (name, doc["id"]): doc
            for name in db.collections()
            for doc in db.collection(name).documents()
        }
        numbers = self._numbers(documents)
        if not numbers:
            raise Lost(f"{place}: a state that never was: {sorted(documents)}")
        return numbers

    def _reopen(self, image: Image, served: int, disk: Disk | None) -> Trace:
        """Of an opening; with a disk, its files keep their inodes."""
        root = self._root / "image"
        image.write_to(root)
        try:
            builder = TraceBuilder(root)
            if disk is not None:
                builder = TraceBuilder(root, disk.live_files(), max(disk.files, default=0) + 1)
            return self._recorder.opening(builder, root, served, self._now)
        finally:
            shutil.rmtree(root)

    def _count(self, where: str, at: int, mode: Mode, outcome: Outcome) -> None:
        key = (where, at, mode, outcome[2])
        if key not in self._counted:
            self._counted.add(key)
            self.figures.images[mode] += 1

    def _alive(self, state: Documents) -> Documents:
        now = self._now
        return {key: doc for key, doc in state.items() if doc.get("dies", now + 1) > now}

    def _numbers(self, documents: Documents) -> tuple[int, ...]:
        """The states with these documents: a delete can lead back to an earlier one."""
        wanted = documents_of(documents)
        return tuple(
            number
            for number, state in enumerate(self._states)
            if len(state) == len(wanted) and same(documents_of(state), wanted)
        )


_HERE: Final = Note(b"kept 0")
"""It promises nothing; and no commit has this number."""


def _begin_here(work: Workload) -> None:
    work.note(_HERE.data)


def _begun(trace: Trace) -> tuple[Trace, int, Promise]:
    """The number of the first operation to crash after, and what was promised before."""
    begin = trace.ops.index(_HERE) if _HERE in trace.ops else 0
    promise = Promise()
    for op in trace.ops[:begin]:
        if isinstance(op, Note):
            promise.read(op)
    return trace, begin, promise


@contextmanager
def unlogged() -> Generator[None]:
    """Nothing is logged. pytest keeps each record until its test is over, and with the error that
    it tells of what the frames hold that have raised it: of thousands of images, gigabytes."""
    logger = logging.getLogger("amberdb")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


def _no_problems(*_: object) -> Iterator[str]:
    return iter(())


def _is_inside(op: Op, stores: set[int]) -> bool:
    if isinstance(op, Sync):
        return op.pages is None and op.inode in stores
    return isinstance(op, Write | Truncate) and op.inode in stores


def documents_of(documents: Documents) -> dict[str, Any]:
    return {f"{name}/{id}": doc for (name, id), doc in documents.items()}


def _digest(image: Image) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for path in sorted(image.directories):
        found.update(path.encode() + b"\0")
    for path in sorted(image.files):
        if not path.endswith("lock.mdb"):
            found.update(path.encode() + b"\0" + len(image.files[path]).to_bytes(8))
            found.update(image.files[path])
    return found.digest()
