"""All kinds of indexes, and how one is read back from the catalog.

Invariants:
- spec_from_map(spec.to_map()) equals spec, for every kind. A kind that is missing here was written
  by a newer version and is refused.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

from amberdb._errors import FormatError
from amberdb.index.ordered.ordered import Ordered
from amberdb.index.ordered.unique import Unique
from amberdb.index.text.text import Text
from amberdb.index.vector.embedding_queue import EmbeddingQueue, MultiEmbeddingQueue
from amberdb.index.vector.vector import Vector

IndexSpec: TypeAlias = Ordered | Unique | Text | Vector | EmbeddingQueue
"""The declaration of an index, for `db.collection(name, indexes=[...])`. An EmbeddingQueue is added
by a Vector with `source`; programs do not declare one."""

_KINDS: dict[object, type[IndexSpec]] = {
    spec.kind: spec for spec in (Ordered, Unique, Text, Vector, EmbeddingQueue, MultiEmbeddingQueue)
}


def spec_from_map(stored: Mapping[str, Any]) -> IndexSpec:
    """The declaration that to_map() stored in the catalog. Raises FormatError."""
    kind = stored.get("kind")
    spec = _KINDS.get(kind) if isinstance(kind, str) else None
    if spec is None:
        raise FormatError(
            f"an index of the unknown kind {kind!r}: open with the version that wrote it"
        )
    return spec.from_map(stored)
