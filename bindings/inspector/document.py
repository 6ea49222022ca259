"""One document: its JSON text, the times of its writes, a summary of each vector.

Invariants:
- The text is bounded, and a vector is summed up, whatever the document holds; the whole document
  as JSON, from which put() makes an equal one, is whole_text().
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from amberdb import Database, Document, MissingKeyError, Record
from amberdb._jsonl.text import dumps
from amberdb.inspector.values import JsonText, json_text, vectors_in

STRIP_CELLS: Final = 128
"""The numbers of a vector that a strip shows; of a longer one each cell is the mean of several."""


@final
@dataclass(frozen=True, slots=True)
class VectorSummary:
    """The vector, or the vectors, of one field."""

    field: str
    dim: int
    count: int
    """The number of vectors in the field."""
    norm: float
    """Of the first vector, as the numbers after it."""
    lowest: float
    highest: float
    mean: float
    strip: tuple[float, ...]
    """Up to STRIP_CELLS numbers from -1 to 1, each divided by the largest magnitude."""


@final
@dataclass(frozen=True, slots=True)
class DocumentView:
    """A stored document."""

    collection: str
    record: Record
    text: JsonText
    vectors: tuple[VectorSummary, ...]
    expires_at: datetime | None


def read_document(db: Database, collection: str, id: str) -> DocumentView | None:
    """The document; None when it is missing or has expired. Raises CollectionMissingError."""
    source = db[collection]
    try:
        record = source.record(id)
    except MissingKeyError:
        return None
    definition = db.definition(collection)
    return DocumentView(
        collection=collection,
        record=record,
        text=json_text(record.document),
        vectors=tuple(_summaries(record.document)),
        expires_at=_time(record.document.get(definition.expires_at or "")),
    )


def whole_text(document: Document, *, indent: int | None = 2) -> str:
    """The whole document as JSON, its vectors in base64."""
    return dumps(document, indent=indent)


def _summaries(document: Document) -> Iterator[VectorSummary]:
    for field, value in document.items():
        vectors = vectors_in(value)
        if vectors is not None:
            yield summary_of(field, vectors)


def summary_of(field: str, vectors: NDArray[Any]) -> VectorSummary:
    """The summary of vectors of shape (n, dim)."""
    first = vectors[0].astype(np.float64)
    cells = np.array([part.mean() for part in np.array_split(first, min(len(first), STRIP_CELLS))])
    largest = float(np.abs(cells).max()) or 1.0
    return VectorSummary(
        field=field,
        dim=vectors.shape[1],
        count=vectors.shape[0],
        norm=float(np.linalg.norm(first)),
        lowest=float(first.min()),
        highest=float(first.max()),
        mean=float(first.mean()),
        strip=tuple(round(float(number), 3) for number in cells / largest),
    )


def _time(value: Any) -> datetime | None:
    """The value of the field of expiry: a time, or seconds since 1970."""
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return datetime.fromtimestamp(value, UTC)
        except (ValueError, OverflowError, OSError):
            return None
    return None
