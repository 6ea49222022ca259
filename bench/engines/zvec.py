"""zvec, prepared as its documentation recommends.

Invariants:
- Those of bench/engines/search_engine.py, except durability: its ingest is not timed.
"""

from pathlib import Path
from typing import Any

from bench.engines.database import library
from bench.engines.encoding import document_of_json, json_of, without_vector
from bench.engines.search_engine import HITS, HNSW_EF_CONSTRUCTION, HNSW_M, VectorEngine
from bench.workloads.events import Document
from bench.workloads.vectors import Vectors

_INSERT_MAX = 1_000
"""Documents of one call; zvec refuses more than 1,024."""


class ZvecPeer(VectorEngine):
    """A collection with the JSON document and the entity as fields, and an HNSW graph."""

    name = "zvec"
    packages = ("zvec",)

    def __init__(self, path: Path, *, dim: int, ef: int) -> None:
        super().__init__(path, dim=dim, ef=ef)
        self._zvec: Any = library("zvec")
        directory = path / "bench.zvec"
        if directory.exists():
            self._collection: Any = self._zvec.open(str(directory))
        else:
            self._collection = self._zvec.create_and_open(str(directory), self._schema())

    def _schema(self) -> Any:
        zvec = self._zvec
        graph = zvec.HnswIndexParam(
            metric_type=zvec.MetricType.COSINE, m=HNSW_M, ef_construction=HNSW_EF_CONSTRUCTION
        )
        vector = zvec.VectorSchema(
            "embedding", zvec.DataType.VECTOR_FP32, dimension=self.dim, index_param=graph
        )
        entity = zvec.FieldSchema(
            "entity_id", zvec.DataType.STRING, index_param=zvec.InvertIndexParam()
        )
        document = zvec.FieldSchema("doc", zvec.DataType.STRING)
        return zvec.CollectionSchema("memory", fields=[entity, document], vectors=[vector])

    def put_many(self, documents: list[Document]) -> None:
        for start in range(0, len(documents), _INSERT_MAX):
            rows = [
                self._zvec.Doc(
                    id=one["id"],
                    vectors={"embedding": one["embedding"].tolist()},
                    fields={
                        "entity_id": one["entity_id"],
                        "doc": json_of(without_vector(one)),
                    },
                )
                for one in documents[start : start + _INSERT_MAX]
            ]
            failed = [status for status in self._collection.insert(rows) if not status.ok()]
            if failed:
                raise RuntimeError(f"zvec refused {len(failed)} documents: {failed[0]}")
        self._collection.flush()

    def nearest(
        self, question: Vectors, limit: int = HITS, entity: str | None = None
    ) -> list[Document]:
        asked = self._zvec.Query(
            field_name="embedding",
            vector=question,
            param=self._zvec.HnswQueryParam(ef=max(self.ef, limit)),
        )
        found = self._collection.query(
            asked,
            topk=limit,
            filter=None if entity is None else f"entity_id = '{entity}'",
            output_fields=["doc"],
        )
        return [document_of_json(one.field("doc")) for one in found]

    def settle(self) -> None:
        self._collection.optimize()

    def close(self) -> None:
        self._collection.close()
