"""One AmberDB and one SQLite database with the same documents, and the measurements on them.

Invariants:
- Compared operations take turns on the same disk; a figure is the median of the rounds.
- Every restored database is checked and counted before its time is reported.
"""

import os
import random
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import amberdb
from bench.care.history import History
from bench.engines.amber import AmberEngine
from bench.engines.sqlite import SqlitePeer
from bench.workloads import events
from bench.workloads.events import CATEGORIES, Document

DOCUMENTS = 1_000_000
CHANGES = 10_000
"""Commits between two backups."""
REMOVED = CATEGORIES[: len(CATEGORIES) // 2]
Took = dict[str, list[float]]


class Databases:
    """The two databases, and one method for each measurement."""

    def __init__(self, root: Path, documents: int, rounds: int) -> None:
        self.root = root
        self.rounds = rounds
        for name in ("amber", "sqlite"):
            (root / name).mkdir()
        self.amber = AmberEngine(root / "amber")
        self.sqlite = SqlitePeer(root / "sqlite")
        self.sqlite_file = root / "sqlite" / "bench.sqlite"
        self.fresh: Iterator[Document] = events.documents(documents, 10 * documents)
        for batch in events.batches(0, documents):
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
        """Full backups, raw and compressed; the last raw one stays: full.backup."""
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
        """Microseconds of single puts, without a backup and during one, in turns."""
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
        """At least `puts` puts, and as many as fit into the backup."""
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
        """A chain that begins with a new full backup, and the commits after that."""
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
        rng = random.Random(events.SEED)
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
        """Adds the megabytes of all files."""
        for name in ("amber", "sqlite"):
            files = [file for file in (self.root / name).rglob("*") if file.is_file()]
            sizes[f"{name} {when} MB"] = (
                sum(file.stat().st_blocks for file in files) * 512 // 1_000_000
            )


def copy(source: Path, target: Path) -> None:
    """Copies by SQLite's backup API, all pages in one step, and syncs."""
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
