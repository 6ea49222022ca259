"""A Text or Vector index, compiled: the entry of a document, rowid -> id.

Invariants:
- A document has an entry exactly when it has content for the index, and at most one.
- The forward of a row (what text makes of it) is in the log and the overlay; LMDB keeps the id.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from amberdb._errors import CorruptionError
from amberdb._types import Document
from amberdb.engine.trees import ENTRY_PREFIX_SIZE, tree
from amberdb.index.text import Text, TextMaker
from amberdb.index.vector import Vector

if TYPE_CHECKING:
    from amberdb.engine.schema import IndexDef

ENTRY: Final = b"r"


@final
class RowIndex:
    """Made by Schema, of the declarations that search."""

    is_unique = False
    __slots__ = (
        "complete_from",
        "content",
        "entry_prefix",
        "forward",
        "maker",
        "number",
        "prefix",
        "spec",
    )

    spec: Text | Vector
    maker: TextMaker | None
    """Of a text index."""
    content: Callable[[Document], object]
    """What of a document is indexed, to be compared with ==; None: the document has no entry."""
    forward: Callable[[Document], bytes]

    def __init__(self, index: "IndexDef", spec: Text | Vector) -> None:
        self.spec = spec
        self.number = index.tree
        self.complete_from = index.complete_from
        self.prefix = tree(index.tree)
        self.entry_prefix = self.prefix + ENTRY
        if isinstance(spec, Text):
            self.maker = maker = TextMaker(spec)
            self.content = maker.content
            self.forward = maker.forward
        else:
            self.maker = None
            self.content = spec.content
            self.forward = _no_forward

    @property
    def is_text(self) -> bool:
        return self.maker is not None

    @property
    def vector(self) -> Vector:
        """The declaration of a vector index."""
        assert isinstance(self.spec, Vector)
        return self.spec

    def key(self, rowid: int) -> bytes:
        return self.entry_prefix + rowid.to_bytes(8)

    def entry(self, document: Document, id_bytes: bytes) -> bytes:
        return pack_entry(id_bytes, self.forward(document))


def identity_of(spec: object) -> str:
    """Of what makes the entries besides the declaration: for text, the analyzer."""
    return TextMaker(spec).identity if isinstance(spec, Text) else ""


def _no_forward(_: Document) -> bytes:
    return b""


def rowid_of_key(key: bytes) -> int:
    """Of an entry."""
    return int.from_bytes(key[ENTRY_PREFIX_SIZE:])


def pack_entry(id_bytes: bytes, forward: bytes = b"") -> bytes:
    return len(id_bytes).to_bytes(2) + id_bytes + forward


def unpack_entry(value: bytes) -> tuple[bytes, bytes]:
    """(id, forward). Raises CorruptionError."""
    end = 2 + int.from_bytes(value[:2])
    if not 2 < end <= len(value):
        raise CorruptionError("an entry of a search index is damaged: declare the index anew")
    return value[2:end], value[end:]
