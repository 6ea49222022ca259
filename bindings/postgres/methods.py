"""How collections on a server read in another way than those in a directory, inside a transaction
or a snapshot and outside.

Invariants:
- What a call means is the engine's: here documents are asked for in one statement, and the server
  is told what a query wants.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from amberdb._types import Document, FieldPath, Order, Where
from amberdb.engine.database.readable_collection import ReadableCollection, listed_ids
from amberdb.engine.query.page import Page
from amberdb.engine.query.query import Query
from amberdb.engine.query.scan import documents_by_id
from amberdb.engine.search.ranking import Neighbors
from amberdb.engine.search.searcher import SearcherSource
from amberdb.engine.storage.view import schema_of
from amberdb.postgres.search.searchers import PostgresSearchers
from amberdb.postgres.view import PostgresView, of_server

_T = TypeVar("_T")


class PostgresReads(ReadableCollection):
    """The methods that read."""

    def get_many(self, ids: Iterable[str]) -> list[Document | None]:
        """As Collection.get_many()."""
        ids = listed_ids(ids)

        def got(view: PostgresView) -> list[Document | None]:
            schema = schema_of(view, self.name)
            keys = [schema.key(id) for id in ids]
            view.prefetch(schema, list(dict.fromkeys(keys)))
            found = documents_by_id(view, schema, ids)
            return [None if match is None else match[1] for match in found]

        return self._answered(got)

    def _find(
        self,
        where: Where | None,
        order_by: Order | None,
        limit: int | None,
        after: str | None,
        fields: Sequence[FieldPath] | None,
        records: bool,
    ) -> Page[Any]:
        def found(view: PostgresView) -> Page[Any]:
            query = Query.of(schema_of(view, self.name), where, order_by)
            source = view.narrowed(query.filter, limit)
            return query.find(source, limit, after, fields, records=records)

        return self._answered(found)

    def count(self, where: Where | None = None) -> int:
        """As Collection.count()."""

        def counted(view: PostgresView) -> int:
            query = Query.of(schema_of(view, self.name), where)
            return query.count(view.narrowed(query.filter, None))

        return self._answered(counted)

    def _searchers(self) -> SearcherSource:
        return PostgresSearchers()

    def _finish_indexes(
        self, *, for_text: bool, for_vector: bool, neighbors: Neighbors | None
    ) -> None:
        """Nothing: each index is built by its declaration."""

    def _answered(self, call: Callable[[PostgresView], _T]) -> _T:
        """The answer of a call that reads through one view."""
        with self._reading() as view:
            return call(of_server(view))
