"""The embedding queue: documents with text in the `source` of a Vector index and no vector yet.

    EmbeddingQueue       of an index with one vector per document: the source is a text
    MultiEmbeddingQueue  of one with several: a text, or a list of texts

The catalog declares a queue beside each such index. So the documents to be embedded are known
exactly at every commit, and a document costs an entry only while it is pending.

Invariants:
- A document has an entry, which holds its rowid alone, exactly when text() returns no None.
- A queue serves no filter and no order.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, TypeAlias, cast, final

from amberdb._types import Document
from amberdb.index.declaration import Declaration
from amberdb.index.paths import Path
from amberdb.index.vector.vector import Vector

Texts: TypeAlias = str | list[str]
"""The text of a document, or its texts: each gets a vector."""


class EmbeddingQueue(Declaration):
    """Declared over the field of the vector and its source, in this order."""

    __slots__ = ()

    kind: ClassVar[str] = "waiting"

    @staticmethod
    def of(vector: Vector) -> "EmbeddingQueue":
        """The queue of a Vector index that has a source."""
        assert vector.source is not None
        queue = MultiEmbeddingQueue if vector.multi else EmbeddingQueue
        return queue(vector.field, vector.source, sparse=True, name=f"{queue.kind}:{vector.name}")

    def compiled(self) -> Callable[[Document], Texts | None]:
        """text(document): the text, or texts, to embed; None when the document is not pending."""
        vector, source = map(Path.of, self.fields)
        texts_in = self.texts_in

        def text(document: Document) -> Texts | None:
            found = texts_in(source.find(document))
            return found if found and vector.find(document) is None else None

        return text

    @staticmethod
    def texts_in(value: object) -> Texts | None:
        """What is embedded of the value of the source."""
        return value if type(value) is str else None


@final
class MultiEmbeddingQueue(EmbeddingQueue):
    """The same for documents with several texts: of a list, each str that is not empty."""

    __slots__ = ()

    kind: ClassVar[str] = "waiting-multi"

    @staticmethod
    def texts_in(value: object) -> Texts | None:
        if isinstance(value, (list, tuple)):  # a tuple is stored as a list
            items = cast(Sequence[object], value)
            return [item for item in items if type(item) is str and item]
        return EmbeddingQueue.texts_in(value)
