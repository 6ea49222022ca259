"""A Text or Vector index, compiled: the key of a document's entry.

    prefix | "r" | rowid u64  ->  id

Invariants:
- A document has at most one entry, and has one exactly when it has content for the index.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from amberdb._types import Document
from amberdb.engine.schema.keyspace import ENTRY_PREFIX_SIZE, prefix_of
from amberdb.engine.schema.ordered_index import MARKED, roots_of
from amberdb.index.ordered.ordered import Ordered
from amberdb.index.ordered.unique import Unique
from amberdb.index.text.text import Text, TextExtractor
from amberdb.index.vector.vector import Vector

if TYPE_CHECKING:
    from amberdb.engine.schema.definition import IndexDef

ENTRY: Final = b"r"


@final
class RowIndex:
    """A search index that is ready to make entries."""

    is_unique = False
    __slots__ = (
        "complete_from",
        "content",
        "documents",
        "entry_prefix",
        "extractor",
        "number",
        "prefix",
        "roots",
        "spec",
    )

    spec: Text | Vector
    extractor: TextExtractor | None
    """Finds the texts of a document; None for a vector index."""
    content: Callable[[Document], object]
    """The content of a document for this index, comparable with ==; None when it has no entry."""
    documents: bytes
    """The prefix of the collection's documents."""

    def __init__(self, index: "IndexDef", spec: Text | Vector, documents: bytes) -> None:
        self.spec = spec
        self.documents = documents
        self.number = index.keyspace
        self.complete_from = index.complete_from
        self.prefix = prefix_of(index.keyspace)
        self.entry_prefix = self.prefix + ENTRY
        self.roots = roots_of(spec.fields)
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
        """The key of the entry of a document."""
        return self.entry_prefix + rowid.to_bytes(8)


def identity_of(spec: object) -> str:
    """What the entries depend on besides the declaration: the analyzer of a text index, the marks
    of an ordered one."""
    if isinstance(spec, Text):
        return TextExtractor(spec).identity
    return MARKED if isinstance(spec, Ordered | Unique) else ""


def rowid_of_key(key: bytes) -> int:
    """The rowid in the key of an entry."""
    return int.from_bytes(key[ENTRY_PREFIX_SIZE:])
