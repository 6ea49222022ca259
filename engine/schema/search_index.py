"""A Text or Vector index, compiled: the entry of a document, rowid -> id.

Invariants:
- A document has an entry exactly when it has content for the index, and at most one.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from amberdb._types import Document
from amberdb.engine.schema.keyspace import ENTRY_PREFIX_SIZE, prefix_of
from amberdb.index.text.text import Text, TextExtractor
from amberdb.index.vector.vector import Vector

if TYPE_CHECKING:
    from amberdb.engine.schema.definition import IndexDef

ENTRY: Final = b"r"


@final
class RowIndex:
    """Made by Schema, of the declarations that search."""

    is_unique = False
    __slots__ = (
        "complete_from",
        "content",
        "documents",
        "entry_prefix",
        "extractor",
        "number",
        "prefix",
        "spec",
    )

    spec: Text | Vector
    extractor: TextExtractor | None
    """Of a text index."""
    content: Callable[[Document], object]
    """What of a document is indexed, to be compared with ==; None: the document has no entry."""
    documents: bytes
    """The tree of the collection."""

    def __init__(self, index: "IndexDef", spec: Text | Vector, documents: bytes) -> None:
        self.spec = spec
        self.documents = documents
        self.number = index.keyspace
        self.complete_from = index.complete_from
        self.prefix = prefix_of(index.keyspace)
        self.entry_prefix = self.prefix + ENTRY
        if isinstance(spec, Text):
            self.extractor = extractor = TextExtractor(spec)
            self.content = extractor.content
        else:
            self.extractor = None
            self.content = spec.content

    @property
    def is_text(self) -> bool:
        return self.extractor is not None

    @property
    def vector(self) -> Vector:
        """The declaration of a vector index."""
        assert isinstance(self.spec, Vector)
        return self.spec

    def key(self, rowid: int) -> bytes:
        return self.entry_prefix + rowid.to_bytes(8)


def identity_of(spec: object) -> str:
    """Of what makes the entries besides the declaration: for text, the analyzer."""
    return TextExtractor(spec).identity if isinstance(spec, Text) else ""


def rowid_of_key(key: bytes) -> int:
    """Of an entry."""
    return int.from_bytes(key[ENTRY_PREFIX_SIZE:])
