"""Search: documents ranked by text, by vectors, or by both at once.

    text   -> BM25 list of each Text index      \\
                                                 >  fused by reciprocal rank -> recency -> diversity
    vector -> nearest rows of each Vector index /

A single list keeps its own scores: BM25, or those of the metric. Several lists are fused, and so is
a single list when recency or diversity is asked for: a document gets weight / (k + rank) from each
list that holds it within `depth`, rank from 1 (Cormack, Clarke and Buettcher 2009).

Invariants:
- One view: a search sees the documents that find() sees at the same Lsn, with the same expiry and
  the transaction's own pending documents.
- There are `limit` hits if that many documents match.
- Equal scores are ordered by rowid, the newer first: the same query has one answer.
- A document is read for a hit, and for recency or diversity, never only because a list ranked it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast, final

from amberdb._errors import InvalidDocumentError, QueryError
from amberdb._time import microseconds
from amberdb._types import Document, Where
from amberdb.engine.query.filter import Filter, parse
from amberdb.engine.query.page import projector
from amberdb.engine.query.query import refuse_vectors
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.search.candidates import Candidates
from amberdb.engine.search.row_reader import RowReader
from amberdb.engine.search.searcher import Ranked, SearcherSource
from amberdb.engine.storage.view import View
from amberdb.index.paths import Path
from amberdb.index.text.highlight import Snippets
from amberdb.index.text.query import TextQuery, plain, within
from amberdb.index.text.query import parse as parse_query
from amberdb.index.vector.vector import coerce

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """How ranked lists are fused: weight / (k + rank), over the first `depth` rows of each list, or
    the first `limit` where the search asks for more."""

    k: float = 10.0
    depth: int = 20
    weights: Mapping[str, float] = field(default_factory=dict[str, float])
    """By the index's name or by its field; 1.0 for an index that is not named."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Recency:
    """Scores decay with age: they halve every `half_life`, by a datetime field of the document.

    A document without the field counts as one `half_life` old.
    """

    field: str
    half_life: timedelta


@final
@dataclass(frozen=True, slots=True)
class Hit:
    """One document of a search result, with its score."""

    id: str
    score: float
    document: Document
    snippet: str | None = None
    ranks: Mapping[str, int] = field(default_factory=dict[str, int])
    """By the index's name: the document's rank in the list of that index, from 1."""


@final
class Hits(list[Hit]):
    """The hits of a search, best first; `how` reports how each index was searched, under "cut" what
    a limit of the options left out: {limit: {"used": count, "of": count}}, and under "no_terms" why
    the text asks for nothing, when it does."""

    __slots__ = ("how",)

    def __init__(self, hits: Iterable[Hit], how: dict[str, Any]) -> None:
        super().__init__(hits)
        self.how = how

    def __repr__(self) -> str:
        indexes = ", ".join(self.how.get("indexes", ())) or "no index"
        best = [(hit.id, round(hit.score, 4)) for hit in self[:3]]
        return f"<amberdb.Hits {len(self)} by {indexes}; best (id, score): {best}>"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One search of one collection, its arguments checked."""

    schema: Schema
    text: str | None
    """Any text: its words are looked for."""
    query: str | None
    """In the query language, in place of a text."""
    vectors: "Mapping[str, NDArray[np.float32]]"
    """Query vectors, by the field of a Vector index."""
    where: Filter
    limit: int
    fusion: Fusion
    recency: Recency | None
    diversity: float
    fields: Sequence[str] | None
    snippets: bool

    def answer(self, view: View, searchers: SearcherSource) -> Hits:
        """The hits as of the view. Raises QueryError, CorruptionError."""
        reader = RowReader(view, self.schema)
        candidates = Candidates(view, self.schema, self.where, reader)
        cut: dict[str, dict[str, int]] = {}
        how: dict[str, Any] = {"where": candidates.how, "indexes": {}, "cut": cut}
        lists: dict[RowIndex, Ranked] = {}
        indexes = self._indexes(view)
        texts = self._texts(indexes, cut)
        if texts and not any(query.scored for query in texts.values()):
            asked = self.text or self.query or ""
            how["no_terms"] = "it has only punctuation" if asked.strip() else "it is empty"
        depth = self._depth(len(indexes))
        for index in indexes:
            searcher = searchers.of(index, self.schema)
            query = texts[index] if index.is_text else self.vectors[index.vector.field]
            ranked, steps = searcher.search(query, view, self.schema, depth, candidates, reader)
            lists[index] = ranked
            if index.number in self.schema.foreign:
                steps["rebuilding"] = "its terms are of another version of the analyzer"
            how["indexes"][index.spec.name] = steps
        ranked = self._fused(lists) if self._is_fused(len(lists)) else next(iter(lists.values()))
        if self.recency is None and not self.diversity:
            ranked = ranked[: self.limit]  # before reading: the others need no document
        origin = {rowid: index for index, listed in lists.items() for rowid, _ in listed}
        documents = {rowid: reader.document(rowid, origin[rowid]) for rowid, _ in ranked}
        if self.recency is not None:
            ranked = _decayed(ranked, documents, self.recency, view.now_us)
        if self.diversity:
            ranked = self._diverse(ranked, documents, cut)
        return Hits(self._hits(ranked[: self.limit], documents, lists, texts, cut), how)

    # -- inside ------------------------------------------------------------------------------

    @property
    def asks_text(self) -> bool:
        return self.text is not None or self.query is not None

    def _indexes(self, view: View) -> list[RowIndex]:
        """The indexes that are searched: all Text indexes for a text, and the Vector index of each
        query vector. Raises QueryError."""
        named: dict[str, RowIndex] = {}
        for index in self.schema.row_indexes:
            is_asked = self.asks_text if index.is_text else index.vector.field in self.vectors
            # One that is rebuilt is here twice, and the older one answers until then.
            if is_asked and (index.spec.name not in named or view.is_built(index)):
                named[index.spec.name] = index
        indexes = list(named.values())
        if self.schema.migration is not None:
            raise QueryError(
                f"collection {self.schema.name!r} is being migrated to version "
                f"{self.schema.definition.version}: try again later, or wait with db.migrate()"
            )
        for index in indexes:
            if not view.is_built(index):
                raise QueryError(
                    f"{index.spec.name} is still being built over the existing documents: "
                    "wait with db.build_indexes(), and take a new snapshot if this is one"
                )
        return indexes

    def _texts(
        self, indexes: Iterable[RowIndex], cut: dict[str, dict[str, int]]
    ) -> dict[RowIndex, TextQuery]:
        """The text or the query as each Text index is asked. Raises QueryError."""
        options = self.schema.options
        text = self.text
        if text is not None:
            text = within(text, options.query_bytes_max)
            if text is not self.text:
                cut["query_bytes_max"] = {"used": _size(text), "of": _size(self.text or "")}
        texts: dict[RowIndex, TextQuery] = {}
        for index in indexes:
            if index.extractor is None:
                continue
            analyzer = index.extractor.analyzer
            if text is not None:
                asked = plain(text, analyzer, terms_max=options.query_terms_max)
                if asked.given > len(asked.scored):
                    cut["query_terms_max"] = {"used": len(asked.scored), "of": asked.given}
            elif self.query is not None:
                asked = parse_query(
                    self.query,
                    analyzer,
                    operators_max=options.query_operators_max,
                    terms_max=options.query_terms_max,
                    bytes_max=options.query_bytes_max,
                )
            else:
                break
            texts[index] = asked
        return texts

    def _is_fused(self, lists: int) -> bool:
        return lists > 1 or self.recency is not None or bool(self.diversity)

    def _depth(self, lists: int) -> int:
        """How many rows each index ranks: at least `limit`."""
        return max(self.fusion.depth, self.limit) if self._is_fused(lists) else self.limit

    def _fused(self, lists: Mapping[RowIndex, Ranked]) -> Ranked:
        from amberdb.index.fusion import fuse  # imports numpy, which only a search needs

        rankings = [[rowid for rowid, _ in ranked] for ranked in lists.values()]
        weights = [_weight(self.fusion.weights, index) for index in lists]
        rowids, scores = fuse(rankings, weights, self.fusion.k)
        return list(zip(rowids.tolist(), scores.tolist(), strict=True))

    def _diverse(
        self,
        ranked: Ranked,
        documents: Mapping[int, Document],
        cut: dict[str, dict[str, int]],
    ) -> Ranked:
        """The first `limit` rows by maximal marginal relevance (Carbonell and Goldstein 1998) over
        the documents' vectors; those past diversity_rows_max follow by score."""
        import numpy as np

        from amberdb.index.fusion import mmr

        count = self.schema.options.diversity_rows_max
        ranked, rest = ranked[:count], ranked[count:]
        if rest:
            cut["diversity_rows_max"] = {"used": count, "of": count + len(rest)}
        spec = next(index.vector for index in self.schema.row_indexes if not index.is_text)
        vectors = [spec.vector(documents[rowid]) for rowid, _ in ranked]
        zero = np.zeros(spec.dim, np.float32)
        rows = np.array([zero if each is None else each for each in vectors], np.float32)
        rows = rows.reshape(-1, spec.dim)  # also without any row
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
        scores = np.array([score for _, score in ranked])
        choices: list[int] = mmr(scores, rows, self.limit, self.diversity).tolist()
        return [*(ranked[choice] for choice in choices), *rest]

    def _hits(
        self,
        ranked: Ranked,
        documents: Mapping[int, Document],
        lists: Mapping[RowIndex, Ranked],
        texts: Mapping[RowIndex, TextQuery],
        cut: dict[str, dict[str, int]],
    ) -> list[Hit]:
        project = None if self.fields is None else projector(self.fields)
        ranks_by_index = {
            index.spec.name: {rowid: rank for rank, (rowid, _) in enumerate(listed, 1)}
            for index, listed in lists.items()
        }
        snippets = Snippets(len(ranked), self.schema.options.snippet_characters_max)
        hits: list[Hit] = []
        for rowid, score in ranked:
            document = documents[rowid]
            ranks = {
                name: by_row[rowid] for name, by_row in ranks_by_index.items() if rowid in by_row
            }
            projected = document if project is None else project(document)
            snippet = self._snippet(document, snippets, texts) if self.snippets else None
            hits.append(Hit(document["id"], score, projected, snippet, ranks))
        if snippets.cut:
            cut["snippet_characters_max"] = {"used": len(hits) - snippets.cut, "of": len(hits)}
        return hits

    def _snippet(
        self, document: Document, snippets: Snippets, texts: Mapping[RowIndex, TextQuery]
    ) -> str | None:
        """A snippet of the fields of the first Text index that holds the document; None without a
        text query."""
        for index, query in texts.items():
            extractor = index.extractor
            if extractor is not None and extractor.content(document):
                return snippets.of(extractor.strings(document), query)
        return None


def search_of(
    schema: Schema,
    *,
    text: str | None,
    query: str | None,
    vector: Any,
    where: Where | None,
    limit: int,
    fusion: Fusion | None,
    recency: Recency | None,
    diversity: float,
    fields: Sequence[str] | None,
    snippets: bool,
) -> Search:
    """A search with its arguments checked against the schema. Raises QueryError."""
    has_text = any(index.is_text for index in schema.row_indexes)
    if text is None and query is None and vector is None:
        raise QueryError("search() takes a text or a query, a vector, or both")
    if text is not None and query is not None:
        raise QueryError(
            "search() takes text, any words, or query, in the query language, and not both"
        )
    for name, value in (("text", text), ("query", query)):
        if not isinstance(value, (str, type(None))):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise QueryError(f"{name} must be a str, not {type(value).__name__}")
        if value is not None and not has_text:
            raise QueryError(f"collection {schema.name!r} has no Text index: declare one")
    if type(limit) is not int or limit < 0:
        raise QueryError(f"limit must be an int of at least 0, not {limit!r}")
    if not 0.0 <= diversity <= 1.0:
        raise QueryError(f"diversity must be from 0 (none) to 1, not {diversity!r}")
    if diversity and all(index.is_text for index in schema.row_indexes):
        raise QueryError(
            f"diversity compares vectors, and collection {schema.name!r} has no Vector index: "
            "declare one"
        )
    parsed = parse(where, schema.options)
    refuse_vectors(schema, parsed)
    return Search(
        schema=schema,
        text=text,
        query=query,
        vectors={} if vector is None else _vectors(schema, vector),
        where=parsed,
        limit=limit,
        fusion=fusion or Fusion(),
        recency=recency,
        diversity=diversity,
        fields=fields,
        snippets=snippets,
    )


def _vectors(schema: Schema, vector: Any) -> "dict[str, NDArray[np.float32]]":
    """Query vectors by field, from one vector (for the only Vector index) or a map of field to
    vector. Raises QueryError."""
    specs = {i.vector.field: i.vector for i in schema.row_indexes if not i.is_text}
    if not specs:
        raise QueryError(f"collection {schema.name!r} has no Vector index: declare one")
    if not isinstance(vector, Mapping):
        if len(specs) > 1:
            names = ", ".join(map(repr, specs))
            raise QueryError(f"several fields hold vectors ({names}): pass vector={{field: ...}}")
        vector = {next(iter(specs)): vector}
    vectors: dict[str, NDArray[np.float32]] = {}
    for name, value in cast(Mapping[str, Any], vector).items():
        spec = specs.get(name)
        if spec is None:
            raise QueryError(f"{name!r} has no Vector index in {schema.name!r}")
        try:
            vectors[name] = coerce(value, name, spec.dim, spec.metric)
        except InvalidDocumentError as error:
            raise QueryError(f"query vector: {error.message}") from None
    return vectors


def _size(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))


def _weight(weights: Mapping[str, float], index: RowIndex) -> float:
    names = (index.spec.name, *index.spec.fields)
    return next((weights[name] for name in names if name in weights), 1.0)


def _sorted(scores: Iterable[tuple[int, float]]) -> Ranked:
    """Best first; of equal scores the newer row first."""
    return sorted(scores, key=lambda pair: (-pair[1], -pair[0]))


def _decayed(
    ranked: Ranked, documents: Mapping[int, Document], recency: Recency, now_us: int
) -> Ranked:
    """Scores that halve with every half-life of the document's age, ranked again."""
    import numpy as np

    from amberdb.index.fusion import decay

    half_life_s = recency.half_life.total_seconds()
    find = Path.of(recency.field).find

    def age_s(document: Document) -> float:
        time = find(document)
        return (now_us - microseconds(time)) / 1e6 if type(time) is datetime else half_life_s

    scores = np.array([score for _, score in ranked], np.float64)
    ages_s = np.array([age_s(documents[rowid]) for rowid, _ in ranked], np.float64)
    decayed = decay(scores, ages_s, half_life_s).tolist()
    return _sorted(zip((rowid for rowid, _ in ranked), decayed, strict=True))
