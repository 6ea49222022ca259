"""Collections as people use them: one set of methods, over three ways of reading and writing.

    Collection              each call alone: a fresh view, or a commit of its own
    TransactionCollection   inside `with db.transaction() as tx`: tx[name]
    SnapshotCollection      inside `with db.snapshot() as at`: at[name], reading only

Invariants:
- A read uses one view, so what it returns was true at one Lsn.
- A write is prepared (checked, encoded) before the writer lock is taken.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar, final, overload
from zlib import crc32

from amberdb._bytes import CRC_RESIDUE
from amberdb._errors import InvalidDocumentError, MigrationError, QueryError, ReadOnlyError
from amberdb._time import time_of
from amberdb._types import Document, Lsn, Order, Sync, Where
from amberdb.engine.commit.committer import OneCommit
from amberdb.engine.commit.write_batch import WriteBatch, missing
from amberdb.engine.database.engine import Engine
from amberdb.engine.database.following import FollowingEngine
from amberdb.engine.maintenance.embedding_backfill import backfill
from amberdb.engine.query.page import Page
from amberdb.engine.query.query import Query
from amberdb.engine.schema.codec import decode_unchecked
from amberdb.engine.schema.document_format import BODY, damaged, expires_us, unpack
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.schema.schema import Schema
from amberdb.engine.search.embedding import Embedders
from amberdb.engine.search.search import Fusion, Hits, Recency, search_of
from amberdb.engine.search.searchers import Searchers
from amberdb.engine.storage.view import View, live, schema_of
from amberdb.index.ordered.keys import KEYSPACE_BYTES

_D = TypeVar("_D")
_BLOCK = 512


@final
@dataclass(frozen=True, slots=True)
class Record:
    """A document with what the engine knows of it."""

    id: str
    version: Lsn
    """The Lsn of its last write: for `update(..., if_version=)`."""
    created_at: datetime
    updated_at: datetime
    document: Document


class ReadableCollection(ABC):
    """The reading half. Every read raises CorruptionError for a document that is damaged."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def _reading(self) -> AbstractContextManager[View]:
        """A view for one call."""

    @overload
    def get(self, id: str) -> Document | None: ...

    @overload
    def get(self, id: str, default: _D) -> Document | _D: ...

    def get(self, id: str, default: Any = None) -> Any:
        """The document, whole, or `default` when there is none (or it has expired)."""
        with self._reading() as view:
            schema = schema_of(view, self.name)
            stored = live(view, schema, id)
            return default if stored is None else schema.document(stored)

    def record(self, id: str) -> Record:
        """The document with its version and times. Raises MissingKeyError."""
        with self._reading() as view:
            schema = schema_of(view, self.name)
            stored = live(view, schema, id)
            if stored is None:
                raise missing(self.name, id)
            return Record(
                id,
                Lsn(stored.version),
                time_of(stored.created_us),
                time_of(stored.updated_us),
                schema.document(stored),
            )

    def __getitem__(self, id: str) -> Document:
        """The document, whole. Raises MissingKeyError."""
        document = self.get(id)
        if document is None:
            raise missing(self.name, id)
        return document

    def __contains__(self, id: object) -> bool:
        if type(id) is not str:
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
        """The ids, in their order, in blocks: each block is as of its own moment, except in a
        snapshot or a transaction, where all are of one."""
        return (document["id"] for document in self.documents())

    def documents(self) -> Iterator[Document]:
        """All live documents by id, in blocks, for as many as there are."""
        after = b""
        while True:
            with self._reading() as view:
                schema = schema_of(view, self.name)
                low = schema.prefix + after
                block = list(islice(view.scan(low, end_of(schema.prefix)), _BLOCK))
                now_us = view.now_us
                stored = [unpack(key, value) for key, value in block]
            for each in stored:
                if each.expires_us > now_us:
                    yield schema.document(each)
            if len(block) < _BLOCK:
                return
            after = block[-1][0][KEYSPACE_BYTES:] + b"\0"

    def find(
        self,
        where: Where | None = None,
        *,
        order_by: Order | None = None,
        limit: int | None = None,
        after: str | None = None,
        fields: Sequence[str] | None = None,
    ) -> Page:
        """Documents that match, as a Page (a list with a cursor).

        `after` is the cursor of the page before; `fields` names what to keep of each document.
        Raises QueryError, CursorError.
        """
        with self._reading() as view:
            query = Query.of(schema_of(view, self.name), where, order_by)
            return query.find(view, limit, after, fields)

    def count(self, where: Where | None = None) -> int:
        """How many documents match. Raises QueryError."""
        with self._reading() as view:
            return Query.of(schema_of(view, self.name), where).count(view)

    def search(
        self,
        text: str | None = None,
        *,
        vector: Any = None,
        where: Where | None = None,
        limit: int = 10,
        fusion: Fusion | None = None,
        recency: Recency | None = None,
        diversity: float = 0.0,
        fields: Sequence[str] | None = None,
        snippets: bool = False,
    ) -> Hits:
        """Documents ranked by text, by a vector, or by both; those that `where` lets through.

        text       words; "a phrase", +must, -not and prefix* (docs/search.md)
        vector     what is near it is found; {field: vector} where there are several Vector indexes
        fusion     how the lists of text and vectors become one
        recency    lets old documents fade; diversity, 0 to 1, passes over what is like a better hit
        snippets   with each hit the part of its text that matched, marked

        Never fewer than `limit` while more documents match. An index that is still being built is
        waited for; inside a transaction or a snapshot it is a QueryError. Raises QueryError.
        """
        self._finish_indexes(for_text=text is not None, for_vector=vector is not None)
        with self._reading() as view:
            question = search_of(
                schema_of(view, self.name),
                text=text,
                vector=vector,
                where=where,
                limit=limit,
                fusion=fusion,
                recency=recency,
                diversity=diversity,
                fields=fields,
                snippets=snippets,
            )
            return question.answer(view, self._searchers())

    def _finish_indexes(self, *, for_text: bool, for_vector: bool) -> None:  # noqa: B027
        """Before a search that needs them; nothing can be waited for at a fixed Lsn."""

    @abstractmethod
    def _searchers(self) -> Searchers:
        """Of the open database."""

    def explain(
        self,
        where: Where | None = None,
        *,
        order_by: Order | None = None,
        text: str | None = None,
        vector: Any = None,
    ) -> dict[str, Any]:
        """How find() would answer: index, equalities, range, direction, order, what is left to
        the filter. With a text or a vector, how search() has answered: which rows the filter
        left, and how each index was searched. Raises QueryError."""
        if text is not None or vector is not None:
            if order_by is not None:
                raise QueryError("search() orders by score: leave order_by out")
            return self.search(text, vector=vector, where=where).how
        with self._reading() as view:
            return Query.of(schema_of(view, self.name), where, order_by).explain(view)


class WritableCollection(ReadableCollection):
    """The writing half. Writes raise BusyError, DiskFullError, PoisonedError and, when a sync
    fails, CommitUnknownError; after any of the first three nothing was stored."""

    @abstractmethod
    def _schema(self) -> Schema:
        """As of now, for preparing; the writer's own counts."""

    @abstractmethod
    def _writing(
        self, sync: Sync | None, key: bytes | None = None
    ) -> AbstractContextManager[WriteBatch]:
        """A writer for one call, which will read `key`."""

    def _embedded(self, documents: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """With the vectors that an embedder makes of them. Not inside a transaction: nobody waits
        for a model with the writer lock in hand."""
        return documents

    @abstractmethod
    def _embedders(self) -> Embedders:
        """Of the open database."""

    def put(self, document: Mapping[str, Any], *, sync: Sync | None = None) -> str:
        """Stores a document under its "id" (made when missing), replacing another; its id.

        Raises InvalidDocumentError, DocumentTooLargeError, DuplicateKeyError (Unique indexes).
        """
        return self._put(document, sync, insert=False)

    def insert(self, document: Mapping[str, Any], *, sync: Sync | None = None) -> str:
        """put(), but raises DuplicateKeyError when the id exists."""
        return self._put(document, sync, insert=True)

    def _put(self, document: Mapping[str, Any], sync: Sync | None, *, insert: bool) -> str:
        schema = self._schema()
        (document,) = self._embedded([document])
        prepared = schema.prepare(document)
        with self._writing(sync, None if prepared.fresh else prepared.key) as writer:
            current = schema_of(writer.view, self.name)
            if current is not schema:
                prepared = current.prepare(document)
            writer.put(current, prepared, insert=insert)
        return prepared.id

    def put_many(
        self, documents: Iterable[Mapping[str, Any]], *, sync: Sync | None = None
    ) -> list[str]:
        """put() of all of them in one commit: all or none. Raises TransactionTooLargeError;
        inside a transaction what came before it is pending then, so let the error leave it."""
        schema = self._schema()
        prepared = [schema.prepare(each) for each in self._embedded(list(documents))]
        with self._writing(sync) as writer:
            current = schema_of(writer.view, self.name)
            if current is not schema:
                prepared = [current.prepare(each.document) for each in prepared]
            for each in prepared:
                writer.put(current, each)
        return [each.id for each in prepared]

    def update(
        self,
        id: str,
        patch: Mapping[str, Any],
        *,
        if_version: int | None = None,
        sync: Sync | None = None,
    ) -> Lsn:
        """Merges into a document (maps recursively; None stores None; REMOVE takes a field out);
        its new version. Raises MissingKeyError, ConflictError, and what put() raises."""
        (patch,) = self._embedded([patch])
        patch = self._embedders().freed(self.name, patch)
        with self._writing(sync, self._schema().key(id)) as writer:
            writer.update(schema_of(writer.view, self.name), id, patch, if_version)
            return Lsn(writer.lsn)

    def delete(self, id: str, *, sync: Sync | None = None) -> bool:
        """Whether there was such a document."""
        with self._writing(sync, self._schema().key(id)) as writer:
            return writer.delete(schema_of(writer.view, self.name), id)

    def __delitem__(self, id: str) -> None:
        """Raises MissingKeyError."""
        with self._writing(None) as writer:
            schema = schema_of(writer.view, self.name)
            if not writer.delete(schema, id):
                raise missing(self.name, id)

    def delete_many(self, where: Where, *, sync: Sync | None = None) -> int:
        """Deletes all that match, in one commit; how many there were. Raises QueryError."""
        with self._writing(sync) as writer:
            schema = schema_of(writer.view, self.name)
            ids = Query.of(schema, where).ids(writer.view)
            for id in ids:
                writer.delete(schema, id)
            return len(ids)


class Collection(WritableCollection):
    """A collection of an open database; made by db.collection() or db[name].

    Threads may share it."""

    def __init__(self, name: str, engine: Engine | FollowingEngine) -> None:
        super().__init__(name)
        self._engine = engine
        self._committer = engine.committer if isinstance(engine, Engine) else None

    def __repr__(self) -> str:
        return f"<amberdb.Collection {self.name!r} of {self._engine.path!r}>"

    @overload
    def get(self, id: str) -> Document | None: ...

    @overload
    def get(self, id: str, default: _D) -> Document | _D: ...

    def get(self, id: str, default: Any = None) -> Any:
        """The document, whole, or `default` when it is missing or has expired."""
        # The hot path, spelled out: one key needs no view. Memtables first, newest first, and
        # only then LMDB, which by then holds every commit that was dropped from them.
        committer = self._committer
        if committer is None:
            return super().get(id, default)
        visible = committer.visible
        state = committer.state
        try:
            schema = state.catalog.schemas[self.name]
        except KeyError:  # dropped or renamed since
            schema = state.catalog.schema(self.name)
        key = schema.key(id)
        version = state.active.entries.get(key)
        while version is not None and version[0] > visible:
            version = version[2]
        if version is None and state.frozen is not None:
            version = state.frozen.entries.get(key)
            while version is not None and version[0] > visible:
                version = version[2]
        value = version[1] if version is not None else committer.store.get(key)
        if value is None:
            return default
        if crc32(value, crc32(key)) != CRC_RESIDUE:
            raise damaged(key, committer.store.path)
        if schema.expires_at is not None and expires_us(value) <= committer.now_us():
            return default
        if schema.migration is not None:
            return schema.document(unpack(key, value))
        return decode_unchecked(value[BODY])

    def embed_missing(self, progress: Callable[[int], None] | None = None) -> int:
        """Gives a vector to each document that has text in the source field of an embedder and
        no vector yet; how many. `progress(count)` is called after each batch. Raises
        EmbeddingError; the batches before it are stored."""
        engine = self._writing_engine()
        schema_name = self._schema().name
        return backfill(engine.committer, engine.embedders, schema_name, progress)

    # -- inside ------------------------------------------------------------------------------

    def _reading(self) -> AbstractContextManager[View]:
        return self._engine.readable.view()

    def _searchers(self) -> Searchers:
        return self._engine.searchers

    def _finish_indexes(self, *, for_text: bool, for_vector: bool) -> None:
        engine = self._engine
        if isinstance(engine, FollowingEngine):
            return  # another process builds them; a search that cannot be answered yet raises

        def is_ready() -> bool:
            state = engine.committer.state
            schema = state.catalog.schema(self.name)
            return schema.migration is None and all(
                index.complete_from or index.number in state.built
                for index in schema.row_indexes
                if (for_text if index.is_text else for_vector)
            )

        if not is_ready():
            try:
                engine.indexer.run(stop=is_ready)
            except MigrationError:
                if not is_ready():
                    raise

    def _writing_engine(self) -> Engine:
        """Raises ReadOnlyError."""
        engine = self._engine
        if isinstance(engine, FollowingEngine):
            raise ReadOnlyError(
                f"collection {self.name!r} was opened read-only: write in the process that owns "
                "the database",
                collection=self.name,
            )
        return engine

    def _embedders(self) -> Embedders:
        return self._writing_engine().embedders

    def _embedded(self, documents: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        return self._embedders().filled(self.name, documents)

    def _schema(self) -> Schema:
        return self._writing_engine().committer.state.catalog.schema(self.name)

    def _writing(
        self, sync: Sync | None, key: bytes | None = None
    ) -> AbstractContextManager[WriteBatch]:
        return OneCommit(self._writing_engine().committer, sync, key)
