"""Unique: an ordered index in which no two documents share a key.

Invariants:
- The key is that of an ordered index over the same fields; missing counts as None, so two
  documents without the field collide, unless the index is sparse.
- A map, or a list inside a list, has no key of its own and is refused.
- Whether a key is free is asked at commit by the engine; this package only makes the keys.
"""

from typing import ClassVar, final

from amberdb.index.declaration import Declaration


@final
class Unique(Declaration):
    """Declares a unique index: `Unique("source_key", sparse=True)`.

    The values of all fields together are unique in the collection; of a list field each element
    is. With `sparse=True` documents without all of the fields are left out. Raises CollectionError.
    """

    __slots__ = ()

    kind: ClassVar[str] = "unique"
