"""The methods of a collection that write.

Invariants:
- A write is prepared (checked, encoded) before the writer lock is taken.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, TypeVar

from amberdb._errors import CollectionError, InvalidDocumentError, QueryError
from amberdb._public import public
from amberdb._time import microseconds
from amberdb._types import Lsn, Patch, Sync, Where
from amberdb.engine.commit.queued_write import Work
from amberdb.engine.commit.write_batch import ON_CONFLICT, OnConflict, WriteBatch, missing
from amberdb.engine.database.readable_collection import ReadableCollection, listed_ids
from amberdb.engine.query.page import Record
from amberdb.engine.query.query import Query
from amberdb.engine.schema.patch import Changes
from amberdb.engine.schema.schema import Schema
from amberdb.engine.search.embedding import Embedders
from amberdb.engine.storage.view import schema_of

_T = TypeVar("_T")


@public
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
    def _write(self, work: Work[_T], sync: Sync | None, key: bytes | None) -> _T:
        """Makes one small write, which will read `key`; returns what `work` returns."""

    @abstractmethod
    def _writing(self, sync: Sync | None) -> AbstractContextManager[WriteBatch]:
        """A write batch for one call."""

    def _embedded(self, documents: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """The documents with the vectors that an embedder makes of them. In a transaction the
        documents as they are: no model is called while the writer lock is held."""
        return documents

    def _embedded_but(
        self, documents: list[Mapping[str, Any]], known: frozenset[int]
    ) -> list[Mapping[str, Any]]:
        """The documents with their vectors, but for those at the `known` positions."""
        new = [each for position, each in enumerate(documents) if position not in known]
        embedded = iter(self._embedded(new))
        return [
            each if position in known else next(embedded) for position, each in enumerate(documents)
        ]

    def _unembedded(self, documents: Sequence[Mapping[str, Any]]) -> frozenset[int]:
        """The positions of documents that need no vectors where existing ones are kept."""
        return frozenset()

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

        def work(writer: WriteBatch) -> str:
            current = schema_of(writer.view, self.name)
            new = prepared if current is schema else current.prepare(document)
            writer.put(current, new, on_conflict="raise" if insert else "replace")
            return new.id

        return self._write(work, sync, None if prepared.fresh else prepared.key)

    def put_many(
        self,
        documents: Iterable[Mapping[str, Any]],
        *,
        on_conflict: OnConflict = "replace",
        sync: Sync | None = None,
    ) -> list[str]:
        """Stores documents in one commit, all or none; returns their ids in the same order.

            ids = events.put_many([{"content": "one"}, {"content": "two"}])

        on_conflict  where a document with the id exists: "replace" it, "keep" it and store nothing
                     for this id, or "raise" DuplicateKeyError

        All documents are in memory at once, and one commit holds at most
        `transaction_bytes_max` (256 MiB): store more in several calls. Of documents with the same
        "id" the last one stays; with "keep" the first.

        Raises what put() raises, and TransactionTooLargeError. In a transaction the documents
        before the failing one are already part of it: let the error leave the `with` block.
        """
        if on_conflict not in ON_CONFLICT:
            raise QueryError(f"on_conflict is one of {ON_CONFLICT}, not {on_conflict!r}")
        listed = list(documents)
        known = self._unembedded(listed) if on_conflict == "keep" else frozenset[int]()
        ids = self._put_many(self._embedded_but(listed, known), known, on_conflict, sync)
        if ids is None:
            ids = self._put_many(self._embedded(listed), frozenset(), on_conflict, sync)
            assert ids is not None
        return ids

    def _put_many(
        self,
        documents: Sequence[Mapping[str, Any]],
        known: frozenset[int],
        on_conflict: OnConflict,
        sync: Sync | None,
    ) -> list[str] | None:
        """put_many(), where the documents at the `known` positions have no vectors, since there are
        documents with their ids. None when one is not there any more; then nothing is stored."""
        schema = self._schema()
        if not documents:
            return []
        prepared = [schema.prepare(each) for each in documents]
        with self._writing(sync) as writer:
            current = schema_of(writer.view, self.name)
            if current is not schema:
                prepared = [current.prepare(each.document) for each in prepared]
            writer.expect(current, prepared)
            if not all(writer.has(current, prepared[position]) for position in known):
                return None
            for each in prepared:
                writer.put(current, each, on_conflict=on_conflict)
        return [each.id for each in prepared]

    def put_records(self, records: Iterable[Record], *, sync: Sync | None = None) -> list[str]:
        """Stores documents as another database has them, with their times of creation and of the
        last write; in one commit, all or none. Returns their ids in the same order.

            copy["event"].put_records(db["event"].find(limit=500, records=True))

        A document that is there is replaced. Versions are of this database. No embedder is called:
        a document without a vector waits for embed_missing().

        Raises what put_many() raises, and InvalidDocumentError for a record without its whole
        document.
        """
        listed = list(records)
        times = [times_us(each) for each in listed]
        schema = self._schema()
        prepared = [schema.prepare(each.document) for each in listed]
        with self._writing(sync) as writer:
            current = schema_of(writer.view, self.name)
            if current is not schema:
                prepared = [current.prepare(each.document) for each in prepared]
            writer.expect(current, prepared)
            for new, (created_us, updated_us) in zip(prepared, times, strict=True):
                writer.restore(current, new, created_us, updated_us)
        return [each.id for each in prepared]

    def update(
        self,
        id: str,
        patch: Patch,
        *,
        if_version: int | None = None,
        sync: Sync | None = None,
    ) -> Lsn:
        """Changes a stored document; returns its new version, an Lsn.

            events.update("a", {"done": True, "place": {"city": "Hangzhou"}, "old": REMOVE})
            events.update("a", {"place.zip": "310000", "$inc": {"views": 1}})

        A map in the patch is merged recursively, any other value replaces the field; None stores
        None; amberdb.REMOVE deletes the field. A name is a path, as in filters. The id cannot be
        changed. Operators take maps of paths (docs/queries.md):

        $set    replaces the value, as it is     $inc   adds a number, to 0 where there is none
        $unset  deletes the field                $push  appends to a list, {"$each": [...]} several
        $max    replaces a smaller value

        if_version  the version that the document must still have (record(id).version)

        Raises MissingKeyError when there is no such document, ConflictError when it is at another
        version, InvalidDocumentError for another `$name`, for a path through a list, or for two
        changes of one field, and what put() raises.
        """
        changes = Changes(patch)
        if self._embedders().of(self.name):
            (embedded,) = self._embedded([changes.assigned()])
            changes = self._embedders().patched(self.name, changes, embedded)

        def work(writer: WriteBatch) -> Lsn:
            writer.update(schema_of(writer.view, self.name), id, changes, if_version)
            return Lsn(writer.lsn)

        return self._write(work, sync, self._schema().key(id))

    def delete(self, id: str, *, sync: Sync | None = None) -> bool:
        """Deletes a document; returns whether it existed."""

        def work(writer: WriteBatch) -> bool:
            return writer.delete(schema_of(writer.view, self.name), id)

        return self._write(work, sync, self._schema().key(id))

    def __delitem__(self, id: str) -> None:
        """Deletes a document: del events["a"]. Raises MissingKeyError."""
        if not self.delete(id):
            raise missing(self.name, id)

    def delete_many(
        self,
        where: Where | None = None,
        *,
        ids: Iterable[str] | None = None,
        sync: Sync | None = None,
    ) -> int:
        """Deletes the documents of a filter, or of ids, in one commit; returns their number.

            events.delete_many({"entity_id": "lin"})
            events.delete_many(ids=["a", "b"])

        `{}` matches all. Documents that have expired are not among them: they do not match
        anything. Raises QueryError, TransactionTooLargeError.
        """
        if (where is None) == (ids is None):
            raise QueryError("delete_many() takes a filter, or ids: give one of them; {} is all")
        listed = None if ids is None else listed_ids(ids)
        with self._writing(sync) as writer:
            schema = schema_of(writer.view, self.name)
            if listed is not None:
                return sum(writer.delete(schema, id) for id in listed)
            writer.save_counters()  # the query sees what the transaction has written
            _, found = Query.of(schema, where).stored(writer.view)
            return writer.remove(schema, (stored for _, stored in found))

    def touch(
        self,
        ids: Iterable[str],
        until: datetime | float | None,
        *,
        sync: Sync | None = None,
    ) -> int:
        """Sets when documents expire, in one commit; returns how many of them there were.

            sessions.touch([id], datetime.now(UTC) + timedelta(minutes=20))   # sliding expiry

        until  an aware datetime, epoch seconds, or None: permanent

        It changes the `expires_at` field of the collection, and nothing else of a document. Ids
        that are missing, or have expired, are passed over. Raises CollectionError when the
        collection has no `expires_at`, InvalidDocumentError.
        """
        listed = listed_ids(ids)
        with self._writing(sync) as writer:
            schema = schema_of(writer.view, self.name)
            if schema.expires_at is None:
                raise CollectionError(
                    f"the documents of {self.name!r} do not expire: declare the collection with "
                    "expires_at, the field that says when"
                )
            change = Changes.setting(schema.expires_at, until)
            return sum(writer.update_if_there(schema, id, change) for id in listed)


def times_us(record: Record) -> tuple[int, int]:
    """The times of a record. Raises InvalidDocumentError for one that cannot be stored."""
    if not isinstance(record, Record):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidDocumentError("put_records() takes records, as find(records=True) gives them")
    if record.document.get("id") != record.id:
        raise InvalidDocumentError(
            f"the record of {record.id!r} has a part of the document: read it without fields="
        )
    if record.created_at.tzinfo is None or record.updated_at.tzinfo is None:
        raise InvalidDocumentError(f"the record of {record.id!r} has a time without a zone")
    return microseconds(record.created_at), microseconds(record.updated_at)
