"""The process that reads, and the writer's handle on it.

Invariants:
- A reader that is not asked waits at a pipe, with the database open and nothing held.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from select import select

import amberdb
from amberdb import Collection, Database
from bench.workloads.events import documents

PACE_S = 0.01
LOOKS = 2_000


def read(path: str) -> None:
    """Serves one command a line: `pace` reads until the next line; `refresh` and `seen` measure."""
    with amberdb.open(path, read_only=True) as db:
        events = db.collection("event")
        print("ready", flush=True)
        for line in sys.stdin:
            if line == "pace\n":
                print(json.dumps(_pace(events)), flush=True)
            elif line == "refresh\n":
                print(json.dumps(_looks(db, events)), flush=True)
            elif line.startswith("seen"):
                print(json.dumps(_seen(db, events, int(line.split()[1]))), flush=True)


def _pace(events: Collection) -> list[float]:
    """A get and a page of 20 every PACE_S until the next line; microseconds of each pair."""
    rng = random.Random(os.getpid())
    entities = [each["entity_id"] for each in documents(0, 1000)]
    took: list[float] = []
    wait_s = 0.0
    while not select([sys.stdin], [], [], wait_s)[0]:
        began = time.perf_counter()
        events.get("missing")
        events.find({"entity_id": rng.choice(entities)}, order_by="-created_at", limit=20)
        spent = time.perf_counter() - began
        took.append(spent * 1e6)
        wait_s = max(0.0, PACE_S - spent)
    sys.stdin.readline()
    return took


def _looks(db: Database, events: Collection) -> dict[str, float]:
    """Microseconds of one call, with no commit in between."""

    def timed(call: Callable[[], object]) -> float:
        began = time.perf_counter()
        for _ in range(LOOKS):
            call()
        return (time.perf_counter() - began) / LOOKS * 1e6

    return {"refresh": timed(db.refresh), "get": timed(lambda: events.get("missing"))}


def _seen(db: Database, events: Collection, count: int) -> dict[str, list[float]]:
    """Milliseconds from the beginning of a put until its document is read, and microseconds of the
    refresh that made it visible."""
    print("looking", flush=True)
    late: list[float] = []
    took: list[float] = []
    last = db.refresh()
    while len(late) < count:
        began = time.perf_counter()
        lsn = db.refresh()
        if lsn == last:
            continue
        took.append((time.perf_counter() - began) * 1e6)
        found = events.get("clock")
        assert found is not None
        late.append((time.monotonic() - found["began"]) * 1e3)
        last = lsn
    return {"late_ms": late, "refresh_us": took}


class Reader:
    """The writer's handle on a process that runs read()."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-m", "bench.readers", "--read", str(path)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self.line() == "ready\n"

    def say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def close(self) -> None:
        self._process.communicate()
