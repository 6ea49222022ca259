"""One run of a seed: phases of threads over one database, and what happens between them.

    threads    writers, declarations, care, a moving clock, and a process that reads
    killed     the same in a child process, which is killed; then what was acknowledged is there
    spoiled    an index that cannot be built, and everybody else goes on

After each phase everything is compared, check() finds nothing, and the database is closed.

Invariants:
- The seed decides what each thread does; in which order threads run is the machine's.
"""

import faulthandler
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, Final, final

from amberdb import Database, Ordered
from support.differential.actor import Actor, Stage
from support.differential.caretaker import ERASED, Caretaker, audit
from support.differential.declared import (
    MAIN,
    NOTES,
    SPOILED,
    create,
    drawn_indexes,
    model,
    used_again,
)
from support.differential.declarer import Declarer
from support.differential.difference import Difference, differ_in_documents
from support.differential.drawer import drawer
from support.differential.processes import Child, leftovers, read_beside, write_until_killed
from support.differential.reads import Known
from support.differential.shared import OWNERS, Shared
from support.differential.writer import Writer, drawn_actions, models_after
from support.differential.writes import Models
from support.older_format import older_format
from support.searches import small_limits

_HANG_S: Final = 120.0
_READS_AT_END: Final = 8
_LOOK_S: Final = 0.01
_OLDER_SHARE: Final = 0.3
_KINDS: Final = {"threads": 6, "killed": 3, "spoiled": 0.5}


def drawn_options(rng: random.Random) -> dict[str, Any]:
    """For `amberdb.open()`: small enough that little data does what much data does."""
    options: dict[str, Any] = {
        "checkpoint_bytes": rng.choice((1 << 14, 1 << 16, 1 << 20)),
        "checkpoint_interval_ms": rng.choice((50, 500, 60_000)),
        "memtable_bytes_max": rng.choice((4 << 20, 8 << 20)),
        "segment_bytes_min": 4096,
        "segment_bytes_max": rng.choice((1 << 14, 1 << 16, 1 << 20)),
        "reap_interval_ms": rng.choice((20, 200)),
        "reap_grace_ms": rng.choice((0, 200)),
        "sync": rng.choice(("always", "os", "interval")),
        "map_bytes": 1 << 31,
        "busy_timeout_ms": 60_000,
    }
    if rng.random() < 0.3:
        options["snapshot_max_age_ms"] = 300
    if rng.random() < 0.3:
        options["subscriber_log_bytes_max"] = 1 << 16
    return options


@final
class Run:
    """One seed. After `run()` has raised Difference the directory is as it was then."""

    def __init__(self, directory: Path, seed: int, seconds: float) -> None:
        self.operations: Counter[str] = Counter()
        self.phases: Counter[str] = Counter()
        self._rng = rng = random.Random(seed)
        self._seed = seed
        self._seconds = seconds
        self._directory = directory
        self._shared = Shared()
        self._options = drawn_options(rng)
        self._models: dict[str, Models] = {
            owner: {MAIN: model(), NOTES: model()} for owner in OWNERS
        }

    def run(self, kinds: Sequence[str] = ()) -> None:
        """Phases until the time is over; `kinds`: these, of so many seconds in all. Raises
        Difference."""
        interval_s = sys.getswitchinterval()
        sys.setswitchinterval(self._rng.choice((1e-5, 1e-4, 5e-3)))
        limits = small_limits() if self._rng.random() < 0.5 else nullcontext()
        until = time.monotonic() + self._seconds
        try:
            with limits:
                self._begin(older=self._rng.random() < _OLDER_SHARE)
                for kind in kinds:
                    self._phase(kind, self._seconds / len(kinds))
                while not kinds and (left_s := until - time.monotonic()) > 0:
                    kind = self._rng.choices(list(_KINDS), list(_KINDS.values()))[0]
                    seconds = min(left_s, 0.3 + self._rng.random() * 2)
                    self._phase(kind if self.phases else "threads", seconds)
        finally:
            sys.setswitchinterval(interval_s)

    def _begin(self, *, older: bool) -> None:
        """Makes the database; an older one by a program of format 1, which has it for a phase."""
        with older_format() if older else nullcontext():
            with self._stage().open() as db:
                create(db)
            if older:
                self._phase("threads", 0.5)

    # -- phases ----------------------------------------------------------------------------------

    def _phase(self, kind: str, seconds: float) -> None:
        self.phases[kind] += 1
        getattr(self, f"_{kind}")(seconds)

    def _threads(self, seconds: float) -> None:
        stage, seed = self._stage(), self._phase_seed()
        self._shared.is_over = False
        reader = Child(stage, "reader", lambda: read_beside(stage, seed))
        try:
            with used_again(stage.open()) as db:
                writers = [Writer(stage, seed, each, db, self._models[each]) for each in OWNERS]
                others = [Declarer(stage, seed, db), Caretaker(stage, seed, db)]
                actors: list[Actor] = [*writers, *others]
                for actor in actors:
                    actor.start()
                end = time.monotonic() + seconds
                while reader.is_running and time.monotonic() < end:
                    if stage.stop.wait(_LOOK_S):
                        break
                stage.stop.set()
                self._join(stage, actors)
                self._models.update((writer.name, writer.models) for writer in writers)
                self._compare(db)
        finally:
            self._shared.is_over = True
            reader.wait()

    def _killed(self, seconds: float) -> None:
        stage, seed = self._stage(), self._phase_seed()
        for owner in OWNERS:
            self._shared.acknowledge(owner, 0)
        child = Child(stage, "writer", lambda: write_until_killed(stage, seed, self._models))
        end = time.monotonic() + seconds * self._rng.random()
        while child.is_running and time.monotonic() < end:
            stage.stop.wait(_LOOK_S)
        child.kill()
        for path in leftovers(self._directory):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        with used_again(stage.open()) as db:
            for owner in OWNERS:
                self._models[owner] = self._survivors(db, seed, owner)
            self._compare(db)

    def _spoiled(self, seconds: float) -> None:
        """An index over two lists has no keys for these documents; nobody else is concerned."""
        with used_again(self._stage().open()) as db:
            spoiled = db.collection(SPOILED)
            spoiled.put({"id": "s", "a": [1, 2], "b": [1, 2]})
            db.collection(SPOILED, indexes=[Ordered("a", "b")])
            db.collection(MAIN, indexes=drawn_indexes(self._rng))
            self._compare_owners(db)
            db.erase(MAIN, {"owner": ERASED}, reason="beside what cannot be built")
            db.compact()
            db.drop_collection(SPOILED)
            self._compare(db)

    # -- inside ----------------------------------------------------------------------------------

    def _stage(self) -> Stage:
        return Stage(self._directory, self._shared, self._options)

    def _phase_seed(self) -> str:
        return f"{self._seed}/{self.phases.total()}"

    def _join(self, stage: Stage, actors: list[Actor]) -> None:
        for actor in actors:
            if not actor.join(_HANG_S):
                faulthandler.dump_traceback(all_threads=True)
                raise Difference(f"a thread hangs:\n{actor.report()}")
            self.operations += actor.count
        if stage.findings:
            others = "\n".join(actor.report(3) for actor in actors)
            raise Difference("\n".join(stage.findings) + f"\nThe last actions of all:\n{others}")

    def _survivors(self, db: Database, seed: str, owner: str) -> Models:
        """The models after all acknowledged actions, or after one more. Raises Difference."""
        actions = drawn_actions(seed, owner, self._shared.clock)
        now_us, models = self._shared.now_us, self._models[owner]
        for action in islice(actions, self._shared.acknowledged(owner)):
            models = models_after(models, action, now_us)
        last = next(actions)
        try:
            self._compare_found(db, owner, models)
        except Difference as error:
            models = models_after(models, last, now_us)
            try:
                self._compare_found(db, owner, models)
            except Difference:
                raise Difference(f"after a kill at {last}: {error}") from None
        return models

    def _compare_found(self, db: Database, owner: str, models: Models) -> None:
        for name, each in models.items():
            wanted = [held.doc for held in each.live(self._shared.now_us).values()]
            differ_in_documents((name, owner), db[name].find({"owner": owner}), wanted)

    def _compare(self, db: Database) -> None:
        """Everything, with nobody writing."""
        audit(db)
        self._compare_owners(db)
        for name in (MAIN, NOTES):
            wanted = [
                held.doc
                for models in self._models.values()
                for held in models[name].live(self._shared.now_us).values()
            ]
            found = [each for each in db[name].documents() if each["id"] != ERASED]
            differ_in_documents((name, "documents"), found, wanted)
        self._check(db)
        db.build_indexes()
        self._check(db)

    def _compare_owners(self, db: Database) -> None:
        for owner, models in self._models.items():
            draw = drawer(self._rng, owner, self._shared.clock)
            for _ in range(_READS_AT_END):
                read = draw.read()
                known = Known(
                    models[read.collection], self._shared.now_us, True, read.collection == MAIN
                )
                read.compare(db[read.collection], known)

    def _check(self, db: Database) -> None:
        report = db.check()
        if not report.ok:
            raise Difference(f"check(): {report}")
