"""A thread that takes care of a database that is in use: checkpoints, compaction, checks, backups
that are restored, erasure, and the clock.

Invariants:
- A backup is restored to the Lsn of a snapshot, and compared with that snapshot.
- A word that was erased is looked for in the bytes of every file of the database.
"""

import random
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, final

import amberdb
from amberdb import BackupChainError, Database, SnapshotExpiredError
from support.differential.actor import Actor, Stage
from support.differential.declared import (
    ACCOUNT_COUNT,
    ACCOUNTS,
    BALANCE,
    COUNTER,
    EXPIRES_AT,
    MAIN,
    NOTES,
    give_upgrades,
    total,
)
from support.differential.difference import Difference, differ, differ_in_documents
from support.reference import Doc

ERASED: Final = "erased"
"""The owner of the documents that come to be erased."""
_CHAIN_MAX: Final = 4
_KINDS: Final = {
    "checkpoint": 6,
    "compact": 2,
    "upgrade": 1,
    "expire": 2,
    "sync": 1,
    "stats": 2,
    "check": 2,
    "snapshot": 4,
    "backup": 3,
    "erase": 2,
    "turn": 3,
}
_TURNS_S: Final = (0.5, 1.0, 5.0, 40.0, 400.0, -1.0, -60.0)


@final
class Caretaker(Actor):
    """Of one database."""

    def __init__(self, stage: Stage, seed: str, db: Database, *, turns: bool = True) -> None:
        """`turns`: whether the clock is moved."""
        super().__init__(stage, random.Random(f"{seed}/caretaker"), "caretaker")
        self._db = db
        self._seed = seed.replace("/", "x")
        self._chain: list[Path] = []
        self._number = 0
        self._kinds = {k: weight for k, weight in _KINDS.items() if turns or k != "turn"}

    def step(self) -> None:
        self.pause(0.15)
        (kind,) = self.rng.choices(list(self._kinds), list(self._kinds.values()))
        if kind not in ("backup", "turn"):  # they are noted with what they do
            self.note(kind)
        self._number += 1
        getattr(self, f"_{kind}")()

    def close(self) -> None:
        """Archives of a phase are of no use to the next."""
        for path in self._chain:
            path.unlink()

    # -- what needs no model ---------------------------------------------------------------------

    def _checkpoint(self) -> None:
        self._db.checkpoint()

    def _compact(self) -> None:
        self._db.compact()
        self._end_chain()

    def _upgrade(self) -> None:
        self._db.upgrade()

    def _expire(self) -> None:
        self._db.expire()

    def _sync(self) -> None:
        self._db.sync()

    def _stats(self) -> None:
        self._db.stats().to_map()

    def _check(self) -> None:
        report = self._db.check()
        if not report.ok:
            raise Difference(f"check(): {report}")

    def _turn(self) -> None:
        shared = self.stage.shared
        seconds = self.rng.choice(_TURNS_S)
        self.note("turn the clock", ("turn", seconds))
        shared.turn(seconds, lambda: self._db[COUNTER].put({"id": "turned", "n": seconds}))

    # -- snapshots and backups -------------------------------------------------------------------

    def _snapshot(self) -> None:
        try:
            with self._db.snapshot() as at:
                audit(at)
        except SnapshotExpiredError:
            if "snapshot_max_age_ms" not in self.stage.options:
                raise

    def _backup(self) -> None:
        """The next of the chain, and sometimes a restore to a snapshot that was taken before it."""
        try:
            if not self._chain:
                self._archive(None)
            with self._db.snapshot(max_age_ms=600_000) as at:
                documents = contents(at)
                self._archive(self._chain[-1])
                if self.rng.random() < 0.7:
                    self._restore(documents, at.lsn)
        except BackupChainError:
            if not self._chain or "subscriber_log_bytes_max" not in self.stage.options:
                raise  # nothing but a limit on the log that is kept ends a chain behind its back
            self._end_chain()
        if len(self._chain) >= _CHAIN_MAX:
            self._end_chain()

    def _archive(self, base: Path | None) -> None:
        number = len(self._chain)
        path = self.stage.directory / f"{self._number}-{number}.amberbak"
        compress: Literal["zstd"] | None = "zstd" if self.rng.random() < 0.5 else None
        self.note("backup", ("backup", path, base))
        self._db.backup(path, base=base, compress=compress)
        self._chain.append(path)

    def _end_chain(self) -> None:
        self.close()
        self._chain.clear()

    def _restore(self, documents: Mapping[str, list[Doc]], lsn: amberdb.Lsn) -> None:
        target = self.stage.directory / "restored.amber"
        self.note("restore", ("restore", len(self._chain), lsn))
        amberdb.verify_backup(self._chain)
        amberdb.restore(self._chain, target, until=lsn)
        with amberdb.open(target, clock=self.stage.shared.clock, map_bytes=1 << 30) as db:
            give_upgrades(db)
            for name, wanted in documents.items():
                found = [each for each in db[name].documents() if EXPIRES_AT not in each]
                differ_in_documents(("restored", name), found, wanted)
            audit(db)
            report = db.check()
            if not report.ok:
                raise Difference(f"check() of a restored database: {report}")
        shutil.rmtree(target)

    # -- erasure ---------------------------------------------------------------------------------

    def _erase(self) -> None:
        """Documents with a word that no other file may ever hold, written in several ways."""
        word = f"secret{self._seed}x{self._number}x{self.rng.randrange(1 << 40)}"
        db, rng = self._db, self.rng
        for name in (MAIN, NOTES):
            document: Doc = {"id": ERASED, "owner": ERASED, "text": f"a {word}", "title": word}
            db[name].put({**document, "tags": [word], "blob": word.encode() * 20})
            if rng.random() < 0.5:
                db.checkpoint()
            if rng.random() < 0.5:
                db[name].update(ERASED, {"text": "changed", "title": "changed"})
        receipts = [db.erase(name, {"owner": ERASED}, reason="the run") for name in (MAIN, NOTES)]
        differ((receipts, "documents"), [each.documents for each in receipts], [1, 1])
        differ((receipts, "are complete"), all(each.completed for each in receipts), True)
        self._end_chain()
        differ((receipts, word, "is in"), files_with(word, self.stage.path), [])


def audit(source: Any) -> None:
    """What is true at every Lsn, of a database that nobody writes or of a snapshot."""
    differ("the sum of all accounts", total(source), ACCOUNT_COUNT * BALANCE)
    for name in (MAIN, NOTES):
        collection = source[name]
        documents = list(collection.documents())
        differ_in_documents((name, "find"), collection.find(), documents)
        differ_in_documents((name, "in order"), collection.find(order_by="n"), documents)
        differ((name, "count"), collection.count(), len(documents))
        differ((name, "ids"), list(collection), [each["id"] for each in documents])


def contents(source: Any) -> dict[str, list[Doc]]:
    """All documents of a database or a snapshot that never expire."""
    return {
        name: [each for each in source[name].documents() if EXPIRES_AT not in each]
        for name in (MAIN, NOTES, ACCOUNTS, COUNTER)
    }


def files_with(word: str, directory: Path) -> list[str]:
    """In another process: a process that closes LMDB's lock file loses its own locks on it, and
    readers would then take it for dead."""
    command = ["grep", "-rlaFs", "-e", word, "."]
    found = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    return found.stdout.splitlines()
