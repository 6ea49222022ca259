"""Behaviour that Haystack's suites do not ask for."""

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from haystack import Pipeline
from haystack.dataclasses import ByteStream, Document, SparseEmbedding
from haystack.document_stores.errors import DocumentStoreError, DuplicateDocumentError
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError

import amberdb
from amberdb.integrations.haystack import (
    AmberBM25Retriever,
    AmberDocumentStore,
    AmberEmbeddingRetriever,
    AmberHybridRetriever,
)

PAGE = Path(__file__).parents[3] / "docs" / "integrations" / "haystack.md"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "haystack.amber"


@pytest.fixture
def store(path: Path) -> Iterator[AmberDocumentStore]:
    store = AmberDocumentStore(path, embedding_dimension=2, meta_fields=["kind", "at"])
    yield store
    store.close()


def ids(documents: list[Document]) -> list[str]:
    return [document.id for document in documents]


def test_sample_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    section = PAGE.read_text(encoding="utf-8")
    sample = re.search(r"^```python\n(.*?)^```$", section, re.M | re.S)
    assert sample is not None
    exec(compile(sample[1], str(PAGE), "exec"), {"__name__": "sample"})


def test_a_document_comes_back_whole(store: AmberDocumentStore) -> None:
    document = Document(
        id="a",
        content="下午的会议",
        blob=ByteStream(b"\x00\xff", meta={"page": 1}, mime_type="image/png"),
        meta={"a.b": [1, {"$x": None}], "": True, "at": datetime(2026, 1, 2, tzinfo=UTC)},
        score=0.5,
        embedding=[0.5, 0.25],
        sparse_embedding=SparseEmbedding([3, 7], [0.5, 2.0]),
    )
    store.write_documents([document])
    assert store.filter_documents() == [document]
    assert document.meta["a.b"] == [1, {"$x": None}]


def test_documents_are_there_after_a_close(path: Path) -> None:
    store = AmberDocumentStore(path, embedding_dimension=2)
    store.write_documents([Document(id="a", content="one")])
    store.close()
    store.close()
    with pytest.raises(amberdb.ClosedError):
        store.count_documents()
    again = AmberDocumentStore.from_dict(store.to_dict())
    assert ids(again.filter_documents()) == ["a"]
    again.close()


def test_a_database_of_the_program_stays_open() -> None:
    with amberdb.open(":memory:") as db:
        AmberDocumentStore(db).close()
        assert db.collections() == ["haystack_documents"]


def test_two_stores_of_one_path_see_each_other(path: Path, store: AmberDocumentStore) -> None:
    other = AmberDocumentStore(path, embedding_dimension=2, meta_fields=["kind", "at"])
    other.write_documents([Document(id="a", content="one")])
    assert ids(store.filter_documents()) == ["a"]
    other.close()
    assert store.count_documents() == 1


def test_a_collection_of_somebody_else_is_refused() -> None:
    with amberdb.open(":memory:") as db:
        db.collection("mine", indexes=[], owner="me")
        with pytest.raises(DocumentStoreError, match="mine"):
            AmberDocumentStore(db, collection="mine")


@pytest.mark.parametrize(
    "document",
    [
        Document(id="x" * 1000),
        Document(id="a", meta={"n": 2**70}),
        Document(id="a", meta={"at": datetime(2026, 1, 1)}),
        Document(id="a", embedding=[1.0]),
        Document(id="a", embedding=[0.0, 0.0]),
    ],
)
def test_of_a_list_with_a_bad_document_none_is_stored(
    store: AmberDocumentStore, document: Document
) -> None:
    with pytest.raises(DocumentStoreError):
        store.write_documents([Document(id="b"), document])
    assert store.count_documents() == 0


def test_policies_within_one_list(store: AmberDocumentStore) -> None:
    twice = [Document(id="a", content="1"), Document(id="a", content="2"), Document(id="b")]
    with pytest.raises(DuplicateDocumentError):
        store.write_documents(twice)
    assert store.count_documents() == 0
    assert store.write_documents(twice, DuplicatePolicy.SKIP) == 2
    assert store.filter_documents()[0].content == "1"
    assert store.write_documents(twice, DuplicatePolicy.OVERWRITE) == 3
    assert store.filter_documents()[0].content == "2"


@pytest.mark.parametrize(
    "filters",
    [
        {"field": "meta.at", "operator": "between", "value": 1},
        {"operator": "XOR", "conditions": []},
        {"operator": "AND", "conditions": {}},
        {"operator": "AND", "conditions": ["x"]},
        {"field": 1, "operator": "==", "value": 1},
        {"field": "embedding", "operator": "==", "value": [1.0, 2.0]},
        {"field": "content", "operator": ">", "value": "2026-01-01"},
        {"field": "meta.n", "operator": "==", "value": float("nan")},
    ],
)
def test_a_bad_filter_is_a_filter_error(store: AmberDocumentStore, filters: object) -> None:
    with pytest.raises(FilterError):
        store.filter_documents(filters)
    nested = filters
    for _ in range(40):
        nested = {"operator": "NOT", "conditions": [nested]}
    with pytest.raises(FilterError):
        store.filter_documents(nested)


def test_an_empty_filter_neither_deletes_nor_updates(store: AmberDocumentStore) -> None:
    store.write_documents([Document(id="a")])
    for call in (store.delete_by_filter, lambda some: store.update_by_filter(some, {"x": 1})):
        with pytest.raises(FilterError):
            call({})
    assert store.filter_documents() == [Document(id="a")]


TIMES = {
    "a": "2026-01-01",
    "b": "2026-01-01T01:00:00+01:00",
    "c": "2026-01-01 12:00:00",
    "d": "2026-01-02T00:00:00.5Z",
    "e": "tomorrow",
    "f": None,
}


@pytest.mark.parametrize("operator", ["==", "!=", ">", ">=", "<", "<="])
@pytest.mark.parametrize(
    "value", ["2026-01-01T00:00Z", "2026-01-01T12:00:00Z", "2026-01-02T00:00:00"]
)
def test_times_are_compared_as_times(store: AmberDocumentStore, operator: str, value: str) -> None:
    # Haystack's own store raises for a text that is no time where others are compared by order.
    wanted = [id for id in TIMES if operator in ("==", "!=") or id not in ("e",)]
    documents = [Document(id=id, meta={"at": TIMES[id]}) for id in wanted]
    store.write_documents(documents)
    peer = InMemoryDocumentStore()
    peer.write_documents(documents)
    for filters in (
        {"field": "meta.at", "operator": operator, "value": value},
        {"operator": "NOT", "conditions": [{"field": "at", "operator": "in", "value": [value]}]},
    ):
        assert ids(store.filter_documents(filters)) == sorted(ids(peer.filter_documents(filters)))


def test_a_time_at_the_end_of_the_calendar_is_a_text(store: AmberDocumentStore) -> None:
    store.write_documents([Document(id="a", meta={"at": "0001-01-01T00:00:00+14:00"})])
    of = {"field": "meta.at", "operator": "==", "value": "0001-01-01T00:00:00+14:00"}
    assert ids(store.filter_documents(of)) == ["a"]


def test_an_update_sets_times_too(store: AmberDocumentStore) -> None:
    store.write_documents(
        [Document(id="a", meta={"at": "2026-01-01", "kind": "x"}, embedding=[1.0, 0.0])]
    )
    since = {"field": "meta.at", "operator": ">", "value": "2026-02-01"}
    assert store.filter_documents(since) == []
    of = {"field": "meta.kind", "operator": "==", "value": "x"}
    assert store.update_by_filter(of, {"at": "2026-03-01T00:00:00"}) == 1
    (found,) = store.filter_documents(since)
    assert (found.meta["kind"], found.embedding) == ("x", [1.0, 0.0])


def test_retrieval(store: AmberDocumentStore) -> None:
    store.write_documents(
        [
            Document(id="a", content="The umbrella is in the café.", embedding=[1.0, 0.0]),
            Document(id="b", content="下午在公司开会，讨论雨伞", embedding=[0.0, 1.0]),
            Document(id="c", meta={"kind": "empty"}),
        ]
    )
    assert ids(store.bm25_retrieval("雨伞")) == ["b"]
    (found,) = store.bm25_retrieval("where's the \"umbrella??", scale_score=True)
    assert found.id == "a"
    assert found.embedding is None
    assert 0.5 < (found.score or 0) < 1
    near = store.embedding_retrieval([0.9, 0.1], scale_score=True, return_embedding=True)
    assert ids(near) == ["a", "b"]
    assert near[0].embedding == [1.0, 0.0]
    assert 0 <= (near[1].score or -1) < (near[0].score or -1) <= 1
    of = {"field": "content", "operator": "!=", "value": None}
    assert ids(store.hybrid_retrieval("umbrella", [0.0, 1.0], of, top_k=5)) == ["a", "b"]
    assert store.bm25_retrieval("umbrella", top_k=0) == []
    with pytest.raises(ValueError, match="2"):
        store.embedding_retrieval([1.0])
    with pytest.raises(ValueError, match="query"):
        store.bm25_retrieval("")


@pytest.mark.parametrize("similarity", ["dot_product", "l2"])
def test_scores_of_other_similarities(similarity: str) -> None:
    with amberdb.open(":memory:") as db:
        store = AmberDocumentStore(db, embedding_dimension=2, similarity=similarity)
        store.write_documents(
            [Document(id="a", embedding=[2.0, 0.0]), Document(id="b", embedding=[0.0, -9.0])]
        )
        found = store.embedding_retrieval([1.0, 0.0], scale_score=True)
        assert ids(found) == ["a", "b"]
        assert all(0 <= (document.score or 0) <= 1 for document in found)
        store.close()


def test_metadata_of_lists_maps_and_times(store: AmberDocumentStore) -> None:
    metas = [{"v": [1, 2]}, {"v": [1, 2]}, {"v": {"b": 1}}, {"v": None}, {}, {"v": "Äpfel"}]
    store.write_documents([Document(id=f"{n}", meta=meta) for n, meta in enumerate(metas)])
    values, count = store.get_metadata_field_unique_values("v")
    assert count == 3
    assert [1, 2] in values
    assert store.get_metadata_field_unique_values("meta.v", search_term="äpf") == (["Äpfel"], 1)


def test_tasks_write_and_read_side_by_side(store: AmberDocumentStore) -> None:
    async def one(number: int) -> int:
        await store.write_documents_async([Document(id=f"{number:02}", content=f"会议 {number}")])
        return len(await store.bm25_retrieval_async("会议", top_k=100))

    async def every() -> list[int]:
        return await asyncio.gather(*(one(number) for number in range(40)))

    assert max(asyncio.run(every())) == 40
    assert asyncio.run(store.count_documents_async()) == 40


def test_pipelines(path: Path, store: AmberDocumentStore) -> None:
    store.write_documents(
        [Document(id="a", content="umbrella", embedding=[1.0, 0.0], meta={"kind": "x"})]
    )
    pipeline = Pipeline()
    pipeline.add_component("words", AmberBM25Retriever(store, top_k=3))
    pipeline.add_component("near", AmberEmbeddingRetriever(store))
    pipeline.add_component("both", AmberHybridRetriever(store))
    text = pipeline.dumps()
    again = Pipeline.loads(text, allowed_modules=["amberdb.integrations.haystack.*"])
    given = {
        "words": {"query": "umbrella"},
        "near": {"query_embedding": [1.0, 0.0]},
        "both": {"query": "umbrella", "query_embedding": [1.0, 0.0]},
    }
    for each in (pipeline, again):
        found = each.run(given)
        assert {name: ids(result["documents"]) for name, result in found.items()} == {
            "words": ["a"],
            "near": ["a"],
            "both": ["a"],
        }
    for name in ("words", "near", "both"):
        again.get_component(name).document_store.close()


def test_retrievers_check_what_they_are_given(store: AmberDocumentStore) -> None:
    with pytest.raises(TypeError, match="AmberDocumentStore"):
        AmberBM25Retriever(InMemoryDocumentStore())
    with pytest.raises(ValueError, match="top_k"):
        AmberBM25Retriever(store, top_k=0)
    store.write_documents([Document(id="a", content="x"), Document(id="b", content="x")])
    of = {"field": "id", "operator": "==", "value": "b"}
    retriever = AmberBM25Retriever(store, filters=of)
    found = asyncio.run(retriever.run_async("x"))
    assert ids(found["documents"]) == ["b"]
