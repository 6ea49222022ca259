"""The methods of a collection that read.

Invariants:
- A read uses one view, so what it returns was true at one Lsn.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, TypeAlias, TypeVar, overload

from amberdb._errors import InvalidDocumentError, QueryError
from amberdb._public import public
from amberdb._types import Document, FieldPath, Order, Where
from amberdb.engine.commit.write_batch import missing
from amberdb.engine.database.iteration import Iteration
from amberdb.engine.query.field_values import FieldValues
from amberdb.engine.query.page import Page, Record, record_of
from amberdb.engine.query.query import Query
from amberdb.engine.query.scan import documents_by_id
from amberdb.engine.schema.document_format import StoredDocument
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.split_document import no_vectors, vectors_of
from amberdb.engine.schema.vector_block import VectorsAt
from amberdb.engine.search.hits import Hits
from amberdb.engine.search.ranking import Fusion, Neighbors, Recency
from amberdb.engine.search.search import search_of
from amberdb.engine.search.searcher import SearcherSource
from amberdb.engine.storage.view import View, live, schema_of
from amberdb.index.ordered.keys import KEYSPACE_BYTES

_D = TypeVar("_D")


class _Passed:
    """The type of an option that find() does not have. Only a map of options, passed on as
    `find(where, **options)`, could bring one: type checkers then take the overload that has it."""


_Iterated: TypeAlias = tuple[bytes, StoredDocument, Schema, VectorsAt]
"""Key, document, and how it is decoded."""


@public
class ReadableCollection(ABC):
    """The methods that read, of every kind of collection.

    Every read raises CorruptionError for a damaged document, CollectionMissingError for a
    collection that was dropped or renamed, and ClosedError once the database is closed.
    """

    def __init__(self, name: str) -> None:
        self.name = str.__str__(name)

    @abstractmethod
    def _reading(self) -> AbstractContextManager[View]:
        """A view for one call."""

    @overload
    def get(self, id: str) -> Document | None: ...

    @overload
    def get(self, id: str, default: _D) -> Document | _D: ...

    def get(self, id: str, default: Any = None) -> Any:
        """The whole document, or `default` when it is missing or has expired.

            events.get("a"), events.get("a", {})

        Vectors are read-only float32 arrays of shape (dim,).
        """
        with self._reading() as view:
            schema = schema_of(view, self.name)
            stored = live(view, schema, id)
            return default if stored is None else schema.document(stored, view.vectors_at)

    def get_many(self, ids: Iterable[str]) -> list[Document | None]:
        """The documents with these ids, in the order of the ids and as of one time; None for each
        that is missing or has expired.

            for document in events.get_many(["b", "a"]): ...

        Raises InvalidDocumentError for an id that cannot be one, QueryError for a single str.
        """
        ids = listed_ids(ids)
        with self._reading() as view:
            found = documents_by_id(view, schema_of(view, self.name), ids)
            return [None if match is None else match[1] for match in found]

    def record(self, id: str) -> Record:
        """The document with its version and times.

            record = events.record("a")
            events.update("a", {"done": True}, if_version=record.version)

        Raises MissingKeyError.
        """
        with self._reading() as view:
            (found,) = documents_by_id(view, schema_of(view, self.name), [id])
            if found is None:
                raise missing(self.name, id)
            return record_of(*found, found[1])

    def __getitem__(self, id: str) -> Document:
        """The whole document: events["a"]. Raises MissingKeyError."""
        document = self.get(id)
        if document is None:
            raise missing(self.name, id)
        return document

    def __contains__(self, id: object) -> bool:
        if not isinstance(id, str):
            return False
        with self._reading() as view:
            try:
                return live(view, schema_of(view, self.name), id) is not None
            except InvalidDocumentError:  # what cannot be an id is none
                return False

    def __len__(self) -> int:
        return self.count()

    def __bool__(self) -> bool:
        return True  # a collection without documents is still a collection

    def __iter__(self) -> Iterator[str]:
        """The ids, ascending, as documents() reads them."""
        return (
            key[KEYSPACE_BYTES:].decode() for key, _, _, _ in self._iterated(with_vectors=False)
        )

    def documents(self) -> Iterator[Document]:
        """All documents that have not expired, by id ascending, as an iterator.

        Documents that are created after the call are passed over, so a loop may put documents. Read
        in blocks of 512, each as of its own time, and nothing is held between them; in a snapshot
        or a transaction all are read at one Lsn.
        """
        return (
            schema.document(stored, vectors_at)
            for _, stored, schema, vectors_at in self._iterated(with_vectors=True)
        )

    def _iterated(self, *, with_vectors: bool) -> Iterator[_Iterated]:
        """The documents, still encoded, with their keys. It begins with the call."""
        with self._reading() as view:
            iteration = Iteration(view, schema_of(view, self.name))
        return self._continued(iteration, with_vectors)

    def _continued(self, iteration: Iteration, with_vectors: bool) -> Iterator[_Iterated]:
        vectors_at: VectorsAt = no_vectors
        while not iteration.has_ended:
            with self._reading() as view:
                schema = schema_of(view, self.name)
                block = iteration.block(view, schema)
                if with_vectors and schema.vectors:
                    bodies = (stored.body for _, stored in block)
                    vectors_at = vectors_of(schema.vectors, bodies, view).get
            for key, stored in block:
                yield key, stored, schema, vectors_at

    @overload
    def find(
        self,
        where: Where | None = None,
        *,
        order_by: Order | None = None,
        limit: int | None = None,
        after: str | None = None,
        fields: Sequence[FieldPath] | None = None,
        records: Literal[False] = False,
    ) -> Page: ...

    @overload
    def find(
        self,
        where: Where | None = None,
        *,
        order_by: Order | None = None,
        limit: int | None = None,
        after: str | None = None,
        fields: Sequence[FieldPath] | None = None,
        records: Literal[True],
    ) -> Page[Record]: ...

    @overload
    def find(
        self,
        where: Where | None = None,
        *,
        order_by: Order | None = None,
        limit: int | None = None,
        after: str | None = None,
        fields: Sequence[FieldPath] | None = None,
        records: bool = False,
        **options: _Passed,
    ) -> Page[Any]: ...

    def find(  # type: ignore[misc]  # pyright: ignore[reportInconsistentOverload]  # _Passed
        self,
        where: Where | None = None,
        *,
        order_by: Order | None = None,
        limit: int | None = None,
        after: str | None = None,
        fields: Sequence[FieldPath] | None = None,
        records: bool = False,
    ) -> Page[Any]:
        """The documents that match a filter, as a Page: a list with a cursor.

            page = events.find({"entity_id": "lin", "created_at": {"$gte": since}},
                               order_by="-created_at", limit=50)
            more = events.find({"entity_id": "lin", "created_at": {"$gte": since}},
                               order_by="-created_at", limit=50, after=page.cursor)

        where     a filter (docs/queries.md); None: every document
        order_by  a field or a list of fields, `-` in front for descending; "$updated_at",
                  "$created_at" and "$version" are those of the record; None: the order of the index
                  that answers
        limit     the most documents to return; None: all
        after     page.cursor of the page before, with the same `where` and `order_by`
        fields    paths to keep of each document: the page holds Projections, which put() refuses
        records   a Record of each document, with its version and times, in place of it

        page.cursor is None when the page was not filled, so there is no next one. Raises
        QueryError for an invalid argument, CursorError for a cursor of another query, or of an
        index that was dropped. Warns with FullScanWarning when no index answers over many
        documents.
        """
        return self._find(where, order_by, limit, after, fields, records)

    def _find(
        self,
        where: Where | None,
        order_by: Order | None,
        limit: int | None,
        after: str | None,
        fields: Sequence[FieldPath] | None,
        records: bool,
    ) -> Page[Any]:
        with self._reading() as view:
            query = Query.of(schema_of(view, self.name), where, order_by)
            return query.find(view, limit, after, fields, records=records)

    def count(self, where: Where | None = None) -> int:
        """The number of documents that match; of all without `where`. Raises QueryError."""
        with self._reading() as view:
            return Query.of(schema_of(view, self.name), where).count(view)

    def distinct(self, field: FieldPath, where: Where | None = None) -> list[Any]:
        """The distinct values of a field in the documents that match, ascending.

            events.distinct("kind", {"entity_id": "lin"})

        The elements of lists count as values, an empty list as none, a missing field as None. An
        ordered index over the field, after fields that the filter fixes by equality, is read once
        per value. Raises QueryError.
        """
        with self._reading() as view:
            return FieldValues.of(schema_of(view, self.name), field, where).distinct(view)

    def count_by(self, field: FieldPath, where: Where | None = None) -> dict[Any, int]:
        """The number of documents that match for each value of a field, by value, ascending.

            events.count_by("kind", {"entity_id": "lin"})["note"]

        Values are those of distinct(): a document with a list counts once for each element. Raises
        QueryError, also when a value is a map.
        """
        with self._reading() as view:
            return FieldValues.of(schema_of(view, self.name), field, where).counts(view)

    def min(self, field: FieldPath, where: Where | None = None) -> Any:
        """The smallest value of a field in the documents that match, in the order of find(); None
        when none has a value. Raises QueryError."""
        with self._reading() as view:
            question = FieldValues.of(schema_of(view, self.name), field, where)
            return question.end(view, largest=False)

    def max(self, field: FieldPath, where: Where | None = None) -> Any:
        """The largest value of a field, as min()."""
        with self._reading() as view:
            question = FieldValues.of(schema_of(view, self.name), field, where)
            return question.end(view, largest=True)

    def search(
        self,
        text: str | None = None,
        *,
        query: str | None = None,
        vector: Any = None,
        where: Where | None = None,
        limit: int = 10,
        fusion: Fusion | None = None,
        recency: Recency | None = None,
        neighbors: Neighbors | None = None,
        diversity: float = 0.0,
        group_by: FieldPath | None = None,
        after: str | None = None,
        fields: Sequence[str] | None = None,
        snippets: bool = False,
    ) -> Hits:
        """The best matches by text, by vector, or by both, best first, as Hits (a list of Hit).

            for hit in memory.search("umbrella", vector=embed("umbrella"), limit=5):
                print(hit.score, hit.id, hit.document)

        text       any text, whose words are looked for; it never raises
        query      in place of a text, in the query language: "a phrase", +must, -not, prefix*
                   (docs/search.md)
        vector     numbers of shape (dim,); with several Vector indexes {field: numbers}
        where      a filter (docs/queries.md); only documents that match it are ranked
        limit      the most hits; never fewer while more documents match, or groups of them
        fusion     method and weights, when both text and vector are given
        recency    lowers the score of old documents: halved every `half_life`
        neighbors  ranks a document with those beside it in its group, as the turns of a session;
                   needs an Ordered(group, order) index
        diversity  0.0 to 1.0: how much to avoid hits that are similar to better ones
        group_by   a field: only the best hit of each of its values, as of a thread or of a text in
                   chunks; documents without the field are each on their own
        after      hits.cursor of the page before: the hits that follow, none of which a page
                   before has shown, whatever was written since
        fields     paths to keep of each document
        snippets   hit.snippet is the part of the text that matched, its words between `**`

        score is BM25 for text alone; the cosine, inner product or negative distance for a vector
        alone; otherwise the fused score, comparable within one answer only.

        hits.cursor is None when the page was not full, so that nothing more matches. An index that
        is still being built is finished first; in a transaction or a snapshot that is a QueryError.
        Raises QueryError for an invalid argument or a missing index, CursorError for the cursor of
        another search or after 10,000 documents, MigrationError.
        """
        for_text = text is not None or query is not None
        self._finish_indexes(for_text=for_text, for_vector=vector is not None, neighbors=neighbors)
        with self._reading() as view:
            question = search_of(
                schema_of(view, self.name),
                text=text,
                query=query,
                vector=vector,
                where=where,
                limit=limit,
                fusion=fusion,
                recency=recency,
                neighbors=neighbors,
                diversity=diversity,
                group_by=group_by,
                after=after,
                fields=fields,
                snippets=snippets,
            )
            return question.answer(view, self._searchers())

    def _finish_indexes(  # noqa: B027
        self, *, for_text: bool, for_vector: bool, neighbors: Neighbors | None
    ) -> None:
        """Finishes the indexes that a search needs; at a fixed Lsn there is nothing to wait for."""

    @abstractmethod
    def _searchers(self) -> SearcherSource:
        """The searchers of the open database."""

    def explain(
        self,
        where: Where | None = None,
        *,
        order_by: Order | None = None,
        fields: Sequence[FieldPath] | None = None,
        text: str | None = None,
        query: str | None = None,
        vector: Any = None,
        neighbors: Neighbors | None = None,
        group_by: FieldPath | None = None,
        distinct: FieldPath | None = None,
    ) -> dict[str, Any]:
        """How find() answers, or, by its arguments, search() or distinct() and count_by().

            events.explain({"entity_id": "lin"}, order_by="-created_at")["index"]
            events.explain({"entity_id": "lin"}, distinct="kind")["skip"]

        Of find(): index, equalities, range, direction, order, the conditions that the filter checks
        document by document, and whether the index has all `fields`, so that no document is read.
        Of search(), which is run with a text, a query or a vector: the rows that the filter left,
        how each index was searched, how `neighbors` counted, and how many rows `group_by` looked
        at. Raises QueryError.
        """
        if text is not None or query is not None or vector is not None:
            if order_by is not None:
                raise QueryError("search() orders by score: leave order_by out")
            return self.search(
                text,
                query=query,
                vector=vector,
                where=where,
                neighbors=neighbors,
                group_by=group_by,
            ).how
        with self._reading() as view:
            schema = schema_of(view, self.name)
            if distinct is not None:
                return FieldValues.of(schema, distinct, where).explain(view)
            return Query.of(schema, where, order_by).explain(view, fields)


def listed_ids(ids: Iterable[str]) -> list[str]:
    """The ids. Raises QueryError for a single str, which would be taken for its characters."""
    if isinstance(ids, (str, bytes)):
        raise QueryError(f"a list of ids is needed, not {ids!r}: give [{ids!r}]")
    return list(ids)
