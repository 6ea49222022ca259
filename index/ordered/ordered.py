"""Ordered: entries in the order of one or several fields.

Invariants:
- A document has one entry, or one for each distinct element of its one list field.
- A sparse index has no entry for a document in which any of the fields is missing or None.
"""

from typing import ClassVar, final

from amberdb._public import public
from amberdb.index.declaration import Declaration


@public
@final
class Ordered(Declaration):
    """Declares an ordered index: `Ordered("entity_id", "-created_at")`.

    Dotted paths name fields inside maps; a `-` in front sorts the field in descending order.
    `sparse=True` leaves out documents that lack one of the fields; such an index serves only
    filters that exclude missing fields. Raises CollectionError.
    """

    __slots__ = ()

    kind: ClassVar[str] = "ordered"
