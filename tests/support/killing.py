"""A child process that writes a seeded workload, is killed, and what must be found afterwards.

Commit number n is the same function of seed and n in every process, and stores n itself; so what
is recovered must be the state after n whole commits, for an n that no acknowledgement is ahead of.

    python -m support.killing PATH SEED SYNC DIE_AT    the child; PYTHONPATH names tests/

Invariants:
- The child writes a line to its standard output for each commit that was acknowledged, after it.
- With DIE_AT it kills itself before that call of the file seam, half of a write done, counted
  from before opening; so recovery, rotation and checkpoint are killed as well as commits.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import amberdb
from amberdb import Database, Ordered, Sync, Unique
from support.databases import SMALL
from support.faulty_fs import KINDS, FaultyFileSystem
from support.model import Spec
from support.reference import Doc, same

TESTS = Path(__file__).parent.parent
SYNCS: tuple[Sync, ...] = ("always", "interval", "os")
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


def state_after(seed: int, number: int) -> State:
    state: State = {}
    for each in range(1, number + 1):
        for name, id, doc in effects(seed, each):
            if doc is None:
                state.pop((name, id), None)
            else:
                state[name, id] = doc
    return state


def number_in(db: Database) -> int:
    """The last commit that is there."""
    found = db.collection("meta").get("n")
    return 0 if found is None else found["number"]


# -- the child -------------------------------------------------------------------------------


class _Deadly(FaultyFileSystem):
    """Kills its own process where the base class would raise."""

    def error(self, path: str) -> OSError:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().error(path)


def write_forever(path: str, seed: int, sync: Sync, die_at: int) -> None:
    fs = _Deadly()
    if die_at:
        fs.arm(KINDS, die_at, torn=True)
    options: dict[str, Any] = {**SMALL, "segment_bytes_max": 16384, "background": seed % 2 == 0}
    options["checkpoint_bytes"] = 60_000
    with amberdb.open(path, **options, fs=fs, sync=sync) as db:
        number = number_in(db)
        while True:
            number += 1
            if number % 13 == 0:
                db.checkpoint()
            if number % 29 == 1:
                wanted = [index for at, index in enumerate(INDEXES) if number // 29 >> at & 1]
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
            os.write(1, b"%d\n" % number)


# -- the parent ------------------------------------------------------------------------------


@dataclass
class Killer:
    """One database that is killed again and again."""

    path: Path
    seed: int
    sync: Sync
    kills: int = 0
    acknowledged: int = 0
    number: int = 0
    """The last commit found by verify()."""
    unacknowledged: int = 0
    cuts: int = 0
    replayed: int = 0
    open_ms_max: float = 0.0
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        with amberdb.open(self.path, **SMALL) as db:
            for name in (*NAMES, "meta"):
                db.collection(name)
            for name in NAMES:
                db.collection(name, indexes=INDEXES)

    def round(self) -> None:
        """Runs a child up to a random point, kills it there, and compares."""
        die_at = self.rng.choice((0, self.rng.randrange(1, 40), self.rng.randrange(1, 600)))
        commits = self.rng.randrange(1, 80)
        last = self.number
        with self._child(die_at) as child:
            assert child.stdout is not None
            for line in cast("Iterator[bytes]", child.stdout):
                if line.endswith(b"\n"):
                    last = int(line)
                if last - self.number >= commits:
                    break
            child.kill()
            for line in cast("Iterator[bytes]", child.stdout):  # sent before it died
                if line.endswith(b"\n"):
                    last = int(line)
            code = child.wait()
            assert code == -signal.SIGKILL, f"the child ended with {code} by itself"
        self.kills += 1
        self.acknowledged += last - self.number
        self.verify(last)

    def _child(self, die_at: int) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "support.killing"]
        return subprocess.Popen(
            [*command, str(self.path), str(self.seed), self.sync, str(die_at)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
        )

    def verify(self, acknowledged: int) -> None:
        began = time.perf_counter()
        with amberdb.open(self.path, **SMALL) as db:
            self.open_ms_max = max(self.open_ms_max, (time.perf_counter() - began) * 1000)
            if db.recovery is not None:
                self.cuts += db.recovery.cut is not None
                self.replayed += db.recovery.records
            number = number_in(db)
            assert number >= acknowledged, f"{acknowledged} was acknowledged, {number} is there"
            assert number <= acknowledged + 1, "a commit that was never begun"
            wanted = state_after(self.seed, number)
            found: State = {
                (name, doc["id"]): doc
                for name in (*NAMES, "meta")
                for doc in db.collection(name).documents()
            }
            assert found.keys() == wanted.keys()
            assert all(same(found[place], wanted[place]) for place in wanted)
            report = db.check()
            assert report.ok, report
        self.unacknowledged += number - acknowledged
        self.number = number


if __name__ == "__main__":
    _, where, seed_text, sync_text, die_at_text = sys.argv
    write_forever(where, int(seed_text), cast(Sync, sync_text), int(die_at_text))
