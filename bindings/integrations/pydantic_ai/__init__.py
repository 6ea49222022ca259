"""Conversations of Pydantic AI on AmberDB, with the extra `pydantic-ai`:
docs/integrations/pydantic_ai.md."""

try:
    import pydantic_ai as _  # noqa: F401
except ImportError as error:
    raise ImportError(
        'amberdb.integrations.pydantic_ai needs Pydantic AI: pip install "amberdb[pydantic-ai]"'
    ) from error

from amberdb.integrations.pydantic_ai.conversation_store import (
    AmberConversationStore,
)

__all__ = [
    "AmberConversationStore",
]
