"""mem0's provider `langchain` over the vector store. No model is asked: infer=False stores what it
is given, and the vectors are made up."""

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from amberdb.integrations.langchain import AmberVectorStore


class _Embedder:
    """mem0's own ones need a network, or the package langchain."""

    def __init__(self, config: Any, embeddings: DeterministicFakeEmbedding) -> None:
        self.config = config
        self._embeddings = embeddings

    def embed(self, text: str, memory_action: Any = None) -> list[float]:
        return self._embeddings.embed_query(text)

    def embed_batch(self, texts: list[str], memory_action: Any = None) -> list[list[float]]:
        return self._embeddings.embed_documents(texts)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of langchain-community, and mem0's own
def test_memories_are_added_searched_listed_changed_and_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "MEM0_TELEMETRY", "False")
    monkeypatch.setitem(os.environ, "MEM0_DIR", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mem0 import Memory
    embeddings = DeterministicFakeEmbedding(size=16)
    store = AmberVectorStore(tmp_path / "db", embeddings)
    memory = Memory.from_config(
        {
            "vector_store": {"provider": "langchain", "config": {"client": store}},
            "embedder": {"provider": "openai", "config": {"api_key": "none"}},
            "llm": {"provider": "openai", "config": {"api_key": "none"}},
            "history_db_path": str(tmp_path / "history.db"),
        }
    )
    memory.embedding_model = _Embedder(memory.embedding_model.config, embeddings)
    for user, text in (("lin", "the umbrella is in the car"), ("lin", "下午三点开会"), ("wu", "x")):
        memory.add(text, user_id=user, infer=False)

    lin, wu = {"user_id": "lin"}, {"user_id": "wu"}
    (found,) = memory.search("下午三点开会", filters=lin, top_k=1)["results"]
    assert found["memory"] == "下午三点开会"
    assert found["score"] == pytest.approx(1)
    assert len(memory.get_all(filters=lin)["results"]) == 2

    memory.update(found["id"], "改到四点")
    assert memory.get(found["id"])["memory"] == "改到四点"
    memory.delete(found["id"])
    assert memory.get(found["id"]) is None
    memory.delete_all(user_id="lin")
    assert memory.get_all(filters=lin)["results"] == []
    assert len(memory.get_all(filters=wu)["results"]) == 1
    memory.reset()
    assert memory.get_all(filters=wu)["results"] == []
    memory.close()
    store.close()
