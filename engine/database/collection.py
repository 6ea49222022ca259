"""Collections as people use them: one set of methods, over three ways of reading and writing.

    Collection              each call alone: a fresh view, or a commit of its own
    TransactionCollection   inside `with db.transaction() as tx`: tx[name]
    SnapshotCollection      inside `with db.snapshot() as at`: at[name], reading only

Invariants:
- The methods are those of readable_collection.py and writable_collection.py; what is here reads
  and writes for one call.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeVar, overload
from zlib import crc32

from amberdb._bytes import CRC_RESIDUE
from amberdb._errors import AmberError, CorruptionError, ReadOnlyError
from amberdb._public import public
from amberdb._types import Document, Sync
from amberdb.engine.commit.committer import Committer, OneCommit
from amberdb.engine.commit.queued_write import Work
from amberdb.engine.commit.write_batch import WriteBatch
from amberdb.engine.database.engine import Engine
from amberdb.engine.database.following import FollowingEngine
from amberdb.engine.database.handle import Handle
from amberdb.engine.database.writable_collection import WritableCollection
from amberdb.engine.maintenance.embedding_backfill import backfill, storing
from amberdb.engine.options import check_sync
from amberdb.engine.schema.codec import decode_unchecked
from amberdb.engine.schema.document_format import BODY, damaged, unpack_expires
from amberdb.engine.schema.documents import encode_id
from amberdb.engine.schema.schema import AnyIndex, Schema
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.schema.split_document import join
from amberdb.engine.schema.vector_block import row_in
from amberdb.engine.search.embedding import Embedders
from amberdb.engine.search.ranking import Neighbors
from amberdb.engine.search.searcher import SearcherSource
from amberdb.engine.storage.store import EngineError
from amberdb.engine.storage.view import View

_D = TypeVar("_D")
_T = TypeVar("_T")


@public
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
        key = schema.prefix + encode_id(id)  # schema.key(), inline
        version = state.active.entries.get(key)
        while version is not None and version[0] > visible:
            version = version[2]
        if version is None and state.frozen is not None:
            version = state.frozen.entries.get(key)
            while version is not None and version[0] > visible:
                version = version[2]
        if version is not None:
            value = version[1]
        elif schema.vectors:
            try:
                document = _split_document(committer, schema, key)
            except (CorruptionError, EngineError):
                return super().get(id, default)
            return default if document is None else document
        else:
            value = committer.store.get(key)
        if value is None:
            return default
        if crc32(value, crc32(key)) != CRC_RESIDUE:
            raise damaged(key, committer.store.path)
        if schema.expires_at is not None and unpack_expires(value)[0] <= committer.clock.now_us():
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
        store = storing(partial(OneCommit, engine.committer))
        return backfill(engine.committer.view, engine.embedders, schema_name, store, progress)

    def expire(self) -> int:
        """Removes the documents that have expired by now; returns how many. db.expire() does it for
        all collections. Raises what db.expire() raises."""
        engine = self._writing_engine()
        name = self._schema().name
        due_us = engine.committer.clock.due_us()
        return 0 if due_us is None else engine.expiry.expire(due_us, collection=name)

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

    def _unembedded(self, documents: Sequence[Mapping[str, Any]]) -> frozenset[int]:
        if not self._embedders().of(self.name):
            return frozenset()
        return frozenset(
            position for position, document in enumerate(documents) if document.get("id") in self
        )

    def _embedded(self, documents: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        return self._embedders().with_vectors(self.name, documents)

    def _committer(self) -> Committer:
        return self._handle.committer or self._writing_engine().committer

    def _schema(self) -> Schema:
        return self._committer().state.catalog.schema(self.name)

    def _write(self, work: Work[_T], sync: Sync | None, key: bytes | None) -> _T:
        if sync is not None:
            check_sync(sync)
        return self._committer().write(work, sync, key)

    def _writing(self, sync: Sync | None) -> AbstractContextManager[WriteBatch]:
        return OneCommit(self._writing_engine().committer, sync)


def _split_document(committer: Committer, schema: Schema, key: bytes) -> Document | None:
    """The document that LMDB has, with its vectors, read in one transaction and without a copy of
    whole blocks. Raises CorruptionError, EngineError."""
    store = committer.store
    with store.begin_mapped() as txn:
        value_of, tree_of = txn.get, store.trees.of
        value = value_of(key, None, tree_of(schema.prefix))
        if value is None:
            return None
        if crc32(value, crc32(key)) != CRC_RESIDUE:
            raise damaged(key)
        if schema.expires_at is not None and unpack_expires(value)[0] <= committer.clock.now_us():
            return None
        document: Document = decode_unchecked(value[BODY])
        vectors = tree_of(schema.vector_prefix)
        return join(
            document,
            schema.vectors,
            lambda place: row_in(place, value_of(place.key, None, vectors)),
        )
