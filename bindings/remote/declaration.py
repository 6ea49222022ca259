"""Declarations of collections, as clients send them to the leader.

Invariants:
- A function stays in its process. Each process upgrades the documents that it reads; the leader
  alone embeds texts and upgrades stored documents.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from amberdb._errors import CollectionError
from amberdb.engine.schema.definition import required_types
from amberdb.index.registry import IndexSpec, spec_from_map
from amberdb.index.vector.vector import Vector

_TYPES: Final = {
    kind.__name__: kind for kind in (bool, int, float, str, bytes, datetime, list, dict)
}


def sent_declaration(name: str, declared: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of db.collection() as they are sent. Raises CollectionError."""
    indexes: Sequence[IndexSpec] | None = declared.get("indexes")
    if any(isinstance(spec, Vector) and spec.embed is not None for spec in indexes or ()):
        raise CollectionError(
            f"collection {name!r} is declared with embed=, and another process leads: it would "
            "have to call the function; declare it there, and give vectors here",
            collection=name,
        )
    required = declared.get("required")
    return {
        **{key: declared[key] for key in ("expires_at", "version", "owner") if key in declared},
        "indexes": None if indexes is None else [spec.to_map() for spec in indexes],
        "required": None if required is None else required_types(required),
    }


def received_declaration(sent: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of db.collection(). Raises CollectionError, FormatError."""
    indexes, required = sent["indexes"], sent["required"]
    return {
        **sent,
        "indexes": None if indexes is None else [spec_from_map(each) for each in indexes],
        "required": required and {field: name and _TYPES[name] for field, name in required.items()},
    }
