"""Declarations of collections, as clients send them to the leader.

Invariants:
- A function stays in its process: each one embeds the texts that it writes, and upgrades the
  documents that it reads; the leader alone upgrades stored documents.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from amberdb.engine.schema.catalog import Declaration
from amberdb.index.registry import spec_from_map

_TYPES: Final = {
    kind.__name__: kind for kind in (bool, int, float, str, bytes, datetime, list, dict)
}


def sent_declaration(declaration: Declaration) -> dict[str, Any]:
    """A declaration as it is sent, without its functions."""
    indexes, required = declaration.indexes, declaration.required
    return {
        "expires_at": declaration.expires_at,
        "version": declaration.version,
        "owner": declaration.owner,
        "indexes": None if indexes is None else [spec.to_map() for spec in indexes],
        "required": None if required is None else dict(required),
    }


def received_declaration(sent: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of db.collection(). Raises CollectionError, FormatError."""
    indexes, required = sent["indexes"], sent["required"]
    return {
        **sent,
        "indexes": None if indexes is None else [spec_from_map(each) for each in indexes],
        "required": required and {field: name and _TYPES[name] for field, name in required.items()},
    }
