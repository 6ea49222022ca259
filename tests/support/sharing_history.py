"""Processes that share a database, killed while they lead, and the judge of what each was told.

    python -m support.sharing_history PATH NAME SEED      a process; it ends when PATH.stop is there

appends a line to PATH.NAME.told for each operation that returned: a bare update, a transaction, a
snapshot or a bare read, with its times by the clock of the machine, its Lsn and all that it read.

Invariants:
- All operations of all processes are judged as one history (support/history.py), strictly
  serializable. What a process that was killed had committed and not told is taken from the feed.
- Each write has a value `v` of its own. One that the feed has twice was done twice.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any, Final, final

import amberdb
from amberdb import Change, Database, Document, Ordered, TransactionError
from amberdb.engine.database.readable_collection import ReadableCollection
from amberdb.remote.connection import Connection
from support.databases import assert_sound
from support.history import Count, Find, Get, History, Operation, Read, Violation, Write

TESTS: Final = Path(__file__).parents[1]
NAME: Final = "note"
IDS: Final = 12
NUMBERS: Final = 20
SUBSCRIBER: Final = "judge"
SMALL: Final[dict[str, Any]] = {"checkpoint_bytes": 256 << 10, "segment_bytes_max": 256 << 10}
_KINDS: Final = {"Get": Get, "Find": Find, "Count": Count, "Write": Write}
_NEVER: Final = 1 << 62


def made(path: Path) -> None:
    """Makes the database. The log is kept for the judge."""
    with amberdb.open(path, **SMALL) as db:
        notes = db.collection(NAME, indexes=[Ordered("n")])
        db.subscriber(SUBSCRIBER, since=amberdb.Lsn(0))
        notes.put_many(_document(f"i{n}", n, f"start {n}") for n in range(IDS))


def _document(id: str, n: int, v: str) -> Document:
    return {"id": id, "n": n, "v": v, "t": None}


# -- a process -----------------------------------------------------------------------------------


@final
class _Worker:
    def __init__(self, db: Database, name: str, rng: random.Random) -> None:
        self.db = db
        self.name = name
        self.rng = rng
        self.number = 0

    def operation(self) -> dict[str, Any]:
        """One that returned, as it is told."""
        kind = self.rng.choice(("put", "update", "commit", "commit", "snapshot", "read"))
        while True:
            invoked = time.monotonic_ns()
            try:
                lsn, steps = getattr(self, f"_{kind}")()
            except TransactionError as error:
                if "run it again" not in str(error):
                    raise
                continue
            return {
                "kind": "commit" if kind in ("put", "update") else kind,
                "invoked": invoked,
                "returned": time.monotonic_ns(),
                "lsn": lsn,
                "steps": [[type(step).__name__, asdict(step)] for step in steps],
            }

    def _put(self) -> tuple[None, list[Read | Write]]:
        """The judge finds its Lsn in the feed. Done twice, it is there twice."""
        write = self._new()
        assert write.document is not None
        self.db[NAME].put(write.document)
        return None, [write]

    def _update(self) -> tuple[int, list[Read | Write]]:
        write = self._new()
        assert write.document is not None
        lsn = self.db[NAME].update(write.id, {k: write.document[k] for k in ("n", "v", "t")})
        return int(lsn), [write]

    def _commit(self) -> tuple[int, list[Read | Write]]:
        steps: list[Read | Write] = []
        with self.db.transaction() as tx:
            notes = tx[NAME]
            for _ in range(self.rng.randint(1, 3)):
                steps.append(self._look(notes))
                write = self._new()
                assert write.document is not None
                notes.put(write.document)
                steps.append(write)
        return int(tx.lsn), steps

    def _snapshot(self) -> tuple[int, list[Read | Write]]:
        with self.db.snapshot() as at:
            return int(at.lsn), [self._look(at[NAME]) for _ in range(3)]

    def _read(self) -> tuple[None, list[Read | Write]]:
        return None, [self._look(self.db[NAME])]

    def _new(self) -> Write:
        self.number += 1
        id, n = f"i{self.rng.randrange(IDS)}", self.rng.randrange(NUMBERS)
        return Write(NAME, id, _document(id, n, f"{self.name} {self.number}"))

    def _look(self, notes: ReadableCollection) -> Read:
        low, high = sorted(self.rng.choices(range(NUMBERS + 1), k=2))
        where = {"n": {"$gte": low, "$lt": high}}
        match self.rng.randrange(3):
            case 0:
                id = f"i{self.rng.randrange(IDS)}"
                return Get(NAME, id, notes.get(id))
            case 1:
                found = notes.find(where, order_by=["n", "v"], limit=1000)
                return Find(NAME, low, high, list(found))
            case _:
                return Count(NAME, low, high, notes.count(where))


def main(path: Path, name: str, seed: int) -> None:
    """A process, until it is told to stop, or killed."""
    stop = Path(f"{path}.stop")
    _answer_late(random.Random(seed))
    with (
        amberdb.connect(path, **SMALL) as db,
        open(f"{path}.{name}.told", "a", buffering=1) as told,
    ):
        worker = _Worker(db, name, random.Random(seed))
        while not stop.exists():
            told.write(json.dumps(worker.operation()) + "\n")


def _answer_late(rng: random.Random) -> None:
    """Answers of this process, while it leads, wait now and then: so it is killed between a commit
    and its answer, which is when the request is sent again."""
    send = Connection.send

    def late(self: Connection, message: Mapping[str, Any]) -> None:
        if rng.random() < 0.3:
            threading.Event().wait(0.005)
        send(self, message)

    Connection.send = late  # type: ignore[method-assign]


# -- the processes -------------------------------------------------------------------------------


@final
class Workers:
    """Runs processes on a database, kills those that lead, and judges what they were told."""

    def __init__(self, path: Path, rng: random.Random) -> None:
        self.path = path
        self.rng = rng
        self.kills = 0
        self.operations = 0
        self.untold = 0
        """Commits of killed processes that were not told."""
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._names: list[str] = []
        made(path)

    def run(self, processes: int, kills: int) -> None:
        """Raises Violation, AssertionError."""
        try:
            for _ in range(processes):
                self._start()
            for _ in range(kills):
                self._wait_for(self.rng.randrange(10, 80))
                self._kill_leader()
                self._start()
            self._wait_for(50)
            Path(f"{self.path}.stop").touch()
            for name, process in self._running.items():
                assert process.wait(60) == 0, name
        finally:
            for process in self._running.values():
                process.kill()
                process.wait()
        self._judge()

    def _start(self) -> None:
        name = f"w{len(self._names)}"
        self._names.append(name)
        paths = f"{TESTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        seed = str(self.rng.randrange(1 << 30))
        self._running[name] = subprocess.Popen(
            [sys.executable, "-m", "support.sharing_history", str(self.path), name, seed],
            env={**os.environ, "PYTHONPATH": paths},
        )

    def _told(self, name: str) -> list[str]:
        """The whole lines; the last one of a process that was killed may be cut short."""
        try:
            return Path(f"{self.path}.{name}.told").read_text().split("\n")[:-1]
        except FileNotFoundError:
            return []

    def _wait_for(self, more: int) -> None:
        """Waits until the processes have been told that many things more."""
        sizes = {name: len(self._told(name)) for name in self._running}
        while sum(len(self._told(name)) for name in sizes) < sum(sizes.values()) + more:
            for name, process in self._running.items():
                assert process.poll() is None, f"{name} ended with {process.returncode}"
            threading.Event().wait(0.01)

    def _kill_leader(self) -> None:
        """SIGKILL for the process that holds the lock."""
        while True:
            owner = (self.path / "LOCK").read_text().split(" ")[0]
            leading = [n for n, each in self._running.items() if str(each.pid) == owner]
            if leading:
                break
        process = self._running.pop(leading[0])
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.kills += 1

    def _judge(self) -> None:
        history = History()
        for name in self._names:
            history.operations += map(_operation, self._told(name))
        self.operations = len(history.operations)
        with amberdb.open(self.path) as db:
            assert_sound(db)
            changes = [each for each in db.changes() if each.collection == NAME]
            _judge_once(changes)
            _find_lsns(history, changes)
            told = {done.lsn for done in history.operations if done.writes}
            for lsn, commit in groupby(changes, key=lambda change: change.lsn):
                if lsn not in told:
                    self.untold += 1
                    steps = [Write(NAME, each.id, each.document) for each in commit]
                    history.operations.append(Operation("commit", 0, _NEVER, lsn, steps))
            self.untold -= 1  # the first commit, which made the documents
            last = history.judge()
            there = {(NAME, str(document["id"])): document for document in db[NAME].documents()}
            if there != last:
                raise Violation(f"at the end {there}, and not {last}")


def _operation(line: str) -> Operation:
    told = json.loads(line)
    steps = [_KINDS[name](**fields) for name, fields in told.pop("steps")]
    return Operation(steps=steps, **told)


def _find_lsns(history: History, changes: list[Change]) -> None:
    """Of commits that returned without their Lsn."""
    lsns = {each.document["v"]: each.lsn for each in changes if each.document is not None}
    for done in history.operations:
        (step, *_) = done.steps
        if done.writes and done.lsn is None and isinstance(step, Write):
            assert step.document is not None
            if step.document["v"] not in lsns:
                raise Violation(f"lost: {done}")
            done.lsn = lsns[step.document["v"]]


def _judge_once(changes: list[Change]) -> None:
    """Each write is in one commit, whatever was sent again."""
    commits = Counter(
        v
        for _, commit in groupby(changes, key=lambda change: change.lsn)
        for v in {each.document["v"] for each in commit if each.document is not None}
    )
    twice = [v for v, times in commits.items() if times > 1]
    if twice:
        raise Violation(f"done twice: {twice}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    sys.stdout.flush()
    os._exit(0)
