"""Haystack's documents as AmberDB stores them.

| field | value |
|---|---|
| `id`, `content`, `score`, `meta` | as the Document has them |
| `embedding` | the vector, as float32 |
| `blob` | map: data, meta, mime_type |
| `sparse_embedding` | map: indices, values |
| `dates` | the times in `meta`, at the same paths, as datetimes |

Invariants:
- A field that is None is left out.
- A text that begins with a date in ISO 8601 is a time, as it is in Haystack's filters: a filter
  compares instants, in whatever way they were written. A time without a zone is UTC.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast

from haystack.dataclasses import ByteStream, Document, SparseEmbedding

import amberdb

FIELDS: Final = ("id", "content", "blob", "meta", "score", "embedding", "sparse_embedding")
"""The fields of a Document, as filters name them."""

_DATE = re.compile(r"\d{4}-\d\d-\d\d($|[Tt ])")


def stored(document: Document) -> dict[str, Any]:
    """A Document as AmberDB stores it."""
    fields: dict[str, Any] = {
        "content": document.content,
        "score": document.score,
        "embedding": document.embedding,
        "dates": dates_of(document.meta) or None,
    }
    if document.blob is not None:
        blob = document.blob
        fields["blob"] = {"data": blob.data, "meta": blob.meta, "mime_type": blob.mime_type}
    if document.sparse_embedding is not None:
        fields["sparse_embedding"] = document.sparse_embedding.to_dict()
    present = {name: value for name, value in fields.items() if value is not None}
    return {"id": document.id, "meta": document.meta, **present}


def loaded(document: amberdb.Document, score: float | None = None) -> Document:
    """The Document that was stored, with the score of a search where there is one."""
    blob = document.get("blob")
    embedding = document.get("embedding")
    sparse = document.get("sparse_embedding")
    return Document(
        id=document["id"],
        content=document.get("content"),
        blob=None if blob is None else ByteStream(**blob),
        meta=document["meta"],
        score=document.get("score") if score is None else score,
        embedding=None if embedding is None else embedding.tolist(),
        sparse_embedding=None if sparse is None else SparseEmbedding.from_dict(sparse),
    )


def dates_of(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The times in a map, at their paths; without keys where there are none."""
    found = ((key, _dates_in(value)) for key, value in meta.items())
    return {key: dates for key, dates in found if dates is not None}


def time_of(value: object) -> datetime | None:
    """The time that a value of a document, or of a filter, stands for."""
    if isinstance(value, str) and _DATE.match(value):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    try:
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:  # year 1 or 9999, and a zone that leads out of it
        return None


def _dates_in(value: object) -> Any:
    """The times in a value, None without one."""
    if isinstance(value, Mapping):
        return dates_of(cast(Mapping[str, Any], value)) or None
    if isinstance(value, list):
        inside = map(_dates_in, cast(list[object], value))
        return [dates for dates in inside if dates is not None] or None
    return time_of(value)
