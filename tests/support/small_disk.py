"""A workload on a disk that is full again and again, for a process of its own.

    python -m support.small_disk tmpfs|ext4|limit DIRECTORY

`tmpfs` and `ext4` mount a file system of 24 MiB in the directory, and end with SKIP where that is
not allowed (they are meant for `unshare --mount`, so that the mount goes with the process); a
file of ballast fills it. `limit` is the process's own limit on the size of files, which works
everywhere.

Invariants:
- Full or not, a write is acknowledged, or refused with a typed error and nothing of it is there.
- Reads, snapshots and check() go on; writes go on when there is space, without reopening.
- What cannot be opened for want of space is opened when there is space; nothing is lost.
"""

import os
import random
import resource
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import amberdb
from amberdb import Database, DiskFullError, Ordered, StorageError, Sync
from support.databases import SMALL, assert_sound

SKIP = 77
"""The exit code of what could not be tried here."""
ROUNDS = 4
SYNCS: tuple[Sync, ...] = ("os", "os", "os", "os", "always")
OPTIONS: dict[str, Any] = {
    **SMALL,
    "memtable_bytes_max": 600_000,
    "map_bytes": 1 << 26,
    "sync": "os",
}


class Disk:
    """A file system that can be filled and emptied."""

    error: type[StorageError] = DiskFullError

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, left_bytes: int) -> None:
        """Leaves about so many bytes."""
        with open(self._ballast, "ab", buffering=0) as file:
            block = bytes(1 << 16)
            try:
                while block:
                    try:
                        file.write(block)
                        os.fsync(file.fileno())
                    except OSError:
                        block = block[: len(block) // 2]
            finally:
                size = self._ballast.stat().st_size
                os.truncate(self._ballast, max(0, size - left_bytes))

    def empty(self) -> None:
        self._ballast.unlink(missing_ok=True)


class Limit(Disk):
    """No file may grow beyond so many bytes; LMDB's would."""

    error = StorageError

    def fill(self, left_bytes: int) -> None:
        sizes = [file.stat().st_size for file in self.path.rglob("data.mdb")]
        self._limit(max(sizes, default=0) + left_bytes)

    def empty(self) -> None:
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, size: int) -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


class Workload:
    """Documents written until they are refused."""

    def __init__(self, disk: Disk, rng: random.Random) -> None:
        self.disk = disk
        self.rng = rng
        self.stored: dict[str, int] = {}
        self.seen: Counter[str] = Counter()
        self._number = 0

    def write(self, db: Database, times: int) -> None:
        """The number of every write that is acknowledged is kept."""
        for _ in range(times):
            self._number += 1
            id = f"{self.rng.randrange(300):03}"
            document = {"id": id, "n": self._number, "text": "x" * self.rng.randrange(4000)}
            try:
                db.collection("a").put(document, sync=self.rng.choice(SYNCS))
                self.stored[id] = self._number
                self.seen["stored"] += 1
            except self.disk.error:
                self.seen["refused"] += 1
            if self.rng.random() < 0.05:
                self.checkpoint(db)

    def checkpoint(self, db: Database) -> None:
        try:
            db.checkpoint()
            self.seen["checkpoints"] += 1
        except self.disk.error:
            self.seen["checkpoints refused"] += 1

    def verify(self, db: Database) -> None:
        found = db.collection("a").find(order_by="n", limit=1000)
        assert {doc["id"]: doc["n"] for doc in found} == self.stored
        assert_sound(db)

    def run(self) -> None:
        path = self.disk.path / "t.amber"
        db = amberdb.open(path, **OPTIONS)
        db.collection("a", indexes=[Ordered("n")])
        for number in range(ROUNDS):
            self.write(db, 60)
            with db.snapshot() as at:
                before = len(at["a"])
                self.disk.fill(self.rng.choice((0, 0, 20_000, 200_000)))
                self.write(db, 300)
                self.checkpoint(db)
                self.verify(db)
                assert len(at["a"]) == before
            if number % 2:
                db.close()
                db = self._reopened(path)
            else:
                self.disk.empty()
            refused = self.seen["refused"] + self.seen["checkpoints refused"]
            self.write(db, 60)
            db.checkpoint()
            assert self.seen["refused"] + self.seen["checkpoints refused"] == refused
            self.verify(db)
        db.close()
        with amberdb.open(path, **OPTIONS) as db:
            self.verify(db)

    def _reopened(self, path: Path) -> Database:
        try:
            db = amberdb.open(path, **OPTIONS)
            self.seen["opened while full"] += 1
            self.verify(db)
            self.disk.empty()
            return db
        except self.disk.error:
            self.seen["not opened while full"] += 1
        self.disk.empty()
        return amberdb.open(path, **OPTIONS)


def mounted(kind: str, directory: Path) -> Disk:
    """Exits with SKIP, and why, where it cannot be mounted."""
    target = directory / "mounted"
    target.mkdir()
    commands = [["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(target)]]
    if kind == "ext4":
        image = directory / "image"
        image.touch()
        os.truncate(image, 24 << 20)
        commands = [
            ["mkfs.ext4", "-q", "-m", "0", str(image)],
            ["mount", "-o", "loop", str(image), str(target)],
        ]
    for command in commands:
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", None) or error
            print(f"{' '.join(command[:3])}: {reason}".strip())
            sys.exit(SKIP)
    return Disk(target)


def main(kind: str, directory: Path, seed: int) -> None:
    disk = Limit(directory) if kind == "limit" else mounted(kind, directory)
    work = Workload(disk, random.Random(seed))
    work.run()
    print(dict(work.seen))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
