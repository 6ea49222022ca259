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
from amberdb._errors import AmberError, InvalidDocumentError, QueryError, ReadOnlyError
from amberdb._time import time_of
from amberdb._types import Document, Lsn, Order, Sync, Where
from amberdb.engine.commit.committer import OneCommit
from amberdb.engine.commit.write_batch import WriteBatch, missing
from amberdb.engine.database.engine import Engine
from amberdb.engine.database.following import FollowingEngine
from amberdb.engine.database.handle import Handle
from amberdb.engine.maintenance.embedding_backfill import backfill
from amberdb.engine.query.page import Page
from amberdb.engine.query.query import Query
from amberdb.engine.schema.codec import decode_unchecked
from amberdb.engine.schema.document_format import BODY, damaged, expires_us, unpack
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.schema.schema import AnyIndex, Schema
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.search.embedding import Embedders
from amberdb.engine.search.hits import Hits
from amberdb.engine.search.ranking import Fusion, Neighbors, Recency
from amberdb.engine.search.search import search_of
from amberdb.engine.search.searcher import SearcherSource
from amberdb.engine.storage.view import View, live, schema_of
from amberdb.index.ordered.keys import KEYSPACE_BYTES

_D = TypeVar("_D")
_BLOCK = 512


@final
@dataclass(frozen=True, slots=True)
class Record:
    """A document with its version and its times, as record() returns it."""

    id: str
    version: Lsn
    """The Lsn of its last write: for `update(..., if_version=)`."""
    created_at: datetime
    """When it was first stored, in UTC."""
    updated_at: datetime
    """When it was last written, in UTC."""
    document: Document


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
            return default if stored is None else schema.document(stored)

    def record(self, id: str) -> Record:
        """The document with its version and times.

            record = events.record("a")
            events.update("a", {"done": True}, if_version=record.version)

        Raises MissingKeyError.
        """
        with self._reading() as view:
            schema = schema_of(view, self.name)
            stored = live(view, schema, id)
            if stored is None:
                raise missing(self.name, id)
            document = schema.document(stored)
            return Record(
                document["id"],
                Lsn(stored.version),
                time_of(stored.created_us),
                time_of(stored.updated_us),
                document,
            )

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
        """The ids, ascending. Read in blocks, each at the Lsn of its own time; in a snapshot or a
        transaction all are read at one Lsn."""
        return (document["id"] for document in self.documents())

    def documents(self) -> Iterator[Document]:
        """All documents that have not expired, by id ascending, as an iterator.

        Read in blocks of 512, each at the Lsn of its own time; in a snapshot or a transaction all
        are read at one Lsn.
        """
        after: bytes | None = b""
        while after is not None:
            documents, after = self._block(after)
            yield from documents

    def _block(self, after: bytes) -> tuple[Iterator[Document], bytes | None]:
        """The next documents, decoded as they are taken, and where to go on; None at the end."""
        with self._reading() as view:
            schema = schema_of(view, self.name)
            low = schema.prefix + after
            block = list(islice(view.scan(low, end_of(schema.prefix)), _BLOCK))
            now_us = view.now_us
            stored = [unpack(key, value) for key, value in block]
        documents = (schema.document(each) for each in stored if each.expires_us > now_us)
        is_last = len(block) < _BLOCK
        return documents, None if is_last else block[-1][0][KEYSPACE_BYTES:] + b"\0"

    def find(
        self,
        where: Where | None = None,
        *,
        order_by: Order | None = None,
        limit: int | None = None,
        after: str | None = None,
        fields: Sequence[str] | None = None,
    ) -> Page:
        """The documents that match a filter, as a Page: a list with a cursor.

            page = events.find({"entity_id": "lin", "created_at": {"$gte": since}},
                               order_by="-created_at", limit=50)
            more = events.find({"entity_id": "lin", "created_at": {"$gte": since}},
                               order_by="-created_at", limit=50, after=page.cursor)

        where     a filter (docs/queries.md); None: every document
        order_by  a field or a list of fields, `-` in front for descending; None: the order of the
                  index that answers
        limit     the most documents to return; None: all
        after     page.cursor of the page before, with the same `where` and `order_by`
        fields    paths to keep of each document: the page holds Projections, which put() refuses

        page.cursor is None when the page was not filled, so there is no next one. Raises
        QueryError for an invalid argument, CursorError for a cursor of another query, or of an
        index that was dropped. Warns with FullScanWarning when no index answers over many
        documents.
        """
        with self._reading() as view:
            query = Query.of(schema_of(view, self.name), where, order_by)
            return query.find(view, limit, after, fields)

    def count(self, where: Where | None = None) -> int:
        """The number of documents that match; of all without `where`. Raises QueryError."""
        with self._reading() as view:
            return Query.of(schema_of(view, self.name), where).count(view)

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
        limit      the most hits; never fewer while more documents match
        fusion     method and weights, when both text and vector are given
        recency    lowers the score of old documents: halved every `half_life`
        neighbors  ranks a document with those beside it in its group, as the turns of a session;
                   needs an Ordered(group, order) index
        diversity  0.0 to 1.0: how much to avoid hits that are similar to better ones
        fields     paths to keep of each document
        snippets   hit.snippet is the part of the text that matched, its words between `**`

        score is BM25 for text alone; the cosine, inner product or negative distance for a vector
        alone; otherwise the fused score, comparable within one answer only.

        An index that is still being built is finished first; in a transaction or a snapshot that
        is a QueryError. Raises QueryError for an invalid argument or a missing index,
        MigrationError.
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
        text: str | None = None,
        query: str | None = None,
        vector: Any = None,
        neighbors: Neighbors | None = None,
    ) -> dict[str, Any]:
        """How find() answers, or search() when a text, a query or a vector is given.

            events.explain({"entity_id": "lin"}, order_by="-created_at")["index"]

        Of find(): index, equalities, range, direction, order, and the conditions that the filter
        checks document by document. Of search(), which is run: the rows that the filter left, and
        how each index was searched, and how `neighbors` counted. Raises QueryError.
        """
        if text is not None or query is not None or vector is not None:
            if order_by is not None:
                raise QueryError("search() orders by score: leave order_by out")
            found = self.search(text, query=query, vector=vector, where=where, neighbors=neighbors)
            return found.how
        with self._reading() as view:
            return Query.of(schema_of(view, self.name), where, order_by).explain(view)


class WritableCollection(ReadableCollection):
    """The methods that write.

    A write raises BusyError, DiskFullError or PoisonedError (nothing was stored), and
    CommitUnknownError when the sync of the log fails. `sync` is the durability class of the
    commit, "always", "interval" or "os"; None takes that of the database.
    """

    @abstractmethod
    def _schema(self) -> Schema:
        """The newest schema, to prepare documents before the writer lock is taken; the writer
        compares it with its own."""

    @abstractmethod
    def _writing(
        self, sync: Sync | None, key: bytes | None = None
    ) -> AbstractContextManager[WriteBatch]:
        """A write batch for one call, which will read `key`."""

    def _embedded(self, documents: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """The documents with the vectors that an embedder makes of them. In a transaction the
        documents as they are: no model is called while the writer lock is held."""
        return documents

    @abstractmethod
    def _embedders(self) -> Embedders:
        """The embedders of the open database."""

    def put(self, document: Mapping[str, Any], *, sync: Sync | None = None) -> str:
        """Stores a document under its "id", in place of an existing one; returns the id.

            id = events.put({"entity_id": "lin", "content": "..."})   # without "id": a new one

        Values: None, bool, int (64 bit), float (not NaN), str, bytes, aware datetime, list, dict;
        in the field of a Vector index a list or array of shape (dim,).

        Raises InvalidDocumentError with the field's name, DocumentTooLargeError,
        DuplicateKeyError (a Unique index), EmbeddingError.
        """
        return self._put(document, sync, insert=False)

    def insert(self, document: Mapping[str, Any], *, sync: Sync | None = None) -> str:
        """Stores a document as put() does, but raises DuplicateKeyError when the id exists."""
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
        """Stores documents in one commit, all or none; returns their ids in the same order.

            ids = events.put_many([{"content": "one"}, {"content": "two"}])

        All documents are in memory at once, and one commit holds at most
        `transaction_bytes_max` (256 MiB): store more in several calls. Of documents with the same
        "id" the last one stays.

        Raises what put() raises, and TransactionTooLargeError. In a transaction the documents
        before the failing one are already part of it: let the error leave the `with` block.
        """
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
        """Merges `patch` into a stored document; returns its new version, an Lsn.

            events.update("a", {"done": True, "place": {"city": "Hangzhou"}, "old": REMOVE})

        A map in the patch is merged recursively, any other value replaces the field; None stores
        None; amberdb.REMOVE deletes the field. The id cannot be changed.

        if_version  the version that the document must still have (record(id).version)

        Raises MissingKeyError when there is no such document, ConflictError when it is at another
        version, and what put() raises.
        """
        (patch,) = self._embedded([patch])
        patch = self._embedders().without_stale_vectors(self.name, patch)
        with self._writing(sync, self._schema().key(id)) as writer:
            writer.update(schema_of(writer.view, self.name), id, patch, if_version)
            return Lsn(writer.lsn)

    def delete(self, id: str, *, sync: Sync | None = None) -> bool:
        """Deletes a document; returns whether it existed."""
        with self._writing(sync, self._schema().key(id)) as writer:
            return writer.delete(schema_of(writer.view, self.name), id)

    def __delitem__(self, id: str) -> None:
        """Deletes a document: del events["a"]. Raises MissingKeyError."""
        with self._writing(None) as writer:
            schema = schema_of(writer.view, self.name)
            if not writer.delete(schema, id):
                raise missing(self.name, id)

    def delete_many(self, where: Where, *, sync: Sync | None = None) -> int:
        """Deletes the documents that match, in one commit; returns how many.

            events.delete_many({"entity_id": "lin"})

        Documents that have expired are not among them: they do not match anything. Raises
        QueryError, TransactionTooLargeError.
        """
        with self._writing(sync) as writer:
            schema = schema_of(writer.view, self.name)
            ids = Query.of(schema, where).ids(writer.view)
            for id in ids:
                writer.delete(schema, id)
            return len(ids)


class Collection(WritableCollection):
    """A collection of an open database, returned by db.collection() or db[name].

        "a" in events; len(events); events["a"]; del events["a"]; for id in events: ...

    Each call is one read or one commit of its own. Threads may share it.
    """

    def __init__(self, name: str, handle: Handle) -> None:
        super().__init__(name)
        self._handle = handle

    def __repr__(self) -> str:
        return f"<amberdb.Collection {self.name!r} of {self._handle.path!r}>"

    @overload
    def get(self, id: str) -> Document | None: ...

    @overload
    def get(self, id: str, default: _D) -> Document | _D: ...

    def get(self, id: str, default: Any = None) -> Any:
        """The whole document, or `default` when it is missing or has expired.

            events.get("a"), events.get("a", {})

        Vectors are read-only float32 arrays of shape (dim,). Raises CorruptionError.
        """
        # The hot path, spelled out: one key needs no view. Memtables first, newest first, and
        # only then LMDB, which by then holds every commit that was dropped from them.
        committer = self._handle.committer
        if committer is None:
            return super().get(id, default)
        visible = committer.visible
        state = committer.state
        try:
            schema = state.catalog.schemas[self.name]
        except KeyError:  # dropped or renamed, perhaps by a commit that is not visible yet
            return super().get(id, default)
        if schema.migration is not None:  # perhaps likewise
            return super().get(id, default)
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
        if schema.expires_at is not None and expires_us(value) <= committer.clock.now_us():
            return default
        return decode_unchecked(value[BODY])

    def embed_missing(self, progress: Callable[[int], None] | None = None) -> int:
        """Embeds the documents that still wait for a vector, now; returns how many.

        Those are documents with text in the `source` field of a Vector index and no vector.
        `progress(count)` is called after each batch. Raises, after all others are stored, the error
        of a document: EmbeddingError, DocumentTooLargeError. An embedder that is down is called a
        few times.
        """
        engine = self._writing_engine()
        schema_name = self._schema().name
        return backfill(engine.committer, engine.embedders, schema_name, progress)

    # -- inside ------------------------------------------------------------------------------

    def _reading(self) -> AbstractContextManager[View]:
        return self._handle.engine.readable.view()

    def _searchers(self) -> SearcherSource:
        return self._handle.engine.searchers

    def _finish_indexes(
        self, *, for_text: bool, for_vector: bool, neighbors: Neighbors | None
    ) -> None:
        engine = self._handle.engine
        if isinstance(engine, FollowingEngine):
            return  # another process builds them; a search that cannot be answered yet raises

        def is_wanted(index: AnyIndex) -> bool:
            if isinstance(index, RowIndex):
                return for_text if index.is_text else for_vector
            return neighbors is not None and neighbors.are_ordered_by(index.encoder.paths)

        def is_ready() -> bool:
            schema = engine.committer.state.catalog.schemas.get(self.name)
            if schema is None:  # dropped, perhaps by a commit that is not visible yet
                return True
            return schema.migration is None and not any(
                map(is_wanted, engine.indexer.unanswered_of(schema))
            )

        if not is_ready():
            try:
                engine.indexer.run(stop=is_ready, collection=self.name, wanted=is_wanted)
            except AmberError:
                if not is_ready():
                    raise

    def _writing_engine(self) -> Engine:
        """Raises ReadOnlyError."""
        engine = self._handle.engine
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
        return self._embedders().with_vectors(self.name, documents)

    def _schema(self) -> Schema:
        return self._writing_engine().committer.state.catalog.schema(self.name)

    def _writing(
        self, sync: Sync | None, key: bytes | None = None
    ) -> AbstractContextManager[WriteBatch]:
        return OneCommit(self._writing_engine().committer, sync, key)
