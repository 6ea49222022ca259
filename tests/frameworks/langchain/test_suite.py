"""The suites of langchain-tests, over AmberDB."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.caches import BaseCache
from langchain_core.indexing import DocumentIndex
from langchain_core.stores import BaseStore
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import (
    AsyncCacheTestSuite,
    BaseStoreAsyncTests,
    BaseStoreSyncTests,
    SyncCacheTestSuite,
    VectorStoreIntegrationTests,
)
from langchain_tests.integration_tests.indexer import (
    AsyncDocumentIndexTestSuite,
    DocumentIndexerTestSuite,
)

from amberdb.integrations.langchain import (
    AmberByteStore,
    AmberCache,
    AmberDocumentIndex,
    AmberVectorStore,
)


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[VectorStore]:
        store = AmberVectorStore(tmp_path / "db", self.get_embeddings())
        yield store
        store.close()


class _Bytes:
    @pytest.fixture
    def kv_store(self, tmp_path: Path) -> Iterator[BaseStore[str, bytes]]:
        store = AmberByteStore(tmp_path / "db")
        yield store
        store.close()

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return (b"foo", b"bar", b"buzz")


class TestByteStore(_Bytes, BaseStoreSyncTests[bytes]):
    pass


class TestByteStoreAsync(_Bytes, BaseStoreAsyncTests[bytes]):
    pass


class _Cache:
    @pytest.fixture
    def cache(self, tmp_path: Path) -> Iterator[BaseCache]:
        cache = AmberCache(tmp_path / "db")
        yield cache
        cache.close()


class TestCache(_Cache, SyncCacheTestSuite):
    pass


class TestCacheAsync(_Cache, AsyncCacheTestSuite):
    pass


class _Index:
    @pytest.fixture
    def index(self, tmp_path: Path) -> Iterator[DocumentIndex]:
        index = AmberDocumentIndex(tmp_path / "db")
        yield index
        index.close()


class TestDocumentIndex(_Index, DocumentIndexerTestSuite):
    pass


class TestDocumentIndexAsync(_Index, AsyncDocumentIndexTestSuite):
    pass
