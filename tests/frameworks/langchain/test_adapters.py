"""The adapters for LangChain: what its suites do not ask."""

import asyncio
import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation

import amberdb
from amberdb import ClosedError, CollectionError, InvalidDocumentError, Ordered, QueryError
from amberdb.integrations.langchain import (
    AmberByteStore,
    AmberCache,
    AmberChatMessageHistory,
    AmberDocumentIndex,
    AmberVectorStore,
)

PAGE = Path(__file__).parents[3] / "docs" / "integrations" / "langchain.md"


class Compass(Embeddings):
    """Vectors of dimension 3: how often a text has a, b and c."""

    def embed_query(self, text: str) -> list[float]:
        return [text.count("a") + 0.1, text.count("b") + 0.1, text.count("c") + 0.1]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


@pytest.fixture
def db() -> Iterator[amberdb.Database]:
    with amberdb.open(":memory:") as db:
        yield db


@pytest.fixture
def store(db: amberdb.Database) -> AmberVectorStore:
    return AmberVectorStore(db, Compass())


def texts(found: list[Document]) -> list[str]:
    return [document.page_content for document in found]


# -- vector store ------------------------------------------------------------------------------


@pytest.fixture
def filled(store: AmberVectorStore) -> AmberVectorStore:
    metadatas = [
        {"user": "lin", "page": 1, "place": {"city": "Oslo"}, "a.b": "x"},
        {"user": "lin", "page": 2, "place": {"city": "Rome"}},
        {"user": "wu", "page": 3, "tags": ["work", "home"]},
    ]
    store.add_texts(["aaa", "bbb", "ccc"], metadatas, ids=["1", "2", "3"])
    return store


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        (None, {"1", "2", "3"}),
        ({}, {"1", "2", "3"}),
        ({"user": "lin"}, {"1", "2"}),
        ({"user": "lin", "page": {"$gt": 1}}, {"2"}),
        ({"page": {"$in": [1, 3]}}, {"1", "3"}),
        ({"tags": "work"}, {"3"}),
        ({"place.city": "Oslo"}, {"1"}),
        ({("a.b",): "x"}, {"1"}),
        ({'.["a.b"]': "x"}, {"1"}),
        ({"$or": [{"page": 1}, {"user": "wu"}]}, {"1", "3"}),
        ({"$and": [{"user": "lin"}, {"$not": {"page": 1}}]}, {"2"}),
        ({"page_content": "aaa"}, set()),
    ],
)
def test_a_filter_is_about_the_metadata(
    filled: AmberVectorStore, filter: Any, found: set[str]
) -> None:
    assert {document.id for document in filled.similarity_search("a", 9, filter=filter)} == found
    by_vector = filled.similarity_search_with_score_by_vector([1, 1, 1], 9, filter=filter)
    assert {document.id for document, _ in by_vector} == found
    varied = filled.max_marginal_relevance_search("a", 9, filter=filter)
    assert {document.id for document in varied} == found


@pytest.mark.parametrize(
    "filter",
    [["user"], {"page": {"$near": 1}}, {"$or": {"page": 1}}, {"$not": [{"page": 1}]}, {1: 2}],
)
def test_a_filter_that_is_not_understood_is_an_error(filled: AmberVectorStore, filter: Any) -> None:
    with pytest.raises(QueryError):
        filled.similarity_search("a", filter=filter)


async def test_a_misspelt_argument_is_an_error(filled: AmberVectorStore) -> None:
    with pytest.raises(TypeError, match="filters"):
        filled.similarity_search("a", filters={"user": "lin"})
    with pytest.raises(TypeError, match="filters"):
        await filled.asimilarity_search("a", filters={"user": "lin"})
    with pytest.raises(TypeError, match="where"):
        filled.max_marginal_relevance_search("a", where={})
    with pytest.raises(TypeError, match="id"):
        filled.add_texts(["d"], id=["4"])


def test_scores_are_higher_for_what_is_closer(filled: AmberVectorStore) -> None:
    found = filled.similarity_search_with_score("aaa", 3)
    assert texts([document for document, _ in found])[0] == "aaa"
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    assert found[0][1] == pytest.approx(1)
    relevant = filled.similarity_search_with_relevance_scores("aaa", 3, score_threshold=0.9)
    assert texts([document for document, _ in relevant]) == ["aaa"]


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
async def test_relevance_is_from_0_to_1(db: amberdb.Database, metric: Any) -> None:
    store = AmberVectorStore(db, Compass(), metric=metric)
    store.add_texts(["a" * 9, "b", "c" * 99])
    found = await store.asimilarity_search_with_relevance_scores("a" * 9, 3)
    assert all(0 <= score <= 1 for _, score in found)
    assert len(found) == 3


async def test_words_and_vectors_together(db: amberdb.Database) -> None:
    store = AmberVectorStore(db, DeterministicFakeEmbedding(size=8))
    await store.aadd_texts(["下午三点在手机上开会", "the umbrella is in the car", "雨伞在车里"])
    for found in (
        store.similarity_search_with_relevance_scores("手机", 1, hybrid=True),
        await store.asimilarity_search_with_relevance_scores("手机", 1, hybrid=True),
    ):
        assert texts([document for document, _ in found]) == ["下午三点在手机上开会"]
        assert 0 <= found[0][1] <= 1
        assert found == store.similarity_search_with_score("手机", 1, hybrid=True)
    retriever = store.as_retriever(search_kwargs={"k": 1, "hybrid": True})
    assert texts(retriever.invoke("umbrella")) == ["the umbrella is in the car"]


def test_marginal_relevance_passes_over_what_is_alike(store: AmberVectorStore) -> None:
    store.add_texts(["aaaa", "aaa", "aab"])
    assert texts(store.similarity_search("aaaa", 2)) == ["aaaa", "aaa"]
    found = store.max_marginal_relevance_search("aaaa", 2, lambda_mult=0.1)
    assert texts(found) == ["aaaa", "aab"]
    assert texts(store.max_marginal_relevance_search("aaaa", 1, fetch_k=0)) == []


def test_a_store_without_texts_is_empty_and_takes_any_dimension(db: amberdb.Database) -> None:
    one, other = AmberVectorStore(db, Compass()), AmberVectorStore(db, Compass())
    assert one.similarity_search("a") == []
    assert one.get_by_ids(["1"]) == []
    assert one.delete(["1"])
    assert one.add_texts([]) == []
    other.add_texts(["a"])
    assert texts(one.similarity_search("a")) == ["a"]  # made by the other one


def test_vectors_of_another_embedder_are_an_error(db: amberdb.Database) -> None:
    store = AmberVectorStore(db, Compass())
    store.add_texts(["a"])
    with pytest.raises(CollectionError, match="metric"):
        AmberVectorStore(db, Compass(), metric="l2")
    with pytest.raises(CollectionError, match="dim"):
        AmberVectorStore(db, Compass(), dim=4)
    longer = AmberVectorStore(db, DeterministicFakeEmbedding(size=4))
    with pytest.raises(InvalidDocumentError, match="3"):
        longer.add_texts(["b"])
    assert texts(store.similarity_search("a", 9)) == ["a"]


def test_indexes_of_the_program_stay(db: amberdb.Database) -> None:
    own = Ordered("metadata.user")
    AmberVectorStore(db, Compass(), dim=3, indexes=[own])
    AmberVectorStore(db, Compass())
    assert own in db.definition("langchain_vectors").specs
    AmberVectorStore(db, Compass(), indexes=[])
    assert own not in db.definition("langchain_vectors").specs


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"texts": "aaa"}, InvalidDocumentError),
        ({"texts": ["a", 1]}, InvalidDocumentError),
        ({"texts": ["a"], "metadatas": []}, ValueError),
        ({"texts": ["a"], "ids": ["1", "2"]}, ValueError),
        ({"texts": ["a"], "batch_size": 0}, ValueError),
        ({"texts": ["a"], "metadatas": [{"x": object()}]}, InvalidDocumentError),
        ({"texts": ["a"], "ids": ["x" * 481]}, InvalidDocumentError),
    ],
)
def test_bad_texts_store_nothing(store: AmberVectorStore, given: Any, error: type) -> None:
    with pytest.raises(error):
        store.add_texts(**given)
    assert store.similarity_search("a") == []


def test_an_embedder_that_loses_a_text_is_noticed(db: amberdb.Database) -> None:
    class Lossy(Compass):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return super().embed_documents(texts)[1:]

    with pytest.raises(ValueError, match="2 vectors for 3 texts"):
        AmberVectorStore(db, Lossy()).add_texts(["a", "b", "c"])


def test_texts_are_embedded_in_batches(db: amberdb.Database) -> None:
    sizes: list[int] = []

    class Counting(Compass):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            sizes.append(len(texts))
            return super().embed_documents(texts)

    ids = AmberVectorStore(db, Counting()).add_texts(iter("abcab"), batch_size=2)
    assert sizes == [2, 2, 1]
    assert len(set(ids)) == 5


def test_all_are_deleted_without_ids(filled: AmberVectorStore) -> None:
    filled.delete([])
    assert len(filled.similarity_search("a", 9)) == 3
    filled.delete()
    assert filled.similarity_search("a", 9) == []


async def test_a_store_is_made_of_texts(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with pytest.raises(InvalidDocumentError):
        AmberVectorStore.from_texts(["a"], Compass(), [{"x": object()}], db=path)
    store = AmberVectorStore.from_texts(["aa"], Compass(), ids=["1"], db=path, name="one")
    same = await AmberVectorStore.afrom_documents(
        [Document("bb", id="2")], Compass(), db=path, name="one"
    )
    assert {document.id for document in store.similarity_search("a")} == {"1", "2"}
    store.close()
    same.close()
    alone = AmberVectorStore.from_texts(["aa"], Compass())
    assert texts(alone.similarity_search("a")) == ["aa"]
    alone.close()


def test_an_index_of_documents_is_kept_up_to_date(store: AmberVectorStore) -> None:
    records = InMemoryRecordManager("docs")
    records.create_schema()
    documents = [Document("aa", metadata={"source": "1"}), Document("bb", metadata={"source": "2"})]

    def update(documents: list[Document]) -> dict[str, int]:
        return dict(
            index(documents, records, store, cleanup="full", source_id_key="source",
                  key_encoder="sha256")
        )  # fmt: skip

    assert update(documents)["num_added"] == 2
    assert update(documents)["num_skipped"] == 2
    assert update(documents[:1])["num_deleted"] == 1
    assert texts(store.similarity_search("b", 9)) == ["aa"]


# -- what all of them have ---------------------------------------------------------------------


def make_all(db: Any) -> list[Any]:
    return [
        AmberVectorStore(db, Compass()),
        AmberByteStore(db),
        AmberCache(db),
        AmberDocumentIndex(db),
        AmberChatMessageHistory("s", db),
    ]


def test_all_of_them_share_one_path_and_are_closed_twice(tmp_path: Path) -> None:
    made = [*make_all(tmp_path / "db"), *make_all(str(tmp_path / "db"))]
    for one in made:
        one.close()
        one.close()
    with pytest.raises(ClosedError):
        made[1].mget(["a"])
    with pytest.raises(ClosedError):
        _ = made[4].messages
    amberdb.check(tmp_path / "db")  # takes the lock: nobody holds it


def test_an_open_database_is_left_open(db: amberdb.Database) -> None:
    for one in make_all(db):
        one.close()
    assert len(db.collections()) == 4  # that of vectors is made with the first one


@pytest.mark.parametrize("number", range(5))
def test_a_collection_of_others_is_refused_and_the_path_closed(tmp_path: Path, number: int) -> None:
    names = ["vectors", "bytes", "cache", "index", "messages"]
    path = tmp_path / "db"
    with amberdb.open(path) as db:
        for name in names:
            db.collection(f"langchain_{name}", owner="another")
    makers: list[Any] = [
        lambda: AmberVectorStore(path, Compass(), dim=3),
        lambda: AmberByteStore(path),
        lambda: AmberCache(path),
        lambda: AmberDocumentIndex(path),
        lambda: AmberChatMessageHistory("s", path),
    ]
    with pytest.raises(CollectionError, match="another"):
        makers[number]()
    amberdb.check(path)


async def test_many_tasks_at_once(db: amberdb.Database) -> None:
    store, values = AmberVectorStore(db, Compass()), AmberByteStore(db)
    history = AmberChatMessageHistory("s", db)
    await asyncio.gather(
        *(store.aadd_texts([f"a{n}"], ids=[str(n)]) for n in range(20)),
        *(values.amset([(f"键{n}", b"%d" % n)]) for n in range(20)),
        *(history.aadd_messages([HumanMessage(f"{n}"), AIMessage(f"{n}")]) for n in range(20)),
    )
    assert len(await store.aget_by_ids([str(n) for n in range(20)])) == 20
    assert len([key async for key in values.ayield_keys(prefix="键")]) == 20
    messages = await history.aget_messages()
    pairs = [(messages[n], messages[n + 1]) for n in range(0, 40, 2)]
    assert all(one.content == other.content for one, other in pairs)
    assert {type(one) for one, _ in pairs} == {HumanMessage}


# -- byte store --------------------------------------------------------------------------------


async def test_keys_of_any_length_have_prefixes(db: amberdb.Database) -> None:
    store = AmberByteStore(db)
    long = "路径/" * 300
    keys = ["a", "a/b", "b", "路", long, long + "x", long + "y", "z" * 400, "z" * 401]
    store.mset([(key, key.encode()) for key in keys])
    assert store.mget(keys) == [key.encode() for key in keys]
    for prefix in [None, "", "a", "路", long, long + "x", "z" * 401, "z" * 402, "q"]:
        expected = sorted(key for key in keys if key.startswith(prefix or ""))
        assert sorted(store.yield_keys(prefix=prefix)) == expected
        assert sorted([key async for key in store.ayield_keys(prefix=prefix)]) == expected
    store.mdelete([long, "a", "missing"])
    assert sorted(store.yield_keys()) == sorted(set(keys) - {long, "a"})


def test_keys_come_in_pages_while_they_are_deleted(db: amberdb.Database) -> None:
    store = AmberByteStore(db)
    keys = [f"{n:04}" for n in range(1200)]
    store.mset([(key, b"") for key in keys])
    seen: list[str] = []
    for key in store.yield_keys():
        seen.append(key)
        store.mdelete([key])
    assert seen == keys
    assert list(store.yield_keys()) == []


@pytest.mark.parametrize("pair", [("", b""), (1, b""), ("a", "text"), ("a", None)])
def test_bad_pairs_store_nothing(db: amberdb.Database, pair: Any) -> None:
    store = AmberByteStore(db)
    with pytest.raises(InvalidDocumentError):
        store.mset([("fine", b""), pair])
    assert list(store.yield_keys()) == []


# -- cache -------------------------------------------------------------------------------------


def test_answers_come_back_as_they_were(db: amberdb.Database) -> None:
    cache = AmberCache(db)
    message = AIMessage(
        "下雨了",
        tool_calls=[{"name": "f", "args": {"x": 10**30}, "id": "1"}],
        usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
    )
    chunk = ChatGenerationChunk(message=AIMessageChunk("part", id="run-1"))
    answers = [ChatGeneration(message=message), Generation(text="\ud83d"), chunk]
    cache.update("p", "m", answers)
    found = cache.lookup("p", "m")
    assert found == answers
    assert [type(each) for each in found or ()] == [type(each) for each in answers]
    assert cache.lookup("m", "p") is None
    assert cache.lookup("", "mp") is None


def test_answers_expire(tmp_path: Path) -> None:
    now = [1_800_000_000.0]
    with amberdb.open(tmp_path / "db", clock=lambda: now[0]) as db:
        cache = AmberCache(db, ttl=timedelta(days=1), clock=lambda: now[0])
        cache.update("p", "m", [Generation(text="x")])
        assert cache.lookup("p", "m") is not None
        now[0] += 86_401
        assert cache.lookup("p", "m") is None
        with pytest.raises(ValueError, match="ttl"):
            AmberCache(db, ttl=timedelta(0))


def test_an_entry_that_cannot_be_read_is_none(db: amberdb.Database) -> None:
    cache = AmberCache(db)
    for text in ["{", '{"kind": "Other"}', '{"kind": "Generation"}']:
        cache.update("p", "m", [Generation(text="x")])
        (document,) = db["langchain_cache"].find()
        db["langchain_cache"].put({**document, "generations": [text]})
        assert cache.lookup("p", "m") is None


# -- chat history ------------------------------------------------------------------------------


def test_messages_come_back_in_order_and_as_they_were(db: amberdb.Database) -> None:
    history = AmberChatMessageHistory("会话 1!", db)
    said = [
        HumanMessage("你好", id="1", additional_kwargs={"n": 10**30}),
        AIMessage("", tool_calls=[{"name": "f", "args": {"$x": {"a.b": [1, 1.0]}}, "id": "c"}]),
        ToolMessage("half \ud83d", tool_call_id="c", artifact={"nan": "x"}),
    ]
    history.add_messages(said[:2])
    history.add_message(said[2])
    history.add_messages([])
    assert history.messages == said
    assert AmberChatMessageHistory("会话 1!", db, limit=2).messages == said[1:]
    other = AmberChatMessageHistory("会话 1", db)
    other.add_user_message("hello")
    assert "hello" in str(other)
    history.clear()
    assert (history.messages, len(other.messages)) == ([], 1)
    history.add_message(said[0])
    assert history.messages == said[:1]


def test_sessions_with_long_names_are_apart(db: amberdb.Database) -> None:
    names = ["x" * 5000, "x" * 5001, " " * 400, "!" * 161]
    for name in names:
        AmberChatMessageHistory(name, db).add_user_message(name)
    for name in names:
        assert texts_of(AmberChatMessageHistory(name, db)) == [name]


def texts_of(history: AmberChatMessageHistory) -> list[Any]:
    return [message.content for message in history.messages]


def test_threads_add_whole_lists(db: amberdb.Database) -> None:
    start = threading.Barrier(4)

    def add(writer: int) -> None:
        history = AmberChatMessageHistory("s", db)
        start.wait(30)
        for n in range(25):
            history.add_messages([HumanMessage(f"{writer}.{n}"), AIMessage(f"{writer}.{n}")])

    threads = [threading.Thread(target=add, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said = texts_of(AmberChatMessageHistory("s", db))
    assert said[::2] == said[1::2]
    for writer in range(4):
        own = [text for text in said[::2] if text.startswith(f"{writer}.")]
        assert own == [f"{writer}.{n}" for n in range(25)]


@pytest.mark.parametrize("session_id", ["", None, 7])
def test_a_session_has_a_name(db: amberdb.Database, session_id: Any) -> None:
    with pytest.raises(InvalidDocumentError, match="session_id"):
        AmberChatMessageHistory(session_id, db)


# -- document index ----------------------------------------------------------------------------


async def test_documents_are_found_by_words_and_filter(db: amberdb.Database) -> None:
    index = AmberDocumentIndex(db, k=1)
    index.upsert(
        [
            Document("the umbrella is in the car", id="1", metadata={"user": "lin"}),
            Document("an umbrella, an umbrella", id="2", metadata={"user": "wu"}),
            Document("下午在手机上开会", id="3", metadata={"user": "wu"}),
        ]
    )
    assert [document.id for document in index.invoke("umbrella")] == ["2"]
    assert [document.id for document in index.invoke("umbrella", filter={"user": "lin"})] == ["1"]
    assert len(await index.ainvoke("umbrella", k=5)) == 2
    assert [document.id for document in await index.ainvoke("手机")] == ["3"]
    assert index.invoke("?!") == []
    assert AmberDocumentIndex(db).k == 4


async def test_a_bad_document_stores_none(db: amberdb.Database) -> None:
    index = AmberDocumentIndex(db)
    with pytest.raises(InvalidDocumentError):
        await index.aupsert([Document("fine", id="1"), Document("bad", metadata={"x": object()})])
    assert await index.aget(["1"]) == []
    with pytest.raises(ValueError, match="ids"):
        await index.adelete()
    with pytest.raises(TypeError, match="id"):
        index.delete(id=["1"])


# -- the page ----------------------------------------------------------------------------------


def test_the_sample_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    section = PAGE.read_text(encoding="utf-8")
    samples = re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S)
    assert samples
    for sample in samples:
        exec(sample, {"embeddings": DeterministicFakeEmbedding(size=8)})
