"""The embedding queue: documents with text in the `source` of a Vector index and no vector yet.

The catalog declares a queue beside each such index. So the documents to be embedded are known
exactly at every commit, and a document costs an entry only while it is pending.

Invariants:
- A document has an entry, which holds its rowid alone, exactly when text() returns a str.
- A queue serves no filter and no order.
"""

from collections.abc import Callable
from typing import ClassVar, final

from amberdb._types import Document
from amberdb.index.declaration import Declaration
from amberdb.index.paths import Path
from amberdb.index.vector.vector import Vector


@final
class EmbeddingQueue(Declaration):
    """Declared over the field of the vector and its source, in this order."""

    __slots__ = ()

    kind: ClassVar[str] = "waiting"

    @classmethod
    def of(cls, vector: Vector) -> "EmbeddingQueue":
        """The queue of a Vector index that has a source."""
        assert vector.source is not None
        return cls(vector.field, vector.source, sparse=True, name=f"{cls.kind}:{vector.name}")

    def compiled(self) -> "Callable[[Document], str | None]":
        """text(document): the text to embed; None when the document is not pending."""
        vector, source = map(Path.of, self.fields)

        def text(document: Document) -> str | None:
            value = source.find(document)
            is_pending = type(value) is str and value and vector.find(document) is None
            return value if is_pending else None

        return text
