"""LangChain on AmberDB, with the extra `langchain`: docs/integrations/langchain.md."""

try:
    import langchain_core as _  # noqa: F401
except ImportError as error:
    raise ImportError(
        'amberdb.integrations.langchain needs langchain-core: pip install "amberdb[langchain]"'
    ) from error

from amberdb.integrations.langchain.byte_store import (
    AmberByteStore,
)
from amberdb.integrations.langchain.cache import (
    AmberCache,
)
from amberdb.integrations.langchain.chat_history import (
    AmberChatMessageHistory,
)
from amberdb.integrations.langchain.document_index import (
    AmberDocumentIndex,
)
from amberdb.integrations.langchain.vector_store import (
    AmberVectorStore,
)

__all__ = [
    "AmberVectorStore",
    "AmberByteStore",
    "AmberCache",
    "AmberDocumentIndex",
    "AmberChatMessageHistory",
]
