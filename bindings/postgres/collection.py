"""Collections on a server, outside a transaction: each call is a transaction of its own.

Invariants:
- A call that another writer was in the way of is done again: nothing of it was stored by then.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, TypeVar, final

from amberdb._attempts import repeated
from amberdb._errors import AmberError, InvalidDocumentError
from amberdb._types import Sync, Where
from amberdb.engine.commit.queued_write import Work
from amberdb.engine.commit.write_batch import OnConflict, WriteBatch
from amberdb.engine.database.collection import Collection
from amberdb.engine.database.handle import Handle
from amberdb.engine.database.readable_collection import ReadableCollection, listed_ids
from amberdb.engine.maintenance.embedding_backfill import backfill, storing
from amberdb.engine.query.page import Record
from amberdb.engine.schema.schema import Schema
from amberdb.engine.search.embedding import Embedders
from amberdb.engine.storage.view import View, schema_of
from amberdb.postgres.care.expiry import expire
from amberdb.postgres.errors import refuse
from amberdb.postgres.methods import PostgresReads
from amberdb.postgres.session import Sessions
from amberdb.postgres.statement.get import get_at_once
from amberdb.postgres.statement.view import NotAtOnce
from amberdb.postgres.view import PostgresView

_T = TypeVar("_T")


@final
class PostgresCollection(PostgresReads, Collection):
    """A collection of a PostgresDatabase."""

    def __init__(self, name: str, sessions: Sessions) -> None:
        ReadableCollection.__init__(self, name)
        self._sessions = sessions

    def __repr__(self) -> str:
        return f"<amberdb.PostgresCollection {self.name!r} of {self._sessions.where!r}>"

    @property
    def _handle(self) -> Handle:  # type: ignore[override]
        refuse("this call")

    def get(self, id: str, default: Any = None) -> Any:
        """As Collection.get(), in one statement."""
        sessions = self._sessions
        try:
            document = get_at_once(sessions.connections, sessions.catalogues, self.name, id)
        except NotAtOnce:
            return ReadableCollection.get(self, id, default)
        return default if document is None else document

    def put_records(self, records: Iterable[Record], *, sync: Sync | None = None) -> list[str]:
        """As Collection.put_records()."""
        listed, call = list(records), super().put_records
        return self._by_newest(lambda: repeated(lambda: call(listed, sync=sync)))

    def delete_many(
        self,
        where: Where | None = None,
        *,
        ids: Iterable[str] | None = None,
        sync: Sync | None = None,
    ) -> int:
        """As Collection.delete_many()."""
        listed = None if ids is None else listed_ids(ids)
        call = super().delete_many
        return repeated(lambda: call(where, ids=listed, sync=sync))

    def touch(
        self, ids: Iterable[str], until: datetime | float | None, *, sync: Sync | None = None
    ) -> int:
        """As Collection.touch()."""
        listed, call = listed_ids(ids), super().touch
        return repeated(lambda: call(listed, until, sync=sync))

    def expire(self) -> int:
        """As Collection.expire()."""
        return expire(self._sessions, self.name)

    def embed_missing(self, progress: Callable[[int], None] | None = None) -> int:
        """As Collection.embed_missing(), with the functions of this process."""
        sessions = self._sessions
        with self._reading() as view:
            schema_of(view, self.name)
        store = storing(lambda: sessions.writing(None))
        return backfill(sessions.reading, sessions.embedders, self.name, store, progress)

    # -- inside ------------------------------------------------------------------------------

    def _reading(self) -> AbstractContextManager[View]:
        return self._sessions.reading()

    def _answered(self, call: Callable[[PostgresView], _T]) -> _T:
        view = self._sessions.at_once()
        try:
            answer = call(view)
        except NotAtOnce:
            pass
        except AmberError:
            if view.has_read:
                raise
        else:
            if view.has_read:
                return answer
        return super()._answered(call)

    def _writing(self, sync: Sync | None) -> AbstractContextManager[WriteBatch]:
        return self._sessions.writing(sync)

    def _write(self, work: Work[_T], sync: Sync | None, key: bytes | None) -> _T:
        def once() -> _T:
            with self._writing(sync) as batch:
                return work(batch)

        try:
            return self._sessions.write_at_once(work, sync)
        except NotAtOnce:
            return repeated(once)

    def _put(self, document: Mapping[str, Any], sync: Sync | None, *, insert: bool) -> str:
        call = super()._put
        return self._by_newest(lambda: call(document, sync, insert=insert))

    def _put_many(
        self,
        documents: Sequence[Mapping[str, Any]],
        known: frozenset[int],
        on_conflict: OnConflict,
        sync: Sync | None,
    ) -> list[str] | None:
        call = super()._put_many
        return self._by_newest(lambda: repeated(lambda: call(documents, known, on_conflict, sync)))

    def _by_newest(self, call: Callable[[], _T]) -> _T:
        """The result of a call that checks documents by the declaration that this process knows;
        where that refuses one, by the newest."""
        schema = self._schema()
        try:
            return call()
        except InvalidDocumentError:
            with self._reading() as view:
                if schema_of(view, self.name) is schema:
                    raise
        return call()

    def _schema(self) -> Schema:
        schema = self._sessions.catalogues.known.catalogue.catalog.schemas.get(self.name)
        if schema is None:
            with self._reading() as view:
                schema = schema_of(view, self.name)
        return schema

    def _embedders(self) -> Embedders:
        return self._sessions.embedders
