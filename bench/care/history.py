"""Commits made after a full backup, with which restored databases are compared."""

import random

import amberdb
from bench.engines.amber import AmberEngine
from bench.workloads import events


class History:
    """The changes after a full backup by Lsn, from which the state at any Lsn follows."""

    def __init__(self, amber: AmberEngine, documents: int) -> None:
        self._amber = amber
        self._documents = documents
        self._rng = random.Random(events.SEED)
        self._changes: list[tuple[int, str, float | None]] = []

    @property
    def lsns(self) -> list[int]:
        return [lsn for lsn, _, _ in self._changes]

    def change(self, count: int) -> None:
        """`count` commits of one change each: one deletion in ten, else an update."""
        for number in range(count):
            id = events.document_id(self._rng.randrange(self._documents))
            score = None if number % 10 == 0 else self._rng.random()
            with self._amber.db.transaction(sync="os") as tx:
                if score is None:
                    tx["event"].delete(id)
                else:
                    tx["event"].put({"id": id, "score": score})
            assert tx.lsn is not None
            self._changes.append((tx.lsn, id, score))

    def compare(self, db: amberdb.Database, until: int) -> int:
        """Compares every changed document with its state at `until`; returns their count."""
        expected: dict[str, float | None] = {}
        later: set[str] = set()
        for lsn, id, score in self._changes:
            if lsn <= until:
                expected[id] = score
            else:
                later.add(id)
        collection = db.collection("event")
        for id, score in expected.items():
            found = collection.get(id)
            assert (found and found["score"]) == score, f"{id} at Lsn {until}: {found}"
        for id in later - expected.keys():  # unchanged since the full backup
            found = collection.get(id)
            assert found, f"{id} at Lsn {until}"
            assert "entity_id" in found, f"{id} at Lsn {until}: {found}"
        return len(expected.keys() | later)
