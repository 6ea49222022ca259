"""AmberDB behind the interfaces of the compared search engines."""

import sys
import time
from pathlib import Path
from typing import Any

import amberdb
from amberdb import Neighbors, Ordered, Text, Vector
from bench.engines.database import HELD_IN_MEMORY
from bench.engines.search_engine import HITS, TextEngine, VectorEngine
from bench.workloads.events import Document
from bench.workloads.vectors import Vectors

_LAG_SHARE = 0.05
_LAG_ROWS = 2_000
"""A graph may lack this many rows, which searches score one by one."""
_POLL_S = 0.02
_BESIDE = Neighbors(group="session", order="created_at")
_GRAPH_LIBRARY = "hnswlib"


class AmberText(TextEngine):
    """AmberDB with its defaults and a text index."""

    name = "amberdb"
    held = HELD_IN_MEMORY

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(path)
        self.db = amberdb.open(path / "bench.amber", **options)
        self.memory = self.db.collection("memory", indexes=[Text("content")])

    def put_many(self, documents: list[Document]) -> None:
        self.memory.put_many(documents)

    def find(self, question: str, limit: int = HITS) -> list[Document]:
        return [hit.document for hit in self.memory.search(question, limit=limit)]

    def settle(self) -> None:
        self.db.checkpoint()

    def close(self) -> None:
        self.db.close()


class AmberSessions(AmberText):
    """Turns of sessions, so that the turns beside a hit can be asked for."""

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(path, **options)
        self.memory = self.db.collection(
            "turns", indexes=[Ordered("session", "created_at"), Text("content")]
        )

    def find_beside(self, question: str, limit: int = HITS) -> list[Document]:
        return [
            hit.document for hit in self.memory.search(question, limit=limit, neighbors=_BESIDE)
        ]


class AmberVectors(VectorEngine):
    """AmberDB with its defaults, a vector index, and an ordered index on the entity."""

    name = "amberdb"
    held = HELD_IN_MEMORY
    _texts: tuple[Text, ...] = ()

    def __init__(self, path: Path, *, dim: int, ef: int, **options: Any) -> None:
        super().__init__(path, dim=dim, ef=ef)
        self.db = amberdb.open(path / "bench.amber", **options)
        vector = Vector("embedding", dim=dim, metric="cosine", ef=ef)
        indexes: list[Ordered | Text | Vector] = [Ordered("entity_id"), *self._texts, vector]
        self.memory = self.db.collection("memory", indexes=indexes)

    def put_many(self, documents: list[Document]) -> None:
        self.memory.put_many(documents)

    def nearest(
        self, question: Vectors, limit: int = HITS, entity: str | None = None
    ) -> list[Document]:
        where = None if entity is None else {"entity_id": entity}
        return [
            hit.document for hit in self.memory.search(vector=question, where=where, limit=limit)
        ]

    def stats(self) -> dict[str, Any]:
        """The statistics of the vector index."""
        searches = self.db.stats()["collections"]["memory"]["search"]
        found: dict[str, Any] = searches["vector:embedding"]
        return found

    def is_caught_up(self) -> bool:
        """Whether no graph is being built, and the graph lacks few enough rows."""
        facts = self.stats()
        lag: int = facts["lag"]
        return not facts["building"] and lag <= max(_LAG_ROWS, _LAG_SHARE * facts["rows"])

    def catch_up(self, question: Vectors) -> None:
        """Returns when the graph has caught up; searches are what start its extension."""
        self.nearest(question)
        self.db.build_indexes()
        while not self.is_caught_up():
            time.sleep(_POLL_S)
            self.nearest(question)
            self.db.build_indexes()

    def settle(self) -> None:
        self.db.checkpoint()

    def close(self) -> None:
        self.db.close()


class AmberHybrid(AmberVectors):
    """AmberDB with a text index as well."""

    _texts = (Text("content"),)

    def both(self, question: str, vector: Vectors, limit: int = HITS) -> list[Document]:
        return [hit.document for hit in self.memory.search(question, vector=vector, limit=limit)]


class AmberFlat(AmberHybrid):
    """AmberDB where hnswlib is not installed, so that it builds no graph: as long as one is open,
    the module cannot be imported in this process."""

    def __init__(self, path: Path, *, dim: int, ef: int, **options: Any) -> None:
        modules: dict[str, Any] = sys.modules  # None in it forbids the import
        self._hidden = modules.get(_GRAPH_LIBRARY)
        modules[_GRAPH_LIBRARY] = None
        super().__init__(path, dim=dim, ef=ef, **options)

    def close(self) -> None:
        super().close()
        del sys.modules[_GRAPH_LIBRARY]
        if self._hidden is not None:
            sys.modules[_GRAPH_LIBRARY] = self._hidden
