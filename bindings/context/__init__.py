"""The context window of an agent and its archive: docs/context.md."""

from amberdb._shared.tokens import (
    token_counter,
)
from amberdb.context.blocks import (
    Blocks,
)
from amberdb.context.context import (
    AgentContext,
)
from amberdb.context.external import (
    ExternalMemory,
)
from amberdb.context.messages import (
    Message,
)
from amberdb.context.sessions import (
    Sessions,
)
from amberdb.context.tools import (
    TOOL_NAMES,
    run_tool,
    tool_schemas,
)
from amberdb.context.transfer import (
    Imported,
    import_letta,
    import_messages,
)
from amberdb.context.types import (
    Appended,
    Deleted,
    Part,
    Summarize,
)

__all__ = [
    "AgentContext",
    "Blocks",
    "ExternalMemory",
    "Sessions",
    "Appended",
    "Deleted",
    "Imported",
    "Message",
    "Part",
    "Summarize",
    "TOOL_NAMES",
    "import_letta",
    "import_messages",
    "run_tool",
    "token_counter",
    "tool_schemas",
]
