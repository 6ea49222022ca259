"""The campaign of moves: a directory to a PostgreSQL server and back to a new one, killed again and
again, while a program writes.

    PYTHONPATH=tests python tests/crash/moving.py [--documents N] [--kills N] [--seed X]
        [--json PATH]

The documents are of all systems and of every type, with vectors. Each way is one move: it is killed
with SIGKILL at a random batch, N times, goes on, and at last all documents are compared. Needs the
extra `test`, which has the server.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import amberdb
from amberdb import Database
from amberdb.move import MoveReport, move, mover
from support.moving import Killed, fill_documents, fill_systems, killed_move, write_on
from support.servers import postgres

BATCH: Final = 1000
_SYSTEMS: Final = 20
"""One of so many documents is of a system."""
_PAUSE_S: Final = 0.01
"""Between two writes: the server has to keep up."""


class Writer:
    """A program that writes to a database."""

    def __init__(self, db: Database, count: int, rng: random.Random) -> None:
        self.writes = 0
        self._ends = Event()

        def write() -> None:
            while not self._ends.wait(_PAUSE_S):
                write_on(db, count, rng)
                self.writes += 1

        self._thread = Thread(target=write)
        self._thread.start()

    def end(self) -> int:
        self._ends.set()
        self._thread.join()
        return self.writes


def one_way(
    db: Database, source: str, target: str, count: int, kills: int, rng: random.Random
) -> dict[str, Any]:
    """Moves a database that is open here; the figures of it."""
    began, killed, runs = time.monotonic(), 0, list[Killed]()
    writer = Writer(db, count, random.Random(rng.random()))
    while killed < kills:
        run = killed_move(source, target, rng.randrange(1, max(3, count // BATCH // 5)), BATCH)
        killed += not run.is_done
        runs.append(run)
        print(f"{killed} kills of a move to {target.partition('://')[0]}", flush=True)
    runs.append(killed_move(source, target, None, BATCH))
    with mover.target_of(target) as copy:
        running: MoveReport = move(db, copy)
        writes = writer.end()
        report = move(db, copy, verify=True, finish=True)
    assert report.differences == [], report.differences[:10]
    return {
        "kills": killed,
        "own_mb_more_max": round(max(run.own_mb for run in runs)),
        "mapped_mb_more_max": round(max(run.mapped_mb for run in runs)),
        "writes_meanwhile": writes,
        "lag_s_while_written": round(running.lag_s, 3),
        "documents_compared": report.compared,
        "differences": len(report.differences),
        "seconds": round(time.monotonic() - began),
    }


def campaign(documents: int, kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """The figures of both ways. Fails with what differs."""
    rng = random.Random(seed)
    here, back = folder / "here.amber", folder / "back.amber"
    result: dict[str, Any] = {"seed": seed, "documents": documents}
    with postgres(18) as server:
        url = server.url("postgresql", server.new_database("vector"))
        with amberdb.connect(here) as db:
            fill_systems(db, documents // _SYSTEMS)
            fill_documents(db, documents)
            result["there"] = one_way(db, str(here), url, documents, kills, rng)
        with amberdb.connect(url) as db:
            result["back"] = one_way(db, url, str(back), documents, kills, rng)
        with amberdb.open(back) as db:
            assert db.check().ok
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    print(f"seed {given.seed}")
    with tempfile.TemporaryDirectory() as folder:
        result = campaign(given.documents, given.kills, given.seed, Path(folder))
    print(json.dumps(result))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
