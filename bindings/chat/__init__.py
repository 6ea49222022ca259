"""A buffer for conversations: turns are acknowledged at once and flushed in batches to a sink.

See docs/chat.md.
"""

from amberdb._shared.tokens import (
    count_tokens,
)
from amberdb.chat.buffer import (
    ChatBuffer,
    Flushed,
    Saved,
)
from amberdb.chat.schedule import (
    Flusher,
    Schedule,
)
from amberdb.chat.sinks import (
    CollectionSink,
    JsonlSink,
    Sink,
)

__all__ = [
    "ChatBuffer",
    "Flushed",
    "Saved",
    "count_tokens",
    "Flusher",
    "Schedule",
    "CollectionSink",
    "JsonlSink",
    "Sink",
]
