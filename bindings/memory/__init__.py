"""Layered memory of users: profile, events and an operation log: docs/memory.md."""

from amberdb.memory.memory import (
    Memory,
)
from amberdb.memory.model import (
    ChatExtractor,
)
from amberdb.memory.recall_page import (
    RecallPage,
)
from amberdb.memory.rules import (
    RuleExtractor,
)
from amberdb.memory.transfer import (
    Broken,
    Expired,
    ImportReport,
    import_mem0,
    import_zmemory,
)
from amberdb.memory.types import (
    Action,
    Decision,
    Extractor,
    Forgotten,
    Known,
    Layer,
    MemoryType,
    Outcome,
    Recalled,
    Retention,
)

__all__ = [
    "Memory",
    "ChatExtractor",
    "RuleExtractor",
    "import_mem0",
    "import_zmemory",
    "Action",
    "Broken",
    "Decision",
    "Expired",
    "Extractor",
    "Forgotten",
    "ImportReport",
    "Known",
    "Layer",
    "MemoryType",
    "Outcome",
    "Recalled",
    "RecallPage",
    "Retention",
]
