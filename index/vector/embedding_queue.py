"""Waiting: documents that have text for a Vector index with a `source`, and no vector yet.

The catalog declares it beside each such index, nobody else does. So what is to be embedded is known
exactly at every commit, and costs an entry only while a document waits.

Invariants:
- A document has an entry, of its rowid alone, exactly when text() gives some.
- It answers no filter and gives no order.
"""

from collections.abc import Callable
from typing import ClassVar, final

from amberdb._types import Document
from amberdb.index.declaration import Declaration
from amberdb.index.paths import Path
from amberdb.index.vector.vector import Vector


@final
class EmbeddingQueue(Declaration):
    """Over the vector's field and its source, in this order."""

    __slots__ = ()

    kind: ClassVar[str] = "waiting"

    @classmethod
    def of(cls, vector: Vector) -> "EmbeddingQueue":
        """Of a Vector index with a source."""
        assert vector.source is not None
        return cls(vector.field, vector.source, sparse=True, name=f"{cls.kind}:{vector.name}")

    def compiled(self) -> "Callable[[Document], str | None]":
        """text(document): what is to be embedded; None when the document does not wait."""
        vector, source = map(Path.of, self.fields)

        def text(document: Document) -> str | None:
            found = source.find(document)
            waits = type(found) is str and found and vector.find(document) is None
            return found if waits else None

        return text
