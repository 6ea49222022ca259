"""Changes of documents that hold maps of a caller: metadata, settings, facts.

Invariants:
- The keys of these maps are data: one that begins with `$`, which a patch would refuse as an
  operator, is stored as a put stores it.
"""

from collections.abc import Mapping
from typing import Any, cast

from amberdb import REMOVE, Document, Patch


def merging(old: Document, fields: Mapping[str, Any]) -> Patch:
    """A patch that changes these fields of a stored document as `update(id, fields)` does, maps
    merged at every level, and takes every key as it is."""
    return {"$set": {(name,): _merged(old.get(name), value) for name, value in fields.items()}}


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(new, Mapping):
        return new
    merged: Document = dict(cast(Document, old)) if type(old) is dict else {}
    for name, value in cast(Document, new).items():
        if value is REMOVE:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged
