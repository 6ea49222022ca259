"""The suites that Haystack brings for document stores, all of them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from haystack.dataclasses import Document
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.testing import document_store as sync_suite
from haystack.testing import document_store_async as async_suite

from amberdb.integrations.haystack import AmberDocumentStore


class Compared:
    """Documents come in the order of their ids, and the numbers of an embedding as float32."""

    @staticmethod
    def assert_documents_are_equal(received: list[Document], expected: list[Document]) -> None:
        assert _plain(received) == _plain(sorted(expected, key=lambda each: each.id))


def _plain(documents: list[Document]) -> list[dict[str, object]]:
    plain = [document.to_dict(flatten=False) for document in documents]
    for each in plain:
        if each["embedding"] is not None:
            each["embedding"] = np.float32(each["embedding"]).tolist()
    return plain


@pytest.fixture
def document_store(tmp_path: Path) -> Iterator[AmberDocumentStore]:
    store = AmberDocumentStore(tmp_path / "haystack.amber")
    yield store
    store.close()


class TestBlocking(
    Compared,
    sync_suite.DocumentStoreBaseExtendedTests,
    sync_suite.CountDocumentsByFilterTest,
    sync_suite.CountUniqueMetadataByFilterTest,
    sync_suite.GetMetadataFieldsInfoTest,
    sync_suite.GetMetadataFieldMinMaxTest,
    sync_suite.GetMetadataFieldUniqueValuesTest,
):
    @pytest.fixture
    def document_store(self, tmp_path: Path) -> Iterator[AmberDocumentStore]:
        store = AmberDocumentStore(tmp_path / "haystack.amber")
        yield store
        store.close()

    def test_write_documents(self, document_store: AmberDocumentStore) -> None:
        document = Document(content="test doc")
        assert document_store.write_documents([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([document])
        self.assert_documents_are_equal(document_store.filter_documents(), [document])


class TestAsync(
    Compared,
    async_suite.CountDocumentsAsyncTest,
    async_suite.WriteDocumentsAsyncTest,
    async_suite.DeleteDocumentsAsyncTest,
    async_suite.FilterDocumentsAsyncTest,
    async_suite.DeleteAllAsyncTest,
    async_suite.DeleteByFilterAsyncTest,
    async_suite.UpdateByFilterAsyncTest,
    async_suite.CountDocumentsByFilterAsyncTest,
    async_suite.CountUniqueMetadataByFilterAsyncTest,
    async_suite.GetMetadataFieldsInfoAsyncTest,
    async_suite.GetMetadataFieldMinMaxAsyncTest,
    async_suite.GetMetadataFieldUniqueValuesAsyncTest,
):
    async def test_write_documents_async(self, document_store: AmberDocumentStore) -> None:
        document = Document(content="test doc")
        assert await document_store.write_documents_async([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            await document_store.write_documents_async([document])
        self.assert_documents_are_equal(await document_store.filter_documents_async(), [document])
