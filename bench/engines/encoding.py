"""How the peers store a document: as JSON or MessagePack, with hand-made index keys.

Invariants:
- Decoding returns a document equal to the one encoded, datetimes included.
- Index keys sort by their fields, then by id.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgpack  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]

from bench.workloads.events import Document

_msgpack: Any = msgpack
_UNIX = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
ID_SIZE = 24
PAST_END = b"\xff" * 9
"""Sorts after every 8-byte time."""

json_of = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), default=datetime.isoformat
).encode


def document_of_json(text: str) -> Document:
    """Datetimes included."""
    document: Document = json.loads(text)
    document["created_at"] = datetime.fromisoformat(document["created_at"])
    if "expiry_date" in document:
        document["expiry_date"] = datetime.fromisoformat(document["expiry_date"])
    return document


def without_vector(document: Document) -> Document:
    return {name: value for name, value in document.items() if name != "embedding"}


def microseconds(moment: datetime) -> int:
    return (moment - _UNIX) // _MICROSECOND


def sortable(moment: datetime) -> bytes:
    return microseconds(moment).to_bytes(8, "big")


def pack(document: Document) -> bytes:
    packed: bytes = _msgpack.packb(document, datetime=True)
    return packed


def unpack(packed: Any) -> Document:
    document: Document = _msgpack.unpackb(packed, timestamp=3)
    return document


def index_keys(document: Document) -> tuple[bytes, bytes, bytes]:
    """The keys of the three indexes: the fields in sortable form, then the id."""
    tail = sortable(document["created_at"]) + document["id"].encode()
    return (
        document["entity_id"].encode() + b"\0" + tail,
        tail,
        document["category"].encode() + b"\0" + tail,
    )


def expiry_key(document: Document) -> bytes | None:
    expiry = document.get("expiry_date")
    return None if expiry is None else sortable(expiry) + document["id"].encode()
