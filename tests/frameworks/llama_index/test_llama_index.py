"""The stores of LlamaIndex beside LlamaIndex's own, and behaviour of their own."""

import asyncio
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document as LlamaDocument
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, MessageRole, TextBlock
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.schema import (
    ImageNode,
    IndexNode,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.storage.chat_store import SimpleChatStore
from llama_index.core.storage.docstore.keyval_docstore import KVDocumentStore
from llama_index.core.storage.index_store.keyval_index_store import KVIndexStore
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

import amberdb
from amberdb.integrations.llama_index import AmberChatStore, AmberKVStore, AmberVectorStore

PAGE = Path(__file__).parents[3] / "docs" / "integrations" / "llama_index.md"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "llama.amber"


@pytest.fixture
def store(path: Path) -> Iterator[AmberVectorStore]:
    store = AmberVectorStore(path, embed_dim=2)
    yield store
    store.close()


@pytest.fixture
def chat(path: Path) -> Iterator[AmberChatStore]:
    store = AmberChatStore(path)
    yield store
    store.close()


@pytest.fixture
def values(path: Path) -> Iterator[AmberKVStore]:
    store = AmberKVStore(path)
    yield store
    store.close()


def node(id: str, text: str = "x", *, of: str | None = None, **more: Any) -> TextNode:
    given = {"embedding": [1.0, 0.0], **more}
    made = TextNode(id_=id, text=text, **given)
    if of is not None:
        made.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=of)
    return made


def ids(nodes: Any) -> list[str]:
    return [each.node_id for each in nodes]


def test_sample_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    section = PAGE.read_text(encoding="utf-8")
    sample = re.search(r"^```python\n(.*?)^```$", section, re.M | re.S)
    assert sample is not None
    exec(compile(sample[1], str(PAGE), "exec"), {"__name__": "sample"})


# -- vectors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        node("a", "下午的会议", of="d", metadata={"a.b": 1, "list": ["x"], "$d": None, "": 1.5}),
        IndexNode(id_="i", text="t", index_id="other", embedding=[0.0, 1.0]),
        ImageNode(id_="p", image="aGk=", image_mimetype="image/png", embedding=[0.0, 1.0]),
        TextNode(id_="e", text="", embedding=[1.0, 1.0]),
    ],
    ids=lambda each: each.node_id,
)
def test_a_node_comes_back_whole(store: AmberVectorStore, given: TextNode) -> None:
    assert store.add([given]) == [given.node_id]
    assert store.get_nodes() == [given]
    (found,) = store.query(VectorStoreQuery(query_embedding=[1.0, 1.0])).nodes or []
    assert found == given.model_copy(update={"embedding": None})


METADATA = [
    {"n": 1, "s": "one", "tags": ["a", "b"]},
    {"n": 2.5, "s": "Two", "tags": ["b"]},
    {"n": None, "s": "", "tags": []},
    {"other": 1},
]
FILTERS = [
    (key, operator, value)
    for key, operators, values in (
        ("n", ["==", "!=", ">", ">=", "<", "<="], [1, 2, 2.5]),
        ("s", ["==", "!=", ">", "<="], ["one", ""]),
        ("n", ["in", "nin"], [[1, 3], []]),
        ("s", ["in", "nin"], [["one", "x"]]),
        ("tags", ["contains"], ["a", "z"]),
        ("tags", ["any", "all"], [["a", "b"], ["z"]]),
        ("s", ["text_match"], ["n", "T"]),
        ("n", ["is_empty", "==", "!="], [None]),
        ("s", ["is_empty"], [None]),
        ("tags", ["is_empty"], [None]),
    )
    for operator in operators
    for value in values
]


@pytest.mark.parametrize("condition", list(FilterCondition))
@pytest.mark.parametrize(("key", "operator", "value"), FILTERS)
def test_filters_match_as_in_the_simple_store(
    store: AmberVectorStore, key: str, operator: str, value: Any, condition: FilterCondition
) -> None:
    nodes = [node(f"{n}", metadata=metadata) for n, metadata in enumerate(METADATA)]
    peer = SimpleVectorStore()
    for each in (store, peer):
        each.add(nodes)
    asked = [
        MetadataFilter(key=key, operator=FilterOperator(operator), value=value),
        MetadataFilter(key="other", value=1),
    ]
    query = VectorStoreQuery(
        query_embedding=[1.0, 0.0],
        similarity_top_k=9,
        filters=MetadataFilters(filters=asked, condition=condition),
    )
    assert sorted(store.query(query).ids or []) == sorted(peer.query(query).ids or [])


def test_nested_filters(store: AmberVectorStore) -> None:
    store.add([node(f"{n}", metadata=metadata) for n, metadata in enumerate(METADATA)])
    inner = MetadataFilters(
        filters=[MetadataFilter(key="n", value=1), MetadataFilter(key="other", value=1)],
        condition=FilterCondition.OR,
    )
    outer = MetadataFilters(filters=[inner], condition=FilterCondition.NOT)
    assert ids(store.get_nodes(filters=inner)) == ["0", "3"]
    assert ids(store.get_nodes(filters=outer)) == ["1", "2"]


@pytest.mark.parametrize("operator", ["in", "all", "text_match_insensitive"])
def test_filters_that_cannot_be_answered_are_refused(
    store: AmberVectorStore, operator: str
) -> None:
    asked = MetadataFilter(key="s", operator=FilterOperator(operator), value="x")
    with pytest.raises(ValueError, match=operator):
        store.get_nodes(filters=MetadataFilters(filters=[asked]))


def test_documents_narrow_a_query(store: AmberVectorStore) -> None:
    store.add([node("a", of="d"), node("b", of="e"), node("c")])

    def found(doc_ids: list[str] | None, node_ids: list[str] | None = None) -> set[str]:
        query = VectorStoreQuery(
            query_embedding=[1.0, 0.0], similarity_top_k=9, doc_ids=doc_ids, node_ids=node_ids
        )
        return set(store.query(query).ids or [])

    assert found(None) == found(None, []) == {"a", "b", "c"}
    assert found(["d", "gone"]) == {"a"}
    assert found([]) == set()  # no document is allowed
    assert found(["d"], ["b"]) == set()


def test_deleting(store: AmberVectorStore) -> None:
    store.add([node("a", of="d"), node("b", of="d"), node("c", of="e"), node("f")])
    store.delete("d")
    assert ids(store.get_nodes()) == ["c", "f"]
    with pytest.raises(ValueError, match="clear"):
        store.delete_nodes()
    store.delete_nodes(node_ids=[])
    assert ids(store.get_nodes(node_ids=["f", "gone", "c"])) == ["f", "c"]
    store.delete_nodes(node_ids=["f"])
    assert ids(store.get_nodes()) == ["c"]
    store.clear()
    assert store.get_nodes() == []


def test_modes(store: AmberVectorStore) -> None:
    store.add(
        [
            node("a", "the umbrella in the car", embedding=[1.0, 0.0]),
            node("b", "下午在公司开会", embedding=[0.9, 0.1]),
            node("c", "nothing", embedding=[0.0, 1.0]),
        ]
    )

    def found(mode: VectorStoreQueryMode, **more: Any) -> list[str]:
        given = {"query_embedding": [1.0, 0.0], "query_str": "公司?", "similarity_top_k": 2, **more}
        return store.query(VectorStoreQuery(mode=mode, **given)).ids or []

    assert found(VectorStoreQueryMode.DEFAULT) == ["a", "b"]
    assert found(VectorStoreQueryMode.MMR, mmr_threshold=0.1) == ["a", "c"]
    assert found(VectorStoreQueryMode.TEXT_SEARCH) == ["b"]
    assert found(VectorStoreQueryMode.HYBRID, hybrid_top_k=1) == ["b"]
    assert found(VectorStoreQueryMode.HYBRID, alpha=1.0) == ["a", "b"]
    assert found(VectorStoreQueryMode.HYBRID, alpha=0.0) == ["b"]
    assert found(VectorStoreQueryMode.DEFAULT, node_ids=["c"]) == ["c"]
    assert found(VectorStoreQueryMode.DEFAULT, similarity_top_k=0) == []
    for wrong in ({"mode": VectorStoreQueryMode.SVM}, {"query_embedding": None}, {"alpha": 2.0}):
        with pytest.raises(ValueError, match=r"support|needs|alpha"):
            found(**{"mode": VectorStoreQueryMode.HYBRID, **wrong})


@pytest.mark.parametrize(
    "bad", [node("b", embedding=[1.0]), node("b", metadata={"n": 2**70}), node("x" * 1000)]
)
def test_of_nodes_with_a_bad_one_none_is_stored(store: AmberVectorStore, bad: TextNode) -> None:
    with pytest.raises(amberdb.InvalidDocumentError):
        store.add([node("a"), bad])
    assert store.get_nodes() == []


def test_an_index_over_all_three_stores(path: Path) -> None:
    with amberdb.open(path) as db:
        vectors, values = AmberVectorStore(db, embed_dim=8), AmberKVStore(db)
        context = StorageContext.from_defaults(
            vector_store=vectors,
            docstore=KVDocumentStore(values, batch_size=100),
            index_store=KVIndexStore(values),
        )
        model = MockEmbedding(embed_dim=8)
        documents = [
            LlamaDocument(text="雨伞在车里", doc_id="d"),
            LlamaDocument(text="no", doc_id="e"),
        ]
        index = VectorStoreIndex.from_documents(
            documents, storage_context=context, embed_model=model, show_progress=False
        )
        index.delete_ref_doc("e")
        (hit,) = index.as_retriever().retrieve("雨伞")
        assert hit.node.ref_doc_id == "d"
        vectors.close()
    with AmberVectorStore(path, embed_dim=8).client as db:
        again = VectorStoreIndex.from_vector_store(
            AmberVectorStore(db, embed_dim=8), embed_model=model
        )
        assert again.as_retriever().retrieve("x")[0].text == "雨伞在车里"


def test_a_store_is_described_by_its_parameters(path: Path) -> None:
    store = AmberVectorStore(path, embed_dim=2)
    store.add([node("a")])
    described, state = store.to_dict(), store.__getstate__()
    store.close()
    store.close()
    with pytest.raises(amberdb.ClosedError):
        store.get_nodes()
    unpickled = AmberVectorStore.__new__(AmberVectorStore)
    unpickled.__setstate__(state)
    for again in (AmberVectorStore.from_dict(described), unpickled):
        assert ids(again.get_nodes()) == ["a"]
        again.close()


# -- chat ------------------------------------------------------------------------------------


def message(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.USER, content=text)


def test_messages_come_back_whole(chat: AmberChatStore) -> None:
    given = ChatMessage(
        role=MessageRole.ASSISTANT,
        blocks=[TextBlock(text="你好 👍🏽"), ImageBlock(image=b"aGk=", image_mimetype="image/png")],
        additional_kwargs={"tool_calls": [{"id": "1", "n": 2}]},
    )
    chat.set_messages("k", [given])
    assert chat.get_messages("k") == [given]


@pytest.mark.parametrize("seed", range(8))
def test_chat_is_as_the_simple_one(chat: AmberChatStore, seed: int) -> None:
    chance, peer = random.Random(seed), SimpleChatStore()
    for step in range(60):
        key = chance.choice(["a", "键"])
        count = len(peer.get_messages(key))
        call, *arguments = chance.choice(
            [
                ("add_message", message(f"{step}")),
                ("add_message", message(f"{step}")),
                ("add_message", message(f"{step}")),
                ("delete_message", chance.randrange(-count, count + 2) if count else 1),
                ("set_messages", [message(f"{step}.{n}") for n in range(1, 4)]),
                ("delete_messages",),
            ]
        )
        asked = getattr(chat, call)(key, *arguments)
        wanted = getattr(peer, call)(key, *arguments)
        assert asked == (wanted or None)
        assert chat.get_messages(key) == peer.get_messages(key)
        assert set(chat.get_keys()) == {key for key in peer.get_keys() if peer.get_messages(key)}


def test_tasks_add_to_one_conversation(chat: AmberChatStore, path: Path) -> None:
    other = AmberChatStore(path)

    async def every() -> None:
        adds = (
            (chat, other)[number % 2].async_add_message("k", message(f"{number}"))
            for number in range(40)
        )
        await asyncio.gather(*adds)

    asyncio.run(every())
    other.close()
    texts = [each.content for each in chat.get_messages("k")]
    assert sorted(texts, key=lambda text: int(text or "")) == [f"{n}" for n in range(40)]


def test_a_memory_on_the_store(chat: AmberChatStore) -> None:
    memory = ChatMemoryBuffer.from_defaults(
        chat_store=chat, chat_store_key="lin", token_limit=100, tokenizer_fn=str.split
    )
    memory.put(message("我的伞在哪里？"))
    assert [each.content for each in memory.get()] == ["我的伞在哪里？"]
    memory.reset()
    assert chat.get_keys() == []


# -- values ----------------------------------------------------------------------------------


def test_values_are_as_in_the_simple_store(values: AmberKVStore) -> None:
    peer = SimpleKVStore()
    for each in (values, peer):
        each.put_all([("a", {"n": 1}), ("b/c", {"文": ["x", None, {"$y": 1.5}]})], "one")
        each.put("a", {"n": 2}, "one/two")
        each.put("a", {"n": 3})
        assert each.delete("gone") is False
        assert each.delete("a") is True
    for collection in ("one", "one/two", "data", "none"):
        assert values.get_all(collection) == peer.get_all(collection)
        assert values.get("a", collection) == peer.get("a", collection)


def test_values_are_all_stored_or_none(values: AmberKVStore) -> None:
    with pytest.raises(amberdb.InvalidDocumentError):
        values.put_all([("a", {}), ("b", {"n": object()})])
    assert values.get_all() == {}


def test_values_from_several_tasks(values: AmberKVStore) -> None:
    async def every() -> dict[str, dict[str, Any]]:
        await asyncio.gather(*(values.aput(f"{n}", {"n": n}) for n in range(30)))
        assert await values.adelete("0")
        assert await values.aget("0") is None
        return await values.aget_all()

    assert len(asyncio.run(every())) == 29
    values.close()
    values.close()
    with pytest.raises(amberdb.ClosedError):
        asyncio.run(values.aget("1"))


@pytest.mark.parametrize("kind", [AmberVectorStore, AmberChatStore, AmberKVStore])
def test_a_collection_of_somebody_else_is_refused(kind: Any, path: Path) -> None:
    with amberdb.open(path) as db:
        db.collection("mine", indexes=[], owner="me")
        with pytest.raises(amberdb.CollectionError, match="mine"):
            kind(path, collection="mine")
        kind(db).close()
        assert len(db.collections()) == 2
