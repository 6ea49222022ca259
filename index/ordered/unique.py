"""Unique: an ordered index in which no two documents share a key.

Invariants:
- The key is that of an ordered index over the same fields; missing counts as None, so two
  documents without the field collide, unless the index is sparse.
- A map, or a list inside a list, is refused: all of them share one key.
- The engine checks at commit whether a key is free; this package only encodes keys.
"""

from typing import ClassVar, final

from amberdb._public import public
from amberdb.index.declaration import Declaration


@public
@final
class Unique(Declaration):
    """Declares a unique index: `Unique("source_key", sparse=True)`.

    The values of all fields together are unique in the collection. Of a list field, each element
    is unique. `sparse=True` leaves out documents that lack one of the fields. Raises
    CollectionError.
    """

    __slots__ = ()

    kind: ClassVar[str] = "unique"
