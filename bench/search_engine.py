"""The interfaces through which AmberDB and its peers are searched, by words and by vectors.

Invariants:
- put_many() is durable when it returns, and searches then find what it put; where a peer cannot do
  that, bench/README.md says so and its ingest is not timed.
- A search returns whole documents, decoded, best first. Those with vectors come without them,
  unless the engine keeps both in one place.
- A peer imports its packages when it is made; who makes one looks first whether they are there.
"""

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from bench.embeddings import Vectors
from bench.workloads import Document

HITS = 10


def library(name: str) -> Any:
    """The module; Any, so that the type checkers pass with and without it."""
    return importlib.import_module(name)


class SearchEngine(ABC):
    """One database in one directory."""

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    """Modules of the extra `peers` that it needs."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path

    @abstractmethod
    def put_many(self, documents: list[Document]) -> None:
        """New documents, in one commit."""

    @abstractmethod
    def settle(self) -> None:
        """Brings what is only in a log or in memory to its final place, indexes too."""

    @abstractmethod
    def close(self) -> None: ...


class TextEngine(SearchEngine):
    """Ranks `content` by BM25."""

    @abstractmethod
    def find(self, question: str, limit: int = HITS) -> list[Document]:
        """The best documents that have any of the words."""


class VectorEngine(SearchEngine):
    """Ranks `embedding` by cosine."""

    is_exact: ClassVar[bool] = False

    def __init__(self, path: Path, *, dim: int, width: int) -> None:
        """`width`: how far an approximate search looks; the ef of HNSW."""
        super().__init__(path)
        self.dim = dim
        self.width = width

    @abstractmethod
    def nearest(
        self, question: Vectors, limit: int = HITS, entity: str | None = None
    ) -> list[Document]:
        """The nearest documents, of all or of one entity."""


Kind = TypeVar("Kind", bound=SearchEngine)


def installed(kinds: Iterable[type[Kind]]) -> tuple[list[type[Kind]], dict[str, str]]:
    """Those whose packages are there; and notes on the others, for a row."""
    found: list[type[Kind]] = []
    left_out: dict[str, str] = {}
    for kind in kinds:
        missing = [name for name in kind.packages if importlib.util.find_spec(name) is None]
        if missing:
            left_out[f"left out: {kind.name}"] = f"{missing[0]} is not installed"
        else:
            found.append(kind)
    return found, left_out
