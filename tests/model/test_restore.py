"""restore(until=x) is the model at x, for any x, whatever went on between the backups.

Writes, deletes, transactions, expiry, checkpoints, index declarations, builds and purges, closing
and dying, in any order; full and incremental backups among them, compressed and not.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import amberdb
from amberdb import BackupReport, Database, Ordered, Text, Unique, Vector
from amberdb.engine.backup import backup, restore
from amberdb.engine.commit import index_chunks
from amberdb.engine.search import flush
from support import slices
from support.databases import SMALL, FakeClock, audited
from support.reference import Doc, same
from unit.wal.helpers import join_preparation

Documents = dict[str, Doc]
WORDS: Final = ("umbrella", "rain", "meeting", "\u4e0b\u96e8", "lin")
DECLARATIONS: Final[list[list[Any]]] = [
    [Ordered("n")],
    [Ordered("n"), Text("text"), Vector("v", dim=2)],
    [Unique("id"), Text("text")],
    [Ordered("tags"), Ordered("-n", "text"), Vector("v", dim=2)],
    [],
]

numbers = st.integers(0, 7)
steps = st.lists(st.tuples(st.sampled_from(range(12)), numbers, numbers), min_size=3, max_size=25)


class World:
    """A database, its states by Lsn, and the chain that it has made."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = FakeClock()
        self.path = root / "0.amber"
        self.db = self.open()
        self.states: list[tuple[int, Documents]] = []
        self.documents: Documents = {}
        self.chain: list[BackupReport] = []
        self.count = 0
        self.steps: list[Callable[[int, int], None]] = [
            self.put, self.put, self.put, self.delete, self.several, self.declare, self.build,
            self.checkpoint, self.expire, self.reopen, self.die, self.backup,
        ]  # fmt: skip
        self.declare(1, 0)
        self.note()

    def open(self) -> Database:
        return amberdb.open(self.path, **SMALL, clock=self.clock)

    def note(self) -> None:
        lsn = self.db.stats()["last_lsn"]
        self.states.append((lsn, dict(self.documents)))

    def document(self, a: int, b: int) -> Doc:
        self.count += 1
        doc: Doc = {"id": f"k{a}", "n": b, "text": f"{WORDS[a % 5]} {WORDS[b % 5]} {self.count}"}
        if b % 2:
            doc["v"] = [float(a), float(b) + 1]
        if b % 3 == 0:
            doc["tags"] = [a, b]
        if b == 7:
            doc["dies"] = self.clock.now + 5
        return doc

    # -- steps -------------------------------------------------------------------------------

    def put(self, a: int, b: int) -> None:
        doc = self.document(a, b)
        self.db.collection("n").put(doc)
        self.documents[doc["id"]] = doc

    def delete(self, a: int, b: int) -> None:
        self.db.collection("n").delete(f"k{a}")
        self.documents.pop(f"k{a}", None)

    def several(self, a: int, b: int) -> None:
        with self.db.transaction() as tx:
            for doc in (self.document(a, b), self.document(b, a)):
                tx["n"].put(doc)
                self.documents[doc["id"]] = doc
            tx["n"].delete("k0")
            self.documents.pop("k0", None)

    def declare(self, a: int, b: int) -> None:
        specs = DECLARATIONS[a % len(DECLARATIONS)]
        self.db.collection("n", indexes=specs, expires_at="dies")

    def build(self, a: int, b: int) -> None:
        self.db.build_indexes()

    def checkpoint(self, a: int, b: int) -> None:
        self.db.checkpoint()

    def expire(self, a: int, b: int) -> None:
        self.clock.advance(a)
        self.db.expire()

    def reopen(self, a: int, b: int) -> None:
        self.db.close()
        self.db = self.open()

    def die(self, a: int, b: int) -> None:
        join_preparation()
        self.count += 1
        after = self.root / f"{self.count}.amber"
        shutil.copytree(self.path, after)
        self.db.close()
        self.path = after
        self.db = self.open()

    def backup(self, a: int, b: int) -> None:
        if a == 0:
            self.chain = []
        path = self.root / f"b{len(self.states)}"
        base = self.chain[-1].path if self.chain else None
        self.chain.append(self.db.backup(path, base=base, compress="zstd" if b % 2 else None))

    # -- comparing ---------------------------------------------------------------------------

    def expected(self, lsn: int) -> Documents:
        found: Documents = {}
        for number, documents in self.states:
            if number <= lsn:
                found = documents
        return {id: doc for id, doc in found.items() if doc.get("dies", 1e12) > self.clock.now}

    def compare(self, until: int) -> None:
        target = self.root / "restored.amber"
        paths = [report.path for report in self.chain]
        report = amberdb.restore(paths, target, until=until, checkpoint_bytes=2000, **SMALL)
        assert report.lsn <= until
        with audited(target, clock=self.clock) as db:
            found = {doc["id"]: doc for doc in db.collection("n").documents()}
            assert same(plain(found), plain(self.expected(until)))
            db.build_indexes()
        shutil.rmtree(target)


def plain(documents: Documents) -> Documents:
    """Vectors as lists."""
    return {
        id: {**doc, **({"v": [float(x) for x in doc["v"]]} if "v" in doc else {})}
        for id, doc in documents.items()
    }


@pytest.mark.slow
@pytest.mark.sliced
@settings(max_examples=slices.size(60, 30))
@given(before=steps, between=st.lists(steps, max_size=3), picks=st.lists(st.integers(0, 10**6)))
def test_any_point_of_any_chain_is_the_model_there(
    before: list[tuple[int, int, int]],
    between: list[list[tuple[int, int, int]]],
    picks: list[int],
) -> None:
    memory = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    world: World | None = None
    try:
        with (
            patch.object(backup, "BLOCK_BYTES", 300),
            patch.object(restore, "_TRANSACTION_BYTES", 1000),
            patch.object(index_chunks, "CHUNK", 3),
            patch.object(flush, "MERGE_WIDTH", 2),
        ):
            world = World(root)
            for part in (before, *between):
                for step, a, b in part:
                    world.steps[step](a, b)
                    world.note()
                world.backup(1, len(part))
                world.note()
            first, last = world.chain[0].lsn, world.chain[-1].lsn
            inside = [lsn for lsn, _ in world.states if first <= lsn <= last]
            for until in {first, last, *(inside[pick % len(inside)] for pick in picks[:4])}:
                world.compare(until)
    finally:
        if world is not None:
            world.db.close()
        shutil.rmtree(root)
