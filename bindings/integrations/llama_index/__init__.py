"""A vector store, a chat store and a key-value store for LlamaIndex:
docs/integrations/llama_index.md."""

from amberdb.integrations.llama_index.chat_store import (
    AmberChatStore,
)
from amberdb.integrations.llama_index.kv_store import (
    AmberKVStore,
)
from amberdb.integrations.llama_index.vector_store import (
    AmberVectorStore,
)

__all__ = [
    "AmberVectorStore",
    "AmberChatStore",
    "AmberKVStore",
]
