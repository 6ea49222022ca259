"""The interfaces through which AmberDB and its peers are searched, by text and by vector.

Invariants:
- Those of bench/engines/database.py; searches find the documents of earlier commits.
- A search returns whole documents, decoded, best first. A document's vector is left out unless the
  engine stores both in one place.
"""

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from bench.engines.database import Database
from bench.workloads.events import Document
from bench.workloads.vectors import Vectors

HITS = 10
HNSW_M = 16
HNSW_EF_CONSTRUCTION = 128
"""Those of AmberDB's defaults."""


class TextEngine(Database):
    """Ranks `content` by BM25."""

    @abstractmethod
    def find(self, question: str, limit: int = HITS) -> list[Document]:
        """The best documents that contain any of the words."""


class VectorEngine(Database):
    """Ranks `embedding` by cosine."""

    is_exact: ClassVar[bool] = False

    def __init__(self, path: Path, *, dim: int, ef: int) -> None:
        """`ef`: of HNSW; an exact engine ignores it."""
        super().__init__(path)
        self.dim = dim
        self.ef = ef

    @abstractmethod
    def nearest(
        self, question: Vectors, limit: int = HITS, entity: str | None = None
    ) -> list[Document]:
        """The nearest documents, of all or of one entity."""
