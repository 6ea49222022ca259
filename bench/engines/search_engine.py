"""The interfaces through which AmberDB and its peers are searched, by text and by vector.

Invariants:
- put_many() is durable when it returns, and later searches find its documents; the ingest of a peer
  that cannot do this is not timed (see bench/README.md).
- A search returns whole documents, decoded, best first. A document's vector is left out unless the
  engine stores both in one place.
- A peer imports its packages when it is constructed; callers check first that they are installed.
"""

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from bench.workloads.events import Document
from bench.workloads.vectors import Vectors

HITS = 10
HNSW_M = 16
HNSW_EF_CONSTRUCTION = 128
"""Those of AmberDB's defaults."""


def library(name: str) -> Any:
    """The module, typed Any so that type checkers pass whether or not it is installed."""
    return importlib.import_module(name)


class SearchEngine(ABC):
    """One database in one directory."""

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    """Modules of the extra `peers` that the engine needs."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path

    @abstractmethod
    def put_many(self, documents: list[Document]) -> None:
        """New documents, in one commit."""

    @abstractmethod
    def settle(self) -> None:
        """Moves the contents of logs and memory into the data files and indexes."""

    @abstractmethod
    def close(self) -> None: ...


class TextEngine(SearchEngine):
    """Ranks `content` by BM25."""

    @abstractmethod
    def find(self, question: str, limit: int = HITS) -> list[Document]:
        """The best documents that contain any of the words."""


class VectorEngine(SearchEngine):
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


Kind = TypeVar("Kind", bound=SearchEngine)


def installed(kinds: Iterable[type[Kind]]) -> tuple[list[type[Kind]], dict[str, str]]:
    """The kinds whose packages are installed, and a row's notes on the others."""
    found: list[type[Kind]] = []
    left_out: dict[str, str] = {}
    for kind in kinds:
        missing = [name for name in kind.packages if importlib.util.find_spec(name) is None]
        if missing:
            left_out[f"left out: {kind.name}"] = f"{missing[0]} is not installed"
        else:
            found.append(kind)
    return found, left_out
