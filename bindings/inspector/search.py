"""Search by words, by meaning, or by both, with the parts of each score.

    words      a text, or a query in the query language
    meaning    a vector: of a text by an embedder, of a document that is there already, or given

Invariants:
- The score of a hit is the engine's. Its parts are the engine's too: the same search by one index
  alone, over the hits that are shown.
- A snippet is cut into parts that are marked or not; nobody has to look for marks in HTML.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, final

import numpy as np

from amberdb import (
    Collection,
    Database,
    Document,
    Embed,
    EmbeddingError,
    Hits,
    QueryError,
    Vector,
    Where,
)
from amberdb.inspector.values import cell, vectors_in

LIMIT: Final = 20
_TEXT_CHARS_MAX: Final = 300

Words = Literal["text", "query"]


@final
@dataclass(frozen=True, slots=True)
class ScorePart:
    """What one index says of a hit."""

    index: str
    kind: str
    """ "text": BM25; "vector": the cosine, the inner product, or the negative distance."""
    rank: int | None
    """In the list of that index, from 1; None when its list ended before."""
    score: float | None
    """None where the index does not have the document, or where several Text indexes share one
    score."""


@final
@dataclass(frozen=True, slots=True)
class FoundDocument:
    """A hit."""

    id: str
    score: float
    parts: tuple[ScorePart, ...]
    snippet: tuple[tuple[str, bool], ...]
    """(text, whether it matched), in order; of a search without words the beginning of a text of
    the document."""
    document: Document


@final
@dataclass(frozen=True, slots=True)
class Found:
    """The result of a search."""

    collection: str
    hits: tuple[FoundDocument, ...]
    cursor: str | None
    how: Mapping[str, Any]
    """How each index was searched, and what a limit cut."""
    took_ms: float


def search_documents(
    db: Database,
    collection: str,
    *,
    words: str | None = None,
    language: Words = "text",
    meaning: str | None = None,
    like: str | None = None,
    vector: Sequence[float] | None = None,
    field: str | None = None,
    where: Where | None = None,
    limit: int = LIMIT,
    after: str | None = None,
    embed: Embed | None = None,
) -> Found:
    """The best matches.

    words     looked for by the Text indexes; `language` says whether as any text or as a query
    meaning   a text whose vector `embed` makes
    like      in its place, the id of a document: its vector is that of the search
    vector    in their place, the numbers themselves
    field     the field of the Vector index; None: the first one

    Raises QueryError, CollectionMissingError, CursorError, EmbeddingError.
    """
    began = time.perf_counter()
    source = db[collection]
    asked: dict[str, Any] = {}
    if words:
        asked[language] = words
    if meaning or like or vector is not None:
        asked["vector"] = _query_vector(
            source, _index(db, collection, field), meaning, like, vector, embed
        )
    if not asked:
        raise QueryError("nothing is asked for: give words, a meaning, or a document that is like")
    hits = source.search(**asked, where=where, limit=limit, after=after, snippets=bool(words))
    parts = _parts(db, collection, asked, hits)
    return Found(
        collection=collection,
        hits=tuple(
            FoundDocument(
                hit.id,
                hit.score,
                parts[hit.id],
                _marked(hit.snippet) if hit.snippet is not None else _beginning(hit.document),
                hit.document,
            )
            for hit in hits
        ),
        cursor=hits.cursor,
        how=hits.how,
        took_ms=(time.perf_counter() - began) * 1000,
    )


def _index(db: Database, collection: str, field: str | None) -> Vector:
    specs = [spec for spec in db.definition(collection).specs if isinstance(spec, Vector)]
    for spec in specs:
        if field in (None, spec.field):
            return spec
    if field is None:
        raise QueryError(f"{collection!r} has no Vector index: search it by words")
    raise QueryError(f"{collection!r} has no Vector index of the field {field!r}")


def _query_vector(
    source: Collection,
    index: Vector,
    meaning: str | None,
    like: str | None,
    vector: Sequence[float] | None,
    embed: Embed | None,
) -> dict[str, Any]:
    """The query vector, by the field of its index."""
    if vector is not None:
        return {index.field: vector}
    if like:
        vectors = vectors_in(source[like].get(index.field))
        if vectors is None:
            raise QueryError(f"the document {like!r} has no vector in {index.field!r}")
        return {index.field: vectors.mean(axis=0)}
    if embed is None:
        raise QueryError(
            "a text has a meaning only with an embedder, which makes a vector of it: give one, or "
            "the id of a document"
        )
    try:
        made = np.asarray(embed([meaning or ""]), np.float32)
    except Exception as error:
        raise EmbeddingError(f"the embedder failed: {error}") from error
    return {index.field: made.reshape(-1)}


def _parts(
    db: Database, collection: str, asked: Mapping[str, Any], hits: Hits
) -> dict[str, tuple[ScorePart, ...]]:
    """The parts of each hit, by its id."""
    names: list[str] = list(hits.how["indexes"])
    specs = {spec.name: spec for spec in db.definition(collection).specs}
    texts = [name for name in names if specs[name].kind == "text"]
    scores: dict[str, dict[str, float]] = {}
    for name in names:
        spec = specs[name]
        if len(names) == 1:
            scores[name] = {hit.id: hit.score for hit in hits}
        elif isinstance(spec, Vector):
            scores[name] = _alone(db[collection], hits, vector=asked["vector"])
        elif len(texts) == 1:
            of_text = {key: value for key, value in asked.items() if key != "vector"}
            scores[name] = _alone(db[collection], hits, **of_text)
    return {
        hit.id: tuple(
            ScorePart(name, specs[name].kind, hit.ranks.get(name), scores.get(name, {}).get(hit.id))
            for name in names
        )
        for hit in hits
    }


def _alone(source: Collection, hits: Hits, **asked: Any) -> dict[str, float]:
    """The scores of the hits by one index."""
    ids = [hit.id for hit in hits]
    if not ids:
        return {}
    found = source.search(**asked, where={"id": {"$in": ids}}, limit=len(ids), fields=["id"])
    return {hit.id: hit.score for hit in found}


def _marked(snippet: str) -> tuple[tuple[str, bool], ...]:
    """A snippet, whose matches are between `**`, as parts."""
    parts = snippet.split("**")
    return tuple((part, number % 2 == 1) for number, part in enumerate(parts) if part)


def _beginning(document: Document) -> tuple[tuple[str, bool], ...]:
    """The longest text at the top of a document, as a part."""
    texts = [value for name, value in document.items() if isinstance(value, str) and name != "id"]
    if not texts:
        return ()
    return ((cell(max(texts, key=len), _TEXT_CHARS_MAX), False),)
