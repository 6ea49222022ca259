"""The context window of an agent and its archive: docs/context.md."""

from amberdb.context.context import (
    AgentContext,
)
from amberdb.context.external import (
    ExternalMemory,
)
from amberdb.context.sessions import (
    Sessions,
)
from amberdb.context.types import (
    Appended,
    Deleted,
    Message,
    Part,
    Summarize,
)

__all__ = [
    "AgentContext",
    "ExternalMemory",
    "Sessions",
    "Appended",
    "Deleted",
    "Message",
    "Part",
    "Summarize",
]
