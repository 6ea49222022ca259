"""LangChain's document index: documents that are found by their words (DocumentIndex).

Invariants:
- What upsert() was given is found by the next search: all of it or, after an error, none.
"""

from collections.abc import Sequence
from typing import Any, final

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.indexing import DeleteResponse, DocumentIndex, UpsertResponse
from pydantic import PrivateAttr

from amberdb import Collection, IndexSpec, Text
from amberdb.integrations.langchain.documents import (
    FIELDS,
    OWNER,
    Filter,
    declared,
    document_of,
    documents_of,
    refuse_others,
    row_of,
    where_of,
)
from amberdb.integrations.opened import DatabaseOrPath, Opened
from amberdb.integrations.threads import in_thread, twin


@final
class AmberDocumentIndex(DocumentIndex):
    """Documents in a collection, and a retriever of them by BM25.

        index = AmberDocumentIndex("memory.amber")
        index.upsert([Document("the umbrella is in the car", metadata={"user": "lin"})])
        index.invoke("umbrella", filter={"user": "lin"})

    k         how many documents a search returns
    language  of stemming and stop words (docs/search.md)
    indexes   further indexes, as Ordered("metadata.user"); None: those that are declared stay

    Raises OpenError, and CollectionError for a collection that is another system's.
    """

    k: int = 4
    _opened: Opened = PrivateAttr()
    _collection: Collection = PrivateAttr()

    def __init__(
        self,
        db: DatabaseOrPath,
        *,
        k: int = 4,
        language: str = "english",
        indexes: Sequence[IndexSpec] | None = None,
        name: str = "langchain_index",
        **fields: Any,
    ) -> None:
        given: dict[str, Any] = {"k": k, **fields}
        super().__init__(**given)
        self._opened = Opened(db)
        with self._opened.closed_on_error() as opened:
            own = [Text("page_content", language=language)]
            self._collection = opened.collection(
                name, indexes=declared(opened, name, own, indexes), owner=OWNER
            )

    def close(self) -> None:
        """Closes the database if it was given as a path."""
        self._opened.close()

    def upsert(self, items: Sequence[Document], /, **kwargs: Any) -> UpsertResponse:
        """Stores documents under their ids, new ones for those without, all or none. Raises
        InvalidDocumentError for metadata that cannot be stored."""
        refuse_others("upsert", kwargs)
        ids = self._collection.put_many([row_of(item) for item in items])
        return UpsertResponse(succeeded=ids, failed=[])

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> DeleteResponse:
        """Deletes documents by id. Raises ValueError without ids."""
        refuse_others("delete", kwargs)
        if ids is None:
            raise ValueError("delete() takes the ids of documents: give ids=[...]")
        with self._opened.db.transaction() as tx:
            collection = tx[self._collection.name]
            done = [id for id in dict.fromkeys(ids) if collection.delete(id)]
        return DeleteResponse(num_deleted=len(done), succeeded=done, num_failed=0, failed=[])

    def get(self, ids: Sequence[str], /, **kwargs: Any) -> list[Document]:
        """Those of the documents that exist, in the order of their ids."""
        refuse_others("get", kwargs)
        return documents_of(self._collection.get_many(ids))

    aupsert = twin("write", upsert)
    adelete = twin("write", delete)
    aget = twin("read", get)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun | None = None,
        k: int | None = None,
        filter: Filter | None = None,
    ) -> list[Document]:
        hits = self._collection.search(
            query,
            where=where_of(filter),
            limit=self.k if k is None else k,
            fields=FIELDS,
        )
        return [document_of(hit.document) for hit in hits]

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun | None = None,
        k: int | None = None,
        filter: Filter | None = None,
    ) -> list[Document]:
        return await in_thread("read", self._get_relevant_documents, query, k=k, filter=filter)
