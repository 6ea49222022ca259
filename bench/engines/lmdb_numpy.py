"""LMDB and numpy, combined by hand: exact search without an index of vectors.

Invariants:
- Those of bench/engines/search_engine.py; LMDB commits are synced.
- The vectors are stored normalized, apart from their documents, by row number; the entries of an
  entity are its row numbers.
"""

from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from bench.engines.encoding import pack, unpack, without_vector
from bench.engines.search_engine import HITS, VectorEngine
from bench.workloads.events import Document
from bench.workloads.vectors import Vectors

_NUMBER_BYTES = 4


class LmdbNumpyPeer(VectorEngine):
    """The vectors of an entity are read out of LMDB; those of all are a matrix in memory, filled at
    the first search of all."""

    name = "lmdb + numpy"
    is_exact = True

    def __init__(self, path: Path, *, dim: int, ef: int) -> None:
        super().__init__(path, dim=dim, ef=ef)
        self._env = lmdb.open(str(path / "bench.lmdb"), map_size=1 << 36, max_dbs=3)
        self._docs, self._vectors, self._entities = (
            self._env.open_db(name) for name in (b"docs", b"vectors", b"entities")
        )
        with self._env.begin() as txn:
            self._count: int = txn.stat(self._docs)["entries"]
        self._matrix: Vectors = np.empty((0, dim), np.float32)
        self._filled = 0

    def put_many(self, documents: list[Document]) -> None:
        with self._env.begin(write=True) as txn:
            for number, document in enumerate(documents, self._count):
                key = number.to_bytes(_NUMBER_BYTES, "big")
                vector: Any = document["embedding"]
                txn.put(key, pack(without_vector(document)), db=self._docs)
                txn.put(key, (vector / np.linalg.norm(vector)).tobytes(), db=self._vectors)
                txn.put(_prefix(document["entity_id"]) + key, b"", db=self._entities)
        self._count += len(documents)

    def nearest(
        self, question: Vectors, limit: int = HITS, entity: str | None = None
    ) -> list[Document]:
        with self._env.begin() as txn:
            if entity is None:
                self._fill(txn)
                scores = self._matrix[: self._filled] @ question
                best = _best(scores, limit)
                keys = [number.to_bytes(_NUMBER_BYTES, "big") for number in best]
            else:
                of_entity = self._keys(txn, _prefix(entity))
                stored: Any = [txn.get(key, db=self._vectors) for key in of_entity]
                rows = np.frombuffer(b"".join(stored), np.float32).reshape(-1, self.dim)
                keys = [of_entity[number] for number in _best(rows @ question, limit)]
            return [unpack(txn.get(key, db=self._docs)) for key in keys]

    def _fill(self, txn: lmdb.Transaction) -> None:
        """Appends the vectors that the matrix lacks."""
        if self._filled == self._count:
            return
        if self._count > len(self._matrix):
            grown = np.empty((self._count * 5 // 4, self.dim), np.float32)
            grown[: self._filled] = self._matrix[: self._filled]
            self._matrix = grown
        with txn.cursor(self._vectors) as cursor:
            cursor.set_range(self._filled.to_bytes(_NUMBER_BYTES, "big"))
            stored = b"".join(cursor.iternext(keys=False))
        rows = np.frombuffer(stored, np.float32).reshape(-1, self.dim)
        self._matrix[self._filled : self._count] = rows
        self._filled = self._count

    def _keys(self, txn: lmdb.Transaction, prefix: bytes) -> list[bytes]:
        """The row numbers of an entity."""
        found: list[bytes] = []
        with txn.cursor(self._entities) as cursor:
            if cursor.set_range(prefix):
                for key in map(bytes, cursor.iternext(values=False)):
                    if not key.startswith(prefix):
                        break
                    found.append(key[-_NUMBER_BYTES:])
        return found

    def settle(self) -> None:
        """Does nothing: a commit writes the data file."""

    def close(self) -> None:
        self._env.close()


def _prefix(entity: str) -> bytes:
    return entity.encode() + b"\0"


def _best(scores: Vectors, limit: int) -> list[int]:
    """The numbers of the highest scores, best first."""
    if len(scores) > limit:
        best = np.argpartition(-scores, limit)[:limit]
    else:
        best = np.arange(len(scores))
    numbers: list[int] = best[np.argsort(-scores[best], kind="stable")].tolist()
    return numbers
