"""A map of the vectors of a collection: up to 5,000 of them, projected to two dimensions.

Invariants:
- Work is bounded: of a collection with more documents, runs of documents are read at places that
  are spread over the ids, never all documents.
- The projection is the principal components of the sample: the same documents give the same map.
"""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from amberdb import Collection, Database, Document, QueryError, Vector
from amberdb.inspector.values import cell, vectors_in

SAMPLE: Final = 5_000
_RUN: Final = 50
"""Documents that are read at one place."""
_KNOWN_IDS: Final = 200
"""At each end of the collection: they tell which characters ids are made of."""
_ROUNDS: Final = 12
"""Of the iteration for the components; after six the angles of real embeddings do not move."""
_LABEL_CHARS_MAX: Final = 80


@final
@dataclass(frozen=True, slots=True)
class MapPoint:
    """A document on the map."""

    id: str
    x: float
    y: float
    """From -1 to 1."""
    label: str
    group: str
    """The value of the field that colours the map; "" without one."""


@final
@dataclass(frozen=True, slots=True)
class VectorMap:
    """The map of one field."""

    field: str
    points: tuple[MapPoint, ...]
    documents: int
    """Of the collection; more than there are points when the map is of a sample."""
    is_sample: bool
    explained: float
    """The share of the variance that the two dimensions hold, from 0 to 1."""
    took_ms: float


def read_map(
    db: Database, collection: str, *, field: str | None = None, group_by: str | None = None
) -> VectorMap:
    """The map of a Vector index; None: the first one. Raises QueryError, CollectionMissingError."""
    began = time.perf_counter()
    fields = [spec.field for spec in db.definition(collection).specs if isinstance(spec, Vector)]
    if not fields or field not in (None, *fields):
        raise QueryError(f"{collection!r} has no Vector index of {field or 'any field'}")
    field = field or fields[0]
    count = db.stats().collections[collection]["documents"]
    source = db[collection]
    documents = list(_sampled(source, count))
    chosen: list[Document] = []
    vectors: list[NDArray[Any]] = []
    for document in documents:
        of_document = vectors_in(document.get(field))
        if of_document is not None:
            chosen.append(document)
            vectors.append(of_document.mean(axis=0))
    places, explained = (
        project(np.array(vectors, np.float32)) if vectors else (np.empty((0, 2)), 0.0)
    )
    points = tuple(
        MapPoint(
            document["id"],
            round(float(x), 4),
            round(float(y), 4),
            _label(document),
            cell(document.get(group_by), 40) if group_by else "",
        )
        for document, (x, y) in zip(chosen, places, strict=True)
    )
    took_ms = (time.perf_counter() - began) * 1000
    return VectorMap(field, points, count, len(documents) < count, explained, took_ms)


def project(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """The first two principal components of vectors of shape (n, dim), scaled to -1 to 1, and the
    share of the variance that they hold."""
    centered = vectors - vectors.mean(axis=0)
    total = float((centered.astype(np.float64) ** 2).sum())
    if len(vectors) < 2 or total == 0.0 or vectors.shape[1] < 2:
        flat = np.zeros((len(vectors), 2))
        return flat, 1.0 if total == 0.0 else 0.0
    width = min(8, *centered.shape)
    basis = np.random.default_rng(0).standard_normal((centered.shape[1], width)).astype(np.float32)
    for _ in range(_ROUNDS):
        basis, _ = np.linalg.qr(centered.T @ (centered @ basis))
    left, lengths, _ = np.linalg.svd(centered @ basis, full_matrices=False)
    places = (left[:, :2] * lengths[:2]).astype(np.float64)
    if places.shape[1] < 2:
        places = np.column_stack([places, np.zeros(len(places))])
    explained = float((lengths[:2].astype(np.float64) ** 2).sum() / total)
    return places / (np.abs(places).max() or 1.0), min(1.0, explained)


def _sampled(source: Collection, count: int) -> Iterator[Document]:
    """All documents, or about SAMPLE of them."""
    if count <= SAMPLE:
        yield from source.find(order_by="id", limit=SAMPLE)
        return
    seen: set[str] = set()
    for place in _places(source):
        for document in source.find({"id": {"$gte": place}}, order_by="id", limit=_RUN):
            if document["id"] not in seen:
                seen.add(document["id"])
                yield document


def _places(source: Collection) -> Iterator[str]:
    """Texts between the first and the last id, evenly spread in an alphabet of the characters that
    ids at both ends have."""
    first = [each["id"] for each in source.find(order_by="id", limit=_KNOWN_IDS, fields=["id"])]
    last = [each["id"] for each in source.find(order_by="-id", limit=_KNOWN_IDS, fields=["id"])]
    low, high = first[0], last[0]
    shared = len(_common(low, high))
    alphabet = sorted({character for id in (*first, *last) for character in id[shared:]})
    digits = {character: number for number, character in enumerate(alphabet)}
    base, length = len(alphabet), 12
    low_number, high_number = (
        _number([digits[character] for character in id[shared : shared + length]], base, length)
        for id in (low, high)
    )
    randomly = random.Random(0)
    for _ in range(SAMPLE // _RUN):
        yield low[:shared] + _text(randomly.randint(low_number, high_number), alphabet, length)


def _common(one: str, other: str) -> str:
    length = next(
        (place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]),
        min(len(one), len(other)),
    )
    return one[:length]


def _number(digits: list[int], base: int, length: int) -> int:
    number = 0
    for place in range(length):
        number = number * base + (digits[place] if place < len(digits) else 0)
    return number


def _text(number: int, alphabet: list[str], length: int) -> str:
    characters: list[str] = []
    for _ in range(length):
        number, digit = divmod(number, len(alphabet))
        characters.append(alphabet[digit])
    return "".join(reversed(characters))


def _label(document: Document) -> str:
    """The longest text at the top of a document, or its id."""
    texts: list[Any] = [
        value for name, value in document.items() if isinstance(value, str) and name != "id"
    ]
    return cell(max(texts, key=len), _LABEL_CHARS_MAX) if texts else document["id"]
