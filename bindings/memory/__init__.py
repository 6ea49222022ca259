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
    "Action",
    "Decision",
    "Extractor",
    "Forgotten",
    "Known",
    "Layer",
    "MemoryType",
    "Outcome",
    "Recalled",
    "RecallPage",
    "Retention",
]
