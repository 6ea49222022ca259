"""What layered memory is made of: layers, actions, decisions, and what is told of them.

Invariants:
- A decision is complete: applying it asks neither a model nor a clock that the caller did not give.
- Values never change once made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal, Protocol, TypeAlias, final

from amberdb import Document, Lsn

Layer: TypeAlias = Literal["profile", "event"]
MemoryType: TypeAlias = Literal["user", "agent"]
Action: TypeAlias = Literal["insert", "update", "ignore", "delete"]

LAYERS: Final[tuple[Layer, ...]] = ("profile", "event")
MEMORY_TYPES: Final[tuple[MemoryType, ...]] = ("user", "agent")
ACTIONS: Final[tuple[Action, ...]] = ("insert", "update", "ignore", "delete")
CATEGORIES: Final[Mapping[Layer, tuple[str, ...]]] = {
    "profile": ("preference", "ability", "career", "education", "personality", "value"),
    "event": ("conversation", "meeting", "action", "decision", "event", "other"),
}
"""Known from the start; Memory(categories=) adds to them."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long each layer is kept; None is for ever.

    Memories that are permanent or bring an expiry_date of their own are left alone.
    """

    profile: timedelta | None = None
    """Since the last change."""
    event: timedelta | None = timedelta(days=90)
    log: timedelta | None = None

    def of(self, layer: Layer) -> timedelta | None:
        return self.profile if layer == "profile" else self.event


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is to be done with one piece of what was said."""

    action: Action
    memory_layer: Layer
    reason: str
    """In words, for the log."""
    content: str | None = None
    """Of insert and update."""
    memory_id: str | None = None
    """Of update and delete; of ignore the memory that says it already, where there is one."""
    category: str | None = None
    is_permanent: bool | None = None
    expiry_date: datetime | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done: one entry of the log."""

    action: Action
    memory_layer: Layer
    memory_id: str
    reason: str
    log_id: str


@final
@dataclass(frozen=True, slots=True)
class Known:
    """What an extractor is told of an entity: both layers, newest first."""

    memory_type: MemoryType
    entity_id: str
    profile: Sequence[Document]
    events: Sequence[Document]
    now: datetime


class Extractor(Protocol):
    """Turns a text into decisions. Raises ExtractionError when it cannot."""

    def __call__(self, text: str, known: Known) -> Sequence[Decision]: ...


@final
@dataclass(frozen=True, slots=True)
class Recalled:
    """One memory that was found."""

    memory_layer: Layer
    memory_id: str
    score: float
    document: Document


@final
@dataclass(frozen=True, slots=True)
class Forgotten:
    """The receipt of forget(): how much of what is gone. Nothing of what it said."""

    profile: int
    events: int
    logs: int
    """Entries whose reasons and metadata were erased."""
    lsn: Lsn
    time: datetime
    is_compacted: bool
    """Whether nothing of it is left in any file of the directory. Backups keep what they have."""
