"""The collection of a store of texts with vectors.

    {id, page_content, metadata: {...}, embedding: vector}     page_content: Text, embedding: Vector

Invariants:
- The collection is declared with the first vector, whose length is its dimension, unless `dim` is
  given; until then every search is empty.
- A vector of another length, and a metric other than the stored one, are errors.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import atan, pi
from typing import Any, Final, Literal, TypeAlias, final

from langchain_core.documents import Document

from amberdb import Collection, CollectionError, Database, Hit, IndexSpec, Text, Vector
from amberdb._shared.checks import check_strs
from amberdb.integrations.langchain.documents import (
    FIELDS,
    OWNER,
    Filter,
    declared,
    row_of,
    where_of,
)

Metric: TypeAlias = Literal["cosine", "ip", "l2"]

VECTOR: Final = "embedding"

RELEVANCE: Final[dict[Metric, Callable[[float], float]]] = {
    "cosine": lambda score: (1 + score) / 2,
    "ip": lambda score: 0.5 + atan(score) / pi,
    "l2": lambda score: 1 / (1 - score),
}
"""From 0 to 1, as AmberDB fuses them."""


@final
class VectorRows:
    """Rows of texts with vectors, in a collection that there may not be yet."""

    def __init__(
        self,
        db: Database,
        name: str,
        *,
        dim: int | None,
        metric: Metric,
        indexes: Sequence[IndexSpec] | None,
    ) -> None:
        """Raises CollectionError."""
        self._db = db
        self._name = name
        self._metric: Metric = metric
        self._indexes = indexes
        self._collection: Collection | None = None
        if dim is None:
            self.collection()
        else:
            self._declare(dim)

    def collection(self) -> Collection | None:
        """The collection, None before the first vector of any store of it."""
        if self._collection is None and self._name in self._db.collections():
            stored = self._index()
            if stored is not None:
                return self._declare(stored.dim)
        return self._collection

    def put(self, rows: Sequence[dict[str, Any]], vectors: Sequence[Any]) -> None:
        """Stores rows with their vectors in one commit. Raises ValueError when their numbers
        differ, InvalidDocumentError, CollectionError."""
        if len(rows) != len(vectors):
            raise ValueError(f"the embedder returned {len(vectors)} vectors for {len(rows)} texts")
        if rows:
            collection = self.collection() or self._declare(len(vectors[0]))
            collection.put_many(
                {**row, VECTOR: vector} for row, vector in zip(rows, vectors, strict=True)
            )

    def delete(self, ids: Iterable[str] | None) -> None:
        """Deletes rows by id, or all, in one commit."""
        collection = self.collection()
        if collection is not None and ids is None:
            collection.delete_many({})
        elif collection is not None:
            collection.delete_many(ids=ids)

    def hits(
        self,
        vector: Any,
        limit: int,
        filter: Filter | None,
        text: str | None = None,
        *,
        with_vectors: bool = False,
    ) -> Sequence[Hit]:
        """The rows that are closest to a vector, and to a text. Raises QueryError."""
        where = where_of(filter)
        collection = self.collection()
        if collection is None or limit < 1:
            return []
        fields = (*FIELDS, VECTOR) if with_vectors else FIELDS
        return collection.search(text, vector=vector, where=where, limit=limit, fields=fields)

    def _index(self) -> Vector | None:
        specs = self._db.definition(self._name).specs
        found = (spec for spec in specs if isinstance(spec, Vector) and spec.field == VECTOR)
        return next(found, None)

    def _declare(self, dim: int) -> Collection:
        if self._name in self._db.collections() and (stored := self._index()) is not None:
            kept, asked = (stored.dim, stored.metric), (dim, self._metric)
            if kept != asked:
                raise CollectionError(
                    f"the vectors of {self._name!r} have (dim, metric) {kept}, and not {asked}: "
                    "give the embedder and the metric that it was made with, or another name"
                )
        own: list[IndexSpec] = [Vector(VECTOR, dim=dim, metric=self._metric), Text("page_content")]
        indexes = declared(self._db, self._name, own, self._indexes)
        self._collection = self._db.collection(self._name, indexes=indexes, owner=OWNER)
        return self._collection


def rows_of(
    texts: Iterable[str],
    metadatas: Sequence[dict[str, Any]] | None,
    ids: Sequence[str | None] | None,
) -> list[dict[str, Any]]:
    """Rows of texts, metadata and ids; an id that is None is made. Raises ValueError for lists of
    different lengths."""
    listed = check_strs("texts", texts)
    count = len(listed)
    for name, values in (("metadatas", metadatas), ("ids", ids)):
        if values is not None and len(values) != count:
            raise ValueError(f"there are {count} texts and {len(values)} {name}: give one for each")
    return [
        row_of(Document(id=id, page_content=text, metadata=metadata or {}))
        for text, metadata, id in zip(
            listed, metadatas or [{}] * count, ids or [None] * count, strict=True
        )
    ]


def batches(rows: Sequence[dict[str, Any]], size: int | None) -> Iterator[Sequence[dict[str, Any]]]:
    """The rows in batches of a size, or all at once. Raises ValueError."""
    if size is not None and size < 1:
        raise ValueError(f"batch_size={size}: give a number above zero, or None for all at once")
    step = size or max(1, len(rows))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]
