"""What collections on a server do in another way than those in a directory, inside a transaction or
a snapshot and outside.

Invariants:
- What a call means is the engine's: here documents are asked for in one statement, and the server
  is told what a query wants.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from amberdb._types import Document, FieldPath, Order, Sync, Where
from amberdb.engine.commit.write_batch import OnConflict
from amberdb.engine.database.readable_collection import ReadableCollection, listed_ids
from amberdb.engine.database.writable_collection import WritableCollection
from amberdb.engine.query.page import Page
from amberdb.engine.query.query import Query
from amberdb.engine.query.scan import documents_by_id
from amberdb.engine.search.ranking import Neighbors
from amberdb.engine.search.searcher import SearcherSource
from amberdb.engine.storage.view import schema_of
from amberdb.postgres.batch import PostgresBatch
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

    def find(  # one signature for three overloads, the last of which takes any option
        self,
        where: Where | None = None,
        *,
        order_by: Order | None = None,
        limit: int | None = None,
        after: str | None = None,
        fields: Sequence[FieldPath] | None = None,
        records: bool = False,
        **options: Any,
    ) -> Page[Any]:
        """As Collection.find()."""
        for name in options:
            raise TypeError(f"find() has no option {name!r}")

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


class PostgresWrites(PostgresReads, WritableCollection):
    """The methods that write."""

    def _put_many(
        self,
        documents: list[Mapping[str, Any]],
        known: frozenset[int],
        on_conflict: OnConflict,
        sync: Sync | None,
    ) -> list[str] | None:
        if not documents:
            self._schema()  # raises for a collection that is gone
            return []
        with self._writing(sync) as batch:
            assert isinstance(batch, PostgresBatch)
            schema = schema_of(batch.view, self.name)
            prepared = [schema.prepare(each) for each in documents]
            batch.expect(schema, prepared)
            if not all(batch.has(schema, prepared[position]) for position in known):
                return None
            for each in prepared:
                batch.put(schema, each, on_conflict=on_conflict)
        return [each.id for each in prepared]
