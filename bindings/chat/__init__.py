"""A buffer for conversations: turns are acknowledged at once and flushed in batches to a sink.

See docs/chat.md.
"""

from amberdb._shared.tokens import (
    count_tokens,
)
from amberdb.chat.buffer import (
    ChatBuffer,
    Saved,
)
from amberdb.chat.context import (
    Deleted,
)
from amberdb.chat.conversations import (
    Conversation,
)
from amberdb.chat.delivery import (
    Flushed,
)
from amberdb.chat.schedule import (
    Flusher,
    Schedule,
)
from amberdb.chat.sinks import (
    CollectionSink,
    DeletingSink,
    JsonlSink,
    ListingSink,
    SearchingSink,
    Sink,
)
from amberdb.chat.sources import (
    Broken,
)
from amberdb.chat.transfer import (
    TransferReport,
    export_jsonl,
    import_json,
    import_redis,
    import_rows,
    import_sqlite,
)
from amberdb.chat.turns import (
    Turns,
)

__all__ = [
    "ChatBuffer",
    "Deleted",
    "Saved",
    "count_tokens",
    "Conversation",
    "Flushed",
    "Flusher",
    "Schedule",
    "CollectionSink",
    "DeletingSink",
    "JsonlSink",
    "ListingSink",
    "SearchingSink",
    "Sink",
    "Broken",
    "TransferReport",
    "export_jsonl",
    "import_json",
    "import_redis",
    "import_rows",
    "import_sqlite",
    "Turns",
]
