"""`python -m bench.care`: what it costs to keep a large database: backups, restores, compaction.

    full         db.backup() of everything, raw and zstd; SQLite's backup API and VACUUM INTO
    beside       durable puts of one thread while a full backup is taken, and while none is
    increment    db.backup(base=...) after some changes; SQLite has to copy everything again
    restore      amberdb.restore() of the full backup and of the whole chain; SQLite: copied back
    points       restores at random commits behind the full backup, all their changes compared
    compact      db.compact() and VACUUM after half of the documents were removed

Invariants:
- What is compared is done in turns on the same disk; a figure is the median of the rounds.
- Everything that was restored is checked and counted before its time is told.
"""

import argparse
import json
import os
import platform
import random
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import amberdb
from bench import workloads
from bench.amber import AmberPeer
from bench.peers import SqlitePeer
from bench.workloads import CATEGORIES, Document

DOCUMENTS = 1_000_000
CHANGES = 10_000
"""Between two backups."""
PARTS = ("full", "beside", "chain", "compact")
REMOVED = CATEGORIES[: len(CATEGORIES) // 2]
Took = dict[str, list[float]]


class Care:
    """One AmberDB and one SQLite database with the same documents, and what was measured."""

    def __init__(self, root: Path, documents: int, rounds: int) -> None:
        self.root = root
        self.rounds = rounds
        for name in ("amber", "sqlite"):
            (root / name).mkdir()
        self.amber = AmberPeer(root / "amber")
        self.sqlite = SqlitePeer(root / "sqlite")
        self.sqlite_file = root / "sqlite" / "bench.sqlite"
        self.fresh: Iterator[Document] = workloads.documents(documents, 10 * documents)
        for batch in workloads.batches(0, documents):
            self.amber.put_many(batch)
            self.sqlite.put_many(batch)
        self.settle()
        self.documents = documents

    def settle(self) -> None:
        self.amber.settle()
        with closing(sqlite3.connect(self.sqlite_file)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self.amber.close()
        self.sqlite.close()

    # -- backups -----------------------------------------------------------------------------

    def full(self) -> dict[str, Any]:
        """The last raw one stays, as full.backup: the chain goes on from it."""
        took: Took = {}
        sizes: dict[str, int] = {}
        for _ in range(self.rounds):
            for name, make in self._ways().items():
                path = self.root / name
                path.unlink(missing_ok=True)
                _timed(took, name, partial(make, path))
                sizes[name] = path.stat().st_size
        figures = _medians(took) | {f"{name} MB": size // 1_000_000 for name, size in sizes.items()}
        _timed(took, "verify", lambda: amberdb.verify_backup(self.root / "full.backup"))
        return figures | {"verify s": took["verify"][0]}

    def _ways(self) -> dict[str, Callable[[Path], object]]:
        return {
            "full.backup": self.amber.db.backup,
            "full.zstd": lambda path: self.amber.db.backup(path, compress="zstd"),
            "sqlite.backup": lambda path: copy(self.sqlite_file, path),
            "sqlite.vacuum": self._vacuum_into,
        }

    def _vacuum_into(self, path: Path) -> None:
        with closing(sqlite3.connect(self.sqlite_file)) as connection:
            connection.execute("VACUUM INTO ?", (str(path),))
        _sync(path)

    def beside(self, puts: int) -> dict[str, Any]:
        """Microseconds of single puts, with and without a backup, in turns."""
        found: dict[str, list[dict[str, float]]] = {"idle": [], "backup": [], "limited": []}
        for turn in range(self.rounds):
            names = tuple(found)
            for name in names[turn % 3 :] + names[: turn % 3]:
                found[name].append(self._puts_beside(name, puts))
                say(f"round {turn + 1}, {name}: {found[name][-1]}")
                self.settle()
        figures: dict[str, Any] = {}
        for name in ("backup", "limited"):
            pairs = list(zip(found[name], found["idle"], strict=True))
            for part in ("p50", "p99", "p99.9"):
                figures[f"{name} {part} x idle"] = round(
                    median(a[part] / b[part] for a, b in pairs), 3
                )
        return figures | {"rounds": found}

    def _puts_beside(self, name: str, puts: int) -> dict[str, float]:
        """With a backup: for as long as it takes."""
        path = self.root / "beside.backup"
        over = threading.Event()

        def backup() -> None:
            rate = 50_000_000 if name == "limited" else None
            self.amber.db.backup(path, hold_log=False, rate_bytes_s=rate)
            over.set()

        thread = threading.Thread(target=backup)
        took: list[float] = []
        if name == "idle":
            over.set()
        else:
            thread.start()
        while len(took) < puts or not over.is_set():
            document = next(self.fresh)
            began = time.perf_counter()
            self.amber.put(document)
            took.append((time.perf_counter() - began) * 1e6)
        if name != "idle":
            thread.join()
        path.unlink(missing_ok=True)
        cuts = quantiles(took, n=1000, method="inclusive")
        return {"puts": len(took), "p50": cuts[499], "p99": cuts[989], "p99.9": cuts[998]}

    def increments(self, count: int) -> tuple[list[Path], "History", dict[str, Any]]:
        """A chain from a new full backup on, and what was committed behind that."""
        chain = [self.root / "full.backup"]
        chain[0].unlink(missing_ok=True)
        self.amber.db.backup(chain[0])
        history = History(self.amber, self.documents)
        took: Took = {}
        for number in range(count):
            history.change(CHANGES)
            chain.append(self.root / f"later{number}.backup")
            _timed(took, "increment", lambda: self.amber.db.backup(chain[-1], base=chain[-2]))
        sizes = [path.stat().st_size for path in chain[1:]]
        return (
            chain,
            history,
            _medians(took)
            | {
                "increment MB": round(median(sizes) / 1e6, 1),
                "changes": CHANGES,
            },
        )

    # -- restores ----------------------------------------------------------------------------

    def restore(self, chain: list[Path]) -> dict[str, Any]:
        took: Took = {}
        target = self.root / "restored"
        for _ in range(self.rounds):
            for name, archives in {"full": chain[:1], "chain": chain}.items():
                _timed(took, name, partial(amberdb.restore, archives, target))
                with amberdb.open(target) as db:
                    assert db.collection("event").count() > self.documents * 0.9
                shutil.rmtree(target)
            _timed(took, "sqlite", lambda: copy(self.sqlite_file, target))
            target.unlink()
        return _medians(took)

    def points(self, chain: list[Path], history: "History", count: int) -> dict[str, Any]:
        rng = random.Random(workloads.SEED)
        target = self.root / "restored"
        took: Took = {}
        compared = 0
        for lsn in rng.sample(history.lsns, count):
            _timed(took, "restore", partial(amberdb.restore, chain, target, until=lsn))
            with amberdb.open(target) as db:
                compared += history.compare(db, lsn)
                _timed(took, "check", db.check)
            shutil.rmtree(target)
        return _medians(took) | {"points": count, "documents compared": compared, "wrong": 0}

    # -- compaction --------------------------------------------------------------------------

    def compact(self) -> dict[str, Any]:
        sizes: dict[str, int] = {}
        took: Took = {}
        for category in REMOVED:
            self.amber.remove_category(category)
            with closing(sqlite3.connect(self.sqlite_file, isolation_level=None)) as connection:
                connection.execute("DELETE FROM event WHERE category = ?", (category,))
        self.settle()
        self._sizes(sizes, "before")
        _timed(took, "compact", self.amber.db.compact)
        with closing(sqlite3.connect(self.sqlite_file, isolation_level=None)) as connection:
            _timed(took, "vacuum", lambda: connection.execute("VACUUM"))
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._sizes(sizes, "after")
        report = self.amber.db.check()
        return _medians(took) | sizes | {"documents": self.amber.events.count(), "ok": report.ok}

    def _sizes(self, sizes: dict[str, int], when: str) -> None:
        """Megabytes of all files."""
        for name in ("amber", "sqlite"):
            files = [file for file in (self.root / name).rglob("*") if file.is_file()]
            sizes[f"{name} {when} MB"] = (
                sum(file.stat().st_blocks for file in files) * 512 // 1_000_000
            )


class History:
    """What was changed behind a full backup: by Lsn, so that a state can be told."""

    def __init__(self, amber: AmberPeer, documents: int) -> None:
        self._amber = amber
        self._documents = documents
        self._rng = random.Random(workloads.SEED)
        self._changes: list[tuple[int, str, float | None]] = []

    @property
    def lsns(self) -> list[int]:
        return [lsn for lsn, _, _ in self._changes]

    def change(self, count: int) -> None:
        """Updates, and a deletion among ten, a commit each."""
        for number in range(count):
            id = workloads.document_id(self._rng.randrange(self._documents))
            score = None if number % 10 == 0 else self._rng.random()
            with self._amber.db.transaction(sync="os") as tx:
                if score is None:
                    tx["event"].delete(id)
                else:
                    tx["event"].put({"id": id, "score": score})
            assert tx.lsn is not None
            self._changes.append((tx.lsn, id, score))

    def compare(self, db: amberdb.Database, until: int) -> int:
        """All documents that were ever changed, with what they were at an Lsn."""
        expected: dict[str, float | None] = {}
        later: set[str] = set()
        for lsn, id, score in self._changes:
            if lsn <= until:
                expected[id] = score
            else:
                later.add(id)
        events = db.collection("event")
        for id, score in expected.items():
            found = events.get(id)
            assert (found and found["score"]) == score, f"{id} at Lsn {until}: {found}"
        for id in later - expected.keys():  # as it was in the full backup
            found = events.get(id)
            assert found, f"{id} at Lsn {until}"
            assert "entity_id" in found, f"{id} at Lsn {until}: {found}"
        return len(expected.keys() | later)


def copy(source: Path, target: Path) -> None:
    """By SQLite's backup API, all pages in one step, and synced."""
    with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as two:
        one.backup(two)
    _sync(target)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fdatasync(file.fileno())


def _timed(took: Took, name: str, call: Callable[[], object]) -> None:
    began = time.perf_counter()
    call()
    took.setdefault(name, []).append(round(time.perf_counter() - began, 3))
    say(f"{name}: {took[name][-1]} s")


def _medians(took: Took) -> dict[str, Any]:
    return {f"{name} s": round(median(times), 3) for name, times in took.items()}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    load = os.getloadavg()[0]
    began = time.monotonic()
    care = Care(root, options.documents, options.rounds)
    try:
        result: dict[str, Any] = {"loaded s": round(time.monotonic() - began)}
        if "full" in options.parts:
            result["full"] = care.full()
        if "beside" in options.parts:
            result["beside"] = care.beside(options.puts)
        if "chain" in options.parts:
            chain, history, result["increment"] = care.increments(options.increments)
            result["restore"] = care.restore(chain)
            result["points"] = care.points(chain, history, options.points)
        if "compact" in options.parts:
            result["compact"] = care.compact()
    finally:
        care.close()
    return result | {
        "command": "python -m bench.care " + " ".join(sys.argv[1:]),
        "documents": options.documents,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_before": round(load, 2),
        "load_after": round(os.getloadavg()[0], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="backup, restore and compaction at size")
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--puts", type=int, default=5_000, help="at least, per round")
    parser.add_argument("--increments", type=int, default=5)
    parser.add_argument("--points", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--dir", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        result = run(Path(directory), options)
    text = json.dumps(result, indent=2)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
