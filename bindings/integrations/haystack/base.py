"""The collection of a document store: writing, counting, filtering and deleting documents.

Invariants:
- A call that writes is one commit, all or nothing.
- Without a policy an id that exists is an error, as with DuplicatePolicy.FAIL.
- Documents are returned in the order of their ids.
- Errors are Haystack's: FilterError, DuplicateDocumentError, DocumentStoreError.
"""

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal, TypeAlias, cast

from haystack.dataclasses import Document
from haystack.document_stores.errors import DocumentStoreError, DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError

from amberdb import (
    CollectionError,
    Database,
    DocumentError,
    DuplicateKeyError,
    IndexSpec,
    Ordered,
    Text,
    Vector,
)
from amberdb.integrations.haystack.documents import dates_of, loaded, stored
from amberdb.integrations.haystack.filters import Filter, filter_errors, meta_path, where_of
from amberdb.integrations.opened import DatabaseOrPath, Opened
from amberdb.integrations.threads import awaited

Similarity: TypeAlias = Literal["cosine", "dot_product", "l2"]
Filters: TypeAlias = "dict[str, Any] | None"

OWNER: Final = "amberdb.integrations.haystack"
_METRICS: Final[dict[Similarity, Literal["cosine", "ip", "l2"]]] = {
    "cosine": "cosine",
    "dot_product": "ip",
    "l2": "l2",
}


class Documents:
    """Documents in a collection of their own; see AmberDocumentStore."""

    def __init__(
        self,
        database: DatabaseOrPath,
        *,
        collection: str = "haystack_documents",
        embedding_dimension: int = 768,
        similarity: Similarity = "cosine",
        meta_fields: Sequence[str] = (),
        language: str = "english",
    ) -> None:
        if similarity not in _METRICS:
            raise ValueError(f"similarity must be one of {', '.join(_METRICS)}, not {similarity!r}")
        if isinstance(meta_fields, str):
            raise ValueError(f"meta_fields must be a list: give [{meta_fields!r}]")
        self.parameters = {
            "collection": collection,
            "embedding_dimension": embedding_dimension,
            "similarity": similarity,
            "meta_fields": list(meta_fields),
            "language": language,
        }
        self.similarity: Similarity = similarity
        self.embedding_dimension = embedding_dimension
        paths = [meta_path(field)[1:] for field in meta_fields]
        indexes: list[IndexSpec] = [
            Text("content", language=language),
            Vector("embedding", dim=embedding_dimension, metric=_METRICS[similarity]),
            *(Ordered(("meta", *path)) for path in paths),
            *(Ordered(("dates", *path), sparse=True) for path in paths),
        ]
        self._opened = Opened(database)
        with self._opened.closed_on_error() as db, _store_errors():
            self.documents = db.collection(collection, indexes=indexes, owner=OWNER)

    @property
    def database(self) -> Database:
        """The database of the documents."""
        return self._opened.db

    def close(self) -> None:
        """Closes the database if it was given as a path. May be called twice."""
        self._opened.close()

    def count_documents(self) -> int:
        """How many documents there are."""
        return len(self.documents)

    def filter_documents(self, filters: Filters = None) -> list[Document]:
        """The documents that match, in the order of their ids. Raises FilterError."""
        where = where_of(filters)
        with filter_errors():
            return [loaded(document) for document in self.documents.find(where, order_by="id")]

    def write_documents(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """Stores documents in one commit; returns how many. Raises ValueError,
        DuplicateDocumentError, DocumentStoreError for one that cannot be stored."""
        new = [stored(document) for document in _checked(documents)]
        with _store_errors():
            if policy is DuplicatePolicy.OVERWRITE:
                self.documents.put_many(new)
                return len(new)
            if policy is not DuplicatePolicy.SKIP:
                self.documents.put_many(new, on_conflict="raise")
                return len(new)
            with self.database.transaction() as tx:
                into = tx[self.documents.name]
                first: dict[str, dict[str, Any]] = {}
                for document in new:
                    if document["id"] not in into:
                        first.setdefault(document["id"], document)
                into.put_many(first.values())
            return len(first)

    def delete_documents(self, document_ids: list[str]) -> None:
        """Deletes the documents of these ids; one that does not exist is passed over."""
        if isinstance(document_ids, str):
            raise ValueError(f"document_ids must be a list: give [{document_ids!r}]")
        with _store_errors():
            self.documents.delete_many(ids=document_ids)

    def delete_all_documents(self) -> None:
        """Deletes all documents."""
        self.documents.delete_many({})

    def delete_by_filter(self, filters: dict[str, Any]) -> int:
        """Deletes the documents that match; returns how many. Raises FilterError, also for an
        empty filter."""
        where = _some(filters)
        with filter_errors():
            return self.documents.delete_many(where)

    def update_by_filter(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """Sets metadata fields of the documents that match; returns how many. Raises FilterError,
        also for an empty filter, and DocumentStoreError."""
        where = _some(filters)
        with filter_errors(), _store_errors(), self.database.transaction() as tx:
            documents = tx[self.documents.name]
            found = documents.find(where, fields=["id", "meta"])
            for document in found:
                merged = {**document["meta"], **meta}
                changes = {"$set": {"meta": merged, "dates": dates_of(merged)}}
                documents.update(document["id"], changes)
            return len(found)

    def count_documents_by_filter(self, filters: Filters) -> int:
        """How many documents match. Raises FilterError."""
        where = where_of(filters)
        with filter_errors():
            return self.documents.count(where)

    # -- for an event loop -------------------------------------------------------------------

    count_documents_async = awaited("read", count_documents)
    filter_documents_async = awaited("read", filter_documents)
    write_documents_async = awaited("write", write_documents)
    delete_documents_async = awaited("write", delete_documents)
    delete_all_documents_async = awaited("write", delete_all_documents)
    delete_by_filter_async = awaited("write", delete_by_filter)
    update_by_filter_async = awaited("write", update_by_filter)
    count_documents_by_filter_async = awaited("read", count_documents_by_filter)


@contextmanager
def _store_errors() -> Generator[None]:
    """Errors of documents and collections are raised as Haystack's."""
    try:
        yield
    except DuplicateKeyError as error:
        raise DuplicateDocumentError(str(error)) from error
    except (CollectionError, DocumentError) as error:
        raise DocumentStoreError(str(error)) from error


def _checked(documents: object) -> list[Document]:
    """Raises ValueError for anything but documents."""
    if not isinstance(documents, Iterable) or isinstance(documents, str):
        raise ValueError(f"a list of Documents is needed, not {documents!r}")
    checked = list(cast(Iterable[object], documents))
    for document in checked:
        if not isinstance(document, Document):
            raise ValueError(f"a list of Documents is needed, and {document!r} is none")
    return cast(list[Document], checked)


def _some(filters: Filters) -> Filter:
    """A filter with conditions. Raises FilterError."""
    where = where_of(filters)
    if not where:
        raise FilterError("a filter is needed: delete_all_documents() is for all documents")
    return where
