"""Search: documents ranked by text, by vectors, or by both at once.

    text   -> BM25 list of each Text index      \\
                                                 >  fused -> neighbors -> recency -> selected
    vector -> nearest rows of each Vector index /             (groups, pages) -> diversity

A single list keeps its own scores: BM25, or those of the metric. Several lists are fused, and so is
a single list when recency or diversity is asked for (ranking.py). Selected are the rows that no
page before has shown, and of each group the best (selection.py).

Invariants:
- One view: a search sees the documents that find() sees at the same Lsn, with the same expiry and
  the transaction's own pending documents.
- There are `limit` hits if that many documents match, or groups of documents: the lists become
  longer until there are, or until they have every row that matches.
- Equal scores are ordered by rowid, the newer first: the same query has one answer.
- A document is read for a hit, and for recency, diversity or its group, never only because a list
  ranked it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast, final

from amberdb._errors import InvalidDocumentError, QueryError
from amberdb._types import Document, FieldPath, Where
from amberdb.engine.query.page import parse_field, projector
from amberdb.engine.query.query import Query
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.search.candidates import Candidates
from amberdb.engine.search.cursor import NOTHING, Asked, Next, Shown
from amberdb.engine.search.hits import Hit, Hits
from amberdb.engine.search.neighbors import GIVERS, Neighborhood, index_of
from amberdb.engine.search.ranking import (
    Fusion,
    Neighbors,
    Recency,
    by_rank,
    convex,
    decayed,
    diverse,
)
from amberdb.engine.search.row_reader import RowReader
from amberdb.engine.search.searcher import Found, Ranked, SearcherSource
from amberdb.engine.search.selection import Selected, Selection
from amberdb.engine.storage.view import View
from amberdb.index.paths import Path
from amberdb.index.text.query import TextQuery, plain, within
from amberdb.index.text.query import parse as parse_query
from amberdb.index.vector.coercion import coerce

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from amberdb.index.text.highlight import Snippets

_Ask: TypeAlias = Callable[[RowIndex, int, Candidates], Found]
"""What an index finds: the best rows, at most so many, among the candidates."""

_WIDER: Final = 4
"""How many rows are ranked for each group at first, and how many times more when they are too
few."""


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
    where: Query
    limit: int
    fusion: Fusion
    recency: Recency | None
    neighbors: Neighbors | None
    diversity: float
    group_by: Path | None
    after: str | None
    fields: Sequence[str] | None
    snippets: bool

    def answer(self, view: View, searchers: SearcherSource) -> Hits:
        """The hits as of the view. Raises QueryError, CursorError, CorruptionError."""
        shown = NOTHING if self.after is None else Shown.by(self.after, self._asked())
        reader = RowReader(view, self.schema)
        candidates = Candidates(view, self.schema, self.where, reader, searchers.kept_rows)
        cut: dict[str, dict[str, int]] = {}
        how: dict[str, Any] = {"where": candidates.how, "indexes": {}, "cut": cut}
        indexes = self._indexes(view)
        texts = self._texts(indexes, cut)
        if texts and not any(query.scored for query in texts.values()):
            words = self.text or self.query or ""
            how["no_terms"] = "it has only punctuation" if words.strip() else "it is empty"

        def ask(index: RowIndex, limit: int, candidates: Candidates) -> Found:
            query = texts[index] if index.is_text else self.vectors[index.vector.field]
            searcher = searchers.of(index, self.schema)
            return searcher.search(query, view, self.schema, limit, candidates, reader)

        neighborhood = None
        if self.neighbors is not None:
            neighborhood = Neighborhood(view, self.schema, self.neighbors, candidates, reader)
        selection = Selection(reader, shown, self.group_by)
        wanted = self.limit + shown.count
        if self.group_by is not None:
            wanted *= _WIDER
        while True:
            depth = self._depth(len(indexes), wanted)
            found = {index: ask(index, depth, candidates) for index in indexes}
            ranked, origin = self._ranked(found, depth, ask, neighborhood)
            if self.recency is not None:
                documents = reader.documents(ranked, origin)
                ranked = decayed(ranked, documents, self.recency, view.now_us)
            selected = selection.of(ranked, None if self.diversity else self.limit, origin)
            is_whole = all(len(each.ranked) < depth for each in found.values())
            if is_whole or len(selected.hits) >= self.limit:
                break
            wanted = depth * _WIDER
        how["indexes"] = {index.spec.name: self._how(index, each) for index, each in found.items()}
        how |= self._how_ranked(len(found), neighborhood, selection)
        ranked = selected.hits
        if self.diversity:
            ranked = self._diverse(selected, reader.documents(selected.rows, origin), cut)
        ranked = ranked[: self.limit]
        lists = {index: each.ranked for index, each in found.items()}
        hits = self._hits(ranked, reader.documents(ranked, origin), lists, texts, cut)
        if not hits or len(hits) < self.limit:
            return Hits(hits, how)
        page = [(hit.id, selection.key(row[0])) for hit, row in zip(hits, ranked, strict=True)]
        return Hits(hits, how, Next(self._asked, shown, page))

    # -- inside ------------------------------------------------------------------------------

    @property
    def asks_text(self) -> bool:
        return self.text is not None or self.query is not None

    def _asked(self) -> Asked:
        """What a cursor is bound to."""
        identity = (
            self.schema.definition.number,
            *(each and each.encode(errors="surrogatepass") for each in (self.text, self.query)),
            self.where.where or None,
            self.fusion,
            self.recency,
            self.neighbors,
            float(self.diversity),
            self.group_by and self.group_by.name,
        )
        return Asked(identity, self.vectors)

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
            given, text = text, within(text, options.query_bytes_max)
            if text is not given:
                cut["query_bytes_max"] = {"used": _size(text), "of": _size(given)}
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

    def _how(self, index: RowIndex, found: Found) -> dict[str, Any]:
        if index.number not in self.schema.foreign:
            return found.how
        return {**found.how, "rebuilding": "its terms are of another version of the analyzer"}

    def _how_ranked(
        self, lists: int, neighborhood: Neighborhood | None, selection: Selection
    ) -> dict[str, Any]:
        how: dict[str, Any] = {}
        if self._is_fused(lists):
            how["fusion"] = self.fusion.method
        if neighborhood is not None:
            how["neighbors"] = neighborhood.how
        if self.group_by is not None:
            how["group_by"] = {"field": self.group_by.name, "rows": selection.rows}
        if selection.shown.count:
            how["shown"] = selection.shown.count
        return how

    def _is_fused(self, lists: int) -> bool:
        return lists > 1 or self.recency is not None or bool(self.diversity)

    def _depth(self, lists: int, wanted: int) -> int:
        """How many rows each index ranks for so many rows."""
        depth = max(self.fusion.depth, wanted) if self._is_fused(lists) else wanted
        return depth if self.neighbors is None else max(depth, GIVERS)

    def _ranked(
        self,
        found: Mapping[RowIndex, Found],
        depth: int,
        ask: _Ask,
        neighborhood: Neighborhood | None,
    ) -> tuple[Ranked, dict[int, RowIndex]]:
        """The rows of all lists and their neighbors in one order, and the index that ranked each
        row: for one that none has, the first."""
        indexes = list(found)
        origin = {rowid: index for index, each in found.items() for rowid, _ in each.ranked}
        ranked = found[indexes[0]].ranked
        if self._is_fused(len(indexes)):
            ranked = self._fused(found, depth, ask)
        if neighborhood is not None:
            ranked = neighborhood.spread(ranked, origin, self._zero(ranked, indexes))
            origin = {rowid: origin.get(rowid, indexes[0]) for rowid, _ in ranked}
        return ranked, origin

    def _fused(self, found: Mapping[RowIndex, Found], depth: int, ask: _Ask) -> Ranked:
        """The rows of all lists as one. Convex: each with its score in every index, so that the
        order of two rows does not depend on the others."""
        if self.fusion.method == "reciprocal_rank":
            return by_rank(found, self.fusion)
        rows = {rowid for each in found.values() for rowid, _ in each.ranked}
        whole: dict[RowIndex, Found] = {}
        for index, each in found.items():
            missing = rows.difference(rowid for rowid, _ in each.ranked)
            if missing and len(each.ranked) >= depth:  # else it lists every row that it has
                more = ask(index, len(missing), Candidates.of_rows(missing))
                each = each._replace(ranked=[*each.ranked, *more.ranked])
            whole[index] = each
        return convex(whole, self.fusion)

    def _zero(self, ranked: Ranked, indexes: Sequence[RowIndex]) -> float:
        """The score from which neighbors count scores: that of the last row that gives, as of all
        rows behind it; 0, which is that of the rows that are not found, where fewer are ranked."""
        if len(ranked) >= GIVERS:
            return ranked[GIVERS - 1][1]
        last = ranked[-1][1] if ranked else 0.0
        is_convex = self._is_fused(len(indexes)) and self.fusion.method == "convex"
        has_vectors = not all(index.is_text for index in indexes)
        return last if is_convex and has_vectors else min(last, 0.0)

    def _diverse(
        self,
        selected: Selected,
        documents: Mapping[int, Document],
        cut: dict[str, dict[str, int]],
    ) -> Ranked:
        """The first `limit` rows, diverse, also from what was shown; those past diversity_rows_max
        follow by score."""
        count = self.schema.options.diversity_rows_max
        ranked, shown = selected.rows, {rowid for rowid, _ in selected.shown}
        ranked, rest = ranked[:count], ranked[count:]
        if rest:
            cut["diversity_rows_max"] = {"used": count, "of": count + len(rest)}
        spec = next(index.vector for index in self.schema.row_indexes if not index.is_text)
        wanted = self.limit + len(shown)
        chosen = [*diverse(ranked, documents, spec, wanted, self.diversity), *rest]
        return [row for row in chosen if row[0] not in shown]

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
        snippets = None
        if self.snippets:
            from amberdb.index.text import highlight  # it imports all that analyzes texts

            snippets = highlight.Snippets(len(ranked), self.schema.options.snippet_characters_max)
        hits: list[Hit] = []
        for rowid, score in ranked:
            document = documents[rowid]
            ranks = {
                name: by_row[rowid] for name, by_row in ranks_by_index.items() if rowid in by_row
            }
            projected = document if project is None else project(document)
            snippet = None if snippets is None else self._snippet(document, snippets, texts)
            hits.append(Hit(document["id"], score, projected, snippet, ranks))
        if snippets is not None and snippets.cut:
            cut["snippet_characters_max"] = {"used": len(hits) - snippets.cut, "of": len(hits)}
        return hits

    def _snippet(
        self, document: Document, snippets: "Snippets", texts: Mapping[RowIndex, TextQuery]
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
    neighbors: Neighbors | None,
    diversity: float,
    group_by: FieldPath | None,
    after: str | None,
    fields: Sequence[str] | None,
    snippets: bool,
) -> Search:
    """A search with its arguments checked against the schema. Raises QueryError, CursorError."""
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
    if neighbors is not None:
        index_of(schema, neighbors)
    return Search(
        schema=schema,
        text=text,
        query=query,
        vectors={} if vector is None else _vectors(schema, vector),
        where=Query.of(schema, where),
        limit=limit,
        fusion=fusion or Fusion(),
        recency=recency,
        neighbors=neighbors,
        diversity=diversity,
        group_by=None if group_by is None else _group_path(schema, group_by),
        after=after,
        fields=fields,
        snippets=snippets,
    )


def _group_path(schema: Schema, group_by: FieldPath) -> Path:
    """The field of the groups. Raises QueryError."""
    path = parse_field(group_by, "group_by")
    if path.name in schema.vectors:
        raise QueryError(f"group_by: {path.name!r} holds vectors: group by another field")
    return path


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
    if not vector:
        raise QueryError("vector={} asks no index: name a field that holds vectors")
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
